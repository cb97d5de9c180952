//! `sock_ops`: what became of the connections that the socket path made.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_RETRANS_CB, BPF_SOCK_OPS_RETRANS_CB_FLAG,
        BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB,
        bpf_sock_ops,
    },
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_sock_ops_cb_flags_set},
    macros::sock_ops,
    programs::SockOpsContext,
};
use lb_common::{
    Addr4, Addr6, Address as _, Be16, SockKey,
    headers::{Family as _, TCP},
    peer_flag, suspicion,
};

use crate::{
    clock, counters, load,
    maps::{LB_BACKENDS, LB_SOCK_PEERS},
    sock::learn,
    suspect, words,
};

const AF_INET: u32 = 2;
/// `enum` in `include/net/tcp_states.h`.
const TCP_ESTABLISHED: u32 = 1;
const TCP_SYN_SENT: u32 = 2;
const TCP_FIN_WAIT2: u32 = 5;
const TCP_CLOSE: u32 = 7;
const TCP_CLOSE_WAIT: u32 = 8;
const TCP_LAST_ACK: u32 = 9;
const TCP_CLOSING: u32 = 11;
/// Any value but an error lets the stack go on.
const OK: u32 = 1;

#[sock_ops]
pub fn lb_sock_ops(ctx: SockOpsContext) -> u32 {
    words::begin();
    let op = ctx.op();
    if op == BPF_SOCK_OPS_TCP_CONNECT_CB {
        opens(&ctx);
    } else if op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB {
        established(&ctx);
    } else if op == BPF_SOCK_OPS_RETRANS_CB {
        sends_again(&ctx);
    } else if op == BPF_SOCK_OPS_STATE_CB && ctx.arg(1) == TCP_CLOSE {
        closed(&ctx);
    }
    words::end();
    OK
}

/// A socket is about to send its SYN.
#[inline(always)]
fn opens(ctx: &SockOpsContext) {
    let Some(peer) = LB_SOCK_PEERS.get_ptr_mut(key(ctx)) else {
        return;
    };
    // SAFETY: a live map value; no other program runs for this socket meanwhile.
    let (backend, service) = unsafe {
        (*peer).flags |= peer_flag::OPEN;
        (*peer).opened = clock::millis();
        ((*peer).backend, (*peer).service)
    };
    load::add(backend, service);
    learn_source(ctx);
    let told = BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RETRANS_CB_FLAG;
    let ops: *mut bpf_sock_ops = ctx.ops;
    // SAFETY: a context field, and the helper takes the context. What others asked to be told stays.
    unsafe { bpf_sock_ops_cb_flags_set(ops, ((*ops).bpf_sock_ops_cb_flags | told) as i32) };
}

/// The kernel has chosen where it speaks from.
#[inline(always)]
fn learn_source(ctx: &SockOpsContext) {
    let ops: *mut bpf_sock_ops = ctx.ops;
    // SAFETY: context fields, word by word; the helper takes the context.
    unsafe {
        let netns = bpf_get_netns_cookie(ops.cast());
        if (*ops).family == AF_INET {
            learn(netns, Addr4((*ops).local_ip4).widen(), false);
        } else {
            let ip = (&raw const (*ops).local_ip6).cast::<u32>();
            let addr = Addr6([
                ip.read_volatile(),
                ip.add(1).read_volatile(),
                ip.add(2).read_volatile(),
                ip.add(3).read_volatile(),
            ]);
            learn(netns, addr, true);
        }
    }
}

/// A socket sends something again. A SYN: the backend is silent, and who connects next is better off elsewhere.
#[inline(always)]
fn sends_again(ctx: &SockOpsContext) {
    let ops: *mut bpf_sock_ops = ctx.ops;
    // SAFETY: a context field.
    if unsafe { (*ops).state } != TCP_SYN_SENT {
        return;
    }
    // SAFETY: copied before any other map call.
    let peer = unsafe { LB_SOCK_PEERS.get(key(ctx)) };
    if let Some((backend, generation)) = peer.map(|peer| (peer.backend, peer.generation)) {
        suspect::blame(backend, generation, suspicion::SILENT);
    }
}

