//! XDP ingress: DNAT up the stack, full NAT out again without leaving the driver.

use core::hint::cold_path;

use aya_ebpf::{
    bindings::{bpf_fib_lookup as FibLookup, xdp_action, xdp_md},
    macros::xdp,
    programs::XdpContext,
};
use lb_common::{
    Addr4, Addr6, Flow, Neighbour, NextHop, Reason, backend_kind, direction,
    headers::{ETH_IPV4, ETH_IPV6, ETH_LEN, Family as _, Packet, PacketMut, ethernet},
};

use crate::{
    answer::{ANSWER, TIME_EXCEEDED, lb_xdp_answer4, lb_xdp_answer6, too_big},
    dsr,
    extensions::HEADER_MASK,
    forward::{self, came_by, is_joined, malformed, may_send, next_hop, route, slow_path},
    frame::{Frame, Head, Plain},
    geneve::{self, BACKEND, GENEVE, lb_xdp_count4, lb_xdp_count6, lb_xdp_wrap4, lb_xdp_wrap6},
    ingress::{Action, Stages, Translation, decide, staged},
    maps::{LB_BACKENDS, LB_NEIGHBOURS, LB_NEXT_HOPS, LB_NODE, LB_STAGES},
    open::open_for,
    peer_xdp::{
        self, lb_xdp_follow4, lb_xdp_follow6, lb_xdp_inspect4, lb_xdp_inspect6, lb_xdp_join4,
        lb_xdp_join6, lb_xdp_take4, lb_xdp_take6,
    },
    rewrite::translate,
    suspect,
    tables::{FROM_PEER, Table, Tables},
    trace,
    views::Bytes,
    words,
    xdp_odd::{FIRST, lb_xdp_odd4, lb_xdp_odd6},
};

/// Not XDP actions: the packet has no flow yet; its next hop must be asked for; it is none of the plain
/// kind. Another is [`GENEVE`].
const OPEN: u32 = 1 << 8;
const ASK: u32 = 1 << 9;
const ODD: u32 = 1 << 10;
/// It is for the node at the port of Geneve.
const PEER: u32 = 1 << 12;

/// The packet path of frames that are laid out as nearly all are, at offsets that are known when it is
/// compiled, and without a call: on processors whose returns must be made safe, each costs a quarter of a
/// flow's lookup. Whatever is rare goes on to [`lb_xdp_general`], as it came.
#[xdp(frags)]
pub fn lb_xdp(ctx: XdpContext) -> u32 {
    let frame = Frame::new(ctx.ctx);
    let action = match frame.half(ETH_LEN - 2).map(u16::from_be) {
        Some(ETH_IPV4) => shortcut::<Addr4>(&frame),
        Some(ETH_IPV6) => shortcut::<Addr6>(&frame),
        _ => OPEN,
    };
    if action >= OPEN {
        // SAFETY: map and context are the kernel's own. It comes back only where the slot is empty.
        unsafe { LB_STAGES.tail_call(&ctx, 0) };
        return xdp_action::XDP_PASS;
    }
    action
}

#[inline(always)]
fn shortcut<A: Tables + Plain>(frame: &Frame) -> u32 {
    match Head::<A>::of(frame) {
        Some(head) => match ingress::<A, _>(frame.ctx, &head, ETH_LEN, Table::Main.scalar()) {
            PEER => {
                cold_path();
                peer_xdp::shortcut::<A>(frame).unwrap_or(PEER)
            }
            action => action,
        },
        None => OPEN,
    }
}

/// The packet path of every frame.
// Else there are two functions of this name, one within the other, and each has a stack frame.
#[xdp(frags)]
#[inline(always)]
pub fn lb_xdp_general(ctx: XdpContext) -> u32 {
    words::begin();
    let (kind, l3) = ethernet(&Frame::new(ctx.ctx)).unwrap_or((0, 0));
    let traced = trace::xdp_saw(ctx.ctx, kind, l3);
    let action = match kind {
        ETH_IPV4 => {
            let stages = Stages4::new(ctx.ctx, l3);
            staged(&stages, stages.path(0))
        }
        ETH_IPV6 => {
            let stages = Stages6::new(ctx.ctx, l3);
            staged(&stages, stages.path(0))
        }
        _ => xdp_action::XDP_PASS,
    };
    trace::xdp_did(ctx.ctx, traced, action);
    words::end();
    action
}

