//! IP fragments: only the first has ports, the others are known by what they share with it.

use crate::{
    Addr4, Addr6, Be16,
    headers::{Family, Ip, Packet},
};

/// What all fragments of one packet share (RFC 791 section 3.2, RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FragmentKey<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// The identification, as it stands in memory; of IPv4 16 bits.
    pub id: u32,
    /// IP protocol number.
    pub proto: u32,
}

/// What the first fragment said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FragmentPorts {
    /// Source port.
    pub sport: Be16,
    /// Destination port.
    pub dport: Be16,
    /// Always zero.
    pub pad: u32,
    /// Coarse time at which it came, ns.
    pub seen: u64,
}

/// How long the others may come after the first, ns: as long as Linux waits (`net.ipv4.ipfrag_time`).
pub const FRAGMENT_LIFE: u64 = 30_000_000_000;

const _: () = assert!(size_of::<FragmentKey<Addr4>>() == 16);
const _: () = assert!(size_of::<FragmentKey<Addr6>>() == 40);
const _: () = assert!(size_of::<FragmentPorts>() == 16);

/// Which part of which packet a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The packet's identification, as it stands in memory.
    pub id: u32,
    /// The part's offset, in units of 8 bytes.
    pub offset: u16,
}

/// How a family marks fragments.
pub trait Fragments: Family {
    /// What the header at `l3` says of a packet with [`Ip::fragment`].
    fn fragment<P: Packet>(packet: &P, l3: usize, ip: &Ip<Self>) -> Option<Fragment>;
}

// === impl Fragment ===

impl Fragment {
    /// Whether the transport header is in this one.
    #[inline(always)]
    pub fn is_first(&self) -> bool {
        self.offset == 0
    }
}

// === impl FragmentKey ===

impl<A: Copy> FragmentKey<A> {
    /// Of a fragment with this header.
    #[inline(always)]
    pub fn new(ip: &Ip<A>, fragment: Fragment) -> Self {
        Self {
            src: ip.src,
            dst: ip.dst,
            id: fragment.id,
            proto: u32::from(ip.proto),
        }
    }
}

// === impl Addr4 ===

impl Fragments for Addr4 {
    #[inline(always)]
    fn fragment<P: Packet>(packet: &P, l3: usize, _: &Ip<Self>) -> Option<Fragment> {
        Some(Fragment {
            id: u32::from(packet.half(l3 + 4)?),
            offset: u16::from_be(packet.half(l3 + 6)?) & 0x1fff,
        })
    }
}

// === impl Addr6 ===

impl Fragments for Addr6 {
    /// The fragment header is the last that was skipped ([`crate::headers::skip_extensions`]).
    #[inline(always)]
    fn fragment<P: Packet>(packet: &P, _: usize, ip: &Ip<Self>) -> Option<Fragment> {
        let at = ip.l4.checked_sub(8)?;
        let [id] = packet.words::<1>(at + 4)?;
        Some(Fragment {
            id,
            offset: u16::from_be(packet.half(at + 2)?) >> 3,
        })
    }
}
