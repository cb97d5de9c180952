//! What is left alone, refused or dropped before any state is made.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use lb_common::{
    Backend, NodeConfig, Reason, SLOTS_SMALL, Service, backend_kind, backend_state, service_flag,
};
use lb_tests::{each_tcp_way, each_way, packet::*};

const BOTH: [Hook; 2] = [Hook::Xdp, Hook::Ingress];
const ALL: [Hook; 4] = [Hook::Xdp, Hook::Ingress, Hook::Link, Hook::Egress];

each_way!(
    a_packet_for_another_address_passes_untouched,
    a_packet_for_the_node_itself_passes_untouched,
    a_packet_for_an_unknown_port_of_a_vip_is_left_to_the_stack_and_counted,
    a_service_of_one_protocol_takes_nothing_of_the_other,
    a_packet_for_a_service_without_backends_is_left_to_the_stack_and_counted,
    a_source_that_is_not_allowed_is_dropped_before_any_state_is_made,
    any_source_may_reach_an_external_service,
    an_allowed_source_is_known_by_its_whole_prefix_and_not_a_bit_more,
    a_fragment_for_the_node_or_for_nobody_here_passes_untouched,
    without_a_source_address_for_full_nat_the_packet_is_left_to_the_stack_and_counted
);

fn a_packet_for_another_address_passes_untouched(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    for hook in ALL {
        rig.expect_untouched(hook, &way.opening(way.client(1), way.stranger()));
        rig.expect_untouched(hook, &way.later(way.client(1), way.stranger()));
    }
    assert_eq!(rig.counters(), []);
    assert_eq!(rig.flows(way), []);
}

fn a_packet_for_the_node_itself_passes_untouched(way: Way) {
    let rig = Rig::serving(way, backend_kind::NET);
    for port in [22, 29_999, 30_000, 30_999, 31_000] {
        let node = std::net::SocketAddr::new(way.node(), port);
        for hook in ALL {
            rig.expect_untouched(hook, &way.opening(way.client(1), node));
            rig.expect_untouched(hook, &way.later(way.client(1), node));
        }
    }
    assert_eq!(rig.counters(), []);
    assert_eq!(rig.flows(way), []);
}

fn a_packet_for_an_unknown_port_of_a_vip_is_left_to_the_stack_and_counted(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    let mut vip = way.vip(1);
    vip.set_port(10_001);
    for (n, hook) in BOTH.into_iter().enumerate() {
        rig.expect_untouched(hook, &way.opening(way.client(1), vip));
        assert_eq!(rig.counters(), [(Reason::NoService, n as u64 + 1)]);
    }
    assert_eq!(rig.flows(way), []);
}

fn a_service_of_one_protocol_takes_nothing_of_the_other(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    let other = Way {
        tcp: !way.tcp,
        ..way
    };
    rig.expect_untouched(Hook::Xdp, &other.opening(way.client(1), way.vip(1)));
    assert_eq!(rig.counters(), [(Reason::NoService, 1)]);
}

fn a_packet_for_a_service_without_backends_is_left_to_the_stack_and_counted(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::HOST);
    let host = backend(way, way.host(), backend_kind::HOST);
    let frame = way.opening(way.client(1), way.vip(1));
    let mut wanted = 0;
    for state in [
        backend_state::DOWN,
        backend_state::DRAINING,
        backend_state::FREE,
    ] {
        rig.backend(1, Backend { state, ..host });
        for hook in BOTH {
            rig.expect_untouched(hook, &frame);
            wanted += 1;
            assert_eq!(rig.counters(), [(Reason::NoBackend, wanted)]);
        }
    }
    rig.backend(1, host);
    rig.service_value(
        way,
        way.vip(1),
        Service {
            id: SERVICE,
            ..Service::default()
        },
    );
    rig.expect_untouched(Hook::Xdp, &frame);
    rig.service_value(
        way,
        way.vip(1),
        Service {
            id: 99,
            slots: SLOTS_SMALL as u32,
            ..Service::default()
        },
    );
    rig.expect_untouched(Hook::Xdp, &frame);
    assert_eq!(rig.counters(), [(Reason::NoBackend, wanted + 2)]);
    assert_eq!(rig.flows(way), []);
}

fn a_source_that_is_not_allowed_is_dropped_before_any_state_is_made(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    for (n, hook) in BOTH.into_iter().enumerate() {
        rig.expect_dropped(hook, &way.opening(way.stranger(), way.vip(1)));
        assert_eq!(rig.counters(), [(Reason::SourceNotAllowed, n as u64 + 1)]);
    }
    assert_eq!(rig.flows(way), []);
    assert_eq!(rig.stats(1), [0; 5]);
}

