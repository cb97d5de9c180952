//! The maps behind [`Kernel`]: reads them whole, writes one operation at a time, many tables at once.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf,
    maps::{Array, HashMap, LpmTrie, Map, MapData, lpm_trie},
};
use ipnet::IpNet;
use lb_common::{
    Addr4, Addr6, Affinity, AffinityKey, Backend, BackendLimit, BackendStats, Be16,
    ConnectionStats, NodeConfig, SLOTS_LARGE, SLOTS_MEDIUM, SLOTS_SMALL, Service, ServiceKey,
    ServiceState, ServiceStats, ServiceTraffic,
};

use super::{
    arrays::{ById, Tables},
    filter::Filter,
    flows::is_missing,
    layout::Sizes,
    lists::Lists,
    peers::Peers,
    percpu::PerCpu,
    stats::InUse,
    sys,
};
use crate::plan::{Endpoint, Kernel, KernelState, Op};

/// Operations that go in one call. A table takes a descriptor meanwhile, of which a process has 1,024 unless it
/// asked for more.
const BATCH: usize = 256;

/// The maps that a plan writes.
pub(super) struct Maps {
    addrs4: HashMap<MapData, Addr4, u32>,
    addrs6: HashMap<MapData, Addr6, u32>,
    services4: HashMap<MapData, ServiceKey<Addr4>, Service>,
    services6: HashMap<MapData, ServiceKey<Addr6>, Service>,
    tables_s: Tables<SLOTS_SMALL>,
    tables_m: Tables<SLOTS_MEDIUM>,
    tables_l: Tables<SLOTS_LARGE>,
    backends: ById<Backend>,
    limits: ById<BackendLimit>,
    service_states: ById<ServiceState>,
    traffic: PerCpu<BackendStats>,
    connections: PerCpu<ConnectionStats>,
    service_stats: PerCpu<ServiceStats>,
    service_traffic: PerCpu<ServiceTraffic>,
    affinity: HashMap<MapData, AffinityKey, Affinity>,
    lists: Lists,
    sources4: LpmTrie<MapData, Addr4, u32>,
    sources6: LpmTrie<MapData, Addr6, u32>,
    node: Array<MapData, NodeConfig>,
    peers: Peers,
    pub(super) filter: Arc<Mutex<Filter>>,
    pub(super) in_use: Arc<InUse>,
}

/// Takes a map out of the object under its type.
pub(super) fn take<T: TryFrom<Map>>(object: &mut Ebpf, name: &str) -> Result<T>
where
    T::Error: std::error::Error + Send + Sync + 'static,
{
    let map = object
        .take_map(name)
        .with_context(|| format!("the object holds no map {name}"))?;
    T::try_from(map).with_context(|| format!("map {name} is of another type"))
}

// === impl Maps ===

impl Maps {
    pub(super) fn take(object: &mut Ebpf, sizes: &Sizes) -> Result<Self> {
        Ok(Self {
            addrs4: take(object, "LB_ADDRS4")?,
            addrs6: take(object, "LB_ADDRS6")?,
            services4: take(object, "LB_SERVICES4")?,
            services6: take(object, "LB_SERVICES6")?,
            tables_s: Tables::of(object, "LB_TABLES_S")?,
            tables_m: Tables::of(object, "LB_TABLES_M")?,
            tables_l: Tables::of(object, "LB_TABLES_L")?,
            backends: ById::take(object, "LB_BACKENDS", sizes.backends)?,
            limits: ById::take(object, "LB_LIMITS", sizes.backends)?,
            service_states: ById::take(object, "LB_SERVICE_STATES", sizes.service_ids())?,
            traffic: PerCpu::take(object, "LB_STATS")?,
            connections: PerCpu::take(object, "LB_CONNECTIONS")?,
            service_stats: PerCpu::take(object, "LB_SERVICE_STATS")?,
            service_traffic: PerCpu::take(object, "LB_SERVICE_TRAFFIC")?,
            affinity: take(object, "LB_AFFINITY")?,
            lists: Lists::take(object)?,
            peers: Peers::take(object, sizes)?,
            sources4: take(object, "LB_SOURCES4")?,
            sources6: take(object, "LB_SOURCES6")?,
            node: take(object, "LB_NODE")?,
            filter: Arc::new(Mutex::new(Filter::take(object)?)),
            in_use: Arc::default(),
        })
    }

    /// Changes that one of the node's settings.
    pub(super) fn set_route_epoch(&mut self, route_epoch: u16) -> Result<()> {
        let node = NodeConfig {
            route_epoch,
            ..self.node.get(&0, 0)?
        };
        self.apply(&Op::PutNode(node))
    }

