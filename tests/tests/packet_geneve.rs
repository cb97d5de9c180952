//! To a peer: a client's packet goes unchanged, but for a hop, inside another to the agent of its backend's host, with
//! the backend's name.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;

use lb_common::{NextHop, Reason, SLOTS_SMALL, backend_kind, backend_state, service_mode};
use lb_tests::{each_tcp_way, each_udp_way, each_way, packet::*};

const ETH_LEN: usize = 14;
/// Index of the next hop to the first network's first host.
const HOP: u16 = 3;

/// A service whose backend 1 is at a peer with the backend's address.
fn serving(way: Way) -> Rig {
    to_peers(Rig::serving(way, backend_kind::NET), way)
}

fn to_peers(mut rig: Rig, way: Way) -> Rig {
    rig.shape(way, SLOTS_SMALL, |service| {
        service.mode = service_mode::DSR_GENEVE;
    });
    rig
}

/// As [`serving`], on a network, with the next hop known or not.
fn on_network(way: Way, hop: u16) -> (Rig, Net) {
    let mut rig = serving(way);
    let net = at_peer(&mut rig, way, hop);
    (rig, net)
}

fn at_peer(rig: &mut Rig, way: Way, hop: u16) -> Net {
    let net = Net::new();
    rig.peer(1, way.backend(1).ip(), net.first, hop);
    let mac = |[a, b, c, d, e, f]: [u8; 6]| [[a, b], [c, d], [e, f]].map(u16::from_ne_bytes);
    let value = NextHop {
        to: mac(neighbour_mac(1)),
        from: mac(FIRST_MAC),
        ifindex: net.first,
        mtu: 1_500,
    };
    rig.next_hop(HOP, value);
    net
}

/// The source port of a packet to a peer.
fn sport(out: &Out) -> u16 {
    let at = if out.bytes[12..14] == [0x86, 0xdd] {
        ETH_LEN + 40
    } else {
        ETH_LEN + 20
    };
    u16::from_be_bytes([out.bytes[at], out.bytes[at + 1]])
}

/// What leaves for a frame, between these stations.
fn wrapped(way: Way, frame: &Frame, out: &Out, macs: ([u8; 6], [u8; 6])) -> Vec<u8> {
    let at = way.backend(1);
    let shim = Shim {
        sport: sport(out),
        ..Shim::new(way.node(), at.ip(), at)
    };
    shim.around(&frame.clone().forwarded().between(macs.0, macs.1).bytes())
}

each_way!(
    the_packet_travels_inside_another_with_the_backends_name,
    a_packet_with_options_travels_as_well,
    a_flow_has_one_half_alone_and_its_packets_one_source_port,
    a_backend_whose_host_is_no_peer_is_reached_by_full_nat,
    a_backend_that_is_no_peers_any_more_loses_its_flows,
    a_packet_that_would_be_too_long_is_answered_with_what_fits,
    a_packet_without_a_hop_left_is_answered,
    errors_about_replies_go_to_the_peer,
    fragments_go_to_the_peer_by_one_way,
    whatever_goes_to_the_peer_is_counted_once_by_whoever_sends_it,
    what_cannot_go_to_the_peer_is_not_counted_for_its_service,
    the_tc_twin_wraps_and_redirects,
    what_has_tags_or_no_neighbour_is_left_to_the_tc_twin,
    traffic_class_and_marks_are_copied,
    above_the_guard_packets_go_to_the_peer_and_nothing_is_kept
);

fn the_packet_travels_inside_another_with_the_backends_name(way: Way) {
    for hop in [0, HOP] {
        let (rig, net) = on_network(way, hop);
        let frames = [
            way.opening(way.client(1), way.vip(1)),
            way.later(way.client(1), way.vip(1)),
            way.later(way.client(1), way.vip(1)),
            way.later(way.client(1), way.vip(1)),
        ];
        for frame in &frames {
            for hook in [Hook::Xdp, Hook::XdpGeneral] {
                let out = rig.run_from(hook, &frame.bytes(), net.first);
                assert!(sport(&out) >= 0xc000);
                let macs = (FIRST_MAC, neighbour_mac(1));
                out.must_be_bytes(XDP_TX, &wrapped(way, frame, &out, macs));
            }
        }
        assert_eq!(rig.counters(), []);
        let bytes = |frame: &Frame| 2 * (frame.bytes().len() - ETH_LEN) as u64;
        let sent = frames.iter().map(bytes).sum();
        assert_eq!(rig.stats(1), [1, 8, sent, 0, 0]);
        assert_eq!(rig.carried(SERVICE), [8, sent, 0, 0]);
    }
}

