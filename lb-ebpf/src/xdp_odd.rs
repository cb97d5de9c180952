//! XDP: what is no whole TCP segment or UDP datagram. Out of the way of all that is.

use aya_ebpf::bindings::{xdp_action, xdp_md};
use lb_common::{
    Addr4, Addr6, Flow, Reason, addr_flag, backend_kind,
    headers::{ETH_LEN, Ip},
    icmp::{ICMP_LEN, answer_echo, is_answerable, kind, translate_error},
};

use crate::{
    answer::turn,
    counters, dsr,
    extensions::HEADER_MASK,
    forward::{address, came_by, malformed, may_send, route, send, slow_path},
    fragments::{self, Fate},
    geneve::{BACKEND, GENEVE},
    icmp::{self, Error},
    ingress::Layout,
    maps::{LB_BACKENDS, LB_NODE},
    rewrite::follow,
    tables::Tables,
    views::Bytes,
};

/// Not an XDP action: the packet is a first fragment, and may be treated as a whole one.
pub const FIRST: u32 = 1 << 11;
/// What is done about an ICMP error, as one number: a verdict with this bit, or the interface by which it
/// leaves after its translation, 0 for the stack.
const DONE: u32 = 1 << 31;
/// Neither: the packet is for a backend that carries the VIP itself, and goes there as it is.
const DIRECT: u32 = DONE | 1 << 12;

macro_rules! stages {
    ($addr:ty, $odd:ident, $way:ident, $translate:ident, $later:ident, $echo:ident, $direct:ident) => {
        /// Decides about a packet for an address of ours.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $odd(ctx: *mut xdp_md, l3: u32) -> u32 {
            if ctx.is_null() {
                return xdp_action::XDP_PASS;
            }
            odd::<$addr>(
                Bytes(ctx),
                (l3 & HEADER_MASK) as usize,
                || $way(ctx, l3),
                |forwarded| $translate(ctx, l3, forwarded),
                || $later(ctx, l3),
                || $echo(ctx, l3),
                || $direct(ctx, l3),
            )
        }

        /// Finds where an ICMP error is to be heard; where that is another host, the Ethernet header is
        /// written.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $way(ctx: *mut xdp_md, l3: u32) -> u32 {
            if ctx.is_null() {
                return DONE | xdp_action::XDP_PASS;
            }
            error_way::<$addr>(Bytes(ctx), (l3 & HEADER_MASK) as usize)
        }

        /// Takes a fragment without ports where the first one went.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $later(ctx: *mut xdp_md, l3: u32) -> u32 {
            if ctx.is_null() {
                return xdp_action::XDP_PASS;
            }
            later::<$addr>(Bytes(ctx), (l3 & HEADER_MASK) as usize)
        }

        /// Sends it to a backend that answers the client directly.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $direct(ctx: *mut xdp_md, l3: u32) -> u32 {
            if ctx.is_null() {
                return xdp_action::XDP_PASS;
            }
            direct::<$addr>(Bytes(ctx), (l3 & HEADER_MASK) as usize)
        }

        /// Answers an echo request.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $echo(ctx: *mut xdp_md, l3: u32) -> u32 {
            if ctx.is_null() {
                return xdp_action::XDP_PASS;
            }
            echo::<$addr>(Bytes(ctx), (l3 & HEADER_MASK) as usize)
        }

        /// Translates it. A function of its own: the stack does not hold both.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $translate(ctx: *mut xdp_md, l3: u32, forwarded: u32) -> u32 {
            if ctx.is_null() {
                return 0;
            }
            let l3 = (l3 & HEADER_MASK) as usize;
            u32::from(translate::<$addr>(Bytes(ctx), l3, forwarded != 0).is_some())
        }
    };
}

stages!(
    Addr4,
    lb_xdp_odd4,
    lb_xdp_error_way4,
    lb_xdp_error4,
    lb_xdp_later4,
    lb_xdp_echo4,
    lb_xdp_direct4
);
stages!(
    Addr6,
    lb_xdp_odd6,
    lb_xdp_error_way6,
    lb_xdp_error6,
    lb_xdp_later6,
    lb_xdp_echo6,
    lb_xdp_direct6
);

#[inline(always)]
fn odd<A: Tables>(
    packet: Bytes,
    l3: usize,
    way: impl Fn() -> u32,
    translate: impl Fn(u32) -> u32,
    later: impl Fn() -> u32,
    echo: impl Fn() -> u32,
    direct: impl Fn() -> u32,
) -> u32 {
    let Some(ip) = A::parse(&packet, l3) else {
        return xdp_action::XDP_PASS;
    };
    if ip.fragment {
        return match fragments::fate(&packet, l3, &ip) {
            Fate::Pass => xdp_action::XDP_PASS,
            Fate::Drop => xdp_action::XDP_DROP,
            Fate::First => FIRST,
            Fate::Later => match later() {
                DIRECT => direct(),
                action => action,
            },
        };
    }
    if ip.proto != A::PROTO {
        return xdp_action::XDP_PASS;
    }
    if kind(&packet, ip.l4) == Some((A::ECHO_REQUEST, 0)) {
        return echo();
    }
    let out = way();
    if out == DIRECT {
        return direct();
    }
    if out & DONE != 0 {
        return out & !DONE;
    }
    if translate(out) == 0 {
        return malformed();
    }
    if out == 0 {
        return xdp_action::XDP_PASS;
    }
    send(packet.0, out)
}

