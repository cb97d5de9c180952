//! Packets as a pcapng file (draft-ietf-opsawg-pcapng): sections, interfaces, packets with a direction and a
//! comment, which the older pcap has no place for. Blocks are in this machine's byte order, which the
//! section's magic number tells.

use std::collections::BTreeMap;

/// A block's type, sections 4.1 to 4.6.
mod block {
    pub(super) const SECTION: u32 = 0x0a0d_0d0a;
    pub(super) const INTERFACE: u32 = 1;
    pub(super) const STATISTICS: u32 = 5;
    pub(super) const PACKET: u32 = 6;
}

/// An option's code within its block.
mod option {
    pub(super) const END: u16 = 0;
    pub(super) const COMMENT: u16 = 1;
    pub(super) const APPLICATION: u16 = 4;
    pub(super) const NAME: u16 = 2;
    pub(super) const RESOLUTION: u16 = 9;
    pub(super) const PACKET_FLAGS: u16 = 2;
    pub(super) const DROPPED: u16 = 5;
}

const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// Version 1.0, and a section of a length that is not known.
const VERSION: [u16; 2] = [1, 0];
const UNKNOWN_LENGTH: u64 = u64::MAX;
const ETHERNET: u16 = 1;
/// Time stamps in 10^-9 s.
const NANOSECONDS: u8 = 9;

/// Which way a packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// As a program was given it.
    Inbound = 1,
    /// As a program left it.
    Outbound = 2,
}

/// One packet.
#[derive(Clone, Copy, Debug)]
pub struct Captured<'a> {
    /// When, ns since 1970-01-01T00:00:00Z.
    pub time_ns: u64,
    /// Its first bytes, from the Ethernet header on.
    pub bytes: &'a [u8],
    /// Of all of it.
    pub len: u32,
    /// Which way it went.
    pub direction: Direction,
    /// Shown beside it.
    pub comment: &'a str,
}

/// Makes a file, piece by piece.
#[derive(Debug)]
pub struct Pcapng {
    snap: u32,
    /// Interfaces told of, with their number in the file.
    interfaces: BTreeMap<String, u32>,
}

// === impl Pcapng ===

impl Pcapng {
    /// For packets cut to so many bytes.
    pub fn new(snap: u32) -> Self {
        Self {
            snap,
            interfaces: BTreeMap::new(),
        }
    }

    /// What a file begins with.
    pub fn header(&self) -> Vec<u8> {
        let application = concat!("lb-agent ", env!("CARGO_PKG_VERSION"));
        let mut body = BYTE_ORDER_MAGIC.to_ne_bytes().to_vec();
        body.extend(VERSION.iter().flat_map(|part| part.to_ne_bytes()));
        body.extend(UNKNOWN_LENGTH.to_ne_bytes());
        put_option(&mut body, option::APPLICATION, application.as_bytes());
        put_option(&mut body, option::END, &[]);
        whole(block::SECTION, &body)
    }

    /// A packet at an interface, which is told of before its first one.
    pub fn packet(&mut self, interface: &str, packet: &Captured<'_>) -> Vec<u8> {
        let mut blocks = Vec::new();
        let next = self.interfaces.len() as u32;
        let number = *self
            .interfaces
            .entry(interface.to_owned())
            .or_insert_with(|| {
                blocks = described(interface, self.snap);
                next
            });
        let mut body = Vec::with_capacity(packet.bytes.len() + 128);
        put_place(&mut body, number, packet.time_ns);
        body.extend((packet.bytes.len() as u32).to_ne_bytes());
        body.extend(packet.len.to_ne_bytes());
        body.extend(packet.bytes);
        pad(&mut body);
        put_option(&mut body, option::COMMENT, packet.comment.as_bytes());
        let flags = packet.direction as u32;
        put_option(&mut body, option::PACKET_FLAGS, &flags.to_ne_bytes());
        put_option(&mut body, option::END, &[]);
        blocks.extend(whole(block::PACKET, &body));
        blocks
    }

