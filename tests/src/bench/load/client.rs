//! The load: connections that are opened, asked once and closed over and over, or that take bytes for as long
//! as they may. A closed loop: each place has one connection at a time.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use super::{HEADER, cpu, poll::Poll};
use crate::bench::stats::percentile;

/// How soon a thread notices that it is to end.
const TICK: Duration = Duration::from_millis(10);

/// More failures than this end a load: it would measure nothing else.
const FAILURES: u64 = 100;

/// Bytes of a short answer; with its header it fits into one segment.
const SHORT: u64 = 112;

/// Bytes taken from the kernel at once.
const CHUNK: usize = 256 << 10;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Connect, one question, one answer, reset.
    Short,
    /// One long answer per connection.
    Bulk,
}

/// A load that stops by itself.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where to; connections take turns.
    pub to: Vec<SocketAddr>,
    /// What is asked.
    pub kind: Kind,
    /// Each with an epoll of its own.
    pub threads: usize,
    /// Connections at a time, over all threads.
    pub places: usize,
    /// Before anything counts.
    pub warm_up: Duration,
    /// What counts.
    pub measure: Duration,
}

/// What came of it, within the time that counts.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Outcome {
    /// Seconds that were measured.
    pub seconds: f64,
    /// Seconds that the machine's CPUs were busy meanwhile, summed over them.
    pub busy: f64,
    /// Connections that got their whole answer.
    pub connections: u64,
    /// Bytes of answers.
    pub bytes: u64,
    /// Connections that failed.
    pub failures: u64,
    /// The first failure.
    pub failure: Option<String>,
    /// As whom the server saw the connections, and how many of them.
    pub seen_as: BTreeMap<IpAddr, u64>,
    /// From `connect` to established, microseconds: median and 99th percentile.
    pub connect_us: [f64; 2],
    /// From question to answer, microseconds: median and 99th percentile.
    pub request_us: [f64; 2],
}

/// Whether the threads are to go on, and whether it counts.
#[derive(Default)]
struct Signals {
    stop: AtomicBool,
    counts: AtomicBool,
}

/// What one thread counted.
#[derive(Default)]
struct Counts {
    connections: u64,
    bytes: u64,
    failures: u64,
    failure: Option<String>,
    seen_as: BTreeMap<IpAddr, u64>,
    connect: Vec<f64>,
    request: Vec<f64>,
}

/// A connection under way.
struct Visit {
    stream: TcpStream,
    began: Instant,
    /// When the question was sent.
    asked: Option<Instant>,
    header: [u8; HEADER],
    got: u64,
}

// === impl Load ===

impl Load {
    /// Carries it out.
    ///
    /// # Errors
    ///
    /// A socket cannot be made, or nothing was counted: the error holds the first failure.
    pub fn carry_out(&self) -> Result<Outcome> {
        let signals = Signals::default();
        thread::scope(|scope| {
            let places = |thread| (self.places + self.threads - 1 - thread) / self.threads;
            let threads: Vec<_> = (0..self.threads)
                .map(|thread| {
                    let signals = &signals;
                    scope.spawn(move || self.thread(thread, places(thread), signals))
                })
                .collect();
            thread::sleep(self.warm_up);
            signals.counts.store(true, Relaxed);
            let (began, cpu) = (Instant::now(), cpu::Reading::now());
            thread::sleep(self.measure);
            let busy = cpu.and_then(|cpu| cpu.busy());
            signals.counts.store(false, Relaxed);
            let seconds = began.elapsed().as_secs_f64();
            signals.stop.store(true, Relaxed);
            let mut counts = Counts::default();
            for thread in threads {
                let one = thread.join().map_err(|_| anyhow!("a thread panicked"))?;
                counts.add(one.context("the load broke off")?);
            }
            counts.outcome(seconds, busy?)
        })
    }

    fn thread(&self, thread: usize, places: usize, signals: &Signals) -> io::Result<Counts> {
        let mut poll = Poll::new()?;
        let mut counts = Counts::default();
        let mut visits: Vec<Option<Visit>> = Vec::new();
        let mut turn = thread;
        let mut next = || {
            turn += 1;
            self.to[turn % self.to.len()]
        };
        for place in 0..places {
            visits.push(Some(Visit::begin(next(), &poll, place)?));
        }
        let mut chunk = vec![0; CHUNK];
        while !signals.stop.load(Relaxed) && counts.failures < FAILURES {
            let ready: Vec<usize> = poll.wait(TICK)?.collect();
            for place in ready {
                let Some(visit) = &mut visits[place] else {
                    continue;
                };
                let over = match visit.advance(self.kind, &mut chunk, signals, &mut counts) {
                    Ok(over) => over,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
                    Err(error) => {
                        counts.failures += 1;
                        counts.failure.get_or_insert_with(|| error.to_string());
                        true
                    }
                };
                if over {
                    // Closed, by a reset, before the next one is opened.
                    visits[place] = None;
                    visits[place] = Some(Visit::begin(next(), &poll, place)?);
                }
            }
        }
        Ok(counts)
    }
}