/// Takes a fragment without ports where the first one went.
#[inline(always)]
fn later<A: Tables>(packet: Bytes, l3: usize) -> u32 {
    let Some(ip) = A::parse(&packet, l3) else {
        return xdp_action::XDP_PASS;
    };
    let Some(flow) = fragments::flow(&packet, l3, &ip) else {
        // What was refused of the first is refused of the whole.
        return xdp_action::XDP_PASS;
    };
    let out = match flow.kind {
        backend_kind::HOST => 0,
        backend_kind::NET if l3 == ETH_LEN => {
            // Only the first fragment is answered (RFC 1122 section 3.2.2).
            if ip.ttl <= 1 {
                counters::count(Reason::TtlExceeded);
                return xdp_action::XDP_DROP;
            }
            match route(packet.0, ip.len, ip.proto, flow.new_src, flow.new_dst) {
                Ok(fib) if may_send(packet.0, fib.ifindex) => match address(packet, &fib) {
                    Some(()) => fib.ifindex,
                    None => return malformed(),
                },
                Ok(_) | Err(0) => return slow_path(),
                Err(_) => {
                    counters::count(Reason::TooBig);
                    return xdp_action::XDP_DROP;
                }
            }
        }
        kind if backend_kind::is_dsr(kind) => return DIRECT,
        _ => return slow_path(),
    };
    match follow(&packet, l3, &ip, flow, out != 0) {
        Some(()) if out != 0 => send(packet.0, out),
        Some(()) => xdp_action::XDP_PASS,
        None => malformed(),
    }
}

/// Answers a plain echo request to a VIP; what is odd about one is the stack's.
#[inline(always)]
fn echo<A: Tables>(packet: Bytes, l3: usize) -> u32 {
    let plain = |ip: &Ip<A>| {
        let header = if A::VERSION == 4 { 20 } else { 40 };
        ip.l4 == l3 + header
            && ip.len as usize >= header + ICMP_LEN
            && l3 + ip.len as usize <= packet.len()
            && ip.src != ip.dst
            && is_answerable(&ip.src)
            && A::address_flags(&ip.dst) & addr_flag::VIP != 0
            && may_send(packet.0, came_by(packet.0))
    };
    let answered = A::parse(&packet, l3)
        .filter(plain)
        .and_then(|ip| turn(&packet, 0).map(|()| ip));
    match answered {
        None => xdp_action::XDP_PASS,
        Some(ip) => match answer_echo(&packet, l3, &ip) {
            Some(()) => send(packet.0, came_by(packet.0)),
            None => malformed(),
        },
    }
}

#[inline(always)]
fn error_way<A: Tables>(packet: Bytes, l3: usize) -> u32 {
    let Some(ip) = A::parse(&packet, l3) else {
        return DONE | xdp_action::XDP_PASS;
    };
    let Some(Error { flow, .. }) = icmp::error(&packet, l3, &ip) else {
        return DONE | xdp_action::XDP_PASS;
    };
    if flow.kind == backend_kind::HOST {
        return 0;
    }
    if backend_kind::is_dsr(flow.kind) {
        return DIRECT;
    }
    if flow.kind != backend_kind::NET || l3 != ETH_LEN {
        return DONE | slow_path();
    }
    if ip.ttl <= 1 {
        // No error is sent about an error (RFC 1122 section 3.2.2).
        counters::count(Reason::TtlExceeded);
        return DONE | xdp_action::XDP_DROP;
    }
    match route(packet.0, ip.len, A::PROTO, flow.new_src, flow.new_dst) {
        Ok(fib) if may_send(packet.0, fib.ifindex) => match address(packet, &fib) {
            Some(()) => fib.ifindex,
            None => DONE | malformed(),
        },
        _ => DONE | slow_path(),
    }
}

/// A fragment or an ICMP error of a flow under direct server return.
#[inline(always)]
fn direct<A: Tables>(packet: Bytes, l3: usize) -> u32 {
    let Some(ip) = A::parse(&packet, l3) else {
        return xdp_action::XDP_PASS;
    };
    let flow = if ip.fragment {
        fragments::flow(&packet, l3, &ip).map(|flow| &*flow)
    } else {
        icmp::known(&packet, l3, &ip).map(|error| &*error.flow)
    };
    let Some(&Flow {
        kind,
        backend,
        service,
        ..
    }) = flow
    else {
        return xdp_action::XDP_PASS;
    };
    if kind == backend_kind::GENEVE {
        return GENEVE | (backend & BACKEND);
    }
    let (Some(node), Some(at)) = (LB_NODE.get(0), LB_BACKENDS.get(backend)) else {
        return slow_path();
    };
    let (Some(src), ETH_LEN) = (A::snat_address(node), l3) else {
        return slow_path();
    };
    let len = ip.len.saturating_add(dsr::overhead::<A>(kind) as u16);
    let fib = match route(packet.0, len, ip.proto, src, A::narrow(&at.addr)) {
        Ok(fib) if may_send(packet.0, fib.ifindex) => fib,
        _ => return slow_path(),
    };
    let layout = Layout {
        l4: ip.l4,
        len: ip.len,
        ttl: ip.ttl,
    };
    match dsr::wrap::<A>(packet.0, &layout, kind, (service, backend), at) {
        Some(()) if address(packet, &fib).is_some() => send(packet.0, fib.ifindex),
        _ => malformed(),
    }
}

#[inline(always)]
fn translate<A: Tables>(packet: Bytes, l3: usize, forwarded: bool) -> Option<()> {
    let ip = A::parse(&packet, l3)?;
    let Error { quoted, flow } = icmp::again(&packet, l3, &ip)?;
    translate_error(&packet, l3, &ip, &quoted, flow, forwarded)
}
