//! The maps behind [`Kernel`]: reads them whole, writes one operation at a time, keeps a copy of what
//! they hold.

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf,
    maps::{Array, HashMap, HashOfMaps, LpmTrie, Map, MapData, lpm_trie},
};
use ipnet::IpNet;
use lb_common::{
    Addr4, Addr6, Backend, Be16, NodeConfig, SLOTS_LARGE, SLOTS_MEDIUM, SLOTS_SMALL, Service,
    ServiceKey,
};

use super::{filter::Filter, sys};
use crate::plan::{Endpoint, Kernel, KernelState, Op, TableId};

type Inner<const M: usize> = Array<MapData, [u32; M]>;
type Tables<const M: usize> = HashOfMaps<MapData, u32, Inner<M>>;

/// The maps that a plan writes.
pub(super) struct Maps {
    addrs4: HashMap<MapData, Addr4, u32>,
    addrs6: HashMap<MapData, Addr6, u32>,
    services4: HashMap<MapData, ServiceKey<Addr4>, Service>,
    services6: HashMap<MapData, ServiceKey<Addr6>, Service>,
    tables_s: Tables<SLOTS_SMALL>,
    tables_m: Tables<SLOTS_MEDIUM>,
    tables_l: Tables<SLOTS_LARGE>,
    backends: Array<MapData, Backend>,
    sources4: LpmTrie<MapData, Addr4, u32>,
    sources6: LpmTrie<MapData, Addr6, u32>,
    node: Array<MapData, NodeConfig>,
    filter: Filter,
    /// What the maps hold, as this process, their only writer, knows it.
    copy: Option<KernelState>,
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
    pub(super) fn take(object: &mut Ebpf) -> Result<Self> {
        Ok(Self {
            addrs4: take(object, "LB_ADDRS4")?,
            addrs6: take(object, "LB_ADDRS6")?,
            services4: take(object, "LB_SERVICES4")?,
            services6: take(object, "LB_SERVICES6")?,
            tables_s: take(object, "LB_TABLES_S")?,
            tables_m: take(object, "LB_TABLES_M")?,
            tables_l: take(object, "LB_TABLES_L")?,
            backends: take(object, "LB_BACKENDS")?,
            sources4: take(object, "LB_SOURCES4")?,
            sources6: take(object, "LB_SOURCES6")?,
            node: take(object, "LB_NODE")?,
            filter: Filter::take(object)?,
            copy: None,
        })
    }

    /// Forgets the copy: the next [`Kernel::state`] reads the maps.
    pub(super) fn distrust(&mut self) {
        self.copy = None;
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
        for id in 1..self.backends.len() {
            let backend = self.backends.get(&id, 0)?;
            if backend != Backend::default() {
                state.backends.insert(id, backend);
            }
        }
        read_tables(&self.tables_s, &mut state)?;
        read_tables(&self.tables_m, &mut state)?;
        read_tables(&self.tables_l, &mut state)?;
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
            Op::PutBackend { id, value } => self.backends.set(*id, value, 0)?,
            Op::FreeBackend { id, generation } => {
                self.backends.set(*id, Op::freed(*generation), 0)?
            }
            Op::PutTable { table, slots } => self.put_table(*table, slots)?,
            Op::DeleteTable(table) => match table.slots as usize {
                SLOTS_SMALL => self.tables_s.remove(&table.service)?,
                SLOTS_MEDIUM => self.tables_m.remove(&table.service)?,
                SLOTS_LARGE => self.tables_l.remove(&table.service)?,
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

    fn put_table(&mut self, table: TableId, slots: &[u32]) -> Result<()> {
        match table.slots as usize {
            SLOTS_SMALL => swap(&mut self.tables_s, table.service, slots),
            SLOTS_MEDIUM => swap(&mut self.tables_m, table.service, slots),
            SLOTS_LARGE => swap(&mut self.tables_l, table.service, slots),
            slots => bail!("no table has {slots} slots"),
        }
    }
}

impl Kernel for Maps {
    fn state(&mut self) -> Result<KernelState> {
        if self.copy.is_none() {
            self.copy = Some(self.read()?);
        }
        self.copy.clone().context("the maps were just read")
    }

    fn apply(&mut self, op: &Op) -> Result<()> {
        let done = self.write(op);
        match (&done, &mut self.copy) {
            (Ok(()), Some(copy)) => copy.record(op.clone()),
            _ => self.copy = None,
        }
        done
    }

    fn finish(&mut self) -> Result<()> {
        let state = self.state()?;
        self.filter.follow(&state.addresses, &state.node)
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

fn read_tables<const M: usize>(tables: &Tables<M>, state: &mut KernelState) -> Result<()> {
    for service in tables.keys() {
        let service = service?;
        let slots = tables.get(&service, 0)?.get(&0, 0)?;
        state.tables.insert(
            TableId {
                service,
                slots: M as u32,
            },
            slots.to_vec(),
        );
    }
    Ok(())
}

/// Fills a new inner map in one call and puts it in the old one's place.
fn swap<const M: usize>(tables: &mut Tables<M>, service: u32, slots: &[u32]) -> Result<()> {
    let table: Box<[u32; M]> =
        Box::<[u32]>::from(slots)
            .try_into()
            .map_err(|wrong: Box<[u32]>| {
                anyhow::anyhow!("a table of {} slots, not {M}", wrong.len())
            })?;
    let mut inner = Inner::<M>::create(1, 0)?;
    inner.set(0, *table, 0)?;
    tables.insert(service, &inner, 0)?;
    Ok(())
}
