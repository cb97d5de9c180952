//! Pure: (what the catalog wants, how this node is connected) -> what the kernel's maps shall hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use lb_common::{
    Backend, NodeConfig, Peer, Service, addr_flag, algorithm, backend_state, service_flag,
    service_mode, source_rule,
};

use crate::{
    catalog::{Balance, CatalogBackend, Desired, Mode, Properties, ServiceKey, Source, Weight},
    config::PortRange,
    net::Topology,
    plan::{
        BackendState, Endpoint, KernelState, Reach, Table, TableId, Wanted, WantedBackend,
        WantedService,
    },
};

use super::standing::Voices;

/// What the operator says about this node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// The interfaces that clients come in by.
    pub(super) ifaces: Vec<String>,
    /// Source ports of full NAT.
    pub(super) snat_ports: PortRange,
    /// Ports of its own addresses at which services may stand.
    pub(super) node_ports: PortRange,
    /// Clients from outside; `None`: the connected prefixes.
    pub(super) outside_allow: Option<Vec<IpNet>>,
    /// The zone that it is in.
    pub(super) zone: Option<String>,
    /// Other nodes with an agent.
    pub(super) peers: BTreeSet<IpAddr>,
    /// Whether backends on them answer directly where a service does not say otherwise.
    pub(super) dsr: bool,
}

// === impl Node ===

impl Node {
    /// The agent of a backend's host: its own address says so where that is a peer's.
    fn peer(&self, addr: IpAddr, reach: Reach) -> Peer {
        match reach {
            Reach::Net { ifindex, next_hop } if self.peers.contains(&addr.to_canonical()) => Peer {
                addr: Endpoint::wide(addr.to_canonical()),
                ifindex,
                next_hop,
                family: if addr.to_canonical().is_ipv4() { 4 } else { 6 },
                pad: 0,
            },
            _ => Peer::default(),
        }
    }
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
    voices: &Voices<'_>,
    mut reach: impl FnMut(IpAddr) -> Reach,
) -> Wanted {
    let mut services: BTreeMap<_, _> = desired
        .services
        .iter()
        .map(|(key, service)| {
            let front = voices.front(key, service);
            let backends = service.backends.iter().filter_map(|backend| {
                let mut standing = voices.standing(key, service, backend);
                if standing.gone {
                    return None;
                }
                // Nobody takes new flows, and what there is goes on.
                if front.stopped && standing.state == BackendState::Up {
                    (standing.share, standing.state) = (Weight::DRAIN, BackendState::Draining);
                }
                let reach = reach(backend.addr.ip());
                Some(WantedBackend {
                    addr: backend.addr,
                    weight: standing.share,
                    max_flows: standing.limit,
                    tier: tier(backend, node.zone.as_deref()),
                    state: standing.state,
                    reach,
                    peer: node.peer(backend.addr.ip(), reach),
                })
            });
            let mut shape = shape(&service.properties, node.dsr);
            shape.max_flows = front.limit.unwrap_or(shape.max_flows);
            let service = WantedService {
                shape,
                lists: lists(&service.properties, key.addr),
                fail_open: !service.properties.fail_closed && !front.stopped,
                backends: backends.collect(),
            };
            (endpoint(key), Arc::new(service))
        })
        .collect();
    let external = desired.external.iter();
    let external: Vec<_> = external
        .filter_map(|(at, of)| Some((endpoint(at), outside(services.get(&endpoint(of))?))))
        .collect();
    services.extend(external);
    let (snat4, snat6) = snat(topology, node);
    Wanted {
        services,
        vips: desired.addresses.clone(),
        node_addresses: node_addresses(desired, topology),
        node: NodeConfig {
            snat4: snat4.map(Into::into).unwrap_or_default(),
            snat6: snat6.map(Into::into).unwrap_or_default(),
            snat_port_min: node.snat_ports.min,
            snat_ports: node.snat_ports.max - node.snat_ports.min + 1,
            peer_mtu: peer_mtu(topology, node),
            ..NodeConfig::default()
        },
        sources: match &node.outside_allow {
            Some(prefixes) => prefixes.iter().map(IpNet::trunc).collect(),
            None => topology.connected().iter().map(IpNet::trunc).collect(),
        },
        peers: senders(topology, node),
        kept: BTreeSet::new(),
    }
}

/// The nodes that may send packets for backends of this one.
fn senders(topology: &Topology, node: &Node) -> BTreeSet<IpAddr> {
    &node.peers - &topology.own_addresses()
}

/// The longest packet on the way to every peer, which is taken for that on the way back; 0 without any.
fn peer_mtu(topology: &Topology, node: &Node) -> u16 {
    let mtus = senders(topology, node)
        .into_iter()
        .filter_map(|peer| topology.mtu(peer));
    let least = mtus.min().unwrap_or(0);
    u16::try_from(least).unwrap_or(u16::MAX)
}

/// The service at a port of the node's own. Whoever reaches the node may use it, as far as its list of sources lets
/// him. A backend carries the VIP at most, and not the node's address, so there is no direct server return.
fn outside(service: &Arc<WantedService>) -> Arc<WantedService> {
    let shape = Service {
        flags: service.shape.flags | service_flag::EXTERNAL,
        mode: service_mode::NAT,
        ..service.shape
    };
    Arc::new(WantedService {
        shape,
        ..WantedService::clone(service)
    })
}

/// The node's own addresses, as far as others know them.
pub(super) fn node_addresses(desired: &Desired, topology: &Topology) -> BTreeSet<IpAddr> {
    let mut addresses = topology.own_addresses();
    addresses.retain(|addr| !addr.is_loopback() && !desired.addresses.contains(addr));
    addresses
}

