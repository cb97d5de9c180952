//! A client that asks over and over and counts who answered: a process, so that cgroup hooks see it.

use std::{
    collections::BTreeMap,
    io,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// The payload of a datagram; its echo ends the answer.
const PAYLOAD: &str = "marco";

/// How finely times to connect are told apart, in microseconds.
const STEP_US: u64 = 100;

/// How to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// A new TCP connection with one HTTP request each time.
    Tcp,
    /// As `Tcp`, from an IPv6 socket to an IPv4 address as `::ffff:a.b.c.d`.
    TcpMapped,
    /// A new TCP connection each time that takes a greeting of two bytes. The client closes it, so its port stays taken
    /// towards that server for a minute.
    Greeting,
    /// A new UDP socket each time, connected.
    Udp,
    /// A new UDP socket each time, not connected: `sendto`, `recvfrom`.
    UdpUnconnected,
    /// As `UdpUnconnected`, from an IPv6 socket to `::ffff:a.b.c.d`.
    UdpMapped,
}

/// What to ask, and how often.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `NAME:PORT` or `ADDRESS:PORT`; resolved anew each time.
    pub to: String,
    /// Take only IPv6 addresses of the name; else only IPv4.
    pub ipv6: bool,
    /// How to ask.
    pub mode: Mode,
    /// How often; `None` goes on until told to stop.
    pub count: Option<u64>,
    /// Pause between two questions.
    pub pause: Duration,
    /// How long one question may take.
    pub within: Duration,
    /// UDP questions come from this port, the next, and so on, so that each is a flow of its own: a port used
    /// again within a minute would belong to the flow before. 0 leaves it to the kernel, which does that.
    pub first_port: u16,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Questions answered.
    pub answered: u64,
    /// Questions not answered, or wrongly.
    pub failed: u64,
    /// Who answered how often, by the first line of the answer.
    pub by_answer: BTreeMap<String, u64>,
    /// What the client saw as its peer (`getpeername`, or the source of the datagram), how often.
    pub by_peer: BTreeMap<String, u64>,
    /// What the server saw as the client's address, without port, how often.
    pub by_client: BTreeMap<String, u64>,
    /// Failures by reason, how often.
    pub errors: BTreeMap<String, u64>,
    /// The longest time to an answer, in microseconds.
    pub slowest_us: u64,
    /// The sum of all times to an answer, in microseconds.
    pub total_us: u64,
    /// How long `connect()` took for TCP questions that were answered, in whole steps of 100 microseconds, how often.
    pub connects: BTreeMap<u64, u64>,
}

struct Answer {
    text: String,
    peer: SocketAddr,
    /// How long `connect()` took, where there is a handshake.
    connected: Option<Duration>,
}

// === impl Outcome ===

impl Outcome {
    /// The share of questions that the most frequent answerer took, 0 to 1; 0 without answers.
    pub fn largest_share(&self) -> f64 {
        let largest = self.by_answer.values().max().copied().unwrap_or(0);
        if self.answered == 0 {
            0.0
        } else {
            largest as f64 / self.answered as f64
        }
    }

    /// What 99 of 100 calls of `connect()` did not exceed, to 100 microseconds; `None` if there were none.
    pub fn connect_p99(&self) -> Option<Duration> {
        let mut longer = self.connects.values().sum::<u64>() / 100;
        for (steps, calls) in self.connects.iter().rev() {
            match longer.checked_sub(*calls) {
                Some(left) => longer = left,
                None => return Some(Duration::from_micros((steps + 1) * STEP_US)),
            }
        }
        None
    }

    fn count(&mut self, asked: Result<Answer>, took: Duration) {
        match asked {
            Ok(Answer {
                text,
                peer,
                connected,
            }) => {
                let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
                let took = us(took);
                if let Some(connected) = connected {
                    *self.connects.entry(us(connected) / STEP_US).or_default() += 1;
                }
                self.answered += 1;
                self.slowest_us = self.slowest_us.max(took);
                self.total_us += took;
                let mut lines = text.lines();
                let first = lines.next().unwrap_or_default();
                *self.by_answer.entry(first.to_owned()).or_default() += 1;
                *self.by_peer.entry(peer.to_string()).or_default() += 1;
                let client = lines.next().and_then(|line| line.strip_prefix("client "));
                if let Some(client) = client.and_then(|at| at.parse::<SocketAddr>().ok()) {
                    *self.by_client.entry(client.ip().to_string()).or_default() += 1;
                }
            }
            Err(error) => {
                self.failed += 1;
                *self.errors.entry(format!("{error:#}")).or_default() += 1;
            }
        }
    }
}

// === impl Plan ===

impl Plan {
    /// Asks until the count is reached or `stop` turns true.
    pub fn carry_out(&self, stop: &AtomicBool) -> Outcome {
        let mut outcome = Outcome::default();
        let mut asked = 0;
        while self.count.is_none_or(|count| asked < count) && !stop.load(Ordering::Relaxed) {
            let start = Instant::now();
            outcome.count(self.ask(asked), start.elapsed());
            asked += 1;
            thread::sleep(self.pause);
        }
        outcome
    }

