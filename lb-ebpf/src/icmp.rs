//! ICMP errors about flows of ours.

use lb_common::{
    Flow, FlowKey, Reason, addr_flag, direction,
    headers::{Ip, Packet},
    icmp::{self, Quoted},
};

use crate::{
    counters,
    flows::{find, is_served},
    tables::Tables,
};

/// An error about a packet of a flow.
pub struct Error<A: 'static> {
    /// That packet.
    pub quoted: Quoted<A>,
    /// What translates an answer to it.
    pub flow: &'static mut Flow<A>,
}

/// The flow that an ICMP packet is about. An error whose receiver is not the sender of what it quotes is
/// forged or not ours (RFC 5927 section 4).
#[inline(always)]
pub fn error<A: Tables, P: Packet>(packet: &P, l3: usize, ip: &Ip<A>) -> Option<Error<A>> {
    let (kind, _) = icmp::kind(packet, ip.l4)?;
    if ip.proto != A::PROTO || !A::is_error(kind) {
        return None;
    }
    let error = known(packet, l3, ip);
    let unknown = error.is_none() && A::address_flags(&ip.dst) & addr_flag::VIP != 0;
    if unknown && !packet.is_counted() {
        counters::count(Reason::IcmpUnknown);
    }
    error
}

/// As [`error`], for a packet that is known to be one.
#[inline(always)]
pub fn known<A: Tables, P: Packet>(packet: &P, l3: usize, ip: &Ip<A>) -> Option<Error<A>> {
    find_if(packet, l3, ip, |answer, flow| {
        flow.direction == direction::REVERSE || is_served(answer, flow)
    })
}

/// As [`known`], for a packet of which that was asked before.
#[inline(always)]
pub fn again<A: Tables, P: Packet>(packet: &P, l3: usize, ip: &Ip<A>) -> Option<Error<A>> {
    find_if(packet, l3, ip, |_, _| true)
}

#[inline(always)]
fn find_if<A: Tables, P: Packet>(
    packet: &P,
    l3: usize,
    ip: &Ip<A>,
    holds: impl FnOnce(&FlowKey<A>, &Flow<A>) -> bool,
) -> Option<Error<A>> {
    let quoted = icmp::quoted(packet, l3, ip)?;
    if quoted.key.src != ip.dst {
        return None;
    }
    let answer = quoted.key.turned();
    let (_, flow) = find(&answer)?;
    holds(&answer, flow).then_some(Error { quoted, flow })
}
