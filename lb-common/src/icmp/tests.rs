//! Errors about packets of a flow: rewritten there and back, every sum right.

use std::cell::RefCell;

use super::*;
use crate::{Be16, checksum::Sum, headers::Family};

struct Bytes(RefCell<Vec<u8>>);

impl Packet for Bytes {
    fn half(&self, at: usize) -> Option<u16> {
        let bytes = self.0.borrow();
        Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
    }

    fn words<const N: usize>(&self, at: usize) -> Option<[u32; N]> {
        let bytes = self.0.borrow();
        let mut words = bytes.get(at..at + 4 * N)?.chunks_exact(4);
        Some(std::array::from_fn(|_| {
            u32::from_ne_bytes(words.next().unwrap().try_into().unwrap())
        }))
    }
}

impl PacketMut for Bytes {
    fn set_half(&self, at: usize, value: u16) -> Option<()> {
        let mut bytes = self.0.borrow_mut();
        bytes
            .get_mut(at..at + 2)?
            .copy_from_slice(&value.to_ne_bytes());
        Some(())
    }

    fn set_words<const N: usize>(&self, at: usize, words: [u32; N]) -> Option<()> {
        for (n, word) in words.into_iter().enumerate() {
            let mut bytes = self.0.borrow_mut();
            let to = bytes.get_mut(at + 4 * n..at + 4 * n + 4)?;
            to.copy_from_slice(&word.to_ne_bytes());
        }
        Some(())
    }
}

fn addr4(last: u8) -> Addr4 {
    core::net::Ipv4Addr::new(192, 0, 2, last).into()
}

fn addr6(last: u16) -> Addr6 {
    core::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).into()
}

fn sum(bytes: &[u8]) -> Sum {
    let mut sum = Sum::ZERO;
    for chunk in bytes.chunks(4) {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        sum = sum.words([u32::from_ne_bytes(word)]);
    }
    sum
}

fn bytes<const N: usize>(words: [u32; N]) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// A UDP header that the error quotes, its checksum unchecked.
fn udp(checksum: u16) -> Vec<u8> {
    let mut udp = [40_000_u16, 10_000, 100].map(u16::to_be_bytes).concat();
    udp.extend(checksum.to_be_bytes());
    udp
}

/// An IPv4 error from .9 to .2 about a packet from .2 to .3 with these bytes behind the IP header.
fn error4(proto: u8, body: &[u8]) -> Bytes {
    let mut inner = bytes([
        0x4500_0080_u32.to_be(),
        7,
        (0x3f00_0000 | u32::from(proto) << 16).to_be(),
        addr4(2).0,
        addr4(3).0,
    ]);
    let header = sum(&inner).checksum();
    inner[10..12].copy_from_slice(&header.to_ne_bytes());
    inner.extend(body);
    let mut all = bytes(header::v4(addr4(9), addr4(2), inner.len() as u16));
    all.extend(bytes(error_header((3, 3), 0, sum(&inner))));
    all.extend(inner);
    Bytes(RefCell::new(all))
}

fn flow<A: Icmp>(new_src: A, new_dst: A) -> Flow<A>
where
    Flow<A>: Default,
{
    Flow {
        new_src,
        new_dst,
        new_sport: Be16::new(443),
        new_dport: Be16::new(50_000),
        ..Flow::default()
    }
}

fn translate<A: Icmp>(packet: &Bytes, flow: &Flow<A>, forwarded: bool) -> Quoted<A> {
    let ip = A::parse(packet, 0).unwrap();
    let quoted = quoted(packet, 0, &ip).unwrap();
    translate_error(packet, 0, &ip, &quoted, flow, forwarded).unwrap();
    quoted
}

fn all_sums_hold(packet: &Bytes) {
    let packet = packet.0.borrow();
    assert_eq!(sum(&packet[..20]).checksum(), 0, "outer header");
    assert_eq!(sum(&packet[20..]).checksum(), 0, "message");
    assert_eq!(sum(&packet[28..48]).checksum(), 0, "quoted header");
}

#[test]
fn an_error_goes_to_the_sender_of_what_it_quotes_as_that_was_sent() {
    let tcp_cut_short = [0x9c, 0x40, 0x27, 0x10, 0, 0, 0, 1];
    let tcp = [&tcp_cut_short[..], &[0; 8], &[0x12, 0x34, 0, 0]].concat();
    for (proto, body) in [
        (UDP, &udp(0)[..]),
        (UDP, &udp(0x1234)),
        (TCP, &tcp_cut_short),
        (TCP, &tcp),
    ] {
        let packet = error4(proto, body);
        all_sums_hold(&packet);
        let flow = flow(addr4(103), addr4(102));
        let quoted = translate(&packet, &flow, true);
        assert_eq!((quoted.key.src, quoted.key.dst), (addr4(2), addr4(3)));
        all_sums_hold(&packet);
        let outer = Addr4::parse(&packet, 0).unwrap();
        assert_eq!((outer.src, outer.dst), (addr4(9), addr4(102)));
        assert_eq!(outer.ttl, HOPS - 1);
        let inner = super::quoted(&packet, 0, &outer).unwrap().key;
        assert_eq!((inner.src, inner.dst), (addr4(102), addr4(103)));
        assert_eq!((inner.sport.get(), inner.dport.get()), (50_000, 443));
    }
}

