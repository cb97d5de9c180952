//! Backends that do not answer: what the programs see of it, and what follows for new flows.

use aya_ebpf::helpers::{bpf_get_prandom_u32, generated::bpf_ktime_get_coarse_ns};
use lb_common::{
    Addr4, Addr6, Flow, FlowKey, Reason, backend_kind, direction, flow_flag,
    headers::{Packet, TCP, flow_key, tcp_flag, tcp_flags},
    icmp, service_flag, suspicion,
};

use crate::{
    choose::{NONE, lb_choose},
    counters,
    flows::{find, forget, is_accepted, service_of},
    maps::{LB_BACKENDS, LB_SUSPECTS},
    tables::Tables,
    words,
};

/// Whether a backend gets no new flows for now.
#[inline(always)]
pub fn is_out(id: u32, generation: u32) -> bool {
    LB_SUSPECTS
        .get(id)
        .is_some_and(|suspect| suspect.times != 0 && suspect.is_out(generation, coarse()))
}

/// Coarse monotonic time, ns, for what is rare: by the helper it takes less of the stack than from [`clock::now`].
#[inline(always)]
fn coarse() -> u64 {
    // SAFETY: no arguments, no side effects.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// A new flow goes to this backend.
#[inline(always)]
pub fn try_out(id: u32, generation: u32) {
    if let Some(suspect) = LB_SUSPECTS.get_ptr_mut(id) {
        // SAFETY: a live map value. CPUs that write at once may let two flows try a backend.
        let suspect = unsafe { &mut *suspect };
        if suspect.times != 0 {
            suspect.try_out(generation, coarse());
        }
    }
}

/// A backend accepted a flow.
#[inline(always)]
pub fn answered(id: u32, generation: u32) {
    if let Some(suspect) = LB_SUSPECTS.get_ptr_mut(id) {
        // SAFETY: as above.
        unsafe { &mut *suspect }.answer(generation, coarse());
    }
}

/// A flow failed at a backend; `why`: one of `suspicion`.
#[inline(always)]
pub fn blame(id: u32, generation: u32, why: u8) {
    // An old flow says nothing of whoever has the id now.
    if LB_BACKENDS
        .get(id)
        .is_none_or(|backend| backend.generation != generation)
    {
        return;
    }
    let Some(suspect) = LB_SUSPECTS.get_ptr_mut(id) else {
        return;
    };
    // SAFETY: as above.
    if unsafe { &mut *suspect }.blame(generation, why, coarse()) {
        counters::count(Reason::BackendSuspect);
        words::suspect(id);
    }
}

/// Blames the backend of a flow that it did not accept; whether the client is better off with another one.
/// `client`: the tuple of the client's packets.
#[inline(always)]
pub fn leaves<A: Tables>(client: &FlowKey<A>, flow: &Flow<A>, why: u8) -> bool {
    if backend_kind::is_dsr(flow.kind) {
        // Nothing of what it answers comes by here.
        return false;
    }
    let id = flow.backend;
    blame(id, flow.generation, why);
    // Who came from a peer was given this backend by the peer.
    if flow.flags & flow_flag::PEER != 0 || !is_out(id, flow.generation) {
        return false;
    }
    let Some(service) = service_of(client) else {
        return false;
    };
    // SAFETY: no arguments, no side effects.
    let random = unsafe { bpf_get_prandom_u32() };
    let fail_open = service.flags & service_flag::FAIL_OPEN;
    let other = lb_choose(service.id, service.slots, random, fail_open);
    other != NONE
        && other != id
        && LB_BACKENDS
            .get(other)
            .is_some_and(|backend| !is_out(other, backend.generation))
}

/// A backend refused the flow whose answers come as `key`, or cannot be reached. True: the flow is forgotten, and its
/// client is not to hear of it, since its next try goes elsewhere.
#[inline(always)]
fn refused<A: Tables>(key: &FlowKey<A>, why: u8) -> bool {
    let Some((table, flow)) = find(key) else {
        return false;
    };
    let accepted = key.proto == u32::from(TCP) && is_accepted(table, flow);
    if flow.direction != direction::REVERSE || accepted {
        return false;
    }
    if !leaves(&flow.pair_key(key.proto), flow, why) {
        return false;
    }
    if why == suspicion::REFUSED {
        counters::connections(flow.backend, flow.service, |stats| {
            stats.backend_resets += 1;
            stats.refused += 1;
        });
    }
    counters::redispatched(flow.backend, flow.generation, flow.service);
    forget(table, key, flow);
    true
}

/// Whether a packet is a refusal, or an ICMP error that comes to one, whose flow is forgotten for it.
#[inline(always)]
pub fn settled<A: Tables, P: Packet>(packet: &P, l3: usize) -> Option<bool> {
    let ip = A::parse(packet, l3)?;
    let (answer, why) = if ip.fragment {
        return None;
    } else if ip.proto == TCP {
        if tcp_flags(packet, ip.l4)? & tcp_flag::RST == 0 {
            return None;
        }
        (flow_key(packet, &ip)?, suspicion::REFUSED)
    } else {
        let (kind, code) = icmp::kind(packet, ip.l4)?;
        if ip.proto != A::PROTO || !A::is_unreachable(kind, code) {
            return None;
        }
        let quoted = icmp::quoted(packet, l3, &ip)?.key;
        // RFC 5927 section 4: else it is forged, or not ours.
        if quoted.src != ip.dst {
            return None;
        }
        (quoted.turned(), suspicion::UNREACHABLE)
    };
    let settled = A::refused(&answer, why);
    if settled {
        counters::count(Reason::BackendRefused);
    }
    Some(settled)
}

/// [`refused`] for IPv4; not 0: true.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_refused4(key: *const FlowKey<Addr4>, why: u32) -> u32 {
    // SAFETY: null or a whole key, which is what the verifier grants for an argument of this type.
    unsafe { key.as_ref() }.map_or(0, |&key| u32::from(refused(&key, why as u8)))
}

/// [`refused`] for IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_refused6(key: *const FlowKey<Addr6>, why: u32) -> u32 {
    // SAFETY: as above.
    unsafe { key.as_ref() }.map_or(0, |&key| u32::from(refused(&key, why as u8)))
}