fn a_packet_with_options_travels_as_well(way: Way) {
    for hop in [0, HOP] {
        let (rig, net) = on_network(way, hop);
        for frame in [
            way.opening(way.client(1), way.vip(1)),
            way.later(way.client(1), way.vip(1)),
        ] {
            let frame = frame.with_options();
            let macs = (FIRST_MAC, neighbour_mac(1));
            let out = rig.run_from(Hook::Xdp, &frame.bytes(), net.first);
            out.must_be_bytes(XDP_TX, &wrapped(way, &frame, &out, macs));
            let out = rig.run_from(Hook::Ingress, &frame.bytes(), net.first);
            assert_eq!(out.verdict, TC_REDIRECT);
            let wanted = wrapped(way, &frame, &out, frame.macs);
            assert_eq!(out.bytes[ETH_LEN..], wanted[ETH_LEN..]);
        }
        assert_eq!(rig.counters(), []);
    }
}

fn a_flow_has_one_half_alone_and_its_packets_one_source_port(way: Way) {
    let (rig, net) = on_network(way, HOP);
    let mut ports = std::collections::BTreeSet::new();
    for client in 1..=9 {
        let send = |frame: Frame| rig.run_from(Hook::Xdp, &frame.bytes(), net.first);
        let first = send(way.opening(way.client(client), way.vip(1)));
        for _ in 0..3 {
            let next = send(way.later(way.client(client), way.vip(1)));
            assert_eq!(sport(&first), sport(&next));
        }
        ports.insert(sport(&first));
    }
    assert!(ports.len() > 5, "flows spread: {ports:?}");
    let flows = rig.established(way);
    assert_eq!(flows.len(), 9);
    for flow in flows {
        assert_eq!((flow.kind, flow.forward), (backend_kind::GENEVE, true));
        assert_eq!(flow.arrives, flow.leaves);
    }
}

fn a_backend_whose_host_is_no_peer_is_reached_by_full_nat(way: Way) {
    let (mut rig, net) = on_network(way, HOP);
    rig.no_peer(1);
    let frame = way.opening(way.client(1), way.vip(1));
    let out = rig.run_from(Hook::Xdp, &frame.bytes(), net.first);
    assert_eq!(out.bytes.len(), frame.bytes().len());
    assert_eq!(rig.flows(way)[0].kind, backend_kind::NET);
    let mut rig = Rig::serving(way, backend_kind::HOST);
    rig.shape(way, SLOTS_SMALL, |service| {
        service.mode = service_mode::DSR_GENEVE;
    });
    rig.expect(Hook::Xdp, &frame, XDP_PASS, &frame.clone().to(way.host()));
}

fn a_backend_that_is_no_peers_any_more_loses_its_flows(way: Way) {
    for hook in [Hook::Xdp, Hook::Ingress] {
        let (mut rig, net) = on_network(way, HOP);
        for frame in [
            way.opening(way.client(1), way.vip(1)),
            way.later(way.client(1), way.vip(1)),
        ] {
            rig.run_from(Hook::Xdp, &frame.bytes(), net.first);
        }
        rig.no_peer(1);
        let frame = way.later(way.client(1), way.vip(1));
        // The client of a connection hears of it from the stack.
        let verdict = if way.tcp { hook.pass() } else { hook.drop() };
        rig.expect_from(net.first, hook, &frame, verdict, &frame);
        assert_eq!(rig.counters(), [(Reason::BackendGone, 1)]);
        assert_eq!(rig.flows(way), []);
    }
}

