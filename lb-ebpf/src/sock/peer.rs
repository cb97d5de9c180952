//! `getpeername4/6`: a socket sees the VIP it asked for. And the end of a socket's memory.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::bpf_get_socket_cookie,
    macros::{cgroup_sock, cgroup_sock_addr},
    programs::{SockAddrContext, SockContext},
};
use lb_common::{
    Addr4, Addr6, Address as _, Be16, SockKey,
    headers::{Family as _, TCP, UDP},
    peer_flag,
};

use super::{ALLOW, Call, memory::lb_sock_end};
use crate::{maps::LB_SOCK_PEERS, tables::Tables};

const AF_INET: u32 = 2;
/// VIPs of one UDP socket whose flows end with it; those of more age out of the LRU tables.
const CHOICES_MOST: usize = 32;

#[cgroup_sock_addr(getpeername4)]
pub fn lb_getpeername4(ctx: SockAddrContext) -> i32 {
    let call = Call::new(&ctx);
    restore(&ctx, &call, call.addr4(), |vip| call.set_addr4(vip))
}

#[cgroup_sock_addr(getpeername6)]
pub fn lb_getpeername6(ctx: SockAddrContext) -> i32 {
    let call = Call::new(&ctx);
    let addr = call.addr6();
    match addr.unmap() {
        Some(v4) => restore(&ctx, &call, v4, |vip| call.set_addr6(Addr6::mapped(vip))),
        None => restore(&ctx, &call, addr, |vip| call.set_addr6(vip)),
    }
}

/// Puts the VIP where the backend's address stands.
#[inline(always)]
pub(super) fn restore<A: Tables>(
    ctx: &SockAddrContext,
    call: &Call,
    backend: A,
    set: impl FnOnce(A),
) -> i32 {
    let Some(proto) = call.proto() else {
        return ALLOW;
    };
    let key = SockKey {
        cookie: call.cookie(ctx),
        addr: backend.widen(),
        port: call.port(),
        family: A::VERSION,
        proto,
        pad: 0,
    };
    // SAFETY: copied before any other map call.
    if let Some(peer) = unsafe { LB_SOCK_PEERS.get(key) } {
        set(A::narrow(&peer.vip));
        call.set_port(peer.port);
    }
    ALLOW
}

/// Forgets a UDP socket. TCP outlives the descriptor (FIN, TIME_WAIT): only the end of the descriptor is noted, and
/// `sock_ops` forgets it when its state is CLOSE.
#[cgroup_sock(sock_release)]
pub fn lb_sock_release(ctx: SockContext) -> i32 {
    // SAFETY: the helper takes the context.
    let cookie = || unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // SAFETY: context fields that may be read at this hook.
    let (family, proto, port) = unsafe {
        (
            (*ctx.sock).family,
            (*ctx.sock).protocol,
            (*ctx.sock).dst_port,
        )
    };
    if proto == u32::from(UDP) {
        let mut key = SockKey::head(cookie(), UDP);
        for _ in 0..CHOICES_MOST {
            if lb_sock_end(&raw mut key) == 0 {
                break;
            }
        }
        return ALLOW;
    }
    if proto != u32::from(TCP) || port == 0 {
        return ALLOW;
    }
    // SAFETY: as above; word by word.
    let (addr, family) = unsafe {
        if family == AF_INET {
            (Addr4((*ctx.sock).dst_ip4).widen(), Addr4::VERSION)
        } else {
            let ip = (&raw const (*ctx.sock).dst_ip6).cast::<u32>();
            let addr = Addr6([
                ip.read_volatile(),
                ip.add(1).read_volatile(),
                ip.add(2).read_volatile(),
                ip.add(3).read_volatile(),
            ]);
            match addr.unmap() {
                Some(v4) => (v4.widen(), Addr4::VERSION),
                None => (addr, Addr6::VERSION),
            }
        }
    };
    let key = SockKey {
        cookie: cookie(),
        addr,
        port: Be16(port),
        family,
        proto: TCP,
        pad: 0,
    };
    // Not there: the socket is none of ours.
    if let Some(peer) = LB_SOCK_PEERS.get_ptr_mut(key) {
        // SAFETY: a live map value; nobody else writes the flags of a socket that is being released.
        unsafe { (*peer).flags |= peer_flag::RELEASED };
    }
    ALLOW
}
