//! What the node looks like: interfaces, addresses, routes, and what follows from them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use netlink_packet_route::{
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
    route::RouteType,
};

use super::{
    Route,
    lookup::Table,
    route::{TABLE_LOCAL, TABLE_MAIN, Via},
    rules::Rules,
};
use crate::plan::{Neighbour, Port, Reach, RouteMtu};

/// The node at one moment. Our own routes are not part of it, so that two are equal if nothing changed
/// but what the agent did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Interfaces by index.
    pub links: BTreeMap<u32, Link>,
    /// Addresses in the kernel's order, which puts an interface's primary one first.
    pub addresses: Vec<Address>,
    /// The routes of table *local* that deliver to this node.
    local: Table,
    /// The routes of table *main*. Rules and further tables are not followed.
    main: Table,
    /// Which lookups end in table *main*.
    pub(super) rules: Rules,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC address, if it has one of six bytes.
    pub mac: Option<[u8; 6]>,
    /// The longest packet, IP header included, bytes.
    pub mtu: u32,
    /// What it is.
    pub kind: LinkKind,
    /// The bridge, bond or VRF that it is a port of.
    pub master: Option<u32>,
    /// Whether it is administratively up.
    pub up: bool,
}

/// What an interface is, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// `lo`.
    Loopback,
    /// A bridge.
    Bridge,
    /// One end of a pair whose other end is usually in a container: veth, netkit.
    Pair,
    /// A VM's network card (tun device that carries Ethernet).
    Tap,
    /// Hardware, tunnels and everything else: leads away from the node.
    Other,
}

/// An address of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Its interface.
    pub ifindex: u32,
    /// The address with the length of its prefix.
    pub net: IpNet,
    /// Whether it can be the source of packets to anywhere: global scope, neither tentative, deprecated,
    /// a duplicate nor temporary.
    pub usable: bool,
}

// === impl Topology ===

impl Topology {
    /// From dumps.
    pub fn new(links: Vec<Link>, addresses: Vec<Address>, routes: Vec<Route>) -> Self {
        let theirs = |table| {
            let routes = routes
                .iter()
                .filter(move |r| r.table == table && !r.is_ours());
            routes.cloned()
        };
        Self {
            links: links.into_iter().map(|link| (link.index, link)).collect(),
            addresses,
            local: theirs(TABLE_LOCAL)
                .filter(|r| r.kind == RouteType::Local)
                .collect(),
            main: theirs(TABLE_MAIN).collect(),
            rules: Rules::default(),
        }
    }

    /// The interface of this name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// How a backend is reached when `ifaces` lead to the outside.
    ///
    /// - *host*: the address is the node's own;
    /// - *link*: the best route is directly connected, over an interface behind which containers or VMs of
    ///   this node are: a veth, tap or bridge without a port that leads away, none of them one of `ifaces`;
    /// - *net*: everything else, also where there is no route; full NAT is always right.
    pub fn reach(&self, addr: IpAddr, ifaces: &[String]) -> Reach {
        self.reach_by(addr, ifaces, |_| 0)
    }

    /// As [`Topology::reach`], with the index that `index` gives for who gets the frames, where the route
    /// alone says that.
    pub fn reach_by(
        &self,
        addr: IpAddr,
        ifaces: &[String],
        index: impl FnOnce(Neighbour) -> u16,
    ) -> Reach {
        let addr = addr.to_canonical();
        let own = self.addresses.iter().any(|own| own.net.addr() == addr);
        if own || self.local.lookup(addr).is_some() {
            return Reach::Host;
        }
        let route = self.main.lookup(addr);
        let Some(ifindex) = route.and_then(|route| route.ifindex) else {
            return Reach::Net {
                ifindex: 0,
                next_hop: 0,
            };
        };
        if route.is_some_and(is_connected) && self.stays_inside(ifindex, ifaces) {
            return Reach::Link { ifindex };
        }
        let (next, ipv6) = (
            route.and_then(|route| next_hop(route, addr)),
            addr.is_ipv6(),
        );
        let next_hop = match next {
            Some(addr) if self.rules.are_plain(ipv6) => index(Neighbour { ifindex, addr }),
            _ => 0,
        };
        Reach::Net { ifindex, next_hop }
    }

    /// Whether frames get to an address without a router.
    pub fn is_neighbour(&self, addr: IpAddr) -> bool {
        let route = self.main.lookup(addr.to_canonical());
        route.is_some_and(|route| is_connected(route) && route.ifindex.is_some())
    }

    /// The routers of table *main*.
    pub fn routers(&self) -> BTreeSet<Neighbour> {
        let routers = self.main.routes().filter_map(|route| match route.via {
            Via::Router(addr) => Some(Neighbour {
                ifindex: route.ifindex?,
                addr,
            }),
            Via::Link | Via::Complex => None,
        });
        routers.collect()
    }

    /// The interfaces that can send, by index.
    pub fn ports(&self) -> BTreeMap<u32, Port> {
        let links = self.links.values();
        links
            .filter_map(|link| Some((link.index, link.port()?)))
            .collect()
    }

    /// Routes whose longest packet was set by hand.
    pub fn route_mtus(&self) -> Vec<RouteMtu> {
        let routes = self.main.routes().filter_map(|route| {
            Some(RouteMtu {
                ifindex: route.ifindex?,
                neighbours: match route.via {
                    Via::Link => route.dst,
                    Via::Router(addr) => addr.into(),
                    Via::Complex => return None,
                },
                mtu: route.mtu?,
            })
        });
        routes.collect()
    }