    /// That so many packets in all could not be told; nothing before the first packet.
    pub fn lost(&self, time_ns: u64, total: u64) -> Vec<u8> {
        if self.interfaces.is_empty() {
            return Vec::new();
        }
        let mut body = Vec::new();
        put_place(&mut body, 0, time_ns);
        put_option(&mut body, option::DROPPED, &total.to_ne_bytes());
        put_option(&mut body, option::END, &[]);
        whole(block::STATISTICS, &body)
    }
}

/// How many of whole blocks at the start of these bytes are packets, and how many bytes they are; blocks are taken
/// up to `most` packets.
pub fn packets(bytes: &[u8], most: u64) -> (u64, usize) {
    let word = |at: usize| -> Option<u32> {
        let bytes = bytes.get(at..at + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let (mut found, mut end) = (0, 0);
    while found < most
        && let (Some(kind), Some(len)) = (word(end), word(end + 4))
        && len >= 12
        && end + len as usize <= bytes.len()
    {
        found += u64::from(kind == block::PACKET);
        end += len as usize;
    }
    (found, end)
}

fn described(interface: &str, snap: u32) -> Vec<u8> {
    let mut body = ETHERNET.to_ne_bytes().to_vec();
    body.extend([0; 2]);
    body.extend(snap.to_ne_bytes());
    put_option(&mut body, option::NAME, interface.as_bytes());
    put_option(&mut body, option::RESOLUTION, &[NANOSECONDS]);
    put_option(&mut body, option::END, &[]);
    whole(block::INTERFACE, &body)
}

fn put_place(body: &mut Vec<u8>, interface: u32, time_ns: u64) {
    body.extend(interface.to_ne_bytes());
    body.extend(((time_ns >> 32) as u32).to_ne_bytes());
    body.extend((time_ns as u32).to_ne_bytes());
}

fn put_option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(u16::MAX.into())];
    body.extend(code.to_ne_bytes());
    body.extend((value.len() as u16).to_ne_bytes());
    body.extend(value);
    pad(body);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

/// A block: its length stands before and behind the body.
fn whole(kind: u32, body: &[u8]) -> Vec<u8> {
    let len = (12 + body.len() as u32).to_ne_bytes();
    [&kind.to_ne_bytes(), len.as_slice(), body, &len].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_section_with_each_interface_before_its_packets() {
        let mut file = Pcapng::new(256);
        let packet = Captured {
            time_ns: (7 << 32) + 9,
            bytes: &[1, 2, 3, 4, 5],
            len: 60,
            direction: Direction::Outbound,
            comment: "sent",
        };
        let header = file.header();
        assert_eq!(packets(&header, 9), (0, header.len()));
        let first = file.packet("eth0", &packet);
        let again = file.packet("eth0", &packet);
        assert!(first.len() > again.len(), "the interface is told of once");
        assert_eq!(first[first.len() - again.len()..], again);
        assert_eq!(again.len() % 4, 0);
        let word = |at: usize| u32::from_ne_bytes(again[at..at + 4].try_into().unwrap());
        let words: Vec<_> = (0..7).map(|n| word(n * 4)).collect();
        let len = again.len() as u32;
        assert_eq!(words, [block::PACKET, len, 0, 7, 9, 5, 60]);
        assert_eq!(again[28..36], [1, 2, 3, 4, 5, 0, 0, 0]);
        assert_eq!(word(again.len() - 4), len);
        let all = [header, first.clone(), again].concat();
        assert_eq!(packets(&all, 9), (2, all.len()));
        assert_eq!(packets(&all[..all.len() - 1], 9).0, 1, "not whole yet");
        assert_eq!(packets(&all, 1).0, 1);
        assert!(!file.lost(1, 3).is_empty());
        assert!(Pcapng::new(1).lost(1, 3).is_empty());
    }
}
