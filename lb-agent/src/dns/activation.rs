//! Sockets that systemd opened for us (`lb-agent-dns.socket`), so that queries wait in them while the agent
//! restarts.

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::{FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result, bail};
use rustix::net::{SocketType, sockopt};

/// What the service manager passed, sorted; nothing if it passed nothing.
#[derive(Debug, Default)]
pub struct Inherited {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
}

// === impl Inherited ===

impl Inherited {
    /// Takes over the descriptors that sd_listen_fds(3) tells of. To be called once, before anything is opened:
    /// their numbers are all that is known of them.
    ///
    /// # Errors
    ///
    /// If `LISTEN_FDS` tells of descriptors that are not there, or of what is no socket.
    pub fn take() -> Result<Self> {
        let mut inherited = Self::default();
        let passed = sd_notify::listen_fds().context("cannot use LISTEN_FDS")?;
        for number in passed {
            // SAFETY: LISTEN_PID names this process, so the descriptor was passed to it; sd-notify found it
            // open, and nothing else here has been opened or knows of it.
            #[allow(unsafe_code)]
            let fd = unsafe { OwnedFd::from_raw_fd(number) };
            inherited
                .sort(fd)
                .with_context(|| format!("cannot use descriptor {number} of LISTEN_FDS for DNS"))?;
        }
        Ok(inherited)
    }

    /// By the type of the socket.
    fn sort(&mut self, fd: OwnedFd) -> Result<()> {
        match sockopt::socket_type(&fd)? {
            SocketType::DGRAM => self.udp.push(fd.into()),
            SocketType::STREAM if sockopt::socket_acceptconn(&fd)? => self.tcp.push(fd.into()),
            _ => bail!("it is neither a datagram socket nor a listening stream socket"),
        }
        Ok(())
    }

    /// Whether there is a socket at this very address.
    pub fn has(&self, addr: SocketAddr) -> bool {
        self.addresses().contains(&addr)
    }

    pub(super) fn udp(&mut self, addr: SocketAddr) -> Option<UdpSocket> {
        let found = |socket: &UdpSocket| socket.local_addr().is_ok_and(|own| own == addr);
        let index = self.udp.iter().position(found)?;
        Some(self.udp.swap_remove(index))
    }

    pub(super) fn tcp(&mut self, addr: SocketAddr) -> Option<TcpListener> {
        let found = |socket: &TcpListener| socket.local_addr().is_ok_and(|own| own == addr);
        let index = self.tcp.iter().position(found)?;
        Some(self.tcp.swap_remove(index))
    }

    /// Where those listen that nobody took.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let udp = self.udp.iter().map(UdpSocket::local_addr);
        let tcp = self.tcp.iter().map(TcpListener::local_addr);
        udp.chain(tcp).filter_map(Result::ok).collect()
    }
}

#[cfg(test)]
impl Inherited {
    pub(super) fn of(udp: Vec<UdpSocket>, tcp: Vec<TcpListener>) -> Self {
        Self { udp, tcp }
    }
}