    /// The longest IP packet on the way to an address, bytes, as far as this node knows.
    pub fn mtu(&self, addr: IpAddr) -> Option<u32> {
        let route = self.main.lookup(addr.to_canonical())?;
        let link = self.links.get(&route.ifindex?)?;
        Some(route.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu)))
    }

    /// The addresses with which packets of full NAT leave by `iface`: the first usable one of each family.
    /// A port of a bridge or bond has none of its own; its master's are taken.
    pub fn snat(&self, iface: &str) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
        let Some(link) = self.link(iface) else {
            return (None, None);
        };
        let of = |index: u32| {
            let own = self
                .addresses
                .iter()
                .filter(move |a| a.usable && a.ifindex == index);
            own.map(|address| address.net.addr())
        };
        let all = || of(link.index).chain(link.master.into_iter().flat_map(of));
        let v4 = all().find_map(|addr| match addr {
            IpAddr::V4(addr) => Some(addr),
            IpAddr::V6(_) => None,
        });
        let v6 = all().find_map(|addr| match addr {
            IpAddr::V4(_) => None,
            IpAddr::V6(addr) => Some(addr),
        });
        (v4, v6)
    }

    /// Every address of the node, those of `lo` included.
    pub fn own_addresses(&self) -> BTreeSet<IpAddr> {
        self.addresses
            .iter()
            .map(|address| address.net.addr())
            .collect()
    }

    /// Prefixes that are reached without a router; never everything (`0.0.0.0/0`), never multicast.
    pub fn connected(&self) -> BTreeSet<IpNet> {
        self.main
            .routes()
            .filter(|route| is_connected(route) && route.dst.prefix_len() > 0)
            .map(|route| route.dst)
            .filter(|dst| !dst.addr().is_multicast())
            .collect()
    }

    fn stays_inside(&self, ifindex: u32, ifaces: &[String]) -> bool {
        let Some(link) = self.links.get(&ifindex) else {
            return false;
        };
        if ifaces.contains(&link.name) {
            return false;
        }
        match link.kind {
            LinkKind::Pair | LinkKind::Tap => true,
            LinkKind::Bridge => {
                let mut ports = self
                    .links
                    .values()
                    .filter(|port| port.master == Some(ifindex));
                ports.all(|port| {
                    matches!(port.kind, LinkKind::Pair | LinkKind::Tap)
                        && !ifaces.contains(&port.name)
                })
            }
            LinkKind::Loopback | LinkKind::Other => false,
        }
    }
}

fn is_connected(route: &Route) -> bool {
    route.kind == RouteType::Unicast && route.via == Via::Link
}

/// Who gets the frames for `addr`.
fn next_hop(route: &Route, addr: IpAddr) -> Option<IpAddr> {
    match route.via {
        _ if route.kind != RouteType::Unicast => None,
        Via::Link => Some(addr),
        Via::Router(router) => Some(router),
        Via::Complex => None,
    }
}

// === impl Link ===

impl Link {
    /// `None` for a message without a name.
    pub(super) fn parse(message: &LinkMessage) -> Option<Self> {
        let header = &message.header;
        let mut name = None;
        let mut mtu = 0;
        let (mut mac, mut master, mut info) = (None, None, None);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name = Some(text.clone()),
                LinkAttribute::Address(bytes) => mac = bytes.as_slice().try_into().ok(),
                LinkAttribute::Mtu(bytes) => mtu = *bytes,
                LinkAttribute::Controller(index) => master = Some(*index),
                LinkAttribute::LinkInfo(infos) => {
                    info = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        let ethernet = header.link_layer_type == LinkLayerType::Ether;
        let kind = match info {
            _ if header.flags.contains(LinkFlags::Loopback) => LinkKind::Loopback,
            Some(InfoKind::Bridge) => LinkKind::Bridge,
            Some(InfoKind::Veth | InfoKind::Netkit) => LinkKind::Pair,
            Some(InfoKind::Tun) if ethernet => LinkKind::Tap,
            _ => LinkKind::Other,
        };
        Some(Self {
            index: header.index,
            name: name?,
            mac,
            mtu,
            kind,
            master,
            up: header.flags.contains(LinkFlags::Up),
        })
    }

    /// What XDP must know to send by it; `None` while it is down or is no Ethernet.
    pub fn port(&self) -> Option<Port> {
        let mac = self.mac.filter(|_| self.up)?;
        Some(Port { mac, mtu: self.mtu })
    }
}

// === impl Address ===

impl Address {
    /// `None` for a message without an address.
    pub(super) fn parse(message: &AddressMessage) -> Option<Self> {
        let (mut local, mut address) = (None, None);
        let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(addr) => local = Some(*addr),
                AddressAttribute::Address(addr) => address = Some(*addr),
                AddressAttribute::Flags(all) => flags = *all,
                _ => {}
            }
        }
        // On a point-to-point link IFA_ADDRESS is the peer's and IFA_LOCAL our own.
        let addr = local.or(address)?;
        // For IPv6 the bit of *secondary* says *temporary* (IFA_F_TEMPORARY).
        let unusable = AddressFlags::Secondary
            | AddressFlags::Tentative
            | AddressFlags::Deprecated
            | AddressFlags::Dadfailed;
        Some(Self {
            ifindex: message.header.index,
            net: IpNet::new(addr, message.header.prefix_len).ok()?,
            usable: message.header.scope == AddressScope::Universe && !flags.intersects(unusable),
        })
    }
}
