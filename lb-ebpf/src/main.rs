//! The kernel programs: one entry point a hook, one file a hook; what they share with the agent is in
//! `lb-common`.
#![no_std]
// Atomic addition, see `load::fetch_add`. The build allows unstable features anyhow (`-Z build-std`).
#![feature(core_intrinsics)]
#![allow(internal_features)]
#![no_main]
// Kernel helpers and packet pointers are raw by nature; every block says why it is sound.
#![allow(unsafe_code)]
// Entry points are found by section name, not by path.
#![allow(unreachable_pub)]

mod admit;
mod answer;
mod choose;
mod clock;
mod counters;
mod dry_run;
mod dsr;
mod ethernet;
mod extensions;
mod flows;
mod forward;
mod fragments;
mod frame;
mod geneve;
mod guard;
mod half;
mod icmp;
mod ingress;
mod load;
mod maps;
mod mss;
mod open;
mod peer;
mod peer_xdp;
mod rewrite;
mod sk_lookup;
mod sock;
mod sock_ops;
mod suspect;
mod tables;
mod tc;
mod tc_answer;
mod tc_odd;
mod tc_outer;
mod tc_reply;
mod trace;
mod views;
mod way;
#[cfg_attr(not(feature = "trace"), path = "silent.rs")]
mod words;
mod xdp;
mod xdp_odd;

/// GPL-only helpers are in use (`bpf_ktime_get_coarse_ns`).
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
