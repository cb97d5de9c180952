//! Address, port, protocol: what makes a service, and what makes a backend.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use lb_common::{Addr4, Addr6, Address, Backend};

/// Where something answers.
///
/// Its text is the *backend string* that the Maglev tables are built from: `10.0.0.1:80/tcp`,
/// `[fd00::1]:53/udp` (IPv6 as in RFC 5952), the protocol's number where it is neither TCP nor UDP.
/// **The text never changes**: every node, of whatever version, must build the same table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The address; an IPv4 address is never written as `::ffff:a.b.c.d`.
    pub addr: IpAddr,
    /// Host byte order.
    pub port: u16,
    /// IP protocol number.
    pub proto: u8,
}

// === impl Endpoint ===

impl Endpoint {
    /// `::ffff:a.b.c.d` becomes `a.b.c.d`: both name one place. A scope id is dropped.
    pub fn new(addr: SocketAddr, proto: u8) -> Self {
        Self {
            addr: addr.ip().to_canonical(),
            port: addr.port(),
            proto,
        }
    }

    /// Who a backend of the kernel's array is; `None` for an entry that is no backend at all.
    pub fn of(backend: &Backend) -> Option<Self> {
        let addr = match backend.family {
            4 => IpAddr::V4(Addr4::narrow(&backend.addr).into()),
            6 => IpAddr::V6(backend.addr.into()),
            _ => return None,
        };
        Some(Self {
            addr,
            port: backend.port.get(),
            proto: backend.proto,
        })
    }

    /// 4 or 6.
    pub fn family(&self) -> u8 {
        match self.addr {
            IpAddr::V4(_) => 4,
            IpAddr::V6(_) => 6,
        }
    }

    /// The address as the kernel's structs hold it; an IPv4 address takes the first word.
    pub fn wide_addr(&self) -> Addr6 {
        Self::wide(self.addr)
    }

    /// Any address as the kernel's structs hold it.
    pub fn wide(addr: IpAddr) -> Addr6 {
        match addr {
            IpAddr::V4(addr) => Addr4::from(addr).widen(),
            IpAddr::V6(addr) => addr.into(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addr {
            IpAddr::V4(addr) => write!(f, "{addr}:{}/", self.port)?,
            IpAddr::V6(addr) => write!(f, "[{addr}]:{}/", self.port)?,
        }
        match self.proto {
            6 => f.write_str("tcp"),
            17 => f.write_str("udp"),
            other => write!(f, "{other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(addr: &str, proto: u8) -> String {
        Endpoint::new(addr.parse().unwrap(), proto).to_string()
    }

    #[test]
    fn the_backend_string_is_the_one_that_every_node_uses() {
        assert_eq!(text("10.0.0.1:80", 6), "10.0.0.1:80/tcp");
        assert_eq!(text("[FD00:0:0:0::1]:53", 17), "[fd00::1]:53/udp");
        assert_eq!(text("[fe80::1%3]:53", 17), "[fe80::1]:53/udp");
        assert_eq!(
            text("[2001:db8:0:1:1:1:1:1]:1", 132),
            "[2001:db8:0:1:1:1:1:1]:1/132"
        );
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        assert_eq!(text("[::ffff:10.0.0.1]:80", 6), "10.0.0.1:80/tcp");
    }
}
