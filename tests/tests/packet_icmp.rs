//! ICMP errors about flows: each goes, translated, to the side that must hear it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::{IpAddr, SocketAddr};

use lb_common::{Backend, Reason, backend_kind};
use lb_tests::{each_tcp_way, each_udp_way, each_way, packet::*};

/// RFC 792: the least that is quoted behind the IP header; and all there is.
const QUOTES: [usize; 2] = [8, 1_000];
const TROUBLES: [Trouble; 4] = [
    Trouble::Unreachable,
    Trouble::TooBig(1_400),
    Trouble::TimeExceeded,
    Trouble::ParameterProblem,
];
const ALL: [Hook; 4] = [Hook::Xdp, Hook::Ingress, Hook::Link, Hook::Egress];

/// A flow of client 1 to VIP 1; under full NAT its source on the node, else the client's own.
struct Given {
    rig: Rig,
    net: Net,
    way: Way,
    source: SocketAddr,
}

fn given(way: Way, kind: u8) -> Given {
    let mut rig = Rig::serving(way, kind);
    let net = Net::new();
    if kind == backend_kind::LINK {
        let backend = backend(way, way.backend(1), kind);
        let ifindex = net.second;
        rig.backend(1, Backend { ifindex, ..backend });
    }
    let frame = way.opening(way.client(1), way.vip(1));
    rig.run_from(Hook::Xdp, &frame.bytes(), net.first);
    let source = rig.flow(way, way.client(1), way.vip(1)).unwrap().leaves.0;
    Given {
        rig,
        net,
        way,
        source,
    }
}

// === impl Given ===

impl Given {
    fn router(&self) -> IpAddr {
        self.way.stranger().ip()
    }

    fn backend(&self) -> SocketAddr {
        let flow = self.rig.flow(self.way, self.way.client(1), self.way.vip(1));
        flow.unwrap().leaves.1
    }

    /// What the backend was sent, and what the client had sent.
    fn there(&self) -> [Frame; 2] {
        let way = self.way;
        [
            way.later(self.source, self.backend()),
            way.later(way.client(1), way.vip(1)),
        ]
    }

    /// What the client was sent, and what the backend had sent.
    fn back(&self) -> [Frame; 2] {
        let way = self.way;
        [
            way.later(way.vip(1), way.client(1)),
            way.later(self.backend(), self.source),
        ]
    }

    /// Every trouble, quoted short and whole, about the one packet must become that about the other.
    fn each(&self, frames: &[Frame; 2], check: impl Fn(Error, Error)) {
        for trouble in TROUBLES {
            for quoted in QUOTES {
                let [seen, sent] = frames;
                let router = self.router();
                check(
                    seen.error(router, trouble, quoted),
                    sent.error(router, trouble, quoted),
                );
            }
        }
    }

    #[track_caller]
    fn expect(&self, hook: Hook, error: &Error, verdict: u32, wanted: &Error) {
        self.rig
            .run_from(hook, &error.bytes(), self.net.first)
            .must_be_bytes(verdict, &wanted.bytes());
    }

    #[track_caller]
    fn expect_untouched(&self, hook: Hook, error: &Error) {
        self.expect(hook, error, hook.pass(), error);
    }
}

each_way!(
    a_routers_error_about_a_packet_to_the_backend_reaches_the_client,
    a_routers_error_about_a_reply_reaches_the_backend,
    the_backends_own_error_comes_from_the_vip,
    the_clients_own_error_comes_from_the_nodes_address,
    the_tc_twin_sends_errors_to_both_sides,
    an_error_about_a_reply_of_this_host_goes_up_the_stack,
    an_error_about_a_reply_of_a_container_is_sent_to_it_by_the_tc_twin,
    an_error_by_this_host_leaves_as_one_of_the_vip,
    an_error_by_a_container_is_sent_to_the_client_as_one_of_the_vip,
    an_error_about_no_flow_is_left_to_the_stack_and_counted,
    an_error_about_no_flow_that_xdp_has_counted_is_not_counted_by_its_twin,
    an_error_about_the_nodes_own_packets_passes_untouched,
    an_error_that_is_not_sent_to_the_sender_of_the_packet_passes_untouched,
    an_error_about_a_fragment_without_ports_passes_untouched,
    what_is_no_error_passes_untouched,
    an_error_with_options_about_a_packet_with_options_is_translated,
    an_error_without_a_next_hop_is_left_untouched_for_the_tc_twin,
    a_tagged_error_for_another_host_is_left_untouched_for_the_tc_twin,
    an_error_without_a_hop_left_is_dropped,
    a_device_that_summed_the_error_is_not_contradicted
);

