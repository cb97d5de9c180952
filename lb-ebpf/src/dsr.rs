//! Direct server return: the packet goes to the backend as it is, in a frame or a packet of its own, and
//! the reply goes to the client without coming by here.

use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6,
        bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, bpf_redir_neigh, bpf_redir_neigh__bindgen_ty_1,
        xdp_md,
    },
    helpers::generated::{bpf_redirect_neigh, bpf_skb_adjust_room, bpf_xdp_adjust_head},
    programs::TcContext,
};
use lb_common::{
    Addr4, Address as _, Backend, BackendStats, Flow, backend_kind,
    headers::{ETH_IPV4, ETH_IPV6, ETH_LEN},
    tunnel,
};

use crate::{
    answer::too_big,
    counters,
    frame::Frame,
    geneve::{BACKEND, GENEVE},
    ingress::Layout,
    maps::{LB_BACKENDS, LB_NODE},
    tables::Tables,
    tc::exceeded,
};

/// Bytes that the packet grows by.
#[inline(always)]
pub fn overhead<A: Tables>(kind: u8) -> u32 {
    match kind {
        backend_kind::IPIP if A::VERSION == 4 => tunnel::IPV4_LEN as u32,
        backend_kind::IPIP => tunnel::IPV6_LEN as u32,
        _ => 0,
    }
}

/// Puts the outer header in front of the packet, where the kind has one, and counts. The Ethernet header
/// is left to be written.
#[inline(always)]
pub fn wrap<A: Tables>(
    ctx: *mut xdp_md,
    at: &Layout,
    kind: u8,
    (service, id): (u32, u32),
    backend: &Backend,
) -> Option<()> {
    if kind == backend_kind::IPIP {
        let node = LB_NODE.get(0)?;
        if A::VERSION == 4 {
            let header = tunnel::ipv4(node.snat4, Addr4::narrow(&backend.addr), at.len)?;
            put(ctx, ETH_IPV4, header)?;
        } else {
            let header = tunnel::ipv6(node.snat6, backend.addr, at.len);
            put(ctx, ETH_IPV6, header)?;
        }
    }
    count(at.len, id);
    count_for(at.len, service);
    Some(())
}

/// Counts a packet of so many bytes to a backend.
#[inline(always)]
pub fn count(len: u16, id: u32) {
    counters::backend(id, |stats: &mut BackendStats| {
        stats.packets_to += 1;
        stats.bytes_to += u64::from(len);
    });
}

/// Counts the same for its service.
#[inline(always)]
pub fn count_for(len: u16, service: u32) {
    counters::traffic(service, |traffic| {
        traffic.packets_to += 1;
        traffic.bytes_to += u64::from(len);
    });
}

/// For the tc twin: as [`wrap`], and out of the interface that leads to the backend; a tc action, or that it goes to a
/// peer ([`GENEVE`]) or is too long and to be answered ([`crate::answer::ANSWER`]), which is not counted yet.
#[inline(always)]
pub fn send<A: Tables>(ctx: &TcContext, at: &Layout, flow: &Flow<A>) -> Option<i32> {
    let skb = ctx.skb.skb;
    let (kind, id) = (flow.kind, flow.backend);
    if kind == backend_kind::GENEVE {
        return Some((GENEVE | (id & BACKEND)) as i32);
    }
    let backend = LB_BACKENDS.get(id)?;
    let grows = overhead::<A>(kind);
    if let Some(mtu) = exceeded(skb, backend.ifindex, grows) {
        return Some(too_big(mtu.saturating_sub(grows)) as i32);
    }
    count_for(at.len, flow.service);
    if kind == backend_kind::IPIP {
        let node = LB_NODE.get(0)?;
        let family = if A::VERSION == 4 {
            BPF_F_ADJ_ROOM_ENCAP_L3_IPV4
        } else {
            BPF_F_ADJ_ROOM_ENCAP_L3_IPV6
        };
        // SAFETY: the helper takes the context.
        if unsafe { bpf_skb_adjust_room(skb, grows as i32, BPF_ADJ_ROOM_MAC, u64::from(family)) }
            != 0
        {
            return None;
        }
        if A::VERSION == 4 {
            let header = tunnel::ipv4(node.snat4, Addr4::narrow(&backend.addr), at.len)?;
            ctx.store(ETH_LEN, &header, 0).ok()?;
        } else {
            let header = tunnel::ipv6(node.snat6, backend.addr, at.len);
            ctx.store(ETH_LEN, &header, 0).ok()?;
        }
        count(at.len, id);
        // SAFETY: no parameters: the kernel looks the route up by the outer header.
        let sent = unsafe { bpf_redirect_neigh(backend.ifindex, core::ptr::null_mut(), 0, 0) };
        return Some(sent as i32);
    }
    count(at.len, id);
    // The packet's own destination is the VIP; the frame is for the backend, a neighbour.
    let mut hop = bpf_redir_neigh {
        nh_family: u32::from(A::AF),
        __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 {
            ipv6_nh: backend.addr.0,
        },
    };
    let len = size_of::<bpf_redir_neigh>() as i32;
    // SAFETY: as long as told.
    Some(unsafe { bpf_redirect_neigh(backend.ifindex, &raw mut hop, len, 0) as i32 })
}

/// Grows the packet by a header behind the Ethernet header.
#[inline(always)]
fn put<const N: usize>(ctx: *mut xdp_md, ethertype: u16, header: [u32; N]) -> Option<()> {
    // SAFETY: the helper takes the context; all pointers into the packet are read anew.
    if unsafe { bpf_xdp_adjust_head(ctx, -(N as i32 * 4)) } != 0 {
        return None;
    }
    let frame = Frame::new(ctx);
    let kind = frame.at::<u16>(ETH_LEN - 2)?;
    // SAFETY: inside the packet.
    unsafe { *kind = ethertype.to_be() };
    let start = frame.at::<[u32; N]>(ETH_LEN)?;
    // SAFETY: inside the packet, and by words as `Frame` reads them: for BPF, LLVM makes byte by byte of `write_unaligned`.
    unsafe { *start = header };
    Some(())
}
