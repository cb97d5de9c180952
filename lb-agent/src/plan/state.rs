//! What the pinned maps hold and what we want them to hold, as plain data.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use lb_common::{
    Backend, BackendLimit, IDLE_TCP, IDLE_UDP, IDLE_UDP_TWO_WAY, NodeConfig, Peer, Service,
};

use super::{Endpoint, Op, Table};
use crate::catalog::Weight;

/// What the pinned maps hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelState {
    /// The services by VIP, port and protocol.
    pub services: BTreeMap<Endpoint, Service>,
    /// The backends by id, the free ones that were in use before (generation above 0) included: a
    /// generation must outlive its backend, or old flows would follow the id to the next one.
    pub backends: BTreeMap<u32, Backend>,
    /// What backends may take on, by id; those without any limit are missing.
    pub limits: BTreeMap<u32, BackendLimit>,
    /// The Maglev tables.
    pub tables: BTreeMap<TableId, Table>,
    /// The destination filter: bits of [`lb_common::addr_flag`].
    pub addresses: BTreeMap<IpAddr, u32>,
    /// The node's settings; all zeros when nothing was ever written.
    pub node: NodeConfig,
    /// Sources that may reach services from outside.
    pub sources: BTreeSet<IpNet>,
    /// What services say of sources: one of [`lb_common::source_rule`] each.
    pub lists: BTreeMap<Listed, u32>,
    /// The agents of backends' hosts, by backend id; those without any are missing.
    pub hosts: BTreeMap<u32, Peer>,
    /// Agents that may send packets for this node's backends.
    pub peers: BTreeSet<IpAddr>,
    /// This node's backends as those name them, and their ids.
    pub locals: BTreeMap<Local, u32>,
}

/// A backend of this node, as peers name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Local {
    /// Id of a service that has it.
    pub service: u32,
    /// Where it listens.
    pub addr: SocketAddr,
}

/// A prefix in the list of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Listed {
    /// Service id.
    pub service: u32,
    /// The prefix.
    pub net: IpNet,
}

/// Names a Maglev table. A service has one for each size at most, two only while it changes size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId {
    /// Service id.
    pub service: u32,
    /// Number of slots, one of the `SLOTS_` constants: which outer map it is in.
    pub slots: u32,
}

/// What the maps shall hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The services by VIP, port and protocol. One that is the same object as in the last plan is known to be
    /// unchanged without a look.
    pub services: BTreeMap<Endpoint, Arc<WantedService>>,
    /// Every leased VIP, whether a service stands at it or not: a packet for it is ours.
    pub vips: BTreeSet<IpAddr>,
    /// The node's own addresses to which replies of full NAT come.
    pub node_addresses: BTreeSet<IpAddr>,
    /// The node's settings.
    pub node: NodeConfig,
    /// Sources that may reach services from outside.
    pub sources: BTreeSet<IpNet>,
    /// Agents that may send packets for this node's backends.
    pub peers: BTreeSet<IpAddr>,
    /// Ids of backends that stay as they are although no service names them: it may yet turn out whose they are.
    pub kept: BTreeSet<u32>,
}

/// A service as the catalog wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedService {
    /// Its properties as the kernel knows them. Id, slots and the flag `FAIL_OPEN` are not the caller's to set and
    /// are ignored.
    pub shape: Service,
    /// What it says of sources, by prefix of its family without bits after it: one of
    /// [`lb_common::source_rule`] each.
    pub lists: Arc<BTreeMap<IpNet, u32>>,
    /// Whether *down* counts as *active* while every backend is down.
    pub fail_open: bool,
    /// Its backends; the same one given twice counts once, with the larger weight and better state.
    pub backends: Vec<WantedBackend>,
}

/// A backend as one service sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedBackend {
    /// Where it listens, by the service's protocol; of the VIP's family.
    pub addr: SocketAddr,
    /// Its share of new flows; with 0 it drains, whatever its state.
    pub weight: Weight,
    /// Flows at a time, 0: no limit. Where services differ the least counts: the backend is one.
    pub max_flows: u32,
    /// Backends of the lowest tier in which one takes flows are used; the others stand by.
    pub tier: u8,
    /// What checks, kernel and operator say.
    pub state: BackendState,
    /// How it is reached.
    pub reach: Reach,
    /// The agent of its host, where that is a peer; else all zeros.
    pub peer: Peer,
}