fn a_packet_that_would_be_too_long_is_answered_with_what_fits(way: Way) {
    for hop in [0, HOP] {
        let (mut rig, net) = on_network(way, hop);
        net.narrow(1_400);
        let mac = |[a, b, c, d, e, f]: [u8; 6]| [[a, b], [c, d], [e, f]].map(u16::from_ne_bytes);
        let value = NextHop {
            to: mac(neighbour_mac(1)),
            from: mac(FIRST_MAC),
            ifindex: net.first,
            mtu: 1_400,
        };
        rig.next_hop(HOP, value);
        let most = 1_400 - if way.v6 { 80 } else { 48 };
        for (len, fits) in [(most, true), (most + 1, false)] {
            for hook in [Hook::Xdp, Hook::XdpGeneral] {
                let mut frame = way.opening(way.client(1), way.vip(1));
                let headers = frame.bytes().len() - ETH_LEN - frame.payload.len();
                frame.payload = vec![7; usize::from(len) - headers];
                let out = rig.run_from(hook, &frame.bytes(), net.first);
                if fits {
                    let macs = (FIRST_MAC, neighbour_mac(1));
                    out.must_be_bytes(XDP_TX, &wrapped(way, &frame, &out, macs));
                } else {
                    let answer = Error::of_node(&frame, Trouble::TooBig(most));
                    out.must_be_bytes(XDP_TX, &answer.bytes());
                }
            }
        }
        assert_eq!(rig.counters(), [(Reason::TooBig, 2)]);
        // Where no next hop is known, the tc twin asks the interface alone.
        let mut frame = way.opening(way.client(1), way.vip(1));
        frame.payload = vec![7; 1_480];
        let most = if hop == 0 { most + 100 } else { most };
        let answer = Error::of_node(&frame, Trouble::TooBig(most));
        rig.run(Hook::Ingress, &frame)
            .must_be_bytes(TC_REDIRECT, &answer.bytes());
        assert_eq!(rig.counters(), [(Reason::TooBig, 3)]);
    }
}

fn a_packet_without_a_hop_left_is_answered(way: Way) {
    for hop in [0, HOP] {
        let (rig, net) = on_network(way, hop);
        let mut frame = way.opening(way.client(1), way.vip(1));
        for _ in 0..2 {
            frame.ttl = 1;
            let out = rig.run_from(Hook::Xdp, &frame.bytes(), net.first);
            let answer = Error::of_node(&frame, Trouble::TimeExceeded);
            out.must_be_bytes(XDP_TX, &answer.bytes());
            frame = way.later(way.client(1), way.vip(1));
        }
        frame.ttl = 1;
        let answer = Error::of_node(&frame, Trouble::TimeExceeded);
        rig.run(Hook::Ingress, &frame)
            .must_be_bytes(TC_REDIRECT, &answer.bytes());
        assert_eq!(rig.counters(), [(Reason::TtlExceeded, 3)]);
    }
}

/// Demands that a frame was sent to the peer with all behind its Ethernet header as it was, but for the hop.
#[track_caller]
fn carried(way: Way, hook: Hook, frame: &[u8], out: &Out) {
    let shim = Shim::new(way.node(), way.backend(1).ip(), way.backend(1));
    let inner = &out.bytes[ETH_LEN + shim.len()..];
    let (hop, sum) = if way.v6 { (7, 7..8) } else { (8, 8..12) };
    assert_eq!(inner[hop], frame[ETH_LEN + hop] - 1);
    assert_eq!(inner[..sum.start], frame[ETH_LEN..][..sum.start]);
    assert_eq!(inner[sum.end..], frame[ETH_LEN..][sum.end..]);
    if hook == Hook::Xdp {
        assert_eq!(out.verdict, XDP_TX);
        assert_eq!(out.bytes[..6], neighbour_mac(1));
    } else {
        assert_eq!(out.verdict, TC_REDIRECT);
    }
    if !way.v6 {
        let ip = etherparse::Ipv4Header::from_slice(inner).unwrap().0;
        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
    }
}

fn errors_about_replies_go_to_the_peer(way: Way) {
    for hook in [Hook::Xdp, Hook::Ingress] {
        let (rig, net) = on_network(way, HOP);
        let opening = way.opening(way.client(1), way.vip(1));
        rig.run_from(Hook::Xdp, &opening.bytes(), net.first);
        let reply = way.later(way.vip(1), way.client(1));
        let error = reply.error(way.stranger().ip(), Trouble::TooBig(1_280), 8);
        let out = rig.run_from(hook, &error.bytes(), net.first);
        carried(way, hook, &error.bytes(), &out);
    }
}

