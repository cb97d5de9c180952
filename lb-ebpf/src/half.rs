//! Half-open connections: from the client's SYN until its first ACK they stand in a table of their own.

use lb_common::{
    Addr4, Addr6, FlowKey, Reason, backend_kind, direction, flow_flag,
    headers::{TCP, tcp_flag},
    suspicion,
};

use crate::{
    clock, counters,
    flows::{begins, forget, is_over, is_served},
    open::{HALF_OPEN, NO_FLOW, OPENED, REFUSAL},
    suspect,
    tables::{ANY, Table, Tables},
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
    if begins(flags) {
        // Sent again, or a new connection from the same port.
        let served = is_served(key, flow);
        if !served {
            counters::count(Reason::BackendGone);
        }
        if is_over(flow) || !served {
            forget(Table::Half, key, flow);
            return NO_FLOW;
        }
        if clock::now().saturating_sub(flow.last_seen) < SENT_AGAIN {
            // Seen by XDP before it came here.
            return HALF_OPEN;
        }
        counters::connections(flow.backend, |stats| stats.syn_retransmits += 1);
        let accepted = flow.flags & flow_flag::TWO_WAY != 0;
        if !accepted && suspect::leaves(key, flow, suspicion::SILENT) {
            counters::count(Reason::BackendSilent);
            forget(Table::Half, key, flow);
            return NO_FLOW;
        }
        return HALF_OPEN;
    }
    if flow.direction == direction::REVERSE && flags & tcp_flag::RST != 0 {
        return REFUSAL;
    }
    let first_ack = flow.direction == direction::FORWARD
        && flags & (tcp_flag::ACK | tcp_flag::RST) == tcp_flag::ACK;
    if !first_ack {
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
        Some(pair) if pair.is_pair_of(key) => A::insert_flow(Table::Main, &pair_key, pair, ANY),
        _ => A::insert_flow(Table::Main, &pair_key, &flow.pair(key), ANY),
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

/// [`half`] for IPv4: [`NO_FLOW`], [`HALF_OPEN`] or, once it is moved, [`OPENED`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_half4(key: *const FlowKey<Addr4>, flags: u32) -> u32 {
    // SAFETY: null or a whole key, which is what the verifier grants for an argument of this type.
    unsafe { key.as_ref() }.map_or(NO_FLOW, |key| half(key, flags as u8))
}

/// [`half`] for IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_half6(key: *const FlowKey<Addr6>, flags: u32) -> u32 {
    // SAFETY: as above.
    unsafe { key.as_ref() }.map_or(NO_FLOW, |key| half(key, flags as u8))
}
