//! Per-CPU counters.

use lb_common::{BackendStats, Reason};

use crate::maps::{LB_COUNTERS, LB_STATS};

/// Counts one packet or call under its reason.
#[inline(always)]
pub fn count(reason: Reason) {
    count_number(reason as u32);
}

/// As [`count`], by the reason's number.
#[inline(always)]
pub fn count_number(reason: u32) {
    if let Some(counter) = LB_COUNTERS.get_ptr_mut(reason) {
        // SAFETY: a per-CPU value; programs on one CPU do not preempt each other within a hook, and a
        // lost increment between hooks is tolerable in a counter.
        unsafe { *counter += 1 };
    }
}

/// Changes the counters of one backend.
#[inline(always)]
pub fn backend(id: u32, change: impl FnOnce(&mut BackendStats)) {
    if let Some(stats) = LB_STATS.get_ptr_mut(id) {
        // SAFETY: as above.
        change(unsafe { &mut *stats });
    }
}