// === impl Visit ===

impl Visit {
    /// Starts to connect. It will be closed by a reset, as `SO_LINGER` of 0 asks: no end keeps the tuple in
    /// TIME_WAIT, so a long run does not slow itself down. The same for every way.
    fn begin(to: SocketAddr, poll: &Poll, place: usize) -> io::Result<Self> {
        let kind = Type::STREAM.nonblocking();
        let socket = Socket::new(Domain::for_address(to), kind, Some(Protocol::TCP))?;
        socket.set_linger(Some(Duration::ZERO))?;
        let began = Instant::now();
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        let stream = TcpStream::from(socket);
        poll.watch(&stream, place)?;
        Ok(Self {
            stream,
            began,
            asked: None,
            header: [0; HEADER],
            got: 0,
        })
    }

    /// Goes on as far as it can; whether it is over.
    fn advance(
        &mut self,
        kind: Kind,
        chunk: &mut [u8],
        signals: &Signals,
        counts: &mut Counts,
    ) -> io::Result<bool> {
        let asked = match self.asked {
            Some(asked) => asked,
            None => {
                let wanted = match kind {
                    Kind::Short => SHORT,
                    Kind::Bulk => u64::MAX / 2,
                };
                if let Some(error) = self.stream.take_error()? {
                    return Err(error);
                }
                let connected = Instant::now();
                // ENOTCONN here would be a spurious event before the handshake's end.
                match self.stream.write(&wanted.to_le_bytes()) {
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(false),
                    Err(error) => return Err(error),
                    Ok(_) => {}
                }
                if signals.counts.load(Relaxed) {
                    counts.connect.push(micros(connected - self.began));
                }
                self.asked = Some(connected);
                return Ok(false);
            }
        };
        loop {
            let length = self.stream.read(chunk)?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.take(&chunk[..length]);
            // A bulk load's headers come before the time that counts.
            if self.got == length as u64 {
                *counts.seen_as.entry(self.seen_as()).or_default() += 1;
            }
            if signals.counts.load(Relaxed) {
                counts.bytes += length as u64;
            }
            let whole = kind == Kind::Short && self.got == HEADER as u64 + SHORT;
            if whole {
                if signals.counts.load(Relaxed) {
                    counts.connections += 1;
                    counts.request.push(micros(asked.elapsed()));
                }
                return Ok(true);
            }
            // What is left comes with the next event; a full chunk says that there is more now.
            if length < chunk.len() || signals.stop.load(Relaxed) {
                return Ok(false);
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let had = usize::try_from(self.got).unwrap_or(HEADER).min(HEADER);
        let more = bytes.len().min(HEADER - had);
        self.header[had..had + more].copy_from_slice(&bytes[..more]);
        self.got += bytes.len() as u64;
    }

    fn seen_as(&self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from(self.header)).to_canonical()
    }
}

// === impl Counts ===

impl Counts {
    fn add(&mut self, other: Self) {
        let Self {
            connections,
            bytes,
            failures,
            failure,
            seen_as,
            connect,
            request,
        } = other;
        self.connections += connections;
        self.bytes += bytes;
        self.failures += failures;
        self.failure = self.failure.take().or(failure);
        for (peer, count) in seen_as {
            *self.seen_as.entry(peer).or_default() += count;
        }
        self.connect.extend(connect);
        self.request.extend(request);
    }

    fn outcome(self, seconds: f64, busy: f64) -> Result<Outcome> {
        let both = |values: &[f64]| [percentile(values, 0.5), percentile(values, 0.99)];
        if self.bytes == 0 {
            let why = self.failure.unwrap_or_else(|| "no answer".to_owned());
            return Err(anyhow!("nothing was carried: {why}"));
        }
        let finite = |values: [f64; 2]| values.map(|v| if v.is_finite() { v } else { 0.0 });
        Ok(Outcome {
            seconds,
            busy,
            connections: self.connections,
            bytes: self.bytes,
            failures: self.failures,
            failure: self.failure,
            seen_as: self.seen_as,
            connect_us: finite(both(&self.connect)),
            request_us: finite(both(&self.request)),
        })
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
