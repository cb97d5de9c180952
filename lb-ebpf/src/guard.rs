//! How much a CPU may do in a second of what costs far more than a packet: open flows, send ICMP errors,
//! leave refusals to the stack. Whoever floods must not make all others wait.

use aya_ebpf::Global;
use lb_common::Bucket;

use crate::{clock::now, dry_run, maps::LB_GUARD};

/// New flows a second on each CPU; 0: no limit.
// Used: the compiler may otherwise let an equal constant share its place, which the agent overwrites.
#[used]
#[unsafe(no_mangle)]
static NEW_FLOWS: Global<u32> = Global::new(0);

/// ICMP errors a second that each CPU sends. Linux sends 10,000 in all (`icmp_msgs_per_sec`).
const ANSWERS: u32 = 1_000;
/// Refused packets a second that each CPU leaves to the stack, which sends a TCP reset for every one.
const REFUSALS: u32 = 20_000;

/// What is limited: the index of its bucket.
const FLOW: u32 = 0;
const ANSWER: u32 = 1;
const REFUSAL: u32 = 2;

/// Whether this CPU has no new flow left.
#[inline(always)]
pub fn is_spent() -> bool {
    let rate = NEW_FLOWS.load();
    if rate == 0 {
        return false;
    }
    let Some(bucket) = bucket(FLOW) else {
        return false;
    };
    if dry_run::is_on() {
        let mut bucket = *bucket;
        bucket.refill(rate, now());
        return bucket.tokens == 0;
    }
    bucket.refill(rate, now());
    bucket.tokens == 0
}

/// Takes one new flow.
#[inline(always)]
pub fn take() {
    if NEW_FLOWS.load() != 0
        && let Some(bucket) = bucket(FLOW)
    {
        bucket.take();
    }
}

/// Takes one ICMP error; whether there was one left.
#[inline(always)]
pub fn may_answer() -> bool {
    spend(ANSWER, ANSWERS)
}

/// Takes one refusal; whether there was one left.
#[inline(always)]
pub fn may_refuse() -> bool {
    spend(REFUSAL, REFUSALS)
}

#[inline(always)]
fn spend(index: u32, rate: u32) -> bool {
    bucket(index).is_some_and(|bucket| {
        bucket.refill(rate, now());
        bucket.take()
    })
}

#[inline(always)]
fn bucket(index: u32) -> Option<&'static mut Bucket> {
    let bucket = LB_GUARD.get_ptr_mut(index)?;
    // SAFETY: a per-CPU value; XDP and tc programs of one CPU do not preempt each other.
    Some(unsafe { &mut *bucket })
}
