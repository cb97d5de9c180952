//! Orchestrator -> stream of full snapshots. Nothing else knows an orchestrator's JSON.
//!
//! A provider is a task that sends an [`Update`] whenever it has read its orchestrator, well or not.
//! It never sends part of a state: a [`Snapshot`] replaces the whole of what the provider said before.
//! On failure it sends the reason and the last good snapshot stays in force.

mod again;
mod backoff;
mod causes;
mod check;
pub mod docker;
mod documents;
#[cfg(feature = "ecs")]
pub mod ecs;
pub mod etcd;
pub mod file;
mod instant;
pub mod marathon;
mod pools;
mod shape;
mod values;

pub use self::again::{Again, Asked};
pub use self::pools::{PoolKey, Pools};
pub(crate) use self::values::drain;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::SystemTime,
};

use crate::catalog::{Drain, Port, Properties, Protocol, Weight};

/// Names one provider instance in logs, `status` and metrics: `file:/etc/lb-agent/services.yaml`,
/// `marathon:marathon`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProviderId(Arc<str>);

/// Under which name the operator's own servers are shown; no orchestrator's name is like it.
pub(crate) const OPERATOR: &str = "operator:servers";

/// One reading of an orchestrator.
#[derive(Clone, Debug)]
pub struct Update {
    /// Who read.
    pub provider: ProviderId,
    /// When the reading was complete.
    pub at: SystemTime,
    /// The whole state, or one sentence that says why it could not be read.
    pub outcome: Result<Arc<Snapshot>, String>,
}

/// Everything that a provider knows at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// One entry per declaration of a VIP; entries that name the same VIP are merged by the catalog.
    pub pools: Vec<Pool>,
    /// Further names of their VIPs.
    pub aliases: Vec<Alias>,
    /// What was left out, and why.
    pub problems: Vec<Problem>,
    /// Some part of the state was not read since the start: nothing that the provider made in an earlier life may
    /// be removed, though what it says is served.
    pub partial: bool,
}

/// The backends that one app declares for one VIP and protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The VIP as declared.
    pub host: VipHost,
    /// The VIP's port.
    pub port: Port,
    /// The VIP's protocol.
    pub protocol: Protocol,
    /// Who declares it: app id, pod id or the name in a services file.
    pub app: Arc<str>,
    /// What the VIP is to be like; `None`: the declaration does not say.
    pub properties: Option<Arc<Properties>>,
    /// Who is behind it; may be empty.
    pub backends: Vec<Backend>,
}

/// A further name of a VIP, which leads there as long as nobody declares a VIP of that name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alias {
    /// Who declares the VIP.
    pub app: Arc<str>,
    /// The further name, as a name is declared.
    pub name: Arc<str>,
    /// The VIP's own, likewise.
    pub of: Arc<str>,
    /// The framework (name space) that both live in.
    pub framework: Arc<str>,
}

/// The host part of a VIP, as declared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VipHost {
    /// A name, not yet mangled: `/dcos-101/app2` of framework `marathon`.
    Named {
        /// As written in the label.
        name: Arc<str>,
        /// The framework (name space) the name lives in.
        framework: Arc<str>,
    },
    /// A literal address (*IP VIP*); it has no DNS name.
    Addr(IpAddr),
}

/// One instance that can answer for a VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its share of new flows.
    pub weight: Weight,
    /// Flows at a time; 0: no limit.
    pub max_flows: u32,
    /// Used only while no other backend takes flows.
    pub backup: bool,
    /// The zone that it is in, if it is known.
    pub zone: Option<Arc<str>>,
    /// The orchestrator's id of the instance (task id).
    pub task: Arc<str>,
    /// What it is called below the VIP's name in DNS, if the orchestrator has a word for it.
    pub instance: Option<Arc<str>>,
    /// The host that it runs on, where that is known by another word than `addr`.
    pub host: Option<Arc<str>>,
    /// Its orchestrator checks it, and finds it well.
    pub healthy: bool,
    /// Why the weight is 0.
    pub draining: Option<Drain>,
}

/// Something that was left out of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// App id, or whatever names the culprit.
    pub subject: Arc<str>,
    /// One sentence: what is wrong with what.
    pub reason: String,
}

// === impl ProviderId ===

impl ProviderId {
    /// `kind:name`.
    pub fn new(kind: &str, name: impl fmt::Display) -> Self {
        Self(format!("{kind}:{name}").into())
    }

    /// Who stands for the operator's own servers.
    pub(crate) fn operator() -> Self {
        Self(OPERATOR.into())
    }

    /// Whether it is the operator, who is no orchestrator and is never read.
    pub(crate) fn is_operator(&self) -> bool {
        &*self.0 == OPERATOR
    }

    /// Whether it reads a services file, of which nobody but a person says what is in it.
    pub(crate) fn is_file(&self) -> bool {
        self.0.starts_with("file:")
    }

    /// Whether it knows where backends run, instead of being told by people, who may name any address.
    pub(crate) fn runs_backends(&self) -> bool {
        !self.is_file() && !self.0.starts_with("etcd:")
    }

    /// Whether its names stay while nothing is behind them: DC/OS has a name go with the last task, Docker with the
    /// last container, whatever state that is in.
    pub(crate) fn keeps_names(&self) -> bool {
        self.0.starts_with("docker:")
    }

    /// As shown to people.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&ProviderId> for Arc<str> {
    fn from(id: &ProviderId) -> Self {
        Self::clone(&id.0)
    }
}

impl fmt::Display for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
