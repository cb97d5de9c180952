//! Walks through the flow tables: counts what is there and removes what is over.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, Result};
use aya::{
    Pod,
    maps::{HashMap, Map, MapData, MapError},
};
use lb_common::{
    Addr4, Addr6, Address, Flow, FlowKey, SockKey, SockPeer, direction, headers::TCP, peer_flag,
    tcp_state,
};
use rustix::time::{ClockId, clock_gettime};

use super::{
    Sizes,
    layout::schema_dir,
    loads::{Before, Loads},
    sys::{Cursor, lookup_batch, open_pin},
};

/// Entries read with one system call. A bucket of the kernel's table must fit, however unlucky.
const BATCH: usize = 4_096;

const HALF4: &str = "LB_FLOWS_HALF4";
const HALF6: &str = "LB_FLOWS_HALF6";

/// The flow tables of both families, opened from their pins: a walk needs nothing else of the datapath.
#[derive(Debug)]
pub struct FlowTables {
    pub(super) v4: Vec<Table<Addr4>>,
    pub(super) v6: Vec<Table<Addr6>>,
    /// The peers of local sockets.
    sockets: OwnedFd,
    pub(super) loads: Loads,
}

#[derive(Debug)]
pub(super) struct Table<A: 'static>
where
    FlowKey<A>: Pod,
    Flow<A>: Pod,
{
    name: &'static str,
    room: u32,
    pub(super) half_open: bool,
    pub(super) tcp: bool,
    pub(super) map: HashMap<MapData, FlowKey<A>, Flow<A>>,
    /// The same map, for the batch calls that aya does not have.
    fd: OwnedFd,
}

/// What one walk found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Each table's entries after the walk.
    pub tables: Vec<Fill>,
    /// Flows that can carry packets, by backend id. Those of a backend that had the id before are none.
    pub active: BTreeMap<u32, u32>,
    /// The same by service id.
    pub services: BTreeMap<u32, u32>,
    /// Entries that were removed because their flow is over.
    pub removed: u64,
}

/// How full a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// What it holds, as people say.
    pub name: &'static str,
    /// Entries in it; a flow has two.
    pub used: u32,
    /// Entries that it has room for.
    pub room: u32,
}

// === impl FlowTables ===

impl FlowTables {
    pub(super) fn open(pin_dir: &Path, sizes: &Sizes) -> Result<Self> {
        let dir = schema_dir(pin_dir);
        let (tcp, half, udp) = (sizes.tcp_flows, sizes.half_open_flows, sizes.udp_flows);
        Ok(Self {
            v4: vec![
                Table::open(&dir, "LB_FLOWS_TCP4", "TCP flows, IPv4", tcp)?,
                Table::open(&dir, HALF4, "half-open TCP flows, IPv4", half)?,
                Table::open(&dir, "LB_FLOWS_UDP4", "UDP flows, IPv4", udp)?,
            ],
            v6: vec![
                Table::open(&dir, "LB_FLOWS_TCP6", "TCP flows, IPv6", tcp)?,
                Table::open(&dir, HALF6, "half-open TCP flows, IPv6", half)?,
                Table::open(&dir, "LB_FLOWS_UDP6", "UDP flows, IPv6", udp)?,
            ],
            sockets: pinned(&dir, "LB_SOCK_PEERS")?,
            loads: Loads::open(&dir, sizes)?,
        })
    }

    /// Removes the flows that are over, counts the others, and puts right how many the programs think there are. Takes about a quarter of a second for a
    /// million entries; blocks.
    ///
    /// # Errors
    ///
    /// If a table cannot be read, or a count not written.
    pub fn collect(&mut self) -> Result<Census> {
        let mut census = Census::default();
        let before = self.loads.read()?;
        for table in &mut self.v4 {
            table.collect(&before, &mut census)?;
        }
        for table in &mut self.v6 {
            table.collect(&before, &mut census)?;
        }
        self.count_sockets(&before, &mut census)?;
        self.loads.correct(&before, &census)?;
        Ok(census)
    }

