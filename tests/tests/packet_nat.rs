//! Backends elsewhere on the network: full NAT, out again without the stack.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;

use lb_common::{NodeConfig, Reason, SLOTS_SMALL, SNAT_TRIES, backend_kind};
use lb_tests::{each_tcp_way, each_way, packet::*};

/// The source that a client's flow was given.
/// In ns.
const SECOND: u64 = 1_000_000_000;

fn claimed(rig: &Rig, way: Way, client: SocketAddr) -> SocketAddr {
    rig.flow(way, client, way.vip(1)).expect("a flow").leaves.0
}

each_way!(
    the_first_packet_leaves_for_the_backend_with_a_source_and_port_of_the_node,
    the_backends_reply_goes_to_the_client_as_the_vip,
    later_packets_of_the_flow_keep_its_port_and_backend,
    a_backend_behind_another_interface_is_reached_by_redirect_where_xdp_may,
    an_unknown_next_hop_leaves_the_packet_untouched_for_the_tc_twin,
    the_tc_twin_sends_the_reply_by_the_clients_interface,
    full_nat_replies_are_none_of_the_egress_and_link_programs_business,
    every_flow_gets_a_source_port_of_its_own_inside_the_range,
    a_range_of_two_ports_serves_two_flows_of_a_backend_and_drops_the_third,
    every_port_of_a_small_range_is_found,
    a_range_without_ports_gives_none,
    the_ports_that_are_tried_are_counted,
    one_port_serves_a_flow_of_every_backend,
    a_tagged_packet_is_never_sent_on_by_xdp,
    a_node_without_settings_gives_no_port,
    a_backend_reaches_itself_by_its_own_vip
);

fn the_first_packet_leaves_for_the_backend_with_a_source_and_port_of_the_node(way: Way) {
    let rig = Rig::serving(way, backend_kind::NET);
    let net = Net::new();
    let frame = way.opening(way.client(1), way.vip(1));
    let out = rig.run_from(Hook::Xdp, &frame.bytes(), net.first);
    let source = claimed(&rig, way, way.client(1));
    assert_eq!(source.ip(), way.node());
    assert!((30_000..31_000).contains(&source.port()), "{source}");
    let wanted = frame
        .from(source)
        .to(way.backend(1))
        .forwarded()
        .between(FIRST_MAC, neighbour_mac(1));
    out.must_be(XDP_TX, &wanted);
    assert_eq!(rig.counters(), []);
    let half = Entry {
        arrives: (way.client(1), way.vip(1)),
        leaves: (source, way.backend(1)),
        backend: 1,
        generation: 1,
        client_ifindex: net.first,
        forward: true,
        kind: backend_kind::NET,
        tcp: 0,
        service: SERVICE,
    };
    let other = Entry {
        arrives: (way.backend(1), source),
        leaves: (way.vip(1), way.client(1)),
        forward: false,
        ..half
    };
    assert_eq!(rig.flows(way), [half, other]);
}

fn the_backends_reply_goes_to_the_client_as_the_vip(way: Way) {
    let rig = Rig::serving(way, backend_kind::NET);
    let net = Net::new();
    rig.run_from(
        Hook::Xdp,
        &way.opening(way.client(1), way.vip(1)).bytes(),
        net.first,
    );
    let source = claimed(&rig, way, way.client(1));
    for segment in [Segment::SynAck, Segment::Ack, Segment::Fin] {
        let reply = way.segment(way.backend(1), source, segment);
        let wanted = reply
            .clone()
            .from(way.vip(1))
            .to(way.client(1))
            .forwarded()
            .between(FIRST_MAC, GATEWAY_MAC);
        rig.expect_from(net.first, Hook::Xdp, &reply, XDP_TX, &wanted);
    }
    assert_eq!(rig.counters(), []);
}

