//! The tc programs: the ingress twin of XDP, the ingress of interfaces behind which backends live, and
//! the egress that gives replies the VIP's address back.

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, TC_ACT_OK, TC_ACT_REDIRECT, TC_ACT_SHOT,
        bpf_check_mtu_flags::BPF_MTU_CHK_SEGS,
    },
    helpers::generated::{bpf_check_mtu, bpf_csum_update, bpf_redirect_neigh, bpf_skb_vlan_pop},
    macros::classifier,
    programs::TcContext,
};
use lb_common::{
    Addr4, Addr6, Flow, FlowKey, Reason, backend_kind,
    checksum::Delta,
    direction,
    headers::{
        ETH_IPV4, ETH_IPV6, ETH_LEN, IPV4_CHECKSUM, Packet as _, PacketMut as _, UDP,
        checksum_offset,
    },
    trace_hook,
};

use crate::{
    answer::{TIME_EXCEEDED, too_big},
    counters, dsr, ethernet,
    geneve::{self, BACKEND, GENEVE},
    ingress::{Action, Layout, Stages, Translation, decide, staged},
    maps::{LB_BACKENDS, LB_NEXT_HOPS},
    open::open_for,
    peer,
    rewrite::count,
    tables::{FROM_PEER, Tables},
    tc_answer::{lb_tc_answer4, lb_tc_answer6},
    tc_odd::{FIRST, OUTER, lb_tc_odd4, lb_tc_odd6, lb_tc_reply4, lb_tc_reply6},
    tc_outer::{lb_tc_outer4, lb_tc_outer6, lb_tc_relay4, lb_tc_relay6},
    tc_reply::{
        host_reply, lb_tc_host4, lb_tc_host6, lb_tc_link4, lb_tc_link6, lb_tc_settled4,
        lb_tc_settled6, link_reply,
    },
    trace,
    views::Buffer,
    way::way_back,
    words,
};

/// Takes what XDP left: next hops that the kernel must resolve, containers behind a bridge, bridges
/// themselves (which have no native XDP), and everything where XDP is off.
#[classifier]
#[inline(always)]
pub fn lb_tc_ingress(ctx: TcContext) -> i32 {
    words::begin();
    let skb = ctx.skb.skb;
    ethernet::begin(skb);
    let kind = network_header(&ctx);
    let traced = trace::tc_saw(skb, kind, trace_hook::INGRESS);
    let action = match kind {
        ETH_IPV4 => staged(&Stages4(skb), lb_tc4(skb, 0)),
        ETH_IPV6 => staged(&Stages6(skb), lb_tc6(skb, 0)),
        _ => TC_ACT_OK,
    };
    trace::tc_did(skb, traced, action);
    words::end();
    action
}

/// Not tc actions: the packet has no flow yet; it is none of the plain kind.
const OPEN: i32 = 1 << 8;
pub const ODD: i32 = 1 << 10;
/// It is for the node at the port of Geneve.
const PEER: i32 = 1 << 12;

