//! The sender's side of Geneve: a client's packet goes to the agent of its backend's host.

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6,
        BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO, TC_ACT_SHOT,
        bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, xdp_action, xdp_md,
    },
    helpers::generated::{bpf_redirect_neigh, bpf_skb_adjust_room, bpf_xdp_adjust_head},
};
use lb_common::{
    Addr4, Addr6, Backend, Be16, FlowKey, NextHop, Peer, Reason,
    checksum::Folded,
    geneve::{Outer, class, source_port},
    headers::{ETH_LEN, Ip, Packet, PacketMut, TCP, UDP, flow_key, halves, join, tcp_flags},
};

use crate::{
    answer::{TIME_EXCEEDED, too_big},
    counters, dsr,
    extensions::HEADER_MASK,
    flows::{begins, find, forget},
    forward::{is_joined, malformed, may_send, next_hop, route, slow_path},
    fragments,
    frame::{Frame, Head, Plain, apart},
    icmp,
    ingress::Layout,
    maps::{LB_BACKENDS, LB_NEXT_HOPS, LB_NODE, LB_PEERS},
    tables::Tables,
    tc::{exceeded, narrower, not_sent},
    views::{Buffer, Bytes},
    xdp::send,
};

/// Not an XDP action: the packet goes to the peer of the backend whose id is in the bits below.
pub const GENEVE: u32 = 1 << 30;
/// Those bits; the agent has fewer backends.
pub const BACKEND: u32 = GENEVE - 1;

/// Whether a backend's host is a peer.
#[inline(always)]
pub fn is_at_peer(id: u32) -> bool {
    LB_PEERS.get(id).is_some_and(|peer| peer.family != 0)
}

/// Sends a plain packet of a known flow to the peer of its backend, where the next hop to it is known; else nothing has
/// been done to it.
#[inline(always)]
pub fn shortcut<A: Tables + Plain, P: PacketMut>(
    ctx: *mut xdp_md,
    packet: &P,
    at: &Layout,
    key: &FlowKey<A>,
    id: u32,
    backend: &Backend,
) -> Option<u32> {
    let peer = LB_PEERS.get(id)?;
    let hop = LB_NEXT_HOPS.get(u32::from(peer.next_hop))?;
    let len = u32::from(at.len) + A::OVERHEAD as u32;
    if hop.ifindex == 0 || len > hop.mtu || at.ttl <= 1 || peer.family == 0 {
        return None;
    }
    let ports = join(key.sport.0, key.dport.0);
    let sport = source_port(&key.src, ports);
    let outer = outer(packet, ETH_LEN, sport, at.len, backend, peer)?;
    pass_router::<A, _>(packet, ETH_LEN)?;
    Some(wrap_and_send::<A>(ctx, &outer, id, hop))
}

/// What the outer headers say of the packet at `l3`, which has so many bytes.
#[inline(always)]
fn outer<A: Tables, P: PacketMut>(
    packet: &P,
    l3: usize,
    sport: Be16,
    len: u16,
    backend: &Backend,
    peer: &Peer,
) -> Option<Outer<A>> {
    Some(Outer {
        src: A::snat_address(LB_NODE.get(0)?)?,
        dst: A::narrow(&peer.addr),
        backend: A::narrow(&backend.addr),
        port: backend.port,
        sport,
        class: class::<A, _>(packet, l3)?,
        len,
    })
}

/// The outer source port of any packet. Fragments of one packet go one way.
#[inline(always)]
fn sport_of<A: Tables, P: PacketMut>(packet: &P, ip: &Ip<A>) -> Option<Be16> {
    let has_ports = !ip.fragment && (ip.proto == TCP || ip.proto == UDP);
    let [ports] = if has_ports { packet.words(ip.l4)? } else { [0] };
    Some(source_port(&ip.src, ports))
}

/// One hop less.
#[inline(always)]
fn pass_router<A: Tables, P: PacketMut>(packet: &P, l3: usize) -> Option<()> {
    let at = l3 + A::HOP.0;
    if A::VERSION == 4 {
        let [word] = packet.words(at)?;
        let (hops, sum) = halves(word);
        packet.set_words(
            at,
            [join(hops.wrapping_sub(A::HOP.1), Folded::HOP.apply(sum))],
        )
    } else {
        let hops = packet.half(at)?;
        packet.set_half(at, hops.wrapping_sub(A::HOP.1))
    }
}

