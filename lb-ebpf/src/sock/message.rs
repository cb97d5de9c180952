//! `sendmsg4/6` of unconnected UDP sockets, and `recvmsg4/6`, which gives answers the VIP's address
//! back.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use lb_common::{Addr6, Reason, trace_hook::SENDMSG};

use super::{
    ALLOW, Asked, Call, ECONNREFUSED, Target, carry, peer::restore, refuse, target, unserved,
};
use crate::tables::Tables;

#[cgroup_sock_addr(sendmsg4)]
pub fn lb_sendmsg4(ctx: SockAddrContext) -> i32 {
    let call = Call::new(&ctx);
    let from = || call.sent_from4();
    send(&ctx, &call, call.addr4(), from, |backend| {
        call.set_addr4(backend)
    })
}

/// A v4-mapped destination goes through `sendmsg4` in the kernel.
#[cgroup_sock_addr(sendmsg6)]
pub fn lb_sendmsg6(ctx: SockAddrContext) -> i32 {
    let call = Call::new(&ctx);
    let from = || call.sent_from6();
    send(&ctx, &call, call.addr6(), from, |backend| {
        call.set_addr6(backend)
    })
}

#[cgroup_sock_addr(recvmsg4)]
pub fn lb_recvmsg4(ctx: SockAddrContext) -> i32 {
    let call = Call::new(&ctx);
    restore(&ctx, &call, call.addr4(), |vip| call.set_addr4(vip))
}

/// Also for answers over IPv4 to an IPv6 socket, which come with a mapped source.
#[cgroup_sock_addr(recvmsg6)]
pub fn lb_recvmsg6(ctx: SockAddrContext) -> i32 {
    let call = Call::new(&ctx);
    let addr = call.addr6();
    match addr.unmap() {
        Some(v4) => restore(&ctx, &call, v4, |vip| call.set_addr6(Addr6::mapped(vip))),
        None => restore(&ctx, &call, addr, |vip| call.set_addr6(vip)),
    }
}

#[inline(always)]
fn send<A: Tables + Default>(
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
        Target::NoService => {
            let reason = Reason::SockNoService;
            return refuse::<A>(SENDMSG, proto, &unserved(vip, port), reason, ECONNREFUSED);
        }
    };
    let asked = Asked {
        hook: SENDMSG,
        proto,
        vip,
        port,
        service,
    };
    carry(ctx, call, asked, from, set)
}
