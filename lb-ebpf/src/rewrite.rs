//! Writing a flow's translation into a packet.

use lb_common::{
    BackendStats, Flow, FlowKey,
    checksum::Delta,
    direction,
    headers::{Packet, TCP, checksum_offset},
};

use crate::{counters, ingress::Layout, tables::Tables};

/// Offset of the checksum in an IPv4 header.
pub const IPV4_CHECKSUM: usize = 10;

/// A packet whose bytes can be written in place (XDP).
pub trait Direct: Packet {
    fn set_half(&self, offset: usize, value: u16) -> Option<()>;
    fn set_words<const N: usize>(&self, offset: usize, value: [u32; N]) -> Option<()>;
}

/// Rewrites addresses, ports and checksums in place, and counts.
#[inline(always)]
pub fn translate<A: Tables, D: Direct>(
    packet: &D,
    l3: usize,
    at: &Layout,
    key: &FlowKey<A>,
    flow: &Flow<A>,
) -> Option<()> {
    let addresses = Delta::unfolded(flow.addr_delta);
    let whole = addresses.and(Delta::unfolded(flow.port_delta));
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
        let old = packet.half(l3 + IPV4_CHECKSUM)?;
        packet.set_half(l3 + IPV4_CHECKSUM, addresses.apply(old))?;
        packet.set_words(
            l3 + A::ADDRESSES.0,
            [flow.new_src.widen().0[0], flow.new_dst.widen().0[0]],
        )?;
    } else {
        packet.set_words(l3 + A::ADDRESSES.0, flow.new_src.widen().0)?;
        packet.set_words(l3 + A::ADDRESSES.1, flow.new_dst.widen().0)?;
    }
    count(at, flow);
    Some(())
}

/// Counts a translated packet for its backend.
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
}