macro_rules! stages {
    ($stages:ident, $addr:ty, $path:ident, $ask:ident, $open:ident, $odd:ident, $answer:ident, $wrap:ident, $count:ident, $inspect:ident, $join:ident, $follow:ident, $take:ident, $settled:ident) => {
        /// Whether a refusal is settled by dropping it.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $settled(ctx: *mut xdp_md, l3: u32) -> u32 {
            if ctx.is_null() {
                return 0;
            }
            let l3 = (l3 & HEADER_MASK) as usize;
            u32::from(suspect::settled::<$addr, _>(&Bytes(ctx), l3) == Some(true))
        }

        /// The packet path of one family. Global, so that its frame is its own and the verifier walks it
        /// once.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $path(ctx: *mut xdp_md, l3: u32, table: u32) -> u32 {
            if ctx.is_null() {
                return xdp_action::XDP_PASS;
            }
            let l3 = (l3 & HEADER_MASK) as usize;
            ingress::<$addr, _>(ctx, &Frame::new(ctx), l3, table)
        }

        /// As the packet path, for a packet whose next hop only the kernel may know.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $ask(ctx: *mut xdp_md, l3: u32, table: u32) -> u32 {
            if ctx.is_null() {
                return xdp_action::XDP_PASS;
            }
            let l3 = (l3 & HEADER_MASK) as usize;
            by_kernel::<$addr>(ctx, l3, table)
        }

        /// Opens a flow for the packet.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $open(ctx: *mut xdp_md, l3: u32) -> u32 {
            if ctx.is_null() {
                return Reason::Malformed as u32;
            }
            let ifindex = came_by(ctx);
            open_for::<$addr, _>(&Frame::new(ctx), (l3 & HEADER_MASK) as usize, ifindex)
        }

        struct $stages {
            ctx: *mut xdp_md,
            l3: u32,
        }

        impl $stages {
            #[inline(always)]
            fn new(ctx: *mut xdp_md, l3: usize) -> Self {
                Self { ctx, l3: l3 as u32 }
            }
        }

        impl Stages for $stages {
            type Verdict = u32;
            const PASS: u32 = xdp_action::XDP_PASS;
            const DROP: u32 = xdp_action::XDP_DROP;
            const OPEN: u32 = OPEN;
            const FIRST: u32 = FIRST;
            const PEER: u32 = PEER;

            #[inline(always)]
            fn path(&self, table: u32) -> u32 {
                $path(self.ctx, self.l3, table)
            }

            #[inline(always)]
            fn settle(&self, action: u32, table: u32) -> u32 {
                let action = match action {
                    ASK => $ask(self.ctx, self.l3, table),
                    ODD if self.settled() => xdp_action::XDP_DROP,
                    ODD => $odd(self.ctx, self.l3),
                    action => action,
                };
                let action = if action & GENEVE != 0 && action & ANSWER == 0 {
                    let action = $wrap(self.ctx, self.l3, action);
                    if action == xdp_action::XDP_TX || action == xdp_action::XDP_REDIRECT {
                        $count(self.ctx);
                    }
                    action
                } else {
                    action
                };
                if action & ANSWER != 0 {
                    $answer(self.ctx, self.l3, action)
                } else {
                    action
                }
            }

            #[inline(always)]
            fn open(&self) -> u32 {
                $open(self.ctx, self.l3)
            }

            #[inline(always)]
            fn is_counted(&self) -> bool {
                false
            }

            #[inline(always)]
            fn settled(&self) -> bool {
                $settled(self.ctx, self.l3) != 0
            }

            #[inline(always)]
            fn inspect(&self) -> u32 {
                $inspect(self.ctx, self.l3)
            }

            #[inline(always)]
            fn join(&self) -> u32 {
                $join(self.ctx)
            }

            #[inline(always)]
            fn follow(&self) -> u32 {
                $follow(self.ctx)
            }

            #[inline(always)]
            fn take(&self) -> u32 {
                $take(self.ctx)
            }
        }
    };
}

