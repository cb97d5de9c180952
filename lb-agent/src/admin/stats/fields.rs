//! Pure: what the numbers mean in HAProxy's words, once for all forms.

use super::{
    sample::{Proxy, Sample, Server},
    status,
};
use crate::admin::report::{BackendReport, ServiceReport};

/// A proxy with its service.
#[derive(Clone, Copy)]
pub(crate) struct Front<'a> {
    pub(crate) sample: &'a Sample,
    pub(crate) proxy: &'a Proxy,
    pub(crate) service: &'a ServiceReport,
}

/// A server with its backend.
#[derive(Clone, Copy)]
pub(crate) struct Back<'a> {
    pub(crate) front: Front<'a>,
    pub(crate) server: &'a Server,
    pub(crate) backend: &'a BackendReport,
}

// === impl Front ===

impl<'a> Front<'a> {
    pub(crate) fn of(sample: &'a Sample, proxy: &'a Proxy) -> Self {
        Self {
            sample,
            proxy,
            service: sample.service(proxy),
        }
    }

    /// All proxies, ascending by `iid`.
    pub(crate) fn all(sample: &'a Sample) -> impl Iterator<Item = Self> {
        let proxies = sample.proxies.iter();
        proxies.map(move |proxy| Self::of(sample, proxy))
    }

    /// Its servers, ascending by `sid`.
    pub(crate) fn servers(self) -> impl Iterator<Item = Back<'a>> {
        let servers = self.proxy.servers.iter();
        servers.map(move |server| Back {
            front: self,
            server,
            backend: self.sample.backend(self.proxy, server),
        })
    }

    fn sum(self, of: impl Fn(Back<'a>) -> u64) -> u64 {
        self.servers().map(of).sum()
    }

    /// Unknown of one is unknown of all.
    fn sum_known(self, of: impl Fn(Back<'a>) -> Option<u64>) -> Option<u64> {
        self.servers().map(of).sum()
    }

    /// `slim`: flows at a time.
    pub(crate) fn limit(self) -> Option<u64> {
        match self.service.limits.flows {
            0 => self.sample.flow_room(),
            limit => Some(limit.into()),
        }
    }

    /// `econ` of the BACKEND row.
    pub(crate) fn failed(self) -> u64 {
        self.sum(Back::failed) + self.service.traffic.flows_unserved()
    }

    /// `eresp` and `srv_abrt`.
    pub(crate) fn backend_resets(self) -> Option<u64> {
        self.sum_known(Back::aborted)
    }

    /// `cli_abrt`.
    pub(crate) fn client_resets(self) -> u64 {
        self.sum(|back| back.backend.traffic.client_resets)
    }

    /// `wretr`.
    pub(crate) fn retries(self) -> u64 {
        self.sum(|back| back.backend.traffic.syn_retransmits)
    }

    /// `connect`.
    pub(crate) fn connects(self) -> Option<u64> {
        self.sum_known(|back| back.backend.traffic.handshakes)
    }

    /// `lbtot`.
    pub(crate) fn chosen(self) -> u64 {
        self.service.traffic.flows_new
    }

    /// `lastchg` of the BACKEND row, s.
    pub(crate) fn last_change(self) -> u64 {
        self.sample.at.since(self.proxy.pool.since).as_secs()
    }

    /// `downtime` of the BACKEND row, s.
    pub(crate) fn downtime(self) -> u64 {
        let pool = &self.proxy.pool;
        let present = match pool.up {
            true => 0,
            false => self.sample.at.since(pool.since).as_millis() as u64,
        };
        (pool.down_ms + present) / 1_000
    }

    /// `UP` or `DOWN` of the BACKEND row.
    pub(crate) fn pool_status(self) -> &'static str {
        match self.proxy.pool.up {
            true => "UP",
            false => "DOWN",
        }
    }

    /// `OPEN` or `STOP` of the FRONTEND row.
    pub(crate) fn status(self) -> &'static str {
        match self.service.stopped {
            true => "STOP",
            false => "OPEN",
        }
    }

    /// `lastsess`, s.
    pub(crate) fn last_new(self) -> Option<i64> {
        self.proxy.load.last_new.seconds(self.sample.at)
    }
}

// === impl Back ===

impl Back<'_> {
    /// `econ`: connections that it did not accept.
    pub(crate) fn failed(self) -> u64 {
        self.backend.traffic.failed + self.backend.traffic.refused.unwrap_or(0)
    }

    /// `eresp` and `srv_abrt`: connections that it accepted and then reset.
    pub(crate) fn aborted(self) -> Option<u64> {
        let traffic = &self.backend.traffic;
        let refused = traffic.refused.unwrap_or(0);
        Some(traffic.backend_resets?.saturating_sub(refused))
    }

    /// `lastchg`, s.
    pub(crate) fn last_change(self) -> Option<u64> {
        let since = self.backend.since?;
        Some(self.front.sample.at.since(since).as_secs())
    }

    /// `downtime`, s.
    pub(crate) fn downtime(self) -> u64 {
        self.backend.downtime(self.front.sample.at).as_secs()
    }

    /// `lastsess`, s.
    pub(crate) fn last_new(self) -> Option<i64> {
        self.server.load.last_new.seconds(self.front.sample.at)
    }

    /// `check_status`.
    pub(crate) fn check(self) -> Option<&'static str> {
        status::check(self.backend, self.front.service.probe.is_some())
    }

    /// `slim`.
    pub(crate) fn limit(self) -> Option<u64> {
        Some(u64::from(self.backend.declared.max_flows)).filter(|limit| *limit > 0)
    }
}

// === impl Sample ===

impl Sample {
    /// Room in the table of TCP flows; `None`: not known.
    pub(crate) fn flow_room(&self) -> Option<u64> {
        let mut maps = self.report.datapath.maps.iter();
        let tcp = maps.find(|map| map.name == TCP_FLOWS);
        // A flow has two entries.
        tcp.map(|map| map.capacity / 2)
    }
}

/// What the table of TCP flows is called in the report.
const TCP_FLOWS: &str = "TCP flows, IPv4";
