//! What the pinned maps hold and what we want them to hold, as plain data.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use lb_common::{Backend, NodeConfig, Service};

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
    /// The Maglev tables.
    pub tables: BTreeMap<TableId, Table>,
    /// The destination filter: bits of [`lb_common::addr_flag`].
    pub addresses: BTreeMap<IpAddr, u32>,
    /// The node's settings; all zeros when nothing was ever written.
    pub node: NodeConfig,
    /// Sources that may reach services from outside.
    pub sources: BTreeSet<IpNet>,
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
}

/// A service as the catalog wants it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedService {
    /// Bits of [`lb_common::service_flag`]; `FAIL_OPEN` is not the caller's to set and is ignored.
    pub flags: u32,
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
    /// What checks, kernel and operator say.
    pub state: BackendState,
    /// How it is reached.
    pub reach: Reach,
}

/// Whether a backend takes flows, as one service sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BackendState {
    /// Does not answer.
    Down,
    /// Takes no new flows on purpose, keeps old ones.
    Draining,
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
}

// === impl KernelState ===

impl KernelState {
    /// Takes note of an operation that the kernel has done.
    pub fn record(&mut self, op: Op) {
        let Self {
            services,
            backends,
            tables,
            addresses,
            node,
            sources,
        } = self;
        match op {
            Op::PutBackend { id, value } => {
                backends.insert(id, value);
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
            Op::DeleteService(key) => {
                services.remove(&key);
            }
            Op::DeleteAddress(addr) => {
                addresses.remove(&addr);
            }
            Op::DeleteSource(net) => {
                sources.remove(&net);
            }
            Op::Grace => {}
            Op::DeleteTable(table) => {
                tables.remove(&table);
            }
            Op::FreeBackend { id, generation } => {
                backends.insert(id, Op::freed(generation));
            }
        }
    }
}
