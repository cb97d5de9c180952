//! A frame as a test describes it; etherparse makes the bytes.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, IpFragOffset, IpHeaders, IpNumber,
    Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader,
    PacketBuilder, TcpHeader, VlanHeader,
};

/// MAC address of the node as clients see it.
const NODE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// MAC address of whoever sends to the node.
const SENDER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0xc1];
const ETH_LEN: usize = 14;
/// Odd on purpose: the last byte of a checksum is the one that gets forgotten.
const PAYLOAD: &[u8] = b"what is the capital of Assyria?";

/// What a TCP segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Opens a connection.
    Syn,
    /// The answer to it.
    SynAck,
    /// Data and acknowledgement.
    Ack,
    /// The sender has no more data.
    Fin,
    /// Abort.
    Rst,
}

/// The transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp(Segment),
    /// UDP.
    Udp,
    /// UDP whose sender made no checksum.
    UdpUnsummed,
}

/// An Ethernet frame that carries one TCP segment or UDP datagram.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Sender and receiver.
    pub macs: ([u8; 6], [u8; 6]),
    /// VLAN ids, outermost first; at most two.
    pub tags: Vec<u16>,
    /// Source.
    pub src: SocketAddr,
    /// Destination.
    pub dst: SocketAddr,
    /// What it carries.
    pub transport: Transport,
    /// IPv4 options.
    pub options: Vec<u8>,
    /// IPv6 extension headers.
    pub extensions: Box<Ipv6Extensions>,
    /// IPv4 fragment offset in units of 8 bytes, and whether more follow.
    pub ipv4_fragment: (u16, bool),
    /// Time to live, hop limit.
    pub ttl: u8,
    /// The bytes above the transport header.
    pub payload: Vec<u8>,
}

// === impl Frame ===

impl Frame {
    /// A plain frame from a neighbour to the node.
    pub fn new(src: SocketAddr, dst: SocketAddr, transport: Transport) -> Self {
        let payload = match transport {
            Transport::Tcp(Segment::Syn | Segment::SynAck | Segment::Rst) => &[],
            _ => PAYLOAD,
        };
        Self {
            macs: (SENDER_MAC, NODE_MAC),
            tags: Vec::new(),
            src,
            dst,
            transport,
            options: Vec::new(),
            extensions: Box::default(),
            ipv4_fragment: (0, false),
            ttl: 61,
            payload: payload.to_vec(),
        }
    }

    /// The same from another source.
    #[must_use]
    pub fn from(self, src: SocketAddr) -> Self {
        Self { src, ..self }
    }

    /// The same to another destination.
    #[must_use]
    pub fn to(self, dst: SocketAddr) -> Self {
        Self { dst, ..self }
    }

    /// The same between other stations.
    #[must_use]
    pub fn between(self, src: [u8; 6], dst: [u8; 6]) -> Self {
        Self {
            macs: (src, dst),
            ..self
        }
    }

    /// The same after it passed a router.
    #[must_use]
    pub fn forwarded(self) -> Self {
        Self {
            ttl: self.ttl - 1,
            ..self
        }
    }

    /// The same with options in its IPv4 header, or a header of them behind that of IPv6.
    #[must_use]
    pub fn with_options(mut self) -> Self {
        // Nothing but padding (RFC 791 section 3.1, RFC 8200 section 4.2).
        self.options = vec![1; 8];
        let padding = Ipv6RawExtHeader::new_raw(IpNumber::TCP, &[1, 4, 0, 0, 0, 0]);
        self.extensions.hop_by_hop_options = Some(padding.unwrap());
        self
    }

    /// A fragment: offset in units of 8 bytes, and whether more follow.
    #[must_use]
    pub fn fragment(mut self, (offset, more): (u16, bool)) -> Self {
        if self.dst.is_ipv6() {
            self.extensions.fragment = Some(Ipv6FragmentHeader::new(
                IpNumber::TCP,
                IpFragOffset::try_new(offset).unwrap(),
                more,
                0x0bad_cafe,
            ));
        } else {
            self.ipv4_fragment = (offset, more);
        }
        self
    }

