//! Small servers for tests, inside a host's network, on threads of the test.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};

use super::Host;

/// How long a server takes to notice that it is to end.
const TICK: Duration = Duration::from_millis(50);

/// A server on a thread; stopped on drop.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

// === impl Server ===

impl Server {
    /// Sends every datagram back to where it came from, with `mark` before it.
    ///
    /// # Errors
    ///
    /// The address cannot be bound.
    pub fn udp_echo(host: &Host, at: SocketAddr, mark: &str) -> Result<Self> {
        let socket = host
            .enter(|| UdpSocket::bind(at))?
            .with_context(|| format!("UDP {at}"))?;
        socket.set_read_timeout(Some(TICK))?;
        let (address, mark) = (socket.local_addr()?, mark.as_bytes().to_vec());
        Ok(Self::run(address, move || {
            let mut buffer = vec![0; 65_536];
            if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&[&mark, &buffer[..length]].concat(), from);
            }
        }))
    }

    /// Accepts, writes `mark`, echoes until the client ends, and goes on to the next one meanwhile.
    ///
    /// # Errors
    ///
    /// The address cannot be bound.
    pub fn tcp_echo(host: &Host, at: SocketAddr, mark: &str) -> Result<Self> {
        let listener = host
            .enter(|| TcpListener::bind(at))?
            .with_context(|| format!("TCP {at}"))?;
        listener.set_nonblocking(true)?;
        let (address, mark) = (listener.local_addr()?, mark.as_bytes().to_vec());
        Ok(Self::run(address, move || match listener.accept() {
            Ok((mut stream, _)) => {
                let mark = mark.clone();
                thread::spawn(move || {
                    let _ = stream.set_nonblocking(false);
                    let _ = stream.write_all(&mark);
                    let mut buffer = [0; 16_384];
                    while let Ok(length @ 1..) = stream.read(&mut buffer) {
                        if stream.write_all(&buffer[..length]).is_err() {
                            break;
                        }
                    }
                });
            }
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }))
    }

    /// Where it listens; the port is known even if port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn run(address: SocketAddr, mut serve_one: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !asked.load(Ordering::Relaxed) {
                serve_one();
            }
        });
        Self {
            address,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
