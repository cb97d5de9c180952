//! Headers written by hand, byte by byte, and random ones.

use super::*;
use core::net::{Ipv4Addr, Ipv6Addr};
use proptest::prelude::*;

struct Bytes<'a>(&'a [u8]);

impl Packet for Bytes<'_> {
    fn half(&self, offset: usize) -> Option<u16> {
        let bytes = self.0.get(offset..offset.checked_add(2)?)?;
        Some(u16::from_ne_bytes([bytes[0], bytes[1]]))
    }

    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let bytes = self.0.get(offset..offset.checked_add(4 * N)?)?;
        let mut words = [0; N];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        }
        Some(words)
    }
}

fn ipv4(options: &[u8], fragment: [u8; 2], proto: u8, payload: &[u8]) -> Vec<u8> {
    let ihl = 5 + options.len() / 4;
    let len = (ihl * 4 + payload.len()) as u16;
    let mut p = vec![0x40 | ihl as u8, 0];
    p.extend(len.to_be_bytes());
    p.extend([0, 7, fragment[0], fragment[1], 64, proto, 0, 0]);
    p.extend([192, 0, 2, 1, 11, 68, 84, 23]);
    p.extend(options);
    p.extend(payload);
    p
}

fn ipv6(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut p = vec![0x60, 0, 0, 0];
    p.extend((rest.len() as u16).to_be_bytes());
    p.extend([next, 64]);
    p.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
    p.extend("fd01:c::2".parse::<Ipv6Addr>().unwrap().octets());
    p.extend(rest);
    p
}

const TCP_SYN: [u8; 20] = [
    0x9c, 0x40, 0x27, 0x10, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0,
];

#[test]
fn a_tcp_packet_gives_its_key_and_flags() {
    let bytes = ipv4(&[], [0, 0], TCP, &TCP_SYN);
    let packet = Bytes(&bytes);
    let ip = Addr4::parse(&packet, 0).unwrap();
    assert_eq!((ip.proto, ip.l4, ip.len, ip.fragment), (TCP, 20, 40, false));
    let key = flow_key(&packet, &ip).unwrap();
    assert_eq!(key.src, Ipv4Addr::new(192, 0, 2, 1).into());
    assert_eq!(key.dst, Ipv4Addr::new(11, 68, 84, 23).into());
    assert_eq!((key.sport.get(), key.dport.get()), (40_000, 10_000));
    assert_eq!(tcp_flags(&packet, ip.l4), Some(tcp_flag::SYN));
}

#[test]
fn ipv4_options_are_skipped() {
    let bytes = ipv4(&[1; 40], [0, 0], TCP, &TCP_SYN);
    let ip = Addr4::parse(&Bytes(&bytes), 0).unwrap();
    assert_eq!(ip.l4, 60);
    assert_eq!(flow_key(&Bytes(&bytes), &ip).unwrap().dport.get(), 10_000);
}

#[test]
fn a_fragment_is_known_by_its_flag_or_offset_and_dont_fragment_is_none() {
    for (bits, fragment) in [([0x20, 0], true), ([0, 1], true), ([0x40, 0], false)] {
        let bytes = ipv4(&[], bits, TCP, &TCP_SYN);
        assert_eq!(Addr4::parse(&Bytes(&bytes), 0).unwrap().fragment, fragment);
    }
}

