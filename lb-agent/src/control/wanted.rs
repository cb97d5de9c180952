//! Pure: (what the catalog wants, how this node is connected) -> what the kernel's maps shall hold.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use lb_common::{NodeConfig, addr_flag};

use crate::{
    catalog::{Desired, ServiceKey, Weight},
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

/// A service as the kernel knows it.
pub(super) fn endpoint(key: &ServiceKey) -> Endpoint {
    Endpoint {
        addr: key.addr,
        port: key.port.get(),
        proto: key.protocol.number(),
    }
}

/// Puts the rooms' knowledge together; `reach` says how a backend is reached.
pub(super) fn wanted(
    desired: &Desired,
    topology: &Topology,
    node: &Node,
    mut reach: impl FnMut(IpAddr) -> Reach,
) -> Wanted {
    let services = desired
        .services
        .iter()
        .map(|(key, service)| {
            let backends = service.backends.iter().map(|backend| WantedBackend {
                addr: backend.addr,
                weight: backend.weight,
                state: BackendState::Up,
                reach: reach(backend.addr.ip()),
            });
            let service = WantedService {
                flags: 0,
                fail_open: true,
                backends: backends.collect(),
            };
            (endpoint(key), Arc::new(service))
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

/// Adds what the maps hold of the services `held`, which may be of a provider that was not read since the start:
/// nothing of them is taken away.
///
/// An address is held with a service at it; where the maps hold none, nobody can tell whose it is. Backends come
/// back with the share of slots that they have, so a service that is only held keeps its table.
pub(super) fn hold(
    mut wanted: Wanted,
    have: &KernelState,
    held: &BTreeSet<Endpoint>,
    mut reach: impl FnMut(IpAddr) -> Reach,
) -> Wanted {
    let holding: BTreeSet<IpAddr> = held.iter().map(|service| service.addr).collect();
    let serving: BTreeSet<IpAddr> = have.services.keys().map(|service| service.addr).collect();
    for (addr, flags) in &have.addresses {
        let keep = holding.contains(addr) || !serving.contains(addr);
        if flags & addr_flag::VIP != 0 && keep {
            wanted.vips.insert(*addr);
            wanted.node_addresses.remove(addr);
        }
    }
    for (endpoint, service) in have.services.iter().filter(|(at, _)| held.contains(at)) {
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
                reach: reach(at.addr),
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

#[cfg(test)]
mod tests {
    use lb_common::{Backend, Be16, Service};

    use super::*;
    use crate::plan::TableId;

    fn at(vip: &str) -> Endpoint {
        Endpoint::new(vip.parse().unwrap(), 6)
    }

    /// A kernel with one service and backend at each of these.
    fn kernel(vips: &[&str]) -> KernelState {
        let mut have = KernelState::default();
        for (id, vip) in (1..).zip(vips) {
            let service = Service {
                id,
                slots: 2,
                ..Service::default()
            };
            let backend = Backend {
                family: 4,
                addr: at("10.0.0.1:80").wide_addr(),
                port: Be16::new(8000 + id as u16),
                proto: 6,
                ..Backend::default()
            };
            let table = TableId {
                service: id,
                slots: 2,
            };
            have.services.insert(at(vip), service);
            have.backends.insert(id, backend);
            have.tables.insert(table, Table::of(&[id; 2]));
            have.addresses.insert(at(vip).addr, addr_flag::VIP);
        }
        have
    }

    fn held(have: &KernelState, of: &[&str]) -> Wanted {
        let held = of.iter().map(|vip| at(vip)).collect();
        hold(Wanted::default(), have, &held, |_| Reach::Host)
    }

    #[test]
    fn only_what_may_be_of_a_provider_that_was_not_read_is_held() {
        let have = kernel(&["11.0.0.1:80", "11.0.0.2:80"]);
        let wanted = held(&have, &["11.0.0.2:80"]);
        let services: Vec<_> = wanted.services.keys().copied().collect();
        assert_eq!(services, [at("11.0.0.2:80")]);
        assert_eq!(wanted.vips, ["11.0.0.2".parse().unwrap()].into());
        let backends = &wanted.services[&at("11.0.0.2:80")].backends;
        assert_eq!(backends[0].addr, "10.0.0.1:8002".parse().unwrap());
    }

    #[test]
    fn an_address_with_a_held_service_stays_and_so_does_one_of_nobody() {
        let mut have = kernel(&["11.0.0.1:80", "11.0.0.1:81", "11.0.0.2:80"]);
        let empty = "11.0.0.9".parse().unwrap();
        have.addresses.insert(empty, addr_flag::VIP);
        let wanted = held(&have, &["11.0.0.1:81"]);
        assert_eq!(wanted.vips, ["11.0.0.1".parse().unwrap(), empty].into());
    }
}