/// Who is asked first: backends of the node's zone, then all others, then backups of its zone, then all backups.
pub(super) fn tier(backend: &CatalogBackend, zone: Option<&str>) -> u8 {
    let elsewhere = zone.is_some_and(|zone| backend.zone.as_deref() != Some(zone));
    2 * u8::from(backend.backup) + u8::from(elsewhere)
}

/// A service's properties in the kernel's words.
fn shape(properties: &Properties, dsr: bool) -> Service {
    let Properties {
        mode,
        balance,
        affinity,
        max_flows,
        rate,
        source_rate,
        idle,
        sources,
        refuses,
        external: _,
        called: _,
        groups: _,
        check: _,
        fail_closed: _,
        slow_start: _,
        drain: _,
    } = properties;
    let listed = if sources.values().any(|source| *source == Source::Allow) {
        service_flag::ALLOW_LISTED
    } else if sources.is_empty() {
        0
    } else {
        service_flag::DENY_LISTED
    };
    let refuses = if *refuses { service_flag::REFUSES } else { 0 };
    Service {
        flags: listed | refuses,
        idle_tcp: idle.tcp,
        idle_udp: idle.udp,
        idle_udp_two_way: idle.udp_two_way,
        affinity: *affinity,
        max_flows: *max_flows,
        rate: *rate,
        source_rate: *source_rate,
        algorithm: match balance {
            Balance::Maglev => algorithm::MAGLEV,
            Balance::LeastConn => algorithm::LEAST_CONN,
            Balance::RoundRobin => algorithm::ROUND_ROBIN,
            Balance::Source => algorithm::SOURCE,
        },
        mode: match mode {
            Mode::DsrGeneve => service_mode::DSR_GENEVE,
            Mode::Auto if dsr => service_mode::DSR_GENEVE,
            Mode::Auto | Mode::Nat => service_mode::NAT,
            Mode::DsrIpip => service_mode::DSR_IPIP,
            Mode::DsrL2 => service_mode::DSR_L2,
        },
        ..Service::default()
    }
}

/// The service's list of sources, as far as it is about the VIP's family.
fn lists(properties: &Properties, vip: IpAddr) -> Arc<BTreeMap<IpNet, u32>> {
    let of_family = |net: &IpNet| net.addr().is_ipv4() == vip.is_ipv4();
    let sources = properties.sources.iter();
    let rule = |source: &Source| match source {
        Source::Allow => source_rule::ALLOW,
        Source::Deny => source_rule::DENY,
    };
    let listed = sources.filter(|(net, _)| of_family(net));
    Arc::new(
        listed
            .map(|(net, source)| (net.trunc(), rule(source)))
            .collect(),
    )
}

/// The addresses with which full NAT leaves: the first of each family on the first interface that has one.
pub(super) fn snat(topology: &Topology, node: &Node) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let each = node.ifaces.iter().map(|iface| topology.snat(iface));
    each.fold((None, None), |found, next| {
        (found.0.or(next.0), found.1.or(next.1))
    })
}

/// Adds what the maps hold of the services `held`, which may be of a provider that was not read since the start:
/// nothing of them is taken away.
///
/// An address is held with a service at it; where the maps hold none, nobody can tell whose it is. Backends come
/// back with the share of slots that they have, so a service that is only held keeps its table. A backend that no
/// table names, since it drains or stands by, keeps its flows.
pub(super) fn hold(
    mut wanted: Wanted,
    have: &KernelState,
    held: &BTreeSet<Endpoint>,
    node: &Node,
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
    let named: BTreeSet<u32> = have.tables.values().flat_map(Table::ids).collect();
    let idle = |(id, backend): &(&u32, &Backend)| {
        backend.state != backend_state::FREE && !named.contains(id)
    };
    wanted.kept = have
        .backends
        .iter()
        .filter(idle)
        .map(|(id, _)| *id)
        .collect();
    for (endpoint, service) in have.services.iter().filter(|(at, _)| held.contains(at)) {
        let held = wanted.services.entry(*endpoint).or_insert_with(|| {
            let lists = have.lists.iter();
            let lists = lists.filter(|(listed, _)| listed.service == service.id);
            Arc::new(WantedService {
                shape: *service,
                lists: Arc::new(lists.map(|(listed, rule)| (listed.net, *rule)).collect()),
                fail_open: fails_open(have, service),
                backends: Vec::new(),
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
            let reach = reach(at.addr);
            let share = u16::try_from((count + least / 2) / least).unwrap_or(u16::MAX);
            held.backends.push(WantedBackend {
                addr,
                weight: Weight::new(share).unwrap_or(Weight::MAX),
                max_flows: have.limits.get(id).map_or(0, |limit| limit.max_flows),
                tier: 0,
                state: match backend.state {
                    backend_state::DOWN => BackendState::Down,
                    _ => BackendState::Up,
                },
                reach,
                peer: node.peer(at.addr, reach),
            });
        }
    }
    wanted
}

/// Whether a service that is only held goes on to fail open: one that has backends, all of them down, and yet does
/// not, was told not to.
fn fails_open(have: &KernelState, service: &Service) -> bool {
    let table = TableId {
        service: service.id,
        slots: service.slots,
    };
    let ids = have.tables.get(&table).into_iter().flat_map(Table::ids);
    let mut backends = ids.filter_map(|id| have.backends.get(&id)).peekable();
    service.flags & service_flag::FAIL_OPEN != 0
        || backends.peek().is_none()
        || backends.any(|backend| backend.state != backend_state::DOWN)
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
mod tests;
