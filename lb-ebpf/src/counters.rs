//! Per-CPU counters.

use core::hint::cold_path;

use lb_common::{
    BackendStats, ConnectionStats, Reason, ServiceStats, ServiceTraffic, handshake_bucket,
};

use crate::{
    maps::{
        LB_BACKENDS, LB_CONNECTIONS, LB_COUNTERS, LB_SERVICE_STATS, LB_SERVICE_TRAFFIC,
        LB_SNAT_TRIES, LB_STATS,
    },
    words,
};

/// Counts one packet or call under its reason.
#[inline(always)]
pub fn count(reason: Reason) {
    count_number(reason as u32);
}

/// As [`count`], by the reason's number.
#[inline(always)]
pub fn count_number(reason: u32) {
    words::count(reason);
}

/// As [`count_number`], and nothing is said of it: for where there is no stack left for a call.
#[inline(always)]
pub fn count_only(reason: u32) {
    // Few packets have a reason, next to those that are carried.
    cold_path();
    if let Some(counter) = LB_COUNTERS.get_ptr_mut(reason) {
        // SAFETY: a per-CPU value; programs on one CPU do not preempt each other within a hook, and a
        // lost increment between hooks is tolerable in a counter.
        unsafe { *counter += 1 };
    }
}

/// Counts a new flow by the source ports that were tried in vain, [`lb_common::SNAT_TRIES`] if that were all. A function of
/// its own: its key is not on the caller's stack.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_count_tries(before: u32) -> u32 {
    if let Some(counter) = LB_SNAT_TRIES.get_ptr_mut(before) {
        // SAFETY: as above.
        unsafe { *counter += 1 };
    }
    0
}

/// Changes the counters of one backend.
#[inline(always)]
pub fn backend(id: u32, change: impl FnOnce(&mut BackendStats)) {
    if let Some(stats) = LB_STATS.get_ptr_mut(id) {
        // SAFETY: as above.
        change(unsafe { &mut *stats });
    }
}

/// Changes what is counted of the connections to one backend, and of those of one service.
#[inline(always)]
pub fn connections(backend: u32, service_id: u32, change: impl Fn(&mut ConnectionStats)) {
    if let Some(stats) = LB_CONNECTIONS.get_ptr_mut(backend) {
        // SAFETY: as above.
        change(unsafe { &mut *stats });
    }
    service(service_id, |stats| change(&mut stats.connections));
}

/// Changes what is counted of one service.
#[inline(always)]
pub fn service(id: u32, change: impl FnOnce(&mut ServiceStats)) {
    if let Some(stats) = LB_SERVICE_STATS.get_ptr_mut(id) {
        // SAFETY: as above.
        change(unsafe { &mut *stats });
    }
}

/// Changes what is counted of one service's packets.
#[inline(always)]
pub fn traffic(service: u32, change: impl FnOnce(&mut ServiceTraffic)) {
    if let Some(traffic) = LB_SERVICE_TRAFFIC.get_ptr_mut(service) {
        // SAFETY: as above.
        change(unsafe { &mut *traffic });
    }
}

/// Counts a connection that the backend accepted after so many ns.
#[inline(always)]
pub fn handshake(backend: u32, service_id: u32, took: u64) {
    connections(backend, service_id, |stats| {
        stats.handshakes += 1;
        stats.handshake_ns += took;
    });
    service(service_id, |stats| {
        // Never out of bounds; the verifier sees it by the check.
        if let Some(count) = stats.handshakes.get_mut(handshake_bucket(took)) {
            *count += 1;
        }
    });
}

/// Counts a flow that is taken from its backend. The id may be another backend's by now.
#[inline(always)]
pub fn redispatched(backend: u32, generation: u32, service_id: u32) {
    let same = LB_BACKENDS.get(backend).map(|one| one.generation) == Some(generation);
    connections(if same { backend } else { 0 }, service_id, |stats| {
        stats.redispatched += 1;
    });
}