macro_rules! stages {
    ($stages:ident, $addr:ty, $path:ident, $open:ident, $odd:ident, $inspect:path, $join:path, $follow:path, $take:path, $wrap:path, $count:path, $settled:path, $outer:path, $relay:path, $answer:path) => {
        /// The packet path of one family. Global, so that its frame is its own and the verifier walks it
        /// once.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $path(ctx: *mut __sk_buff, table: u32) -> i32 {
            if ctx.is_null() {
                return TC_ACT_OK;
            }
            ingress::<$addr>(&TcContext::new(ctx), table)
        }

        /// Opens a flow for the packet.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $open(ctx: *mut __sk_buff) -> u32 {
            if ctx.is_null() {
                return Reason::Malformed as u32;
            }
            // SAFETY: a plain read of the context.
            let ifindex = unsafe { (*ctx).ingress_ifindex };
            open_for::<$addr, _>(&Buffer(ctx), ETH_LEN, ifindex)
        }

        struct $stages(*mut __sk_buff);

        impl Stages for $stages {
            type Verdict = i32;
            const PASS: i32 = TC_ACT_OK;
            const DROP: i32 = TC_ACT_SHOT;
            const OPEN: i32 = OPEN;
            const FIRST: i32 = FIRST;
            const PEER: i32 = PEER;

            #[inline(always)]
            fn path(&self, table: u32) -> i32 {
                $path(self.0, table)
            }

            #[inline(always)]
            fn settle(&self, verdict: i32, _: u32) -> i32 {
                let verdict = match verdict {
                    ODD if self.settled() => TC_ACT_SHOT,
                    ODD => $odd(self.0),
                    verdict => verdict,
                };
                let verdict = match verdict {
                    OUTER => $relay(self.0, $outer(self.0)),
                    verdict if verdict >= 0 && verdict as u32 & GENEVE != 0 => {
                        let verdict = $wrap(self.0, verdict as u32 & BACKEND);
                        if verdict == TC_ACT_REDIRECT {
                            $count(self.0);
                        }
                        verdict
                    }
                    verdict => verdict,
                };
                // An `ANSWER`.
                if verdict < 0 {
                    return $answer(self.0, verdict as u32);
                }
                verdict
            }

            #[inline(always)]
            fn open(&self) -> u32 {
                $open(self.0)
            }

            #[inline(always)]
            fn is_counted(&self) -> bool {
                Buffer(self.0).is_counted()
            }

            #[inline(always)]
            fn settled(&self) -> bool {
                $settled(self.0) != 0
            }

            #[inline(always)]
            fn inspect(&self) -> u32 {
                $inspect(self.0)
            }

            #[inline(always)]
            fn join(&self) -> u32 {
                $join(self.0)
            }

            #[inline(always)]
            fn follow(&self) -> u32 {
                $follow(self.0)
            }

            #[inline(always)]
            fn take(&self) -> u32 {
                $take(self.0)
            }
        }
    };
}

stages!(
    Stages4,
    Addr4,
    lb_tc4,
    lb_tc_open4,
    lb_tc_odd4,
    peer::lb_tc_inspect4,
    peer::lb_tc_join4,
    peer::lb_tc_follow4,
    peer::lb_tc_take4,
    geneve::lb_tc_wrap4,
    geneve::lb_tc_count4,
    lb_tc_settled4,
    lb_tc_outer4,
    lb_tc_relay4,
    lb_tc_answer4
);
stages!(
    Stages6,
    Addr6,
    lb_tc6,
    lb_tc_open6,
    lb_tc_odd6,
    peer::lb_tc_inspect6,
    peer::lb_tc_join6,
    peer::lb_tc_follow6,
    peer::lb_tc_take6,
    geneve::lb_tc_wrap6,
    geneve::lb_tc_count6,
    lb_tc_settled6,
    lb_tc_outer6,
    lb_tc_relay6,
    lb_tc_answer6
);

/// On an interface behind which backends of this node live: their replies to outside clients leave by
/// the client's interface at once, past the host's FORWARD rules and masquerading.
#[classifier]
pub fn lb_tc_link(ctx: TcContext) -> i32 {
    words::begin();
    let (skb, kind) = (ctx.skb.skb, network_header(&ctx));
    let traced = trace::tc_saw(skb, kind, trace_hook::LINK);
    let action = match kind {
        ETH_IPV4 => link_reply(skb, lb_tc_link4, lb_tc_settled4, lb_tc_reply4),
        ETH_IPV6 => link_reply(skb, lb_tc_link6, lb_tc_settled6, lb_tc_reply6),
        _ => TC_ACT_OK,
    };
    trace::tc_did(skb, traced, action);
    words::end();
    action
}

/// Replies of this host's own sockets on their way out.
#[classifier]
pub fn lb_tc_egress(ctx: TcContext) -> i32 {
    words::begin();
    let (skb, kind) = (ctx.skb.skb, network_header(&ctx));
    let traced = trace::tc_saw(skb, kind, trace_hook::EGRESS);
    let action = match kind {
        ETH_IPV4 => host_reply(skb, lb_tc_host4, lb_tc_settled4, lb_tc_reply4),
        ETH_IPV6 => host_reply(skb, lb_tc_host6, lb_tc_settled6, lb_tc_reply6),
        _ => TC_ACT_OK,
    };
    trace::tc_did(skb, traced, action);
    words::end();
    action
}