fn a_routers_error_about_a_packet_to_the_backend_reaches_the_client(way: Way) {
    let given = given(way, backend_kind::NET);
    given.each(&given.there(), |error, wanted| {
        let wanted = wanted.carried(|f| f.forwarded().between(FIRST_MAC, GATEWAY_MAC));
        given.expect(Hook::Xdp, &error, XDP_TX, &wanted);
    });
    assert_eq!(given.rig.counters(), [(Reason::BackendSuspect, 1)]);
}

fn a_routers_error_about_a_reply_reaches_the_backend(way: Way) {
    let given = given(way, backend_kind::NET);
    given.each(&given.back(), |error, wanted| {
        let wanted = wanted.carried(|f| f.forwarded().between(FIRST_MAC, neighbour_mac(1)));
        given.expect(Hook::Xdp, &error, XDP_TX, &wanted);
    });
    assert_eq!(given.rig.counters(), []);
}

fn the_backends_own_error_comes_from_the_vip(way: Way) {
    let given = given(way, backend_kind::NET);
    let [seen, sent] = given.there();
    let error = seen.error(way.backend(1).ip(), Trouble::Unreachable, 8);
    let wanted = sent
        .error(way.vip(1).ip(), Trouble::Unreachable, 8)
        .carried(|f| f.forwarded().between(FIRST_MAC, GATEWAY_MAC));
    given.expect(Hook::Xdp, &error, XDP_TX, &wanted);
}

fn the_clients_own_error_comes_from_the_nodes_address(way: Way) {
    let given = given(way, backend_kind::NET);
    let [seen, sent] = given.back();
    let error = seen.error(way.client(1).ip(), Trouble::Unreachable, 8);
    let wanted = sent
        .error(way.node(), Trouble::Unreachable, 8)
        .carried(|f| f.forwarded().between(FIRST_MAC, neighbour_mac(1)));
    given.expect(Hook::Xdp, &error, XDP_TX, &wanted);
}

fn the_tc_twin_sends_errors_to_both_sides(way: Way) {
    let mut given = given(way, backend_kind::NET);
    let backend = backend(way, way.backend(1), backend_kind::NET);
    let ifindex = given.net.second;
    given.rig.backend(1, Backend { ifindex, ..backend });
    for frames in [given.there(), given.back()] {
        given.each(&frames, |error, wanted| {
            let wanted = wanted.carried(Frame::forwarded);
            given.expect(Hook::Ingress, &error, TC_REDIRECT, &wanted);
        });
    }
    assert_eq!(given.rig.counters(), [(Reason::BackendSuspect, 1)]);
}

fn an_error_about_a_reply_of_this_host_goes_up_the_stack(way: Way) {
    let given = given(way, backend_kind::HOST);
    given.each(&given.back(), |error, wanted| {
        for hook in [Hook::Xdp, Hook::Ingress] {
            given.expect(hook, &error, hook.pass(), &wanted);
        }
    });
    assert_eq!(given.rig.counters(), []);
}

fn an_error_about_a_reply_of_a_container_is_sent_to_it_by_the_tc_twin(way: Way) {
    let given = given(way, backend_kind::LINK);
    let [seen, sent] = given.back();
    for trouble in TROUBLES {
        let error = seen.error(given.router(), trouble, 8);
        let wanted = sent.error(given.router(), trouble, 8);
        given.expect_untouched(Hook::Xdp, &error);
        let wanted = wanted.carried(Frame::forwarded);
        given.expect(Hook::Ingress, &error, TC_REDIRECT, &wanted);
    }
    // The opening packet was one.
    let slow = TROUBLES.len() as u64 + 1;
    assert_eq!(given.rig.counters(), [(Reason::ToSlowPath, slow)]);
}

/// What a backend of this node says about what the client sent.
fn own_error(given: &Given) -> (Error, Error) {
    let [seen, sent] = given.there();
    (
        seen.error(given.backend().ip(), Trouble::Unreachable, 8),
        sent.error(given.way.vip(1).ip(), Trouble::Unreachable, 8),
    )
}

fn an_error_by_this_host_leaves_as_one_of_the_vip(way: Way) {
    let given = given(way, backend_kind::HOST);
    let (error, wanted) = own_error(&given);
    given.expect(Hook::Egress, &error, TC_OK, &wanted);
    // What the host says as a router keeps its source.
    given.each(&given.there(), |error, wanted| {
        given.expect(Hook::Egress, &error, TC_OK, &wanted);
    });
}

