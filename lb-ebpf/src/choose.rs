//! Choosing a backend: a slot of the service's table, then on to another until one takes new flows.
//!
//! The walk takes pseudo-random slots, not the next ones: a slot number that is fresh in each round lets
//! the verifier see that all rounds are alike.

use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use lb_common::{
    Affinity, AffinityKey, Backend, Reason, SLOTS_LARGE, SLOTS_MEDIUM, SLOTS_SMALL, Service,
    WALK_STEPS, algorithm, backend_state, is_lighter, next_hash, scale, service_flag, turn_hash,
};

use crate::{
    clock::now,
    counters, dry_run, load,
    maps::{LB_AFFINITY, LB_BACKENDS, LB_LIMITS, LB_SERVICE_STATES},
    maps::{LB_TABLES_L, LB_TABLES_M, LB_TABLES_S},
    suspect,
    tables::ANY,
};

/// Id 0 is never given to a backend.
pub const NONE: u32 = 0;
/// Beside [`service_flag::FAIL_OPEN`] in `also`, the backends that a choice takes besides those that are active: suspects.
const SUSPECTS: u32 = 1 << 31;
const SECOND: u64 = 1_000_000_000;

/// A backend that takes new flows, and its id. `hash`: of what the service's algorithm goes by.
#[inline(always)]
pub fn choose(
    service: &Service,
    client: &AffinityKey,
    hash: u32,
) -> Option<(u32, &'static Backend)> {
    let known = if service.affinity == 0 {
        NONE
    } else {
        lb_recall(service, client)
    };
    let id = match known {
        NONE => by_algorithm(service, hash),
        known => known,
    };
    if id == NONE {
        return None;
    }
    let backend = LB_BACKENDS.get(id)?;
    if !dry_run::is_on() {
        suspect::try_out(id, backend.generation);
        if service.affinity != 0 && known == NONE {
            lb_remember(client, id);
        }
    }
    Some((id, backend))
}

#[inline(always)]
fn by_algorithm(service: &Service, hash: u32) -> u32 {
    let also = service.flags & service_flag::FAIL_OPEN;
    let id = match service.algorithm {
        algorithm::LEAST_CONN => lb_choose_lighter(service.id, service.slots, also),
        algorithm::ROUND_ROBIN => {
            let hash = turn(service);
            lb_choose(service.id, service.slots, hash, also)
        }
        _ => lb_choose(service.id, service.slots, hash, also),
    };
    if id != NONE {
        return id;
    }
    // Where all are suspect, none is.
    lb_choose(service.id, service.slots, hash, also | SUSPECTS)
}

/// The hash of the slot whose turn it is.
#[inline(always)]
fn turn(service: &Service) -> u32 {
    let Some(state) = LB_SERVICE_STATES.get_ptr_mut(service.id) else {
        return 0;
    };
    let turn = if dry_run::is_on() {
        // SAFETY: a live map value.
        unsafe { (&raw const (*state).turn).read_volatile() }
    } else {
        // SAFETY: as above.
        unsafe { load::fetch_add(&raw mut (*state).turn, 1) }
    };
    turn_hash(turn as u32, service.slots)
}

/// The backend that this client had last, if it still takes new flows, else [`NONE`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_recall(service: *const Service, client: *const AffinityKey) -> u32 {
    // SAFETY: null or a whole value, which is what the verifier grants for arguments of these types.
    let (Some(service), Some(client)) = (unsafe { service.as_ref() }, unsafe { client.as_ref() })
    else {
        return NONE;
    };
    let Some(known) = LB_AFFINITY.get_ptr_mut(*client) else {
        return NONE;
    };
    // SAFETY: a live map value; concurrent writers only move its time.
    let known = unsafe { &mut *known };
    let now = now();
    let fresh = now.saturating_sub(known.last_used) <= u64::from(service.affinity) * SECOND;
    let fail_open = service.flags & service_flag::FAIL_OPEN != 0;
    let takes = |backend: &Backend| {
        backend.generation == known.generation
            && takes_flows(backend, fail_open)
            && !suspect::is_out(known.backend, known.generation)
            && load::has_room(known.backend)
    };
    if !fresh || !LB_BACKENDS.get(known.backend).is_some_and(takes) {
        return NONE;
    }
    if dry_run::is_on() {
        dry_run::note(|run| run.again = 1);
    } else {
        known.last_used = now;
    }
    known.backend
}

