//! ICMP errors of our own, in place of the packet that caused them: what both hooks say, and how XDP says it.

use aya_ebpf::{
    bindings::{__sk_buff, xdp_action, xdp_md},
    helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
};
use lb_common::{
    Addr4, Addr6, Reason,
    checksum::Sum,
    headers::{Ip, Packet, PacketMut, halves, join},
    icmp::{ICMP_LEN, Icmp as _, error_header, header, is_answerable},
};

use crate::{
    counters,
    extensions::HEADER_MASK,
    forward::{came_by, malformed, may_send, send, slow_path},
    guard,
    tables::Tables,
    views::{Buffer, Bytes},
};

/// Not an XDP action, and negative as one of tc, where none is: the packet is to be answered by an error.
pub const ANSWER: u32 = 1 << 31;
/// It has no hop left.
pub const TIME_EXCEEDED: u32 = ANSWER;
/// Its host cannot be reached.
pub const UNREACHABLE: u32 = ANSWER | 1 << 16;
/// Besides: it was sent inside another one, and a router quoted it, perhaps not to its end.
pub const RELAYED: u32 = ANSWER | 1 << 17;

/// It is longer than this.
#[inline(always)]
pub fn too_big(mtu: u32) -> u32 {
    ANSWER | (mtu & MTU)
}

const MTU: u32 = 0xffff;

/// The most that is quoted, as a mask for the verifier.
const QUOTED_MASK: usize = 0x7ff;
const _: () = assert!(Addr4::QUOTED <= QUOTED_MASK && Addr6::QUOTED <= QUOTED_MASK);
/// Two MAC addresses, two tags and the EtherType, in 16-bit words from behind the MAC addresses.
const TAG_WORDS: usize = 5;
const MACS: usize = 12;

/// Answers an IPv4 packet with the network header at `l3`.
///
/// One that may be fragmented is answered as well: after full NAT nobody on this node could do it, since
/// the stack forwards no packet that comes from its own address.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_xdp_answer4(ctx: *mut xdp_md, l3: u32, what: u32) -> u32 {
    if ctx.is_null() {
        return xdp_action::XDP_PASS;
    }
    if !may_send(ctx, came_by(ctx)) {
        return slow_path();
    }
    let packet = Bytes(ctx);
    let l3 = (l3 & HEADER_MASK) as usize;
    let Some((src, dst, quoted)) = make_room::<Addr4>(packet, l3, what, 20) else {
        return xdp_action::XDP_DROP;
    };
    let sum = Sum::ZERO.words([lb_sum(ctx, (l3 + 20 + ICMP_LEN) as u32, u32::from(quoted))]);
    let done = packet
        .set_words(l3, header::v4(src, dst, quoted))
        .and_then(|()| packet.set_words(l3 + 20, message::<Addr4>(what, sum)));
    match done {
        Some(()) => send(ctx, came_by(ctx)),
        None => malformed(),
    }
}

/// As [`lb_xdp_answer4`] for IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_xdp_answer6(ctx: *mut xdp_md, l3: u32, what: u32) -> u32 {
    if ctx.is_null() {
        return xdp_action::XDP_PASS;
    }
    if !may_send(ctx, came_by(ctx)) {
        return slow_path();
    }
    let packet = Bytes(ctx);
    let l3 = (l3 & HEADER_MASK) as usize;
    let Some((src, dst, quoted)) = make_room::<Addr6>(packet, l3, what, 40) else {
        return xdp_action::XDP_DROP;
    };
    let body = lb_sum(ctx, (l3 + 40 + ICMP_LEN) as u32, u32::from(quoted));
    let sum = header::pseudo(src, dst, quoted).words([body]);
    let done = packet
        .set_words(l3, header::v6(src, dst, quoted))
        .and_then(|()| packet.set_words(l3 + 40, message::<Addr6>(what, sum)));
    match done {
        Some(()) => send(ctx, came_by(ctx)),
        None => malformed(),
    }
}

#[inline(always)]
fn reason(what: u32) -> Reason {
    if what & UNREACHABLE == UNREACHABLE {
        Reason::OuterUnreachable
    } else if what == TIME_EXCEEDED {
        Reason::TtlExceeded
    } else {
        Reason::TooBig
    }
}

