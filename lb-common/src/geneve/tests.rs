//! The outer headers byte by byte, after the RFCs.

use super::*;
use core::{cell::RefCell, net::Ipv4Addr, net::Ipv6Addr};
use std::collections::HashSet;

struct Bytes(RefCell<Vec<u8>>);

impl Packet for Bytes {
    fn half(&self, offset: usize) -> Option<u16> {
        let bytes = self.0.borrow();
        let bytes = bytes.get(offset..offset + 2)?;
        Some(u16::from_ne_bytes([bytes[0], bytes[1]]))
    }

    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let bytes = self.0.borrow();
        let bytes = bytes.get(offset..offset + 4 * N)?;
        let mut words = [0; N];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        }
        Some(words)
    }
}

impl PacketMut for Bytes {
    fn set_half(&self, offset: usize, value: u16) -> Option<()> {
        let mut bytes = self.0.borrow_mut();
        bytes
            .get_mut(offset..offset + 2)?
            .copy_from_slice(&value.to_ne_bytes());
        Some(())
    }

    fn set_words<const N: usize>(&self, offset: usize, value: [u32; N]) -> Option<()> {
        let mut bytes = self.0.borrow_mut();
        let bytes = bytes.get_mut(offset..offset + 4 * N)?;
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(value) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        Some(())
    }
}

fn wrapped<A: Encapsulate>(outer: &Outer<A>) -> Vec<u8> {
    let bytes = Bytes(RefCell::new(vec![0xee; A::OVERHEAD]));
    A::wrap(&bytes, 0, outer).unwrap();
    bytes.0.into_inner()
}

fn outer4() -> Outer<Addr4> {
    Outer {
        src: Ipv4Addr::new(192, 168, 0, 1).into(),
        dst: Ipv4Addr::new(192, 168, 0, 199).into(),
        backend: Ipv4Addr::new(10, 0, 0, 7).into(),
        port: Be16::new(8080),
        sport: Be16::new(0xd234),
        class: 0xb8,
        len: 67,
    }
}

fn outer6() -> Outer<Addr6> {
    let addr = |text: &str| text.parse::<Ipv6Addr>().unwrap().into();
    Outer {
        src: addr("fd00::1"),
        dst: addr("fd00::2"),
        backend: addr("fd00::3"),
        port: Be16::new(8080),
        sport: Be16::new(0xffff),
        class: 0xb8,
        len: 300,
    }
}

#[test]
fn an_ipv4_packet_gets_the_headers_of_the_rfcs() {
    let bytes = wrapped(&outer4());
    assert_eq!(bytes[..10], [0x45, 0xb8, 0, 67 + 48, 0, 0, 0x40, 0, 64, 17]);
    assert_eq!(bytes[12..20], [192, 168, 0, 1, 192, 168, 0, 199]);
    let sum: u32 = bytes[..20]
        .chunks(2)
        .map(|half| u32::from(u16::from_be_bytes([half[0], half[1]])))
        .sum();
    assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    assert_eq!(
        bytes[20..],
        [
            0xd2,
            0x34,
            0x17,
            0xc1,
            0,
            67 + 28,
            0,
            0, // UDP
            0x03,
            0x40,
            0x08,
            0x00,
            0x00,
            0x4c,
            0x42,
            0, // Geneve
            0xff,
            0x4c,
            0x81,
            0x02,
            10,
            0,
            0,
            7,
            0x1f,
            0x90,
            0,
            0, // option
        ]
    );
    let long = Outer {
        len: u16::MAX - 47,
        ..outer4()
    };
    let bytes = Bytes(RefCell::new(vec![0; 48]));
    assert_eq!(Addr4::wrap(&bytes, 0, &long), None);
}

#[test]
fn an_ipv6_packet_gets_the_headers_of_the_rfcs() {
    let outer = outer6();
    let bytes = wrapped(&outer);
    assert_eq!(bytes[..8], [0x6b, 0x80, 0, 0, 1, 44 + 40, 17, 64]);
    assert_eq!(bytes[8..24], Ipv6Addr::from(outer.src).octets());
    assert_eq!(bytes[24..40], Ipv6Addr::from(outer.dst).octets());
    assert_eq!(bytes[40..48], [0xff, 0xff, 0x17, 0xc1, 1, 44 + 40, 0, 0]);
    assert_eq!(bytes[48..56], [0x06, 0x40, 0x86, 0xdd, 0x00, 0x4c, 0x42, 0]);
    assert_eq!(bytes[56..60], [0xff, 0x4c, 0x82, 0x05]);
    assert_eq!(bytes[60..76], Ipv6Addr::from(outer.backend).octets());
    assert_eq!(bytes[76..], [0x1f, 0x90, 0, 0]);
}

#[test]
fn what_was_written_is_read_again_and_another_shim_is_not_ours() {
    let read = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = wrapped(&outer4());
        change(&mut bytes);
        shim_at::<Addr4, _>(&Bytes(RefCell::new(bytes)), 20)
    };
    let chosen = Chosen {
        addr: outer4().backend,
        port: outer4().port,
        pad: 0,
    };
    assert_eq!(read(&|_| {}), Shim::Ours(chosen));
    // Another's network or option; no room for either.
    assert_eq!(read(&|b| b[34] = 1), Shim::Foreign);
    assert_eq!(read(&|b| b[36] = 1), Shim::Foreign);
    assert_eq!(read(&|b| b.truncate(39)), Shim::Foreign);
    // Version 1, a control packet, a second option, Ethernet inside, another type, the option cut short.
    for change in [
        |b: &mut Vec<u8>| b[28] |= 0x40,
        |b: &mut Vec<u8>| b[29] |= 0x80,
        |b: &mut Vec<u8>| b[28] += 1,
        |b: &mut Vec<u8>| (b[30], b[31]) = (0x65, 0x58),
        |b: &mut Vec<u8>| b[38] = 0x82,
        |b: &mut Vec<u8>| b.truncate(47),
    ] {
        assert_eq!(read(&change), Shim::Malformed);
    }
    let bytes = Bytes(RefCell::new(wrapped(&outer6())));
    let Shim::Ours(chosen) = shim_at::<Addr6, _>(&bytes, 40) else {
        panic!("not ours")
    };
    assert_eq!(
        (chosen.addr, chosen.port),
        (outer6().backend, outer6().port)
    );
}

#[test]
fn a_traffic_class_is_read_where_each_family_has_it() {
    let (v4, v6) = (wrapped(&outer4()), wrapped(&outer6()));
    assert_eq!(class::<Addr4, _>(&Bytes(RefCell::new(v4)), 0), Some(0xb8));
    assert_eq!(class::<Addr6, _>(&Bytes(RefCell::new(v6)), 0), Some(0xb8));
}

#[test]
fn source_ports_are_dynamic_ones_and_as_many_as_there_are_flows() {
    let ports = |sport: u16| join(sport.to_be(), 80_u16.to_be());
    let mut used = HashSet::new();
    for client in 0..64 {
        let v4 = Addr4::from(Ipv4Addr::new(203, 0, 113, client));
        let v6 = Addr6::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, client.into()));
        for sport in 40_000..40_064 {
            used.insert((4, source_port(&v4, ports(sport)).get()));
            used.insert((6, source_port(&v6, ports(sport)).get()));
        }
    }
    assert!(used.iter().all(|(_, port)| *port >= 0xc000));
    // 4,096 balls in 16,384 bins of a family: 3,624 of them are hit by chance.
    assert!(used.len() > 2 * 3_500, "{}", used.len());
}
