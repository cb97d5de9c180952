//! Services at a port of the node's own address; all its other ports are none of ours.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;

use lb_common::{Backend, Reason, SLOTS_SMALL, Service, addr_flag, backend_kind};
use lb_tests::{each_tcp_way, each_way, packet::*};

const EXTERNAL: u32 = 8;
const PORT: u16 = 10_000;
const BOTH: [Hook; 2] = [Hook::Xdp, Hook::Ingress];
const ALL: [Hook; 5] = [
    Hook::Xdp,
    Hook::XdpGeneral,
    Hook::Ingress,
    Hook::Link,
    Hook::Egress,
];
const SEGMENTS: [Segment; 5] = [
    Segment::Syn,
    Segment::SynAck,
    Segment::Ack,
    Segment::Fin,
    Segment::Rst,
];

/// A port of the node.
fn node(way: Way, port: u16) -> SocketAddr {
    SocketAddr::new(way.node(), port)
}

/// The port with a service.
fn public(way: Way) -> SocketAddr {
    node(way, PORT)
}

/// A rig with a service at the node's port as well, whose backend is of this kind.
fn standing(way: Way, kind: u8) -> Rig {
    with_port(Rig::serving(way, kind), way)
}

fn with_port(mut rig: Rig, way: Way) -> Rig {
    rig.external(way, public(way), EXTERNAL, &repeated(&[1], SLOTS_SMALL));
    rig
}

/// The source that the first client's flow was given.
fn source(rig: &Rig, way: Way) -> SocketAddr {
    let flow = rig.flow(way, way.client(1), public(way));
    flow.expect("a flow").leaves.0
}

each_way!(
    full_nat_takes_the_nodes_port_to_a_backend_elsewhere_and_back,
    dnat_takes_the_nodes_port_to_a_socket_of_this_host_and_back,
    dnat_takes_the_nodes_port_to_a_container_and_back,
    the_tc_twin_does_the_same,
    a_client_beyond_the_allowed_prefixes_is_served,
    every_other_port_of_the_node_passes_untouched,
    the_other_protocol_of_the_port_passes_untouched,
    a_flood_above_the_guard_costs_other_ports_nothing,
    a_vip_in_the_same_slot_of_the_filter_costs_other_ports_nothing,
    without_a_backend_the_packet_is_left_to_the_stack_and_counted,
    a_port_whose_service_went_is_the_nodes_again,
    errors_about_both_directions_reach_the_side_that_must_hear_them,
    what_a_socket_of_this_host_answers_about_the_packet_comes_from_the_port
);

fn full_nat_takes_the_nodes_port_to_a_backend_elsewhere_and_back(way: Way) {
    let rig = standing(way, backend_kind::NET);
    let net = Net::new();
    let frame = way.opening(way.client(1), public(way));
    let out = rig.run_from(Hook::Xdp, &frame.bytes(), net.first);
    let source = source(&rig, way);
    assert_eq!(source.ip(), way.node());
    assert!((30_000..31_000).contains(&source.port()), "{source}");
    let there = |frame: &Frame| {
        let frame = frame.clone().from(source).to(way.backend(1));
        frame.forwarded().between(FIRST_MAC, neighbour_mac(1))
    };
    out.must_be(XDP_TX, &there(&frame));
    for segment in [Segment::SynAck, Segment::Ack, Segment::Rst] {
        let reply = way.segment(way.backend(1), source, segment);
        let wanted = reply.clone().from(public(way)).to(way.client(1));
        let wanted = wanted.forwarded().between(FIRST_MAC, GATEWAY_MAC);
        rig.expect_from(net.first, Hook::Xdp, &reply, XDP_TX, &wanted);
        let frame = way.later(way.client(1), public(way));
        rig.expect_from(net.first, Hook::Xdp, &frame, XDP_TX, &there(&frame));
    }
    assert_eq!(rig.counters(), []);
    assert!(rig.flows(way).iter().all(|flow| flow.service == EXTERNAL));
}

fn dnat_takes_the_nodes_port_to_a_socket_of_this_host_and_back(way: Way) {
    let rig = standing(way, backend_kind::HOST);
    for (segment, answer) in [
        (Segment::Syn, Segment::SynAck),
        (Segment::Ack, Segment::Ack),
        (Segment::Rst, Segment::Rst),
    ] {
        let frame = way.segment(way.client(1), public(way), segment);
        rig.expect(Hook::Xdp, &frame, XDP_PASS, &frame.clone().to(way.host()));
        let reply = way.segment(way.host(), way.client(1), answer);
        let wanted = reply.clone().from(public(way));
        rig.expect(Hook::Egress, &reply, TC_OK, &wanted);
    }
    // The same socket's own clients see its own port.
    rig.expect_untouched(Hook::Xdp, &way.opening(way.client(2), way.host()));
    rig.expect_untouched(Hook::Egress, &way.later(way.host(), way.client(2)));
    assert_eq!(rig.counters(), []);
}