/// The backend has accepted.
#[inline(always)]
fn established(ctx: &SockOpsContext) {
    // SAFETY: the ids are copied before any other map call.
    let peer = unsafe { LB_SOCK_PEERS.get(key(ctx)) };
    let Some((backend, generation, service)) =
        peer.map(|peer| (peer.backend, peer.generation, peer.service))
    else {
        return;
    };
    let ops: *mut bpf_sock_ops = ctx.ops;
    // SAFETY: context fields; the kernel gives zeros when the socket is not a full one.
    let (rtt, retransmits) = unsafe { ((*ops).srtt_us >> 3, (*ops).total_retrans) };
    if retransmits != 0 {
        // Which SYN was answered is not known (RFC 6298 section 3), so neither is the time.
        counters::connections(backend, service, |stats| {
            stats.syn_retransmits += u64::from(retransmits);
        });
    }
    if rtt != 0 {
        counters::handshake(backend, service, u64::from(rtt) * 1_000);
    }
    suspect::answered(backend, generation);
}

#[inline(always)]
fn closed(ctx: &SockOpsContext) {
    let key = key(ctx);
    // SAFETY: copied before any other map call.
    let Some(peer) = unsafe { LB_SOCK_PEERS.get(key) }.copied() else {
        return;
    };
    let _ = LB_SOCK_PEERS.remove(key);
    let id = peer.backend;
    let now = LB_BACKENDS.get(id).map(|backend| backend.generation);
    if now != Some(peer.generation) {
        // The id is another backend's by now.
        return;
    }
    let ops: *mut bpf_sock_ops = ctx.ops;
    // SAFETY: context fields; the kernel gives zeros when the socket is not a full one.
    let (sent, received, retransmits) = unsafe {
        (
            (*ops).bytes_acked,
            (*ops).bytes_received,
            (*ops).total_retrans,
        )
    };
    // SAFETY: as above.
    let (segments, segments_back) =
        unsafe { (u64::from((*ops).segs_out), u64::from((*ops).segs_in)) };
    let was = ctx.arg(0);
    // SYN and FIN take a place in sequence space each, RFC 9293 section 3.4; what the kernel counts is places.
    let both_fins = was == TCP_FIN_WAIT2 || was == TCP_LAST_ACK || was == TCP_CLOSING;
    let syn = was != TCP_SYN_SENT;
    let marks = u64::from(syn) + u64::from(both_fins);
    let marks_back = u64::from(both_fins || was == TCP_CLOSE_WAIT);
    counters::backend(id, |stats| {
        stats.packets_to += segments;
        stats.packets_from += segments_back;
        stats.bytes_to += sent.saturating_sub(marks);
        stats.bytes_from += received.saturating_sub(marks_back);
        stats.retransmits += u64::from(retransmits);
        stats.failed += u64::from(was == TCP_SYN_SENT);
    });
    counters::traffic(peer.service, |traffic| {
        traffic.packets_to += segments;
        traffic.packets_from += segments_back;
        traffic.bytes_to += sent.saturating_sub(marks);
        traffic.bytes_from += received.saturating_sub(marks_back);
    });
    // Whoever ends a connection in order takes it through other states first.
    let reset = was == TCP_ESTABLISHED || was == TCP_CLOSE_WAIT;
    let ours = peer.flags & peer_flag::RELEASED != 0;
    counters::service(peer.service, |stats| {
        stats.retransmits += u64::from(retransmits);
        stats.failed += u64::from(was == TCP_SYN_SENT);
    });
    counters::connections(id, peer.service, |stats| {
        stats.client_resets += u64::from(reset && ours);
        stats.backend_resets += u64::from(reset && !ours);
        if was == TCP_SYN_SENT {
            stats.syn_retransmits += u64::from(retransmits);
        }
    });
    load::remove(id, peer.service, peer.opened);
    if was != TCP_SYN_SENT {
        return;
    }
    if retransmits != 0 {
        suspect::blame(id, peer.generation, suspicion::SILENT);
    } else if !ours {
        // A reset, or an ICMP error: the socket's own end would have been told by the process.
        suspect::blame(id, peer.generation, suspicion::REFUSED);
    }
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