fn later_packets_of_the_flow_keep_its_port_and_backend(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::NET);
    let net = Net::new();
    rig.run_from(
        Hook::Xdp,
        &way.opening(way.client(1), way.vip(1)).bytes(),
        net.first,
    );
    let source = claimed(&rig, way, way.client(1));
    rig.backend(2, backend(way, way.backend(2), backend_kind::NET));
    rig.table(SERVICE, &repeated(&[2], SLOTS_SMALL));
    let frame = way.later(way.client(1), way.vip(1));
    let wanted = frame
        .clone()
        .from(source)
        .to(way.backend(1))
        .forwarded()
        .between(FIRST_MAC, neighbour_mac(1));
    rig.expect_from(net.first, Hook::Xdp, &frame, XDP_TX, &wanted);
    assert_eq!(rig.flows(way).len(), 2);
}

fn a_backend_behind_another_interface_is_reached_by_redirect_where_xdp_may(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::NET);
    let net = Net::new();
    rig.backend(1, backend(way, way.far_backend(3), backend_kind::NET));
    let frame = way.opening(way.client(1), way.vip(1));
    rig.expect_from(net.first, Hook::Xdp, &frame, XDP_PASS, &frame);
    assert_eq!(rig.counters(), [(Reason::ToSlowPath, 1)]);
    rig.port(net.second);
    let source = claimed(&rig, way, way.client(1));
    let wanted = frame
        .clone()
        .from(source)
        .to(way.far_backend(3))
        .forwarded()
        .between(SECOND_MAC, neighbour_mac(3));
    rig.expect_from(net.first, Hook::Xdp, &frame, XDP_REDIRECT, &wanted);
    rig.port(net.first);
    let reply = way.later(way.far_backend(3), source);
    let wanted = reply
        .clone()
        .from(way.vip(1))
        .to(way.client(1))
        .forwarded()
        .between(FIRST_MAC, GATEWAY_MAC);
    rig.expect_from(net.second, Hook::Xdp, &reply, XDP_REDIRECT, &wanted);
    assert_eq!(rig.counters(), [(Reason::ToSlowPath, 1)]);
}

fn an_unknown_next_hop_leaves_the_packet_untouched_for_the_tc_twin(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::NET);
    let net = Net::new();
    rig.backend(1, backend(way, way.backend(20), backend_kind::NET));
    let frame = way.opening(way.client(1), way.vip(1));
    rig.expect_from(net.first, Hook::Xdp, &frame, XDP_PASS, &frame);
    assert_eq!(rig.counters(), [(Reason::ToSlowPath, 1)]);
    // The twin finds the flow that XDP opened; the stack routes what comes out.
    let source = claimed(&rig, way, way.client(1));
    let wanted = frame.clone().from(source).to(way.backend(20));
    rig.expect_from(net.first, Hook::Ingress, &frame, TC_OK, &wanted);
    assert_eq!(rig.flows(way).len(), 2);
    assert_eq!(rig.stats(1)[..2], [1, 1]);
}

fn the_tc_twin_sends_the_reply_by_the_clients_interface(way: Way) {
    let rig = Rig::serving(way, backend_kind::NET);
    let net = Net::new();
    let frame = way.opening(way.client(1), way.vip(1));
    let out = rig.run_from(Hook::Ingress, &frame.bytes(), net.first);
    let source = claimed(&rig, way, way.client(1));
    out.must_be(TC_OK, &frame.from(source).to(way.backend(1)));
    assert!(
        rig.flows(way)
            .iter()
            .all(|half| half.client_ifindex == net.first)
    );
    let reply = way.later(way.backend(1), source);
    let wanted = reply.clone().from(way.vip(1)).to(way.client(1)).forwarded();
    rig.expect_from(net.second, Hook::Ingress, &reply, TC_REDIRECT, &wanted);
}

