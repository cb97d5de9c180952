//! ICMP errors about a frame; etherparse makes the bytes.

use std::net::{IpAddr, SocketAddr};

use etherparse::{IpHeaders, PacketBuilder};

use super::{Frame, Transport};

/// What an error says of the packet that it quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody listens at the port.
    Unreachable,
    /// Nobody knows a way to the host.
    HostUnreachable,
    /// It is longer than this and must not be fragmented.
    TooBig(u16),
    /// No hop is left.
    TimeExceeded,
    /// A header field is wrong.
    ParameterProblem,
    /// No error at all: source quench, or a router solicitation.
    Other,
}

/// An error on its way.
#[derive(Clone, Debug)]
pub struct Error {
    /// Addresses, hops, options and extension headers of the error itself; what it carries is of no
    /// account.
    pub carrier: Frame,
    /// What it says.
    pub trouble: Trouble,
    /// The packet that it quotes, from the IP header on.
    pub quoted: Vec<u8>,
    /// Whether the node made it, with the header fields that it gives its own packets.
    pub by_node: bool,
}

// === impl Frame ===

impl Frame {
    /// What somebody on the way answers to this frame, quoting at most so many bytes behind the IP header.
    pub fn error(&self, by: IpAddr, trouble: Trouble, quoted: usize) -> Error {
        let bytes = self.bytes();
        let l3 = 14 + 4 * self.tags.len();
        let headers = match self.transport {
            Transport::Tcp(_) => 20,
            _ => 8,
        };
        let l4 = bytes.len() - self.payload.len() - headers;
        let end = bytes.len().min(l4 + quoted);
        Error {
            carrier: Frame::new(SocketAddr::new(by, 0), self.src, Transport::Udp),
            trouble,
            quoted: bytes[l3..end].to_vec(),
            by_node: false,
        }
    }
}

// === impl Error ===

impl Error {
    /// The same in another carrier.
    #[must_use]
    pub fn carried(mut self, change: impl FnOnce(Frame) -> Frame) -> Self {
        self.carrier = change(self.carrier);
        self
    }

    /// What the node itself sends back, in place of the frame that is quoted.
    pub fn of_node(frame: &Frame, trouble: Trouble) -> Self {
        // RFC 1812 section 4.3.2.3 and RFC 4443 section 2.4(c), in whole words.
        let (header, most) = if frame.dst.is_ipv6() {
            (40, 1280 - 48)
        } else {
            (20, 576 - 28)
        };
        let mut error = frame.error(frame.dst.ip(), trouble, most - header);
        error.quoted.truncate(most);
        error.quoted.truncate(error.quoted.len() & !3);
        error.by_node = true;
        error.carrier.ttl = 64;
        error.carrier.macs = (frame.macs.1, frame.macs.0);
        error
    }

    fn ip(&self) -> IpHeaders {
        let mut ip = self.carrier.ip();
        if self.by_node {
            match &mut ip {
                IpHeaders::Ipv4(header, _) => {
                    header.identification = 0;
                    header.dont_fragment = true;
                    // Class selector 6: internetwork control.
                    header.dscp = 48.try_into().unwrap();
                }
                IpHeaders::Ipv6(header, _) => {
                    header.traffic_class = 0;
                    header.flow_label = 0.try_into().unwrap();
                }
            }
        }
        ip
    }

    /// The bytes, every length and checksum right.
    pub fn bytes(&self) -> Vec<u8> {
        let (from, to) = self.carrier.macs;
        let builder = PacketBuilder::ethernet2(from, to).ip(self.ip());
        let mut bytes = Vec::new();
        let v6 = self.carrier.dst.is_ipv6();
        let (kind, code) = match (self.trouble, v6) {
            (Trouble::Unreachable, false) => (3, 3),
            (Trouble::Unreachable, true) => (1, 4),
            (Trouble::HostUnreachable, false) => (3, 1),
            (Trouble::HostUnreachable, true) => (1, 3),
            (Trouble::TooBig(_), false) => (3, 4),
            (Trouble::TooBig(_), true) => (2, 0),
            (Trouble::TimeExceeded, false) => (11, 0),
            (Trouble::TimeExceeded, true) => (3, 0),
            (Trouble::ParameterProblem, false) => (12, 0),
            (Trouble::ParameterProblem, true) => (4, 1),
            (Trouble::Other, false) => (4, 0),
            (Trouble::Other, true) => (133, 0),
        };
        let rest = match self.trouble {
            Trouble::TooBig(mtu) => u32::from(mtu).to_be_bytes(),
            _ => [0; 4],
        };
        if v6 {
            builder
                .icmpv6_raw(kind, code, rest)
                .write(&mut bytes, &self.quoted)
        } else {
            builder
                .icmpv4_raw(kind, code, rest)
                .write(&mut bytes, &self.quoted)
        }
        .unwrap();
        bytes
    }
}
