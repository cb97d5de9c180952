//! Docker Engine: containers and Compose projects become named VIPs, by our labels (`labels`) and by what users of
//! dockercloud/haproxy already have (`compat`).
//!
//! The engine drops events for a reader that is slow and says nothing of it. So events only say what to look at, or what
//! must not wait (a container that is being stopped); what is true comes from looking (`watcher`, `client`), in full at
//! least every 30 s. A manager of a Swarm knows the tasks of all its nodes, and sends no events of them: they are asked for
//! (`swarm`). Everything from containers to pools is pure (`engine`, `swarm`, `build`).

mod build;
mod client;
mod compat;
pub(in crate::provider) mod container;
mod domains;
mod engine;
mod event;
pub(in crate::provider) mod labels;
mod places;
mod probes;
mod signal;
mod swarm;
mod transport;
mod version;
mod watcher;
mod wire;

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, sync::Arc, time::SystemTime};

use tokio::sync::mpsc;

pub use self::{compat::Balancer, watcher::Timings};

use super::{Asked, ProviderId, Update};

/// The name space of its VIPs, unless the operator says otherwise.
pub(crate) const FRAMEWORK: &str = crate::vip::OF_DOMAINS;

/// What to read, and how.
#[derive(Clone, Debug)]
pub struct DockerConfig {
    /// `unix:///var/run/docker.sock` or `tcp://HOST:PORT`.
    pub socket: Arc<str>,
    /// How an engine behind `tcp://` is known; `None`: it is spoken to in the clear.
    pub tls: Option<Tls>,
    /// The name space of its VIPs.
    pub framework: Arc<str>,
    /// Services that get a VIP although nothing about them asks for one: `service` or `project:service`.
    pub services: BTreeSet<String>,
    /// Whether every service that exposes a port gets one.
    pub expose_all: bool,
    /// Networks whose addresses count, the first that a container is on; empty: any.
    pub networks: Vec<String>,
    /// Whether this node reaches addresses on overlay networks of a Swarm, and on those of an engine on another node.
    pub overlay_reachable: bool,
    /// How long what is about to end keeps its flows, s, where no label says so; `None`: as long as they last.
    pub drain: Option<u32>,
    /// What was set on the balancer that users come from.
    pub compat: Balancer,
    /// Where containers in the node's own network are reached: at most one address of each family.
    pub node: Vec<IpAddr>,
    /// Times of the watcher.
    pub timings: Timings,
}

/// PEM files for TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The authority that signed the engine's certificate.
    pub ca_file: PathBuf,
    /// Our certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// Watches one engine and sends an [`Update`] for every change and every failure. Ends when `tx` is closed.
pub async fn run(config: DockerConfig, tx: mpsc::Sender<Update>, asked: Asked) {
    watcher::watch(&config, &tx, asked).await;
}

// === impl DockerConfig ===

impl DockerConfig {
    /// Labels alone decide, on any network.
    pub fn new(socket: &str) -> Self {
        Self {
            socket: socket.into(),
            tls: None,
            framework: FRAMEWORK.into(),
            services: BTreeSet::new(),
            expose_all: false,
            networks: Vec::new(),
            overlay_reachable: false,
            drain: None,
            compat: Balancer::default(),
            node: Vec::new(),
            timings: Timings::default(),
        }
    }

    /// How the provider is called: `docker:/var/run/docker.sock`.
    pub fn id(&self) -> ProviderId {
        let socket = self.socket.strip_prefix("unix://").unwrap_or(&self.socket);
        ProviderId::new("docker", socket)
    }

    fn update(&self, outcome: Result<Arc<super::Snapshot>, String>) -> Update {
        Update {
            provider: self.id(),
            at: SystemTime::now(),
            outcome,
        }
    }
}
