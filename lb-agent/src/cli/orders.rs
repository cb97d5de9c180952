//! `drain`, `maintenance`, `ready`, `weight`, `health`, `reset` and `release`.

use std::{io::Write, path::Path};

use clap::{Args, ValueEnum};

use super::{CliError, client, render};

const HOW: &str = "The backend: ADDR:PORT or [ADDR]:PORT, an address for all that listen there, or the id of its task";

/// Which backends.
#[derive(Args, Clone, Debug)]
pub struct WhichArgs {
    /// The backend.
    #[arg(
        value_name = "BACKEND",
        help = HOW,
        required_unless_present = "node",
        conflicts_with = "node"
    )]
    pub backend: Option<String>,
    /// All backends that are on this node
    #[arg(long)]
    pub node: bool,
    /// Only as a backend of this service: its name or address as `status` shows it, with :PORT or without
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<String>,
}

/// What is taken out, and until when its connections may go on.
#[derive(Args, Clone, Debug)]
pub struct OutArgs {
    /// Which.
    #[command(flatten)]
    pub which: WhichArgs,
    /// Reset the connections that are left after so many seconds [default: they may go on for ever]
    #[arg(long, value_name = "SECONDS")]
    pub deadline: Option<u64>,
}

/// A backend and its weight.
#[derive(Args, Clone, Debug)]
pub struct WeightArgs {
    /// The backend.
    #[arg(value_name = "BACKEND", help = HOW)]
    pub backend: String,
    /// Its share of new connections, 0 to 256; `lb-agent ready` gives back what its orchestrator says
    #[arg(value_name = "N", value_parser = clap::value_parser!(u16).range(0..=256))]
    pub weight: u16,
    /// Only as a backend of this service: its name or address as `status` shows it, with :PORT or without
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<String>,
}

/// A backend and how it is.
#[derive(Args, Clone, Debug)]
pub struct HealthArgs {
    /// The backend.
    #[arg(value_name = "BACKEND", help = HOW)]
    pub backend: String,
    /// How it is
    #[arg(value_enum)]
    pub state: State,
    /// Only as a backend of this service: its name or address as `status` shows it, with :PORT or without
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<String>,
}

/// How a backend is.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum State {
    /// It takes new connections
    Up,
    /// It takes no new connections and keeps those that it has
    Stopping,
    /// It takes no new connections, and those that it has are reset
    Down,
}

type Query = Vec<(&'static str, String)>;

// === impl WhichArgs ===

impl WhichArgs {
    pub(super) fn query(&self) -> Query {
        let Self {
            backend,
            node,
            service,
        } = self;
        let pairs = [
            ("backend", backend.clone()),
            ("node", node.then(|| "true".to_owned())),
            ("service", service.clone()),
        ];
        let said = pairs
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)));
        said.collect()
    }
}

impl OutArgs {
    pub(super) fn query(&self) -> Query {
        let deadline = self
            .deadline
            .map(|seconds| ("deadline", seconds.to_string()));
        self.which.query().into_iter().chain(deadline).collect()
    }
}

impl WeightArgs {
    pub(super) fn query(&self) -> Query {
        let Self {
            backend,
            weight,
            service,
        } = self;
        let service = service.clone().map(|service| ("service", service));
        [("backend", backend.clone()), ("weight", weight.to_string())]
            .into_iter()
            .chain(service)
            .collect()
    }
}

impl HealthArgs {
    pub(super) fn query(&self) -> Query {
        let Self {
            backend,
            state,
            service,
        } = self;
        let state = match state {
            State::Up => "up",
            State::Stopping => "stopping",
            State::Down => "down",
        };
        let service = service.clone().map(|service| ("service", service));
        [("backend", backend.clone()), ("state", state.to_owned())]
            .into_iter()
            .chain(service)
            .collect()
    }
}

/// Gives an order, and prints what then holds.
pub(super) fn order(
    socket: &Path,
    page: &str,
    query: &Query,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    for line in client::order(socket, page, query)? {
        writeln!(out, "{}", render::plain(&line))?;
    }
    Ok(())
}
