//! What the agent says about itself: the body of `GET /v1/status` and of `lb-agent status --json`.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::{
    catalog::{Check, Port, Protocol},
    plan::Endpoint,
};

mod called;
mod detail;
pub(crate) mod protocol;
mod traffic;

pub use detail::{DeclaredReport, HealthReport, LimitsReport, ProbeReport};
pub(crate) use traffic::since;
pub use traffic::{Connections, Outcomes, ServiceTraffic, Traffic};

/// A moment as milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Timestamp(pub u64);

/// Everything that `status` shows. The control loop puts a new one in place after every change; ages and whatever
/// the kernel counts are filled in when somebody asks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StatusReport {
    /// The process.
    pub agent: AgentReport,
    /// One entry per VIP, port and protocol; a named VIP's two families share one entry.
    pub services: Arc<Vec<ServiceReport>>,
    /// One entry per orchestrator or file.
    pub providers: Vec<ProviderReport>,
    /// What the operator said of backends, and still holds.
    #[serde(default)]
    pub operator: Vec<OperatorReport>,
    /// The kernel side.
    pub datapath: DatapathReport,
    /// The DNS side; `None`: turned off.
    pub dns: Option<DnsReport>,
    /// Sentences about whatever an operator should look at: names merged by accident, a new owner in a
    /// pool, odd settings.
    pub warnings: Vec<String>,
    /// Addresses that names wait for until all nodes agree on them.
    #[serde(skip)]
    pub addresses_pending: usize,
}

/// The process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AgentReport {
    /// Of the program.
    pub version: String,
    /// Process id, as seen by the agent.
    pub pid: u32,
    /// The node's host name.
    pub node: String,
    /// When the process began.
    pub started: Timestamp,
    /// When this report was asked for; filled in on request.
    pub now: Timestamp,
}

/// One VIP, port and protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ServiceReport {
    /// Canonical name without zone (`dcos-101app2.marathon`); `None`: an IP VIP.
    pub name: Option<String>,
    /// The VIP's addresses, IPv4 first; an IP VIP has exactly one.
    pub addrs: Vec<IpAddr>,
    /// The VIP's port, host byte order.
    #[serde(with = "port")]
    #[cfg_attr(test, schemars(with = "u16"))]
    pub port: Port,
    /// `tcp` or `udp`.
    #[serde(with = "protocol")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub protocol: Protocol,
    /// How backends are chosen: `maglev`, `least-conn`, `round-robin` or `source`.
    pub algorithm: String,
    /// How packets from outside get to backends: `auto`, `nat`, `dsr-geneve`, `dsr-ipip` or `dsr-l2`.
    #[serde(default)]
    pub mode: String,
    /// Ports of the node's own addresses at which it stands, host byte order, ascending.
    #[serde(default)]
    pub external: Vec<u16>,
    /// What HAProxy's tools call it, without its port; `None`: by its name or address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub called: Option<Arc<str>>,
    /// The address needed probing and no shared store claimed it: another node may give the name another one.
    #[serde(default)]
    pub address_not_agreed: bool,
    /// What its backends are asked; `None`: nothing, what their orchestrator says is all that counts.
    #[serde(default)]
    pub check: Option<String>,
    /// All its backends are down, so new flows go to them all the same.
    #[serde(default)]
    pub fail_open: bool,
    /// By the operator: it takes no new flows.
    #[serde(default)]
    pub stopped: bool,
    /// Both families, drained ones included.
    pub backends: Vec<BackendReport>,
    /// What its flows came to; filled in on request. Missing where the counters cannot be read.
    #[serde(
        default = "ServiceTraffic::unread",
        skip_serializing_if = "ServiceTraffic::is_unread"
    )]
    pub traffic: ServiceTraffic,
    /// The kernel's number of it, the least one where it has several; 0: not known (yet). Filled in on request.
    #[serde(default)]
    pub id: u32,
    /// What it takes at most.
    #[serde(default)]
    pub limits: LimitsReport,
    /// Where it stands in the kernel's maps: VIPs and the node's own addresses.
    #[serde(skip)]
    pub stands_at: Vec<Endpoint>,
    /// The check that [`Self::check`] tells of.
    #[serde(skip)]
    pub probe: Option<Arc<Check>>,
}

