//! Direct server return by a peer agent: what stands before the client's packet, and what is read of it.
//!
//! ```text
//! Ethernet | IPv4 or IPv6 | UDP | Geneve | option | the client's IP packet
//! ```
//!
//! The outer header is of the same family as the packet inside, from the sender's own address to the peer's:
//!
//! - **IP**: hop limit 64; traffic class of the packet inside, its ECN bits too (RFC 6040 section 4.1); IPv4 says
//!   *don't fragment*, since what is too long is refused before it is wrapped.
//! - **UDP** (RFC 8926 section 3.3): port 6081; the source port is of the dynamic range and says which flow it is, so
//!   that the underlay spreads flows over its paths. The checksum is 0. Over IPv6 that is an exception of RFC 6935, on
//!   the terms of RFC 6936 section 5: both ends are ours and told of each other; the receiver checks source, network,
//!   option and backend, so that a packet that went astray ends there; and what is inside has sums of its own over
//!   addresses, ports and data. A sum over everything would cost time for each byte.
//! - **Geneve** (RFC 8926 section 3.4): version 0; no control packet; C, since the option is critical; the EtherType of
//!   the packet inside, which has no Ethernet header; network [`VNI`].
//! - **Option** (RFC 8926 section 3.5): class [`CLASS`], of those for experiments; the type's upper bit says *critical*:
//!   whoever does not know it must drop the packet.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------------------------------+-------------------------------+
//! |         class 0xFF4C          | 0x81 or 0x82  |0 0 0| 2 or 5  |
//! +-------------------------------+-------------------------------+
//! |  the backend's address, 4 bytes (0x81) or 16 bytes (0x82)     |
//! +-------------------------------+-------------------------------+
//! |      the backend's port       |          reserved, 0          |
//! +-------------------------------+-------------------------------+
//! ```

use crate::{
    Addr4, Addr6, Address, Be16, checksum,
    headers::{ETH_IPV4, ETH_IPV6, Packet, PacketMut, halves, join},
    tunnel,
};

/// UDP port of Geneve (RFC 8926 section 3.3).
pub const PORT: u16 = 6081;
/// The network that our packets are in, 24 bits: the letters `LB`.
pub const VNI: u32 = 0x00_4c42;
/// Our option's class: one of those for experiments, 0xFF00 to 0xFFFF (RFC 8926 section 7).
pub const CLASS: u16 = 0xff4c;
/// Our options' types: a backend's IPv4 or IPv6 address and its port; critical.
const BACKEND4: u8 = 0x81;
const BACKEND6: u8 = 0x82;

/// Bytes of a UDP header.
const UDP_LEN: usize = 8;
/// Bytes from the UDP header to what is inside, IPv4.
const SHIM4: usize = UDP_LEN + 8 + 4 + 8;
/// The same for IPv6.
const SHIM6: usize = UDP_LEN + 8 + 4 + 20;
/// Bytes before an IPv4 packet.
pub const IPV4_OVERHEAD: usize = tunnel::IPV4_LEN + SHIM4;
/// Bytes before an IPv6 packet.
pub const IPV6_OVERHEAD: usize = tunnel::IPV6_LEN + SHIM6;

const TTL: u32 = 64;
/// An odd constant with well-spread bits: the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
const UDP: u32 = 17;
const DONT_FRAGMENT: u32 = 0x4000;
/// The control bits *C*, and with it *O*, of the second byte.
const CRITICAL: u32 = 0x40;
/// Dynamic ports (RFC 6335 section 6): the upper two bits of a source port.
const DYNAMIC: u16 = 0xc000;
/// ECN bits of a traffic class; all of them set: congestion experienced (RFC 3168 section 5).
pub const ECN: u8 = 3;

/// What the outer headers of one packet say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer<A> {
    /// The sender's own address.
    pub src: A,
    /// The peer's address.
    pub dst: A,
    /// The backend's address.
    pub backend: A,
    /// The backend's port.
    pub port: Be16,
    /// Which flow it is, see [`source_port`].
    pub sport: Be16,
    /// Traffic class of the packet inside.
    pub class: u8,
    /// Bytes of the packet inside.
    pub len: u16,
}