#[inline(always)]
fn wrap_and_send<A: Tables + Plain>(
    ctx: *mut xdp_md,
    outer: &Outer<A>,
    id: u32,
    hop: &NextHop,
) -> u32 {
    match wrap(ctx, outer, id) {
        Some(()) => send(ctx, hop),
        None => malformed(),
    }
}

/// Puts the outer headers behind a new Ethernet header, whose addresses are left to be written, and counts.
#[inline(always)]
fn wrap<A: Tables + Plain>(ctx: *mut xdp_md, outer: &Outer<A>, id: u32) -> Option<()> {
    // SAFETY: the helper takes the context; all pointers into the packet are read anew.
    if unsafe { bpf_xdp_adjust_head(ctx, -(A::OVERHEAD as i32)) } != 0 {
        return None;
    }
    let room = Head::<A>::outer(&Frame::new(ctx))?;
    room.set_ethertype(A::ETHERTYPE);
    A::wrap(&room, ETH_LEN, outer)?;
    dsr::count(outer.len, id);
    Some(())
}

/// Counts what was sent to a peer for the service of the flow that it is of, or about.
#[inline(always)]
fn count_for_service<A: Tables, P: Packet>(packet: &P) {
    let at = ETH_LEN + A::OVERHEAD;
    let Some(ip) = A::parse(packet, at) else {
        return;
    };
    let flow = if ip.fragment {
        fragments::flow(packet, at, &ip)
    } else if ip.proto == A::PROTO {
        icmp::again(packet, at, &ip).map(|error| error.flow)
    } else {
        flow_key(packet, &ip)
            .and_then(|key| find(&key))
            .map(|(_, flow)| flow)
    };
    if let Some(flow) = flow {
        dsr::count_for(ip.len, flow.service);
    }
}

/// A packet for a backend that is no peer's any more: its flow ends. The sender of a segment must hear of it, which the
/// stack sees to; what opens a flow is sent again, and finds another backend.
#[inline(always)]
fn lost<A: Tables, P: PacketMut>(packet: &P, ip: &Ip<A>, plain: bool) -> bool {
    counters::count(Reason::BackendGone);
    if !plain {
        return false;
    }
    apart();
    let Some(key) = flow_key(packet, ip) else {
        return false;
    };
    if let Some((table, flow)) = find(&key) {
        forget(table, &key, flow);
    }
    ip.proto == TCP && tcp_flags(packet, ip.l4).is_some_and(|flags| !begins(flags))
}

#[inline(always)]
fn by_route<A: Tables + Plain>(ctx: *mut xdp_md, l3: usize, id: u32) -> u32 {
    // A tag would go along to wherever the untagged network leads.
    if l3 != ETH_LEN {
        return slow_path();
    }
    let frame = &Frame::new(ctx);
    let Some(ip) = A::parse(frame, ETH_LEN) else {
        return malformed();
    };
    let Some(backend) = LB_BACKENDS.get(id) else {
        return slow_path();
    };
    let Some(peer) = LB_PEERS.get(id) else {
        return slow_path();
    };
    let plain = !ip.fragment && ip.proto != A::PROTO;
    if peer.family == 0 {
        return if lost(frame, &ip, plain) {
            xdp_action::XDP_PASS
        } else {
            xdp_action::XDP_DROP
        };
    }
    if ip.ttl <= 1 {
        if plain {
            return TIME_EXCEEDED;
        }
        // No error is sent about an error (RFC 1122 section 3.2.2).
        counters::count(Reason::TtlExceeded);
        return xdp_action::XDP_DROP;
    }
    let outer =
        sport_of(frame, &ip).and_then(|sport| outer(frame, ETH_LEN, sport, ip.len, backend, peer));
    let Some(outer) = outer else {
        return slow_path();
    };
    let len = ip.len.saturating_add(A::OVERHEAD as u16);
    let found = match LB_NEXT_HOPS.get(u32::from(peer.next_hop)) {
        Some(hop) if hop.ifindex != 0 && u32::from(len) > hop.mtu => Err(hop.mtu),
        Some(hop) if hop.ifindex != 0 => Ok(*hop),
        _ => match route(ctx, len, UDP, outer.src, outer.dst) {
            Ok(fib) if may_send(ctx, fib.ifindex) => Ok(next_hop(&fib)),
            Ok(_) => Err(0),
            Err(mtu) => Err(mtu),
        },
    };
    match found {
        Ok(hop) => match pass_router::<A, _>(frame, ETH_LEN) {
            Some(()) => wrap_and_send::<A>(ctx, &outer, id, &hop),
            None => malformed(),
        },
        Err(mtu) if mtu != 0 && plain && !is_joined(ctx) => {
            too_big(mtu.saturating_sub(A::OVERHEAD as u32))
        }
        Err(_) => slow_path(),
    }
}

