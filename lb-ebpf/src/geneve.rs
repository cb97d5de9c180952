//! The sender's side of Geneve: a client's packet goes to the agent of its backend's host.

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6,
        BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO, TC_ACT_SHOT,
        bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, xdp_action, xdp_md,
    },
    helpers::generated::{
        bpf_check_mtu, bpf_redirect_neigh, bpf_skb_adjust_room, bpf_xdp_adjust_head,
    },
    macros::xdp,
    programs::XdpContext,
};
use lb_common::{
    Addr4, Addr6, Backend, Be16, NextHop, Peer, Reason,
    checksum::Folded,
    flow_hash,
    geneve::{Outer, class},
    headers::{
        ETH_IPV4, ETH_IPV6, ETH_LEN, Ip, Packet as _, PacketMut, TCP, UDP, flow_key, halves, join,
        tcp_flags,
    },
};

use crate::{
    answer::{TIME_EXCEEDED, too_big},
    counters, dsr,
    extensions::HEADER_MASK,
    flows::{begins, find, forget},
    forward::{is_joined, malformed, may_send, next_hop, route, slow_path},
    frame::{Frame, Head, Plain},
    maps::{LB_BACKENDS, LB_HANDOFF, LB_NEXT_HOPS, LB_NODE, LB_PEERS, LB_STAGES, stage},
    tables::Tables,
    views::Buffer,
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

/// Plain packets of known flows to peers whose next hop is known. `lb_xdp` hands on to it with the backend's id; all
/// else goes on to `lb_xdp_general`, as it came.
#[xdp(frags)]
pub fn lb_xdp_geneve(ctx: XdpContext) -> u32 {
    let frame = Frame::new(ctx.ctx);
    let sent = match frame.half(ETH_LEN - 2).map(u16::from_be) {
        Some(ETH_IPV4) => shortcut::<Addr4>(&frame),
        Some(ETH_IPV6) => shortcut::<Addr6>(&frame),
        _ => None,
    };
    if let Some(action) = sent {
        return action;
    }
    // SAFETY: map and context are the kernel's own. It comes back only where the slot is empty.
    unsafe { LB_STAGES.tail_call(&ctx, stage::GENERAL) };
    xdp_action::XDP_PASS
}

#[inline(always)]
fn shortcut<A: Tables + Plain>(frame: &Frame) -> Option<u32> {
    let head = Head::<A>::of(frame)?;
    let ip = A::parse(&head, ETH_LEN)?;
    let id = LB_HANDOFF.get_ptr(0)?;
    // SAFETY: a per-CPU value; XDP programs of one CPU do not preempt each other.
    let id = unsafe { *id };
    let (backend, peer) = (LB_BACKENDS.get(id)?, LB_PEERS.get(id)?);
    let hop = LB_NEXT_HOPS.get(u32::from(peer.next_hop))?;
    let len = u32::from(ip.len) + A::OVERHEAD as u32;
    if hop.ifindex == 0 || len > hop.mtu || ip.ttl <= 1 || peer.family == 0 {
        return None;
    }
    let outer = outer(&head, ETH_LEN, &ip, backend, peer)?;
    pass_router::<A, _>(&head, ETH_LEN)?;
    Some(wrap_and_send::<A>(frame.ctx, &outer, id, hop))
}

/// What the outer headers say of the packet at `l3`.
#[inline(always)]
fn outer<A: Tables, P: PacketMut>(
    packet: &P,
    l3: usize,
    ip: &Ip<A>,
    backend: &Backend,
    peer: &Peer,
) -> Option<Outer<A>> {
    // Fragments of one packet go one way.
    let (sport, dport) = if !ip.fragment && (ip.proto == TCP || ip.proto == UDP) {
        let key = flow_key(packet, ip)?;
        (key.sport, key.dport)
    } else {
        (Be16(0), Be16(0))
    };
    Some(Outer {
        src: A::snat_address(LB_NODE.get(0)?)?,
        dst: A::narrow(&peer.addr),
        backend: A::narrow(&backend.addr),
        port: backend.port,
        hash: flow_hash(&ip.src, sport, dport, ip.proto),
        class: class::<A, _>(packet, l3)?,
        len: ip.len,
    })
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

/// A packet for a backend that is no peer's any more: its flow ends. The sender of a segment must hear of it, which the
/// stack sees to; what opens a flow is sent again, and finds another backend.
#[inline(always)]
fn lost<A: Tables, P: PacketMut>(packet: &P, ip: &Ip<A>) -> bool {
    counters::count(Reason::BackendGone);
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
        return if plain && lost(frame, &ip) {
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
    let Some(outer) = outer(frame, ETH_LEN, &ip, backend, peer) else {
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
    ($addr:ty, $xdp:ident, $tc:ident) => {
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

        /// The same for the tc twin: a tc action.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $tc(ctx: *mut __sk_buff, backend: u32) -> i32 {
            if ctx.is_null() {
                return TC_ACT_SHOT;
            }
            by_buffer::<$addr>(Buffer(ctx), backend)
        }
    };
}

stages!(Addr4, lb_xdp_wrap4, lb_tc_wrap4);
stages!(Addr6, lb_xdp_wrap6, lb_tc_wrap6);

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
        return if plain && lost(&packet, &ip) {
            aya_ebpf::bindings::TC_ACT_OK
        } else {
            TC_ACT_SHOT
        };
    }
    if ip.ttl <= 1 {
        return not_sent(Reason::TtlExceeded);
    }
    let (mut mtu, grows) = (0, A::OVERHEAD as i32);
    // SAFETY: the context of this program, and a word that outlives the call.
    if unsafe { bpf_check_mtu(packet.0.cast(), peer.ifindex, &mut mtu, grows, 0) } > 0 {
        return not_sent(Reason::TooBig);
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
    let outer = outer(&packet, ETH_LEN, ip, LB_BACKENDS.get(id)?, peer)?;
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

#[inline(always)]
fn not_sent(reason: Reason) -> i32 {
    counters::count(reason);
    TC_ACT_SHOT
}
