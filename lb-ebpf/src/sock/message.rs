//! `sendmsg4/6` of unconnected UDP sockets, and `recvmsg4/6`, which gives answers the VIP's address
//! back.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use lb_common::{
    Addr6, Backend, Be16, Reason, Service, SockKey, SockPeer, service_flag, trace_hook::SENDMSG,
};

use super::{
    ALLOW, Call, ECONNREFUSED, ENOBUFS, Target, draw, peer::restore, peer_of, refuse, remember,
    target, unserved,
};
use crate::{
    choose::keeps_flows,
    counters,
    maps::{LB_BACKENDS, LB_SOCK_CHOICES, LB_SOCK_PEERS},
    tables::{ANY, Tables},
    trace,
};

#[cgroup_sock_addr(sendmsg4)]
pub fn lb_sendmsg4(ctx: SockAddrContext) -> i32 {
    let call = Call::new(&ctx);
    send(&ctx, &call, call.addr4(), |backend| call.set_addr4(backend))
}

/// A v4-mapped destination goes through `sendmsg4` in the kernel.
#[cgroup_sock_addr(sendmsg6)]
pub fn lb_sendmsg6(ctx: SockAddrContext) -> i32 {
    let call = Call::new(&ctx);
    send(&ctx, &call, call.addr6(), |backend| call.set_addr6(backend))
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
fn send<A: Tables>(ctx: &SockAddrContext, call: &Call, vip: A, set: impl FnOnce(A)) -> i32 {
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
    let cookie = call.cookie(ctx);
    let choice = SockKey {
        cookie,
        addr: vip.widen(),
        port,
        family: A::VERSION,
        proto,
        pad: 0,
    };
    if let Some((peer, backend)) = chosen::<A>(&choice, service) {
        trace::call::<A>(SENDMSG, proto, &peer, None, true);
        set(A::narrow(&backend.addr));
        call.set_port(backend.port);
        return ALLOW;
    }
    let Some((id, backend)) = draw(ctx, service, cookie, proto) else {
        let reason = Reason::SockNoBackend;
        counters::service(service.id, |stats| stats.refuse(reason as u32));
        return refuse::<A>(SENDMSG, proto, &unserved(vip, port), reason, ECONNREFUSED);
    };
    let peer = peer_of(vip, port, id, backend, service);
    if remember::<A>(cookie, proto, backend, &peer).is_err() {
        let reason = Reason::SockTableFull;
        counters::service(service.id, |stats| stats.refuse(reason as u32));
        return refuse::<A>(SENDMSG, proto, &peer, reason, ENOBUFS);
    }
    trace::call::<A>(SENDMSG, proto, &peer, None, false);
    // Without the memory the next datagram draws again, by the same cookie.
    let _ = LB_SOCK_CHOICES.insert(choice, peer, ANY);
    counters::backend(id, |stats| stats.flows += 1);
    counters::service(service.id, |stats| stats.flows += 1);
    set(A::narrow(&backend.addr));
    call.set_port(backend.port);
    ALLOW
}

/// The backend that this socket's datagrams to the VIP already go to, while it lives.
#[inline(always)]
fn chosen<A: Tables>(choice: &SockKey, service: &Service) -> Option<(SockPeer, &'static Backend)> {
    // SAFETY: copied before any other map call.
    let peer: SockPeer = *unsafe { LB_SOCK_CHOICES.get(choice) }?;
    let backend = LB_BACKENDS.get(peer.backend)?;
    let fails_open = || service.flags & service_flag::FAIL_OPEN != 0;
    if !keeps_flows(backend, peer.generation, fails_open) {
        return None;
    }
    let back = SockKey {
        addr: backend.addr,
        port: Be16(backend.port.0),
        ..*choice
    };
    // SAFETY: only whether it is there.
    unsafe { LB_SOCK_PEERS.get(back) }?;
    Some((peer, backend))
}