    fn ask(&self, number: u64) -> Result<Answer> {
        let to = self.resolve()?;
        match self.mode {
            Mode::Tcp | Mode::TcpMapped => self.ask_http(to),
            Mode::Greeting => self.be_greeted(to),
            Mode::Udp => self.ask_udp(to, true, number),
            Mode::UdpUnconnected | Mode::UdpMapped => self.ask_udp(to, false, number),
        }
    }

    fn source_port(&self, number: u64) -> u16 {
        match self.first_port {
            0 => 0,
            first => first.wrapping_add((number & 0xffff) as u16).max(1),
        }
    }

    fn resolve(&self) -> Result<SocketAddr> {
        let mut found = self
            .to
            .to_socket_addrs()
            .with_context(|| format!("no address of {}", self.to))?;
        let to = found
            .find(|at| at.is_ipv6() == self.ipv6)
            .with_context(|| format!("no address of the right family for {}", self.to))?;
        let mapped = matches!(self.mode, Mode::TcpMapped | Mode::UdpMapped);
        Ok(match to.ip() {
            IpAddr::V4(v4) if mapped => SocketAddr::new(v4.to_ipv6_mapped().into(), to.port()),
            _ => to,
        })
    }

    /// A connection, and how long `connect()` took.
    fn connect(&self, to: SocketAddr) -> Result<(TcpStream, Duration)> {
        let began = Instant::now();
        let stream = TcpStream::connect_timeout(&to, self.within).context("connect")?;
        let took = began.elapsed();
        stream.set_read_timeout(Some(self.within))?;
        Ok((stream, took))
    }

    fn ask_http(&self, to: SocketAddr) -> Result<Answer> {
        let (mut stream, connected) = self.connect(to)?;
        let peer = stream.peer_addr().context("getpeername")?;
        stream
            .write_all(b"GET / HTTP/1.0\r\n\r\n")
            .context("write")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("read")?;
        let (_, body) = answer
            .split_once("\r\n\r\n")
            .context("an answer without a body")?;
        Ok(Answer {
            text: body.to_owned(),
            peer,
            connected: Some(connected),
        })
    }

    fn be_greeted(&self, to: SocketAddr) -> Result<Answer> {
        let (mut stream, connected) = self.connect(to)?;
        let peer = stream.peer_addr().context("getpeername")?;
        let mut greeting = [0; 2];
        stream.read_exact(&mut greeting).context("read")?;
        Ok(Answer {
            text: String::from_utf8_lossy(&greeting).into_owned(),
            peer,
            connected: Some(connected),
        })
    }

    fn ask_udp(&self, to: SocketAddr, connected: bool, number: u64) -> Result<Answer> {
        let any: IpAddr = if to.is_ipv6() {
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        let socket = UdpSocket::bind((any, self.source_port(number))).context("bind")?;
        socket.set_read_timeout(Some(self.within))?;
        let mut buffer = [0; 2048];
        let (length, peer) = if connected {
            socket.connect(to).context("connect")?;
            socket.send(PAYLOAD.as_bytes()).context("send")?;
            let length = uninterrupted(|| socket.recv(&mut buffer)).context("recv")?;
            (length, socket.peer_addr().context("getpeername")?)
        } else {
            socket.send_to(PAYLOAD.as_bytes(), to).context("sendto")?;
            uninterrupted(|| socket.recv_from(&mut buffer)).context("recvfrom")?
        };
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if !text.ends_with(PAYLOAD) {
            bail!("an answer without its question: {text:?}");
        }
        Ok(Answer {
            text,
            peer,
            connected: None,
        })
    }
}

/// Asks again after a signal: the one that ends the probe must not cost it an answer that is on its way.
fn uninterrupted<T>(mut receive: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match receive() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_peers_and_failures_are_counted_apart() {
        let mut outcome = Outcome::default();
        let peer = "11.0.0.1:80".parse().unwrap();
        let text = "Running on node 'a' and port '1'\nclient 10.0.0.1:4000\n".to_owned();
        let answer = Answer {
            text: text.clone(),
            peer,
            connected: Some(Duration::from_micros(2)),
        };
        outcome.count(Ok(answer), Duration::from_micros(3));
        let answer = Answer {
            text,
            peer,
            connected: None,
        };
        outcome.count(Ok(answer), Duration::from_micros(5));
        outcome.count(Err(anyhow::anyhow!("refused")), Duration::ZERO);
        assert_eq!((outcome.answered, outcome.failed), (2, 1));
        assert_eq!((outcome.slowest_us, outcome.total_us), (5, 8));
        assert_eq!(outcome.connects, [(0, 1)].into());
        assert_eq!(outcome.by_peer.get("11.0.0.1:80"), Some(&2));
        assert_eq!(outcome.by_client.get("10.0.0.1"), Some(&2));
        assert!((outcome.largest_share() - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn one_connection_of_a_hundred_may_take_longer() {
        let of = |connects: &[(u64, u64)]| Outcome {
            connects: connects.iter().copied().collect(),
            ..Outcome::default()
        };
        let us = |us| Some(Duration::from_micros(us));
        assert_eq!(of(&[]).connect_p99(), None);
        assert_eq!(of(&[(0, 99), (10_000, 1)]).connect_p99(), us(100));
        assert_eq!(of(&[(0, 98), (10_000, 2)]).connect_p99(), us(1_000_100));
        assert_eq!(of(&[(3, 1)]).connect_p99(), us(400));
    }
}
