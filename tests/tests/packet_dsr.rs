//! Direct server return: the packet reaches the backend as the client sent it, and the reply does not
//! come by here. There is no IPIP device in every kernel; what comes out is taken apart by etherparse.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::{IpAddr, SocketAddr};

use etherparse::{NetSlice, SlicedPacket};
use lb_common::{
    Reason, SLOTS_SMALL, Service, algorithm, backend_kind, backend_state, service_mode, tcp_state,
};
use lb_tests::{each_tcp_way, each_way, packet::*};

const ETH_LEN: usize = 14;

/// A service in this mode with backend 1 on the first network.
fn serving(way: Way, mode: u8) -> Rig {
    let mut rig = Rig::serving(way, backend_kind::NET);
    rig.shape(way, SLOTS_SMALL, |service| service.mode = mode);
    rig
}

/// The frame between these stations, its packet inside another one from the node to the backend.
fn wrapped(way: Way, frame: &Frame, to: SocketAddr, macs: ([u8; 6], [u8; 6])) -> Vec<u8> {
    frame
        .clone()
        .between(macs.0, macs.1)
        .inside(way.node(), to.ip())
}

each_way!(
    by_ipip_the_packet_travels_unchanged_inside_another,
    a_packet_with_options_travels_unchanged_as_well,
    by_l2_the_packet_travels_unchanged_in_a_frame_to_the_backend,
    later_packets_stay_with_their_backend,
    a_flow_has_one_half_alone,
    a_backend_on_this_node_is_reached_by_dnat_whatever_the_mode,
    a_packet_that_would_be_too_long_is_answered_with_what_fits,
    errors_about_replies_go_to_the_backend_as_they_are,
    fragments_go_to_the_backend_as_they_are,
    an_unknown_neighbour_leaves_the_packet_untouched_for_the_tc_twin,
    the_tc_twin_wraps_and_redirects,
    the_tc_twin_answers_what_would_be_too_long,
    the_tc_twin_redirects_to_the_neighbour,
    above_the_guard_packets_go_where_their_flow_would_and_nothing_is_kept,
    above_the_guard_there_are_no_flows_of_services_that_need_them,
    packets_back_are_unknown_not_zero
);

fn by_ipip_the_packet_travels_unchanged_inside_another(way: Way) {
    let rig = serving(way, service_mode::DSR_IPIP);
    let net = Net::new();
    for frame in [
        way.opening(way.client(1), way.vip(1)),
        way.later(way.client(1), way.vip(1)),
    ] {
        let out = rig.run_from(Hook::Xdp, &frame.bytes(), net.first);
        let macs = (FIRST_MAC, neighbour_mac(1));
        out.must_be_bytes(XDP_TX, &wrapped(way, &frame, way.backend(1), macs));
        let outer = SlicedPacket::from_ethernet(&out.bytes).unwrap();
        if let Some(NetSlice::Ipv4(ip)) = outer.net {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
        }
    }
    assert_eq!(rig.counters(), []);
}

fn by_l2_the_packet_travels_unchanged_in_a_frame_to_the_backend(way: Way) {
    let rig = serving(way, service_mode::DSR_L2);
    let net = Net::new();
    for frame in [
        way.opening(way.client(1), way.vip(1)),
        way.later(way.client(1), way.vip(1)),
    ] {
        let wanted = frame.clone().between(FIRST_MAC, neighbour_mac(1));
        rig.expect_from(net.first, Hook::Xdp, &frame, XDP_TX, &wanted);
    }
    assert_eq!(rig.counters(), []);
}

