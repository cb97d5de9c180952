//! Walks through the flow tables: counts what is there and removes what is over.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    sync::Arc,
};

use anyhow::{Context as _, Result};
use aya::{
    Pod,
    maps::{HashMap, Map, MapData, MapError},
};
use lb_common::{
    Addr4, Addr6, Flow, FlowKey, NOBODY, SNAT_TRIES, SockChoice, SockKey, SockPeer, backend_kind,
    direction, headers::TCP, peer_flag, tcp_state,
};
use rustix::time::{ClockId, clock_gettime};

use super::{
    Sizes,
    fills::Fills,
    layout::schema_dir,
    live::Known,
    loads::{Before, Loads},
    percpu::PerCpu,
    sys::{Cursor, lookup_batch, open_pin},
};
use crate::plan::Endpoint;

/// Entries read with one system call. A bucket of the kernel's table must fit, however unlucky.
const BATCH: usize = 4_096;

/// A connection of which one side has taken leave is not counted.
const CLOSED: u8 = tcp_state::RST | tcp_state::FIN | tcp_state::PEER_CLOSED;
/// `include/uapi/linux/bpf.h`: only what is there already is written.
const BPF_EXIST: u64 = 2;

const HALF4: &str = "LB_FLOWS_HALF4";
const HALF6: &str = "LB_FLOWS_HALF6";

/// The flow tables of both families, opened from their pins: a walk needs nothing else of the datapath.
#[derive(Debug)]
pub struct FlowTables {
    pub(super) v4: Vec<Table<Addr4>>,
    pub(super) v6: Vec<Table<Addr6>>,
    /// The peers of local sockets.
    sockets: OwnedFd,
    /// What local UDP sockets have chosen.
    choices: OwnedFd,
    /// Room in each of the two.
    sockets_room: u32,
    others: Fills,
    tries: PerCpu<u64>,
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
    /// The entries of each table that the programs fill, after the walk.
    pub tables: Vec<Fill>,
    /// Flows that can carry packets, by backend id. Those of a backend that had the id before are none.
    pub active: BTreeMap<u32, u32>,
    /// The same by service id.
    pub services: BTreeMap<u32, u32>,
    /// Source ports that full NAT uses, by backend id: each is one flow's until that is collected.
    pub ports: BTreeMap<u32, u32>,
    /// New flows of full NAT, ever, by the source ports that were tried in vain; the last number: none was found.
    pub tries: Vec<u64>,
    /// By these, source ports run short. The caller's to fill.
    pub ports_run_short: bool,
    /// Entries that were removed because their flow is over.
    pub removed: u64,
    /// What the walk was asked about.
    pub asked: Arc<Places>,
    /// Those of them by which clients' packets of some flow come, be its backend gone: whoever sends one is to be told.
    pub with_flows: Places,
}

/// Where clients' packets go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// VIPs, with all of their ports.
    pub vips: BTreeSet<IpAddr>,
    /// Ports of the node's own addresses.
    pub at_node: BTreeSet<Endpoint>,
}

/// A backend in one service, by the kernel's ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// The service's.
    pub service: u32,
    /// The backend's.
    pub backend: u32,
}

/// How full a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// What it holds, as people say.
    pub name: &'static str,
    /// Entries in it; a flow has two, a UDP socket one more than VIPs.
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
            choices: pinned(&dir, "LB_SOCK_CHOICES")?,
            sockets_room: sizes.sockets,
            others: Fills::open(&dir)?,
            tries: PerCpu::open(&dir, "LB_SNAT_TRIES")?,
            loads: Loads::open(&dir, sizes)?,
        })
    }

    /// Removes the flows that are over, counts the others, puts right how many the programs think there are, and says
    /// which of the places `asked` have any. Takes about a quarter of a second for a million entries; blocks.
    ///
    /// # Errors
    ///
    /// If a table cannot be read, or a count not written.
    pub fn collect(&mut self, asked: Arc<Places>) -> Result<Census> {
        let mut census = Census {
            asked,
            ..Census::default()
        };
        let before = self.loads.read()?;
        for table in &mut self.v4 {
            table.collect(&before, &mut census)?;
        }
        for table in &mut self.v6 {
            table.collect(&before, &mut census)?;
        }
        self.count_sockets(&before, &mut census)?;
        census.tables.extend(self.others.read()?);
        census.tries = self
            .tries
            .sums(SNAT_TRIES as usize + 1, |sum, cpu| *sum += cpu)?;
        self.loads.correct(&before, &census)?;
        Ok(census)
    }

    /// Has the flows of these backends in these services end at their next packet, and gives how many they
    /// are: of TCP the client's next packet is reset, of UDP it is given a choice anew. Blocks.
    ///
    /// # Errors
    ///
    /// If a table cannot be read or written.
    pub fn reset(&mut self, pairs: &BTreeSet<Pair>) -> Result<u64> {
        let mut reset = Census::default();
        for table in &mut self.v4 {
            table.reset(pairs, &mut reset)?;
        }
        for table in &mut self.v6 {
            table.reset(pairs, &mut reset)?;
        }
        self.loads.subtract(&reset)?;
        Ok(reset.services.values().map(|count| u64::from(*count)).sum())
    }

    /// Flows of local sockets.
    fn count_sockets(&self, before: &Before, census: &mut Census) -> Result<()> {
        let (mut sockets, mut choices) = (0, 0);
        entries(&self.sockets, |key: SockKey, peer: SockPeer| {
            sockets += 1;
            if key.proto == TCP && peer.flags & peer_flag::OPEN != 0 {
                census.count(before, peer.backend, peer.generation, peer.service);
            }
        })
        .context("cannot read LB_SOCK_PEERS")?;
        entries(&self.choices, |key: SockKey, choice: SockChoice| {
            choices += 1;
            if !key.is_head() {
                census.count(before, choice.backend, choice.generation, choice.service);
            }
        })
        .context("cannot read LB_SOCK_CHOICES")?;
        for (name, used) in [
            ("local sockets", sockets),
            ("VIPs of local UDP sockets", choices),
        ] {
            census.tables.push(Fill {
                name,
                used,
                room: self.sockets_room,
            });
        }
        Ok(())
    }
}

