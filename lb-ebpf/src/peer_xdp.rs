//! XDP: what peers send.

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::generated::bpf_xdp_adjust_head,
};
use lb_common::{
    Addr4, Addr6, Reason, backend_kind, direction,
    geneve::{ECN, class, is_plain},
    headers::{ETH_LEN, Packet as _, PacketMut as _, TCP, UDP, flow_key},
};

use crate::{
    counters,
    forward::{came_by, malformed},
    frame::{Frame, Head, Plain},
    ingress::{Action, Translation, by_flow},
    maps::{LB_NODE, LB_SENDERS},
    peer::{LEFT, follow, inspect, join, settle_mark},
    rewrite::translate,
    tables::{Table, Tables},
    views::Bytes,
};

/// Takes a plain packet of a known flow out of what a peer sent, for a host socket of this node. `frame` is plain itself,
/// for the node and for the port of Geneve; `None`: nothing has been done to it.
#[inline(always)]
pub fn shortcut<A: Tables + Plain>(frame: &Frame) -> Option<u32> {
    let outer = Head::<A>::wrapped(frame)?;
    let ip = A::parse(&outer, ETH_LEN)?;
    let shim = A::L4;
    // Another address of the node's is looked up by the general program.
    let ours = A::snat_address(LB_NODE.get(0)?)? == ip.dst
        && is_plain::<A, _>(&outer, shim)?
        && class::<A, _>(&outer, ETH_LEN)? & ECN != ECN;
    if !ours {
        return None;
    }
    let chosen = A::chosen(&outer, shim + 20)?;
    let inner = outer.inside()?;
    // What is none at all is counted by the general program.
    let within = A::parse(&inner, ETH_LEN)?;
    if within.fragment || (within.proto != TCP && within.proto != UDP) {
        return None;
    }
    // No filter is asked: what has the flow of a peer is for a VIP, and while packets are traced, those for the node
    // do not come by here.
    let key = flow_key(&inner, &within)?;
    let action = by_flow(&inner, &within, key, Table::Main.scalar());
    let Translation { at, key, flow, .. } = match action {
        Action::Translate(translation) => translation,
        Action::Drop => return Some(xdp_action::XDP_DROP),
        _ => return None,
    };
    let sender = LB_SENDERS.get(u32::from(flow.next_hop))?;
    // Index 0 is nobody's: its address is no packet's source.
    let given = flow.kind == backend_kind::HOST
        && flow.direction == direction::FORWARD
        && A::narrow(sender) == ip.src
        && flow.new_dst == chosen.addr
        && flow.new_dport == chosen.port
        && usize::from(ip.len) == A::OVERHEAD + usize::from(at.len);
    if !given {
        return None;
    }
    let macs = outer.macs();
    // SAFETY: the helper takes the context; all pointers into the packet are read anew.
    if unsafe { bpf_xdp_adjust_head(frame.ctx, A::OVERHEAD as i32) } != 0 {
        return None;
    }
    let Some(head) = Head::<A>::room_of_headers(&Frame::new(frame.ctx)) else {
        return Some(malformed());
    };
    head.set_ethernet(macs, A::ETHERTYPE);
    match translate(&head, ETH_LEN, &at, &key, flow, false) {
        Some(()) => Some(xdp_action::XDP_PASS),
        None => Some(malformed()),
    }
}

macro_rules! stages {
    ($addr:ty, $inspect:ident, $join:ident, $follow:ident, $take:ident) => {
        /// [`inspect`] for XDP. Whoever has tags is left to the tc twin, where they are no part of the packet.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $inspect(ctx: *mut xdp_md, l3: u32) -> u32 {
            if ctx.is_null() {
                return LEFT;
            }
            if l3 as usize != ETH_LEN {
                counters::count(Reason::ToSlowPath);
                return LEFT;
            }
            inspect::<$addr, _>(&Bytes(ctx))
        }

        /// [`join`] for XDP.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $join(ctx: *mut xdp_md) -> u32 {
            if ctx.is_null() {
                return Reason::PeerMalformed as u32;
            }
            join::<$addr, _>(&Bytes(ctx), came_by(ctx), true)
        }

        /// [`follow`] for XDP.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $follow(ctx: *mut xdp_md) -> u32 {
            if ctx.is_null() {
                return Reason::PeerMalformed as u32;
            }
            follow::<$addr, _>(&Bytes(ctx), true)
        }

        /// Strips the outer headers off; 0 if that cannot be, and it is counted.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $take(ctx: *mut xdp_md) -> u32 {
            if ctx.is_null() {
                return 0;
            }
            u32::from(settle_mark::<$addr, _>(&Bytes(ctx)).is_some() && take::<$addr>(Bytes(ctx)))
        }
    };
}

stages!(
    Addr4,
    lb_xdp_inspect4,
    lb_xdp_join4,
    lb_xdp_follow4,
    lb_xdp_take4
);
stages!(
    Addr6,
    lb_xdp_inspect6,
    lb_xdp_join6,
    lb_xdp_follow6,
    lb_xdp_take6
);

#[inline(always)]
fn take<A: Tables>(packet: Bytes) -> bool {
    let taken = strip::<A>(packet);
    if taken.is_none() {
        counters::count(Reason::Malformed);
    }
    taken.is_some()
}

#[inline(always)]
fn strip<A: Tables>(packet: Bytes) -> Option<()> {
    let macs = packet.words::<3>(0)?;
    // SAFETY: the helper takes the context; no pointer into the packet is kept.
    if unsafe { bpf_xdp_adjust_head(packet.0, A::OVERHEAD as i32) } != 0 {
        return None;
    }
    packet.set_words(0, macs)?;
    packet.set_half(ETH_LEN - 2, A::ETHERTYPE.to_be())
}