    fn read(&self) -> Result<KernelState> {
        let mut state = KernelState {
            node: self.node.get(&0, 0)?,
            ..KernelState::default()
        };
        for entry in self.addrs4.iter() {
            let (addr, flags) = entry?;
            state.addresses.insert(IpAddr::V4(addr.into()), flags);
        }
        for entry in self.addrs6.iter() {
            let (addr, flags) = entry?;
            state.addresses.insert(IpAddr::V6(addr.into()), flags);
        }
        for entry in self.services4.iter() {
            let (key, service) = entry?;
            state.services.insert(
                endpoint(IpAddr::V4(key.addr.into()), key.port, key.proto),
                service,
            );
        }
        for entry in self.services6.iter() {
            let (key, service) = entry?;
            state.services.insert(
                endpoint(IpAddr::V6(key.addr.into()), key.port, key.proto),
                service,
            );
        }
        let end = self.in_use.end();
        state.backends = self.backends.read_below(end)?;
        state.limits = self.limits.read_below(end)?;
        state.lists = self.lists.read()?;
        self.peers.read(&mut state, end)?;
        self.tables_s.read(&mut state)?;
        self.tables_m.read(&mut state)?;
        self.tables_l.read(&mut state)?;
        for key in self.sources4.keys() {
            let key = key?;
            let net = IpNet::new(IpAddr::V4(key.data().into()), key.prefix_len() as u8)?;
            state.sources.insert(net);
        }
        for key in self.sources6.keys() {
            let key = key?;
            let net = IpNet::new(IpAddr::V6(key.data().into()), key.prefix_len() as u8)?;
            state.sources.insert(net);
        }
        Ok(state)
    }

    fn write(&mut self, op: &Op) -> Result<()> {
        match op {
            Op::PutBackend { id, value } => self.put_some(&[*id], &[*value])?,
            Op::FreeBackend { id, generation } => {
                self.backends.put(&[*id], &[Op::freed(*generation)])?;
                // The next one to have the id begins at zero.
                self.traffic.clear(*id)?;
                self.connections.clear(*id)?;
            }
            Op::PutLimit { id, value } => self.limits.put(&[*id], &[*value])?,
            Op::PutListed { listed, rule } => self.lists.put(listed, *rule)?,
            Op::DeleteListed(listed) => self.lists.remove(listed)?,
            Op::PutHost { id, value } => self.peers.put_hosts(&[*id], &[*value])?,
            Op::PutPeer(addr) => self.peers.put(*addr)?,
            Op::DeletePeer(addr) => self.peers.remove(*addr)?,
            Op::PutLocal { local, id } => self.peers.put_local(local, *id)?,
            Op::DeleteLocal(local) => self.peers.remove_local(local)?,
            Op::ForgetService(id) => self.forget(&[*id].into())?,
            Op::PutTable { table, slots, .. } => {
                self.swap(table.slots, &[(table.service, Arc::clone(slots))])?
            }
            Op::DeleteTable(table) => match table.slots as usize {
                SLOTS_SMALL => self.tables_s.remove(table.service)?,
                SLOTS_MEDIUM => self.tables_m.remove(table.service)?,
                SLOTS_LARGE => self.tables_l.remove(table.service)?,
                slots => bail!("no table has {slots} slots"),
            },
            Op::PutService { key, value } => match key.addr {
                IpAddr::V4(addr) => {
                    self.services4
                        .insert(service_key(addr.into(), key), value, 0)?
                }
                IpAddr::V6(addr) => {
                    self.services6
                        .insert(service_key(addr.into(), key), value, 0)?
                }
            },
            Op::DeleteService(key) => match key.addr {
                IpAddr::V4(addr) => self.services4.remove(&service_key(addr.into(), key))?,
                IpAddr::V6(addr) => self.services6.remove(&service_key(addr.into(), key))?,
            },
            Op::PutAddress { addr, flags } => match *addr {
                IpAddr::V4(addr) => self.addrs4.insert(Addr4::from(addr), flags, 0)?,
                IpAddr::V6(addr) => self.addrs6.insert(Addr6::from(addr), flags, 0)?,
            },
            Op::DeleteAddress(addr) => match *addr {
                IpAddr::V4(addr) => self.addrs4.remove(&addr.into())?,
                IpAddr::V6(addr) => self.addrs6.remove(&addr.into())?,
            },
            Op::PutNode(node) => self.node.set(0, node, 0)?,
            Op::PutSource(IpNet::V4(net)) => {
                let key = lpm_trie::Key::new(u32::from(net.prefix_len()), net.network().into());
                self.sources4.insert(&key, 1, 0)?;
            }
            Op::PutSource(IpNet::V6(net)) => {
                let key = lpm_trie::Key::new(u32::from(net.prefix_len()), net.network().into());
                self.sources6.insert(&key, 1, 0)?;
            }
            Op::DeleteSource(IpNet::V4(net)) => {
                let key = lpm_trie::Key::new(u32::from(net.prefix_len()), net.network().into());
                self.sources4.remove(&key)?;
            }
            Op::DeleteSource(IpNet::V6(net)) => {
                let key = lpm_trie::Key::new(u32::from(net.prefix_len()), net.network().into());
                self.sources6.remove(&key)?;
            }
            Op::Grace => sys::grace_period().context("membarrier")?,
        }
        Ok(())
    }

    /// Puts tables of one size in the place of those that the services have.
    fn swap(&self, slots: u32, tables: &[(u32, Arc<[u32]>)]) -> Result<()> {
        match slots as usize {
            SLOTS_SMALL => self.tables_s.swap(tables),
            SLOTS_MEDIUM => self.tables_m.swap(tables),
            SLOTS_LARGE => self.tables_l.swap(tables),
            slots => bail!("no table has {slots} slots"),
        }
    }
}

