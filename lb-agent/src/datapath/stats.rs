//! Reads what the programs count, for whoever asks: nothing is kept between two questions.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context as _, Result};
use lb_common::{
    Addr4, Addr6, Backend, BackendStats, ConnectionStats, Peer, Reason, Service, ServiceKey,
    ServiceState, ServiceStats, ServiceTraffic, backend_kind, backend_state, service_mode,
};

use super::{
    Counters, Sizes,
    arrays::ById,
    flows::{entries, pinned},
    layout::schema_dir,
    percpu::PerCpu,
    suspects::{Suspects, reason},
};
use crate::plan::{Endpoint, KernelState};

/// The maps that count, opened from their pins.
#[derive(Debug)]
pub struct Stats {
    backends: ById<Backend>,
    hosts: ById<Peer>,
    active: ById<u64>,
    states: ById<ServiceState>,
    services4: OwnedFd,
    services6: OwnedFd,
    traffic: PerCpu<BackendStats>,
    connections: PerCpu<ConnectionStats>,
    services: PerCpu<ServiceStats>,
    carried: PerCpu<ServiceTraffic>,
    reasons: PerCpu<u64>,
    suspects: Suspects,
    in_use: Arc<InUse>,
}

/// How far the ids reach that are in use. The arrays are as long as they may ever have to be: whoever reads them again and
/// again is not to walk through all that is empty.
#[derive(Debug)]
pub(super) struct InUse {
    backends: AtomicUsize,
}

/// What was counted up to now, since the maps were made.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// By address, port and protocol of a backend.
    pub backends: HashMap<Endpoint, BackendCounts>,
    /// By address, port and protocol at which a service stands: a VIP or a node's own address.
    pub services: HashMap<Endpoint, ServiceCounts>,
    /// Packets and calls that went no further, by reason.
    pub reasons: Counters,
}

/// One backend's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendCounts {
    /// Flows at present.
    pub active: u64,
    /// Flows, packets and bytes.
    pub traffic: BackendStats,
    /// What became of its connections.
    pub connections: ConnectionStats,
    /// It is elsewhere on the network, so that a service's mode may be direct server return.
    pub is_elsewhere: bool,
    /// Its host's agent is a peer.
    pub is_at_peer: bool,
    /// Why it gets no new flows for now, although it is active.
    pub suspect: Option<&'static str>,
}

/// One service's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceCounts {
    /// The service's id, from 1 on.
    pub id: u32,
    /// Flows at present.
    pub active: u64,
    /// New flows and handshakes.
    pub stats: ServiceStats,
    /// Packets and bytes.
    pub traffic: ServiceTraffic,
    /// One of [`service_mode`].
    pub mode: u8,
}

// === impl InUse ===

impl InUse {
    /// One more than the last id of a backend.
    pub(super) fn end(&self) -> usize {
        self.backends.load(Ordering::Relaxed)
    }

    /// Takes note of what the maps hold now.
    pub(super) fn note(&self, state: &KernelState) {
        let last = state.backends.keys().next_back();
        let end = last.map_or(0, |last| *last as usize + 1);
        self.backends.store(end, Ordering::Relaxed);
    }

    /// Takes note of backends that are about to be there.
    pub(super) fn reach(&self, ids: &[u32]) {
        let end = ids.iter().max().map_or(0, |last| *last as usize + 1);
        self.backends.fetch_max(end, Ordering::Relaxed);
    }
}

impl Default for InUse {
    /// Nobody knows yet.
    fn default() -> Self {
        Self {
            backends: AtomicUsize::new(usize::MAX),
        }
    }
}

// === impl BackendCounts ===

impl BackendCounts {
    /// Whether it answers the clients of a service in this mode ([`service_mode`]) directly, so that nothing of what it
    /// answers comes by here: as the programs decide it for a new flow.
    pub fn answers_directly(&self, mode: u8) -> bool {
        self.is_elsewhere
            && match mode {
                service_mode::NAT => false,
                service_mode::DSR_GENEVE => self.is_at_peer,
                _ => true,
            }
    }
}

// === impl Stats ===

impl Stats {
    pub(super) fn open(pin_dir: &Path, sizes: &Sizes, in_use: Arc<InUse>) -> Result<Self> {
        let dir = &schema_dir(pin_dir);
        Ok(Self {
            in_use,
            backends: ById::open(dir, "LB_BACKENDS", sizes.backends)?,
            hosts: ById::open(dir, "LB_PEERS", sizes.backends)?,
            active: ById::open(dir, "LB_LOADS", sizes.backends)?,
            states: ById::open(dir, "LB_SERVICE_STATES", sizes.service_ids())?,
            services4: pinned(dir, "LB_SERVICES4")?,
            services6: pinned(dir, "LB_SERVICES6")?,
            traffic: PerCpu::open(dir, "LB_STATS")?,
            connections: PerCpu::open(dir, "LB_CONNECTIONS")?,
            services: PerCpu::open(dir, "LB_SERVICE_STATS")?,
            carried: PerCpu::open(dir, "LB_SERVICE_TRAFFIC")?,
            reasons: PerCpu::open(dir, "LB_COUNTERS")?,
            suspects: Suspects::open(pin_dir, sizes)?,
        })
    }

