//! Following and ending flows.

use lb_common::{
    Addr4, Addr6, Backend, Flow, FlowKey, NOBODY, Service, ServiceKey, backend_kind, direction,
    flow_flag,
    headers::{TCP, UDP, tcp_flag},
    service_flag, tcp_state, touch_interval,
};

use crate::{
    choose::keeps_flows,
    clock::{now, precisely},
    counters, load,
    maps::{LB_BACKENDS, LB_NODE},
    suspect,
    tables::{NOEXIST, Table, Tables},
};

const SECOND: u64 = 1_000_000_000;
/// Segments with these end a connection.
const ENDS: u8 = tcp_flag::FIN | tcp_flag::RST;
/// A connection is over, or being ended.
const CLOSED: u8 = tcp_state::FIN | tcp_state::RST | tcp_state::PEER_CLOSED;

/// A flow of either table, off the fast path.
#[inline(always)]
pub fn find<A: Tables>(key: &FlowKey<A>) -> Option<(Table, &'static mut Flow<A>)> {
    match A::flow(Table::Main, key) {
        Some(flow) => Some((Table::Main, flow)),
        None if key.proto == u32::from(TCP) => Some((Table::Half, A::flow(Table::Half, key)?)),
        None => None,
    }
}

/// [`flow_flag`] of a flow that this client's packet opens.
#[inline(always)]
pub fn opened_by<A>(key: &FlowKey<A>, flags: u8) -> u8 {
    if key.proto == u32::from(TCP) && !begins(flags) {
        flow_flag::MIDSTREAM
    } else {
        0
    }
}

/// Whether a TCP client had an answer. A reset then is no refusal: the backend does not know the connection (RFC 9293
/// section 3.10.7.1), which says nothing of whether it takes others.
#[inline(always)]
pub fn is_accepted<A>(table: Table, flow: &Flow<A>) -> bool {
    table == Table::Main || flow.flags & (flow_flag::TWO_WAY | flow_flag::MIDSTREAM) != 0
}

