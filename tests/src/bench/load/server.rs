//! The server: every thread listens on every port and answers on its own.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::{Domain, Protocol, Socket, Type};

use super::{HEADER, QUESTION, poll::Poll};

/// Connections that may wait to be accepted on one port.
const BACKLOG: i32 = 4096;

/// Bytes given to the kernel at once.
const CHUNK: usize = 128 << 10;

/// A client.
struct Visitor {
    stream: TcpStream,
    from: IpAddr,
    /// Bytes that are still to be sent; `None` before the question.
    left: Option<u64>,
}

/// Opens all listeners, of every thread, and starts to answer.
///
/// # Errors
///
/// A port cannot be had.
pub fn start(at: &[SocketAddr], threads: usize) -> Result<()> {
    for _ in 0..threads {
        let listeners: Vec<TcpListener> = at
            .iter()
            .map(|at| listener(*at).with_context(|| format!("cannot listen at {at}")))
            .collect::<Result<_>>()?;
        thread::spawn(move || {
            if let Err(error) = answer_all(&listeners) {
                eprintln!("the server ended: {error}");
            }
        });
    }
    Ok(())
}

fn listener(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn answer_all(listeners: &[TcpListener]) -> io::Result<()> {
    let mut poll = Poll::new()?;
    for (number, listener) in listeners.iter().enumerate() {
        poll.listen(listener, number)?;
    }
    let first = listeners.len();
    let mut visitors: Vec<Option<Visitor>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let chunk = vec![b'.'; CHUNK];
    loop {
        let ready: Vec<usize> = poll.wait(Duration::from_secs(60))?.collect();
        for number in ready {
            if let Some(listener) = listeners.get(number) {
                // A connection that was reset while it waited is the client's affair.
                let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
                let Ok((stream, Some(from))) = acceptfrom_with(listener, flags) else {
                    continue;
                };
                let (stream, from) = (TcpStream::from(stream), SocketAddr::try_from(from)?);
                let slot = free.pop().unwrap_or(visitors.len());
                if slot == visitors.len() {
                    visitors.push(None);
                }
                poll.watch(&stream, first + slot)?;
                visitors[slot] = Some(Visitor {
                    stream,
                    from: from.ip().to_canonical(),
                    left: None,
                });
                continue;
            }
            let slot = number - first;
            let Some(visitor) = &mut visitors[slot] else {
                continue;
            };
            match visitor.serve(&chunk) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(()) => {}
                Err(_gone) => {
                    visitors[slot] = None;
                    free.push(slot);
                }
            }
        }
    }
}

// === impl Visitor ===

impl Visitor {
    /// Goes on as far as it can. An error other than `WouldBlock`: the client is gone.
    fn serve(&mut self, chunk: &[u8]) -> io::Result<()> {
        let gone = || io::Error::from(io::ErrorKind::ConnectionAborted);
        let mut question = [0; QUESTION];
        match self.left {
            None => {
                if self.stream.read(&mut question)? != QUESTION {
                    return Err(gone());
                }
                let wanted = u64::from_le_bytes(question);
                self.left = Some(self.begin(wanted)?);
            }
            // Nothing more is ever asked: this is the client's end.
            Some(0) => {
                self.stream.read_exact(&mut question)?;
                return Err(gone());
            }
            Some(_) => {}
        }
        while let Some(left @ 1..) = self.left {
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            let sent = self.stream.write(&chunk[..length])?;
            self.left = Some(left - sent as u64);
        }
        Ok(())
    }

    /// The header with as much as goes along in one segment; returns what is left.
    fn begin(&mut self, wanted: u64) -> io::Result<u64> {
        const FIRST: usize = 1024;
        let from = match self.from {
            IpAddr::V4(addr) => addr.to_ipv6_mapped(),
            IpAddr::V6(addr) => addr,
        };
        let along = usize::try_from(wanted).unwrap_or(FIRST).min(FIRST);
        let mut answer = [b'.'; HEADER + FIRST];
        answer[..HEADER].copy_from_slice(&from.octets());
        // A fresh connection has room for this.
        self.stream.write_all(&answer[..HEADER + along])?;
        Ok(wanted - along as u64)
    }
}
