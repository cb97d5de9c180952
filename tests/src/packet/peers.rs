//! Packets between peers, and what the agent would have written of peers.

use std::net::{IpAddr, SocketAddr};

use aya::maps::Array;
use etherparse::{IpNumber, Ipv4Header, Ipv6Header, PacketBuilder, TcpOptionElement};
use lb_common::{
    Addr4, Addr6, Address as _, Be16, LocalKey, NodeConfig, Peer, headers::ETH_LEN, port_flag,
};

use super::{Frame, Rig, Segment, Transport};

/// Port of Geneve (RFC 8926 section 3.3).
const PORT: u16 = 6081;

/// What stands before a packet on its way to a peer; every field as our agents make it, until a test changes it.
#[derive(Clone, Debug)]
pub struct Shim {
    /// The sender's address.
    pub src: IpAddr,
    /// The peer's address.
    pub dst: IpAddr,
    /// The backend that the option names.
    pub backend: SocketAddr,
    /// UDP source port.
    pub sport: u16,
    /// Traffic class, ECN bits included.
    pub class: u8,
    /// Version and length of options.
    pub first: Option<u8>,
    /// Control bits.
    pub control: u8,
    /// EtherType of what is inside.
    pub ethertype: Option<u16>,
    /// The network.
    pub vni: u32,
    /// The option's class.
    pub option: u16,
    /// The option's type.
    pub kind: Option<u8>,
}

impl Shim {
    /// From a sender to a peer, for a backend.
    pub fn new(src: IpAddr, dst: IpAddr, backend: SocketAddr) -> Self {
        Self {
            src,
            dst,
            backend,
            sport: 50_000,
            class: if src.is_ipv6() { 0x20 } else { 0 },
            first: None,
            control: 0x40,
            ethertype: None,
            vni: 0x4c42,
            option: 0xff4c,
            kind: None,
        }
    }

    /// Bytes before the packet inside.
    pub fn len(&self) -> usize {
        if self.src.is_ipv6() { 80 } else { 48 }
    }

    /// It is never empty.
    pub fn is_empty(&self) -> bool {
        false
    }

    fn geneve(&self) -> Vec<u8> {
        let (words, kind, ethertype, addr) = match self.backend.ip() {
            IpAddr::V4(addr) => (2, 0x81, 0x0800_u16, addr.octets().to_vec()),
            IpAddr::V6(addr) => (5, 0x82, 0x86dd, addr.octets().to_vec()),
        };
        let mut bytes = vec![self.first.unwrap_or(words + 1), self.control];
        bytes.extend(self.ethertype.unwrap_or(ethertype).to_be_bytes());
        bytes.extend((self.vni << 8).to_be_bytes());
        bytes.extend(self.option.to_be_bytes());
        bytes.extend([self.kind.unwrap_or(kind), words]);
        bytes.extend(addr);
        bytes.extend(self.backend.port().to_be_bytes());
        bytes.extend([0, 0]);
        bytes
    }

    /// A frame with the packet of another frame inside, between the same stations.
    pub fn around(&self, frame: &[u8]) -> Vec<u8> {
        let (ethernet, inner) = frame.split_at(ETH_LEN);
        let geneve = self.geneve();
        let len = (8 + geneve.len() + inner.len()) as u16;
        let mut bytes = ethernet[..12].to_vec();
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let mut ip =
                    Ipv4Header::new(len, 64, IpNumber::UDP, src.octets(), dst.octets()).unwrap();
                ip.dont_fragment = true;
                ip.dscp = (self.class >> 2).try_into().unwrap();
                ip.ecn = (self.class & 3).try_into().unwrap();
                ip.header_checksum = ip.calc_header_checksum();
                bytes.extend([0x08, 0x00]);
                ip.write(&mut bytes).unwrap();
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let ip = Ipv6Header {
                    traffic_class: self.class,
                    payload_length: len,
                    next_header: IpNumber::UDP,
                    hop_limit: 64,
                    source: src.octets(),
                    destination: dst.octets(),
                    ..Ipv6Header::default()
                };
                bytes.extend([0x86, 0xdd]);
                ip.write(&mut bytes).unwrap();
            }
            families => panic!("addresses of two families: {families:?}"),
        }
        bytes.extend(self.sport.to_be_bytes());
        bytes.extend(PORT.to_be_bytes());
        bytes.extend(len.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(geneve);
        bytes.extend(inner);
        bytes
    }
}

