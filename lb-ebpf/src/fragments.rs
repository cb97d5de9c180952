//! Fragments: the first one's ports are remembered, the others follow by them.

use lb_common::{
    Flow, FlowKey, Reason, addr_flag, direction,
    fragment::{FRAGMENT_LIFE, Fragment, FragmentKey, FragmentPorts},
    headers::{Ip, Packet, TCP, UDP, flow_key},
};

use crate::{
    clock::now,
    counters,
    flows::{find, is_served},
    ingress::is_our_port,
    tables::Tables,
};

/// What is to be done with a fragment for an address of ours.
pub enum Fate {
    /// It is none of ours, or is to be put together by the stack.
    Pass,
    /// Drop it; it is counted.
    Drop,
    /// It has ports, which are remembered: it goes the way of whole packets.
    First,
    /// It goes the way of the first.
    Later,
}

/// Decides about a fragment by its header.
#[inline(always)]
pub fn fate<A: Tables, P: Packet>(packet: &P, l3: usize, ip: &Ip<A>) -> Fate {
    if ip.proto == A::PROTO {
        return Fate::Pass;
    }
    let vip = A::address_flags(&ip.dst) & addr_flag::VIP != 0;
    if ip.proto != TCP && ip.proto != UDP {
        return if vip { unknown() } else { Fate::Pass };
    }
    let Some(fragment) = A::fragment(packet, l3, ip) else {
        return Fate::Pass;
    };
    if !fragment.is_first() {
        if ports(ip, fragment).is_some() {
            return Fate::Later;
        }
        return if vip { unknown() } else { Fate::Pass };
    }
    let Some(key) = flow_key(packet, ip) else {
        counters::count(Reason::Malformed);
        return Fate::Pass;
    };
    if !vip && !is_our_port(&key) {
        return Fate::Pass;
    }
    remember(ip, fragment, &key);
    Fate::First
}

#[inline(always)]
fn unknown() -> Fate {
    counters::count(Reason::Fragment);
    Fate::Drop
}

/// Remembers the ports of a first fragment.
#[inline(always)]
pub fn remember<A: Tables>(ip: &Ip<A>, fragment: Fragment, key: &FlowKey<A>) {
    let ports = FragmentPorts {
        sport: key.sport,
        dport: key.dport,
        pad: 0,
        seen: now(),
    };
    A::remember_fragment(&FragmentKey::new(ip, fragment), &ports);
}

#[inline(always)]
fn ports<A: Tables>(ip: &Ip<A>, fragment: Fragment) -> Option<FragmentPorts> {
    let ports = A::fragment_ports(&FragmentKey::new(ip, fragment))?;
    (now().saturating_sub(ports.seen) <= FRAGMENT_LIFE).then_some(ports)
}

/// The flow of a fragment without ports; `None` where the first one had none either.
#[inline(always)]
pub fn flow<A: Tables, P: Packet>(
    packet: &P,
    l3: usize,
    ip: &Ip<A>,
) -> Option<&'static mut Flow<A>> {
    let FragmentPorts { sport, dport, .. } = ports(ip, A::fragment(packet, l3, ip)?)?;
    let key = FlowKey {
        src: ip.src,
        dst: ip.dst,
        sport,
        dport,
        proto: u32::from(ip.proto),
    };
    let (_, flow) = find(&key)?;
    (flow.direction == direction::REVERSE || is_served(&key, flow)).then_some(flow)
}