fn dnat_takes_the_nodes_port_to_a_container_and_back(way: Way) {
    let mut rig = standing(way, backend_kind::LINK);
    let net = Net::new();
    let link = backend(way, way.far_backend(1), backend_kind::LINK);
    let ifindex = net.second;
    rig.backend(1, Backend { ifindex, ..link });
    let frame = way.opening(way.client(1), public(way));
    let wanted = frame.clone().to(way.far_backend(1)).forwarded();
    rig.expect_from(net.first, Hook::Ingress, &frame, TC_REDIRECT, &wanted);
    let reply = way.segment(way.far_backend(1), way.client(1), Segment::SynAck);
    let wanted = reply.clone().from(public(way)).forwarded();
    rig.expect_from(net.second, Hook::Link, &reply, TC_REDIRECT, &wanted);
    assert_eq!(rig.counters(), []);
}

fn the_tc_twin_does_the_same(way: Way) {
    let rig = standing(way, backend_kind::HOST);
    let frame = way.opening(way.client(1), public(way));
    let wanted = frame.clone().to(way.host());
    rig.expect(Hook::Ingress, &frame, TC_OK, &wanted);
    let reply = way.segment(way.host(), way.client(1), Segment::SynAck);
    let wanted = reply.clone().from(public(way));
    rig.expect(Hook::Egress, &reply, TC_OK, &wanted);
}

fn a_client_beyond_the_allowed_prefixes_is_served(way: Way) {
    let rig = standing(way, backend_kind::HOST);
    let frame = way.opening(way.stranger(), public(way));
    rig.expect(Hook::Xdp, &frame, XDP_PASS, &frame.clone().to(way.host()));
    rig.expect_dropped(Hook::Xdp, &way.opening(way.stranger(), way.vip(1)));
    assert_eq!(rig.counters(), [(Reason::SourceNotAllowed, 1)]);
}

fn every_other_port_of_the_node_passes_untouched(way: Way) {
    let rig = standing(way, backend_kind::NET);
    for port in [1, 22, PORT - 1, PORT + 1, 29_999, 30_000, 31_000, u16::MAX] {
        for segment in SEGMENTS {
            let frame = way.segment(way.client(1), node(way, port), segment);
            let reply = way.segment(node(way, port), way.client(1), segment);
            for hook in ALL {
                rig.expect_untouched(hook, &frame);
                rig.expect_untouched(hook, &reply);
            }
        }
    }
    assert_eq!(rig.counters(), []);
    assert_eq!(rig.flows(way), []);
}

fn the_other_protocol_of_the_port_passes_untouched(way: Way) {
    let rig = standing(way, backend_kind::NET);
    let other = Way {
        tcp: !way.tcp,
        ..way
    };
    for segment in SEGMENTS {
        for hook in ALL {
            rig.expect_untouched(hook, &other.segment(way.client(1), public(way), segment));
        }
    }
    assert_eq!(rig.counters(), []);
}

/// Far more flows to the port than the guard lets through; after each, a packet of every kind for another port.
fn flood(rig: &Rig, way: Way) {
    for port in 1_000..1_200 {
        let client = SocketAddr::new(way.client(2).ip(), port);
        rig.run(Hook::Xdp, &way.opening(client, public(way)));
        for hook in BOTH {
            for segment in SEGMENTS {
                rig.expect_untouched(hook, &way.segment(client, node(way, 22), segment));
            }
        }
    }
    let dropped = rig.counter(Reason::NewFlowGuard);
    assert!((100..200).contains(&dropped), "{dropped}");
    assert_eq!(rig.counters(), [(Reason::NewFlowGuard, dropped)]);
}

fn a_flood_above_the_guard_costs_other_ports_nothing(way: Way) {
    let rig = Rig::guarded(80).with_service(way, backend_kind::HOST);
    flood(&with_port(rig, way), way);
}

fn a_vip_in_the_same_slot_of_the_filter_costs_other_ports_nothing(way: Way) {
    let rig = Rig::guarded(80).with_service(way, backend_kind::HOST);
    let mut rig = with_port(rig, way);
    rig.slot(way.node(), addr_flag::VIP);
    flood(&rig, way);
}