/// One instance behind a VIP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BackendReport {
    /// Where it listens.
    pub addr: SocketAddr,
    /// 0..=256; 0 takes no new flows.
    pub weight: u16,
    /// What the agent makes of it.
    pub state: BackendState,
    /// Why it is in that state: `unhealthy`, `TASK_KILLING`, `connection refused`.
    pub why: Option<String>,
    /// Since when it has been in this state, as far as this agent knows.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// Id of the provider that knows it.
    pub provider: Arc<str>,
    /// App id, pod id or the name in a services file.
    pub app: Arc<str>,
    /// The orchestrator's id of the instance.
    pub task: Arc<str>,
    /// What it is called below the VIP's name in DNS, if the orchestrator has a word for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Arc<str>>,
    /// The host that it runs on, where that is known by another word than `addr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Arc<str>>,
    /// What HAProxy's tools call it, where that is not made of its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub called: Option<Arc<str>>,
    /// What came to it and from it, for all services that name it together; filled in on request. Missing where the
    /// counters cannot be read.
    #[serde(
        default = "Traffic::unread",
        skip_serializing_if = "Traffic::is_unread"
    )]
    pub traffic: Traffic,
    /// What its orchestrator says of it.
    #[serde(default)]
    pub declared: DeclaredReport,
    /// How it has been.
    #[serde(default)]
    pub health: HealthReport,
}

/// What the agent makes of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum BackendState {
    /// Takes new flows, if it has weight.
    Active,
    /// No new flows; those it has go on until they end.
    Draining,
    /// Taken out by an operator: as draining.
    Maintenance,
    /// Would take new flows, but others are to be used before it; those it has go on.
    Standby,
    /// Does not answer.
    Down,
}

/// A word of the operator about backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OperatorReport {
    /// Which backends.
    pub which: String,
    /// What holds for them: `draining`, `maintenance`, `weight 5`.
    pub says: String,
    /// When it was said.
    pub since: Timestamp,
    /// When connections that are left are reset.
    pub deadline: Option<Timestamp>,
    /// Since when no such backend has been there, as far as this agent knows.
    pub unused_since: Option<Timestamp>,
    /// A server that is there, or where it is, by the operator's word: `web_80/new`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
}

/// One orchestrator or file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProviderReport {
    /// `marathon:marathon`, `file:/etc/lb-agent/services.yaml`.
    pub id: String,
    /// When its state was last read well; `None`: not since the start, so nothing of it is ever deleted.
    pub last_sync: Option<Timestamp>,
    /// Milliseconds from `last_sync` to `agent.now`; filled in on request.
    pub last_sync_age_ms: Option<u64>,
    /// Why the latest reading failed; `None`: it did not.
    pub last_error: Option<ErrorReport>,
    /// VIP declarations in the state that is in force.
    pub pools: usize,
    /// What was left out of that state.
    pub problems: Vec<ProblemReport>,
}

/// A failed reading.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ErrorReport {
    /// When it failed.
    pub at: Timestamp,
    /// One sentence.
    pub reason: String,
}

/// Something left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProblemReport {
    /// App id, or whatever names the culprit.
    pub subject: String,
    /// One sentence.
    pub reason: String,
}

/// The kernel side.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DatapathReport {
    /// Where programs for outside traffic are attached.
    pub interfaces: Vec<InterfaceReport>,
    /// The cgroup whose processes are served.
    pub cgroup: Option<PathBuf>,
    /// Where programs and maps are pinned.
    pub pin_dir: Option<PathBuf>,
    /// How full the tables are that services fill.
    pub maps: Vec<MapReport>,
    /// Packets dropped or refused since the maps were made, by reason; only those above 0 need be listed.
    pub drops: Vec<DropReport>,
    /// New flows of full NAT by how many source ports were tried until one was free: one, two, and so on. The last number is
    /// of those that found none.
    #[serde(default)]
    pub snat_tries: Vec<u64>,
}

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct InterfaceReport {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// What is attached and how: `xdp native`, `tcx egress`, `tcx ingress`.
    pub attached: Vec<String>,
}

