//! The flags of `flows`, `explain`, `trace` and `capture`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

use crate::look::{LIMIT, MOST, Spot};

/// Which flows are shown; all that is given must hold.
#[derive(Args, Clone, Debug, Default)]
pub struct FlowsArgs {
    /// Only those to this VIP
    #[arg(long, value_name = "ADDR[:PORT]")]
    pub vip: Option<Spot>,
    /// Only those of this client
    #[arg(long, value_name = "ADDR[:PORT]")]
    pub client: Option<Spot>,
    /// Only those that are carried to this backend
    #[arg(long, value_name = "ADDR[:PORT]")]
    pub backend: Option<Spot>,
    /// Only those to this service, as `status` names it; :PORT may follow
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// Show so many of them [default: 1000, at most 100000]
    #[arg(long, value_name = "N", value_parser = limit)]
    pub limit: Option<usize>,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Which flow is asked about.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// The client's address and port
    #[arg(value_name = "CLIENT:PORT", value_parser = place)]
    pub client: SocketAddr,
    /// The VIP's address and port, of the same family
    #[arg(value_name = "VIP:PORT", value_parser = place)]
    pub vip: SocketAddr,
    /// A flow of UDP, not TCP
    #[arg(long)]
    pub udp: bool,
    /// The client is a process on this node, in the agent's network namespace
    #[arg(long)]
    pub local: bool,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// Which packets and calls are followed; all that is given must hold.
#[derive(Args, Clone, Debug, Default)]
pub struct TraceArgs {
    /// Only those for this VIP: its address, or its service as `status` names it
    #[arg(long, value_name = "ADDR[:PORT]|NAME[:PORT]")]
    pub vip: Option<String>,
    /// Only those of this client, or of clients in this prefix; a process of this node has no address yet
    #[arg(long, value_name = "ADDR|CIDR")]
    pub client: Option<String>,
    /// Only those of which this was counted, such as no_service; `status` lists what there is
    #[arg(long, value_name = "REASON")]
    pub reason: Option<String>,
    /// Of packets that go on as those of their flow before, show one in N; decisions are all shown
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub sample: Option<u32>,
    /// End after so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End after so long
    #[arg(long = "for", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub seconds: Option<u64>,
}

/// What is captured, and where to.
#[derive(Args, Clone, Debug, Default)]
pub struct CaptureArgs {
    /// Which packets.
    #[command(flatten)]
    pub which: TraceArgs,
    /// Write the packets to this file; `-` is standard output, also where it is no terminal and -w is left out
    #[arg(short = 'w', long = "write", value_name = "FILE|-")]
    pub file: Option<PathBuf>,
    /// Keep so many bytes of each packet, at most 2047 [default: 256]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=lb_common::SNAP_MAX as i64))]
    pub snap: Option<u32>,
}

fn place(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse()
        .map_err(|_| "not ADDRESS:PORT, which for IPv6 is [ADDRESS]:PORT")
}

fn limit(text: &str) -> Result<usize, String> {
    let number = text.parse().ok();
    number
        .filter(|limit| (1..=MOST).contains(limit))
        .ok_or_else(|| format!("not a number from 1 to {MOST}"))
}

// === impl FlowsArgs ===

impl FlowsArgs {
    /// As the agent is asked: names and values.
    pub(super) fn query(&self) -> Vec<(&'static str, String)> {
        let Self {
            vip,
            client,
            backend,
            service,
            limit,
            json: _,
        } = self;
        let spot = |name, spot: &Option<Spot>| spot.map(|spot| (name, spot.to_string()));
        [
            spot("vip", vip),
            spot("client", client),
            spot("backend", backend),
            service.clone().map(|name| ("service", name)),
            Some(("limit", limit.unwrap_or(LIMIT).to_string())),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

// === impl TraceArgs ===

impl TraceArgs {
    /// As the agent is asked: names and values.
    pub(super) fn query(&self) -> Vec<(&'static str, String)> {
        let Self {
            vip,
            client,
            reason,
            sample,
            count: _,
            seconds: _,
        } = self;
        [
            vip.clone().map(|vip| ("vip", vip)),
            client.clone().map(|client| ("client", client)),
            reason.clone().map(|reason| ("reason", reason)),
            sample.map(|sample| ("sample", sample.to_string())),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

// === impl CaptureArgs ===

impl CaptureArgs {
    /// As the agent is asked: names and values.
    pub(super) fn query(&self) -> Vec<(&'static str, String)> {
        let mut query = self.which.query();
        query.extend(self.snap.map(|snap| ("snap", snap.to_string())));
        query
    }
}

// === impl ExplainArgs ===

impl ExplainArgs {
    /// As the agent is asked: names and values.
    pub(super) fn query(&self) -> Vec<(&'static str, String)> {
        let Self {
            client,
            vip,
            udp,
            local,
            json: _,
        } = self;
        let protocol = if *udp { "udp" } else { "tcp" };
        vec![
            ("client", client.to_string()),
            ("vip", vip.to_string()),
            ("protocol", protocol.to_owned()),
            ("local", local.to_string()),
        ]
    }
}
