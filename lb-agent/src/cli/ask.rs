//! The flags of `flows` and `explain`.

use std::net::SocketAddr;

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
