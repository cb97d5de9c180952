//! Which modes are refused, and why.

use ipnet::IpNet;
use netlink_packet_route::route::{RouteScope, RouteType};

use super::*;
use crate::{
    admin::orders::Which,
    catalog::{CatalogBackend, Properties},
    config::PortRange,
    net::{Address, Link, LinkKind, Route, Via},
};

const VIP: &str = "10.99.0.1:80";

/// `eth0` with 10.0.0.1/24, a router behind it, and a container's veth.
fn topology() -> Topology {
    let link = |index, name: &str, kind| Link {
        index,
        name: name.into(),
        mac: None,
        mtu: 1500,
        kind,
        master: None,
        up: true,
    };
    let route = |dst: &str, ifindex, via| Route {
        dst: dst.parse().unwrap(),
        table: 254,
        kind: RouteType::Unicast,
        protocol: 2,
        scope: RouteScope::Universe,
        metric: 0,
        ifindex: Some(ifindex),
        via,
        mtu: None,
    };
    let own: IpNet = "10.0.0.1/24".parse().unwrap();
    let router = Via::Router("10.0.0.254".parse().unwrap());
    Topology::new(
        vec![
            link(2, "eth0", LinkKind::Other),
            link(3, "veth0", LinkKind::Pair),
        ],
        vec![Address {
            ifindex: 2,
            net: own,
            usable: true,
        }],
        vec![
            route("10.0.0.0/24", 2, Via::Link),
            route("172.17.0.2/32", 3, Via::Link),
            route("fd00::/64", 2, Via::Link),
            route("0.0.0.0/0", 2, router),
        ],
    )
}

fn node() -> Node {
    Node {
        ifaces: vec!["eth0".into()],
        snat_ports: PortRange { min: 1, max: 2 },
        node_ports: PortRange { min: 3, max: 4 },
        outside_allow: None,
        zone: None,
        peers: ["10.0.0.7", "fd00::7"]
            .map(|addr| addr.parse().unwrap())
            .into(),
        dsr: false,
    }
}

/// What becomes of a service of this mode: `None`, or why it is refused.
fn refusal(mode: Mode, vip: &str, backends: &[&str]) -> Option<String> {
    let key = ServiceKey::tcp;
    let backend = |addr: &&str| CatalogBackend::plain(addr);
    let service = |mode| Service {
        name: None,
        properties: Properties {
            mode,
            ..Properties::default()
        }
        .into(),
        backends: backends.iter().map(backend).collect(),
    };
    let other = "10.99.0.2:80";
    let mut desired = Desired {
        services: [(key(vip), service(mode)), (key(other), service(Mode::Auto))].into(),
        ..Desired::default()
    };
    refuse_impossible(&mut desired, &topology(), &node());
    assert!(desired.services.contains_key(&key(other)), "others stay");
    let refused = desired.problems.pop().map(|notice| notice.to_string());
    assert_eq!(desired.services.contains_key(&key(vip)), refused.is_none());
    assert_eq!(desired.problems, []);
    refused
}

#[test]
fn a_port_is_never_translated_under_direct_server_return() {
    for mode in [Mode::DsrIpip, Mode::DsrL2] {
        for backend in ["10.0.0.5:8080", "10.0.0.1:8080", "172.17.0.2:8080"] {
            let refused = refusal(mode, VIP, &["10.0.0.6:80", backend]).unwrap();
            let reason = format!(
                "app of test:a: VIP 10.99.0.1:80/tcp cannot have mode {mode}: backend {backend} is at another \
                 port, and packets reach it with the VIP's; service left out"
            );
            assert_eq!(refused, reason);
        }
    }
    for mode in [Mode::Auto, Mode::Nat] {
        assert_eq!(refusal(mode, VIP, &["10.0.0.5:8080", "8.8.8.8:9"]), None);
    }
}

#[test]
fn frames_reach_neighbours_only() {
    let near = ["10.0.0.5:80", "10.0.0.1:80", "172.17.0.2:80"];
    assert_eq!(refusal(Mode::DsrL2, VIP, &near), None);
    let refused = refusal(Mode::DsrL2, VIP, &["10.0.0.5:80", "8.8.8.8:80"]).unwrap();
    assert!(
        refused.contains("backend 8.8.8.8:80 is on no network that this node is connected to"),
        "{refused}"
    );
    assert_eq!(refusal(Mode::DsrIpip, VIP, &["8.8.8.8:80"]), None);
}

#[test]
fn by_geneve_every_backend_is_here_or_at_a_peer() {
    let here = ["10.0.0.1:8080", "172.17.0.2:8080"];
    let fine = [here[0], here[1], "10.0.0.7:9090"];
    assert_eq!(refusal(Mode::DsrGeneve, VIP, &fine), None);
    let refused = refusal(Mode::DsrGeneve, VIP, &["10.0.0.7:80", "10.0.0.8:80"]).unwrap();
    assert!(
        refused.contains("cannot have mode dsr-geneve: backend 10.0.0.8:80 is neither on this node nor at the address of a peer (--peers)"),
        "{refused}"
    );
    let refused = refusal(Mode::DsrGeneve, "[fd99::1]:80", &["[fd00::7]:80"]).unwrap();
    assert!(refused.contains("no IPv6 address on eth0"), "{refused}");
}

#[test]
fn an_outer_header_needs_an_address_of_the_family() {
    let refused = refusal(Mode::DsrIpip, "[fd99::1]:80", &["[fd00::5]:80"]).unwrap();
    assert!(
        refused.contains("this node has no IPv6 address on eth0 to send from"),
        "{refused}"
    );
    assert_eq!(
        refusal(Mode::DsrL2, "[fd99::1]:80", &["[fd00::5]:80"]),
        None
    );
}

#[test]
fn what_the_operator_adds_never_takes_a_service_out() {
    let (key, at) = (ServiceKey::tcp(VIP), "10.0.0.5:8080");
    let added = CatalogBackend {
        provider: crate::provider::ProviderId::operator(),
        ..CatalogBackend::plain(at)
    };
    let service = Service {
        name: None,
        properties: Properties {
            mode: Mode::DsrL2,
            ..Properties::default()
        }
        .into(),
        backends: vec![added, CatalogBackend::plain("10.0.0.6:80")],
    };
    let mut desired = Desired {
        services: [(key, service)].into(),
        ..Desired::default()
    };
    refuse_impossible(&mut desired, &topology(), &node());
    let left = &desired.services[&key].backends;
    assert_eq!(left[..], [CatalogBackend::plain("10.0.0.6:80")]);
    let forbidden = |to: &str| {
        let order = Order {
            act: Act::Move {
                server: "a/b".to_owned(),
                to: to.parse().unwrap(),
            },
            which: Which {
                backend: Some(Named::At("10.0.0.6:80".parse().unwrap())),
                service: Some("10.99.0.1:80/tcp".to_owned()),
            },
            deadline: None,
        };
        forbids(&order, &desired, &topology(), &node())
    };
    let why = "10.99.0.1:80/tcp has mode dsr-l2: backend 10.0.0.5:8080 is at another port, and packets reach it with \
               the VIP's";
    assert_eq!(forbidden(at).as_deref(), Some(why));
    assert_eq!(forbidden("10.0.0.5:80"), None);
}