/// Remembers a client's backend.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_remember(client: *const AffinityKey, id: u32) -> u32 {
    // SAFETY: as above.
    let Some(client) = (unsafe { client.as_ref() }) else {
        return 0;
    };
    if let Some(backend) = LB_BACKENDS.get(id) {
        let chosen = Affinity {
            last_used: now(),
            backend: id,
            generation: backend.generation,
        };
        // A full table forgets the oldest client: affinity is kept as well as there is room.
        let _ = LB_AFFINITY.insert(*client, chosen, ANY);
    }
    0
}

/// Power of two choices: the better of two drawn at random is nearly as good as the best of all, and
/// nodes that do not know of each other do not all run to the same one (Mitzenmacher 2001).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_choose_lighter(service: u32, slots: u32, also: u32) -> u32 {
    // SAFETY: no arguments, no side effects.
    let random = unsafe { bpf_get_prandom_u32() };
    let one = lb_choose(service, slots, random, also);
    let other = lb_choose(service, slots, next_hash(random), also);
    if one == NONE || other == NONE {
        return one | other;
    }
    let (Some(limit), Some(other_limit)) = (LB_LIMITS.get(one), LB_LIMITS.get(other)) else {
        return one;
    };
    let lighter = is_lighter(
        load::flows(one),
        limit.weight,
        load::flows(other),
        other_limit.weight,
    );
    if lighter { one } else { other }
}

/// The id of a backend that takes new flows, or [`NONE`].
///
/// A global function of scalars: the verifier walks the loop once, not once for each state in which a
/// caller comes by.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_choose(service: u32, slots: u32, hash: u32, also: u32) -> u32 {
    dry_run::note(|run| run.hash = hash);
    let id = if slots as usize == SLOTS_SMALL {
        // SAFETY: the inner map is an array whose single element lives until an RCU grace period after
        // the swap.
        unsafe { LB_TABLES_S.get_value(&service, &0) }.and_then(|t| walk(t, hash, also))
    } else if slots as usize == SLOTS_MEDIUM {
        // SAFETY: the inner map is an array whose single element lives until an RCU grace period after
        // the swap.
        unsafe { LB_TABLES_M.get_value(&service, &0) }.and_then(|t| walk(t, hash, also))
    } else if slots as usize == SLOTS_LARGE {
        // SAFETY: the inner map is an array whose single element lives until an RCU grace period after
        // the swap.
        unsafe { LB_TABLES_L.get_value(&service, &0) }.and_then(|t| walk(t, hash, also))
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
fn takes_flows(backend: &Backend, fail_open: bool) -> bool {
    backend.state == backend_state::ACTIVE || (fail_open && backend.state == backend_state::DOWN)
}

#[inline(always)]
fn walk<const M: usize>(table: &'static [u32; M], hash: u32, also: u32) -> Option<u32> {
    let mut hash = hash;
    for _ in 0..WALK_STEPS {
        // Opaque to the compiler, which would otherwise fold the shift of `scale` with that of the
        // index and leave the verifier a bound that is one byte too wide.
        let slot = core::hint::black_box(scale(hash, M as u32) as usize);
        let id = *table.get(slot)?;
        if let Some(backend) = LB_BACKENDS.get(id)
            && takes_flows(backend, also & service_flag::FAIL_OPEN != 0)
            && (also & SUSPECTS != 0 || !suspect::is_out(id, backend.generation))
        {
            if load::has_room(id) {
                return Some(id);
            }
            // Once is enough.
            if also & SUSPECTS == 0 && !dry_run::is_on() {
                counters::count_only(Reason::BackendFull as u32);
            }
        }
        hash = next_hash(hash);
    }
    None
}
