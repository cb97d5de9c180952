//! A plan: map operations as plain data, in the order in which they must be done.

use std::{fmt, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use lb_common::{
    Backend, BackendLimit, NodeConfig, Peer, Service, addr_flag, backend_kind, backend_state,
    service_flag, source_rule,
};

use super::{
    Endpoint, Listed, Local, Table, TableId, WantedService, algorithm_name, maglev, mode_name,
};

/// Backends of a table that its text names; a table may have hundreds.
const NAMED_IN_TEXT: usize = 8;

/// One operation on the kernel's maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes a backend.
    PutBackend {
        /// Index into the array.
        id: u32,
        /// Its new value.
        value: Backend,
    },
    /// Writes what a backend may take on.
    PutLimit {
        /// Index into the array.
        id: u32,
        /// Its new value; the default takes every limit away.
        value: BackendLimit,
    },
    /// Makes a table and puts it in the place of the one of the same name, at one stroke. Once it is done,
    /// no packet is under way that looked something up before: the kernel waits for that whenever a map in a
    /// map is replaced (`maybe_wait_bpf_programs` in `kernel/bpf/syscall.c`, 4.20 and later).
    PutTable {
        /// Which one.
        table: TableId,
        /// A backend id for each slot.
        slots: Arc<[u32]>,
        /// The same in short.
        content: Table,
    },
    /// Writes a service.
    PutService {
        /// VIP, port, protocol.
        key: Endpoint,
        /// Its new value.
        value: Service,
    },
    /// Writes an address into the destination filter.
    PutAddress {
        /// The address.
        addr: IpAddr,
        /// Bits of [`addr_flag`].
        flags: u32,
    },
    /// Writes the node's settings.
    PutNode(NodeConfig),
    /// Permits a source.
    PutSource(IpNet),
    /// Writes what a service says of a source.
    PutListed {
        /// Whose list, and the prefix.
        listed: Listed,
        /// One of [`source_rule`].
        rule: u32,
    },
    /// Writes whose host's agent a backend is reached by.
    PutHost {
        /// Index into the array.
        id: u32,
        /// Its new value; the default says that there is none.
        value: Peer,
    },
    /// Takes packets from a peer.
    PutPeer(IpAddr),
    /// Writes the id of a backend of this node, as peers name it.
    PutLocal {
        /// Its name.
        local: Local,
        /// Its id.
        id: u32,
    },
    /// Takes packets from a peer no more.
    DeletePeer(IpAddr),
    /// Lets peers name a backend no more.
    DeleteLocal(Local),
    /// Removes a service.
    DeleteService(Endpoint),
    /// Takes an address out of the destination filter.
    DeleteAddress(IpAddr),
    /// Permits a source no more.
    DeleteSource(IpNet),
    /// Has a service say nothing of a source any more.
    DeleteListed(Listed),
    /// Waits until no packet is under way that looked something up before the operations so far (an
    /// RCU grace period). What follows takes away what nothing names any more.
    Grace,
    /// Makes a service's id fit for another one: what it counted, and which client had which backend, is gone.
    ForgetService(u32),
    /// Removes a table.
    DeleteTable(TableId),
    /// Writes [`Op::freed`] into the backend array: its flows are reset or chosen afresh.
    FreeBackend {
        /// Index into the array.
        id: u32,
        /// The generation it has and keeps.
        generation: u32,
    },
}

/// What to do, in order, and what cannot be done.
///
/// The order is the one that keeps the promise *no packet ever finds a service that names a missing
/// backend*, whatever fails in between (see [`super::plan`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The operations.
    pub ops: Vec<Op>,
    /// What was left out and why, one sentence each.
    pub problems: Vec<String>,
}

// === impl Op ===

impl Op {
    /// The value of a backend that is not in use.
    pub fn freed(generation: u32) -> Backend {
        Backend {
            state: backend_state::FREE,
            generation,
            ..Backend::default()
        }
    }

    /// Whether it is about whom packets are taken from, and for which destinations.
    pub fn is_of_filters(&self) -> bool {
        matches!(
            self,
            Self::PutAddress { .. }
                | Self::PutSource(_)
                | Self::PutListed { .. }
                | Self::PutPeer(_)
                | Self::DeleteAddress(_)
                | Self::DeleteSource(_)
                | Self::DeleteListed(_)
                | Self::DeletePeer(_)
        )
    }

