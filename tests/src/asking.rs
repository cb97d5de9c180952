//! Clients of tests and demo: programs in hosts that ask VIPs.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    ops::Range,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::{
    lab::{Host, Process, programs::program, wait_until},
    probe::Outcome,
    topology::ZONE,
};

/// Between two questions of a steady client.
const PAUSE_MS: &str = "10";

/// Source ports of the lab's clients: above those of servers, below those of the agent's own NAT.
const SOURCE_PORTS: Range<u32> = 33_000..61_000;

/// Source ports that a steady client gets: half a minute's.
const STEADY_PORTS: u32 = 3000;

/// A client that goes on asking until it is told to stop.
#[derive(Debug)]
pub struct Steady(Process);

/// A long download under way.
#[derive(Debug)]
pub struct Download {
    curl: Process,
    file: PathBuf,
    bytes: u64,
}

/// `NAME.ZONE:PORT`.
pub fn named(name: &str, port: u16) -> String {
    format!("{name}.{ZONE}:{port}")
}

/// Asks `to` (name or address, with port) `count` times, one after the other, from a process in `host`.
/// `flags` are the probe's: `--ipv6`, `--mode udp`.
///
/// # Errors
///
/// The probe cannot be run. Questions without an answer are counted, not errors.
pub fn ask(host: &Host, to: &str, count: u32, flags: &[&str]) -> Result<Outcome> {
    let (probe, first_port, count) = (program("probe")?, source_ports(count), count.to_string());
    let argv = [
        &[
            probe.as_str(),
            to,
            "--count",
            &count,
            "--first-port",
            &first_port,
        ],
        flags,
    ]
    .concat();
    let printed = host
        .run(&argv)?
        .ok()
        .with_context(|| format!("probe {to} on {}", host.name()))?;
    Ok(serde_json::from_str(&printed)?)
}

/// Checks that every question was answered, by `to` itself as the client sees it, and that the server saw
/// `client`.
///
/// # Errors
///
/// What was otherwise.
pub fn expect_all(outcome: &Outcome, to: SocketAddr, client: Option<IpAddr>) -> Result<()> {
    ensure!(
        outcome.failed == 0 && outcome.answered > 0,
        "not every question was answered: {outcome:?}"
    );
    let peers: Vec<_> = outcome.by_peer.keys().map(String::as_str).collect();
    ensure!(
        peers == [to.to_string()],
        "the client sees {peers:?} as its peer, not {to}"
    );
    if let Some(client) = client {
        let clients: Vec<_> = outcome.by_client.keys().map(String::as_str).collect();
        ensure!(
            clients == [client.to_string()],
            "the server sees {clients:?} as its client, not {client}"
        );
    }
    Ok(())
}

/// The first of `count` source ports that no client of this process had before, until all are used up.
fn source_ports(count: u32) -> String {
    static USED: AtomicU32 = AtomicU32::new(0);
    let Range { start, end } = SOURCE_PORTS;
    let (length, count) = (end - start, count.min(end - start));
    let used = USED.fetch_add(count, Ordering::Relaxed) % length;
    // A block that would run over the end begins anew.
    let first = if used + count > length {
        start
    } else {
        start + used
    };
    first.to_string()
}

// === impl Steady ===

impl Steady {
    /// Starts asking, a hundred times a second at most.
    ///
    /// # Errors
    ///
    /// The probe cannot be run.
    pub fn start(host: &Host, to: &str, flags: &[&str]) -> Result<Self> {
        let (probe, first_port) = (program("probe")?, source_ports(STEADY_PORTS));
        let own = [
            &probe,
            to,
            "--count",
            "0",
            "--pause",
            PAUSE_MS,
            "--first-port",
            &first_port,
        ];
        let argv = [&own, flags].concat();
        host.start("steady", &argv).map(Self)
    }

    /// Stops asking and says what came of it.
    ///
    /// # Errors
    ///
    /// The probe does not end.
    pub fn stop(mut self) -> Result<Outcome> {
        self.0.signal(Signal::TERM)?;
        Ok(serde_json::from_str(
            &self.0.finish(Duration::from_secs(10))?.ok()?,
        )?)
    }
}

// === impl Download ===

impl Download {
    /// Starts to fetch `bytes` at a million bytes a second, and returns once a good part has arrived.
    ///
    /// # Errors
    ///
    /// Nothing arrives.
    pub fn start(host: &Host, to: SocketAddr, bytes: u64) -> Result<Self> {
        let family = if to.is_ipv6() { 6 } else { 4 };
        let file = host.dir().join(format!("download-{family}-{}", to.port()));
        let url = format!("http://{to}/download?bytes={bytes}&rate=1000000");
        let out = file.display().to_string();
        let mut curl = host.start("curl", &["curl", "-sS", "-m", "50", "-o", &out, &url])?;
        wait_until("a part of the download", Duration::from_secs(10), || {
            size(&file) > bytes / 8 || curl.has_ended()
        })?;
        ensure!(!curl.has_ended(), "curl ended: {}", curl.stderr());
        Ok(Self { curl, file, bytes })
    }

    /// Whether there is more to come.
    pub fn goes_on(&mut self) -> bool {
        !self.curl.has_ended()
    }

    /// Waits for the rest.
    ///
    /// # Errors
    ///
    /// It broke off.
    pub fn finish(self) -> Result<()> {
        let Self { curl, file, bytes } = self;
        curl.finish(Duration::from_secs(60))?
            .ok()
            .context("the download broke off")?;
        ensure!(
            size(&file) == bytes,
            "{} of {bytes} bytes arrived",
            size(&file)
        );
        Ok(())
    }
}

fn size(file: &PathBuf) -> u64 {
    fs::metadata(file).map_or(0, |found| found.len())
}
