//! Of desired state and topology, what the kernel is to hold.

use lb_common::{Be16, Service};

use super::*;
use crate::plan::{TableId, algorithm_name, mode_name};

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

#[test]
fn the_kernels_numbers_are_called_as_in_a_services_file() {
    for (name, mode) in Mode::NAMES {
        let properties = Properties {
            mode,
            ..Properties::default()
        };
        let called = |dsr| mode_name(shape(&properties, dsr).mode);
        match mode {
            Mode::Auto => assert_eq!([called(false), called(true)], ["nat", "dsr-geneve"]),
            _ => assert_eq!([called(false), called(true)], [name; 2]),
        }
    }
    for (name, balance) in Balance::NAMES {
        let properties = Properties {
            balance,
            ..Properties::default()
        };
        assert_eq!(algorithm_name(shape(&properties, false).algorithm), name);
    }
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
        backup,
        zone: zone.map(Into::into),
        ..CatalogBackend::plain("10.0.0.1:80")
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
        services: [(ServiceKey::tcp("11.0.0.1:80"), service)].into(),
        external: [
            (
                ServiceKey::tcp("10.0.0.1:10000"),
                ServiceKey::tcp("11.0.0.1:80"),
            ),
            (
                ServiceKey::tcp("10.0.0.1:10001"),
                ServiceKey::tcp("11.0.0.9:80"),
            ),
        ]
        .into(),
        ..Desired::default()
    };
    let wanted = wanted(
        &desired,
        &Topology::default(),
        &node(),
        &Voices::default(),
        |_| Reach::Host,
    );
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
    let refusing = Properties {
        refuses: true,
        ..Properties::default()
    };
    assert_eq!(shape(&refusing, false).flags, service_flag::REFUSES);
    // Over IPv6 as well: nobody there is allowed.
    assert_eq!(shape(&properties, false).flags, service_flag::ALLOW_LISTED);
    let vip = |addr: &str| addr.parse().unwrap();
    let of = |addr| lists(&properties, vip(addr));
    assert_eq!(*of("11.0.0.1"), [(allow, source_rule::ALLOW)].into());
    assert_eq!(*of("fd01:c::1"), [(deny, source_rule::DENY)].into());
}

#[test]
fn a_service_that_is_stopped_keeps_its_flows_and_takes_no_new_ones() {
    use crate::{
        admin::{
            orders::{Act, Order, Which},
            report::Timestamp,
        },
        control::operator::Operator,
    };
    let dir = tempfile::tempdir().unwrap();
    let mut operator = Operator::load(dir.path()).unwrap();
    let key = ServiceKey::tcp("11.0.0.1:80");
    let service = crate::catalog::Service {
        name: None,
        properties: Arc::default(),
        backends: vec![CatalogBackend::plain("10.0.0.1:80")],
    };
    let other = ServiceKey::tcp("11.0.0.2:80");
    let desired = Desired {
        services: [(key, service.clone()), (other, service)].into(),
        ..Desired::default()
    };
    let mut stands = |act| {
        let order = Order {
            act,
            which: Which {
                backend: None,
                service: Some("11.0.0.1:80/tcp".to_owned()),
            },
            deadline: None,
        };
        operator.obey(&order, &desired, Timestamp(1)).unwrap();
        let voices = Voices {
            operator: Some(&operator),
            ..Voices::default()
        };
        let topology = Topology::default();
        let wanted = wanted(&desired, &topology, &node(), &voices, |_| Reach::Host);
        [key, other].map(|key| {
            let service = &wanted.services[&endpoint(&key)];
            let backend = &service.backends[0];
            let state = format!("{:?}/{}", backend.state, backend.weight);
            (state, service.fail_open, service.shape.max_flows)
        })
    };
    let up = || ("Up/1".to_owned(), true, 0);
    let stopped = ("Draining/0".to_owned(), false, 0);
    assert_eq!(stands(Act::Open(false)), [stopped, up()]);
    assert_eq!(stands(Act::Open(true)), [up(), up()]);
    let limited = ("Up/1".to_owned(), true, 5);
    assert_eq!(stands(Act::Limit(5)), [limited, up()]);
}