stages!(
    Stages4,
    Addr4,
    lb_xdp4,
    lb_xdp_ask4,
    lb_xdp_open4,
    lb_xdp_odd4,
    lb_xdp_answer4,
    lb_xdp_wrap4,
    lb_xdp_count4,
    lb_xdp_inspect4,
    lb_xdp_join4,
    lb_xdp_follow4,
    lb_xdp_take4,
    lb_xdp_settled4
);
stages!(
    Stages6,
    Addr6,
    lb_xdp6,
    lb_xdp_ask6,
    lb_xdp_open6,
    lb_xdp_odd6,
    lb_xdp_answer6,
    lb_xdp_wrap6,
    lb_xdp_count6,
    lb_xdp_inspect6,
    lb_xdp_join6,
    lb_xdp_follow6,
    lb_xdp_take6,
    lb_xdp_settled6
);

#[inline(always)]
fn ingress<A: Tables + Plain, P: PacketMut>(
    ctx: *mut xdp_md,
    frame: &P,
    l3: usize,
    table: u32,
) -> u32 {
    let Translation {
        at,
        key,
        flow,
        hop,
        backend,
    } = match decide::<A, _>(frame, l3, table) {
        Action::Drop => return xdp_action::XDP_DROP,
        Action::Pass => return xdp_action::XDP_PASS,
        Action::Open | Action::Elsewhere => return OPEN,
        Action::Odd => return ODD,
        Action::Peer => return PEER,
        Action::Translate(translation) => translation,
    };
    if table & FROM_PEER != 0 && flow.kind != backend_kind::HOST {
        return OPEN;
    }
    match flow.kind {
        backend_kind::HOST => match translate(frame, l3, &at, &key, flow, false) {
            Some(()) => xdp_action::XDP_PASS,
            None => malformed(),
        },
        // A tag would go along to wherever the untagged network leads. Opaque to the compiler, which would
        // otherwise know `l3` from here on and leave out a bounds check that the verifier needs.
        backend_kind::NET if core::hint::black_box(l3) == ETH_LEN => {
            match LB_NEXT_HOPS.get(u32::from(hop)) {
                Some(hop) if hop.ifindex != 0 && u32::from(at.len) <= hop.mtu && at.ttl > 1 => {
                    match translate(frame, l3, &at, &key, flow, true) {
                        Some(()) => send(ctx, hop),
                        None => malformed(),
                    }
                }
                _ => ASK,
            }
        }
        backend_kind::GENEVE => {
            // Said of both kinds that call a helper: else what has to outlive the call is put on the stack before it
            // is known that there will be one, and NAT pays for it.
            cold_path();
            let id = flow.backend;
            let sent = match backend {
                Some(backend) if P::SHORTCUT => {
                    geneve::shortcut::<A, _>(ctx, frame, &at, &key, id, backend)
                }
                _ => None,
            };
            if sent.is_some() {
                dsr::count_for(at.len, flow.service);
            }
            sent.unwrap_or(GENEVE | (id & BACKEND))
        }
        kind if backend_kind::is_dsr(kind) && core::hint::black_box(l3) == ETH_LEN => {
            cold_path();
            let len = u32::from(at.len) + dsr::overhead::<A>(kind);
            let id = (flow.service, flow.backend);
            match (LB_NEXT_HOPS.get(u32::from(hop)), backend) {
                (Some(hop), Some(backend)) if hop.ifindex != 0 && len <= hop.mtu => {
                    match dsr::wrap::<A>(ctx, &at, kind, id, backend) {
                        Some(()) => send(ctx, hop),
                        None => malformed(),
                    }
                }
                _ => ASK,
            }
        }
        _ if at.ttl <= 1 => ASK,
        // Tagged, or out of a bridge or veth, where the kernel must find the neighbour and the port.
        _ => slow_path(),
    }
}