impl Kernel for Maps {
    fn state(&mut self) -> Result<KernelState> {
        self.read()
    }

    fn apply(&mut self, op: &Op) -> Result<()> {
        self.write(op)
    }

    fn apply_all(&mut self, ops: &[Op]) -> Vec<Result<()>> {
        let mut results = Vec::with_capacity(ops.len());
        for batch in ops.chunks(BATCH) {
            let done = match batch {
                [Op::PutTable { .. }, _, ..] => self.swap_all(batch),
                [Op::PutBackend { .. }, _, ..] => self.put_backends(batch),
                [Op::PutLimit { .. }, _, ..] => self.put_limits(batch),
                [Op::PutHost { .. }, _, ..] => self.put_hosts(batch),
                [Op::ForgetService(_), _, ..] => self.forget_all(batch),
                _ => None,
            };
            if matches!(done, Some(Ok(()))) {
                results.extend(batch.iter().map(|_| Ok(())));
            } else {
                // Nothing that goes together, or one was refused: which one shows when each goes by itself.
                results.extend(batch.iter().map(|op| self.apply(op)));
            }
        }
        results
    }

    fn finish(&mut self, state: &KernelState) -> Result<()> {
        sys::give_memory_back();
        self.in_use.note(state);
        let mut filter = self.filter.lock().unwrap_or_else(PoisonError::into_inner);
        filter.follow(state)
    }
}

impl Maps {
    /// Several tables of one size at the price of one grace period; `None` if something else is among them.
    fn swap_all(&self, ops: &[Op]) -> Option<Result<()>> {
        let size = ops.iter().find_map(|op| match op {
            Op::PutTable { table, .. } => Some(table.slots),
            _ => None,
        })?;
        let table = |op: &'_ Op| match op {
            Op::PutTable { table, slots, .. } if table.slots == size => {
                Some((table.service, Arc::clone(slots)))
            }
            _ => None,
        };
        let tables: Vec<_> = ops.iter().map(table).collect::<Option<_>>()?;
        Some(self.swap(size, &tables))
    }

    fn put_backends(&self, ops: &[Op]) -> Option<Result<()>> {
        let backend = |op: &Op| match op {
            Op::PutBackend { id, value } => Some((*id, *value)),
            _ => None,
        };
        let all: Option<(Vec<_>, Vec<_>)> = ops.iter().map(backend).collect();
        all.map(|(ids, values)| self.put_some(&ids, &values))
    }

    fn put_some(&self, ids: &[u32], values: &[Backend]) -> Result<()> {
        self.in_use.reach(ids);
        self.backends.put(ids, values)
    }

    fn put_limits(&self, ops: &[Op]) -> Option<Result<()>> {
        let limit = |op: &Op| match op {
            Op::PutLimit { id, value } => Some((*id, *value)),
            _ => None,
        };
        let all: Option<(Vec<_>, Vec<_>)> = ops.iter().map(limit).collect();
        all.map(|(ids, values)| self.limits.put(&ids, &values))
    }

    fn put_hosts(&self, ops: &[Op]) -> Option<Result<()>> {
        let host = |op: &Op| match op {
            Op::PutHost { id, value } => Some((*id, *value)),
            _ => None,
        };
        let all: Option<(Vec<_>, Vec<_>)> = ops.iter().map(host).collect();
        all.map(|(ids, values)| self.peers.put_hosts(&ids, &values))
    }

    fn forget_all(&mut self, ops: &[Op]) -> Option<Result<()>> {
        let id = |op: &Op| match op {
            Op::ForgetService(id) => Some(*id),
            _ => None,
        };
        let ids: Option<BTreeSet<u32>> = ops.iter().map(id).collect();
        ids.map(|ids| self.forget(&ids))
    }

    /// Clears what is kept of services: one walk through all clients, however many services they are.
    fn forget(&mut self, services: &BTreeSet<u32>) -> Result<()> {
        // A table whose number no service can have is nobody's.
        for id in services.iter().filter(|id| self.service_states.has(**id)) {
            self.service_states
                .put(&[*id], &[ServiceState::default()])?;
            self.service_stats.clear(*id)?;
            self.service_traffic.clear(*id)?;
        }
        let clients = self.affinity.keys().collect::<Result<Vec<_>, _>>()?;
        for client in clients {
            if services.contains(&client.service) {
                match self.affinity.remove(&client) {
                    Ok(()) => {}
                    // Pushed out meanwhile.
                    Err(error) if is_missing(&error) => {}
                    Err(error) => return Err(error).context("cannot forget a client"),
                }
            }
        }
        Ok(())
    }
}

fn endpoint(addr: IpAddr, port: Be16, proto: u8) -> Endpoint {
    Endpoint {
        addr,
        port: port.get(),
        proto,
    }
}

fn service_key<A>(addr: A, key: &Endpoint) -> ServiceKey<A> {
    ServiceKey {
        addr,
        port: Be16::new(key.port),
        proto: key.proto,
        pad: 0,
    }
}