/// Whether a backend takes flows, as one service sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BackendState {
    /// Is to be taken for one that does not answer: as [`BackendState::Down`], and never failed open.
    Off,
    /// Does not answer.
    Down,
    /// Takes no new flows on purpose, keeps old ones.
    Draining,
    /// Would take flows, but a lower tier does. Not the caller's to set.
    Standby,
    /// Takes flows.
    Up,
}

/// How a backend is reached from this node: [`lb_common::backend_kind`] with what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Elsewhere on the network: full NAT.
    Net {
        /// The interface of the route to it, for where the fast path does not know the next hop.
        ifindex: u32,
        /// Index of the next hop, 0 where only the kernel can say.
        next_hop: u16,
    },
    /// The address is this host's own.
    Host,
    /// A container or VM of this node.
    Link {
        /// The interface behind which it is.
        ifindex: u32,
    },
}

/// How much the maps hold. Additions come before deletions, so a full map can refuse for one plan what
/// the next one will place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Services of one family.
    pub services: usize,
    /// Length of the backend array; ids are `1..backends`.
    pub backends: u32,
    /// Tables of `SLOTS_SMALL`, `SLOTS_MEDIUM` and `SLOTS_LARGE` slots.
    pub tables: [usize; 3],
    /// Addresses of one family in the destination filter.
    pub addresses: usize,
    /// Prefixes of one family among the allowed sources.
    pub sources: usize,
    /// Prefixes of one family in the lists of all services.
    pub listed: usize,
    /// This node's backends, once for each service.
    pub locals: usize,
}

// === impl WantedService ===

impl Default for WantedService {
    fn default() -> Self {
        Self {
            shape: Service {
                idle_tcp: IDLE_TCP,
                idle_udp: IDLE_UDP,
                idle_udp_two_way: IDLE_UDP_TWO_WAY,
                ..Service::default()
            },
            lists: Arc::default(),
            fail_open: false,
            backends: Vec::new(),
        }
    }
}

// === impl KernelState ===

impl KernelState {
    /// Takes note of an operation that the kernel has done.
    pub fn record(&mut self, op: Op) {
        let Self {
            services,
            backends,
            limits,
            tables,
            addresses,
            node,
            sources,
            lists,
            hosts,
            peers,
            locals,
        } = self;
        match op {
            Op::PutBackend { id, value } => {
                backends.insert(id, value);
            }
            Op::PutLimit { id, value } if value == BackendLimit::default() => {
                limits.remove(&id);
            }
            Op::PutLimit { id, value } => {
                limits.insert(id, value);
            }
            Op::PutTable { table, content, .. } => {
                tables.insert(table, content);
            }
            Op::PutService { key, value } => {
                services.insert(key, value);
            }
            Op::PutAddress { addr, flags } => {
                addresses.insert(addr, flags);
            }
            Op::PutNode(value) => *node = value,
            Op::PutSource(net) => {
                sources.insert(net);
            }
            Op::PutListed { listed, rule } => {
                lists.insert(listed, rule);
            }
            Op::DeleteListed(listed) => {
                lists.remove(&listed);
            }
            Op::DeleteService(key) => {
                services.remove(&key);
            }
            Op::DeleteAddress(addr) => {
                addresses.remove(&addr);
            }
            Op::DeleteSource(net) => {
                sources.remove(&net);
            }
            Op::PutHost { id, value } if value == Peer::default() => {
                hosts.remove(&id);
            }
            Op::PutHost { id, value } => {
                hosts.insert(id, value);
            }
            Op::PutPeer(addr) => {
                peers.insert(addr);
            }
            Op::DeletePeer(addr) => {
                peers.remove(&addr);
            }
            Op::PutLocal { local, id } => {
                locals.insert(local, id);
            }
            Op::DeleteLocal(local) => {
                locals.remove(&local);
            }
            Op::Grace | Op::ForgetService(_) => {}
            Op::DeleteTable(table) => {
                tables.remove(&table);
            }
            Op::FreeBackend { id, generation } => {
                backends.insert(id, Op::freed(generation));
            }
        }
    }
}