#[test]
fn ipv6_extension_headers_are_skipped() {
    let mut rest = vec![DESTINATION, 0, 0, 0, 0, 0, 0, 0];
    rest.extend([FRAGMENT, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    rest.extend([TCP, 0, 0, 0, 0, 0, 0, 9]);
    rest.extend(TCP_SYN);
    let bytes = ipv6(HOP_BY_HOP, &rest);
    let ip = Addr6::parse(&Bytes(&bytes), 0).unwrap();
    assert_eq!((ip.proto, ip.l4, ip.fragment), (TCP, 40 + 32, false));
    assert_eq!(usize::from(ip.len), bytes.len());
    assert_eq!(ip.dst, "fd01:c::2".parse::<Ipv6Addr>().unwrap().into());
}

#[test]
fn an_ipv6_fragment_is_known_and_an_atomic_one_is_whole() {
    for (word, fragment) in [([0, 1], true), ([0, 8], true), ([0, 0], false)] {
        let mut rest = vec![TCP, 0, word[0], word[1], 0, 0, 0, 9];
        rest.extend(TCP_SYN);
        let bytes = ipv6(FRAGMENT, &rest);
        assert_eq!(Addr6::parse(&Bytes(&bytes), 0).unwrap().fragment, fragment);
    }
}

#[test]
fn what_follows_a_fragments_header_is_not_parsed() {
    // More to come, and what stands there looks like a header too long to be true.
    let rest = [DESTINATION, 0, 0, 9, 0, 0, 0, 9, DESTINATION, 0xff];
    let bytes = ipv6(FRAGMENT, &rest);
    let ip = Addr6::parse(&Bytes(&bytes), 0).unwrap();
    assert_eq!((ip.proto, ip.l4, ip.fragment), (DESTINATION, 48, true));
}

#[test]
fn four_extension_headers_are_skipped_and_a_fifth_is_too_many() {
    for (count, parsed) in [(4, true), (5, false)] {
        let mut rest = Vec::new();
        for n in 1..=count {
            let next = if n == count { TCP } else { DESTINATION };
            rest.extend([next, 0, 0, 0, 0, 0, 0, 0]);
        }
        rest.extend(TCP_SYN);
        let bytes = ipv6(DESTINATION, &rest);
        assert_eq!(Addr6::parse(&Bytes(&bytes), 0).is_some(), parsed);
    }
}

#[test]
fn a_transport_header_cut_short_gives_nothing() {
    let bytes = ipv4(&[], [0, 0], TCP, &TCP_SYN);
    let ip = Addr4::parse(&Bytes(&bytes), 0).unwrap();
    assert!(flow_key(&Bytes(&bytes[..28]), &ip).is_some());
    assert!(flow_key(&Bytes(&bytes[..27]), &ip).is_none());
    assert!(tcp_flags(&Bytes(&bytes[..40]), ip.l4).is_some());
    assert!(tcp_flags(&Bytes(&bytes[..39]), ip.l4).is_none());
}

#[test]
fn up_to_two_vlan_tags_are_skipped() {
    let mac = [0_u8; 12];
    for (tags, l3) in [
        (&[][..], 14),
        (&[0x81, 0, 0, 5][..], 18),
        (&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6][..], 22),
    ] {
        let frame = [&mac[..], tags, &[0x86, 0xdd]].concat();
        assert_eq!(ethernet(&Bytes(&frame)), Some((ETH_IPV6, l3)));
    }
}

#[test]
fn a_header_that_lies_about_its_length_is_no_header() {
    let mut bytes = ipv4(&[], [0, 0], TCP, &TCP_SYN);
    bytes[0] = 0x44;
    assert_eq!(Addr4::parse(&Bytes(&bytes), 0), None);
    bytes[0] = 0x65;
    assert_eq!(Addr4::parse(&Bytes(&bytes), 0), None);
}

proptest! {
    #[test]
    fn no_bytes_are_read_out_of_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let packet = Bytes(&bytes);
        if let Some((_, l3)) = ethernet(&packet) {
            if let Some(ip) = Addr4::parse(&packet, l3) {
                let _ = (flow_key(&packet, &ip), tcp_flags(&packet, ip.l4));
            }
            if let Some(ip) = Addr6::parse(&packet, l3) {
                prop_assert!(ip.l4 <= l3 + 40 + MAX_EXTENSIONS * 2048);
                let _ = (flow_key(&packet, &ip), tcp_flags(&packet, ip.l4));
            }
        }
    }
}
