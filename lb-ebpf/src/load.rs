//! How many flows there are, by backend and by service: counted up when one opens and down when it ends.
//! Flows that are evicted end unseen; the agent counts anew when it walks through the tables.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use crate::{
    clock, counters,
    maps::{LB_LIMITS, LB_LOADS, LB_SERVICE_STATES},
};

/// Flows of a backend.
#[inline(always)]
pub fn flows(backend: u32) -> u64 {
    count(LB_LOADS.get(backend).copied().unwrap_or(0))
}

/// What a counter says that another CPU may be taking below zero, and back, this very moment.
#[inline(always)]
pub fn count(flows: u64) -> u64 {
    if flows > MOST { 0 } else { flows }
}

/// More is less than none.
const MOST: u64 = u64::MAX / 2;

/// Whether a backend may be given another flow.
#[inline(always)]
pub fn has_room(backend: u32) -> bool {
    match LB_LIMITS.get(backend) {
        Some(limit) => limit.max_flows == 0 || flows(backend) < u64::from(limit.max_flows),
        None => true,
    }
}

/// Adds to a map value that all CPUs share and gives what it was. (The compiler holds the BPF target for
/// one without atomic read-modify-write, so `AtomicU64` cannot do it.)
///
/// Sequentially consistent, which counting does not need: of a relaxed addition LLVM makes the
/// instruction that does not give the old value, whether that is used or not.
///
/// # Safety
///
/// `value` points into a live map value, aligned to 8 bytes.
#[inline(always)]
pub unsafe fn fetch_add(value: *mut u64, by: u64) -> u64 {
    // SAFETY: as the caller says.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(value, by) }
}

/// Counts a flow that opens.
#[inline(always)]
pub fn add(backend: u32, service: u32) {
    if let Some(flows) = LB_LOADS.get_ptr_mut(backend) {
        // SAFETY: a live map value.
        unsafe { fetch_add(flows, 1) };
    }
    if let Some(state) = LB_SERVICE_STATES.get_ptr_mut(service) {
        // SAFETY: as above.
        unsafe { fetch_add(&raw mut (*state).flows, 1) };
    }
}

/// Counts a flow that ends; `opened`: as [`lb_common::Flow::opened`]. The agent may have counted it out already.
#[inline(always)]
pub fn remove(backend: u32, service: u32, opened: u32) {
    let lived = clock::millis().wrapping_sub(opened);
    counters::connections(backend, service, |stats| {
        stats.closed += 1;
        stats.lived_ms += u64::from(lived);
    });
    if let Some(flows) = LB_LOADS.get_ptr_mut(backend) {
        // SAFETY: a live map value.
        unsafe { down(flows) };
    }
    if let Some(state) = LB_SERVICE_STATES.get_ptr_mut(service) {
        // SAFETY: as above.
        unsafe { down(&raw mut (*state).flows) };
    }
}

/// # Safety
///
/// As [`fetch_add`].
#[inline(always)]
unsafe fn down(flows: *mut u64) {
    // Two CPUs may each have seen the last flow end: whoever finds none left gives back what it took.
    // SAFETY: as the caller says.
    unsafe {
        if count(fetch_add(flows, u64::MAX)) == 0 {
            fetch_add(flows, 1);
        }
    }
}
