//! What is counted of connections and services: handshakes, SYNs sent again, resets by side, ends, refusals.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use lb_common::{Backend, ConnectionStats, SLOTS_SMALL, backend_kind, service_mode};
use lb_tests::{each_tcp_way, each_way, packet::*};

/// A second, ns.
const SECOND: u64 = 1_000_000_000;

/// Of the only backend, and so of the only service, without how long anything lived.
fn counted(rig: &Rig) -> ConnectionStats {
    let counted = rig.connections(1);
    assert_eq!(rig.service_connections(SERVICE), counted);
    ConnectionStats {
        lived_ms: 0,
        ..counted
    }
}

/// The same without how long anything took.
fn events(rig: &Rig) -> ConnectionStats {
    ConnectionStats {
        handshake_ns: 0,
        ..counted(rig)
    }
}

fn none() -> ConnectionStats {
    ConnectionStats::default()
}

/// A backend on the node, whose answers go by the egress program.
fn from_host(rig: &Rig, way: Way, segment: Segment) {
    let frame = way.segment(way.host(), way.client(1), segment);
    rig.expect(Hook::Egress, &frame, TC_OK, &frame.clone().from(way.vip(1)));
}

fn from_client(rig: &Rig, way: Way, segment: Segment) {
    let frame = way.segment(way.client(1), way.vip(1), segment);
    rig.expect(Hook::Xdp, &frame, XDP_PASS, &frame.clone().to(way.host()));
}

each_way!(
    flows_and_refusals_are_counted_for_the_service,
    packets_of_a_shared_backend_are_counted_for_each_service,
    packets_under_direct_return_are_counted_for_the_service
);

fn packets_of_a_shared_backend_are_counted_for_each_service(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::HOST);
    let other = SERVICE + 1;
    rig.service(way, way.vip(2), other, 0, &repeated(&[1], SLOTS_SMALL));
    let to_first = way.opening(way.client(1), way.vip(1));
    let back = way.segment(way.host(), way.client(1), Segment::SynAck);
    rig.run(Hook::Xdp, &to_first);
    rig.run(Hook::Egress, &back);
    let [_, first @ ..] = rig.stats(1);
    assert_eq!((first[0], first[2]), (1, 1));
    assert_eq!(rig.carried(SERVICE), first);
    rig.run(Hook::Xdp, &way.opening(way.client(2), way.vip(2)));
    assert_eq!(rig.carried(SERVICE), first);
    assert_eq!(rig.carried(other), [1, first[1], 0, 0]);
}

fn packets_under_direct_return_are_counted_for_the_service(way: Way) {
    for mode in [service_mode::DSR_IPIP, service_mode::DSR_L2] {
        for hook in [Hook::Xdp, Hook::Ingress] {
            let mut rig = Rig::serving(way, backend_kind::NET);
            let net = Net::new();
            let at = backend(way, way.backend(1), backend_kind::NET);
            let ifindex = net.first;
            rig.backend(1, Backend { ifindex, ..at });
            rig.shape(way, SLOTS_SMALL, |service| service.mode = mode);
            let frame = way.opening(way.client(1), way.vip(1));
            rig.run_from(hook, &frame.bytes(), net.first);
            let [_, carried @ ..] = rig.stats(1);
            assert_eq!(carried[0], 1, "{hook:?}");
            assert_eq!(rig.carried(SERVICE), carried, "{hook:?}");
        }
    }
}

fn flows_and_refusals_are_counted_for_the_service(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::HOST);
    let frame = |n| way.opening(way.client(n), way.vip(1));
    for n in [1, 2, 2] {
        rig.run(Hook::Xdp, &frame(n));
    }
    assert_eq!(rig.service_stats(SERVICE), (2, 0, 0));
    rig.service(way, way.vip(1), SERVICE, 0, &repeated(&[0], SLOTS_SMALL));
    rig.expect_untouched(Hook::Xdp, &frame(3));
    assert_eq!(rig.service_stats(SERVICE), (2, 1, 0));
    assert_eq!(counted(&rig).handshakes, 0);
}

each_tcp_way!(
    a_handshake_is_timed_once,
    a_handshake_under_full_nat_is_timed_on_the_packet_path,
    a_syn_sent_again_is_counted,
    a_reset_is_counted_for_the_side_that_sent_it,
    a_refused_connection_is_a_reset_of_the_backend_and_no_handshake,
    a_connection_ends_once,
    how_long_a_connection_lived_is_counted_at_its_end,
    what_becomes_of_connections_is_counted_for_their_service_alone
);

fn a_handshake_is_timed_once(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    from_client(&rig, way, Segment::Syn);
    assert_eq!(counted(&rig), none());
    std::thread::sleep(std::time::Duration::from_millis(20));
    from_host(&rig, way, Segment::SynAck);
    let first = counted(&rig);
    assert_eq!(
        events(&rig),
        ConnectionStats {
            handshakes: 1,
            ..none()
        }
    );
    assert!(
        (SECOND / 50..10 * SECOND).contains(&first.handshake_ns),
        "{first:?}"
    );
    assert_eq!(rig.service_stats(SERVICE), (1, 0, 1));
    from_host(&rig, way, Segment::SynAck);
    assert_eq!(counted(&rig), first, "sent again");
}

