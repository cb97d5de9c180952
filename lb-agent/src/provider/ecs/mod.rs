//! Amazon ECS: services behind a classic ELB, an NLB or an ALB become VIPs of the same name and port, and so do those
//! that ask by a tag or label `lb.vip`.
//!
//! ECS cannot be watched, only asked, at once where a queue tells of a change (`events`). Every few seconds the tasks
//! are listed and described (`reader`), less often what changes less often: services, hosts, load balancers. An answer
//! that is incomplete counts as none, so that the last good state stays. What AWS says is translated at the edge
//! (`aws`) to a small model (`model`); everything from there to pools is pure (`build`).

mod api;
mod asking;
mod aws;
mod backends;
mod build;
mod events;
mod fronts;
mod model;
mod reader;
mod side;
mod waits;
mod watcher;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::sync::mpsc;

pub use self::{
    events::{Ear, hear},
    watcher::Timings,
};

use super::{Asked, ProviderId, Snapshot, Update};

/// The name space of its VIPs.
const FRAMEWORK: &str = "ecs";

/// What to read, and how.
#[derive(Clone, Debug)]
pub struct EcsConfig {
    /// Name or ARN.
    pub cluster: String,
    /// `None`: that of the cluster's ARN, else what the environment, the profile or the instance says.
    pub region: Option<String>,
    /// Where all services of AWS are asked instead of at Amazon's; `None`: there, or where `AWS_ENDPOINT_URL` says.
    pub endpoint: Option<String>,
    /// Addresses of hosts that are no EC2 instances, by id (`mi-...`).
    pub hosts: BTreeMap<String, IpAddr>,
    /// Domains in which DNS knows VIPs by name, in lower case: load balancers have their own host names there.
    pub domains: BTreeSet<String>,
    /// Times of the watcher.
    pub timings: Timings,
}

/// Asks about one cluster and sends an [`Update`] for every reading and every failure; sooner when `ear` hears of a
/// change. Ends when `tx` is closed.
pub async fn run(config: EcsConfig, tx: mpsc::Sender<Update>, asked: Asked, ear: Ear) {
    watcher::watch(&config, &tx, asked, ear).await;
}

// === impl EcsConfig ===

impl EcsConfig {
    /// Everything as AWS's own tools find it.
    pub fn new(cluster: &str) -> Self {
        Self {
            cluster: cluster.to_owned(),
            region: None,
            endpoint: None,
            hosts: BTreeMap::new(),
            domains: BTreeSet::new(),
            timings: Timings::default(),
        }
    }

    /// How the provider is called: `ecs:hello-world-cluster`.
    pub fn id(&self) -> ProviderId {
        ProviderId::new("ecs", &self.cluster)
    }

    /// The cluster's name, whatever was given.
    fn name(&self) -> &str {
        model::last(&self.cluster)
    }

    /// The region that was given, be it as a part of the ARN.
    fn region(&self) -> Option<&str> {
        let of_arn = || {
            let mut parts = self.cluster.split(':');
            (parts.next() == Some("arn"))
                .then(|| parts.nth(2))
                .flatten()
        };
        self.region.as_deref().or_else(of_arn)
    }

    fn update(&self, outcome: Result<Arc<Snapshot>, String>) -> Update {
        Update {
            provider: self.id(),
            at: SystemTime::now(),
            outcome,
        }
    }
}

/// The longest that one request may take.
const DEADLINE: Duration = Duration::from_secs(10);
