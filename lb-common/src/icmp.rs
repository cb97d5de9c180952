//! ICMP and ICMPv6: which messages are errors, what they are about, and their way through NAT.

use crate::{
    Addr4, Addr6, Flow, FlowKey,
    checksum::Delta,
    fragment::Fragments,
    headers::{
        self, ICMP, ICMP6, IPV4_CHECKSUM, Ip, Packet, PacketMut, TCP, UDP, checksum_offset,
        flow_key, halves, join,
    },
};

/// Bytes of the header of an error and of an echo.
pub const ICMP_LEN: usize = 8;
/// Offset of the checksum in that header, bytes.
pub const ICMP_CHECKSUM: usize = 2;

/// What the two families call the same things.
pub trait Icmp: Fragments {
    /// Protocol number.
    const PROTO: u8;
    /// Type of an echo request.
    const ECHO_REQUEST: u8;
    /// Type of its answer.
    const ECHO_REPLY: u8;
    /// Type and code: no hop left on the way.
    const TIME_EXCEEDED: (u8, u8);
    /// Type and code: too long for the way on. The MTU stands in the last four bytes of the header.
    const TOO_BIG: (u8, u8);
    /// Type and code: the host cannot be reached.
    const UNREACHABLE: (u8, u8);
    /// The least MTU that a link has, bytes: nobody is to believe a smaller one.
    const LEAST_MTU: u32;
    /// How much of the packet that caused it goes into an error that we send, bytes.
    const QUOTED: usize;

    /// Whether a message of this type is about a packet that it quotes, and steers its sender.
    fn is_error(kind: u8) -> bool;

    /// Whether such an error says that its packet cannot be delivered, whatever it is like.
    fn is_unreachable(kind: u8, code: u8) -> bool;
}

/// The packet that an error quotes, as it was where the error arose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted<A> {
    /// Its tuple.
    pub key: FlowKey<A>,
    /// Offset of its IP header from the start of the frame, bytes.
    pub l3: usize,
    /// Offset of its transport header, bytes.
    pub l4: usize,
    /// Where the quoted bytes end at the latest.
    pub end: usize,
}

/// Type and code of the message at `l4`.
#[inline(always)]
pub fn kind<P: Packet>(packet: &P, l4: usize) -> Option<(u8, u8)> {
    let word = u16::from_be(packet.half(l4)?);
    Some(((word >> 8) as u8, word as u8))
}

/// What the error with this IP header at `l3` quotes; `None` if that is no TCP or UDP packet with ports.
#[inline(always)]
pub fn quoted<A: Icmp, P: Packet>(packet: &P, l3: usize, ip: &Ip<A>) -> Option<Quoted<A>> {
    let inner = ip.l4 + ICMP_LEN;
    let quoted = A::parse(packet, inner)?;
    if quoted.proto != TCP && quoted.proto != UDP {
        return None;
    }
    if quoted.fragment && !A::fragment(packet, inner, &quoted)?.is_first() {
        return None;
    }
    let (outer_end, inner_end) = (l3 + ip.len as usize, inner + quoted.len as usize);
    Some(Quoted {
        key: flow_key(packet, &quoted)?,
        l3: inner,
        l4: quoted.l4,
        end: if inner_end < outer_end {
            inner_end
        } else {
            outer_end
        },
    })
}

/// Rewrites an error for the sender of the packet that it quotes.
///
/// `flow` is what translates an answer to the quoted packet: the quoted packet becomes what its sender
/// sent, and the error goes there. It came to the quoted packet's source, as [`Quoted::key`] has it. Its
/// own source stays, so that a path shows its routers; where that is the other end of the flow, it becomes
/// what the sender takes for the other end. (RFC 5508 REQ-5(c) would have the address of the NAT in place
/// of a router's.) The checksums of the quoted packet are kept as right or wrong as they are: a UDP
/// checksum of 0 stays, one that is not quoted is let be.
#[inline(always)]
pub fn translate_error<A: Icmp, P: PacketMut>(
    packet: &P,
    l3: usize,
    ip: &Ip<A>,
    quoted: &Quoted<A>,
    flow: &Flow<A>,
    forwarded: bool,
) -> Option<()> {
    let Quoted {
        key,
        l3: inner,
        l4,
        end,
    } = quoted;
    let to_sender = Delta::ZERO.address(&key.src, &flow.new_dst);
    let addresses = to_sender.address(&key.dst, &flow.new_src);
    let ports = Delta::ZERO
        .word(key.sport.0, flow.new_dport.0)
        .word(key.dport.0, flow.new_sport.0);
    let mut whole = addresses.and(ports);
    let at = checksum_offset(key.proto, *l4);
    if at + 2 <= *end
        && let Some(old) = packet.half(at)
    {
        let new = if key.proto == u32::from(TCP) {
            whole.apply(old)
        } else {
            whole.apply_udp(old)
        };
        packet.set_half(at, new)?;
        whole = whole.word(old, new);
    }
    packet.set_words(*l4, [join(flow.new_dport.0, flow.new_sport.0)])?;
    if A::VERSION == 4 {
        let old = packet.half(inner + IPV4_CHECKSUM)?;
        let new = addresses.apply(old);
        packet.set_half(inner + IPV4_CHECKSUM, new)?;
        whole = whole.word(old, new);
    }
    set_addresses(packet, *inner, &flow.new_dst, &flow.new_src)?;
    let src = if ip.src == key.dst {
        flow.new_src
    } else {
        ip.src
    };
    let outer = to_sender.address(&ip.src, &src);
    if A::VERSION == 6 {
        // RFC 4443 section 2.3: the checksum covers a pseudo header.
        whole = whole.and(outer);
    }
    let old = packet.half(ip.l4 + ICMP_CHECKSUM)?;
    packet.set_half(ip.l4 + ICMP_CHECKSUM, whole.apply(old))?;
    readdress(packet, l3, outer, &src, &flow.new_dst, forwarded)
}