impl Frame {
    /// The bytes of a SYN-ACK with a maximum segment size behind so many bytes of padding.
    pub fn with_mss(&self, mss: u16, padding: usize) -> Vec<u8> {
        let Transport::Tcp(segment @ (Segment::SynAck | Segment::Syn)) = self.transport else {
            panic!("only the first segments have one")
        };
        let mut options = vec![TcpOptionElement::Noop; padding];
        options.extend([
            TcpOptionElement::MaximumSegmentSize(mss),
            TcpOptionElement::WindowScale(7),
        ]);
        let mut tcp = self.tcp(segment);
        tcp.set_options(&options).unwrap();
        let mut bytes = Vec::new();
        PacketBuilder::ethernet2(self.macs.0, self.macs.1)
            .ip(self.ip())
            .tcp_header(tcp)
            .write(&mut bytes, &[])
            .unwrap();
        bytes
    }
}

impl Rig {
    /// Says that a backend's host is a peer, by this interface and next hop.
    pub fn peer(&mut self, id: u32, addr: IpAddr, ifindex: u32, next_hop: u16) {
        let peer = Peer {
            addr: wide(addr),
            ifindex,
            next_hop,
            family: if addr.is_ipv6() { 6 } else { 4 },
            pad: 0,
        };
        let mut map: Array<_, Peer> = self.map("LB_PEERS");
        map.set(id, peer, 0).unwrap();
    }

    /// Says that a backend's host is a peer no more.
    pub fn no_peer(&mut self, id: u32) {
        let mut map: Array<_, Peer> = self.map("LB_PEERS");
        map.set(id, Peer::default(), 0).unwrap();
    }

    /// Takes packets from a peer, which has this index.
    pub fn sender(&mut self, addr: IpAddr, index: u32) {
        match addr {
            IpAddr::V4(addr) => self.hash("LB_SENDERS4").insert(Addr4::from(addr), index, 0),
            IpAddr::V6(addr) => self.hash("LB_SENDERS6").insert(Addr6::from(addr), index, 0),
        }
        .unwrap();
        let mut map: Array<_, Addr6> = self.map("LB_SENDERS");
        map.set(index, wide(addr), 0).unwrap();
        self.node_port(PORT, port_flag::PEERS);
    }

    /// Takes none from it any more.
    pub fn no_sender(&mut self, addr: IpAddr, index: u32) {
        match addr {
            IpAddr::V4(addr) => self
                .hash::<_, u32>("LB_SENDERS4")
                .remove(&Addr4::from(addr)),
            IpAddr::V6(addr) => self
                .hash::<_, u32>("LB_SENDERS6")
                .remove(&Addr6::from(addr)),
        }
        .unwrap();
        let mut map: Array<_, Addr6> = self.map("LB_SENDERS");
        map.set(index, Addr6::default(), 0).unwrap();
    }

    /// A backend of this node that peers may name for a service.
    pub fn local(&mut self, service: u32, at: SocketAddr, id: u32) {
        let key = LocalKey {
            addr: wide(at.ip()),
            service,
            port: Be16::new(at.port()),
            family: if at.is_ipv6() { 6 } else { 4 },
        };
        self.hash("LB_LOCALS").insert(key, id, 0).unwrap();
    }

    /// The longest packet that comes from any peer.
    pub fn peer_mtu(&mut self, peer_mtu: u16) {
        let mut map: Array<_, NodeConfig> = self.map("LB_NODE");
        let node = map.get(&0, 0).unwrap();
        map.set(0, NodeConfig { peer_mtu, ..node }, 0).unwrap();
    }
}

fn wide(addr: IpAddr) -> Addr6 {
    match addr {
        IpAddr::V4(addr) => Addr4::from(addr).widen(),
        IpAddr::V6(addr) => addr.into(),
    }
}