/// The EtherType, host order, 0 if there is none. VLAN tags are outside the buffer here (`skb->vlan_tci`).
#[inline(always)]
fn network_header(ctx: &TcContext) -> u16 {
    u16::from_be(Buffer(ctx.skb.skb).half(ETH_LEN - 2).unwrap_or(0))
}

#[inline(always)]
fn ingress<A: Tables>(ctx: &TcContext, table: u32) -> i32 {
    let Translation {
        at, key, flow, hop, ..
    } = match decide::<A, _>(&Buffer(ctx.skb.skb), ETH_LEN, table) {
        Action::Drop => return TC_ACT_SHOT,
        Action::Pass | Action::Elsewhere => return TC_ACT_OK,
        Action::Open => return OPEN,
        Action::Odd => return ODD,
        Action::Peer => return PEER,
        Action::Translate(translation) => translation,
    };
    let here = flow.kind == backend_kind::HOST || flow.kind == backend_kind::LINK;
    if table & FROM_PEER != 0 && !here {
        return OPEN;
    }
    if backend_kind::is_dsr(flow.kind) {
        return dsr::send::<A>(ctx, &at, flow).unwrap_or_else(|| not_sent(Reason::NotSent));
    }
    if flow.direction == direction::REVERSE && flow.kind != backend_kind::HOST {
        // The flow learns where its client is.
        way_back(ctx.skb.skb, flow);
    }
    let mut out = way_out(flow);
    if out != 0
        && let Some(answer) = unsent(ctx.skb.skb, &at, hop, out)
    {
        if flow.kind == backend_kind::NET {
            // The stack forwards nothing that comes from its own address, so it answers nothing either.
            return answer as i32;
        }
        // The stack answers or fragments; what it quotes is translated on its way out.
        out = 0;
    }
    if translate(ctx, &at, &key, flow, out != 0).is_none() {
        return not_sent(Reason::Malformed);
    }
    if out == 0 {
        TC_ACT_OK
    } else {
        send(ctx.skb.skb, out)
    }
}

/// Counts a packet that is dropped.
#[inline(always)]
pub fn not_sent(reason: Reason) -> i32 {
    counters::count(reason);
    TC_ACT_SHOT
}

/// The answer to a packet that cannot leave by the interface; `hop`: index of its next hop, 0 where it is not known.
#[inline(always)]
fn unsent(skb: *mut __sk_buff, at: &Layout, hop: u16, ifindex: u32) -> Option<u32> {
    if at.ttl <= 1 {
        return Some(TIME_EXCEEDED);
    }
    let mtu = match narrower(skb, at.len, hop, 0) {
        None => exceeded(skb, ifindex, 0),
        mtu => mtu,
    };
    mtu.map(too_big)
}

/// What the way by a next hop takes, which may be less than its interface does, if a packet of so many bytes is longer
/// when it has grown. One that is yet to be segmented is not.
#[inline(always)]
pub fn narrower(skb: *mut __sk_buff, len: u16, hop: u16, grows: u32) -> Option<u32> {
    let hop = LB_NEXT_HOPS.get(u32::from(hop))?;
    // SAFETY: a plain read of the context.
    let whole = unsafe { (*skb).gso_size } == 0;
    (whole && hop.ifindex != 0 && u32::from(len) + grows > hop.mtu).then_some(hop.mtu)
}

/// What the interface takes, if a packet that grows by so many bytes is longer, which `bpf_redirect_neigh` does not
/// ask. Of one that is yet to be segmented the segments count, and nothing where it grows.
#[inline(always)]
pub fn exceeded(skb: *mut __sk_buff, ifindex: u32, grows: u32) -> Option<u32> {
    let mut mtu = 0;
    // The kernel does not do both.
    let flags = if grows == 0 { BPF_MTU_CHK_SEGS } else { 0 };
    // SAFETY: the context of this program, and a word that outlives the call.
    let ret = unsafe { bpf_check_mtu(skb.cast(), ifindex, &mut mtu, grows as i32, flags.into()) };
    (ret > 0).then_some(mtu)
}