fn a_packet_with_options_travels_unchanged_as_well(way: Way) {
    for mode in [service_mode::DSR_IPIP, service_mode::DSR_L2] {
        let rig = serving(way, mode);
        let net = Net::new();
        for frame in [
            way.opening(way.client(1), way.vip(1)),
            way.later(way.client(1), way.vip(1)),
        ] {
            let frame = frame.with_options();
            let macs = (FIRST_MAC, neighbour_mac(1));
            let wanted = if mode == service_mode::DSR_IPIP {
                wrapped(way, &frame, way.backend(1), macs)
            } else {
                frame.clone().between(macs.0, macs.1).bytes()
            };
            let out = rig.run_from(Hook::Xdp, &frame.bytes(), net.first);
            out.must_be_bytes(XDP_TX, &wanted);
        }
        assert_eq!(rig.counters(), []);
    }
}

fn later_packets_stay_with_their_backend(way: Way) {
    let mut rig = serving(way, service_mode::DSR_L2);
    let net = Net::new();
    rig.run_from(
        Hook::Xdp,
        &way.opening(way.client(1), way.vip(1)).bytes(),
        net.first,
    );
    rig.backend(2, backend(way, way.backend(2), backend_kind::NET));
    rig.table(SERVICE, &repeated(&[2], SLOTS_SMALL));
    let frame = way.later(way.client(1), way.vip(1));
    let wanted = frame.clone().between(FIRST_MAC, neighbour_mac(1));
    rig.expect_from(net.first, Hook::Xdp, &frame, XDP_TX, &wanted);
    let mut gone = backend(way, way.backend(1), backend_kind::NET);
    gone.state = backend_state::FREE;
    rig.backend(1, gone);
    let frame = way.opening(way.client(1), way.vip(1));
    let wanted = frame.clone().between(FIRST_MAC, neighbour_mac(2));
    rig.expect_from(net.first, Hook::Xdp, &frame, XDP_TX, &wanted);
}

fn a_flow_has_one_half_alone(way: Way) {
    let rig = serving(way, service_mode::DSR_IPIP);
    let net = Net::new();
    for frame in [
        way.opening(way.client(1), way.vip(1)),
        way.later(way.client(1), way.vip(1)),
    ] {
        rig.run_from(Hook::Xdp, &frame.bytes(), net.first);
        let flows = rig.flows(way);
        assert_eq!(flows.len(), 1);
        assert_eq!(flows[0].arrives, (way.client(1), way.vip(1)));
        assert_eq!(flows[0].leaves, (way.client(1), way.vip(1)));
        assert_eq!(
            (flows[0].kind, flows[0].forward),
            (backend_kind::IPIP, true)
        );
    }
    assert_eq!(rig.established(way).len(), 1);
}

fn a_backend_on_this_node_is_reached_by_dnat_whatever_the_mode(way: Way) {
    for mode in [service_mode::DSR_IPIP, service_mode::DSR_L2] {
        let mut rig = Rig::serving(way, backend_kind::HOST);
        rig.shape(way, SLOTS_SMALL, |service| service.mode = mode);
        let frame = way.opening(way.client(1), way.vip(1));
        rig.expect(Hook::Xdp, &frame, XDP_PASS, &frame.clone().to(way.host()));
    }
}

fn a_packet_that_would_be_too_long_is_answered_with_what_fits(way: Way) {
    let rig = serving(way, service_mode::DSR_IPIP);
    let net = Net::new();
    net.narrow(1_400);
    let header = if way.v6 { 40 } else { 20 };
    let most = 1_400 - header;
    for (len, fits) in [(most, true), (most + 1, false)] {
        let mut frame = way.opening(way.client(1), way.vip(1));
        let headers = frame.bytes().len() - ETH_LEN - frame.payload.len();
        frame.payload = vec![7; usize::from(len) - headers];
        let out = rig.run_from(Hook::Xdp, &frame.bytes(), net.first);
        if fits {
            let macs = (FIRST_MAC, neighbour_mac(1));
            out.must_be_bytes(XDP_TX, &wrapped(way, &frame, way.backend(1), macs));
        } else {
            let answer = Error::of_node(&frame, Trouble::TooBig(most));
            out.must_be_bytes(XDP_TX, &answer.bytes());
        }
    }
    assert_eq!(rig.counters(), [(Reason::TooBig, 1)]);
}