fn an_error_by_a_container_is_sent_to_the_client_as_one_of_the_vip(way: Way) {
    let given = given(way, backend_kind::LINK);
    let (error, wanted) = own_error(&given);
    let wanted = wanted.carried(Frame::forwarded);
    given.expect(Hook::Link, &error, TC_REDIRECT, &wanted);
}

fn an_error_about_no_flow_is_left_to_the_stack_and_counted(way: Way) {
    let given = given(way, backend_kind::HOST);
    let mut wanted = 0;
    for hook in [Hook::Xdp, Hook::Ingress] {
        for (from, to) in [
            (way.vip(1), way.client(2)),
            (way.vip(1), way.backend(1)),
            (SocketAddr::new(way.vip(1).ip(), 9), way.client(1)),
        ] {
            let error = way.later(from, to).error(given.router(), TROUBLES[0], 8);
            given.expect_untouched(hook, &error);
            wanted += 1;
            assert_eq!(given.rig.counters(), [(Reason::IcmpUnknown, wanted)]);
        }
    }
}

fn an_error_about_no_flow_that_xdp_has_counted_is_not_counted_by_its_twin(way: Way) {
    let mut given = given(way, backend_kind::HOST);
    given.rig.has_xdp(given.net.first);
    let reply = way.later(way.vip(1), way.client(2));
    let error = reply.error(given.router(), TROUBLES[0], 8);
    for hook in [Hook::Xdp, Hook::Ingress] {
        given.expect_untouched(hook, &error);
        assert_eq!(given.rig.counters(), [(Reason::IcmpUnknown, 1)]);
    }
}

fn an_error_about_the_nodes_own_packets_passes_untouched(way: Way) {
    let given = given(way, backend_kind::NET);
    for port in [22, 30_000, 30_999] {
        let own = SocketAddr::new(way.node(), port);
        for (from, to) in [(own, way.stranger()), (way.stranger(), way.client(1))] {
            let error = way.later(from, to).error(given.router(), TROUBLES[0], 8);
            for hook in ALL {
                given.expect_untouched(hook, &error);
            }
        }
    }
    assert_eq!(given.rig.counters(), []);
}

fn an_error_that_is_not_sent_to_the_sender_of_the_packet_passes_untouched(way: Way) {
    let given = given(way, backend_kind::NET);
    let [seen, _] = given.there();
    let error = seen
        .error(given.router(), Trouble::TooBig(68), 8)
        .carried(|f| f.to(way.vip(1)));
    for hook in ALL {
        given.expect_untouched(hook, &error);
    }
}

fn an_error_about_a_fragment_without_ports_passes_untouched(way: Way) {
    let given = given(way, backend_kind::NET);
    let [seen, _] = given.there();
    let error = seen
        .fragment((5, false))
        .error(given.router(), Trouble::TimeExceeded, 1_000);
    for hook in ALL {
        given.expect_untouched(hook, &error);
    }
    assert_eq!(given.rig.counters(), []);
}

fn what_is_no_error_passes_untouched(way: Way) {
    let given = given(way, backend_kind::NET);
    for [seen, _] in [given.there(), given.back()] {
        let other = seen.error(given.router(), Trouble::Other, 8);
        for hook in ALL {
            given.expect_untouched(hook, &other);
        }
    }
    assert_eq!(given.rig.counters(), []);
}

fn an_error_with_options_about_a_packet_with_options_is_translated(way: Way) {
    let given = given(way, backend_kind::NET);
    for words in [1, 4, 10] {
        let long = |mut frame: Frame| {
            frame.options = vec![1; words * 4];
            if way.v6 {
                let payload = vec![0; 6 + 8 * words];
                let header =
                    etherparse::Ipv6RawExtHeader::new_raw(etherparse::IpNumber::TCP, &payload);
                frame.extensions.hop_by_hop_options = Some(header.unwrap());
            }
            frame
        };
        for quoted in QUOTES {
            let [seen, sent] = given.there().map(long);
            let error = seen
                .error(given.router(), Trouble::TimeExceeded, quoted)
                .carried(long);
            let wanted = sent
                .error(given.router(), Trouble::TimeExceeded, quoted)
                .carried(|f| long(f).forwarded().between(FIRST_MAC, GATEWAY_MAC));
            given.expect(Hook::Xdp, &error, XDP_TX, &wanted);
        }
    }
}

fn an_error_without_a_next_hop_is_left_untouched_for_the_tc_twin(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::NET);
    let net = Net::new();
    rig.backend(1, backend(way, way.backend(20), backend_kind::NET));
    let frame = way.opening(way.client(1), way.vip(1));
    rig.run_from(Hook::Xdp, &frame.bytes(), net.first);
    let reply = way.later(way.vip(1), way.client(1));
    let error = reply.error(way.stranger().ip(), Trouble::TimeExceeded, 8);
    rig.run_from(Hook::Xdp, &error.bytes(), net.first)
        .must_be_bytes(XDP_PASS, &error.bytes());
    assert_eq!(rig.counters(), [(Reason::ToSlowPath, 2)]);
}

