//! tc: what backends of this node answer to outside clients.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_OK, TC_ACT_SHOT},
    programs::TcContext,
};
use lb_common::{
    Addr4, Addr6, Flow, FlowKey, Reason, backend_kind, direction, flow_flag,
    headers::{ETH_LEN, TCP, UDP, flow_key, tcp_flag, tcp_flags},
};

use crate::{
    counters,
    flows::{self, Known, find},
    ingress::Layout,
    mss, suspect,
    tables::{Table, Tables},
    tc::{ODD, exceeded, not_sent, send, translate},
    tc_odd::{NOT_OURS, SHOT, lb_tc_first4, lb_tc_first6},
    views::Buffer,
    way::way_back,
};

/// Translates a plain reply; [`ODD`] if it is none; [`REFUSAL`] if it is one, unless told not to ask.
type PlainReply = extern "C" fn(*mut __sk_buff, u32) -> i32;
/// Whether a refusal is settled by dropping it ([`suspect::settled`]).
type Settled = extern "C" fn(*mut __sk_buff) -> u32;
/// Translates what is no plain packet; gives where it goes ([`crate::tc_odd`]).
type OddReply = extern "C" fn(*mut __sk_buff, u32) -> u32;

/// From behind a link: it leaves by the client's interface at once.
#[inline(always)]
pub fn link_reply(skb: *mut __sk_buff, plain: PlainReply, settled: Settled, odd: OddReply) -> i32 {
    match plain(skb, ASK) {
        REFUSAL | ODD if settled(skb) != 0 => TC_ACT_SHOT,
        REFUSAL => plain(skb, 0),
        ODD => match odd(skb, 1) {
            NOT_OURS => TC_ACT_OK,
            SHOT => TC_ACT_SHOT,
            out => send(skb, out),
        },
        action => action,
    }
}

/// Of a socket of this host: it goes on its way.
#[inline(always)]
pub fn host_reply(skb: *mut __sk_buff, plain: PlainReply, settled: Settled, odd: OddReply) -> i32 {
    match plain(skb, ASK) {
        REFUSAL | ODD if settled(skb) != 0 => TC_ACT_SHOT,
        REFUSAL => plain(skb, 0),
        ODD if odd(skb, 0) == SHOT => TC_ACT_SHOT,
        ODD => TC_ACT_OK,
        action => action,
    }
}

/// Not a tc action: the reply may be a refusal, see [`suspect::settled`].
const REFUSAL: i32 = 1 << 9;
/// To a plain reply: whether it is to be told of refusals.
const ASK: u32 = 1;

macro_rules! replies {
    ($addr:ty, $link:ident, $host:ident, $first:ident, $settled:ident) => {
        /// Whether a refusal is settled by dropping it. A function of its own: the stack does not hold it beside the
        /// others.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $settled(ctx: *mut __sk_buff) -> u32 {
            if ctx.is_null() {
                return 0;
            }
            u32::from(suspect::settled::<$addr, _>(&Buffer(ctx), ETH_LEN) == Some(true))
        }

        /// A plain reply from behind a link.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $link(ctx: *mut __sk_buff, ask: u32) -> i32 {
            if ctx.is_null() {
                return TC_ACT_OK;
            }
            plain_link_reply::<$addr>(&TcContext::new(ctx), $first, ask).unwrap_or(TC_ACT_OK)
        }

        /// A plain reply of a socket of this host.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $host(ctx: *mut __sk_buff, ask: u32) -> i32 {
            if ctx.is_null() {
                return TC_ACT_OK;
            }
            plain_host_reply::<$addr>(&TcContext::new(ctx), $first, ask).unwrap_or(TC_ACT_OK)
        }
    };
}

replies!(
    Addr4,
    lb_tc_link4,
    lb_tc_host4,
    lb_tc_first4,
    lb_tc_settled4
);
replies!(
    Addr6,
    lb_tc_link6,
    lb_tc_host6,
    lb_tc_first6,
    lb_tc_settled6
);

/// Remembers the ports of a first fragment.
type First = extern "C" fn(*mut __sk_buff) -> u32;

#[inline(always)]
fn plain_link_reply<A: Tables>(ctx: &TcContext, first: First, ask: u32) -> Option<i32> {
    let (at, key, flow) = match reply::<A>(ctx, first, ask)? {
        Reply::Plain(at, key, flow) => (at, key, flow),
        Reply::Odd => return Some(ODD),
        Reply::Refusal => return Some(REFUSAL),
    };
    if at.ttl <= 1 {
        return Some(not_sent(Reason::TtlExceeded));
    }
    let out = way_back(ctx.skb.skb, flow);
    if exceeded(ctx.skb.skb, out, 0).is_some() {
        // A bridge with connection tracking joins fragments. The stack takes the packet apart again, and the
        // egress program translates the parts.
        counters::count(Reason::ToSlowPath);
        return None;
    }
    let done = translate(ctx, &at, &key, flow, true);
    Some(match done {
        Some(()) => send(ctx.skb.skb, out),
        None => not_sent(Reason::Malformed),
    })
}

#[inline(always)]
fn plain_host_reply<A: Tables>(ctx: &TcContext, first: First, ask: u32) -> Option<i32> {
    let (at, key, flow) = match reply::<A>(ctx, first, ask)? {
        Reply::Plain(at, key, flow) => (at, key, flow),
        Reply::Odd => return Some(ODD),
        Reply::Refusal => return Some(REFUSAL),
    };
    Some(match translate(ctx, &at, &key, flow, false) {
        Some(()) => TC_ACT_OK,
        None => not_sent(Reason::Malformed),
    })
}

/// What a backend of this node sends to an outside client.
enum Reply<A: 'static> {
    /// A segment or a datagram of a flow.
    Plain(Layout, FlowKey<A>, &'static mut Flow<A>),
    /// What may be something about one.
    Odd,
    /// A reset in answer to a SYN.
    Refusal,
}

/// A server's acceptance of a connection.
const BOTH: u8 = tcp_flag::SYN | tcp_flag::ACK;

/// A packet from a backend of this node to an outside client.
#[inline(always)]
fn reply<A: Tables>(ctx: &TcContext, remember: First, ask: u32) -> Option<Reply<A>> {
    let packet = Buffer(ctx.skb.skb);
    let ip = A::parse(&packet, ETH_LEN)?;
    let first = ip.fragment && A::fragment(&packet, ETH_LEN, &ip)?.is_first();
    if ip.fragment != first || (ip.proto != TCP && ip.proto != UDP) {
        return Some(Reply::Odd);
    }
    let key = flow_key(&packet, &ip)?;
    let at = Layout {
        l4: ip.l4,
        len: ip.len,
        ttl: ip.ttl,
    };
    let (table, flow) = find(&key)?;
    if flow.direction != direction::REVERSE || flow.kind == backend_kind::NET {
        return None;
    }
    if first {
        remember(ctx.skb.skb);
    }
    let flags = if key.proto == u32::from(TCP) {
        tcp_flags(&packet, at.l4)?
    } else {
        0
    };
    if ask != 0 && table == Table::Half && flags & tcp_flag::RST != 0 {
        return Some(Reply::Refusal);
    }
    if flags & BOTH == BOTH && flow.flags & flow_flag::PEER != 0 {
        mss::clamp::<A>(ctx.skb.skb, at.l4);
    }
    match flows::follow(&key, flow, flags, || flows::fails_open(&key)) {
        Known::Go(..) => {}
        Known::Touch(..) => Tables::touch(table, &key, flags),
        Known::Stale | Known::Gone => return None,
    }
    Some(Reply::Plain(at, key, flow))
}
