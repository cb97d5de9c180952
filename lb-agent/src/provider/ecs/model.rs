//! What matters of a cluster, in our own words.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crate::catalog::{Check, Drain, Port, Protocol};

/// Everything that is known of a cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// By name; those that are deleted are not in it.
    pub(super) services: BTreeMap<Arc<str>, Service>,
    /// By ARN; those that run, start or stop.
    pub(super) tasks: BTreeMap<Arc<str>, Task>,
    /// By ARN.
    pub(super) definitions: BTreeMap<Arc<str>, Definition>,
    /// Definitions about which there is no answer, by ARN, and why: what has them waits.
    pub(super) unread: BTreeMap<Arc<str>, String>,
    /// Where container instances are reached, by ARN.
    pub(super) hosts: BTreeMap<Arc<str>, Asked<Vec<IpAddr>>>,
    /// Classic load balancers, by name.
    pub(super) classics: BTreeMap<Arc<str>, Asked<Classic>>,
    /// Target groups, by ARN.
    pub(super) groups: BTreeMap<Arc<str>, Asked<Group>>,
}

/// What came of asking about one thing. What was not answered for a passing reason is not there at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked<T> {
    /// It is so.
    Is(T),
    /// It does not exist, or we may not know; why.
    Refused(String),
}

/// A service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Service {
    /// What stands in front of it.
    pub(super) entries: Vec<Entry>,
    /// The same by task set, where those decide instead (CODE_DEPLOY, EXTERNAL).
    pub(super) sets: Option<BTreeMap<Arc<str>, Vec<Entry>>>,
    /// Tags.
    pub(super) tags: BTreeMap<String, String>,
    /// ARN of the current task definition; empty where there is none.
    pub(super) definition: Arc<str>,
    /// How long checks of its load balancers do not count for a new task, s.
    pub(super) grace: u32,
}

/// One entry of `loadBalancers[]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// What stands in front.
    pub(super) front: Front,
    /// The container behind it.
    pub(super) container: Arc<str>,
    /// That container's port.
    pub(super) port: Port,
}

/// What stands in front of a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Front {
    /// A classic load balancer, by name.
    Classic(Arc<str>),
    /// A target group, by ARN.
    Group(Arc<str>),
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Task {
    /// The service that it belongs to.
    pub(super) service: Option<Arc<str>>,
    /// Deployment or task set.
    pub(super) started_by: Arc<str>,
    /// ARN of its definition.
    pub(super) definition: Arc<str>,
    /// ARN of the host's registration; none for Fargate.
    pub(super) instance: Option<Arc<str>>,
    /// Where it is.
    pub(super) last: Last,
    /// Whether it is to stop.
    pub(super) stopping: bool,
    /// What the health checks of its containers say.
    pub(super) health: Health,
    /// The availability zone that it is in.
    pub(super) zone: Option<Arc<str>>,
    /// Addresses of its own (awsvpc).
    pub(super) addresses: BTreeSet<IpAddr>,
    /// By name.
    pub(super) containers: BTreeMap<Arc<str>, Container>,
}

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    /// PROVISIONING, PENDING.
    Starting,
    /// ACTIVATING.
    Activating,
    /// RUNNING.
    Running,
    /// DEACTIVATING, STOPPING.
    Stopping,
    /// DEPROVISIONING, STOPPED, DELETED, and words that nobody knows yet.
    Gone,
}

/// What health checks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// Nothing (yet).
    Unknown,
    /// It works.
    Healthy,
    /// It does not.
    Unhealthy,
}

/// A container of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Container {
    /// Its ports on the host.
    pub(super) bindings: BTreeSet<Binding>,
    /// Addresses of its own (awsvpc).
    pub(super) addresses: BTreeSet<IpAddr>,
}

/// A port of a container on its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Binding {
    /// Inside.
    pub(super) container: Port,
    /// Outside.
    pub(super) host: Port,
    /// Protocol of both.
    pub(super) protocol: Protocol,
}

/// A task definition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Definition {
    /// Whether its containers are in the host's own network.
    pub(super) host_network: bool,
    /// By name.
    pub(super) containers: BTreeMap<Arc<str>, Defined>,
}

