//! A packet from outside: whose is it, and where does it go. The same for XDP and for its tc twin.

use lb_common::{
    Flow, FlowKey, Reason, addr_flag,
    headers::{Packet, TCP, UDP, flow_key, tcp_flags},
    is_refused, port_flag,
};

use crate::{
    counters,
    flows::{self, Known},
    guard,
    maps::LB_NODE_PORTS,
    open::{HALF_OPEN, NOT_OURS, OPENED},
    tables::{FIRST_FRAGMENT, Table, Tables},
};

/// Where things are in a packet.
#[derive(Clone, Copy)]
pub struct Layout {
    /// Offset of the transport header, bytes.
    pub l4: usize,
    /// Bytes from the IP header on.
    pub len: u16,
    /// Routers that the packet may still pass.
    pub ttl: u8,
}

/// What to do with a packet.
pub enum Action<A: 'static> {
    /// Leave it as it is and let the stack have it.
    Pass,
    /// It has no flow: open one, outside the stack frame of the packet path, and come again.
    Open,
    /// It is no TCP segment, UDP datagram or whole packet, or not even that is certain.
    Odd,
    /// Rewrite it after this flow.
    Translate(Translation<A>),
}

/// A packet and what becomes of it.
pub struct Translation<A: 'static> {
    /// Where its parts are.
    pub at: Layout,
    /// Its tuple.
    pub key: FlowKey<A>,
    /// What is written into it.
    pub flow: &'static mut Flow<A>,
    /// Index of its next hop, 0 where it is not known.
    pub hop: u16,
}

/// Decides about a packet with the network header at `l3`, by the flows of one table; `table`: also whether
/// it is known to be a first fragment.
#[inline(always)]
pub fn decide<A: Tables, P: Packet>(packet: &P, l3: usize, table: u32) -> Action<A> {
    let Some(ip) = A::parse(packet, l3) else {
        counters::count(Reason::Malformed);
        return Action::Pass;
    };
    let known = A::filter(&ip.dst);
    if known == 0 {
        return Action::Pass;
    }
    let whole = !ip.fragment || table & FIRST_FRAGMENT != 0;
    if !whole || (ip.proto != TCP && ip.proto != UDP) {
        return Action::Odd;
    }
    let Some(key) = flow_key(packet, &ip) else {
        counters::count(Reason::Malformed);
        return Action::Pass;
    };
    if u32::from(known) & addr_flag::VIP == 0 && !is_our_port(&key) {
        return Action::Pass;
    }
    let at = Layout {
        l4: ip.l4,
        len: ip.len,
        ttl: ip.ttl,
    };
    let flags = if key.proto == u32::from(TCP) {
        let Some(flags) = tcp_flags(packet, at.l4) else {
            counters::count(Reason::Malformed);
            return Action::Pass;
        };
        flags
    } else {
        0
    };
    let table = Table::of(table);
    let Some(flow) = A::fast_flow(table, &key) else {
        return Action::Open;
    };
    match flows::follow(table, &key, flow, flags) {
        Known::Go(hop) => Action::Translate(Translation { at, key, flow, hop }),
        Known::Stale => {
            flows::forget(table, &key, flow);
            Action::Open
        }
        Known::Reset => {
            flows::forget(table, &key, flow);
            Action::Pass
        }
    }
}

/// Runs the packet path over the main table and, where that has no flow, over what `open` found or made:
/// the verdicts of `path` are those of its hook, and `again`: the packet has no flow.
#[inline(always)]
pub fn opening<T: PartialEq>(
    path: impl Fn(Table) -> T,
    open: impl Fn() -> u32,
    again: T,
    pass: T,
    drop: T,
) -> T {
    let action = path(Table::Main);
    if action != again {
        return action;
    }
    let table = match open() {
        OPENED => Table::Main,
        HALF_OPEN => Table::Half,
        NOT_OURS => return pass,
        reason if goes_up(reason) => return pass,
        _ => return drop,
    };
    let action = path(table);
    if action != again {
        return action;
    }
    // Evicted at once: the table is far too small.
    counters::count(Reason::FlowTableFull);
    drop
}

/// Counts a packet that gets no translation; whether the stack is to have it. What is refused goes up
/// untouched: the VIP is a local address that no socket can be reached at (`sk_lookup`), so the stack
/// answers with a TCP reset or a port unreachable, rate-limited as the host is set.
#[inline(always)]
fn goes_up(reason: u32) -> bool {
    counters::count_number(reason);
    if !is_refused(reason) {
        return false;
    }
    // The stack limits port unreachables, but not resets.
    let answered = guard::may_refuse();
    if !answered {
        counters::count(Reason::RefusalGuard);
    }
    answered
}

/// Whether a port of the node's own addresses is one of ours.
#[inline(always)]
pub fn is_our_port<A>(key: &FlowKey<A>) -> bool {
    let wanted = port_flag::SNAT
        | if key.proto == u32::from(TCP) {
            port_flag::TCP
        } else {
            port_flag::UDP
        };
    LB_NODE_PORTS
        .get(0)
        .is_some_and(|ports| ports[usize::from(key.dport.get())] & wanted != 0)
}
