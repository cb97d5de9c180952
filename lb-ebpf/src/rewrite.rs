//! Writing a flow's translation into a packet.

use lb_common::{
    BackendStats, Flow, FlowKey,
    checksum::{Delta, Folded},
    direction,
    headers::{Ip, PacketMut, TCP, checksum_offset, halves, join},
    icmp::readdress,
};

use crate::{counters, ingress::Layout, tables::Tables};

/// Rewrites addresses, ports and checksums in place, and counts. A packet that is `forwarded` to another
/// host has one hop less.
#[inline(always)]
pub fn translate<A: Tables, D: PacketMut>(
    packet: &D,
    l3: usize,
    at: &Layout,
    key: &FlowKey<A>,
    flow: &Flow<A>,
    forwarded: bool,
) -> Option<()> {
    let addresses = Folded::of(flow.addr_delta);
    let whole = addresses.and(Folded::of(flow.port_delta));
    let checksum = checksum_offset(key.proto, at.l4);
    let old = packet.half(checksum)?;
    let new = if key.proto == u32::from(TCP) {
        whole.apply(old)
    } else {
        whole.apply_udp(old)
    };
    packet.set_half(checksum, new)?;
    let ports = u32::from(flow.new_sport.0) | u32::from(flow.new_dport.0) << 16;
    packet.set_words(at.l4, [ports])?;
    if A::VERSION == 4 {
        let [word] = packet.words(l3 + A::HOP.0)?;
        let (mut hops, old) = halves(word);
        let mut delta = addresses;
        if forwarded {
            hops = hops.wrapping_sub(A::HOP.1);
            delta = delta.and(Folded::HOP);
        }
        packet.set_words(l3 + A::HOP.0, [join(hops, delta.apply(old))])?;
        packet.set_words(
            l3 + A::ADDRESSES.0,
            [flow.new_src.widen().0[0], flow.new_dst.widen().0[0]],
        )?;
    } else {
        if forwarded {
            let hops = packet.half(l3 + A::HOP.0)?;
            packet.set_half(l3 + A::HOP.0, hops.wrapping_sub(A::HOP.1))?;
        }
        packet.set_words(l3 + A::ADDRESSES.0, flow.new_src.widen().0)?;
        packet.set_words(l3 + A::ADDRESSES.1, flow.new_dst.widen().0)?;
    }
    count(at, flow);
    Some(())
}

/// Rewrites a fragment without ports, and counts.
#[inline(always)]
pub fn follow<A: Tables, P: PacketMut>(
    packet: &P,
    l3: usize,
    ip: &Ip<A>,
    flow: &Flow<A>,
    forwarded: bool,
) -> Option<()> {
    let delta = Delta::unfolded(flow.addr_delta);
    readdress(packet, l3, delta, &flow.new_src, &flow.new_dst, forwarded)?;
    let at = Layout {
        l4: ip.l4,
        len: ip.len,
        ttl: ip.ttl,
    };
    count(&at, flow);
    Some(())
}

/// Counts a translated packet for its backend and its service.
#[inline(always)]
pub fn count<A: Tables>(at: &Layout, flow: &Flow<A>) {
    let bytes = u64::from(at.len);
    let forward = flow.direction == direction::FORWARD;
    counters::backend(flow.backend, |stats: &mut BackendStats| {
        if forward {
            stats.packets_to += 1;
            stats.bytes_to += bytes;
        } else {
            stats.packets_from += 1;
            stats.bytes_from += bytes;
        }
    });
    counters::traffic(flow.service, |traffic| {
        if forward {
            traffic.packets_to += 1;
            traffic.bytes_to += bytes;
        } else {
            traffic.packets_from += 1;
            traffic.bytes_from += bytes;
        }
    });
}