/// A container of a task definition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Defined {
    /// Its ports, with those of the host that are fixed.
    pub(super) ports: BTreeSet<(Port, Option<Port>, Protocol)>,
    /// Whether it has a health check.
    pub(super) checked: bool,
    /// Docker labels.
    pub(super) labels: BTreeMap<String, String>,
}

/// How a load balancer treats those behind it, as far as it is done here, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Manner {
    /// Whether a client stays with its target.
    pub(super) by_source: bool,
    /// How long the flows of a task that stops go on, s; `None`: until they are over.
    pub(super) drain: Option<u32>,
    /// How tasks are checked.
    pub(super) check: Option<Check>,
    /// What has no effect here, or another one, in words.
    pub(super) notes: Vec<String>,
    /// Why its attributes may not be read, if so.
    pub(super) refused: Option<String>,
}

/// A classic load balancer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Classic {
    /// The host name that AWS gave it.
    pub(super) dns_name: String,
    /// What it listens to.
    pub(super) listeners: Vec<ClassicListener>,
    /// How it treats tasks.
    pub(super) manner: Manner,
}

/// A listener of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClassicListener {
    /// Where clients come.
    pub(super) port: Port,
    /// Where they are sent.
    pub(super) instance_port: u16,
    /// `TCP`, `HTTP`, `SSL`, `HTTPS`.
    pub(super) protocol: String,
}

/// A target group, with the listeners of the load balancers that it belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    /// Its name.
    pub(super) name: String,
    /// `TCP`, `UDP`, `TCP_UDP`, `TLS`, `HTTP`, `HTTPS`.
    pub(super) protocol: String,
    /// How it treats tasks.
    pub(super) manner: Manner,
    /// Who forwards to it.
    pub(super) listeners: Vec<Listener>,
}

/// A listener that forwards to a target group by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listener {
    /// The load balancer's name.
    pub(super) balancer: String,
    /// The host name that AWS gave that.
    pub(super) dns_name: String,
    /// Where clients come.
    pub(super) port: Port,
    /// As with [`Group::protocol`].
    pub(super) protocol: String,
    /// The target group's share of its clients, in parts of all shares; `None`: it forwards to no other.
    pub(super) share: Option<u32>,
}

/// What is behind the last slash of an ARN, or all of a name.
pub(super) fn last(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}

// === impl Service ===

impl Service {
    /// What stands in front of one of its tasks.
    pub(super) fn entries_of(&self, task: &Task) -> &[Entry] {
        match &self.sets {
            None => &self.entries,
            Some(sets) => sets.get(&task.started_by).map_or(&[], Vec::as_slice),
        }
    }

    /// What stands in front of any, each once.
    pub(super) fn all_entries(&self) -> BTreeSet<&Entry> {
        match &self.sets {
            None => self.entries.iter().collect(),
            Some(sets) => sets.values().flatten().collect(),
        }
    }
}

// === impl Last ===

impl Last {
    /// ECS's word.
    pub(super) fn read(word: &str) -> Self {
        match word {
            "PROVISIONING" | "PENDING" => Self::Starting,
            "ACTIVATING" => Self::Activating,
            "RUNNING" => Self::Running,
            "DEACTIVATING" | "STOPPING" => Self::Stopping,
            _ => Self::Gone,
        }
    }
}

// === impl Task ===

impl Task {
    /// Why it takes no new flows, unless it does; `None` for one that is in no pool.
    ///
    /// `checked`: the container that counts has a health check.
    pub(super) fn draining(&self, checked: bool) -> Option<Option<Drain>> {
        match (self.last, self.stopping) {
            (Last::Running | Last::Activating, true) => Some(Some(Drain::ending("told to stop"))),
            (Last::Stopping, _) => Some(Some(Drain::ending("stopping"))),
            (Last::Running, false) => Some(match self.health {
                Health::Unhealthy => Some(Drain::unfit("unhealthy")),
                Health::Unknown if checked => Some(Drain::unfit("no health result yet")),
                Health::Unknown | Health::Healthy => None,
            }),
            (Last::Starting | Last::Activating | Last::Gone, _) => None,
        }
    }
}