fn full_nat_replies_are_none_of_the_egress_and_link_programs_business(way: Way) {
    let rig = Rig::serving(way, backend_kind::NET);
    rig.run(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    let reply = way.later(way.backend(1), claimed(&rig, way, way.client(1)));
    rig.expect_untouched(Hook::Egress, &reply);
    rig.expect_untouched(Hook::Link, &reply);
}

fn every_flow_gets_a_source_port_of_its_own_inside_the_range(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::NET);
    rig.node(way, 65_000, 536);
    let mut ports = std::collections::BTreeSet::new();
    for n in 0..200 {
        rig.run(Hook::Xdp, &way.opening(way.client(n), way.vip(1)));
        ports.insert(claimed(&rig, way, way.client(n)).port());
    }
    assert_eq!(ports.len(), 200);
    assert!(*ports.first().unwrap() >= 65_000);
    assert_eq!(rig.counters(), [(Reason::ToSlowPath, 200)]);
}

fn a_range_of_two_ports_serves_two_flows_of_a_backend_and_drops_the_third(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::NET);
    rig.node(way, 30_000, 2);
    for n in 1..=30 {
        rig.backend(1, backend(way, way.backend(n), backend_kind::NET));
        let clients = [
            way.client(3 * n),
            way.client(3 * n + 1),
            way.client(3 * n + 2),
        ];
        for client in &clients[..2] {
            rig.expect_untouched(Hook::Xdp, &way.opening(*client, way.vip(1)));
        }
        let mut ports = clients[..2]
            .iter()
            .map(|&client| claimed(&rig, way, client).port())
            .collect::<Vec<_>>();
        ports.sort_unstable();
        assert_eq!(ports, [30_000, 30_001]);
        rig.expect_dropped(Hook::Xdp, &way.opening(clients[2], way.vip(1)));
        assert_eq!(rig.counter(Reason::NoSnatPort), u64::from(n));
        assert_eq!(rig.flow(way, clients[2], way.vip(1)), None);
    }
}

fn a_connection_that_came_to_nothing_gives_its_port_to_another(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::NET);
    rig.node(way, 30_000, 1);
    let syn = |n| way.opening(way.client(n), way.vip(1));
    let claimed = |rig: &Rig, n| claimed(rig, way, way.client(n));
    rig.expect_untouched(Hook::Xdp, &syn(1));
    let port = claimed(&rig, 1);
    rig.age_flow(way, way.backend(1), port, 4 * SECOND);
    rig.expect_dropped(Hook::Xdp, &syn(2));
    rig.age_flow(way, way.backend(1), port, 2 * SECOND);
    rig.expect_untouched(Hook::Xdp, &syn(2));
    assert_eq!(claimed(&rig, 2), port);
    // Its client comes back: there is no port for it, and the other's is left to it.
    rig.age_flow(way, way.client(1), way.vip(1), 6 * SECOND);
    rig.expect_dropped(Hook::Xdp, &syn(1));
    assert_eq!(rig.flow(way, way.client(1), way.vip(1)), None);
    assert_eq!(claimed(&rig, 2), port);
    assert_eq!(rig.counter(Reason::NoSnatPort), 2);
}

fn every_port_of_a_small_range_is_found(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::NET);
    for ports in [1_u8, 3, 4, 7, 9, 15, 16] {
        rig.backend(1, backend(way, way.backend(100 + ports), backend_kind::NET));
        rig.node(way, 30_000, u16::from(ports));
        for n in 0..ports {
            rig.expect_untouched(
                Hook::Xdp,
                &way.opening(way.client(ports.wrapping_mul(16) + n), way.vip(1)),
            );
        }
        assert_eq!(rig.counter(Reason::NoSnatPort), 0, "of {ports} ports");
    }
}

