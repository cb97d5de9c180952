//! tc: ICMP errors of our own, in place of the packet that caused them, as XDP sends them.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC},
    helpers::generated::{bpf_csum_update, bpf_redirect, bpf_skb_adjust_room, bpf_skb_change_tail},
    programs::TcContext,
};
use lb_common::{
    Addr4, Addr6,
    checksum::Sum,
    headers::{ETH_LEN, Ip, Packet as _, PacketMut as _, checksum_offset, flow_key},
    icmp::{ICMP_CHECKSUM, ICMP_LEN, header},
};

use crate::{
    answer::{RELAYED, lb_tc_sum, message, quotable, turn},
    flows::find,
    tables::Tables,
    tc::send,
    views::Buffer,
};

/// A packet that was cut to what is quoted of it, with room for headers before it.
struct Quote<A> {
    /// Source and destination of the error.
    src: A,
    dst: A,
    /// Bytes that are quoted.
    len: u16,
    /// The sum of the quoted bytes up to the transport header, and what the device makes of the rest where it is to
    /// finish the checksum there: the pseudo header's sum stands in its place, so that all of it comes to the
    /// complement of that.
    finished: Sum,
    /// The difference between that and the bytes as they are.
    rest: Sum,
    /// The interface towards the client, or that by which the packet came.
    out: u32,
}

/// Answers an IPv4 packet: a tc action.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_tc_answer4(ctx: *mut __sk_buff, what: u32) -> i32 {
    if ctx.is_null() {
        return TC_ACT_SHOT;
    }
    let packet = Buffer(ctx);
    let Some(quote) = cut::<Addr4>(packet, what, 20) else {
        return TC_ACT_SHOT;
    };
    let Quote { src, dst, len, .. } = quote;
    let done = packet
        .set_words(ETH_LEN, header::v4(src, dst, len))
        .and_then(|()| {
            let message = message::<Addr4>(what, quote.finished);
            packet.set_words(ETH_LEN + 20, message)
        });
    match done {
        Some(()) => leave(ctx, what, ETH_LEN + 20, quote.rest, quote.out),
        None => TC_ACT_SHOT,
    }
}

/// As [`lb_tc_answer4`] for IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_tc_answer6(ctx: *mut __sk_buff, what: u32) -> i32 {
    if ctx.is_null() {
        return TC_ACT_SHOT;
    }
    let packet = Buffer(ctx);
    let Some(quote) = cut::<Addr6>(packet, what, 40) else {
        return TC_ACT_SHOT;
    };
    let Quote { src, dst, len, .. } = quote;
    let sum = header::pseudo(src, dst, len).words([u32::from(quote.finished.folded())]);
    let done = packet
        .set_words(ETH_LEN, header::v6(src, dst, len))
        .and_then(|()| packet.set_words(ETH_LEN + 40, message::<Addr6>(what, sum)));
    match done {
        Some(()) => leave(ctx, what, ETH_LEN + 40, quote.rest, quote.out),
        None => TC_ACT_SHOT,
    }
}

/// Cuts the packet to what is quoted of it and makes room before it, with the Ethernet header turned round.
#[inline(always)]
fn cut<A: Tables>(packet: Buffer, what: u32, ip_len: usize) -> Option<Quote<A>> {
    // SAFETY: plain reads of the context.
    let (len, came_by) = unsafe { ((*packet.0).len as usize, (*packet.0).ifindex) };
    let (ip, quoted) = quotable::<A, _>(&packet, ETH_LEN, what, len)?;
    let out = if what & RELAYED == RELAYED {
        to_client(packet, &ip)?
    } else {
        came_by
    };
    let room = ip_len + ICMP_LEN;
    // SAFETY: the helpers take the context.
    unsafe {
        if bpf_skb_change_tail(packet.0, (ETH_LEN + quoted) as u32, 0) != 0
            || bpf_skb_adjust_room(packet.0, room as i32, BPF_ADJ_ROOM_MAC, 0) != 0
        {
            return None;
        }
    }
    turn(&packet, 0)?;
    let (from, l4) = (ETH_LEN + room, ip.l4 + room);
    // Where not even the checksum is quoted, no device finishes it.
    let (head, pseudo) = match packet.half(checksum_offset(u32::from(ip.proto), l4)) {
        Some(checksum) => (l4 - from, checksum),
        None => (quoted, 0),
    };
    let sum = |at: usize, len: usize| lb_tc_sum(packet.0, at as u32, len as u32);
    let finished = Sum::ZERO.words([sum(from, head), u32::from(!pseudo)]);
    let rest = Sum::ZERO.words([sum(from + head, quoted - head), u32::from(pseudo)]);
    Some(Quote {
        src: ip.dst,
        dst: ip.src,
        len: quoted as u16,
        finished,
        rest,
        out,
    })
}

/// The interface towards the client that sent the packet.
#[inline(always)]
fn to_client<A: Tables>(packet: Buffer, ip: &Ip<A>) -> Option<u32> {
    let (_, flow) = find(&flow_key(&packet, ip)?)?;
    Some(flow.client_ifindex)
}

/// Brings the checksum of the error at `icmp` to what holds if no device changes what is quoted, and sends it.
#[inline(always)]
fn leave(ctx: *mut __sk_buff, what: u32, icmp: usize, rest: Sum, out: u32) -> i32 {
    let rest = rest.folded();
    // Without `BPF_F_PSEUDO_HDR` the helper leaves a packet alone whose checksum the device is to finish
    // (`inet_proto_csum_replace_by_diff`).
    let replaced = TcContext::new(ctx).l4_csum_replace(icmp + ICMP_CHECKSUM, 0, u64::from(rest), 0);
    if replaced.is_err() {
        return TC_ACT_SHOT;
    }
    // It takes the sum that a device made of the packet for unchanged, since a checksum makes up for what changed; here
    // nothing else did. Without such a sum the helper refuses, and nothing is to be done.
    // SAFETY: the context of this program; no pointers.
    unsafe { bpf_csum_update(ctx, !u32::from(rest)) };
    if what & RELAYED == RELAYED {
        return send(ctx, out);
    }
    // SAFETY: no pointers.
    unsafe { bpf_redirect(out, 0) as i32 }
}