/// As [`ingress`] for what goes to another host, with the next hop of the kernel's route and neighbour
/// tables. A client's is kept in its flow. What cannot go on gives an [`ANSWER`].
#[inline(always)]
fn by_kernel<A: Tables>(ctx: *mut xdp_md, l3: usize, table: u32) -> u32 {
    let frame = &Frame::new(ctx);
    let Action::Translate(Translation {
        at,
        key,
        flow,
        hop,
        backend: _,
    }) = decide::<A, _>(frame, l3, table)
    else {
        return slow_path();
    };
    let kind = flow.kind;
    let dsr = backend_kind::is_dsr(kind);
    if at.ttl <= 1 && !dsr {
        return TIME_EXCEEDED;
    }
    // Opaque as in [`ingress`].
    if kind == backend_kind::LINK || core::hint::black_box(l3) != ETH_LEN {
        return slow_path();
    }
    let (src, dst) = if dsr {
        match (
            LB_NODE.get(0).and_then(A::snat_address),
            LB_BACKENDS.get(flow.backend),
        ) {
            (Some(src), Some(backend)) => (src, A::narrow(&backend.addr)),
            _ => return slow_path(),
        }
    } else {
        (flow.new_src, flow.new_dst)
    };
    let len = at.len.saturating_add(dsr::overhead::<A>(kind) as u16);
    let known = LB_NEXT_HOPS.get(u32::from(hop));
    let found = match known {
        Some(hop) if hop.ifindex != 0 && u32::from(len) > hop.mtu => Err(hop.mtu),
        _ => route(ctx, len, key.proto as u8, src, dst),
    };
    let fib = match found {
        Ok(fib) => fib,
        Err(mtu) if mtu != 0 && !is_joined(ctx) => {
            return too_big(mtu.saturating_sub(dsr::overhead::<A>(kind)));
        }
        Err(_) => return slow_path(),
    };
    if !may_send(ctx, fib.ifindex) {
        return slow_path();
    }
    let hop = next_hop(&fib);
    if dsr {
        let id = (flow.service, flow.backend);
        let Some(backend) = LB_BACKENDS.get(flow.backend) else {
            return slow_path();
        };
        return match dsr::wrap::<A>(ctx, &at, kind, id, backend) {
            Some(()) => send(ctx, &hop),
            None => malformed(),
        };
    }
    if flow.direction == direction::REVERSE {
        remember(flow, &fib);
    }
    match translate(frame, l3, &at, &key, flow, true) {
        Some(()) => send(ctx, &hop),
        None => malformed(),
    }
}

/// Notes the client's next hop in its flow, if the agent keeps one for it.
#[inline(always)]
fn remember<A: Tables>(flow: &mut Flow<A>, fib: &FibLookup) {
    let v4 = fib.family == Addr4::AF;
    // SAFETY: a union of plain words, zero where the lookup wrote nothing.
    let (addr4, addr6) = unsafe {
        let words = &fib.__bindgen_anon_4;
        (words.ipv4_dst, words.ipv6_dst)
    };
    let neighbour = Neighbour {
        ifindex: fib.ifindex,
        family: if v4 { 4 } else { 6 },
        addr: Addr6(if v4 { [addr4, 0, 0, 0] } else { addr6 }),
    };
    // SAFETY: the value is copied before any other map call.
    let hop = unsafe { LB_NEIGHBOURS.get(neighbour) }.copied();
    if let (Some(hop), Some(node)) = (hop, LB_NODE.get(0)) {
        flow.route_epoch = node.route_epoch;
        flow.next_hop = hop as u16;
        flow.client_ifindex = fib.ifindex;
    }
}

/// Writes the Ethernet header of a translated packet and sends it.
#[inline(always)]
pub fn send(ctx: *mut xdp_md, hop: &NextHop) -> u32 {
    // The packet's bounds are read again: to the compiler the check behind the network header covers the
    // Ethernet header as well, to the verifier it does not.
    let Some(ethernet) = Frame::new(ctx).at::<[u8; 12]>(0) else {
        return malformed();
    };
    let macs = (&raw const *hop).cast::<u8>();
    // SAFETY: inside the packet, and inside the entry, which begins with both addresses; unaligned access
    // as in [`Frame::half`].
    unsafe {
        *ethernet.cast::<u64>() = *macs.cast::<u64>();
        *ethernet.byte_add(8).cast::<u32>() = *macs.byte_add(8).cast::<u32>();
    }
    forward::send(ctx, hop.ifindex)
}