#[test]
fn a_udp_checksum_of_zero_stays_in_what_is_quoted() {
    for (checksum, stays) in [(0, true), (0x1234, false)] {
        let packet = error4(UDP, &udp(checksum));
        let quoted = translate(&packet, &flow(addr4(103), addr4(102)), false);
        let now = packet.half(quoted.l4 + 6).unwrap();
        assert_eq!(now == checksum.to_be(), stays, "{checksum:x}");
    }
}

#[test]
fn the_other_end_of_the_flow_speaks_as_what_its_peer_takes_it_for() {
    let packet = error4(UDP, &udp(1));
    let at_src = Addr4::ADDRESSES.0;
    packet.set_words(at_src, [addr4(3).0]).unwrap();
    translate(&packet, &flow(addr4(103), addr4(102)), false);
    assert_eq!(Addr4::parse(&packet, 0).unwrap().src, addr4(103));
}

#[test]
fn what_was_translated_back_is_what_it_was() {
    let packet = error4(UDP, &udp(0x1234));
    let before = packet.0.borrow().clone();
    let quoted = translate(&packet, &flow(addr4(103), addr4(102)), false);
    assert_ne!(*packet.0.borrow(), before);
    let back = Flow {
        new_src: quoted.key.dst,
        new_dst: quoted.key.src,
        new_sport: quoted.key.dport,
        new_dport: quoted.key.sport,
        ..Flow::default()
    };
    translate(&packet, &back, false);
    assert_eq!(*packet.0.borrow(), before);
}

#[test]
fn an_ipv6_error_is_summed_with_its_pseudo_header() {
    let mut inner = bytes([
        0x6000_0000_u32.to_be(),
        (100 << 16 | 17 << 8 | 63_u32).to_be(),
    ]);
    inner.extend(bytes(addr6(2).0));
    inner.extend(bytes(addr6(3).0));
    inner.extend(udp(0x1234));
    let len = inner.len() as u16;
    let mut all = bytes(header::v6(addr6(9), addr6(2), len));
    let pseudo = header::pseudo(addr6(9), addr6(2), len);
    let body = sum(&inner).words([u32::from(pseudo.folded())]);
    all.extend(bytes(error_header(Addr6::TOO_BIG, 1280, body)));
    all.extend(inner);
    let packet = Bytes(RefCell::new(all));
    let holds = |src, dst| {
        let message = sum(&packet.0.borrow()[40..]);
        let pseudo = header::pseudo(src, dst, len).folded();
        assert_eq!(message.words([u32::from(pseudo)]).checksum(), 0);
    };
    holds(addr6(9), addr6(2));
    translate(&packet, &flow(addr6(103), addr6(102)), true);
    holds(addr6(9), addr6(102));
    assert_eq!(Addr6::parse(&packet, 0).unwrap().ttl, HOPS - 1);
}

#[test]
fn an_echo_is_answered_with_all_hops_left() {
    let body = b"ping";
    let mut all = bytes(header::v4(addr4(9), addr4(2), body.len() as u16));
    all.extend(bytes(error_header((8, 0), 0x0001_0002, sum(body))));
    all.extend(body);
    all[8] = 3;
    all[10..12].fill(0);
    let checksum = sum(&all[..20]).checksum();
    all[10..12].copy_from_slice(&checksum.to_ne_bytes());
    let packet = Bytes(RefCell::new(all));
    let ip = Addr4::parse(&packet, 0).unwrap();
    answer_echo(&packet, 0, &ip).unwrap();
    let reply = Addr4::parse(&packet, 0).unwrap();
    assert_eq!((reply.src, reply.dst), (addr4(2), addr4(9)));
    assert_eq!((reply.ttl, kind(&packet, 20)), (HOPS, Some((0, 0))));
    let packet = packet.0.borrow();
    assert_eq!(sum(&packet[..20]).checksum(), 0);
    assert_eq!(sum(&packet[20..]).checksum(), 0);
}

#[test]
fn nobody_and_groups_are_not_answered() {
    use core::net::{Ipv4Addr, Ipv6Addr};
    for (addr, answerable) in [
        ([0, 0, 0, 0], false),
        ([127, 0, 0, 1], false),
        ([224, 0, 0, 1], false),
        ([255, 255, 255, 255], false),
        ([10, 0, 0, 1], true),
        ([223, 255, 255, 1], true),
    ] {
        let addr = Addr4::from(Ipv4Addr::from(addr));
        assert_eq!(is_answerable(&addr), answerable, "{addr:?}");
    }
    for (addr, answerable) in [
        ("::", false),
        ("::1", false),
        ("ff02::1", false),
        ("fe80::1", true),
        ("2001:db8::1", true),
    ] {
        let addr = Addr6::from(addr.parse::<Ipv6Addr>().unwrap());
        assert_eq!(is_answerable(&addr), answerable, "{addr:?}");
    }
}