    /// Everything, of what is in use now; blocks, about 0.1 s for 100,000 backends.
    ///
    /// # Errors
    ///
    /// If a map cannot be read.
    pub fn read(&self) -> Result<Counted> {
        let mut counted = Counted::default();
        self.read_backends(&mut counted)?;
        self.read_services(&mut counted)?;
        let last = Reason::ALL.iter().map(|reason| *reason as usize).max();
        let len = last.map_or(0, |last| last + 1);
        let reasons = self.reasons.sums(len, |sum, cpu| *sum += cpu)?;
        counted.reasons = Reason::ALL
            .iter()
            .map(|reason| (*reason, value(&reasons, *reason as u32)))
            .collect();
        Ok(counted)
    }

    fn read_backends(&self, counted: &mut Counted) -> Result<()> {
        let mut backends = self.backends.read_below(self.in_use.end())?;
        backends.retain(|_, backend| backend.state != backend_state::FREE);
        let Some(len) = backends.keys().next_back().map(|id| *id as usize + 1) else {
            return Ok(());
        };
        let hosts = self.hosts.read_below(len)?;
        let active = self.active.read_below(len)?;
        let traffic = self.traffic.sums(len, add_traffic)?;
        let connections = self.connections.sums(len, add_connections)?;
        let suspects = self.suspects.read_below(len)?;
        for (id, backend) in backends {
            let Some(endpoint) = Endpoint::of(&backend) else {
                continue;
            };
            let counts = BackendCounts {
                active: active.get(&id).copied().unwrap_or_default(),
                traffic: value(&traffic, id),
                connections: value(&connections, id),
                is_elsewhere: backend.kind == backend_kind::NET,
                is_at_peer: hosts.get(&id).is_some_and(|host| host.family != 0),
                suspect: suspects.get(&endpoint).map(reason),
            };
            counted.backends.insert(endpoint, counts);
        }
        Ok(())
    }

    fn read_services(&self, counted: &mut Counted) -> Result<()> {
        let mut services = Vec::new();
        entries(
            &self.services4,
            |key: ServiceKey<Addr4>, service: Service| {
                services.push((endpoint(IpAddr::V4(key.addr.into()), &key), service));
            },
        )
        .context("cannot read LB_SERVICES4")?;
        entries(
            &self.services6,
            |key: ServiceKey<Addr6>, service: Service| {
                services.push((endpoint(IpAddr::V6(key.addr.into()), &key), service));
            },
        )
        .context("cannot read LB_SERVICES6")?;
        let last = services.iter().map(|(_, service)| service.id).max();
        let Some(len) = last.map(|id| id as usize + 1) else {
            return Ok(());
        };
        let states = self.states.read_below(len)?;
        let stats = self.services.sums(len, add_service)?;
        let carried = self.carried.sums(len, add_carried)?;
        for (endpoint, service) in services {
            let counts = ServiceCounts {
                id: service.id,
                active: states
                    .get(&service.id)
                    .map(|state| state.flows)
                    .unwrap_or_default(),
                stats: value(&stats, service.id),
                traffic: value(&carried, service.id),
                mode: service.mode,
            };
            counted.services.insert(endpoint, counts);
        }
        Ok(())
    }
}

fn endpoint<A>(addr: IpAddr, key: &ServiceKey<A>) -> Endpoint {
    Endpoint::new(SocketAddr::new(addr, key.port.get()), key.proto)
}

fn value<V: Copy + Default>(values: &[V], id: u32) -> V {
    values.get(id as usize).copied().unwrap_or_default()
}

fn add_traffic(sum: &mut BackendStats, cpu: &BackendStats) {
    sum.flows += cpu.flows;
    sum.packets_to += cpu.packets_to;
    sum.bytes_to += cpu.bytes_to;
    sum.packets_from += cpu.packets_from;
    sum.bytes_from += cpu.bytes_from;
    sum.failed += cpu.failed;
    sum.retransmits += cpu.retransmits;
    sum.unseen += cpu.unseen;
}

fn add_carried(sum: &mut ServiceTraffic, cpu: &ServiceTraffic) {
    sum.packets_to += cpu.packets_to;
    sum.bytes_to += cpu.bytes_to;
    sum.packets_from += cpu.packets_from;
    sum.bytes_from += cpu.bytes_from;
}

fn add_connections(sum: &mut ConnectionStats, cpu: &ConnectionStats) {
    sum.closed += cpu.closed;
    sum.client_resets += cpu.client_resets;
    sum.backend_resets += cpu.backend_resets;
    sum.refused += cpu.refused;
    sum.syn_retransmits += cpu.syn_retransmits;
    sum.handshakes += cpu.handshakes;
    sum.handshake_ns += cpu.handshake_ns;
    sum.redispatched += cpu.redispatched;
    sum.lived_ms += cpu.lived_ms;
}

fn add_service(sum: &mut ServiceStats, cpu: &ServiceStats) {
    sum.flows += cpu.flows;
    sum.refused += cpu.refused;
    sum.denied += cpu.denied;
    sum.limited += cpu.limited;
    sum.lost += cpu.lost;
    sum.malformed += cpu.malformed;
    sum.failed += cpu.failed;
    sum.retransmits += cpu.retransmits;
    sum.unseen += cpu.unseen;
    add_connections(&mut sum.connections, &cpu.connections);
    for (sum, cpu) in sum.handshakes.iter_mut().zip(&cpu.handshakes) {
        *sum += cpu;
    }
}