// === impl Census ===

impl Census {
    /// Counts a flow that can carry packets.
    fn count(&mut self, before: &Before, backend: u32, generation: u32, service: u32) {
        if before.is_current(backend, generation) {
            *self.active.entry(backend).or_default() += 1;
            *self.services.entry(service).or_default() += 1;
        }
    }

    /// Notes where a client's packets go, if it was asked about; mostly nothing is.
    fn look_for<A: Known>(&mut self, key: &FlowKey<A>) {
        if self.with_flows.count() == self.asked.count() {
            return;
        }
        let at = Endpoint {
            addr: key.dst.ip(),
            port: key.dport.get(),
            proto: u8::try_from(key.proto).unwrap_or(0),
        };
        if self.asked.vips.contains(&at.addr) {
            self.with_flows.vips.insert(at.addr);
        }
        if self.asked.at_node.contains(&at) {
            self.with_flows.at_node.insert(at);
        }
    }
}

// === impl Places ===

impl Places {
    /// How many they are.
    pub fn count(&self) -> usize {
        self.vips.len() + self.at_node.len()
    }
}

// === impl Table ===

impl<A: Known + Default> Table<A>
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
            if flow.direction == direction::REVERSE && flow.kind == backend_kind::NET {
                *census.ports.entry(flow.backend).or_default() += 1;
            }
            if flow.direction == direction::FORWARD {
                census.look_for(&key);
                if flow.tcp & CLOSED == 0 {
                    census.count(before, flow.backend, flow.generation, flow.service);
                }
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
                Err(error) if is_missing(&error) => {}
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

    /// Counts in `reset` what it ended.
    fn reset(&mut self, pairs: &BTreeSet<Pair>, reset: &mut Census) -> Result<()> {
        let mut found = Vec::new();
        self.walk(|key, flow| {
            if is_meant(pairs, &flow) {
                found.push(key);
            }
        })?;
        for key in found {
            // A packet may have changed it since it was read.
            let flow = match self.map.get(&key, 0) {
                Ok(flow) if is_meant(pairs, &flow) => flow,
                Ok(_) | Err(MapError::KeyNotFound) => continue,
                Err(error) => return Err(error.into()),
            };
            let done = match self.tcp {
                true => self.map.insert(key, ended(flow), BPF_EXIST),
                false => self.map.remove(&key),
            };
            match done {
                Ok(()) if flow.direction == direction::FORWARD && flow.tcp & CLOSED == 0 => {
                    *reset.active.entry(flow.backend).or_default() += 1;
                    *reset.services.entry(flow.service).or_default() += 1;
                }
                Ok(()) => {}
                // Evicted meanwhile.
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Every entry, some twice or not at all if the table changes meanwhile.
    pub(super) fn walk(&self, visit: impl FnMut(FlowKey<A>, Flow<A>)) -> Result<()> {
        entries(&self.fd, visit).with_context(|| format!("cannot read {}", self.name))
    }
}

/// Whether a flow is one of these, and was not told to end before.
fn is_meant<A>(pairs: &BTreeSet<Pair>, flow: &Flow<A>) -> bool {
    let pair = Pair {
        service: flow.service,
        backend: flow.backend,
    };
    flow.generation != NOBODY && pairs.contains(&pair)
}

/// The flow with a backend that is gone: the programs let go of it at the client's next packet. It is not counted any
/// more, and yet its entry stays for as long as it may be silent: without one the packet would be taken for that of a
/// flow that was evicted.
fn ended<A>(flow: Flow<A>) -> Flow<A> {
    Flow {
        generation: NOBODY,
        tcp: flow.tcp | tcp_state::PEER_CLOSED,
        ..flow
    }
}

/// Whether a write failed because the entry is not there: aya calls that missing for lookups alone.
pub(super) fn is_missing(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound => true,
        MapError::SyscallError(error) => error.io_error.raw_os_error() == Some(libc::ENOENT),
        _ => false,
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
