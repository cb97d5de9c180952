//! The outer headers of direct server return.

use crate::{Addr4, Addr6, checksum};

/// Bytes of an IPv4 header without options.
pub const IPV4_LEN: usize = 20;
/// Bytes of an IPv6 header.
pub const IPV6_LEN: usize = 40;

/// Hop limit of an outer header.
const TTL: u32 = 64;
/// Protocol of an IPv4 packet inside IPv4 (RFC 2003).
pub const IPIP: u32 = 4;
/// Next header of an IPv6 packet inside IPv6 (RFC 2473).
pub const IPV6_IN_IP: u32 = 41;
/// Don't Fragment: what is too long is refused before it is wrapped (RFC 2003 section 3.1).
const DONT_FRAGMENT: u32 = 0x4000;

/// An IPv4 header around an IPv4 packet of `inner` bytes, as words in memory order; `None` if the whole
/// would be longer than IPv4 allows.
#[inline(always)]
pub fn ipv4(src: Addr4, dst: Addr4, inner: u16) -> Option<[u32; 5]> {
    let len = inner.checked_add(IPV4_LEN as u16)?;
    let mut words = [
        (0x4500 << 16 | len as u32).to_be(),
        DONT_FRAGMENT.to_be(),
        (TTL << 24 | IPIP << 16).to_be(),
        src.0,
        dst.0,
    ];
    let sum = checksum::of_words(&words);
    words[2] = (TTL << 24 | IPIP << 16 | u32::from(u16::from_be(sum))).to_be();
    Some(words)
}

/// An IPv6 header around an IPv6 packet of `inner` bytes, as words in memory order.
#[inline(always)]
pub fn ipv6(src: Addr6, dst: Addr6, inner: u16) -> [u32; 10] {
    [
        0x6000_0000_u32.to_be(),
        ((inner as u32) << 16 | IPV6_IN_IP << 8 | TTL).to_be(),
        src.0[0],
        src.0[1],
        src.0[2],
        src.0[3],
        dst.0[0],
        dst.0[1],
        dst.0[2],
        dst.0[3],
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};

    fn bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn an_ipv4_header_is_that_of_the_rfcs_and_sums_up() {
        let (src, dst) = (
            Ipv4Addr::new(192, 168, 0, 1),
            Ipv4Addr::new(192, 168, 0, 199),
        );
        let header = bytes(&ipv4(src.into(), dst.into(), 95).unwrap());
        assert_eq!(header[..10], [0x45, 0, 0, 115, 0, 0, 0x40, 0, 64, 4]);
        assert_eq!(header[12..], [192, 168, 0, 1, 192, 168, 0, 199]);
        let sum: u32 = header
            .chunks(2)
            .map(|half| u32::from(u16::from_be_bytes([half[0], half[1]])))
            .sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        assert_eq!(ipv4(src.into(), dst.into(), u16::MAX - 19), None);
    }

    #[test]
    fn an_ipv6_header_says_what_is_inside() {
        let (src, dst): (Ipv6Addr, Ipv6Addr) =
            ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
        let header = bytes(&ipv6(src.into(), dst.into(), 300));
        assert_eq!(header[..8], [0x60, 0, 0, 0, 1, 44, 41, 64]);
        assert_eq!(header[8..24], src.octets());
        assert_eq!(header[24..], dst.octets());
    }
}