    /// Whether it only takes away.
    pub fn removes(&self) -> bool {
        matches!(
            self,
            Self::DeleteService(_)
                | Self::DeleteAddress(_)
                | Self::DeleteSource(_)
                | Self::DeleteListed(_)
                | Self::DeletePeer(_)
                | Self::DeleteLocal(_)
                | Self::DeleteTable(_)
                | Self::FreeBackend { .. }
        )
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PutBackend { id, value } => {
                write!(f, "put backend {id} ")?;
                write_backend(f, value)
            }
            Self::PutTable {
                table,
                slots,
                content,
            } => {
                write!(f, "put table {table} ")?;
                write_slots(f, slots, content)
            }
            Self::PutService { key, value } => {
                write!(f, "put service {key} id {} slots {}", value.id, value.slots)?;
                for (bit, name) in [
                    (service_flag::FAIL_OPEN, "fail-open"),
                    (service_flag::EXTERNAL, "external"),
                    (service_flag::ALLOW_LISTED, "allow-listed"),
                    (service_flag::DENY_LISTED, "deny-listed"),
                    (service_flag::REFUSES, "refuses"),
                ] {
                    if value.flags & bit != 0 {
                        write!(f, " {name}")?;
                    }
                }
                write_shape(f, value)
            }
            Self::PutLimit { id, value } => {
                write!(
                    f,
                    "put limit {id} flows {} weight {}",
                    value.max_flows, value.weight
                )
            }
            Self::PutListed { listed, rule } => {
                let rule = if *rule == source_rule::ALLOW {
                    "allow"
                } else {
                    "deny"
                };
                write!(f, "put list of {} {rule} {}", listed.service, listed.net)
            }
            Self::DeleteListed(listed) => {
                write!(f, "delete from list of {} {}", listed.service, listed.net)
            }
            Self::ForgetService(id) => write!(f, "forget service {id}"),
            Self::PutAddress { addr, flags } => {
                write!(f, "put address {addr}")?;
                for (bit, name) in [(addr_flag::VIP, "vip"), (addr_flag::NODE, "node")] {
                    if flags & bit != 0 {
                        write!(f, " {name}")?;
                    }
                }
                Ok(())
            }
            Self::PutNode(node) => {
                let v4 = std::net::Ipv4Addr::from(node.snat4);
                let v6 = std::net::Ipv6Addr::from(node.snat6);
                let (first, count) = (node.snat_port_min, node.snat_ports);
                write!(f, "put node snat {v4} {v6} ports {first}+{count}")?;
                if node.route_epoch != 0 {
                    write!(f, " epoch {}", node.route_epoch)?;
                }
                match node.peer_mtu {
                    0 => Ok(()),
                    mtu => write!(f, " peers' mtu {mtu}"),
                }
            }
            Self::PutSource(net) => write!(f, "put source {net}"),
            Self::PutHost { id, value } => match value.family {
                0 => write!(f, "put host {id} none"),
                _ => write!(f, "put host {id} peer via {}", value.next_hop),
            },
            Self::PutPeer(addr) => write!(f, "put peer {addr}"),
            Self::DeletePeer(addr) => write!(f, "delete peer {addr}"),
            Self::PutLocal { local, id } => {
                write!(f, "put local {} {} {id}", local.service, local.addr)
            }
            Self::DeleteLocal(local) => {
                write!(f, "delete local {} {}", local.service, local.addr)
            }
            Self::DeleteService(key) => write!(f, "delete service {key}"),
            Self::DeleteAddress(addr) => write!(f, "delete address {addr}"),
            Self::DeleteSource(net) => write!(f, "delete source {net}"),
            Self::Grace => f.write_str("grace"),
            Self::DeleteTable(table) => write!(f, "delete table {table}"),
            Self::FreeBackend { id, generation } => {
                write!(f, "free backend {id} generation {generation}")
            }
        }
    }
}

/// The properties that are not what a service has without any.
fn write_shape(f: &mut fmt::Formatter<'_>, value: &Service) -> fmt::Result {
    let usual = WantedService::default().shape;
    if value.algorithm != usual.algorithm {
        write!(f, " {}", algorithm_name(value.algorithm))?;
    }
    if value.mode != usual.mode {
        write!(f, " {}", mode_name(value.mode))?;
    }
    for (name, value, usual) in [
        ("affinity", value.affinity, usual.affinity),
        ("max-flows", value.max_flows, usual.max_flows),
        ("rate", value.rate, usual.rate),
        ("source-rate", value.source_rate, usual.source_rate),
        ("idle-tcp", value.idle_tcp, usual.idle_tcp),
        ("idle-udp", value.idle_udp, usual.idle_udp),
        (
            "idle-udp-two-way",
            value.idle_udp_two_way,
            usual.idle_udp_two_way,
        ),
    ] {
        if value != usual {
            write!(f, " {name} {value}")?;
        }
    }
    Ok(())
}

fn write_backend(f: &mut fmt::Formatter<'_>, value: &Backend) -> fmt::Result {
    match Endpoint::of(value) {
        Some(endpoint) => write!(f, "{endpoint}")?,
        None => f.write_str("nobody")?,
    }
    f.write_str(match value.state {
        backend_state::ACTIVE => " active",
        backend_state::DRAINING => " draining",
        backend_state::DOWN => " down",
        _ => " free",
    })?;
    match value.kind {
        backend_kind::HOST => f.write_str(" host")?,
        backend_kind::LINK => write!(f, " link {}", value.ifindex)?,
        _ if value.next_hop == 0 => f.write_str(" net")?,
        _ => write!(f, " net via {}", value.next_hop)?,
    }
    write!(f, " generation {}", value.generation)
}

/// Slots of each backend, and a hash of the whole.
fn write_slots(f: &mut fmt::Formatter<'_>, slots: &[u32], content: &Table) -> fmt::Result {
    let counts = content.shares();
    for (id, count) in counts.iter().take(NAMED_IN_TEXT) {
        write!(f, "{id}:{count} ")?;
    }
    if counts.len() > NAMED_IN_TEXT {
        write!(f, "... {} backends ", counts.len())?;
    }
    let text: String = slots.iter().map(|id| format!("{id},")).collect();
    write!(f, "#{:08x}", maglev::hash(&text) >> 32)
}

// === impl Plan ===

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for op in &self.ops {
            writeln!(f, "{op}")?;
        }
        for problem in &self.problems {
            writeln!(f, "problem: {problem}")?;
        }
        Ok(())
    }
}

// === impl TableId ===

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.slots)
    }
}