fn errors_about_replies_go_to_the_backend_as_they_are(way: Way) {
    for (mode, hook) in [
        (service_mode::DSR_L2, Hook::Xdp),
        (service_mode::DSR_IPIP, Hook::Xdp),
        (service_mode::DSR_IPIP, Hook::Ingress),
    ] {
        let mut rig = serving(way, mode);
        let net = Net::new();
        lead_by(&mut rig, way, net.first);
        let opening = way.opening(way.client(1), way.vip(1));
        rig.run_from(Hook::Xdp, &opening.bytes(), net.first);
        let reply = way.later(way.vip(1), way.client(1));
        let error = reply.error(way.stranger().ip(), Trouble::TooBig(1_280), 8);
        let out = rig.run_from(hook, &error.bytes(), net.first);
        carried(way, mode, hook, &error.bytes(), &out);
    }
}

fn fragments_go_to_the_backend_as_they_are(way: Way) {
    for (mode, hook) in [
        (service_mode::DSR_L2, Hook::Xdp),
        (service_mode::DSR_IPIP, Hook::Xdp),
        (service_mode::DSR_IPIP, Hook::Ingress),
    ] {
        let mut rig = serving(way, mode);
        let net = Net::new();
        lead_by(&mut rig, way, net.first);
        let frame = way.opening(way.client(1), way.vip(1));
        for part in [
            frame.clone().fragment((0, true)).bytes(),
            frame.later_fragment((5, true), way.proto()),
            frame.later_fragment((9, false), way.proto()),
        ] {
            let out = rig.run_from(hook, &part, net.first);
            carried(way, mode, hook, &part, &out);
        }
        assert_eq!(rig.counters(), []);
    }
}

/// Demands that a frame was sent to backend 1 with all behind its Ethernet header as it was.
#[track_caller]
fn carried(way: Way, mode: u8, hook: Hook, frame: &[u8], out: &Out) {
    let header = match (mode, way.v6) {
        (service_mode::DSR_L2, _) => 0,
        (_, false) => 20,
        (_, true) => 40,
    };
    assert_eq!(out.bytes[ETH_LEN + header..], frame[ETH_LEN..]);
    if hook == Hook::Xdp {
        assert_eq!(out.verdict, XDP_TX);
        assert_eq!(out.bytes[..6], neighbour_mac(1));
        assert_eq!(out.bytes[6..12], FIRST_MAC);
    } else {
        assert_eq!(out.verdict, TC_REDIRECT);
    }
    if header != 0 {
        let outer = SlicedPacket::from_ethernet(&out.bytes).unwrap();
        let to: IpAddr = match outer.net {
            Some(NetSlice::Ipv4(ip)) => ip.header().destination_addr().into(),
            Some(NetSlice::Ipv6(ip)) => ip.header().destination_addr().into(),
            other => panic!("{other:?}"),
        };
        assert_eq!(to, way.backend(1).ip());
    }
}

fn an_unknown_neighbour_leaves_the_packet_untouched_for_the_tc_twin(way: Way) {
    for mode in [service_mode::DSR_IPIP, service_mode::DSR_L2] {
        let mut rig = serving(way, mode);
        let net = Net::new();
        rig.backend(1, backend(way, way.backend(99), backend_kind::NET));
        let frame = way.opening(way.client(1), way.vip(1));
        rig.expect_from(net.first, Hook::Xdp, &frame, XDP_PASS, &frame);
        assert_eq!(rig.counters(), [(Reason::ToSlowPath, 1)]);
    }
}

/// As the agent has it when it knows the route.
fn lead_by(rig: &mut Rig, way: Way, ifindex: u32) {
    let mut at = backend(way, way.backend(1), backend_kind::NET);
    at.ifindex = ifindex;
    rig.backend(1, at);
}

