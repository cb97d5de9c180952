//! What one sample holds: the report with its numbers, and what they came to over time.

use std::{sync::Arc, time::Duration};

use super::cleared::Counted;
use crate::admin::report::{
    BackendReport, ServiceReport, ServiceTraffic, StatusReport, Timestamp, Traffic,
};

/// Everything at one moment.
#[derive(Debug, Default)]
pub struct Sample {
    /// With the kernel's numbers and ages.
    pub report: StatusReport,
    /// When it was taken.
    pub at: Timestamp,
    /// One for each service of the report, ascending by id.
    pub proxies: Vec<Proxy>,
    /// All services together.
    pub total: Load,
    /// New flows ever, of all services that are there.
    pub flows_new: u64,
    /// Flows at present, of all services.
    pub flows_active: u64,
    /// How long it took to read and work out.
    pub cost: Duration,
}

/// A service as HAProxy's tools know it: a proxy with a frontend, servers and a backend.
#[derive(Clone, Debug, PartialEq)]
pub struct Proxy {
    /// HAProxy's `iid`, stable while the service is there; from 1 on.
    pub iid: u32,
    /// HAProxy's `pxname`, unique.
    pub name: Arc<str>,
    /// Its place in the report.
    pub(super) service: usize,
    /// Of the service.
    pub load: Load,
    /// Of all its backends together.
    pub pool: Pool,
    /// Ascending by their ids.
    pub servers: Vec<Server>,
    /// What came since its counters were cleared, if they were.
    pub(super) since: Option<Box<Counted<ServiceTraffic>>>,
}

/// A backend as one proxy knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// HAProxy's `sid`, 1..=32767, unique in its proxy.
    pub sid: u16,
    /// HAProxy's `svname`, unique in its proxy.
    pub name: Arc<str>,
    /// Its place in the service.
    pub(super) backend: usize,
    /// Of the backend, for all services that name it together.
    pub load: Load,
    /// What came since its counters were cleared, if they were.
    pub(super) since: Option<Box<Counted<Traffic>>>,
}

/// What counters came to over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// New flows in the last second.
    pub rate: u64,
    /// The highest rate.
    pub rate_max: u64,
    /// The most flows at a time.
    pub active_max: u64,
    /// When it last opened a flow.
    pub last_new: Last,
    /// Mean time from SYN to SYN-ACK of the latest handshakes, us; `None`: there was none.
    pub connect_us: Option<u64>,
    /// The highest of these means.
    pub connect_us_max: Option<u64>,
    /// Mean life of the latest connections that ended, ms; `None`: there was none.
    pub life_ms: Option<u64>,
    /// The highest of these means.
    pub life_ms_max: Option<u64>,
}

/// When something last happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Last {
    /// Before this agent looked.
    #[default]
    Unknown,
    /// Not yet.
    Never,
    /// Then.
    At(Timestamp),
}

/// All backends of a service together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// A backend takes new flows.
    pub up: bool,
    /// Since when that is so or not so.
    pub since: Timestamp,
    /// How often none was left.
    pub downs: u64,
    /// For how long none was there, ms.
    pub down_ms: u64,
    /// Of those that take new flows.
    pub weight: u64,
    /// What their orchestrators say.
    pub declared_weight: u64,
    /// How many take new flows, backups apart.
    pub active: u64,
    /// How many backups do.
    pub backup: u64,
}

// === impl Sample ===

impl Sample {
    /// Of a moment at which the counters could not be read: nothing but what the report says of itself.
    pub(super) fn unread(report: StatusReport) -> Self {
        Self {
            report,
            ..Self::default()
        }
    }

    /// The service of a proxy.
    pub fn service(&self, proxy: &Proxy) -> &ServiceReport {
        // A sample's proxies are made of its own report.
        &self.report.services[proxy.service]
    }

    /// The backend of a server.
    pub fn backend(&self, proxy: &Proxy, server: &Server) -> &BackendReport {
        &self.service(proxy).backends[server.backend]
    }

    /// How many servers all proxies have.
    pub fn servers(&self) -> usize {
        self.proxies.iter().map(|proxy| proxy.servers.len()).sum()
    }

    /// The proxy of this name.
    pub fn proxy(&self, name: &str) -> Option<&Proxy> {
        self.proxies.iter().find(|proxy| *proxy.name == *name)
    }
}

// === impl Proxy ===

impl Proxy {
    /// The server of this name.
    pub fn server(&self, name: &str) -> Option<&Server> {
        self.servers.iter().find(|server| *server.name == *name)
    }
}

// === impl Last ===

impl Last {
    /// Seconds since then, -1 for never; `None`: unknown.
    pub fn seconds(self, now: Timestamp) -> Option<i64> {
        match self {
            Self::Unknown => None,
            Self::Never => Some(-1),
            Self::At(then) => i64::try_from(now.since(then).as_secs()).ok(),
        }
    }
}
