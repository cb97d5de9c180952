//! Half-open connections: from the client's SYN until its first ACK they stand in a table of their own.

use lb_common::{
    Addr4, Addr6, Flow, FlowKey, Reason, backend_kind, direction, flow_flag,
    headers::{TCP, tcp_flag},
    suspicion,
};

use crate::{
    clock, counters,
    flows::{begins, forget, gives_way, is_served},
    open::{HALF_OPEN, NO_FLOW, OPENED, REFUSAL},
    suspect,
    tables::{ANY, NOEXIST, Table, Tables},
};

/// A SYN that comes again is at least so much later, ns; the first time-out is 1 s (RFC 6298 section 2.1). One that is
/// seen again before is the same, handed from XDP to its twin.
const SENT_AGAIN: u64 = 200_000_000;

/// Finds the half-open flow of a segment, and moves it to the main table when the segment is the
/// client's first ACK.
#[inline(always)]
fn half<A: Tables>(key: &FlowKey<A>, flags: u8) -> u32 {
    if key.proto != u32::from(TCP) {
        return NO_FLOW;
    }
    let Some(flow) = A::flow(Table::Half, key) else {
        return NO_FLOW;
    };
    let begins = begins(flags);
    let first_ack = flow.direction == direction::FORWARD
        && flags & (tcp_flag::ACK | tcp_flag::RST) == tcp_flag::ACK;
    if (begins || first_ack) && !holds_tuple(key, flow) {
        forget(Table::Half, key, flow);
        return NO_FLOW;
    }
    if begins {
        // Sent again, or a new connection from the same port.
        let served = is_served(key, flow);
        if !served {
            counters::count(Reason::BackendGone);
            counters::redispatched(flow.backend, flow.generation, flow.service);
        }
        if gives_way(flow) || !served {
            forget(Table::Half, key, flow);
            return NO_FLOW;
        }
        if clock::now().saturating_sub(flow.last_seen) < SENT_AGAIN {
            // Seen by XDP before it came here.
            return HALF_OPEN;
        }
        counters::connections(flow.backend, flow.service, |stats| {
            stats.syn_retransmits += 1;
        });
        let answered = flow.flags & flow_flag::TWO_WAY != 0;
        if !answered && suspect::leaves(key, flow, suspicion::SILENT) {
            counters::count(Reason::BackendSilent);
            counters::redispatched(flow.backend, flow.generation, flow.service);
            forget(Table::Half, key, flow);
            return NO_FLOW;
        }
        return HALF_OPEN;
    }
    if flow.direction == direction::REVERSE && flags & tcp_flag::RST != 0 {
        return REFUSAL;
    }
    // Only the server's answer makes it a connection: whoever sends both SYN and ACK from addresses that are not his
    // would fill the main table. (Under direct server return the answer does not come by.)
    let accepted = backend_kind::is_dsr(flow.kind) || flow.flags & flow_flag::TWO_WAY != 0;
    if !first_ack || !accepted {
        return HALF_OPEN;
    }
    // Both halves stand in one table or the other at every moment, so that the claim of the source port
    // holds; the claim of another flow looks into both.
    flow.last_seen = clock::now();
    if backend_kind::is_dsr(flow.kind) {
        if A::insert_flow(Table::Main, key, flow, ANY).is_err() {
            counters::count(Reason::FlowTableFull);
            return HALF_OPEN;
        }
        A::remove_flow(Table::Half, key);
        return OPENED;
    }
    let pair_key = flow.pair_key(key.proto);
    let moved = match A::flow(Table::Half, &pair_key) {
        Some(pair) => A::insert_flow(Table::Main, &pair_key, pair, ANY),
        // It is there already: there was no room for this half when it came.
        None => Ok(()),
    }
    .and_then(|()| A::insert_flow(Table::Main, key, flow, ANY));
    if moved.is_err() {
        counters::count(Reason::FlowTableFull);
        return HALF_OPEN;
    }
    A::remove_flow(Table::Half, key);
    A::remove_flow(Table::Half, &pair_key);
    OPENED
}

/// Whether the flow still has the tuple of its other half, which is put back if it was evicted.
#[inline(always)]
fn holds_tuple<A: Tables>(key: &FlowKey<A>, flow: &Flow<A>) -> bool {
    if backend_kind::is_dsr(flow.kind) {
        return true;
    }
    let pair_key = flow.pair_key(key.proto);
    match A::flow(Table::Half, &pair_key).or_else(|| A::flow(Table::Main, &pair_key)) {
        Some(other) => other.is_pair_of(key),
        None => A::insert_flow(Table::Half, &pair_key, &flow.pair(key), NOEXIST).is_ok(),
    }
}

/// [`half`] for IPv4: [`NO_FLOW`], [`HALF_OPEN`] or, once it is moved, [`OPENED`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_half4(key: *const FlowKey<Addr4>, flags: u32) -> u32 {
    // SAFETY: null or a whole key, which is what the verifier grants for an argument of this type.
    unsafe { key.as_ref() }.map_or(NO_FLOW, |&key| half(&key, flags as u8))
}

/// [`half`] for IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_half6(key: *const FlowKey<Addr6>, flags: u32) -> u32 {
    // SAFETY: as above.
    unsafe { key.as_ref() }.map_or(NO_FLOW, |&key| half(&key, flags as u8))
}