fn any_source_may_reach_an_external_service(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::HOST);
    rig.service(
        way,
        way.vip(1),
        SERVICE,
        service_flag::EXTERNAL,
        &repeated(&[1], SLOTS_SMALL),
    );
    let frame = way.opening(way.stranger(), way.vip(1));
    rig.expect(Hook::Xdp, &frame, XDP_PASS, &frame.clone().to(way.host()));
    assert_eq!(rig.counters(), []);
}

fn an_allowed_source_is_known_by_its_whole_prefix_and_not_a_bit_more(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::HOST);
    rig.allow(way.stranger().ip(), if way.v6 { 127 } else { 31 });
    let neighbour = |last: [u8; 1]| {
        let mut at = way.stranger();
        at.set_ip(match at.ip() {
            std::net::IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                [a, b, c, d ^ last[0]].into()
            }
            std::net::IpAddr::V6(ip) => {
                let mut octets = ip.octets();
                octets[15] ^= last[0];
                octets.into()
            }
        });
        way.opening(at, way.vip(1))
    };
    for inside in [0, 1] {
        let frame = neighbour([inside]);
        rig.expect(Hook::Xdp, &frame, XDP_PASS, &frame.clone().to(way.host()));
    }
    rig.expect_dropped(Hook::Xdp, &neighbour([2]));
    assert_eq!(rig.counters(), [(Reason::SourceNotAllowed, 1)]);
}

fn a_fragment_for_the_node_or_for_nobody_here_passes_untouched(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    for dst in [way.host(), way.stranger()] {
        for hook in ALL {
            rig.expect_untouched(hook, &way.opening(way.client(1), dst).fragment((0, true)));
        }
    }
    assert_eq!(rig.counters(), []);
}

fn without_a_source_address_for_full_nat_the_packet_is_left_to_the_stack_and_counted(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::NET);
    rig.node_value(NodeConfig {
        snat_port_min: 30_000,
        snat_ports: 1_000,
        ..NodeConfig::default()
    });
    for (n, hook) in BOTH.into_iter().enumerate() {
        rig.expect_untouched(hook, &way.opening(way.client(1), way.vip(1)));
        assert_eq!(rig.counters(), [(Reason::NoSnatAddress, n as u64 + 1)]);
    }
    assert_eq!(rig.flows(way), []);
}

each_tcp_way!(
    a_segment_without_a_flow_is_left_to_the_stack_under_full_nat,
    a_reset_without_a_flow_makes_none
);

fn a_segment_without_a_flow_is_left_to_the_stack_under_full_nat(way: Way) {
    let rig = Rig::serving(way, backend_kind::NET);
    let mut wanted = 0;
    for segment in [Segment::Ack, Segment::SynAck, Segment::Fin, Segment::Rst] {
        for hook in BOTH {
            rig.expect_untouched(hook, &way.segment(way.client(1), way.vip(1), segment));
            wanted += 1;
            assert_eq!(rig.counters(), [(Reason::NoFlow, wanted)]);
        }
    }
    assert_eq!(rig.flows(way), []);
}

fn a_reset_without_a_flow_makes_none(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    rig.expect_untouched(
        Hook::Xdp,
        &way.segment(way.client(1), way.vip(1), Segment::Rst),
    );
    assert_eq!(rig.counters(), [(Reason::NoFlow, 1)]);
    assert_eq!(rig.flows(way), []);
}

/// Instructions that the verifier may walk in one program. It gives up at 1,000,000, and another kernel may
/// walk more than this one.
const MOST_WALKED: u32 = 400_000;

#[test]
fn the_kernel_accepts_every_program_long_before_it_gives_up() {
    let programs = Rig::with_every_program().walked();
    assert!(programs.len() >= 17, "of {} programs", programs.len());
    for (name, walked) in programs {
        println!("{name}: the verifier walked {walked} instructions");
        assert!((1..=MOST_WALKED).contains(&walked), "{name}: {walked}");
    }
}

#[test]
fn what_is_no_ip_passes_untouched() {
    let rig = Rig::serving(Way::V4_TCP, backend_kind::HOST);
    let arp = Frame::arp(Way::V4_TCP.client(1), Way::V4_TCP.vip(1));
    for hook in ALL {
        rig.run_bytes(hook, &arp).must_be_bytes(hook.pass(), &arp);
    }
    assert_eq!(rig.counters(), []);
}