    /// An echo request between the same addresses.
    pub fn as_ping(&self) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(self.macs.0, self.macs.1).ip(self.ip());
        let mut bytes = Vec::new();
        if self.dst.is_ipv6() {
            builder.icmpv6_echo_request(1, 1).write(&mut bytes, PAYLOAD)
        } else {
            builder.icmpv4_echo_request(1, 1).write(&mut bytes, PAYLOAD)
        }
        .unwrap();
        bytes
    }

    /// The reply to an echo request between other stations.
    pub fn as_pong(&self) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(self.macs.0, self.macs.1).ip(self.ip());
        let mut bytes = Vec::new();
        if self.dst.is_ipv6() {
            builder.icmpv6_echo_reply(1, 1).write(&mut bytes, PAYLOAD)
        } else {
            builder.icmpv4_echo_reply(1, 1).write(&mut bytes, PAYLOAD)
        }
        .unwrap();
        bytes
    }

    /// The sender as the receiver, and the other way round.
    #[must_use]
    pub fn turned(self) -> Self {
        Self {
            macs: (self.macs.1, self.macs.0),
            src: self.dst,
            dst: self.src,
            ..self
        }
    }

    /// A part of a packet of these addresses that holds no transport header: offset in units of 8 bytes,
    /// and whether more follow.
    pub fn later_fragment(&self, place: (u16, bool), proto: u8) -> Vec<u8> {
        let ip = self.clone().fragment(place).ip();
        let mut bytes = Vec::new();
        PacketBuilder::ethernet2(self.macs.0, self.macs.1)
            .ip(ip)
            .write(&mut bytes, IpNumber(proto), PAYLOAD)
            .unwrap();
        bytes
    }

    /// An ARP request of `src` for `dst`, both IPv4.
    pub fn arp(src: SocketAddr, dst: SocketAddr) -> Vec<u8> {
        let octets = |at: SocketAddr| match at.ip() {
            IpAddr::V4(addr) => addr.octets(),
            IpAddr::V6(addr) => panic!("there is no ARP for {addr}"),
        };
        let packet = ArpPacket::new(
            ArpHardwareId::ETHERNET,
            EtherType::IPV4,
            ArpOperation::REQUEST,
            &SENDER_MAC,
            &octets(src),
            &[0; 6],
            &octets(dst),
        )
        .unwrap();
        let mut bytes = Vec::new();
        PacketBuilder::ethernet2(SENDER_MAC, [0xff; 6])
            .arp(packet)
            .write(&mut bytes)
            .unwrap();
        bytes
    }

    /// The bytes, every length and checksum right.
    pub fn bytes(&self) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(self.macs.0, self.macs.1);
        let ip = self.ip();
        let builder = match self.tags[..] {
            [] => builder.ip(ip),
            [id] => builder.vlan(single(id)).ip(ip),
            [outer, inner] => builder
                .double_vlan(outer.try_into().unwrap(), inner.try_into().unwrap())
                .ip(ip),
            _ => panic!("a frame has at most two tags"),
        };
        let mut bytes = Vec::new();
        match self.transport {
            Transport::Tcp(segment) => builder
                .tcp_header(self.tcp(segment))
                .write(&mut bytes, &self.payload),
            Transport::Udp | Transport::UdpUnsummed => builder
                .udp(self.src.port(), self.dst.port())
                .write(&mut bytes, &self.payload),
        }
        .unwrap();
        if self.transport == Transport::UdpUnsummed {
            let checksum = bytes.len() - self.payload.len() - 2;
            bytes[checksum..checksum + 2].fill(0);
        }
        bytes
    }

    /// The bytes, with the packet inside another one between these addresses (RFC 2003, RFC 2473).
    pub fn inside(&self, src: IpAddr, dst: IpAddr) -> Vec<u8> {
        let inner = &self.bytes()[ETH_LEN..];
        let mut bytes = [self.macs.1, self.macs.0].concat();
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let len = inner.len() as u16;
                let mut header =
                    Ipv4Header::new(len, 64, IpNumber::IPV4, src.octets(), dst.octets()).unwrap();
                header.dont_fragment = true;
                header.header_checksum = header.calc_header_checksum();
                bytes.extend([0x08, 0x00]);
                header.write(&mut bytes).unwrap();
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let header = Ipv6Header {
                    payload_length: inner.len() as u16,
                    next_header: IpNumber::IPV6,
                    hop_limit: 64,
                    source: src.octets(),
                    destination: dst.octets(),
                    ..Ipv6Header::default()
                };
                bytes.extend([0x86, 0xdd]);
                header.write(&mut bytes).unwrap();
            }
            families => panic!("addresses of two families: {families:?}"),
        }
        bytes.extend(inner);
        bytes
    }

    pub(super) fn tcp(&self, segment: Segment) -> TcpHeader {
        let mut header = TcpHeader::new(self.src.port(), self.dst.port(), 0x1234_5678, 64_240);
        header.syn = matches!(segment, Segment::Syn | Segment::SynAck);
        header.ack = matches!(segment, Segment::SynAck | Segment::Ack | Segment::Fin);
        header.fin = segment == Segment::Fin;
        header.rst = segment == Segment::Rst;
        if header.ack {
            header.acknowledgment_number = 0x9abc_def0;
        }
        header
    }

    pub(super) fn ip(&self) -> IpHeaders {
        match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let mut header =
                    Ipv4Header::new(0, self.ttl, IpNumber::TCP, src.octets(), dst.octets())
                        .unwrap();
                header.identification = 0x0bad;
                header.dont_fragment = false;
                header.options = self.options[..].try_into().unwrap();
                header.fragment_offset = IpFragOffset::try_new(self.ipv4_fragment.0).unwrap();
                header.more_fragments = self.ipv4_fragment.1;
                IpHeaders::Ipv4(header, Ipv4Extensions::default())
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let header = Ipv6Header {
                    traffic_class: 0x20,
                    flow_label: 0x12345.try_into().unwrap(),
                    hop_limit: self.ttl,
                    source: src.octets(),
                    destination: dst.octets(),
                    ..Ipv6Header::default()
                };
                IpHeaders::Ipv6(header, (*self.extensions).clone())
            }
            families => panic!("addresses of two families: {families:?}"),
        }
    }
}

fn single(id: u16) -> VlanHeader {
    VlanHeader::Single(etherparse::SingleVlanHeader {
        vlan_id: id.try_into().unwrap(),
        ..etherparse::SingleVlanHeader::default()
    })
}
