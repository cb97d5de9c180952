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
    mut reach: impl FnMut(IpAddr) -> Reach,
) -> Wanted {
    let mut services: BTreeMap<_, _> = desired
        .services
        .iter()
        .map(|(key, service)| {
            let backends = service.backends.iter().map(|backend| {
                let reach = reach(backend.addr.ip());
                WantedBackend {
                    addr: backend.addr,
                    weight: backend.weight,
                    max_flows: backend.max_flows,
                    tier: tier(backend, node.zone.as_deref()),
                    state: BackendState::Up,
                    reach,
                    peer: node.peer(backend.addr.ip(), reach),
                }
            });
            let service = WantedService {
                shape: shape(&service.properties, node.dsr),
                lists: lists(&service.properties, key.addr),
                fail_open: true,
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
        external: _,
    } = properties;
    let flags = if sources.values().any(|source| *source == Source::Allow) {
        service_flag::ALLOW_LISTED
    } else if sources.is_empty() {
        0
    } else {
        service_flag::DENY_LISTED
    };
    Service {
        flags,
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
                fail_open: true,
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
                state: BackendState::Up,
                reach,
                peer: node.peer(at.addr, reach),
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
    use lb_common::{Be16, Service};

    use super::*;
    use crate::plan::TableId;

    fn at(vip: &str) -> Endpoint {
        Endpoint::new(vip.parse().unwrap(), 6)
    }

    fn node() -> Node {
        Node {
            ifaces: Vec::new(),
            snat_ports: PortRange { min: 1, max: 2 },
            node_ports: PortRange { min: 3, max: 4 },
            outside_allow: None,
            zone: None,
            peers: ["10.0.0.7".parse().unwrap()].into(),
            dsr: false,
        }
    }

    #[test]
    fn a_backend_at_a_peers_address_is_reached_by_its_agent_and_no_other_is() {
        let net = Reach::Net {
            ifindex: 2,
            next_hop: 5,
        };
        let peer = |addr: &str, reach| node().peer(addr.parse().unwrap(), reach);
        let found = peer("10.0.0.7", net);
        assert_eq!((found.family, found.ifindex, found.next_hop), (4, 2, 5));
        assert_eq!(peer("::ffff:10.0.0.7", net), found);
        assert_eq!(peer("10.0.0.8", net), Peer::default());
        assert_eq!(peer("10.0.0.7", Reach::Host), Peer::default());
        let mode = |mode, dsr| {
            let properties = Properties {
                mode,
                ..Properties::default()
            };
            shape(&properties, dsr).mode
        };
        assert_eq!(mode(Mode::Auto, false), service_mode::NAT);
        assert_eq!(mode(Mode::Auto, true), service_mode::DSR_GENEVE);
        assert_eq!(mode(Mode::Nat, true), service_mode::NAT);
        assert_eq!(mode(Mode::DsrGeneve, false), service_mode::DSR_GENEVE);
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
        hold(Wanted::default(), have, &held, &node(), |_| Reach::Host)
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

    #[test]
    fn a_held_service_keeps_what_it_is_like_and_the_backends_that_drain() {
        let mut have = kernel(&["11.0.0.1:80"]);
        let service = have.services.get_mut(&at("11.0.0.1:80")).unwrap();
        service.algorithm = algorithm::ROUND_ROBIN;
        service.max_flows = 7;
        let net = "10.0.0.0/8".parse().unwrap();
        let listed = crate::plan::Listed { service: 1, net };
        have.lists.insert(listed, source_rule::DENY);
        let draining = Backend {
            port: Be16::new(9),
            state: backend_state::DRAINING,
            ..have.backends[&1]
        };
        have.backends.insert(2, draining);
        have.backends.insert(3, crate::plan::Op::freed(4));
        let wanted = held(&have, &["11.0.0.1:80"]);
        let service = &wanted.services[&at("11.0.0.1:80")];
        assert_eq!(
            (service.shape.algorithm, service.shape.max_flows),
            (algorithm::ROUND_ROBIN, 7)
        );
        assert_eq!(*service.lists, [(net, source_rule::DENY)].into());
        assert_eq!(wanted.kept, [2].into());
    }

    #[test]
    fn a_node_asks_its_zone_first_and_backups_last() {
        let backend = |backup, zone: Option<&str>| CatalogBackend {
            addr: "10.0.0.1:80".parse().unwrap(),
            weight: Weight::ONE,
            max_flows: 0,
            backup,
            zone: zone.map(Into::into),
            task: "task".into(),
            app: "app".into(),
            provider: crate::provider::ProviderId::new("test", "a"),
            draining: None,
        };
        let tiers = |node| {
            [
                (false, Some("a")),
                (false, None),
                (true, Some("a")),
                (true, Some("b")),
            ]
            .map(|(backup, zone)| tier(&backend(backup, zone), node))
        };
        assert_eq!(tiers(Some("a")), [0, 1, 2, 3]);
        assert_eq!(tiers(None), [0, 0, 2, 2]);
    }

    #[test]
    fn a_service_at_a_port_of_the_node_is_open_to_all_sources_and_always_translated() {
        let net: IpNet = "10.0.0.0/8".parse().unwrap();
        let key = |at: &str| {
            let at: std::net::SocketAddr = at.parse().unwrap();
            ServiceKey {
                addr: at.ip(),
                port: crate::catalog::Port::new(at.port()).unwrap(),
                protocol: crate::catalog::Protocol::Tcp,
            }
        };
        let properties = Properties {
            mode: Mode::DsrL2,
            rate: 9,
            sources: [(net, Source::Deny)].into(),
            ..Properties::default()
        };
        let service = crate::catalog::Service {
            name: None,
            properties: properties.into(),
            backends: Vec::new(),
        };
        let desired = Desired {
            services: [(key("11.0.0.1:80"), service)].into(),
            external: [
                (key("10.0.0.1:10000"), key("11.0.0.1:80")),
                (key("10.0.0.1:10001"), key("11.0.0.9:80")),
            ]
            .into(),
            ..Desired::default()
        };
        let wanted = wanted(&desired, &Topology::default(), &node(), |_| Reach::Host);
        let shape = |at_: &str| {
            let shape = wanted.services[&at(at_)].shape;
            (shape.flags, shape.mode, shape.rate)
        };
        let listed = service_flag::DENY_LISTED;
        assert_eq!(shape("11.0.0.1:80"), (listed, service_mode::DSR_L2, 9));
        assert_eq!(
            shape("10.0.0.1:10000"),
            (listed | service_flag::EXTERNAL, service_mode::NAT, 9)
        );
        let lists = |at_: &str| wanted.services[&at(at_)].lists.clone();
        assert_eq!(lists("10.0.0.1:10000"), lists("11.0.0.1:80"));
        assert_eq!(wanted.services.len(), 2, "a port of nobody is no service");
    }

    #[test]
    fn properties_become_the_kernels_and_lists_those_of_the_family() {
        let (allow, deny): (IpNet, IpNet) =
            ("10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap());
        let mut properties = Properties {
            mode: Mode::DsrIpip,
            balance: Balance::Source,
            affinity: 5,
            sources: [(deny, Source::Deny)].into(),
            ..Properties::default()
        };
        assert_eq!(
            shape(&Properties::default(), false),
            WantedService::default().shape
        );
        let denying = shape(&properties, false);
        assert_eq!(denying.flags, service_flag::DENY_LISTED);
        assert_eq!(
            (denying.mode, denying.algorithm),
            (service_mode::DSR_IPIP, algorithm::SOURCE)
        );
        assert_eq!(denying.affinity, 5);
        properties.sources.insert(allow, Source::Allow);
        // Over IPv6 as well: nobody there is allowed.
        assert_eq!(shape(&properties, false).flags, service_flag::ALLOW_LISTED);
        let vip = |addr: &str| addr.parse().unwrap();
        let of = |addr| lists(&properties, vip(addr));
        assert_eq!(*of("11.0.0.1"), [(allow, source_rule::ALLOW)].into());
        assert_eq!(*of("fd01:c::1"), [(deny, source_rule::DENY)].into());
    }
}