fn the_tc_twin_wraps_and_redirects(way: Way) {
    let mut rig = serving(way, service_mode::DSR_IPIP);
    let net = Net::new();
    lead_by(&mut rig, way, net.first);
    let frame = way.opening(way.client(1), way.vip(1));
    let out = rig.run(Hook::Ingress, &frame);
    // The Ethernet header is the kernel's to write.
    assert_eq!(out.verdict, TC_REDIRECT);
    let wanted = wrapped(way, &frame, way.backend(1), frame.macs);
    assert_eq!(out.bytes[ETH_LEN..], wanted[ETH_LEN..]);
}

fn the_tc_twin_answers_what_would_be_too_long(way: Way) {
    let mut rig = serving(way, service_mode::DSR_IPIP);
    let net = Net::new();
    lead_by(&mut rig, way, net.first);
    let most = 1_500 - if way.v6 { 40 } else { 20 };
    for (len, fits) in [(most, true), (most + 1, false)] {
        let mut frame = way.opening(way.client(1), way.vip(1));
        let headers = frame.bytes().len() - ETH_LEN - frame.payload.len();
        frame.payload = vec![7; len - headers];
        let out = rig.run(Hook::Ingress, &frame);
        if fits {
            assert_eq!(out.verdict, TC_REDIRECT);
            continue;
        }
        let answer = Error::of_node(&frame, Trouble::TooBig(most as u16));
        out.must_be_bytes(TC_REDIRECT, &answer.bytes());
    }
    assert_eq!(rig.counters(), [(Reason::TooBig, 1)]);
    assert_eq!(rig.stats(1)[1..3], [1, most as u64]);
}

fn the_tc_twin_redirects_to_the_neighbour(way: Way) {
    let mut rig = serving(way, service_mode::DSR_L2);
    let net = Net::new();
    lead_by(&mut rig, way, net.first);
    let frame = way.opening(way.client(1), way.vip(1));
    rig.expect(Hook::Ingress, &frame, TC_REDIRECT, &frame);
}

/// A rig that opens a flow now and then, with two backends.
fn guarded(way: Way, shape: impl FnOnce(&mut Service)) -> Rig {
    let mut rig = Rig::guarded(1).with_service(way, backend_kind::NET);
    rig.backend(2, backend(way, way.backend(2), backend_kind::NET));
    rig.shape(way, SLOTS_SMALL, shape);
    rig.table(SERVICE, &repeated(&[1, 2], SLOTS_SMALL));
    rig
}

fn above_the_guard_packets_go_where_their_flow_would_and_nothing_is_kept(way: Way) {
    const CLIENTS: u64 = 100;
    for (mode, hook) in [
        (service_mode::DSR_L2, Hook::Xdp),
        (service_mode::DSR_IPIP, Hook::Xdp),
        (service_mode::DSR_IPIP, Hook::Ingress),
    ] {
        let mut rig = guarded(way, |service| service.mode = mode);
        let net = Net::new();
        lead_by(&mut rig, way, net.first);
        let mut with_flow = 0;
        for port in 1_000..1_000 + CLIENTS as u16 {
            let client = SocketAddr::new(way.client(2).ip(), port);
            let both = [
                way.opening(client, way.vip(1)),
                way.later(client, way.vip(1)),
            ];
            let [opening, later] = both.map(|frame| {
                let out = rig.run_from(hook, &frame.bytes(), net.first);
                with_flow += u64::from(rig.flow(way, client, way.vip(1)).is_some());
                assert!(out.bytes.ends_with(&frame.bytes()[ETH_LEN..]));
                let (sent, leads) = if hook == Hook::Xdp {
                    (XDP_TX, 0..6)
                } else {
                    // The addresses of the outer header.
                    (TC_REDIRECT, if way.v6 { 22..54 } else { 26..34 })
                };
                assert_eq!(out.verdict, sent);
                out.bytes[leads].to_vec()
            });
            assert_eq!(opening, later, "one backend");
        }
        let without = rig.counter(Reason::WithoutState);
        assert_eq!(with_flow + without, 2 * CLIENTS, "{mode} {hook:?}");
        assert!(without > CLIENTS / 2, "{without}");
        assert_eq!(rig.counters(), [(Reason::WithoutState, without)]);
        let (flows, packets) = (1..=2)
            .map(|id| (rig.load(id), rig.stats(id)[1]))
            .fold((0, 0), |(flows, packets), (more_flows, more)| {
                (flows + more_flows, packets + more)
            });
        assert_eq!(flows, rig.flows(way).len() as u64);
        assert_eq!(packets, 2 * CLIENTS, "all are counted");
    }
}