/// Writes new addresses into the IP header at `l3`; `delta`: what they change in its checksum. A packet
/// that is `forwarded` has one hop less.
#[inline(always)]
pub fn readdress<A: headers::Family, P: PacketMut>(
    packet: &P,
    l3: usize,
    delta: Delta,
    src: &A,
    dst: &A,
    forwarded: bool,
) -> Option<()> {
    if A::VERSION == 4 {
        let delta = if forwarded {
            delta.and(Delta::HOP)
        } else {
            delta
        };
        let old = packet.half(l3 + IPV4_CHECKSUM)?;
        packet.set_half(l3 + IPV4_CHECKSUM, delta.apply(old))?;
    }
    if forwarded {
        let hops = packet.half(l3 + A::HOP.0)?;
        packet.set_half(l3 + A::HOP.0, hops.wrapping_sub(A::HOP.1))?;
    }
    set_addresses(packet, l3, src, dst)
}

#[inline(always)]
fn set_addresses<A: headers::Family, P: PacketMut>(
    packet: &P,
    l3: usize,
    src: &A,
    dst: &A,
) -> Option<()> {
    let (at_src, at_dst) = A::ADDRESSES;
    let (src, dst) = (src.widen().0, dst.widen().0);
    if A::VERSION == 4 {
        packet.set_words(l3 + at_src, [src[0]])?;
        packet.set_words(l3 + at_dst, [dst[0]])
    } else {
        packet.set_words(l3 + at_src, src)?;
        packet.set_words(l3 + at_dst, dst)
    }
}

/// Whether an answer may be sent to this address: not to a group, nor to nobody (RFC 1122 section 3.2.2).
#[inline(always)]
pub fn is_answerable<A: headers::Family>(src: &A) -> bool {
    let words = src.widen().0;
    let first = u32::from_be(words[0]) >> 24;
    if A::VERSION == 4 {
        first != 0 && first != 127 && first < 224
    } else {
        // No sender has an address of the block that holds :: and ::1 (RFC 4291 section 2.5.2).
        first != 0xff && words[0] | words[1] | words[2] != 0
    }
}

/// Turns an echo request that is there in full into the reply: type, addresses, hops.
#[inline(always)]
pub fn answer_echo<A: Icmp, P: PacketMut>(packet: &P, l3: usize, ip: &Ip<A>) -> Option<()> {
    let old = packet.half(ip.l4)?;
    let new = (u16::from(A::ECHO_REPLY) << 8).to_be();
    let sum = packet.half(ip.l4 + ICMP_CHECKSUM)?;
    packet.set_half(ip.l4, new)?;
    packet.set_half(ip.l4 + ICMP_CHECKSUM, Delta::ZERO.word(old, new).apply(sum))?;
    let hops = packet.half(l3 + A::HOP.0)?;
    let fresh = fresh_hops::<A>(hops);
    packet.set_half(l3 + A::HOP.0, fresh)?;
    // Addresses that change places leave every sum as it is.
    readdress(
        packet,
        l3,
        Delta::ZERO.word(hops, fresh),
        &ip.dst,
        &ip.src,
        false,
    )
}

/// Hops that a packet of ours may take.
pub const HOPS: u8 = 64;

