//! How many flows a CPU may open in a second: state costs far more than a packet, and whoever floods
//! must not make all others wait for it.

use aya_ebpf::Global;
use lb_common::Guard;

use crate::{flows::now, maps::LB_GUARD};

/// New flows a second on each CPU; 0: no limit.
#[unsafe(no_mangle)]
static NEW_FLOWS: Global<u32> = Global::new(0);

const SECOND: u64 = 1_000_000_000;
/// Refills at this interval, ns; the coarse clock ticks every 1 to 10 ms.
const REFILL: u64 = SECOND / 64;
/// The most that is saved up, in parts of a second's flows.
const BURST: u64 = 8;

/// Whether this CPU has no new flow left.
#[inline(always)]
pub fn is_spent() -> bool {
    let rate = u64::from(NEW_FLOWS.load());
    rate != 0 && bucket(rate).is_some_and(|guard| guard.tokens == 0)
}

/// Takes one new flow.
#[inline(always)]
pub fn take() {
    if NEW_FLOWS.load() != 0
        && let Some(guard) = LB_GUARD.get_ptr_mut(0)
    {
        // SAFETY: a per-CPU value; XDP and tc programs of one CPU do not preempt each other.
        let guard = unsafe { &mut *guard };
        guard.tokens = guard.tokens.saturating_sub(1);
    }
}

#[inline(always)]
fn bucket(rate: u64) -> Option<&'static Guard> {
    let guard = LB_GUARD.get_ptr_mut(0)?;
    // SAFETY: as above.
    let guard = unsafe { &mut *guard };
    let now = now();
    let passed = now.saturating_sub(guard.refilled);
    if passed >= REFILL {
        let passed = if passed > SECOND { SECOND } else { passed };
        let fresh = rate * passed / SECOND;
        // A low rate gathers for longer.
        if fresh != 0 {
            let most = rate / BURST + 1;
            let tokens = guard.tokens + fresh;
            guard.refilled = now;
            guard.tokens = if tokens > most { most } else { tokens };
        }
    }
    Some(guard)
}
