//! Ethernet, IPv4, IPv6, TCP and UDP headers, read through a bounds-checked view of the packet.
//!
//! The kernel programs implement [`Packet`] over `data..data_end` (XDP) and `bpf_skb_load_bytes` (tc),
//! tests over a byte slice; so the parsing that is tested is the parsing that runs.

use crate::{Addr4, Addr6, Address, Be16, FlowKey};

/// IANA protocol number of ICMP.
pub const ICMP: u8 = 1;
/// IANA protocol number of TCP.
pub const TCP: u8 = 6;
/// IANA protocol number of UDP.
pub const UDP: u8 = 17;
/// IANA protocol number of ICMPv6.
pub const ICMP6: u8 = 58;

/// EtherType of IPv4.
pub const ETH_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETH_IPV6: u16 = 0x86DD;
/// Offset of the checksum in an IPv4 header, bytes.
pub const IPV4_CHECKSUM: usize = 10;

/// Bytes of an Ethernet header without tags.
pub const ETH_LEN: usize = 14;

const ETH_VLAN: u16 = 0x8100;
const ETH_QINQ: u16 = 0x88A8;
const VLAN_LEN: usize = 4;
/// IEEE 802.1ad: an outer and an inner tag.
const MAX_VLAN_TAGS: usize = 2;

const IPV4_MIN_WORDS: usize = 5;
/// More-fragments flag and offset of the IPv4 header's second word, host order.
const IPV4_FRAGMENT: u32 = 0x3fff;

const IPV6_WORDS: usize = 10;
const IPV6_LEN: usize = 40;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
/// How many IPv6 extension headers are parsed.
///
/// RFC 8200 section 4.1 names each extension header once, destination options twice; more is not
/// parsed, the packet counts as malformed.
pub const MAX_EXTENSIONS: usize = 4;

/// TCP flag bits as in the low byte of header bytes 12-13, host order.
pub mod tcp_flag {
    /// No more data.
    pub const FIN: u8 = 0x01;
    /// Start of a connection.
    pub const SYN: u8 = 0x02;
    /// Abort.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
}

/// A packet whose bytes can be read; `None` is out of bounds.
pub trait Packet: Sized {
    /// Whether this view is of plain packets alone, and whoever reads it leaves what is rare to others.
    const SHORTCUT: bool = false;

    /// Whether a program before this one saw the packet, and counted what it would not carry.
    #[inline(always)]
    fn is_counted(&self) -> bool {
        false
    }

    /// A 16-bit word as it stands in memory.
    fn half(&self, offset: usize) -> Option<u16>;

    /// 32-bit words as they stand in memory.
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]>;

    /// Where the payload of an IPv4 packet begins, whose header says `l4`.
    #[inline(always)]
    fn payload(&self, l4: usize) -> usize {
        l4
    }

    /// [`skip_extensions`], or a call of it in a function of its own: the kernel's verifier would
    /// otherwise walk the rest of the program once for every way through the loop.
    #[inline(always)]
    fn extensions(&self, proto: u8, l4: usize) -> Option<Payload> {
        skip_extensions(self, proto, l4)
    }
}

/// A packet whose bytes can be written in place; `None` is out of bounds.
pub trait PacketMut: Packet {
    /// Writes a 16-bit word as it is to stand in memory.
    fn set_half(&self, offset: usize, value: u16) -> Option<()>;

    /// Writes 32-bit words as they are to stand in memory.
    fn set_words<const N: usize>(&self, offset: usize, value: [u32; N]) -> Option<()>;
}

/// Where the payload of an IPv6 packet begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Its protocol.
    pub proto: u8,
    /// Its offset from the start of the frame, bytes.
    pub l4: usize,
    /// Whether it is part of a larger one.
    pub fragment: bool,
}

/// What the IP header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Protocol of the payload, extension headers skipped.
    pub proto: u8,
    /// Offset of the payload from the start of the frame, bytes.
    pub l4: usize,
    /// Bytes from the IP header to the end, as the header says.
    pub len: u16,
    /// Routers that the packet may still pass: time to live, hop limit.
    pub ttl: u8,
    /// Whether the packet is a fragment of a larger one.
    pub fragment: bool,
}

/// An address family's header.
pub trait Family: Address {
    /// `AF_INET` or `AF_INET6`.
    const AF: u8;
    /// 4 or 6.
    const VERSION: u8;
    /// Offsets of source and destination address from the start of the IP header, bytes.
    const ADDRESSES: (usize, usize);
    /// Offset of the 16-bit word that holds [`Ip::ttl`], and what that word has less, as it stands in
    /// memory, when the packet has passed a router.
    const HOP: (usize, u16);

    /// Reads the IP header at `l3`.
    fn parse<P: Packet>(packet: &P, l3: usize) -> Option<Ip<Self>>;
}

/// Skips up to two VLAN tags; gives the EtherType (host order) and the offset of the network header.
#[inline(always)]
pub fn ethernet<P: Packet>(packet: &P) -> Option<(u16, usize)> {
    let mut l3 = ETH_LEN;
    let mut ethertype = u16::from_be(packet.half(12)?);
    for _ in 0..MAX_VLAN_TAGS {
        if ethertype != ETH_VLAN && ethertype != ETH_QINQ {
            break;
        }
        ethertype = u16::from_be(packet.half(l3 + 2)?);
        l3 += VLAN_LEN;
    }
    Some((ethertype, l3))
}

