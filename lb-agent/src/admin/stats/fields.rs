//! Pure: what the numbers mean in HAProxy's words, once for all forms.

use super::{
    sample::{Load, Proxy, Sample, Server},
    status,
};
use crate::admin::report::{
    BackendReport, BackendState, Outcomes, ServiceReport, ServiceTraffic, Traffic,
};

/// A proxy with its service.
#[derive(Clone, Copy)]
pub(crate) struct Front<'a> {
    pub(crate) sample: &'a Sample,
    pub(crate) proxy: &'a Proxy,
    pub(crate) service: &'a ServiceReport,
    /// Its numbers are those since an operator cleared them, where one did.
    cleared: bool,
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
            cleared: false,
        }
    }

    /// As people and HAProxy's tools see it: counted since an operator had the counters begin anew.
    pub(crate) fn since_cleared(self) -> Self {
        Self {
            cleared: true,
            ..self
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

    /// Its numbers.
    pub(crate) fn traffic(self) -> &'a ServiceTraffic {
        match &self.proxy.since {
            Some(since) if self.cleared => &since.traffic,
            _ => &self.service.traffic,
        }
    }

    /// What became of its connections.
    pub(crate) fn outcomes(self) -> &'a Outcomes {
        &self.traffic().connections.outcomes
    }

    /// What its numbers came to over time.
    pub(crate) fn load(self) -> &'a Load {
        &self.proxy.load
    }

    /// `chkdown` of the BACKEND row.
    pub(crate) fn downs(self) -> u64 {
        match &self.proxy.since {
            Some(since) if self.cleared => since.downs,
            _ => self.proxy.pool.downs,
        }
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
        self.outcomes().failed() + self.traffic().flows_unserved()
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

    /// What all its backends have in the choice for new flows, together.
    pub(crate) fn parts(self) -> f64 {
        self.servers().map(Back::part).sum()
    }

    /// `lastsess`, s.
    pub(crate) fn last_new(self) -> Option<i64> {
        self.proxy.load.last_new.seconds(self.sample.at)
    }
}

// === impl Back ===

impl<'a> Back<'a> {
    /// Its numbers.
    pub(crate) fn traffic(self) -> &'a Traffic {
        match &self.server.since {
            Some(since) if self.front.cleared => &since.traffic,
            _ => &self.backend.traffic,
        }
    }

    /// What became of its connections.
    pub(crate) fn outcomes(self) -> &'a Outcomes {
        &self.traffic().outcomes
    }

    /// What its numbers came to over time.
    pub(crate) fn load(self) -> &'a Load {
        &self.server.load
    }

    /// `chkfail`: checks of the agent's own that failed; `None`: there are none.
    pub(crate) fn checks_failed(self) -> Option<u64> {
        self.check()?;
        let checked = self.front.service.probe.is_some();
        let probe = self.backend.health.probe.as_ref();
        match &self.server.since {
            Some(since) if probe.is_some() && self.front.cleared => Some(since.checks_failed),
            _ => probe.map(|probe| probe.failed).or(checked.then_some(0)),
        }
    }

    /// `chkdown`.
    pub(crate) fn downs(self) -> u64 {
        match &self.server.since {
            Some(since) if self.front.cleared => since.downs,
            _ => self.backend.health.downs,
        }
    }

    /// What it has in the choice for new flows at this moment: its weight, as far as it has started, if new flows come to
    /// it. None come to who waits for others to fail; where the service fails open they come to those that are down.
    fn part(self) -> f64 {
        let backend = self.backend;
        let taking = match self.front.service.fail_open {
            true => BackendState::Down,
            false => BackendState::Active,
        };
        if backend.state != taking {
            return 0.0;
        }
        let started = backend.health.starting.unwrap_or(100);
        f64::from(backend.weight) * f64::from(started) / 100.0
    }

    /// Its share of new flows, 0 to 1; `parts`: as [`Front::parts`].
    pub(crate) fn share(self, parts: f64) -> f64 {
        match parts > 0.0 {
            true => self.part() / parts,
            false => 0.0,
        }
    }

    /// Whether it is meant by its name, its `sid` or its address.
    pub(crate) fn is_called(self, text: &str) -> bool {
        *self.server.name == *text
            || self.server.sid.to_string() == text
            || self.backend.addr.to_string() == text
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

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::admin::stats::{
        json,
        tests::{backend, sample, service},
    };

    /// The shares in our own JSON, in percent.
    fn shares(fail_open: bool, pool: Vec<BackendReport>) -> Vec<String> {
        let mut of = service(Some("web.x"), 1, pool);
        of.fail_open = fail_open;
        let (sample, mut text) = (sample(vec![of]), String::new());
        json::service(Front::of(&sample, &sample.proxies[0]), &mut text);
        let told: Value = serde_json::from_str(&text).unwrap();
        let mut backends = told["backends"].as_array().unwrap().clone();
        backends.sort_by_key(|one| one["addr"].to_string());
        let shares = backends.iter().map(|one| one["share"].as_f64().unwrap());
        shares
            .map(|share| format!("{:.1}", share * 100.0))
            .collect()
    }

    #[test]
    fn only_those_that_new_flows_come_to_have_a_share() {
        let of = |number: u8, state| backend(&format!("10.0.0.{number}:80"), state, None);
        let (near, mut starts) = (of(1, BackendState::Active), of(2, BackendState::Active));
        starts.health.starting = Some(50);
        let (backup, drained) = (of(3, BackendState::Standby), of(4, BackendState::Draining));
        let down = [of(5, BackendState::Down), of(6, BackendState::Down)];
        let pool = vec![near, starts, backup, drained.clone(), down[0].clone()];
        assert_eq!(shares(false, pool), ["66.7", "33.3", "0.0", "0.0", "0.0"]);
        let [one, other] = down;
        let pool = vec![drained, one, other];
        assert_eq!(shares(true, pool.clone()), ["0.0", "50.0", "50.0"]);
        assert_eq!(shares(false, pool), ["0.0"; 3], "it refuses");
    }
}
