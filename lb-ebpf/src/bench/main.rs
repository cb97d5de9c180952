//! Kernel code for benchmarks: the wrapper that gives every run of a program the same packet, and the
//! floors that ours are held against. The agent has none of it.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
// Kernel helpers and packet pointers are raw by nature; every block says why it is sound.
#![allow(unsafe_code)]
// Entry points are found by section name, not by path.
#![allow(unreachable_pub)]

mod floors;
mod setup;
mod wrapper;

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