fn above_the_guard_there_are_no_flows_of_services_that_need_them(way: Way) {
    let needs: [fn(&mut Service); 4] = [
        |service| service.algorithm = algorithm::LEAST_CONN,
        |service| service.algorithm = algorithm::ROUND_ROBIN,
        |service| service.affinity = 60,
        |service| service.max_flows = 1_000,
    ];
    for need in needs {
        let rig = guarded(way, |service| {
            service.mode = service_mode::DSR_L2;
            need(service);
        });
        let net = Net::new();
        for port in 1_000..1_100 {
            let client = SocketAddr::new(way.client(2).ip(), port);
            rig.run_from(
                Hook::Xdp,
                &way.opening(client, way.vip(1)).bytes(),
                net.first,
            );
        }
        let dropped = rig.counter(Reason::NewFlowGuard);
        assert!((50..100).contains(&dropped), "{dropped}");
        assert_eq!(rig.flows(way).len() as u64, 100 - dropped);
        assert_eq!(rig.counter(Reason::WithoutState), 0);
    }
}

fn packets_back_are_unknown_not_zero(way: Way) {
    let rig = serving(way, service_mode::DSR_L2);
    let net = Net::new();
    let frame = way.opening(way.client(1), way.vip(1));
    rig.run_from(Hook::Xdp, &frame.bytes(), net.first);
    let bytes = (frame.bytes().len() - ETH_LEN) as u64;
    // What comes back is not seen; who shows these counters knows the service's mode.
    assert_eq!(rig.stats(1), [1, 1, bytes, 0, 0]);
}

each_tcp_way!(
    a_reset_or_end_by_the_client_lets_the_port_be_used_again,
    a_segment_without_a_flow_finds_its_backend_by_hash
);

fn a_reset_or_end_by_the_client_lets_the_port_be_used_again(way: Way) {
    for (segment, state) in [
        (Segment::Fin, tcp_state::FIN),
        (Segment::Rst, tcp_state::RST),
    ] {
        let mut rig = serving(way, service_mode::DSR_L2);
        let net = Net::new();
        let send = |rig: &Rig, frame: &Frame| rig.run_from(Hook::Xdp, &frame.bytes(), net.first);
        send(&rig, &way.opening(way.client(1), way.vip(1)));
        send(&rig, &way.later(way.client(1), way.vip(1)));
        send(&rig, &way.segment(way.client(1), way.vip(1), segment));
        assert_eq!(rig.flows(way)[0].tcp, state);
        rig.backend(2, backend(way, way.backend(2), backend_kind::NET));
        rig.table(SERVICE, &repeated(&[2], SLOTS_SMALL));
        let frame = way.opening(way.client(1), way.vip(1));
        let wanted = frame.clone().between(FIRST_MAC, neighbour_mac(2));
        send(&rig, &frame).must_be(XDP_TX, &wanted);
        // The namespace of the next round is a fresh one.
    }
}

fn a_segment_without_a_flow_finds_its_backend_by_hash(way: Way) {
    let rig = serving(way, service_mode::DSR_L2);
    let net = Net::new();
    let frame = way.later(way.client(1), way.vip(1));
    let wanted = frame.clone().between(FIRST_MAC, neighbour_mac(1));
    rig.expect_from(net.first, Hook::Xdp, &frame, XDP_TX, &wanted);
    let reset = way.segment(way.client(2), way.vip(1), Segment::Rst);
    rig.expect_from(net.first, Hook::Xdp, &reset, XDP_PASS, &reset);
}
