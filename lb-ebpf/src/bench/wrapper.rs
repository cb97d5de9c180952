//! The wrapper: it undoes what the last run did to the packet, and calls the program under test.
//!
//! `BPF_PROG_TEST_RUN` with `repeat` gives the second run what the first one made of the packet, which is
//! another packet. What the wrapper costs is measured with a program that does nothing, and taken away.

use core::arch::asm;

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_action::XDP_ABORTED,
    btf_maps::{Array, ProgramArray},
    helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    macros::{btf_map, xdp},
    programs::XdpContext,
};

use crate::setup::{Setup, WORDS};

#[btf_map]
pub static BENCH: Array<Setup, 1> = Array::new();

/// The program under test. One constant index makes the call a direct jump.
#[btf_map]
pub static BENCH_PROGRAM: ProgramArray<1> = ProgramArray::new();

/// Offsets of the last 16 bits of the source address, and of the source port.
const SOURCE4: (usize, usize) = (14 + 12 + 2, 14 + 20);
const SOURCE6: (usize, usize) = (14 + 8 + 14, 14 + 40);

#[xdp(frags)]
pub fn bench_wrapper(ctx: XdpContext) -> u32 {
    if restore(&ctx).is_some() {
        // SAFETY: map and context are the kernel's own; it does not come back unless the slot is empty.
        unsafe { BENCH_PROGRAM.tail_call(&ctx, 0) };
    }
    XDP_ABORTED
}

#[inline(always)]
fn restore(ctx: &XdpContext) -> Option<()> {
    let setup = BENCH.get_ptr_mut(0)?;
    // SAFETY: runs of a benchmark come one after the other; nobody else writes.
    let Setup {
        head,
        run,
        mask,
        stride,
        len,
        family,
        grows,
        swing,
        ..
    } = unsafe { &*setup };
    if *grows != 0 {
        shrink(ctx, *run, *grows as i32, *swing != 0);
    }
    let (data, end) = (ctx.data(), ctx.data_end());
    let more = *len as i32 - (end - data) as i32;
    if more != 0 && *swing == 0 {
        // SAFETY: the context is the kernel's own.
        unsafe { bpf_xdp_adjust_tail(ctx.as_ptr().cast(), more) };
    }
    let (data, end) = (ctx.data(), ctx.data_end());
    if data + WORDS * 8 > end {
        return None;
    }
    for (i, word) in head.iter().enumerate() {
        // Volatile: as many stores, where the compiler would call a function that copies byte by byte.
        // SAFETY: inside the packet, whose start is aligned as a page is, plus 256 bytes.
        unsafe { (data as *mut u64).add(i).write_volatile(*word) };
    }
    if *mask != 0 {
        let flow = run.wrapping_mul(*stride) & mask;
        let (addr, port) = if *family == 4 { SOURCE4 } else { SOURCE6 };
        // SAFETY: both offsets are below what was checked, and even.
        unsafe {
            *((data + addr) as *mut u16) = ((flow >> 8) as u16).to_be();
            *((data + port) as *mut u16) = (0x8000 | flow as u16 & 0xff).to_be();
        }
    }
    // Locked: the bytes are in the cache before the program reads them, as a card's are. Else a read that
    // covers two of the writes above would wait for both, and the program pay for how it was measured.
    // `core` has no such operation for this target.
    // SAFETY: aligned to 8, and alive as long as the map is.
    unsafe {
        asm!(
            "lock *(u64 *)({counter} + 0) += {one}",
            counter = in(reg) &raw mut (*setup).run,
            one = in(reg) 1_u64,
        );
    }
    Some(())
}

/// Takes off what the program put before the packet. Out of line: most cases do not need it.
#[inline(never)]
fn shrink(ctx: &XdpContext, run: u64, grows: i32, swing: bool) {
    let by = match (swing, run & 1) {
        (true, 0) => -grows,
        (false, _) if run == 0 => return,
        _ => grows,
    };
    // SAFETY: the context is the kernel's own.
    unsafe { bpf_xdp_adjust_head(ctx.as_ptr().cast(), by) };
}
