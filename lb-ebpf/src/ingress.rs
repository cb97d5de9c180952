//! A packet from outside: whose is it, and where does it go. The same for XDP and for its tc twin.

use lb_common::{
    Be16, Flow, FlowKey, LAST_REFUSED, Reason, addr_flag,
    headers::{Packet, TCP, UDP, flow_key, tcp_flags},
};

use crate::{
    counters,
    flows::{self, Known},
    maps::LB_NODE,
    tables::Tables,
};

/// Where things are in a packet.
#[derive(Clone, Copy)]
pub struct Layout {
    /// Offset of the transport header, bytes.
    pub l4: usize,
    /// Bytes from the IP header on.
    pub len: u16,
}

/// What to do with a packet.
pub enum Action<A: 'static> {
    /// Leave it as it is and let the stack have it.
    Pass,
    /// Drop it; the reason is counted.
    Drop,
    /// It has no flow: open one, outside the stack frame of the packet path, and come again.
    Open,
    /// Rewrite it after this flow.
    Translate(Layout, FlowKey<A>, &'static Flow<A>),
}

/// Decides about a packet with the network header at `l3`.
#[inline(always)]
pub fn decide<A: Tables, P: Packet>(packet: &P, l3: usize) -> Action<A> {
    let Some(ip) = A::parse(packet, l3) else {
        counters::count(Reason::Malformed);
        return Action::Pass;
    };
    let address = A::address_flags(&ip.dst);
    if address == 0 {
        return Action::Pass;
    }
    let vip = address & addr_flag::VIP != 0;
    if ip.fragment {
        // Only the first fragment has ports. The node's own address may be sent fragments.
        return if vip {
            refuse(Reason::Fragment)
        } else {
            Action::Pass
        };
    }
    if ip.proto != TCP && ip.proto != UDP {
        // The stack answers echo requests to a VIP: the address is local.
        return Action::Pass;
    }
    let Some(key) = flow_key(packet, &ip) else {
        counters::count(Reason::Malformed);
        return Action::Pass;
    };
    let layout = Layout {
        l4: ip.l4,
        len: ip.len,
    };
    if !vip && !in_snat_range(key.dport) {
        return Action::Pass;
    }
    let flags = if key.proto == u32::from(TCP) {
        let Some(flags) = tcp_flags(packet, layout.l4) else {
            counters::count(Reason::Malformed);
            return Action::Pass;
        };
        flags
    } else {
        0
    };
    if let Some(flow) = A::flow(&key) {
        match flows::follow(&key, flow, flags) {
            Known::Go => return Action::Translate(layout, key, flow),
            Known::Stale => flows::forget(&key, flow),
            Known::Reset => {
                flows::forget(&key, flow);
                return Action::Pass;
            }
        }
    }
    if !vip {
        return Action::Pass;
    }
    Action::Open
}

/// Counts a packet that gets no translation. What is refused goes up untouched: the VIP is a local
/// address that no socket can be reached at (`sk_lookup`), so the stack answers with a TCP reset or a
/// port unreachable, rate-limited as the host is set.
#[inline(always)]
fn refuse<A>(reason: Reason) -> Action<A> {
    refuse_as(reason as u32)
}

#[inline(always)]
fn refuse_as<A>(reason: u32) -> Action<A> {
    if goes_up(reason) {
        Action::Pass
    } else {
        Action::Drop
    }
}

/// Counts a refusal; whether the stack is to answer it.
#[inline(always)]
pub fn goes_up(reason: u32) -> bool {
    counters::count_number(reason);
    reason <= LAST_REFUSED
}

#[inline(always)]
fn in_snat_range(port: Be16) -> bool {
    LB_NODE
        .get(0)
        .is_some_and(|node| port.get().wrapping_sub(node.snat_port_min) < node.snat_ports)
}