/// One kernel table, as the last plan fills it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MapReport {
    /// Its name.
    pub name: String,
    /// Entries in use.
    pub used: u64,
    /// Entries it has room for.
    pub capacity: u64,
}

/// Packets that went no further, for one reason.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DropReport {
    /// The reason's name.
    pub reason: String,
    /// Since the maps were made, all processors together.
    pub packets: u64,
}

/// The DNS side.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DnsReport {
    /// Where it listens, over UDP and TCP.
    pub listen: Vec<SocketAddr>,
    /// Where other names are forwarded at present: the given resolvers or the system's.
    pub upstreams: Vec<SocketAddr>,
    /// Names answered from the catalog.
    pub names: usize,
}

/// What DNS answers to one name: the body of `GET /v1/resolve?name=` and of `lb-agent resolve --json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Resolution {
    /// As asked, with a final dot.
    pub name: String,
    /// `NOERROR`, `NXDOMAIN`, `REFUSED`.
    pub code: String,
    /// Answered from the catalog; otherwise forwarded, and then the answer is not looked up here.
    pub authoritative: bool,
    /// A and AAAA records, in this order.
    pub addrs: Vec<IpAddr>,
    /// Of the records, in seconds; of the negative answer if there is none.
    pub ttl: u32,
}

// === impl Timestamp ===

impl Timestamp {
    /// The moment that it is.
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// Time from `earlier` to this; zero if the clock was set back between.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

// === impl StatusReport ===

impl StatusReport {
    /// The counters cannot be read: says why, and that nothing they would say is known.
    pub(super) fn uncounted(&mut self, why: &anyhow::Error) {
        self.warnings.push(format!("no counters: {why:#}"));
        for service in Arc::make_mut(&mut self.services) {
            service.traffic = ServiceTraffic::unread();
            for backend in &mut service.backends {
                backend.traffic = Traffic::unread();
            }
        }
    }

    /// The same report, with its ages as they are at `now`.
    #[must_use]
    pub fn at(mut self, now: Timestamp) -> Self {
        self.agent.now = now;
        for provider in &mut self.providers {
            provider.last_sync_age_ms = provider.last_sync.map(|sync| now.0.saturating_sub(sync.0));
        }
        self
    }
}

// === impl BackendReport ===

impl BackendReport {
    /// Whether new flows may come here.
    pub fn is_up(&self) -> bool {
        self.state == BackendState::Active && self.weight > 0
    }

    /// Whether it takes new flows, or would if it were its tier's turn.
    pub fn takes_flows(&self) -> bool {
        matches!(self.state, BackendState::Active | BackendState::Standby) && self.weight > 0
    }

    /// For how long it was down or in maintenance, as far as this agent knows.
    pub fn downtime(&self, now: Timestamp) -> Duration {
        let present = match (self.state.is_out(), self.since) {
            (true, Some(since)) => now.since(since),
            _ => Duration::ZERO,
        };
        Duration::from_millis(self.health.down_ms) + present
    }
}

impl BackendState {
    /// Whether the time in it is downtime.
    pub fn is_out(self) -> bool {
        matches!(self, Self::Down | Self::Maintenance)
    }
}

impl fmt::Display for BackendState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Maintenance => "maintenance",
            Self::Standby => "standby",
            Self::Down => "down",
        })
    }
}

mod port {
    //! A port as a number.
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::catalog::Port;

    pub(super) fn serialize<S: Serializer>(port: &Port, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u16(port.get())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Port, D::Error> {
        Port::new(u16::deserialize(from)?).ok_or_else(|| D::Error::custom("port 0"))
    }
}
