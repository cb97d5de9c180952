//! Pure: from one report to the next, what changed. Clock and report are passed in.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use super::{
    cleared::Zero,
    meter::{Meter, Reading, Tick},
    names::{self, Named},
    sample::{Pool, Proxy, Sample, Server},
};
use crate::{
    admin::report::{
        BackendReport, ServiceReport, ServiceTraffic, StatusReport, Timestamp, Traffic,
    },
    catalog::Protocol,
};

/// Ids of services that the kernel has no number for begin here.
const OWN_IDS: u32 = 1_000_000;

/// What tells a service from others for as long as it is there.
type Identity = (String, u16, Protocol);

/// Everything that must be remembered from one sample to the next.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    services: HashMap<Identity, Known>,
    total: Meter,
    ticked: Option<Timestamp>,
    /// The next sample is what counters begin anew with.
    clear: bool,
}

/// One service.
#[derive(Debug)]
struct Known {
    iid: u32,
    meter: Meter,
    pool: Pool,
    zero: Zero<ServiceTraffic>,
    backends: HashMap<SocketAddr, KnownBackend>,
    /// Whose names are `servers`.
    named: Vec<Named>,
    servers: Vec<(u16, Arc<str>, usize)>,
}

/// One of its backends.
#[derive(Debug, Default)]
struct KnownBackend {
    meter: Meter,
    zero: Zero<Traffic>,
}

/// What all of a sample have in common.
#[derive(Clone, Copy)]
struct Moment {
    at: Timestamp,
    /// Since the last tick, ms; `None`: this is no tick.
    elapsed: Option<u64>,
    /// Counters begin anew.
    clear: bool,
}

// === impl Sampler ===

impl Sampler {
    /// The sample of this report. `tick`: rates are worked out, from the last tick to now.
    pub(super) fn take(&mut self, report: StatusReport, tick: bool) -> Sample {
        let at = report.agent.now;
        let elapsed = match (tick, self.ticked) {
            (true, Some(before)) => Some(millis(at.since(before))),
            _ => None,
        };
        if tick {
            self.ticked = Some(at);
        }
        let moment = Moment {
            at,
            elapsed,
            clear: std::mem::take(&mut self.clear),
        };
        let mut before = std::mem::take(&mut self.services);
        let mut ids: HashSet<u32> = before.values().map(|known| known.iid).collect();
        let mut proxies = Vec::with_capacity(report.services.len());
        let mut total = Reading::default();
        for (place, service) in report.services.iter().enumerate() {
            let identity = identity(service);
            let mut known = before
                .remove(&identity)
                .unwrap_or_else(|| Known::new(service, &mut ids, at));
            let proxy = known.note(service, moment);
            proxies.push(Proxy {
                service: place,
                ..proxy
            });
            total.flows += service.traffic.flows_new;
            total.active += service.traffic.flows_active;
            self.services.insert(identity, known);
        }
        proxies.sort_by_key(|proxy| proxy.iid);
        let mut taken = HashSet::with_capacity(proxies.len());
        for proxy in &mut proxies {
            let service = &report.services[proxy.service];
            proxy.name = names::unique(names::proxy(service), &mut taken);
        }
        Sample {
            at,
            proxies,
            total: self.total.note(total, at, elapsed),
            flows_new: total.flows,
            flows_active: total.active,
            report,
            cost: Duration::ZERO,
        }
    }

    /// Has every maximum begin anew.
    pub(super) fn forget(&mut self) {
        self.total.forget();
        for known in self.services.values_mut() {
            known.meter.forget();
            let backends = known.backends.values_mut();
            backends.for_each(|known| known.meter.forget());
        }
    }

    /// Has every maximum and every counter begin anew, from the next sample on.
    pub(super) fn clear(&mut self) {
        self.forget();
        self.clear = true;
    }

    /// Every service by `iid`, at the last tick.
    pub(super) fn services(&self) -> impl Iterator<Item = (u32, Tick)> {
        let services = self.services.values();
        services.map(|known| (known.iid, known.meter.tick()))
    }

    /// Every backend by its service's `iid` and its address, at the last tick.
    pub(super) fn backends(&self) -> impl Iterator<Item = ((u32, SocketAddr), Tick)> {
        self.services.values().flat_map(|known| {
            let backends = known.backends.iter();
            backends.map(|(addr, one)| ((known.iid, *addr), one.meter.tick()))
        })
    }
}

