//! The socket path: a local client's address is swapped once, at `connect` or `sendmsg`; no packet of
//! its is touched later.

mod bind;
mod connect;
mod memory;
mod message;
mod peer;
mod source;

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock_addr,
    helpers::generated::{
        bpf_get_netns_cookie, bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_set_retval,
    },
    programs::SockAddrContext,
};
use lb_common::{
    Addr4, Addr6, Address, AffinityKey, Backend, Be16, Reason, Service, ServiceKey, SockKey,
    SockPeer, addr_flag, algorithm, flow_hash,
    headers::{TCP, UDP},
    service_flag,
};

pub use source::learn;

use self::{
    memory::{lb_sock_chosen, lb_sock_note, lb_sock_remember},
    source::{client_of, source},
};
use crate::{
    admit::{self, ADMITTED},
    choose::{NONE, choose},
    counters,
    maps::LB_BACKENDS,
    tables::Tables,
    trace,
};

const ALLOW: i32 = 1;
const DENY: i32 = 0;
const EPERM: i32 = 1;
const ECONNREFUSED: i32 = 111;
const EADDRINUSE: i32 = 98;
const ENOBUFS: i32 = 105;

/// The address fields of a `bpf_sock_addr`.
struct Call {
    ctx: *mut bpf_sock_addr,
}

/// What a call's destination turned out to be.
enum Target {
    /// Not ours.
    Foreign,
    /// A VIP's address, at a port without a service.
    NoService,
    Service(&'static Service),
}

/// Fails the call with this errno. Below kernel 5.18 the caller gets `EPERM` instead.
#[inline(always)]
fn deny(errno: i32) -> i32 {
    // SAFETY: no pointers.
    unsafe { bpf_set_retval(-errno) };
    DENY
}

/// As [`deny`], counted and told of. `peer`: what was asked for.
#[inline(always)]
fn refuse<A: Tables>(hook: u8, proto: u8, peer: &SockPeer, reason: Reason, errno: i32) -> i32 {
    refuse_for::<A>(hook, proto, peer, reason as u32, errno)
}

/// As [`refuse`], by the reason's number.
#[inline(always)]
fn refuse_for<A: Tables>(hook: u8, proto: u8, peer: &SockPeer, reason: u32, errno: i32) -> i32 {
    counters::count_number(reason);
    trace::call::<A>(hook, proto, peer, Some(reason), false);
    deny(errno)
}

/// What was asked for, where no backend is to be had.
#[inline(always)]
fn unserved<A: Address>(vip: A, port: Be16) -> SockPeer {
    SockPeer {
        vip: vip.widen(),
        port,
        ..SockPeer::default()
    }
}

/// What stands at this address and port.
#[inline(always)]
fn target<A: Tables>(addr: A, port: Be16, proto: u8) -> Target {
    let flags = A::address_flags(&addr);
    if flags == 0 {
        return Target::Foreign;
    }
    match A::service(&ServiceKey {
        addr,
        port,
        proto,
        pad: 0,
    }) {
        Some(service) => Target::Service(service),
        None if flags & addr_flag::VIP != 0 => Target::NoService,
        None => Target::Foreign,
    }
}

/// Draws a backend. A TCP socket's source port is not chosen yet, so there is no flow to hash: a random
/// slot keeps the weights. A UDP socket takes its cookie's slot, so that it keeps its backend.
#[inline(always)]
fn draw(
    service: &Service,
    client: &AffinityKey,
    cookie: u64,
    proto: u8,
) -> Option<(u32, &'static Backend)> {
    let hash = if service.algorithm == algorithm::SOURCE {
        // The network namespace stands for the client: its address is not chosen yet either.
        flow_hash(&client.client, Be16(0), Be16(0), 0)
    } else if proto == TCP {
        // SAFETY: no arguments.
        unsafe { bpf_get_prandom_u32() }
    } else {
        flow_hash(
            &Addr6([cookie as u32, (cookie >> 32) as u32, 0, 0]),
            Be16(0),
            Be16(0),
            proto,
        )
    };
    choose(service, client, hash)
}

#[inline(always)]
fn netns_cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the helper takes the context.
    unsafe { bpf_get_netns_cookie(ctx.as_ptr()) }
}

/// What a socket asks for at a port with a service.
#[derive(Clone, Copy)]
struct Asked<A> {
    /// Where it asks.
    hook: u8,
    proto: u8,
    vip: A,
    port: Be16,
    service: &'static Service,
}