fn a_handshake_under_full_nat_is_timed_on_the_packet_path(way: Way) {
    let rig = Rig::serving(way, backend_kind::NET);
    let net = Net::new();
    let opening = way.opening(way.client(1), way.vip(1));
    rig.run_from(Hook::Xdp, &opening.bytes(), net.first);
    let (source, _) = rig.flow(way, way.client(1), way.vip(1)).unwrap().leaves;
    let answer = way.segment(way.backend(1), source, Segment::SynAck);
    for _ in 0..2 {
        let out = rig.run_from(Hook::Xdp, &answer.bytes(), net.first);
        assert_eq!(out.verdict, XDP_TX);
    }
    assert_eq!(counted(&rig).handshakes, 1);
    assert!(counted(&rig).handshake_ns > 0);
}

fn a_syn_sent_again_is_counted(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::HOST);
    // Once more at once: as the twin of XDP sees it.
    from_client(&rig, way, Segment::Syn);
    from_client(&rig, way, Segment::Syn);
    rig.age_flow(way, way.client(1), way.vip(1), SECOND);
    for _ in 0..2 {
        from_client(&rig, way, Segment::Syn);
    }
    assert_eq!(
        counted(&rig),
        ConnectionStats {
            syn_retransmits: 2,
            ..none()
        }
    );
    assert_eq!(rig.service_stats(SERVICE), (1, 0, 0));
}

fn a_reset_is_counted_for_the_side_that_sent_it(way: Way) {
    for by_client in [true, false] {
        let rig = Rig::serving(way, backend_kind::HOST);
        from_client(&rig, way, Segment::Syn);
        from_host(&rig, way, Segment::SynAck);
        from_client(&rig, way, Segment::Ack);
        if by_client {
            from_client(&rig, way, Segment::Rst);
        } else {
            from_host(&rig, way, Segment::Rst);
        }
        // The other side's reset of what is reset already.
        from_client(&rig, way, Segment::Rst);
        from_host(&rig, way, Segment::Rst);
        let counted = counted(&rig);
        assert_eq!(
            counted,
            ConnectionStats {
                closed: 1,
                client_resets: by_client.into(),
                backend_resets: (!by_client).into(),
                handshakes: 1,
                handshake_ns: counted.handshake_ns,
                ..none()
            }
        );
    }
}

fn a_refused_connection_is_a_reset_of_the_backend_and_no_handshake(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    from_client(&rig, way, Segment::Syn);
    from_host(&rig, way, Segment::Rst);
    assert_eq!(
        counted(&rig),
        ConnectionStats {
            closed: 1,
            backend_resets: 1,
            refused: 1,
            ..none()
        }
    );
}

fn a_connection_ends_once(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    from_client(&rig, way, Segment::Syn);
    from_client(&rig, way, Segment::Ack);
    from_client(&rig, way, Segment::Fin);
    from_host(&rig, way, Segment::Fin);
    from_client(&rig, way, Segment::Fin);
    assert_eq!(
        counted(&rig),
        ConnectionStats {
            closed: 1,
            ..none()
        }
    );
}

fn how_long_a_connection_lived_is_counted_at_its_end(way: Way) {
    for end in [Segment::Fin, Segment::Rst] {
        let rig = Rig::serving(way, backend_kind::HOST);
        from_client(&rig, way, Segment::Syn);
        from_host(&rig, way, Segment::SynAck);
        from_client(&rig, way, Segment::Ack);
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert_eq!(rig.connections(1).lived_ms, 0, "it lives");
        from_client(&rig, way, end);
        // The clock is that of ticks.
        let lived = rig.connections(1).lived_ms;
        assert!((40..10_000).contains(&lived), "{lived} ms");
        from_host(&rig, way, end);
        assert_eq!(rig.connections(1).lived_ms, lived, "counted once");
    }
}

fn what_becomes_of_connections_is_counted_for_their_service_alone(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::HOST);
    let other = SERVICE + 1;
    rig.service(way, way.vip(2), other, 0, &repeated(&[1], SLOTS_SMALL));
    from_client(&rig, way, Segment::Syn);
    let second = |segment| way.segment(way.client(2), way.vip(2), segment);
    rig.run(Hook::Xdp, &second(Segment::Syn));
    let answer = way.segment(way.host(), way.client(2), Segment::SynAck);
    rig.run(Hook::Egress, &answer);
    rig.run(Hook::Xdp, &second(Segment::Rst));
    assert_eq!(rig.service_connections(SERVICE), none());
    let of_other = rig.service_connections(other);
    assert_eq!((of_other.handshakes, of_other.client_resets), (1, 1));
    assert_eq!(rig.connections(1), of_other);
}