/// A backend as the option names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Chosen<A> {
    /// Its address.
    pub addr: A,
    /// Its port.
    pub port: Be16,
    /// Always zero.
    pub pad: u16,
}

/// What a datagram to the port of Geneve is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shim<A> {
    /// Another's: of another network, or without our option at its head.
    Foreign,
    /// Of our network and with our option, but not as our agents make it.
    Malformed,
    /// One of a peer's agent.
    Ours(Chosen<A>),
}

/// An address family's encapsulation.
pub trait Encapsulate: Address {
    /// Bytes before the packet, outer IP header included.
    const OVERHEAD: usize;
    /// Bytes of those behind the outer IP header.
    const SHIM: usize;
    /// EtherType of what is inside.
    const ETHERTYPE: u16;
    /// Protocol of a packet that is right inside another one of its family.
    const INSIDE: u8;
    /// Length of the option's data in words of 4 bytes, and its type.
    const OPTION: (u32, u8);
    /// How far to the left the traffic class stands in the IP header's first 16 bits.
    const CLASS_SHIFT: u32;

    /// Writes the outer headers from `at` on; `None` if there is no room, or the whole would be longer than IP allows.
    fn wrap<P: PacketMut>(packet: &P, at: usize, outer: &Outer<Self>) -> Option<()>;

    /// Reads the backend behind the option's header at `at`.
    fn chosen<P: Packet>(packet: &P, at: usize) -> Option<Chosen<Self>>;
}

/// The first word of the Geneve header: version, length of options, flags, protocol.
#[inline(always)]
const fn geneve_word(option: u32, ethertype: u16) -> u32 {
    ((option + 1) << 24 | CRITICAL << 16 | ethertype as u32).to_be()
}

/// The VNI and the reserved byte.
const VNI_WORD: u32 = (VNI << 8).to_be();

#[inline(always)]
const fn option_word((len, kind): (u32, u8)) -> u32 {
    ((CLASS as u32) << 16 | (kind as u32) << 8 | len).to_be()
}

/// UDP and Geneve header and the option's head; `len`: bytes of the datagram.
#[inline(always)]
fn shim<A: Encapsulate>(outer: &Outer<A>, len: u16) -> [u32; 5] {
    [
        join(outer.sport.0, PORT.to_be()),
        join(len.to_be(), 0),
        geneve_word(A::OPTION.0, A::ETHERTYPE),
        VNI_WORD,
        option_word(A::OPTION),
    ]
}

/// The source port of a flow's packets (RFC 8926 section 3.3): one multiplication, since it need only spread. `ports`:
/// both ports of the packet inside as they stand in memory, 0 where it has none.
#[inline(always)]
pub fn source_port<A: Address>(client: &A, ports: u32) -> Be16 {
    let [a, b, c, d] = client.widen().0;
    let words = u64::from(a ^ b ^ c ^ d) << 32 | u64::from(ports);
    Be16::new(DYNAMIC | (words.wrapping_mul(GOLDEN) >> 48) as u16)
}

/// The traffic class of the IP packet at `l3`.
#[inline(always)]
pub fn class<A: Encapsulate, P: Packet>(packet: &P, l3: usize) -> Option<u8> {
    Some((u16::from_be(packet.half(l3)?) >> A::CLASS_SHIFT) as u8)
}

/// Whether the words from the UDP header on are as our agents make them, but for ports and lengths: what
/// [`shim_at`] finds out by parts.
#[inline(always)]
pub fn is_plain<A: Encapsulate, P: Packet>(packet: &P, udp: usize) -> Option<bool> {
    let [geneve, vni, option] = packet.words::<3>(udp + UDP_LEN)?;
    Some(
        geneve == geneve_word(A::OPTION.0, A::ETHERTYPE)
            && vni == VNI_WORD
            && option == option_word(A::OPTION),
    )
}

