//! tc: what is no whole TCP segment or UDP datagram.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_OK, TC_ACT_SHOT},
    programs::TcContext,
};
use lb_common::{
    Addr4, Addr6, Flow, Reason, backend_kind, direction,
    headers::{ETH_LEN, Ip, flow_key},
    icmp::translate_error,
};

use crate::{
    counters, dsr,
    fragments::{self, Fate},
    icmp::{self, Error},
    ingress::Layout,
    rewrite::follow,
    tables::Tables,
    tc::{exceeded, not_sent, send, way_out},
    views::Buffer,
    way::way_back,
};

/// Not a tc action: the packet is a first fragment, and may be treated as a whole one.
pub const FIRST: i32 = 1 << 11;
/// As well: it may be an ICMP error about a packet that holds a client's.
pub const OUTER: i32 = 1 << 13;
/// What is done about an ICMP error, as one number: a verdict with this bit, or the interface by which it leaves after
/// its translation, 0 for the stack.
const DONE: u32 = 1 << 31;
/// Not interfaces: the packet is none of ours; it is to be dropped.
pub const NOT_OURS: u32 = u32::MAX;
pub const SHOT: u32 = u32::MAX - 1;

macro_rules! stages {
    ($addr:ty, $odd:ident, $way:ident, $translate:ident, $later:ident, $first:ident, $reply:ident) => {
        /// Decides about a packet for an address of ours.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $odd(ctx: *mut __sk_buff) -> i32 {
            if ctx.is_null() {
                return TC_ACT_OK;
            }
            odd::<$addr>(Buffer(ctx), $way, $translate, $later)
        }

        /// Finds where an ICMP error is to be heard.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $way(ctx: *mut __sk_buff) -> u32 {
            if ctx.is_null() {
                return done(TC_ACT_OK);
            }
            error_way::<$addr>(Buffer(ctx))
        }

        /// Translates it. A function of its own: the stack does not hold both.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $translate(ctx: *mut __sk_buff, forwarded: u32) -> u32 {
            if ctx.is_null() {
                return 0;
            }
            u32::from(translate::<$addr>(Buffer(ctx), forwarded != 0).is_some())
        }

        /// Translates a fragment without ports.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $later(ctx: *mut __sk_buff) -> i32 {
            if ctx.is_null() {
                return TC_ACT_OK;
            }
            later::<$addr>(Buffer(ctx))
        }

        /// Remembers the ports of a first fragment.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $first(ctx: *mut __sk_buff) -> u32 {
            if ctx.is_null() {
                return 0;
            }
            u32::from(first::<$addr>(Buffer(ctx)).is_some())
        }

        /// Translates what a backend of this node sends about a flow of an outside client: the client's
        /// interface, or [`NOT_OURS`] or [`SHOT`]. `forwarded`: not 0 where no stack takes a hop off.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $reply(ctx: *mut __sk_buff, forwarded: u32) -> u32 {
            if ctx.is_null() {
                return NOT_OURS;
            }
            reply::<$addr>(Buffer(ctx), forwarded != 0)
        }
    };
}

stages!(
    Addr4,
    lb_tc_odd4,
    lb_tc_error_way4,
    lb_tc_error4,
    lb_tc_later4,
    lb_tc_first4,
    lb_tc_reply4
);
stages!(
    Addr6,
    lb_tc_odd6,
    lb_tc_error_way6,
    lb_tc_error6,
    lb_tc_later6,
    lb_tc_first6,
    lb_tc_reply6
);

#[inline(always)]
fn odd<A: Tables>(
    packet: Buffer,
    way: extern "C" fn(*mut __sk_buff) -> u32,
    translate: extern "C" fn(*mut __sk_buff, u32) -> u32,
    later: extern "C" fn(*mut __sk_buff) -> i32,
) -> i32 {
    let Some(ip) = A::parse(&packet, ETH_LEN) else {
        return TC_ACT_OK;
    };
    if ip.fragment {
        return match fragments::fate(&packet, ETH_LEN, &ip) {
            Fate::Pass => TC_ACT_OK,
            Fate::Drop => TC_ACT_SHOT,
            Fate::First => FIRST,
            Fate::Later => later(packet.0),
        };
    }
    if ip.proto != A::PROTO {
        return TC_ACT_OK;
    }
    let out = way(packet.0);
    if out & DONE != 0 {
        return (out & !DONE) as i32;
    }
    if translate(packet.0, out) == 0 {
        return not_sent(Reason::Malformed);
    }
    if out == 0 {
        return TC_ACT_OK;
    }
    send(packet.0, out)
}