fn fragments_go_to_the_peer_by_one_way(way: Way) {
    for hook in [Hook::Xdp, Hook::Ingress] {
        let (rig, net) = on_network(way, HOP);
        let frame = way.opening(way.client(1), way.vip(1));
        let mut ports = Vec::new();
        for part in [
            frame.clone().fragment((0, true)).bytes(),
            frame.later_fragment((5, true), way.proto()),
            frame.later_fragment((9, false), way.proto()),
        ] {
            let out = rig.run_from(hook, &part, net.first);
            carried(way, hook, &part, &out);
            ports.push(sport(&out));
        }
        assert_eq!(rig.counters(), []);
        assert!(ports.iter().all(|port| *port == ports[0]), "{ports:?}");
    }
}

fn whatever_goes_to_the_peer_is_counted_once_by_whoever_sends_it(way: Way) {
    for resolved in [true, false] {
        let (mut rig, net) = on_network(way, 0);
        if !resolved {
            rig.peer(1, way.backend(99).ip(), net.first, 0);
        }
        let opening = way.opening(way.client(1), way.vip(1));
        let reply = way.later(way.vip(1), way.client(1));
        let error = reply.error(way.stranger().ip(), Trouble::TooBig(1_280), 8);
        let mut sent = [0; 4];
        for frame in [
            opening.bytes(),
            opening.clone().fragment((0, true)).bytes(),
            opening.later_fragment((9, false), way.proto()),
            error.bytes(),
        ] {
            sent[0] += 1;
            sent[1] += (frame.len() - ETH_LEN) as u64;
            let out = rig.run_from(Hook::Xdp, &frame, net.first);
            if resolved {
                assert_eq!(out.verdict, XDP_TX);
            } else {
                out.must_be_bytes(XDP_PASS, &frame);
                let out = rig.run_from(Hook::Ingress, &frame, net.first);
                assert_eq!(out.verdict, TC_REDIRECT);
            }
            let [_, of_backend @ ..] = rig.stats(1);
            assert_eq!((of_backend, rig.carried(SERVICE)), (sent, sent));
        }
    }
}

fn what_cannot_go_to_the_peer_is_not_counted_for_its_service(way: Way) {
    let (rig, net) = on_network(way, HOP);
    let frame = way.opening(way.client(1), way.vip(1));
    let first = frame.clone().fragment((0, true));
    rig.run_from(Hook::Xdp, &first.bytes(), net.first);
    let sent = rig.carried(SERVICE);
    assert_eq!(sent[0], 1);
    let last = Frame { ttl: 1, ..frame };
    for (hook, dropped) in [(Hook::Xdp, 1), (Hook::Ingress, 2)] {
        let part = last.later_fragment((9, false), way.proto());
        let out = rig.run_from(hook, &part, net.first);
        assert_eq!(out.verdict, hook.drop());
        assert_eq!(rig.counters(), [(Reason::TtlExceeded, dropped)]);
        assert_eq!(rig.carried(SERVICE), sent);
    }
}

fn the_tc_twin_wraps_and_redirects(way: Way) {
    let (rig, net) = on_network(way, 0);
    let frame = way.opening(way.client(1), way.vip(1));
    let out = rig.run_from(Hook::Ingress, &frame.bytes(), net.first);
    // The Ethernet header is the kernel's to write.
    assert_eq!(out.verdict, TC_REDIRECT);
    let wanted = wrapped(way, &frame, &out, frame.macs);
    assert_eq!(out.bytes[ETH_LEN..], wanted[ETH_LEN..]);
}

fn what_has_tags_or_no_neighbour_is_left_to_the_tc_twin(way: Way) {
    let (mut rig, net) = on_network(way, 0);
    let mut frame = way.opening(way.client(1), way.vip(1));
    frame.tags = vec![7];
    rig.expect_from(net.first, Hook::Xdp, &frame, XDP_PASS, &frame);
    rig.peer(1, way.backend(99).ip(), net.first, 0);
    frame.tags = vec![];
    rig.expect_from(net.first, Hook::Xdp, &frame, XDP_PASS, &frame);
    assert_eq!(rig.counters(), [(Reason::ToSlowPath, 2)]);
    // Whoever sends it counts it.
    assert_eq!(rig.carried(SERVICE), [0; 4]);
    let out = rig.run_from(Hook::Ingress, &frame.bytes(), net.first);
    assert_eq!(out.verdict, TC_REDIRECT);
    assert_eq!(rig.carried(SERVICE)[0], 1);
}

