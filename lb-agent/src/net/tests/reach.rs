//! How a backend is reached, over made-up dumps.

use ipnet::IpNet;
use netlink_packet_route::route::{RouteScope, RouteType};

use crate::{
    net::{Address, Link, LinkKind, Route, Topology, Via, route::TABLE_MAIN},
    plan::Reach,
};

fn link(index: u32, name: &str, kind: LinkKind, master: Option<u32>) -> Link {
    Link {
        index,
        name: name.to_owned(),
        mac: None,
        mtu: 1500,
        kind,
        master,
        up: true,
    }
}

fn route(dst: &str, ifindex: u32) -> Route {
    Route {
        dst: dst.parse().unwrap(),
        table: TABLE_MAIN,
        kind: RouteType::Unicast,
        protocol: 2,
        scope: RouteScope::Link,
        metric: 0,
        ifindex: Some(ifindex),
        via: Via::Link,
        mtu: None,
    }
}

/// Full NAT by an interface, the next hop not asked for.
fn net(ifindex: u32) -> Reach {
    Reach::Net {
        ifindex,
        next_hop: 0,
    }
}

fn reach(links: Vec<Link>, routes: Vec<Route>, addr: &str) -> Reach {
    let node = Topology::new(links, Vec::new(), routes);
    node.reach(addr.parse().unwrap(), &["eth0".to_owned()])
}

#[test]
fn the_most_specific_route_decides_and_then_the_smaller_metric() {
    let links = || {
        vec![
            link(2, "a", LinkKind::Pair, None),
            link(3, "b", LinkKind::Pair, None),
        ]
    };
    let wide = || route("10.0.0.0/8", 2);
    let narrow = route("10.1.0.0/16", 3);
    assert_eq!(
        reach(links(), vec![wide(), narrow], "10.1.0.1"),
        Reach::Link { ifindex: 3 }
    );
    let dear = Route {
        metric: 9,
        ..route("10.0.0.0/8", 3)
    };
    assert_eq!(
        reach(links(), vec![dear, wide()], "10.1.0.1"),
        Reach::Link { ifindex: 2 }
    );
}

#[test]
fn a_router_in_between_and_a_forbidding_route_mean_net() {
    let links = || vec![link(2, "a", LinkKind::Pair, None)];
    let routed = Route {
        via: Via::Router("10.0.0.254".parse().unwrap()),
        ..route("10.0.0.0/8", 2)
    };
    assert_eq!(reach(links(), vec![routed], "10.0.0.1"), net(2));
    let dead_end = Route {
        kind: RouteType::BlackHole,
        ..route("10.0.0.0/16", 2)
    };
    let routes = vec![route("10.0.0.0/8", 2), dead_end];
    assert_eq!(reach(links(), routes, "10.0.0.1"), net(2));
    assert_eq!(reach(links(), Vec::new(), "10.0.0.1"), net(0));
}

#[test]
fn a_bridge_with_a_port_that_leads_away_is_an_uplink() {
    let bridge = || link(5, "br0", LinkKind::Bridge, None);
    let port = |name, kind| vec![bridge(), link(6, name, kind, Some(5))];
    let routes = || vec![route("10.0.0.0/24", 5)];
    let inside = reach(port("veth1", LinkKind::Pair), routes(), "10.0.0.2");
    assert_eq!(inside, Reach::Link { ifindex: 5 });
    assert_eq!(
        reach(port("ens3", LinkKind::Other), routes(), "10.0.0.2"),
        net(5)
    );
    assert_eq!(
        reach(port("eth0", LinkKind::Pair), routes(), "10.0.0.2"),
        net(5)
    );
}

#[test]
fn a_second_network_card_leads_away_and_so_does_a_given_interface() {
    let routes = || vec![route("10.0.0.0/24", 2)];
    let card = vec![link(2, "eth1", LinkKind::Other, None)];
    assert_eq!(reach(card, routes(), "10.0.0.2"), net(2));
    let given = vec![link(2, "eth0", LinkKind::Pair, None)];
    assert_eq!(reach(given, routes(), "10.0.0.2"), net(2));
}

#[test]
fn a_port_of_a_bridge_leaves_with_its_masters_addresses() {
    let links = vec![
        link(2, "eth0", LinkKind::Other, Some(3)),
        link(3, "br0", LinkKind::Bridge, None),
    ];
    let address = |net: &str, usable| Address {
        ifindex: 3,
        net: net.parse::<IpNet>().unwrap(),
        usable,
    };
    let addresses = vec![
        address("10.0.0.1/24", true),
        address("fe80::1/64", false),
        address("fd00::1/64", true),
    ];
    let node = Topology::new(links, addresses, Vec::new());
    let expected = (Some([10, 0, 0, 1].into()), Some("fd00::1".parse().unwrap()));
    assert_eq!(node.snat("eth0"), expected);
}

#[test]
fn of_two_routes_that_are_as_good_only_the_kernel_can_tell() {
    let by = |router: &str| Route {
        via: Via::Router(router.parse().unwrap()),
        ..route("10.0.0.0/8", 2)
    };
    let next_hop = |routes| {
        let links = vec![link(2, "eth0", LinkKind::Other, None)];
        let node = Topology::new(links, Vec::new(), routes);
        let reach = node.reach_by("10.0.0.1".parse().unwrap(), &["eth0".to_owned()], |_| 7);
        match reach {
            Reach::Net { next_hop, .. } => next_hop,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(next_hop(vec![by("10.9.0.1")]), 7);
    assert_eq!(next_hop(vec![by("10.9.0.1"), by("10.9.0.1")]), 7);
    assert_eq!(next_hop(vec![by("10.9.0.1"), by("10.9.0.2")]), 0);
}
