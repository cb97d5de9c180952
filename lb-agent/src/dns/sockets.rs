//! Sockets that DNS listens on, opened here or by systemd.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
};

use anyhow::{Context as _, bail};
use socket2::{Domain, Protocol, Socket, Type};

use super::Inherited;

/// Open sockets, not yet served. Bind them before privileges are dropped.
#[derive(Debug, Default)]
pub struct Sockets {
    pub(super) udp: Vec<UdpSocket>,
    pub(super) tcp: Vec<TcpListener>,
}

// === impl Sockets ===

impl Sockets {
    /// UDP and TCP on each of `listen`; port 0 gives both the same free port.
    pub fn bind(listen: &[SocketAddr]) -> anyhow::Result<Self> {
        Self::open(listen, Inherited::default())
    }

    /// As [`Sockets::bind`], but takes those that were inherited instead of opening them. An inherited one that
    /// is not at one of these addresses is closed with a warning.
    pub fn open(listen: &[SocketAddr], mut inherited: Inherited) -> anyhow::Result<Self> {
        let mut sockets = Self::default();
        for &addr in listen {
            let udp = match inherited.udp(addr) {
                Some(udp) => udp,
                None => open(addr, Type::DGRAM)
                    .map_err(|error| explain(addr, "UDP", &error))?
                    .into(),
            };
            let addr = udp
                .local_addr()
                .context("cannot read a DNS socket's address")?;
            let tcp = match inherited.tcp(addr) {
                Some(tcp) => tcp,
                None => open(addr, Type::STREAM)
                    .map_err(|error| explain(addr, "TCP", &error))?
                    .into(),
            };
            sockets.udp.push(udp);
            sockets.tcp.push(tcp);
        }
        for addr in inherited.addresses() {
            tracing::warn!(
                "systemd passed a DNS socket on {addr}, where --dns-listen does not listen; nobody answers there: \
                 make lb-agent-dns.socket and --dns-listen agree"
            );
        }
        sockets.check()
    }

    /// Where they listen; each address once.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let udp = self.udp.iter().map(UdpSocket::local_addr);
        let tcp = self.tcp.iter().map(TcpListener::local_addr);
        let mut addresses: Vec<_> = udp.chain(tcp).filter_map(Result::ok).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    fn check(self) -> anyhow::Result<Self> {
        for addr in self.addresses() {
            if addr.ip().is_unspecified() {
                bail!(
                    "cannot listen for DNS on {addr}: replies would leave from whatever address is nearest \
                     to the client; name each address instead"
                );
            }
        }
        for socket in &self.udp {
            socket
                .set_nonblocking(true)
                .context("cannot use a UDP socket for DNS")?;
        }
        for socket in &self.tcp {
            socket
                .set_nonblocking(true)
                .context("cannot use a TCP socket for DNS")?;
        }
        Ok(self)
    }
}

fn open(addr: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), kind, None::<Protocol>)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        // Connections of the last run must not hold the port for a minute. Never on UDP, where two
        // processes would share it.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&addr.into())?;
    if kind == Type::STREAM {
        socket.listen(128)?;
    }
    Ok(socket)
}

fn explain(addr: SocketAddr, protocol: &str, error: &io::Error) -> anyhow::Error {
    let port = addr.port();
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another program listens there: on port 53 it is usually systemd-resolved, dnsmasq, unbound or \
             named (`ss -lnp 'sport = :{port}'` tells). Stop it, or give another address with --dns-listen"
        ),
        io::ErrorKind::AddrNotAvailable => {
            "no interface of this node has the address; add it, or give another with --dns-listen"
                .to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 take root or CAP_NET_BIND_SERVICE".to_owned()
        }
        _ => "give another address with --dns-listen".to_owned(),
    };
    anyhow::anyhow!("cannot listen for DNS on {addr} ({protocol}): {error}; {remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_in_use_is_named_with_the_remedy() {
        let held = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let addr = held.local_addr().expect("an address");
        let error = Sockets::bind(&[addr]).expect_err("in use").to_string();
        assert!(error.contains(&addr.to_string()), "{error}");
        assert!(
            error.contains("systemd-resolved") && error.contains("--dns-listen"),
            "{error}"
        );
    }

    #[test]
    fn an_address_of_another_host_is_named_with_the_remedy() {
        let error = Sockets::bind(&[addr("192.0.2.1:5353")])
            .expect_err("not ours")
            .to_string();
        assert!(
            error.contains("192.0.2.1:5353") && error.contains("no interface"),
            "{error}"
        );
    }

    #[test]
    fn a_wildcard_is_refused_however_it_comes() {
        let error = Sockets::bind(&[addr("0.0.0.0:0")])
            .expect_err("a wildcard")
            .to_string();
        assert!(error.contains("name each address"), "{error}");
        let udp = UdpSocket::bind("[::]:0").expect("a socket");
        let addr = udp.local_addr().expect("an address");
        let inherited = Inherited::of(vec![udp], Vec::new());
        assert!(Sockets::open(&[addr], inherited).is_err());
    }

    /// At a port that is free on TCP.
    fn udp() -> UdpSocket {
        let free = |udp: &UdpSocket| {
            let addr = udp.local_addr().expect("an address");
            TcpListener::bind(addr).is_ok()
        };
        let mut sockets = (0..50).map(|_| UdpSocket::bind("127.0.0.1:0").expect("a socket"));
        sockets.find(free).expect("a free port")
    }

    #[test]
    fn an_inherited_socket_is_taken_and_what_is_missing_is_opened() {
        let udp = udp();
        let addr = udp.local_addr().expect("an address");
        let stranger = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let elsewhere = stranger.local_addr().expect("an address");
        let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        client.send_to(b"waits", addr).expect("sent");

        let inherited = Inherited::of(vec![stranger, udp], Vec::new());
        assert!(inherited.has(addr) && inherited.has(elsewhere));
        let sockets = Sockets::open(&[addr], inherited).expect("both");
        assert_eq!(sockets.addresses(), [addr]);
        assert_eq!((sockets.udp.len(), sockets.tcp.len()), (1, 1));
        let mut buffer = [0; 8];
        let read = sockets.udp[0]
            .recv(&mut buffer)
            .expect("what was sent before");
        assert_eq!(&buffer[..read], b"waits");
        UdpSocket::bind(elsewhere).expect("the stranger was closed");
    }
}