fn a_tagged_error_for_another_host_is_left_untouched_for_the_tc_twin(way: Way) {
    let given = given(way, backend_kind::NET);
    let [seen, _] = given.there();
    let error = seen.error(given.router(), Trouble::TimeExceeded, 8);
    let mut error = error.bytes();
    error.splice(12..12, [0x81, 0, 0, 5]);
    given
        .rig
        .run_from(Hook::Xdp, &error, given.net.first)
        .must_be_bytes(XDP_PASS, &error);
    assert_eq!(given.rig.counters(), [(Reason::ToSlowPath, 1)]);
}

fn an_error_without_a_hop_left_is_dropped(way: Way) {
    let given = given(way, backend_kind::NET);
    for (n, hook) in [Hook::Xdp, Hook::Ingress].into_iter().enumerate() {
        let [seen, _] = given.there();
        let error = seen
            .error(given.router(), Trouble::TimeExceeded, 8)
            .carried(|f| Frame { ttl: 1, ..f });
        let out = given.rig.run_from(hook, &error.bytes(), given.net.first);
        assert_eq!(out.verdict, hook.drop());
        assert_eq!(given.rig.counters(), [(Reason::TtlExceeded, n as u64 + 1)]);
    }
}

fn a_device_that_summed_the_error_is_not_contradicted(way: Way) {
    let given = given(way, backend_kind::LINK);
    let (error, wanted) = own_error(&given);
    let wanted = wanted.carried(Frame::forwarded);
    let out = given.rig.run_summed_bytes(Hook::Link, &error.bytes());
    out.expect("the sum holds")
        .must_be_bytes(TC_REDIRECT, &wanted.bytes());
    let [seen, sent] = given.back();
    let error = seen.error(given.router(), Trouble::TooBig(1_280), 1_000);
    let wanted = sent
        .error(given.router(), Trouble::TooBig(1_280), 1_000)
        .carried(Frame::forwarded);
    let out = given.rig.run_summed_bytes(Hook::Ingress, &error.bytes());
    out.expect("the sum holds")
        .must_be_bytes(TC_REDIRECT, &wanted.bytes());
}

each_udp_way!(a_quoted_datagram_without_a_checksum_keeps_none);

fn a_quoted_datagram_without_a_checksum_keeps_none(way: Way) {
    let given = given(way, backend_kind::NET);
    let unsummed = |frame: Frame| Frame {
        transport: Transport::UdpUnsummed,
        ..frame
    };
    given.each(&given.there().map(unsummed), |error, wanted| {
        let wanted = wanted.carried(|f| f.forwarded().between(FIRST_MAC, GATEWAY_MAC));
        given.expect(Hook::Xdp, &error, XDP_TX, &wanted);
    });
}

each_tcp_way!(
    errors_about_established_connections_are_translated_as_well,
    an_error_about_a_flow_whose_backend_is_gone_is_left_to_the_stack
);

fn errors_about_established_connections_are_translated_as_well(way: Way) {
    let given = given(way, backend_kind::NET);
    assert_eq!(given.rig.established(way), []);
    let opened = given.rig.flow(way, way.client(1), way.vip(1));
    let (node, backend) = opened.expect("a flow").leaves;
    for frame in [
        way.segment(backend, node, Segment::SynAck),
        way.later(way.client(1), way.vip(1)),
    ] {
        given
            .rig
            .run_from(Hook::Xdp, &frame.bytes(), given.net.first);
    }
    assert_eq!(given.rig.half_open(way), []);
    for (frames, mac) in [
        (given.there(), GATEWAY_MAC),
        (given.back(), neighbour_mac(1)),
    ] {
        given.each(&frames, |error, wanted| {
            let wanted = wanted.carried(|f| f.forwarded().between(FIRST_MAC, mac));
            given.expect(Hook::Xdp, &error, XDP_TX, &wanted);
        });
    }
}

fn an_error_about_a_flow_whose_backend_is_gone_is_left_to_the_stack(way: Way) {
    let mut given = given(way, backend_kind::NET);
    let [seen, _] = given.back();
    given.rig.backend(1, Backend::default());
    let error = seen.error(given.router(), Trouble::TimeExceeded, 8);
    given.expect_untouched(Hook::Xdp, &error);
    assert_eq!(given.rig.counters(), [(Reason::IcmpUnknown, 1)]);
}