/// What the datagram with the UDP header at `udp` is; too short for a Geneve header and our option's head counts as
/// foreign.
#[inline(always)]
pub fn shim_at<A: Encapsulate, P: Packet>(packet: &P, udp: usize) -> Shim<A> {
    let Some([_, vni, option]) = packet.words::<3>(udp + UDP_LEN) else {
        return Shim::Foreign;
    };
    let class = u16::from_be(halves(option).0);
    if vni & !0xff_u32.to_be() != VNI_WORD || class != CLASS {
        return Shim::Foreign;
    }
    if is_plain::<A, P>(packet, udp) != Some(true) {
        return Shim::Malformed;
    }
    match A::chosen(packet, udp + UDP_LEN + 12) {
        Some(chosen) => Shim::Ours(chosen),
        None => Shim::Malformed,
    }
}

// === impl Addr4 ===

impl Encapsulate for Addr4 {
    const OVERHEAD: usize = IPV4_OVERHEAD;
    const SHIM: usize = SHIM4;
    const ETHERTYPE: u16 = ETH_IPV4;
    const INSIDE: u8 = tunnel::IPIP as u8;
    const OPTION: (u32, u8) = (2, BACKEND4);
    const CLASS_SHIFT: u32 = 0;

    #[inline(always)]
    fn wrap<P: PacketMut>(packet: &P, at: usize, outer: &Outer<Self>) -> Option<()> {
        let len = outer.len.checked_add(IPV4_OVERHEAD as u16)?;
        let hops = TTL << 24 | UDP << 16;
        let mut ip = [
            (0x4500 << 16 | u32::from(outer.class) << 16 | u32::from(len)).to_be(),
            DONT_FRAGMENT.to_be(),
            hops.to_be(),
            outer.src.0,
            outer.dst.0,
        ];
        let sum = checksum::of_words(&ip);
        ip[2] = (hops | u32::from(u16::from_be(sum))).to_be();
        packet.set_words(at, ip)?;
        let at = at + tunnel::IPV4_LEN;
        packet.set_words(at, shim(outer, len - tunnel::IPV4_LEN as u16))?;
        packet.set_words(at + 20, [outer.backend.0, join(outer.port.0, 0)])
    }

    #[inline(always)]
    fn chosen<P: Packet>(packet: &P, at: usize) -> Option<Chosen<Self>> {
        let [addr, port] = packet.words::<2>(at)?;
        let (port, pad) = halves(port);
        Some(Chosen {
            addr: Self(addr),
            port: Be16(port),
            pad,
        })
    }
}

// === impl Addr6 ===

impl Encapsulate for Addr6 {
    const OVERHEAD: usize = IPV6_OVERHEAD;
    const SHIM: usize = SHIM6;
    const ETHERTYPE: u16 = ETH_IPV6;
    const INSIDE: u8 = tunnel::IPV6_IN_IP as u8;
    const OPTION: (u32, u8) = (5, BACKEND6);
    const CLASS_SHIFT: u32 = 4;

    #[inline(always)]
    fn wrap<P: PacketMut>(packet: &P, at: usize, outer: &Outer<Self>) -> Option<()> {
        let len = outer.len.checked_add(SHIM6 as u16)?;
        let first = [
            (0x6000_0000 | u32::from(outer.class) << 20).to_be(),
            (u32::from(len) << 16 | UDP << 8 | TTL).to_be(),
        ];
        packet.set_words(at, first)?;
        packet.set_words(at + 8, outer.src.0)?;
        packet.set_words(at + 24, outer.dst.0)?;
        let at = at + tunnel::IPV6_LEN;
        packet.set_words(at, shim(outer, len))?;
        packet.set_words(at + 20, outer.backend.0)?;
        packet.set_words(at + 36, [join(outer.port.0, 0)])
    }

    #[inline(always)]
    fn chosen<P: Packet>(packet: &P, at: usize) -> Option<Chosen<Self>> {
        let addr = packet.words::<4>(at)?;
        let [port] = packet.words::<1>(at + 16)?;
        let (port, pad) = halves(port);
        Some(Chosen {
            addr: Self(addr),
            port: Be16(port),
            pad,
        })
    }
}

#[cfg(test)]
mod tests;