/// Gives a socket a backend, which `set` writes into the call. A UDP socket keeps the one that it has. `from`: what the
/// socket is bound to.
#[inline(always)]
fn carry<A: Tables + Default>(
    ctx: &SockAddrContext,
    call: &Call,
    asked: Asked<A>,
    from: impl FnOnce() -> A,
    set: impl FnOnce(A),
) -> i32 {
    let Asked {
        hook,
        proto,
        vip,
        port,
        service,
    } = asked;
    let key = SockKey {
        cookie: call.cookie(ctx),
        addr: vip.widen(),
        port,
        family: A::VERSION,
        proto,
        pad: 0,
    };
    let fails_open = service.flags & service_flag::FAIL_OPEN;
    let kept = if proto == UDP {
        lb_sock_chosen(&raw const key, fails_open)
    } else {
        NONE
    };
    let found = if kept == NONE {
        let netns = netns_cookie(ctx);
        let client = client_of(netns, service.id);
        if !admit::is_open_to_all(service) {
            let reason = A::admit_local(service, &client, &source(netns, from()));
            if reason != ADMITTED {
                counters::service(service.id, |stats| stats.refuse(reason));
                let errno = if reason == Reason::SourceNotAllowed as u32 {
                    EPERM
                } else {
                    ECONNREFUSED
                };
                return refuse_for::<A>(hook, proto, &unserved(vip, port), reason, errno);
            }
        }
        draw(service, &client, key.cookie, proto)
    } else {
        LB_BACKENDS.get(kept).map(|backend| (kept, backend))
    };
    let Some((id, backend)) = found else {
        let reason = Reason::SockNoBackend;
        counters::service(service.id, |stats| stats.refuse(reason as u32));
        return refuse::<A>(hook, proto, &unserved(vip, port), reason, ECONNREFUSED);
    };
    let peer = peer_of(vip, port, id, backend, service);
    if kept == NONE {
        if lb_sock_remember(&raw const key, &raw const peer) != 0 {
            let reason = Reason::SockTableFull;
            counters::service(service.id, |stats| stats.refuse(reason as u32));
            return refuse::<A>(hook, proto, &peer, reason, ENOBUFS);
        }
        if proto == UDP {
            lb_sock_note(&raw const key, &raw const peer);
        }
        // What a UDP socket sends and gets is seen by no hook of its.
        let unseen = u64::from(proto == UDP);
        counters::backend(id, |stats| {
            stats.flows += 1;
            stats.unseen += unseen;
        });
        counters::service(service.id, |stats| {
            stats.flows += 1;
            stats.unseen += unseen;
        });
    }
    trace::call::<A>(hook, proto, &peer, None, kept != NONE);
    set(A::narrow(&backend.addr));
    call.set_port(backend.port);
    ALLOW
}

#[inline(always)]
fn peer_of<A: Address>(
    vip: A,
    port: Be16,
    id: u32,
    backend: &Backend,
    service: &Service,
) -> SockPeer {
    SockPeer {
        vip: vip.widen(),
        port,
        flags: 0,
        backend: id,
        generation: backend.generation,
        service: service.id,
        opened: 0,
    }
}

// === impl Call ===

impl Call {
    #[inline(always)]
    fn new(ctx: &SockAddrContext) -> Self {
        Self { ctx: ctx.sock_addr }
    }

    /// TCP or UDP; `None` for anything else.
    #[inline(always)]
    fn proto(&self) -> Option<u8> {
        // SAFETY: a context field.
        let proto = unsafe { (*self.ctx).protocol };
        (proto == u32::from(TCP) || proto == u32::from(UDP)).then_some(proto as u8)
    }

    #[inline(always)]
    fn cookie(&self, ctx: &SockAddrContext) -> u64 {
        // SAFETY: the helper takes the context.
        unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
    }

    #[inline(always)]
    fn port(&self) -> Be16 {
        // SAFETY: a context field, network order in the low half.
        Be16(unsafe { (*self.ctx).user_port } as u16)
    }

    #[inline(always)]
    fn set_port(&self, port: Be16) {
        // SAFETY: a writable context field.
        unsafe { (*self.ctx).user_port = u32::from(port.0) };
    }

    #[inline(always)]
    fn addr4(&self) -> Addr4 {
        // SAFETY: a context field.
        Addr4(unsafe { (*self.ctx).user_ip4 })
    }

    /// What an IPv4 socket is bound to, or zero. `connect` alone.
    #[inline(always)]
    fn bound4(&self) -> Addr4 {
        // SAFETY: a context field: the socket, which lives as long as the call, and a field of that.
        Addr4(unsafe { (*(*self.ctx).__bindgen_anon_1.sk).src_ip4 })
    }

    /// The same of an IPv6 socket.
    #[inline(always)]
    fn bound6(&self) -> Addr6 {
        // SAFETY: as above.
        let ip = unsafe { &raw const (*(*self.ctx).__bindgen_anon_1.sk).src_ip6 };
        // SAFETY: an address has four words.
        unsafe { words(ip.cast()) }
    }

    /// What a datagram is to come from, or zero. `sendmsg` alone.
    #[inline(always)]
    fn sent_from4(&self) -> Addr4 {
        // SAFETY: a context field.
        Addr4(unsafe { (*self.ctx).msg_src_ip4 })
    }

    /// The same of an IPv6 datagram.
    #[inline(always)]
    fn sent_from6(&self) -> Addr6 {
        // SAFETY: a context field, which has four words.
        unsafe { words((&raw const (*self.ctx).msg_src_ip6).cast()) }
    }

    #[inline(always)]
    fn set_addr4(&self, addr: Addr4) {
        // SAFETY: a writable context field.
        unsafe { (*self.ctx).user_ip4 = addr.0 };
    }

    #[inline(always)]
    fn addr6(&self) -> Addr6 {
        // SAFETY: a context field, which has four words.
        unsafe { words((&raw const (*self.ctx).user_ip6).cast()) }
    }

    #[inline(always)]
    fn set_addr6(&self, addr: Addr6) {
        // SAFETY: writable context fields, one word at a time.
        unsafe {
            let ip = (&raw mut (*self.ctx).user_ip6).cast::<u32>();
            ip.write_volatile(addr.0[0]);
            ip.add(1).write_volatile(addr.0[1]);
            ip.add(2).write_volatile(addr.0[2]);
            ip.add(3).write_volatile(addr.0[3]);
        }
    }
}

/// Reads an address of a context one word at a time, as the verifier wants it.
///
/// # Safety
///
/// `ip` points to four words.
#[inline(always)]
unsafe fn words(ip: *const u32) -> Addr6 {
    // SAFETY: as the caller says.
    unsafe {
        Addr6([
            ip.read_volatile(),
            ip.add(1).read_volatile(),
            ip.add(2).read_volatile(),
            ip.add(3).read_volatile(),
        ])
    }
}