    /// Local TCP connections; what is left of other sockets says nothing of whether they still live.
    fn count_sockets(&self, before: &Before, census: &mut Census) -> Result<()> {
        entries(&self.sockets, |key: SockKey, peer: SockPeer| {
            if key.proto == TCP
                && peer.flags & peer_flag::OPEN != 0
                && before.is_current(peer.backend, peer.generation)
            {
                *census.active.entry(peer.backend).or_default() += 1;
                *census.services.entry(peer.service).or_default() += 1;
            }
        })
        .context("cannot read LB_SOCK_PEERS")
    }
}

// === impl Table ===

impl<A: Address + Default> Table<A>
where
    FlowKey<A>: Pod,
    Flow<A>: Pod,
{
    fn open(dir: &Path, map_name: &str, name: &'static str, room: u32) -> Result<Self> {
        let path = dir.join(map_name);
        let map = MapData::from_pin(&path)
            .with_context(|| format!("cannot open the pinned map {}", path.display()))?;
        Ok(Self {
            name,
            room,
            half_open: [HALF4, HALF6].contains(&map_name),
            tcp: !map_name.starts_with("LB_FLOWS_UDP"),
            map: Map::LruHashMap(map).try_into()?,
            fd: pinned(dir, map_name)?,
        })
    }

    fn collect(&mut self, before: &Before, census: &mut Census) -> Result<()> {
        let mut used = 0;
        let mut over = Vec::new();
        let now = now();
        self.walk(|key, flow| {
            if flow.is_expired(self.half_open, now) {
                over.push(key);
                return;
            }
            used += 1;
            let closed = tcp_state::RST | tcp_state::FIN | tcp_state::PEER_CLOSED;
            if flow.direction == direction::FORWARD
                && flow.tcp & closed == 0
                && before.is_current(flow.backend, flow.generation)
            {
                *census.active.entry(flow.backend).or_default() += 1;
                *census.services.entry(flow.service).or_default() += 1;
            }
        })?;
        for key in over {
            // A packet may have brought it back to life since it was read.
            let again = match self.map.get(&key, 0) {
                Ok(flow) => flow.is_expired(self.half_open, self::now()),
                Err(MapError::KeyNotFound) => false,
                Err(error) => return Err(error.into()),
            };
            if !again {
                continue;
            }
            match self.map.remove(&key) {
                Ok(()) => census.removed += 1,
                // Evicted meanwhile.
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(error.into()),
            }
        }
        census.tables.push(Fill {
            name: self.name,
            used,
            room: self.room,
        });
        Ok(())
    }

    /// Every entry, some twice or not at all if the table changes meanwhile.
    pub(super) fn walk(&self, visit: impl FnMut(FlowKey<A>, Flow<A>)) -> Result<()> {
        entries(&self.fd, visit).with_context(|| format!("cannot read {}", self.name))
    }
}

/// The map that is pinned in this folder.
pub(super) fn pinned(dir: &Path, name: &str) -> Result<OwnedFd> {
    let path = dir.join(name);
    open_pin(&path).with_context(|| format!("cannot open the pinned map {}", path.display()))
}

/// All entries of a hash map, some twice or not at all if it changes meanwhile.
pub(super) fn entries<K: Pod + Default, V: Pod + Default>(
    map: &OwnedFd,
    mut visit: impl FnMut(K, V),
) -> io::Result<()> {
    let (mut keys, mut values) = (vec![K::default(); BATCH], vec![V::default(); BATCH]);
    let mut cursor = Cursor::default();
    loop {
        let (read, more) = lookup_batch(map.as_fd(), &mut cursor, &mut keys, &mut values)?;
        for (key, value) in keys.iter().zip(&values).take(read) {
            visit(*key, *value);
        }
        if !more {
            return Ok(());
        }
    }
}

/// The clock of the flows' time stamps, ns.
pub(super) fn now() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
