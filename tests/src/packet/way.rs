//! The four ways a packet may come, and the addresses that every test uses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Frame, Segment, Transport};

/// A family and a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// IPv6, else IPv4.
    pub v6: bool,
    /// TCP, else UDP.
    pub tcp: bool,
}

// === impl Way ===

impl Way {
    /// TCP over IPv4.
    pub const V4_TCP: Self = Self::new(false, true);
    /// UDP over IPv4.
    pub const V4_UDP: Self = Self::new(false, false);
    /// TCP over IPv6.
    pub const V6_TCP: Self = Self::new(true, true);
    /// UDP over IPv6.
    pub const V6_UDP: Self = Self::new(true, false);

    const fn new(v6: bool, tcp: bool) -> Self {
        Self { v6, tcp }
    }

    /// IANA number of the protocol.
    pub const fn proto(self) -> u8 {
        if self.tcp { 6 } else { 17 }
    }

    fn addr(self, v4: [u8; 4], v6: [u16; 8]) -> IpAddr {
        if self.v6 {
            IpAddr::V6(Ipv6Addr::from(v6))
        } else {
            IpAddr::V4(Ipv4Addr::from(v4))
        }
    }

    /// A client outside, behind the gateway.
    pub fn client(self, n: u8) -> SocketAddr {
        let addr = self.addr([192, 0, 2, n], [0x2001, 0xdb8, 1, 0, 0, 0, 0, u16::from(n)]);
        SocketAddr::new(addr, 40_000)
    }

    /// A VIP and its port.
    pub fn vip(self, n: u8) -> SocketAddr {
        let addr = self.addr([11, 0, 0, n], [0xfd01, 0xc, 0, 0, 0, 0, 0, u16::from(n)]);
        SocketAddr::new(addr, 10_000)
    }

    /// An address that is nobody's here.
    pub fn stranger(self) -> SocketAddr {
        let addr = self.addr(
            [198, 51, 100, 7],
            [0x2001, 0xdb8, 0xdead, 0, 0, 0, 0, 0xbeef],
        );
        SocketAddr::new(addr, 10_000)
    }

    /// A backend on the first network.
    pub fn backend(self, n: u8) -> SocketAddr {
        let addr = self.addr([10, 1, 0, n], [0xfd00, 1, 0, 0, 0, 0, 0, u16::from(n)]);
        SocketAddr::new(addr, 8_080)
    }

    /// A backend on the second network.
    pub fn far_backend(self, n: u8) -> SocketAddr {
        let addr = self.addr([10, 2, 0, n], [0xfd00, 2, 0, 0, 0, 0, 0, u16::from(n)]);
        SocketAddr::new(addr, 8_080)
    }

    /// The node's own address.
    pub fn node(self) -> IpAddr {
        self.addr([10, 1, 0, 254], [0xfd00, 1, 0, 0, 0, 0, 0, 0x254])
    }

    /// The gateway to the clients, on the first network.
    pub fn gateway(self) -> IpAddr {
        self.addr([10, 1, 0, 253], [0xfd00, 1, 0, 0, 0, 0, 0, 0x253])
    }

    /// A backend on the node itself.
    pub fn host(self) -> SocketAddr {
        SocketAddr::new(self.node(), 8_080)
    }

    /// The first packet of a flow: a SYN, or a datagram.
    pub fn opening(self, src: SocketAddr, dst: SocketAddr) -> Frame {
        self.segment(src, dst, Segment::Syn)
    }

    /// A packet in the middle of a flow: an ACK with data, or a datagram.
    pub fn later(self, src: SocketAddr, dst: SocketAddr) -> Frame {
        self.segment(src, dst, Segment::Ack)
    }

    /// A packet; UDP has no kinds of them.
    pub fn segment(self, src: SocketAddr, dst: SocketAddr, segment: Segment) -> Frame {
        let transport = if self.tcp {
            Transport::Tcp(segment)
        } else {
            Transport::Udp
        };
        Frame::new(src, dst, transport)
    }
}
