//! The time.

use core::cell::UnsafeCell;

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};

/// What [`now`] read last; it changes with the jiffies alone.
///
/// Shared by all CPUs, which write it once a tick: a place that is known when the program is loaded costs one
/// instruction, a CPU's own costs five on every packet.
struct Clock(UnsafeCell<Reading>);

#[derive(Clone, Copy)]
#[repr(C)]
struct Reading {
    /// Jiffies since boot.
    jiffies: u64,
    /// `CLOCK_MONOTONIC_COARSE`, ns.
    now: u64,
}

// SAFETY: read and written by whole words that mean something each; see [`now`] for two that do not belong together.
unsafe impl Sync for Clock {}

static CLOCK: Clock = Clock(UnsafeCell::new(Reading { jiffies: 0, now: 0 }));

/// Coarse monotonic time, ns.
///
/// The kernel moves it with the jiffies, which are read without a call: the verifier turns that helper into
/// a load. Where another CPU is between its two writes, or one hook interrupts another, the time is that of a tick
/// before.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: no arguments, no side effects.
    let jiffies = unsafe { bpf_jiffies64() };
    let held = CLOCK.0.get();
    // SAFETY: a static's words, aligned; volatile, as others write them.
    unsafe {
        if (&raw const (*held).jiffies).read_volatile() == jiffies {
            return (&raw const (*held).now).read_volatile();
        }
        let now = bpf_ktime_get_coarse_ns();
        (&raw mut (*held).now).write_volatile(now);
        (&raw mut (*held).jiffies).write_volatile(jiffies);
        now
    }
}

/// The same in ms, for what lives on: the lower 32 bits, which come round after 49 days. Of what is rare, so that the helper
/// is called: it takes less of the stack.
#[inline(always)]
pub fn millis() -> u32 {
    // SAFETY: no arguments, no side effects.
    (unsafe { bpf_ktime_get_coarse_ns() } / 1_000_000) as u32
}

/// The time to the ns, for what is measured. It is never behind [`now`].
#[inline(always)]
pub fn precisely() -> u64 {
    // SAFETY: no arguments, no side effects.
    unsafe { bpf_ktime_get_ns() }
}