#[inline(always)]
fn later<A: Tables>(packet: Buffer) -> i32 {
    let Some(ip) = A::parse(&packet, ETH_LEN) else {
        return TC_ACT_OK;
    };
    let Some(flow) = fragments::flow(&packet, ETH_LEN, &ip) else {
        // What was refused of the first is refused of the whole.
        return TC_ACT_OK;
    };
    if backend_kind::is_dsr(flow.kind) {
        return direct(packet, &ip, flow);
    }
    let mut out = way_out(flow);
    if out != 0 && ip.ttl <= 1 {
        return not_sent(Reason::TtlExceeded);
    }
    if out != 0 && exceeded(packet.0, out, 0).is_some() {
        if flow.kind == backend_kind::NET {
            return not_sent(Reason::TooBig);
        }
        out = 0;
    }
    match follow(&packet, ETH_LEN, &ip, flow, out != 0) {
        Some(()) if out != 0 => send(packet.0, out),
        Some(()) => TC_ACT_OK,
        None => not_sent(Reason::Malformed),
    }
}

#[inline(always)]
fn error_way<A: Tables>(packet: Buffer) -> u32 {
    let Some(ip) = A::parse(&packet, ETH_LEN) else {
        return done(TC_ACT_OK);
    };
    let Some(Error { flow, .. }) = icmp::error(&packet, ETH_LEN, &ip) else {
        return done(OUTER);
    };
    if backend_kind::is_dsr(flow.kind) {
        return done(direct(packet, &ip, flow));
    }
    let out = way_out(flow);
    if out != 0 && ip.ttl <= 1 {
        // No error is sent about an error (RFC 1122 section 3.2.2).
        return done(not_sent(Reason::TtlExceeded));
    }
    out
}

/// A verdict in place of an interface; none is negative, since an ICMP error is not answered.
#[inline(always)]
fn done(verdict: i32) -> u32 {
    DONE | verdict as u32
}

#[inline(always)]
fn translate<A: Tables>(packet: Buffer, forwarded: bool) -> Option<()> {
    let ip = A::parse(&packet, ETH_LEN)?;
    let Error { quoted, flow } = icmp::again(&packet, ETH_LEN, &ip)?;
    translate_error(&packet, ETH_LEN, &ip, &quoted, flow, forwarded)
}

/// A fragment or an ICMP error of a flow under direct server return.
#[inline(always)]
fn direct<A: Tables>(packet: Buffer, ip: &Ip<A>, flow: &Flow<A>) -> i32 {
    let at = Layout {
        l4: ip.l4,
        len: ip.len,
        ttl: ip.ttl,
    };
    let ctx = TcContext::new(packet.0);
    match dsr::send::<A>(&ctx, &at, flow) {
        // It is not answered: only the first fragment is, and no error (RFC 1122 section 3.2.2).
        Some(action) if action < 0 => not_sent(Reason::TooBig),
        Some(action) => action,
        None => not_sent(Reason::NotSent),
    }
}

#[inline(always)]
fn reply<A: Tables>(packet: Buffer, forwarded: bool) -> u32 {
    let Some(ip) = A::parse(&packet, ETH_LEN) else {
        return NOT_OURS;
    };
    if ip.fragment {
        return later_reply(packet, &ip, forwarded);
    }
    let Some(error) = icmp::error(&packet, ETH_LEN, &ip) else {
        return NOT_OURS;
    };
    let flow = error.flow;
    if flow.direction != direction::REVERSE || flow.kind == backend_kind::NET {
        return NOT_OURS;
    }
    if forwarded && ip.ttl <= 1 {
        return shot(Reason::TtlExceeded);
    }
    match translate_error(&packet, ETH_LEN, &ip, &error.quoted, flow, forwarded) {
        Some(()) => way_back(packet.0, flow),
        None => shot(Reason::Malformed),
    }
}

#[inline(always)]
fn later_reply<A: Tables>(packet: Buffer, ip: &Ip<A>, forwarded: bool) -> u32 {
    let Some(flow) = fragments::flow(&packet, ETH_LEN, ip) else {
        return NOT_OURS;
    };
    if flow.direction != direction::REVERSE || flow.kind == backend_kind::NET {
        return NOT_OURS;
    }
    if forwarded && ip.ttl <= 1 {
        return shot(Reason::TtlExceeded);
    }
    match follow(&packet, ETH_LEN, ip, flow, forwarded) {
        Some(()) => way_back(packet.0, flow),
        None => shot(Reason::Malformed),
    }
}

/// Counts what [`reply`] drops.
#[inline(always)]
fn shot(reason: Reason) -> u32 {
    counters::count(reason);
    SHOT
}

#[inline(always)]
fn first<A: Tables>(packet: Buffer) -> Option<()> {
    let ip = A::parse(&packet, ETH_LEN)?;
    let fragment = A::fragment(&packet, ETH_LEN, &ip)?;
    fragments::remember(&ip, fragment, &flow_key(&packet, &ip)?);
    Some(())
}
