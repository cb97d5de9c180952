//! Choosing a backend: a slot of the Maglev table, then on to another until one takes new flows.
//!
//! The walk takes pseudo-random slots, not the next ones: a slot number that is fresh in each round lets
//! the verifier see that all rounds are alike.

use lb_common::{
    Backend, SLOTS_LARGE, SLOTS_MEDIUM, SLOTS_SMALL, Service, backend_state, next_hash, scale,
    service_flag,
};

use crate::maps::{LB_BACKENDS, LB_TABLES_L, LB_TABLES_M, LB_TABLES_S};

/// Id 0 is never given to a backend.
const NONE: u32 = 0;
/// How far the walk goes. With 9 of 10 backends out of service it misses once in 1,000 tries; the agent
/// rebuilds the table soon after.
const MAX_STEPS: usize = 64;

/// A backend that takes new flows, and its id.
#[inline(always)]
pub fn choose(service: &Service, hash: u32) -> Option<(u32, &'static Backend)> {
    let fail_open = service.flags & service_flag::FAIL_OPEN;
    let id = lb_choose(service.id, service.slots, hash, fail_open);
    if id == NONE {
        return None;
    }
    Some((id, LB_BACKENDS.get(id)?))
}

/// The id of a backend that takes new flows, or [`NONE`].
///
/// A global function of scalars: the verifier walks the loop once, not once for each state in which a
/// caller comes by.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_choose(service: u32, slots: u32, hash: u32, fail_open: u32) -> u32 {
    let fail_open = fail_open != 0;
    let id = if slots as usize == SLOTS_SMALL {
        // SAFETY: the inner map is an array whose single element lives until an RCU grace period after
        // the swap.
        unsafe { LB_TABLES_S.get_value(&service, &0) }.and_then(|t| walk(t, hash, fail_open))
    } else if slots as usize == SLOTS_MEDIUM {
        // SAFETY: the inner map is an array whose single element lives until an RCU grace period after
        // the swap.
        unsafe { LB_TABLES_M.get_value(&service, &0) }.and_then(|t| walk(t, hash, fail_open))
    } else if slots as usize == SLOTS_LARGE {
        // SAFETY: the inner map is an array whose single element lives until an RCU grace period after
        // the swap.
        unsafe { LB_TABLES_L.get_value(&service, &0) }.and_then(|t| walk(t, hash, fail_open))
    } else {
        None
    };
    id.unwrap_or(NONE)
}

/// Whether a flow on this backend may go on; `fail_open` is asked only for a backend that is down.
#[inline(always)]
pub fn keeps_flows(backend: &Backend, generation: u32, fail_open: impl FnOnce() -> bool) -> bool {
    backend.generation == generation
        && (backend.state == backend_state::ACTIVE
            || backend.state == backend_state::DRAINING
            || (backend.state == backend_state::DOWN && fail_open()))
}

#[inline(always)]
fn walk<const M: usize>(table: &'static [u32; M], hash: u32, fail_open: bool) -> Option<u32> {
    let mut hash = hash;
    for _ in 0..MAX_STEPS {
        // Opaque to the compiler, which would otherwise fold the shift of `scale` with that of the
        // index and leave the verifier a bound that is one byte too wide.
        let slot = core::hint::black_box(scale(hash, M as u32) as usize);
        let id = *table.get(slot)?;
        if let Some(backend) = LB_BACKENDS.get(id)
            && (backend.state == backend_state::ACTIVE
                || (fail_open && backend.state == backend_state::DOWN))
        {
            return Some(id);
        }
        hash = next_hash(hash);
    }
    None
}