// === impl Known ===

impl Known {
    fn new(service: &ServiceReport, ids: &mut HashSet<u32>, at: Timestamp) -> Self {
        let free = |id: &u32| *id > 0 && !ids.contains(id);
        let iid = Some(service.id)
            .filter(free)
            .or_else(|| (OWN_IDS..).find(free))
            .unwrap_or(OWN_IDS);
        ids.insert(iid);
        Self {
            iid,
            meter: Meter::default(),
            pool: Pool {
                up: is_up(service),
                since: at,
                ..Pool::default()
            },
            zero: Zero::default(),
            backends: HashMap::new(),
            named: Vec::new(),
            servers: Vec::new(),
        }
    }

    /// The name of the proxy and its place are the caller's to fill.
    fn note(&mut self, service: &ServiceReport, moment: Moment) -> Proxy {
        let Moment { at, elapsed, clear } = moment;
        let backends = &service.backends;
        let mut same = self.named.iter().zip(backends);
        if self.named.len() != backends.len() || !same.all(|(named, one)| named.is_of(one)) {
            self.named = backends.iter().map(Named::of).collect();
            self.servers = names::servers(&self.named);
        }
        let mut before = std::mem::take(&mut self.backends);
        let mut servers = Vec::with_capacity(self.servers.len());
        for (sid, name, place) in &self.servers {
            let backend = &service.backends[*place];
            let reading = reading(backend);
            let mut known = before.remove(&backend.addr).unwrap_or_default();
            let health = &backend.health;
            let failed = health.probe.as_ref().map_or(0, |probe| probe.failed);
            servers.push(Server {
                sid: *sid,
                name: Arc::clone(name),
                backend: *place,
                load: known.meter.note(reading, at, elapsed),
                since: known
                    .zero
                    .note(&backend.traffic, health.downs, failed, clear),
            });
            self.backends.insert(backend.addr, known);
        }
        let traffic = &service.traffic;
        let outcomes = &traffic.connections.outcomes;
        let reading = Reading {
            flows: traffic.flows_new,
            active: traffic.flows_active,
            handshakes: (
                outcomes.handshakes.unwrap_or(0),
                outcomes.handshake_ns.unwrap_or(0),
            ),
            lives: (traffic.connections.closed, outcomes.lived_ms),
        };
        let load = self.meter.note(reading, at, elapsed);
        self.note_pool(service, at);
        let since = self.zero.note(traffic, self.pool.downs, 0, clear);
        Proxy {
            iid: self.iid,
            name: Arc::default(),
            service: 0,
            load,
            pool: self.pool,
            servers,
            since,
        }
    }

    fn note_pool(&mut self, service: &ServiceReport, at: Timestamp) {
        let pool = &mut self.pool;
        let up = is_up(service);
        if up != pool.up {
            if up {
                pool.down_ms += millis(at.since(pool.since));
            } else {
                pool.downs += 1;
            }
            pool.up = up;
            pool.since = at;
        }
        let takes = service.backends.iter().filter(|one| one.takes_flows());
        (pool.weight, pool.declared_weight) = (0, 0);
        (pool.active, pool.backup) = (0, 0);
        for backend in takes {
            pool.weight += u64::from(backend.weight);
            pool.declared_weight += u64::from(backend.declared.weight);
            match backend.declared.backup {
                true => pool.backup += 1,
                false => pool.active += 1,
            }
        }
    }
}

fn is_up(service: &ServiceReport) -> bool {
    service.backends.iter().any(BackendReport::takes_flows)
}

fn reading(backend: &BackendReport) -> Reading {
    let traffic = &backend.traffic;
    Reading {
        flows: traffic.flows_new,
        active: traffic.flows_active,
        handshakes: (
            traffic.outcomes.handshakes.unwrap_or(0),
            traffic.outcomes.handshake_ns.unwrap_or(0),
        ),
        lives: (traffic.flows_closed, traffic.outcomes.lived_ms),
    }
}

fn identity(service: &ServiceReport) -> Identity {
    let name = service.name.clone();
    let name = name.or_else(|| service.addrs.first().map(ToString::to_string));
    (
        name.unwrap_or_default(),
        service.port.get(),
        service.protocol,
    )
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