/// The word at [`headers::Family::HOP`] with all hops left.
#[inline(always)]
fn fresh_hops<A: headers::Family>(word: u16) -> u16 {
    let all = HOPS as u16 * A::HOP.1;
    let mask = 0xff * A::HOP.1;
    word & !mask | all
}

/// The words of an IPv4 header without options, its checksum left out, and of the pseudo header of
/// what follows.
pub mod header {
    use super::{HOPS, ICMP, ICMP_LEN, ICMP6};
    use crate::{Addr4, Addr6, checksum::Sum};

    /// An IPv4 header of an ICMP error that quotes so many bytes, its checksum right. As Linux sends it:
    /// precedence *internetwork control* (RFC 1812 section 4.3.2.5), not to be fragmented.
    #[inline(always)]
    pub fn v4(src: Addr4, dst: Addr4, quoted: u16) -> [u32; 5] {
        let len = 20 + ICMP_LEN as u32 + quoted as u32;
        let mut words = [
            (0x45c0_0000 | len).to_be(),
            0x4000_u32.to_be(),
            ((HOPS as u32) << 24 | (ICMP as u32) << 16).to_be(),
            src.0,
            dst.0,
        ];
        let checksum = Sum::ZERO.words(words).checksum();
        words[2] |= super::join(0, checksum);
        words
    }

    /// An IPv6 header of such an error.
    #[inline(always)]
    pub fn v6(src: Addr6, dst: Addr6, quoted: u16) -> [u32; 10] {
        let (s, d) = (src.0, dst.0);
        let len = ICMP_LEN as u32 + quoted as u32;
        [
            0x6000_0000_u32.to_be(),
            (len << 16 | (ICMP6 as u32) << 8 | HOPS as u32).to_be(),
            s[0],
            s[1],
            s[2],
            s[3],
            d[0],
            d[1],
            d[2],
            d[3],
        ]
    }

    /// The sum of its pseudo header (RFC 8200 section 8.1).
    #[inline(always)]
    pub fn pseudo(src: Addr6, dst: Addr6, quoted: u16) -> Sum {
        let len = ICMP_LEN as u32 + quoted as u32;
        Sum::ZERO
            .words(src.0)
            .words(dst.0)
            .words([len.to_be(), (ICMP6 as u32).to_be()])
    }
}

/// The header of an error, its checksum right; `rest`: the last four bytes, `sum`: that of the quoted bytes
/// and, for IPv6, of the pseudo header.
#[inline(always)]
pub fn error_header((kind, code): (u8, u8), rest: u32, sum: crate::checksum::Sum) -> [u32; 2] {
    let mut words = [
        ((kind as u32) << 24 | (code as u32) << 16).to_be(),
        rest.to_be(),
    ];
    let (first, _) = halves(words[0]);
    words[0] = join(first, sum.words(words).checksum());
    words
}

// === impl Addr4 ===

impl Icmp for Addr4 {
    const PROTO: u8 = ICMP;
    const ECHO_REQUEST: u8 = 8;
    const ECHO_REPLY: u8 = 0;
    const TIME_EXCEEDED: (u8, u8) = (11, 0);
    const TOO_BIG: (u8, u8) = (3, 4);
    const UNREACHABLE: (u8, u8) = (3, 1);
    /// RFC 791 section 3.2.
    const LEAST_MTU: u32 = 68;
    /// RFC 1812 section 4.3.2.3: at most 576 bytes with headers.
    const QUOTED: usize = 576 - 20 - ICMP_LEN;

    /// Source quench is ignored (RFC 6633).
    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, 3 | 11 | 12)
    }

    /// RFC 792: all of them but *fragmentation needed*.
    #[inline(always)]
    fn is_unreachable(kind: u8, code: u8) -> bool {
        kind == 3 && code != Self::TOO_BIG.1
    }
}

// === impl Addr6 ===

impl Icmp for Addr6 {
    const PROTO: u8 = ICMP6;
    const ECHO_REQUEST: u8 = 128;
    const ECHO_REPLY: u8 = 129;
    const TIME_EXCEEDED: (u8, u8) = (3, 0);
    const TOO_BIG: (u8, u8) = (2, 0);
    const UNREACHABLE: (u8, u8) = (1, 3);
    /// RFC 8200 section 5, RFC 8201 section 4.
    const LEAST_MTU: u32 = 1280;
    /// RFC 4443 section 3.2: at most 1280 bytes with headers.
    const QUOTED: usize = 1280 - 40 - ICMP_LEN;

    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, 1..=4)
    }

    /// RFC 4443 section 3.1.
    #[inline(always)]
    fn is_unreachable(kind: u8, _: u8) -> bool {
        kind == 1
    }
}

#[cfg(test)]
mod tests;
