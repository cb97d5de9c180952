//! Pure: (what the catalog wants, how this node is connected) -> what the kernel's maps shall hold.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use lb_common::{NodeConfig, addr_flag};

use crate::{
    catalog::{Desired, Weight},
    config::PortRange,
    net::Topology,
    plan::{
        BackendState, Endpoint, KernelState, Reach, Table, TableId, Wanted, WantedBackend,
        WantedService,
    },
};

/// What the operator says about this node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// The interfaces that clients come in by.
    pub(super) ifaces: Vec<String>,
    /// Source ports of full NAT.
    pub(super) snat_ports: PortRange,
    /// Clients from outside; `None`: the connected prefixes.
    pub(super) outside_allow: Option<Vec<IpNet>>,
}

/// Puts the rooms' knowledge together.
pub(super) fn wanted(desired: &Desired, topology: &Topology, node: &Node) -> Wanted {
    let services = desired
        .services
        .iter()
        .map(|(key, service)| {
            let backends = service.backends.iter().map(|backend| WantedBackend {
                addr: backend.addr,
                weight: backend.weight,
                state: BackendState::Up,
                reach: topology.reach(backend.addr.ip(), &node.ifaces),
            });
            let endpoint = Endpoint {
                addr: key.addr,
                port: key.port.get(),
                proto: key.protocol.number(),
            };
            let service = WantedService {
                flags: 0,
                fail_open: true,
                backends: backends.collect(),
            };
            (endpoint, Arc::new(service))
        })
        .collect();
    let mut node_addresses = topology.own_addresses();
    node_addresses.retain(|addr| !addr.is_loopback() && !desired.addresses.contains(addr));
    let (snat4, snat6) = snat(topology, node);
    Wanted {
        services,
        vips: desired.addresses.clone(),
        node_addresses,
        node: NodeConfig {
            snat4: snat4.map(Into::into).unwrap_or_default(),
            snat6: snat6.map(Into::into).unwrap_or_default(),
            snat_port_min: node.snat_ports.min,
            snat_ports: node.snat_ports.max - node.snat_ports.min + 1,
            ..NodeConfig::default()
        },
        sources: match &node.outside_allow {
            Some(prefixes) => prefixes.iter().map(IpNet::trunc).collect(),
            None => topology.connected().iter().map(IpNet::trunc).collect(),
        },
    }
}

/// The addresses with which full NAT leaves: the first of each family on the first interface that has one.
fn snat(topology: &Topology, node: &Node) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let each = node.ifaces.iter().map(|iface| topology.snat(iface));
    each.fold((None, None), |found, next| {
        (found.0.or(next.0), found.1.or(next.1))
    })
}

/// Adds what the maps hold and nobody has spoken of yet: until every provider has given its first
/// snapshot after a start, nothing is taken away.
///
/// Backends come back with the share of slots that they have, so a service that is only held keeps its
/// table.
pub(super) fn hold(
    mut wanted: Wanted,
    have: &KernelState,
    topology: &Topology,
    node: &Node,
) -> Wanted {
    for (addr, flags) in &have.addresses {
        if flags & addr_flag::VIP != 0 {
            wanted.vips.insert(*addr);
            wanted.node_addresses.remove(addr);
        }
    }
    for (endpoint, service) in &have.services {
        let held = wanted.services.entry(*endpoint).or_insert_with(|| {
            Arc::new(WantedService {
                fail_open: true,
                ..WantedService::default()
            })
        });
        let held = Arc::make_mut(held);
        let known: BTreeSet<_> = held.backends.iter().map(|backend| backend.addr).collect();
        let table = TableId {
            service: service.id,
            slots: service.slots,
        };
        let shares = have.tables.get(&table).map_or(&[][..], Table::shares);
        let least = shares
            .iter()
            .map(|(_, count)| *count)
            .min()
            .unwrap_or(1)
            .max(1);
        for (id, count) in shares {
            let Some(backend) = have.backends.get(id) else {
                continue;
            };
            let Some(at) = Endpoint::of(backend) else {
                continue;
            };
            let addr = (at.addr, at.port).into();
            if known.contains(&addr) {
                continue;
            }
            let share = u16::try_from((count + least / 2) / least).unwrap_or(u16::MAX);
            held.backends.push(WantedBackend {
                addr,
                weight: Weight::new(share).unwrap_or(Weight::MAX),
                state: BackendState::Up,
                reach: topology.reach(at.addr, &node.ifaces),
            });
        }
    }
    wanted
}

/// Interfaces behind which backends of this node live.
pub(super) fn link_indices(wanted: &Wanted) -> BTreeSet<u32> {
    let backends = wanted
        .services
        .values()
        .flat_map(|service| &service.backends);
    backends
        .filter_map(|backend| match backend.reach {
            Reach::Link { ifindex } => Some(ifindex),
            Reach::Host | Reach::Net { .. } => None,
        })
        .collect()
}
