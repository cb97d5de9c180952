//! Which ports of this host something listens at, in the network namespace of the thread that asks.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::catalog::Protocol;

/// A socket that takes connections or datagrams of anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its protocol.
    pub protocol: Protocol,
    /// Where it is bound; an unspecified address is any of the host's, `::` mostly of both families.
    pub at: SocketAddr,
}

/// Each file with its protocol and the state that it shows of a listener (`include/net/tcp_states.h`).
const FILES: [(&str, Protocol, &str); 4] = [
    ("/proc/thread-self/net/tcp", Protocol::Tcp, LISTEN),
    ("/proc/thread-self/net/tcp6", Protocol::Tcp, LISTEN),
    ("/proc/thread-self/net/udp", Protocol::Udp, UNCONNECTED),
    ("/proc/thread-self/net/udp6", Protocol::Udp, UNCONNECTED),
];
const LISTEN: &str = "0A";
/// `TCP_CLOSE`: a UDP socket without a peer.
const UNCONNECTED: &str = "07";

/// Every listener.
///
/// # Errors
/// When the kernel's list cannot be read.
pub fn listeners() -> io::Result<Vec<Listener>> {
    let mut found = Vec::new();
    for (path, protocol, listens) in FILES {
        let file = match File::open(path) {
            Ok(file) => file,
            // The kernel knows no IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for line in BufReader::new(file).lines().skip(1) {
            let line = line?;
            let Some((at, state)) = parse(&line) else {
                continue;
            };
            if state == listens {
                found.push(Listener { protocol, at });
            } else if protocol == Protocol::Tcp {
                // Connections, of which there may be many, come after all listeners (`tcp_get_idx` in
                // net/ipv4/tcp_ipv4.c).
                break;
            }
        }
    }
    Ok(found)
}

// === impl Listener ===

impl Listener {
    /// Whether it would get what is sent to this port of one of these addresses.
    pub fn takes(
        &self,
        protocol: Protocol,
        port: u16,
        mut addresses: impl Iterator<Item = IpAddr>,
    ) -> bool {
        let ip = self.at.ip().to_canonical();
        self.protocol == protocol
            && self.at.port() == port
            && (ip.is_unspecified() || addresses.any(|addr| addr == ip))
    }
}

/// Where a socket is bound, and its state, of a line such as `0: 0100007F:0035 00000000:0000 0A ...`.
fn parse(line: &str) -> Option<(SocketAddr, &str)> {
    let mut fields = line.split_ascii_whitespace();
    let (addr, port) = fields.nth(1)?.split_once(':')?;
    let state = fields.nth(1)?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Words in memory order, each printed as a number.
    let word = |i: usize| {
        let word = u32::from_str_radix(addr.get(8 * i..8 * i + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let ip = match addr.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut octets = [0; 16];
            for (i, chunk) in octets.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(i)?);
            }
            IpAddr::V6(Ipv6Addr::from(octets))
        }
        _ => return None,
    };
    Some((SocketAddr::new(ip, port), state))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn a_listener_is_found_and_a_connection_of_its_is_not() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = tcp.local_addr().unwrap();
        let client = TcpStream::connect(at).unwrap();
        let found = listeners().unwrap();
        let is = |addr| {
            let one = Listener {
                protocol: Protocol::Tcp,
                at: addr,
            };
            found.contains(&one)
        };
        assert!(is(at));
        assert!(!is(client.local_addr().unwrap()));
        drop(tcp);
        assert!(!listeners().unwrap().iter().any(|one| one.at == at));
    }

    #[test]
    fn a_udp_socket_listens_until_it_has_a_peer() {
        let udp = UdpSocket::bind("[::1]:0").unwrap();
        let at = udp.local_addr().unwrap();
        let one = Listener {
            protocol: Protocol::Udp,
            at,
        };
        assert!(listeners().unwrap().contains(&one));
        udp.connect("[::1]:9").unwrap();
        assert!(!listeners().unwrap().contains(&one));
    }

    #[test]
    fn a_socket_takes_what_is_sent_to_its_address_or_to_any() {
        let node: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let takes = |at: &str, protocol, port| {
            let listener = Listener {
                protocol: Protocol::Tcp,
                at: at.parse().unwrap(),
            };
            listener.takes(protocol, port, node.into_iter())
        };
        for at in [
            "0.0.0.0:80",
            "[::]:80",
            "10.0.0.1:80",
            "[::ffff:10.0.0.1]:80",
        ] {
            assert!(takes(at, Protocol::Tcp, 80), "{at}");
            assert!(!takes(at, Protocol::Tcp, 81), "{at}");
            assert!(!takes(at, Protocol::Udp, 80), "{at}");
        }
        for at in ["127.0.0.1:80", "[::1]:80", "10.0.0.2:80"] {
            assert!(!takes(at, Protocol::Tcp, 80), "{at}");
        }
    }
}
