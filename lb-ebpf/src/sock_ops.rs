//! `sock_ops`: what became of the connections that the socket path made.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB,
        bpf_sock_ops,
    },
    helpers::generated::{bpf_get_socket_cookie, bpf_sock_ops_cb_flags_set},
    macros::sock_ops,
    programs::SockOpsContext,
};
use lb_common::{
    Addr4, Addr6, Address as _, Be16, SockKey,
    headers::{Family as _, TCP},
};

use crate::{counters, maps::LB_SOCK_PEERS};

const AF_INET: u32 = 2;
/// `enum` in `include/net/tcp_states.h`.
const TCP_SYN_SENT: u32 = 2;
const TCP_CLOSE: u32 = 7;
/// Any value but an error lets the stack go on.
const OK: u32 = 1;

#[sock_ops]
pub fn lb_sock_ops(ctx: SockOpsContext) -> u32 {
    let op = ctx.op();
    if op == BPF_SOCK_OPS_TCP_CONNECT_CB {
        if is_ours(&ctx) {
            // SAFETY: the helper takes the context.
            unsafe { bpf_sock_ops_cb_flags_set(ctx.ops, BPF_SOCK_OPS_STATE_CB_FLAG as i32) };
        }
    } else if op == BPF_SOCK_OPS_STATE_CB && ctx.arg(1) == TCP_CLOSE {
        closed(&ctx);
    }
    OK
}

#[inline(always)]
fn is_ours(ctx: &SockOpsContext) -> bool {
    // SAFETY: only whether it is there.
    unsafe { LB_SOCK_PEERS.get(key(ctx)) }.is_some()
}

#[inline(always)]
fn closed(ctx: &SockOpsContext) {
    let key = key(ctx);
    // SAFETY: the id is copied before any other map call.
    let Some(id) = unsafe { LB_SOCK_PEERS.get(key) }.map(|peer| peer.backend) else {
        return;
    };
    let ops: *mut bpf_sock_ops = ctx.ops;
    // SAFETY: context fields; the kernel gives zeros when the socket is not a full one.
    let (sent, received, retransmits) = unsafe {
        (
            (*ops).bytes_acked,
            (*ops).bytes_received,
            (*ops).total_retrans,
        )
    };
    let failed = ctx.arg(0) == TCP_SYN_SENT;
    counters::backend(id, |stats| {
        stats.bytes_to += sent;
        stats.bytes_from += received;
        stats.retransmits += u64::from(retransmits);
        stats.failed += u64::from(failed);
    });
    let _ = LB_SOCK_PEERS.remove(key);
}

/// The peer as the socket really has it.
#[inline(always)]
fn key(ctx: &SockOpsContext) -> SockKey {
    let ops: *mut bpf_sock_ops = ctx.ops;
    // SAFETY: context fields, word by word.
    let (addr, family) = unsafe {
        if (*ops).family == AF_INET {
            (Addr4((*ops).remote_ip4).widen(), Addr4::VERSION)
        } else {
            let ip = (&raw const (*ops).remote_ip6).cast::<u32>();
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
    SockKey {
        // SAFETY: the helper takes the context.
        cookie: unsafe { bpf_get_socket_cookie(ctx.as_ptr()) },
        addr,
        // `remote_port` is in network order in the high half: the kernel shifts the 16-bit field
        // into a 32-bit one on little-endian machines (`sock_ops_convert_ctx_access`).
        port: Be16(remote_port(ctx)),
        family,
        proto: TCP,
        pad: 0,
    }
}

#[inline(always)]
fn remote_port(ctx: &SockOpsContext) -> u16 {
    let port = ctx.remote_port();
    if cfg!(target_endian = "little") {
        (port >> 16) as u16
    } else {
        port as u16
    }
}