/// The header of the error; `sum`: as for [`error_header`].
#[inline(always)]
pub fn message<A: Tables>(what: u32, sum: Sum) -> [u32; 2] {
    match reason(what) {
        Reason::OuterUnreachable => error_header(A::UNREACHABLE, 0, sum),
        Reason::TtlExceeded => error_header(A::TIME_EXCEEDED, 0, sum),
        _ => error_header(A::TOO_BIG, what & MTU, sum),
    }
}

/// Counts a packet of `len` bytes that cannot go on; its header, and how much of it is quoted, if it is answered.
#[inline(always)]
pub fn quotable<A: Tables, P: Packet>(
    packet: &P,
    l3: usize,
    what: u32,
    len: usize,
) -> Option<(Ip<A>, usize)> {
    counters::count(reason(what));
    let ip = A::parse(packet, l3)?;
    if !is_answerable(&ip.src) || is_to_group(packet)? {
        return None;
    }
    if !guard::may_answer() {
        counters::count(Reason::AnswerGuard);
        return None;
    }
    let whole = ip.len as usize;
    let most = if whole > A::QUOTED { A::QUOTED } else { whole };
    // Whole words, so that the sum has no odd end: headers are.
    let quoted = most & QUOTED_MASK & !3;
    if l3 + quoted <= len {
        return Some((ip, quoted));
    }
    let there = len.saturating_sub(l3) & QUOTED_MASK & !3;
    (what & RELAYED == RELAYED).then_some((ip, there))
}

/// Makes the packet what is quoted of it, with room for the headers of the error before it and the
/// Ethernet header turned round; gives the error's source and destination and the length of what is quoted.
#[inline(always)]
fn make_room<A: Tables>(packet: Bytes, l3: usize, what: u32, ip_len: usize) -> Option<(A, A, u16)> {
    let len = packet.len();
    let (ip, quoted) = quotable::<A, _>(&packet, l3, what, len)?;
    let room = ip_len + ICMP_LEN;
    // SAFETY: the context of this program; no pointer into the packet is kept.
    unsafe {
        if bpf_xdp_adjust_head(packet.0, -(room as i32)) != 0
            || bpf_xdp_adjust_tail(packet.0, (l3 + quoted) as i32 - len as i32) != 0
        {
            return None;
        }
    }
    turn(&packet, room)?;
    for word in 0..TAG_WORDS {
        let at = MACS + 2 * word;
        if at >= l3 {
            break;
        }
        packet.set_half(at, packet.half(room + at)?)?;
    }
    Some((ip.dst, ip.src, quoted as u16))
}

/// Whether the frame is for a group of stations, to which no answer is due (RFC 1122 section 3.2.2).
#[inline(always)]
fn is_to_group<P: Packet>(packet: &P) -> Option<bool> {
    let [mac] = packet.words::<1>(0)?;
    Some(mac.to_ne_bytes()[0] & 1 != 0)
}

/// Takes the MAC addresses at `from` to the start of the packet, the receiver for the sender.
#[inline(always)]
pub fn turn<P: PacketMut>(packet: &P, from: usize) -> Option<()> {
    let [a, b, c] = packet.words::<3>(from)?;
    let ((b0, b1), (a0, a1), (c0, c1)) = (halves(b), halves(a), halves(c));
    packet.set_words(0, [join(b1, c0), join(c1, a0), join(a1, b0)])
}

macro_rules! sums {
    ($sum:ident, $context:ty, $view:ident) => {
        /// The sum over bytes of the packet, a multiple of 4.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $sum(ctx: *mut $context, from: u32, len: u32) -> u32 {
            if ctx.is_null() {
                return 0;
            }
            u32::from(sum(&$view(ctx), from as usize, (from + len) as usize).folded())
        }
    };
}

sums!(lb_sum, xdp_md, Bytes);
sums!(lb_tc_sum, __sk_buff, Buffer);

#[inline(always)]
fn sum<P: Packet>(packet: &P, from: usize, end: usize) -> Sum {
    /// Words that are read at once.
    const CHUNK: usize = 4;
    let mut at = from;
    let mut sum = Sum::ZERO;
    for _ in 0..=QUOTED_MASK / (4 * CHUNK) {
        if at + 4 * CHUNK > end {
            break;
        }
        let Some(words) = packet.words::<CHUNK>(at) else {
            break;
        };
        sum = sum.words(words);
        at += 4 * CHUNK;
    }
    for _ in 1..CHUNK {
        if at + 4 > end {
            break;
        }
        let Some(words) = packet.words::<1>(at) else {
            break;
        };
        sum = sum.words(words);
        at += 4;
    }
    sum
}