/// What is to be done with a packet whose flow is known.
pub enum Known {
    /// Translate it; the index of the next hop, 0 where it is not known, and the backend that it is for.
    Go(u16, Option<&'static Backend>),
    /// The same, once the flow is brought up to date by [`Tables::touch`].
    Touch(u16, Option<&'static Backend>),
    /// The flow is over; choose afresh.
    Stale,
    /// The backend is gone.
    Gone,
}

/// Whether a TCP segment begins a connection.
#[inline(always)]
pub fn begins(flags: u8) -> bool {
    flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN
}

/// Whether a TCP segment accepts a connection.
#[inline(always)]
fn accepts(flags: u8) -> bool {
    const BOTH: u8 = tcp_flag::SYN | tcp_flag::ACK;
    flags & (BOTH | tcp_flag::RST) == BOTH
}

/// Whether a new connection chooses afresh: this one is over, or was never seen to be one.
#[inline(always)]
pub fn gives_way<A>(flow: &Flow<A>) -> bool {
    is_over(flow)
        || flow.flags & (flow_flag::TWO_WAY | flow_flag::MIDSTREAM) == flow_flag::MIDSTREAM
}

/// Whether one side ended the connection.
#[inline(always)]
pub fn is_over<A>(flow: &Flow<A>) -> bool {
    flow.tcp & CLOSED != 0
}

/// Checks a packet against its flow.
#[inline(always)]
pub fn follow<A: Tables>(
    key: &FlowKey<A>,
    flow: &Flow<A>,
    flags: u8,
    fails_open: impl FnOnce() -> bool,
) -> Known {
    let begins = begins(flags);
    if begins && is_over(flow) {
        return Known::Stale;
    }
    let (hop, backend) = if flow.direction == direction::FORWARD {
        match serving(flow, fails_open) {
            Some(backend) => (backend.next_hop, Some(backend)),
            None => return Known::Gone,
        }
    } else {
        (client_hop(flow), None)
    };
    // What a client sends moves both halves' time stamps: an answer would never be noted by time.
    let answers = key.proto == u32::from(UDP)
        && flow.direction == direction::REVERSE
        && flow.flags & flow_flag::TWO_WAY == 0;
    let tells = flags & ENDS != 0 || accepts(flags) || answers;
    let silent = now().saturating_sub(flow.last_seen);
    if !tells && silent <= touch_interval(key.proto) {
        return Known::Go(hop, backend);
    }
    // A UDP sender that comes back, and a new connection from the same port, get a choice of their own.
    let afresh = begins || key.proto == u32::from(UDP);
    if afresh && flow.direction == direction::FORWARD && silent > u64::from(flow.idle) * SECOND {
        return Known::Stale;
    }
    Known::Touch(hop, backend)
}

/// The flow's backend; `None` if it is gone.
#[inline(always)]
fn serving<A>(flow: &Flow<A>, fails_open: impl FnOnce() -> bool) -> Option<&'static Backend> {
    let backend = LB_BACKENDS.get(flow.backend)?;
    keeps_flows(backend, flow.generation, fails_open).then_some(backend)
}

/// Whether the flow's backend still serves it.
#[inline(always)]
pub fn is_served<A: Tables>(key: &FlowKey<A>, flow: &Flow<A>) -> bool {
    serving(flow, || fails_open(key)).is_some()
}

/// The next hop to the flow's client, as long as no route changed.
#[inline(always)]
fn client_hop<A>(flow: &Flow<A>) -> u16 {
    match LB_NODE.get(0) {
        Some(node) if node.route_epoch == flow.route_epoch => flow.next_hop,
        _ => 0,
    }
}

/// Notes a connection's beginning and its end in both halves, moves their time stamps, and puts the other half back if it
/// was evicted while this one was in use.
#[inline(always)]
fn touch<A: Tables>(table: Table, key: &FlowKey<A>, flags: u8) {
    let ended = flags & ENDS;
    // On the stack, where older kernels want what is looked up, as in `create`; one after the other in the same memory.
    let mut at = *key;
    let Some(flow) = A::flow(table, &at) else {
        return;
    };
    if accepts(flags)
        && flow.direction == direction::REVERSE
        && flow.flags & flow_flag::TWO_WAY == 0
    {
        let took = precisely().saturating_sub(flow.last_seen);
        counters::handshake(flow.backend, flow.service, took);
        suspect::answered(flow.backend, flow.generation);
    }
    let now = now();
    flow.last_seen = now;
    if ended & tcp_flag::RST != 0 && flow.tcp & tcp_state::RST == 0 {
        let by_client = flow.direction == direction::FORWARD;
        let accepted = is_accepted(table, flow);
        counters::connections(flow.backend, flow.service, |stats| {
            if by_client {
                stats.client_resets += 1;
            } else {
                stats.backend_resets += 1;
                stats.refused += u64::from(!accepted);
            }
        });
    }
    if ended != 0 {
        if !is_over(flow) {
            load::remove(flow.backend, flow.service, flow.opened);
        }
        flow.tcp |= if ended & tcp_flag::RST != 0 {
            tcp_state::RST
        } else {
            tcp_state::FIN
        };
    }
    if backend_kind::is_dsr(flow.kind) {
        return;
    }
    at = flow.pair_key(key.proto);
    if flow.direction == direction::REVERSE && flow.flags & flow_flag::TWO_WAY == 0 {
        flow.flags |= flow_flag::TWO_WAY;
        if key.proto == u32::from(UDP) {
            suspect::answered(flow.backend, flow.generation);
            if let Some(service) = service_of(&at) {
                flow.idle = service.idle_udp_two_way;
            }
        }
    }
    match A::flow(table, &at) {
        Some(pair) if pair.is_pair_of(key) => {
            pair.last_seen = now;
            pair.flags |= flow.flags;
            pair.idle = flow.idle;
            if ended & tcp_flag::RST != 0 {
                pair.tcp |= tcp_state::RST | tcp_state::PEER_CLOSED;
            } else if ended != 0 {
                pair.tcp |= tcp_state::PEER_CLOSED;
            }
        }
        // The tuple is another flow's by now: this one ends with its client's next segment, as where its backend is gone.
        Some(_) if flow.direction == direction::FORWARD => {
            if !is_over(flow) {
                load::remove(flow.backend, flow.service, flow.opened);
            }
            flow.tcp |= tcp_state::RST;
            flow.generation = NOBODY;
        }
        Some(_) => {}
        // A closed flow may have given way to another, whose half stands in the other table.
        None if !is_over(flow) && A::flow(Table::Half, &at).is_none() => {
            // Another CPU may be as quick.
            let _ = A::insert_flow(table, &at, &flow.pair(key), NOEXIST);
        }
        None => {}
    }
}

/// [`touch`] for IPv4: a function of its own, off the stack of the packet path.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_touch4(key: *const FlowKey<Addr4>, flags: u32, table: u32) -> u32 {
    // SAFETY: null or a whole key, which is what the verifier grants for an argument of this type.
    if let Some(key) = unsafe { key.as_ref() } {
        touch(Table::of(table), key, flags as u8);
    }
    0
}

/// [`touch`] for IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_touch6(key: *const FlowKey<Addr6>, flags: u32, table: u32) -> u32 {
    // SAFETY: as above.
    if let Some(key) = unsafe { key.as_ref() } {
        touch(Table::of(table), key, flags as u8);
    }
    0
}

/// Removes both halves; the other one only where another flow has not taken its tuple.
#[inline(always)]
pub fn forget<A: Tables>(table: Table, key: &FlowKey<A>, flow: &Flow<A>) {
    if !is_over(flow) {
        load::remove(flow.backend, flow.service, flow.opened);
    }
    let pair = flow.pair_key(key.proto);
    if !backend_kind::is_dsr(flow.kind)
        && A::flow(table, &pair).is_some_and(|other| other.is_pair_of(key))
    {
        A::remove_flow(table, &pair);
    }
    A::remove_flow(table, key);
}

/// Whether the service of this packet counts *down* as *active*. Looked up only for a backend that is
/// down.
#[inline(always)]
pub fn fails_open<A: Tables>(key: &FlowKey<A>) -> bool {
    service_of(key).is_some_and(|s| s.flags & service_flag::FAIL_OPEN != 0)
}

/// The service that a client's packet is for.
#[inline(always)]
pub fn service_of<A: Tables>(key: &FlowKey<A>) -> Option<&'static Service> {
    A::service(&service_key(key))
}

/// Under which the service of a client's packet is found.
#[inline(always)]
pub fn service_key<A: Tables>(key: &FlowKey<A>) -> ServiceKey<A> {
    ServiceKey {
        addr: key.dst,
        port: key.dport,
        proto: key.proto as u8,
        pad: 0,
    }
}
