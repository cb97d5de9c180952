//! `connect4` and `connect6`.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use lb_common::{Addr6, Reason, headers::TCP, trace_hook::CONNECT};

use super::{ALLOW, Asked, Call, ECONNREFUSED, Target, carry, refuse, target, unserved};
use crate::tables::Tables;

#[cgroup_sock_addr(connect4)]
pub fn lb_connect4(ctx: SockAddrContext) -> i32 {
    let call = Call::new(&ctx);
    let from = || call.bound4();
    connect(&ctx, &call, call.addr4(), from, |backend| {
        call.set_addr4(backend)
    })
}

/// Also for `::ffff:a.b.c.d`, with which an IPv6 socket connects to an IPv4 VIP.
#[cgroup_sock_addr(connect6)]
pub fn lb_connect6(ctx: SockAddrContext) -> i32 {
    let call = Call::new(&ctx);
    let addr = call.addr6();
    match addr.unmap() {
        Some(v4) => {
            let from = || call.bound6().unmap().unwrap_or_default();
            connect(&ctx, &call, v4, from, |backend| {
                call.set_addr6(Addr6::mapped(backend))
            })
        }
        None => {
            let from = || call.bound6();
            connect(&ctx, &call, addr, from, |backend| call.set_addr6(backend))
        }
    }
}

#[inline(always)]
fn connect<A: Tables + Default>(
    ctx: &SockAddrContext,
    call: &Call,
    vip: A,
    from: impl FnOnce() -> A,
    set: impl FnOnce(A),
) -> i32 {
    let Some(proto) = call.proto() else {
        return ALLOW;
    };
    let port = call.port();
    let service = match target(vip, port, proto) {
        Target::Foreign => return ALLOW,
        Target::Service(service) => service,
        // A UDP connect sends nothing and is how programs learn their source address; what is sent
        // later is refused.
        Target::NoService if proto != TCP => return ALLOW,
        Target::NoService => {
            let reason = Reason::SockNoService;
            return refuse::<A>(CONNECT, proto, &unserved(vip, port), reason, ECONNREFUSED);
        }
    };
    let asked = Asked {
        hook: CONNECT,
        proto,
        vip,
        port,
        service,
    };
    carry(ctx, call, asked, from, set)
}
