//! `post_bind4/6`: nobody listens on a VIP, which is the balancer's.

use aya_ebpf::{macros::cgroup_sock, programs::SockContext};
use lb_common::{Addr4, Addr6, Be16, Reason, addr_flag, headers::TCP, trace_hook::BIND};

use super::{ALLOW, EADDRINUSE, refuse, unserved};
use crate::tables::Tables;

#[cgroup_sock(post_bind4)]
pub fn lb_post_bind4(ctx: SockContext) -> i32 {
    // SAFETY: a context field that may be read at this hook.
    let addr = Addr4(unsafe { (*ctx.sock).src_ip4 });
    bind(addr)
}

#[cgroup_sock(post_bind6)]
pub fn lb_post_bind6(ctx: SockContext) -> i32 {
    // SAFETY: as above; word by word.
    let addr = unsafe {
        let ip = (&raw const (*ctx.sock).src_ip6).cast::<u32>();
        Addr6([
            ip.read_volatile(),
            ip.add(1).read_volatile(),
            ip.add(2).read_volatile(),
            ip.add(3).read_volatile(),
        ])
    };
    match addr.unmap() {
        Some(v4) => bind(v4),
        None => bind(addr),
    }
}

#[inline(always)]
fn bind<A: Tables>(addr: A) -> i32 {
    if A::address_flags(&addr) & addr_flag::VIP == 0 {
        return ALLOW;
    }
    // The port and the protocol are nobody's business: no port of it is to be had.
    let asked = unserved(addr, Be16(0));
    refuse::<A>(BIND, TCP, &asked, Reason::BindRefused, EADDRINUSE)
}