fn without_a_backend_the_packet_is_left_to_the_stack_and_counted(way: Way) {
    let mut rig = standing(way, backend_kind::HOST);
    rig.service_value(
        way,
        public(way),
        Service {
            id: EXTERNAL,
            ..Service::default()
        },
    );
    for (n, hook) in BOTH.into_iter().enumerate() {
        rig.expect_untouched(hook, &way.opening(way.client(1), public(way)));
        assert_eq!(rig.counters(), [(Reason::NoBackend, n as u64 + 1)]);
    }
}

fn a_port_whose_service_went_is_the_nodes_again(way: Way) {
    let mut rig = standing(way, backend_kind::NET);
    rig.free_port(PORT);
    for segment in SEGMENTS {
        for hook in ALL {
            rig.expect_untouched(hook, &way.segment(way.client(1), public(way), segment));
        }
    }
    assert_eq!(rig.counters(), []);
}

fn errors_about_both_directions_reach_the_side_that_must_hear_them(way: Way) {
    let rig = standing(way, backend_kind::NET);
    let net = Net::new();
    let first = way.opening(way.client(1), public(way));
    rig.run_from(Hook::Xdp, &first.bytes(), net.first);
    let source = source(&rig, way);
    let router = way.stranger().ip();
    let check = |seen: Error, wanted: Error, mac| {
        let wanted = wanted.carried(|f| f.forwarded().between(FIRST_MAC, mac));
        let out = rig.run_from(Hook::Xdp, &seen.bytes(), net.first);
        out.must_be_bytes(XDP_TX, &wanted.bytes());
    };
    for trouble in [Trouble::TooBig(1_400), Trouble::TimeExceeded] {
        for quoted in [8, 1_000] {
            let error = |frame: Frame| frame.error(router, trouble, quoted);
            check(
                error(way.later(source, way.backend(1))),
                error(way.later(way.client(1), public(way))),
                GATEWAY_MAC,
            );
            check(
                error(way.later(public(way), way.client(1))),
                error(way.later(way.backend(1), source)),
                neighbour_mac(1),
            );
        }
    }
    // The backend's own: it is the node that the client asked.
    let closed = Trouble::Unreachable;
    check(
        way.later(source, way.backend(1))
            .error(way.backend(1).ip(), closed, 8),
        way.later(way.client(1), public(way))
            .error(way.node(), closed, 8),
        GATEWAY_MAC,
    );
    // An error about what the node itself sent from another port is its own business.
    let own = way
        .later(node(way, 22), way.client(1))
        .error(router, closed, 8);
    for hook in ALL {
        rig.run_from(hook, &own.bytes(), net.first)
            .must_be_bytes(hook.pass(), &own.bytes());
    }
    // Nobody else can take its flows.
    assert_eq!(rig.counters(), [(Reason::BackendSuspect, 1)]);
}

fn what_a_socket_of_this_host_answers_about_the_packet_comes_from_the_port(way: Way) {
    let rig = standing(way, backend_kind::HOST);
    rig.run(Hook::Xdp, &way.opening(way.client(1), public(way)));
    let error = |to| {
        let sent = way.later(way.client(1), to);
        sent.error(way.node(), Trouble::Unreachable, 1_000)
    };
    rig.run_bytes(Hook::Egress, &error(way.host()).bytes())
        .must_be_bytes(TC_OK, &error(public(way)).bytes());
}

each_tcp_way!(
    an_answer_to_a_connection_of_the_nodes_own_from_the_port_is_left_to_the_stack,
    fragments_for_other_ports_of_the_node_pass_untouched
);

fn an_answer_to_a_connection_of_the_nodes_own_from_the_port_is_left_to_the_stack(way: Way) {
    let rig = standing(way, backend_kind::NET);
    for segment in [Segment::SynAck, Segment::Ack, Segment::Fin, Segment::Rst] {
        for hook in BOTH {
            rig.expect_untouched(hook, &way.segment(way.stranger(), public(way), segment));
        }
    }
    assert_eq!(rig.flows(way), []);
}

fn fragments_for_other_ports_of_the_node_pass_untouched(way: Way) {
    let rig = standing(way, backend_kind::HOST);
    let frame = way.later(way.client(1), node(way, 22));
    for hook in BOTH {
        rig.expect_untouched(hook, &frame.clone().fragment((0, true)));
        let later = frame.later_fragment((9, false), way.proto());
        rig.run_bytes(hook, &later)
            .must_be_bytes(hook.pass(), &later);
    }
    assert_eq!(rig.counters(), []);
}
