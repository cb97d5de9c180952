//! Sockets that DNS listens on, opened here or by systemd.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
};

use anyhow::{Context as _, bail};
use socket2::{Domain, Protocol, Socket, Type};

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
        let mut sockets = Self::default();
        for &addr in listen {
            let udp = open(addr, Type::DGRAM).map_err(|error| explain(addr, "UDP", &error))?;
            let udp = UdpSocket::from(udp);
            let addr = udp
                .local_addr()
                .context("cannot read a DNS socket's address")?;
            let tcp = open(addr, Type::STREAM).map_err(|error| explain(addr, "TCP", &error))?;
            sockets.udp.push(udp);
            sockets.tcp.push(tcp.into());
        }
        sockets.check()
    }

    /// Sockets that somebody else opened (`ListenDatagram=`, `ListenStream=`), so that queries wait in them
    /// while the agent restarts.
    pub fn adopt(udp: Vec<UdpSocket>, tcp: Vec<TcpListener>) -> anyhow::Result<Self> {
        Self { udp, tcp }.check()
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
        assert!(Sockets::adopt(vec![udp], Vec::new()).is_err());
    }
}