fn traffic_class_and_marks_are_copied(way: Way) {
    let (rig, net) = on_network(way, HOP);
    let mut frame = way.later(way.client(1), way.vip(1)).bytes();
    let class: u8 = 0xba;
    if way.v6 {
        frame[ETH_LEN] = 0x60 | class >> 4;
        frame[ETH_LEN + 1] = class << 4 | frame[ETH_LEN + 1] & 0xf;
    } else {
        frame[ETH_LEN + 1] = class;
    }
    for hook in [Hook::Xdp, Hook::XdpGeneral, Hook::Xdp] {
        let out = rig.run_from(hook, &frame, net.first);
        assert_eq!(out.verdict, XDP_TX);
        let outer = &out.bytes[ETH_LEN..];
        let found = if way.v6 {
            outer[0] << 4 | outer[1] >> 4
        } else {
            outer[1]
        };
        assert_eq!(found, class);
    }
}

each_udp_way!(the_shortest_datagram_travels_as_well);

fn the_shortest_datagram_travels_as_well(way: Way) {
    let (rig, net) = on_network(way, HOP);
    for payload in [0, 1, 11, 12] {
        let mut frame = way.later(way.client(1), way.vip(1));
        frame.payload = vec![7; payload];
        let out = rig.run_from(Hook::Xdp, &frame.bytes(), net.first);
        let macs = (FIRST_MAC, neighbour_mac(1));
        out.must_be_bytes(XDP_TX, &wrapped(way, &frame, &out, macs));
    }
    assert_eq!(rig.counters(), []);
}

each_tcp_way!(a_segment_without_a_flow_finds_its_backend_by_hash);

fn a_segment_without_a_flow_finds_its_backend_by_hash(way: Way) {
    let (mut rig, net) = on_network(way, HOP);
    let frame = way.later(way.client(1), way.vip(1));
    let out = rig.run_from(Hook::Xdp, &frame.bytes(), net.first);
    let macs = (FIRST_MAC, neighbour_mac(1));
    out.must_be_bytes(XDP_TX, &wrapped(way, &frame, &out, macs));
    let mut gone = backend(way, way.backend(1), backend_kind::NET);
    gone.state = backend_state::FREE;
    rig.backend(1, gone);
    let reset: SocketAddr = way.client(1);
    let frame = way.later(reset, way.vip(1));
    rig.expect_from(net.first, Hook::Xdp, &frame, XDP_PASS, &frame);
    assert_eq!(rig.counters(), [(Reason::BackendGone, 1)]);
}

fn above_the_guard_packets_go_to_the_peer_and_nothing_is_kept(way: Way) {
    const CLIENTS: u64 = 100;
    for (hop, hook, sent) in [(HOP, Hook::Xdp, XDP_TX), (0, Hook::Ingress, TC_REDIRECT)] {
        let mut rig = to_peers(Rig::guarded(1).with_service(way, backend_kind::NET), way);
        let net = at_peer(&mut rig, way, hop);
        for port in 1_000..1_000 + CLIENTS as u16 {
            let client = SocketAddr::new(way.client(2).ip(), port);
            let frame = way.opening(client, way.vip(1));
            let out = rig.run_from(hook, &frame.bytes(), net.first);
            assert_eq!(out.verdict, sent);
            if hook == Hook::Xdp {
                let macs = (FIRST_MAC, neighbour_mac(1));
                assert_eq!(out.bytes, wrapped(way, &frame, &out, macs));
            }
        }
        let without = rig.counter(Reason::WithoutState);
        assert!((CLIENTS / 2..CLIENTS).contains(&without), "{without}");
        assert_eq!(rig.flows(way).len() as u64, CLIENTS - without);
        assert_eq!(rig.stats(1)[1], CLIENTS, "all are counted");
    }
}