fn the_ports_that_are_tried_are_counted(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::NET);
    rig.node(way, 30_000, 2);
    let opening = |n| way.opening(way.client(n), way.vip(1));
    rig.run(Hook::Xdp, &opening(1));
    rig.run(Hook::Xdp, &opening(2));
    // The second one finds the first one's port or it does not.
    let tries = rig.tries();
    assert_eq!(tries[0] + tries[1], 2, "{tries:?}");
    assert!(tries[0] >= 1, "{tries:?}");
    rig.run(Hook::Xdp, &opening(3));
    let last = SNAT_TRIES as usize;
    assert_eq!(rig.tries()[last], 1);
    assert_eq!(rig.tries().iter().sum::<u64>(), 3);
    // Who has a flow asks for no port.
    rig.run(Hook::Xdp, &way.later(way.client(1), way.vip(1)));
    assert_eq!(rig.tries().iter().sum::<u64>(), 3);
}

fn a_range_without_ports_gives_none(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::NET);
    rig.node(way, 30_000, 0);
    rig.expect_dropped(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    assert_eq!(rig.counters(), [(Reason::NoSnatPort, 1)]);
    assert_eq!(rig.flows(way), []);
}

fn one_port_serves_a_flow_of_every_backend(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::NET);
    rig.node(way, 30_000, 1);
    for n in 1..=9 {
        rig.backend(1, backend(way, way.backend(n), backend_kind::NET));
        rig.expect_untouched(Hook::Xdp, &way.opening(way.client(n), way.vip(1)));
        assert_eq!(claimed(&rig, way, way.client(n)).port(), 30_000);
    }
    assert_eq!(rig.counters(), [(Reason::ToSlowPath, 9)]);
}

fn a_tagged_packet_is_never_sent_on_by_xdp(way: Way) {
    // The routes are those of the untagged network: the tag would go where it does not belong.
    let rig = Rig::serving(way, backend_kind::NET);
    let net = Net::new();
    let frame = Frame {
        tags: vec![5],
        ..way.opening(way.client(1), way.vip(1))
    };
    rig.expect_from(net.first, Hook::Xdp, &frame, XDP_PASS, &frame);
    assert_eq!(rig.counters(), [(Reason::ToSlowPath, 1)]);
}

fn a_node_without_settings_gives_no_port(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::NET);
    rig.node_value(NodeConfig::default());
    rig.expect_untouched(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    assert_eq!(rig.counters(), [(Reason::NoSnatAddress, 1)]);
}

fn a_backend_reaches_itself_by_its_own_vip(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::NET);
    let net = Net::new();
    let mut client = way.backend(1);
    client.set_port(40_000);
    rig.allow(client.ip(), if way.v6 { 128 } else { 32 });
    let frame = way.opening(client, way.vip(1));
    let out = rig.run_from(Hook::Xdp, &frame.bytes(), net.first);
    let source = claimed(&rig, way, client);
    assert_eq!(source.ip(), way.node());
    let macs = (FIRST_MAC, neighbour_mac(1));
    let wanted = frame.from(source).to(way.backend(1)).forwarded();
    out.must_be(XDP_TX, &wanted.between(macs.0, macs.1));
    let reply = way.later(way.backend(1), source);
    let wanted = reply.clone().from(way.vip(1)).to(client).forwarded();
    let wanted = wanted.between(macs.0, macs.1);
    rig.expect_from(net.first, Hook::Xdp, &reply, XDP_TX, &wanted);
    assert_eq!(rig.counters(), []);
}

each_tcp_way!(
    a_segment_whose_flow_was_evicted_is_left_to_the_stack,
    a_connection_that_came_to_nothing_gives_its_port_to_another
);

fn a_segment_whose_flow_was_evicted_is_left_to_the_stack(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::NET);
    let net = Net::new();
    rig.run_from(
        Hook::Xdp,
        &way.opening(way.client(1), way.vip(1)).bytes(),
        net.first,
    );
    rig.evict(way, way.client(1), way.vip(1));
    let frame = way.later(way.client(1), way.vip(1));
    rig.expect_from(net.first, Hook::Xdp, &frame, XDP_PASS, &frame);
    assert_eq!(rig.counters(), [(Reason::NoFlow, 1)]);
}