macro_rules! stages {
    ($addr:ty, $xdp:ident, $tc:ident, $xdp_count:ident, $tc_count:ident) => {
        /// Sends any packet to the peer of a backend; the packet may be an ICMP error or a fragment. An XDP action, or
        /// an [`crate::answer::ANSWER`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $xdp(ctx: *mut xdp_md, l3: u32, backend: u32) -> u32 {
            if ctx.is_null() {
                return xdp_action::XDP_PASS;
            }
            by_route::<$addr>(ctx, (l3 & HEADER_MASK) as usize, backend & BACKEND)
        }

        /// The same for the tc twin: a tc action, or an answer.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $tc(ctx: *mut __sk_buff, backend: u32) -> i32 {
            if ctx.is_null() {
                return TC_ACT_SHOT;
            }
            by_buffer::<$addr>(Buffer(ctx), backend)
        }

        /// [`count_for_service`] as a function of its own, which the stack does not hold beside the others.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $xdp_count(ctx: *mut xdp_md) -> u32 {
            if !ctx.is_null() {
                count_for_service::<$addr, _>(&Bytes(ctx));
            }
            0
        }

        /// The same for the tc twin.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $tc_count(ctx: *mut __sk_buff) -> u32 {
            if !ctx.is_null() {
                count_for_service::<$addr, _>(&Buffer(ctx));
            }
            0
        }
    };
}

stages!(
    Addr4,
    lb_xdp_wrap4,
    lb_tc_wrap4,
    lb_xdp_count4,
    lb_tc_count4
);
stages!(
    Addr6,
    lb_xdp_wrap6,
    lb_tc_wrap6,
    lb_xdp_count6,
    lb_tc_count6
);

#[inline(always)]
fn by_buffer<A: Tables>(packet: Buffer, id: u32) -> i32 {
    let Some(ip) = A::parse(&packet, ETH_LEN) else {
        return not_sent(Reason::Malformed);
    };
    let Some(peer) = LB_PEERS.get(id) else {
        return not_sent(Reason::NotSent);
    };
    let plain = !ip.fragment && ip.proto != A::PROTO;
    if peer.family == 0 {
        return if lost(&packet, &ip, plain) {
            aya_ebpf::bindings::TC_ACT_OK
        } else {
            TC_ACT_SHOT
        };
    }
    if ip.ttl <= 1 {
        return if plain {
            TIME_EXCEEDED as i32
        } else {
            not_sent(Reason::TtlExceeded)
        };
    }
    let grows = A::OVERHEAD as u32;
    let mtu = match narrower(packet.0, ip.len, peer.next_hop, grows) {
        None => exceeded(packet.0, peer.ifindex, grows),
        mtu => mtu,
    };
    if let Some(mtu) = mtu {
        return if plain {
            too_big(mtu.saturating_sub(grows)) as i32
        } else {
            not_sent(Reason::TooBig)
        };
    }
    if grow::<A>(packet, &ip, id, peer).is_none() {
        return not_sent(Reason::NotSent);
    }
    dsr::count(ip.len, id);
    // SAFETY: no parameters: the kernel looks the route up by the outer header.
    unsafe { bpf_redirect_neigh(peer.ifindex, core::ptr::null_mut(), 0, 0) as i32 }
}

#[inline(always)]
fn grow<A: Tables>(packet: Buffer, ip: &Ip<A>, id: u32, peer: &Peer) -> Option<()> {
    let sport = sport_of(&packet, ip)?;
    let outer = outer(&packet, ETH_LEN, sport, ip.len, LB_BACKENDS.get(id)?, peer)?;
    pass_router::<A, _>(&packet, ETH_LEN)?;
    let family = if A::VERSION == 4 {
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV4
    } else {
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV6
    };
    let flags = u64::from(family | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_FIXED_GSO);
    let by = A::OVERHEAD as i32;
    // SAFETY: the helper takes the context.
    if unsafe { bpf_skb_adjust_room(packet.0, by, BPF_ADJ_ROOM_MAC, flags) } != 0 {
        return None;
    }
    A::wrap(&packet, ETH_LEN, &outer)
}
