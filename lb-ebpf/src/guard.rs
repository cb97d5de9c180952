//! How many flows a CPU may open in a second: state costs far more than a packet, and whoever floods
//! must not make all others wait for it.

use aya_ebpf::Global;
use lb_common::Bucket;

use crate::{flows::now, maps::LB_GUARD};

/// New flows a second on each CPU; 0: no limit.
// Used: the compiler may otherwise let an equal constant share its place, which the agent overwrites.
#[used]
#[unsafe(no_mangle)]
static NEW_FLOWS: Global<u32> = Global::new(0);

/// Whether this CPU has no new flow left.
#[inline(always)]
pub fn is_spent() -> bool {
    let rate = NEW_FLOWS.load();
    if rate == 0 {
        return false;
    }
    let Some(bucket) = bucket() else { return false };
    bucket.refill(rate, now());
    bucket.tokens == 0
}

/// Takes one new flow.
#[inline(always)]
pub fn take() {
    if NEW_FLOWS.load() != 0
        && let Some(bucket) = bucket()
    {
        bucket.take();
    }
}

#[inline(always)]
fn bucket() -> Option<&'static mut Bucket> {
    let bucket = LB_GUARD.get_ptr_mut(0)?;
    // SAFETY: a per-CPU value; XDP and tc programs of one CPU do not preempt each other.
    Some(unsafe { &mut *bucket })
}