/// The interface by which a translated packet leaves, as far as its flow knows; 0: it goes up the stack.
#[inline(always)]
pub fn way_out<A>(flow: &Flow<A>) -> u32 {
    match (flow.kind, flow.direction) {
        (backend_kind::HOST, _) => 0,
        (_, direction::REVERSE) => flow.client_ifindex,
        _ => LB_BACKENDS
            .get(flow.backend)
            .map_or(0, |backend| backend.ifindex),
    }
}

/// Out of `ifindex`, with the next hop resolved by the kernel. A tag is that of the network that the
/// packet came from.
#[inline(always)]
pub fn send(skb: *mut __sk_buff, ifindex: u32) -> i32 {
    // SAFETY: the context of this program.
    if unsafe { (*skb).vlan_present } != 0 && unsafe { bpf_skb_vlan_pop(skb) } != 0 {
        return not_sent(Reason::NotSent);
    }
    // SAFETY: no parameters: the kernel looks the route up by the packet's addresses.
    unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) as i32 }
}

/// Rewrites addresses, ports and checksums. A checksum that the device is to finish holds the pseudo
/// header alone, so the addresses' difference goes in with `BPF_F_PSEUDO_HDR` and the ports' without. A
/// packet that is `forwarded` past the stack has one hop less.
#[inline(always)]
pub fn translate<A: Tables>(
    ctx: &TcContext,
    at: &Layout,
    key: &FlowKey<A>,
    flow: &Flow<A>,
    forwarded: bool,
) -> Option<()> {
    let (addresses, ports) = (u64::from(flow.addr_delta), u64::from(flow.port_delta));
    let (src, dst) = (flow.new_src, flow.new_dst);
    let new_ports = [flow.new_sport.0, flow.new_dport.0];
    count(at, flow);
    let mangled = if key.proto == u32::from(UDP) {
        u64::from(BPF_F_MARK_MANGLED_0)
    } else {
        0
    };
    let checksum = checksum_offset(key.proto, at.l4);
    let pseudo = u64::from(BPF_F_PSEUDO_HDR) | mangled;
    ctx.l4_csum_replace(checksum, 0, addresses, pseudo).ok()?;
    ctx.l4_csum_replace(checksum, 0, ports, mangled).ok()?;
    ctx.store(at.l4, &new_ports, 0).ok()?;
    if forwarded {
        let packet = Buffer(ctx.skb.skb);
        let hops = packet.half(ETH_LEN + A::HOP.0)?;
        let hops = hops.wrapping_sub(A::HOP.1);
        if A::VERSION == 6 {
            packet.set_half(ETH_LEN + A::HOP.0, hops)?;
        } else {
            // The header's checksum makes up for it in a sum that the device has made.
            ctx.store(ETH_LEN + A::HOP.0, &hops, 0).ok()?;
            let hop = u64::from(Delta::HOP.folded());
            ctx.l3_csum_replace(ETH_LEN + IPV4_CHECKSUM, 0, hop, 0)
                .ok()?;
        }
    }
    if A::VERSION == 4 {
        ctx.l3_csum_replace(ETH_LEN + IPV4_CHECKSUM, 0, addresses, 0)
            .ok()?;
    }
    ctx.store(ETH_LEN + A::ADDRESSES.0, &src, 0).ok()?;
    ctx.store(ETH_LEN + A::ADDRESSES.1, &dst, 0).ok()?;
    if A::VERSION == 6 {
        // Where the device has summed the packet, `BPF_F_PSEUDO_HDR` takes the addresses' difference from
        // its sum: right for IPv4, whose header checksum makes up for the addresses. IPv6 has none, so it
        // goes back in. (Kernel 6.16 has `BPF_F_IPV6` for this.) Without such a sum the helper refuses,
        // and nothing is to be done.
        // SAFETY: the context of this program; no pointers.
        unsafe { bpf_csum_update(ctx.skb.skb, addresses as u32) };
    }
    Some(())
}
