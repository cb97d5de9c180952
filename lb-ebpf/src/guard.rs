//! How many flows a CPU may open in a second: state costs far more than a packet, and whoever floods
//! must not make all others wait for it.

use aya_ebpf::Global;
use lb_common::Bucket;

use crate::{flows::now, maps::LB_GUARD};

/// New flows a second on each CPU; 0: no limit.
///
/// Its value before the agent sets it is one that no constant has: the compiler keeps equal constants in one
/// place, and a `&0` of another function was in this one's, so that the setting changed it, too.
#[unsafe(no_mangle)]
static NEW_FLOWS: Global<u32> = Global::new(u32::MAX - 1);

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