/// The flow key of a TCP or UDP packet; `None` if not even the 8 bytes of a UDP header are there.
#[inline(always)]
pub fn flow_key<A: Family, P: Packet>(packet: &P, ip: &Ip<A>) -> Option<FlowKey<A>> {
    let [ports, _] = packet.words::<2>(ip.l4)?;
    let (sport, dport) = halves(ports);
    Some(FlowKey {
        src: ip.src,
        dst: ip.dst,
        sport: Be16(sport),
        dport: Be16(dport),
        proto: u32::from(ip.proto),
    })
}

/// The flag bits of the TCP header at `l4`, see [`tcp_flag`]; `None` if its 20 bytes are not all there.
#[inline(always)]
pub fn tcp_flags<P: Packet>(packet: &P, l4: usize) -> Option<u8> {
    let [flags, _] = packet.words::<2>(l4 + 12)?;
    Some(u16::from_be(halves(flags).0) as u8)
}

/// Offset of the checksum in the transport header at `l4`.
#[inline(always)]
pub const fn checksum_offset(proto: u32, l4: usize) -> usize {
    match proto as u8 {
        TCP => l4 + 16,
        _ => l4 + 6,
    }
}

/// Skips IPv6 extension headers from `l4` on (RFC 8200 section 4), as far as the first fragment; `None`
/// if there are more than [`MAX_EXTENSIONS`] or one is cut short.
#[inline(always)]
pub fn skip_extensions<P: Packet>(packet: &P, proto: u8, l4: usize) -> Option<Payload> {
    let mut payload = Payload {
        proto,
        l4,
        fragment: false,
    };
    for _ in 0..MAX_EXTENSIONS {
        if !is_extension(payload.proto) {
            return Some(payload);
        }
        let head = u16::from_be(packet.half(payload.l4)?);
        if payload.proto == FRAGMENT {
            // Section 4.5: offset in the upper 13 bits, more-fragments in the last. An atomic fragment
            // (RFC 6946) has neither.
            payload.fragment = u16::from_be(packet.half(payload.l4 + 2)?) & 0xfff9 != 0;
            payload.l4 += 8;
            if payload.fragment {
                // Only in the first fragment does a header follow.
                payload.proto = (head >> 8) as u8;
                return Some(payload);
            }
        } else {
            payload.l4 += ((head & 0xff) as usize + 1) * 8;
        }
        payload.proto = (head >> 8) as u8;
    }
    (!is_extension(payload.proto)).then_some(payload)
}

#[inline(always)]
const fn is_extension(proto: u8) -> bool {
    matches!(proto, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION)
}

/// The two 16-bit halves of a word in memory order.
#[inline(always)]
pub const fn halves(word: u32) -> (u16, u16) {
    if cfg!(target_endian = "little") {
        (word as u16, (word >> 16) as u16)
    } else {
        ((word >> 16) as u16, word as u16)
    }
}

/// The reverse of [`halves`].
#[inline(always)]
pub const fn join(first: u16, second: u16) -> u32 {
    if cfg!(target_endian = "little") {
        first as u32 | (second as u32) << 16
    } else {
        (first as u32) << 16 | second as u32
    }
}

// === impl Addr4 ===

impl Family for Addr4 {
    const AF: u8 = 2;
    const VERSION: u8 = 4;
    const ADDRESSES: (usize, usize) = (12, 16);
    const HOP: (usize, u16) = (8, 0x0100_u16.to_be());

    #[inline(always)]
    fn parse<P: Packet>(packet: &P, l3: usize) -> Option<Ip<Self>> {
        let words = packet.words::<IPV4_MIN_WORDS>(l3)?;
        let first = u32::from_be(words[0]);
        let header_words = ((first >> 24) & 0xf) as usize;
        if first >> 28 != 4 || header_words < IPV4_MIN_WORDS {
            return None;
        }
        Some(Ip {
            src: Self(words[3]),
            dst: Self(words[4]),
            proto: (u32::from_be(words[2]) >> 16) as u8,
            l4: packet.payload(l3 + header_words * 4),
            len: first as u16,
            ttl: (u32::from_be(words[2]) >> 24) as u8,
            fragment: u32::from_be(words[1]) & IPV4_FRAGMENT != 0,
        })
    }
}

// === impl Addr6 ===

impl Family for Addr6 {
    const AF: u8 = 10;
    const VERSION: u8 = 6;
    const ADDRESSES: (usize, usize) = (8, 24);
    const HOP: (usize, u16) = (6, 0x0001_u16.to_be());

    #[inline(always)]
    fn parse<P: Packet>(packet: &P, l3: usize) -> Option<Ip<Self>> {
        let w = packet.words::<IPV6_WORDS>(l3)?;
        if u32::from_be(w[0]) >> 28 != 6 {
            return None;
        }
        let second = u32::from_be(w[1]);
        let proto = (second >> 8) as u8;
        let l4 = l3 + IPV6_LEN;
        let payload = if is_extension(proto) {
            packet.extensions(proto, l4)?
        } else {
            Payload {
                proto,
                l4,
                fragment: false,
            }
        };
        Some(Ip {
            src: Self([w[2], w[3], w[4], w[5]]),
            dst: Self([w[6], w[7], w[8], w[9]]),
            proto: payload.proto,
            l4: payload.l4,
            len: ((second >> 16) as u16).saturating_add(IPV6_LEN as u16),
            ttl: second as u8,
            fragment: payload.fragment,
        })
    }
}

#[cfg(test)]
mod tests;
