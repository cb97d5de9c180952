//! Headers that are longer, shorter or more than the plain ones.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use etherparse::{IpNumber, Ipv6Extensions, Ipv6RawExtHeader, Ipv6RoutingExtensions};
use lb_common::{Backend, Reason, backend_kind};
use lb_tests::{each_way, packet::*};

/// Padding options (RFC 8200 section 4.2) in a header of `8 * (1 + more)` bytes.
fn options(more: usize) -> Ipv6RawExtHeader {
    let mut payload = vec![1, 4, 0, 0, 0, 0];
    for _ in 0..more {
        payload.extend([1, 6, 0, 0, 0, 0, 0, 0]);
    }
    Ipv6RawExtHeader::new_raw(IpNumber::TCP, &payload).unwrap()
}

/// Sends a frame in by XDP and by tc, and its answer out.
fn carried(way: Way, make: impl Fn(Frame) -> Frame) {
    let rig = Rig::serving(way, backend_kind::HOST);
    let frame = make(way.opening(way.client(1), way.vip(1)));
    rig.expect(Hook::Xdp, &frame, XDP_PASS, &frame.clone().to(way.host()));
    let later = make(way.later(way.client(1), way.vip(1)));
    rig.expect(Hook::Ingress, &later, TC_OK, &later.clone().to(way.host()));
    let reply = make(way.later(way.host(), way.client(1)));
    rig.expect(Hook::Egress, &reply, TC_OK, &reply.clone().from(way.vip(1)));
    assert_eq!(rig.counters(), []);
    assert_eq!(rig.flows(way).len(), 2);
}

/// Sends a frame through full NAT and its answer back, by XDP and by tc, and an answer out of a container.
fn sent_on(way: Way, make: impl Fn(Frame) -> Frame) {
    let mut rig = Rig::serving(way, backend_kind::NET);
    let net = Net::new();
    let at = backend(way, way.backend(1), backend_kind::NET);
    let ifindex = net.first;
    rig.backend(1, Backend { ifindex, ..at });
    let opening = make(way.opening(way.client(1), way.vip(1)));
    rig.run_from(Hook::Xdp, &opening.bytes(), net.first);
    let source = rig.flow(way, way.client(1), way.vip(1)).unwrap().leaves.0;
    let frame = make(way.later(way.client(1), way.vip(1)));
    let sent = frame.clone().from(source).to(way.backend(1)).forwarded();
    let reply = make(way.later(way.backend(1), source));
    let back = reply.clone().from(way.vip(1)).to(way.client(1)).forwarded();
    rig.expect_from(ifindex, Hook::Ingress, &frame, TC_REDIRECT, &sent);
    rig.expect_from(ifindex, Hook::Ingress, &reply, TC_REDIRECT, &back);
    let sent = sent.between(FIRST_MAC, neighbour_mac(1));
    let back = back.between(FIRST_MAC, GATEWAY_MAC);
    rig.expect_from(ifindex, Hook::Xdp, &frame, XDP_TX, &sent);
    rig.expect_from(ifindex, Hook::Xdp, &reply, XDP_TX, &back);
    assert_eq!(rig.counters(), []);

    let rig = Rig::serving(way, backend_kind::LINK);
    rig.run(Hook::Xdp, &make(way.opening(way.client(1), way.vip(1))));
    let reply = make(way.later(way.backend(1), way.client(1)));
    let back = reply.clone().from(way.vip(1)).forwarded();
    rig.expect(Hook::Link, &reply, TC_REDIRECT, &back);
}

/// Demands that a frame passes untouched, opens nothing and counts as malformed.
fn malformed(rig: &Rig, way: Way, hook: Hook, bytes: &[u8]) {
    let before = rig.counter(Reason::Malformed);
    rig.run_bytes(hook, bytes).must_be_bytes(hook.pass(), bytes);
    assert_eq!(rig.counters(), [(Reason::Malformed, before + 1)]);
    assert_eq!(rig.flows(way), []);
}

/// Bytes of all headers of a frame.
fn headers(frame: &Frame) -> usize {
    frame.bytes().len() - frame.payload.len()
}

each_way!(
    a_header_cut_short_anywhere_passes_untouched_and_opens_nothing,
    a_header_cut_short_anywhere_is_not_translated_by_a_flow_that_exists,
    a_payload_cut_short_is_none_of_our_business,
    one_and_two_vlan_tags_are_kept_by_xdp,
    packets_and_replies_with_tags_that_go_to_another_host_are_left_untouched_for_the_tc_twin,
    a_reply_with_a_tag_finds_its_client_whatever_the_tag_of_the_client_was,
    a_tagged_header_cut_short_anywhere_passes_untouched,
    three_vlan_tags_are_not_parsed,
    a_tag_within_the_packet_passes_tc_untouched,
    an_ip_header_of_another_version_or_too_short_a_length_is_malformed
);

fn a_header_cut_short_anywhere_passes_untouched_and_opens_nothing(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    let frame = way.later(way.client(1), way.vip(1));
    let bytes = frame.bytes();
    for len in 14..headers(&frame) {
        malformed(&rig, way, Hook::Xdp, &bytes[..len]);
    }
    // The kernel makes no socket buffer without an IP header.
    let ip = if way.v6 { 40 } else { 20 };
    for len in 14 + ip..headers(&frame) {
        malformed(&rig, way, Hook::Ingress, &bytes[..len]);
    }
    // Those whose ports are there, at either hook.
    let known = if way.tcp { 2 * (20 - 8) } else { 0 };
    assert_eq!(rig.malformed(SERVICE), known);
}

fn a_header_cut_short_anywhere_is_not_translated_by_a_flow_that_exists(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    rig.run(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    let (frame, reply) = (
        way.later(way.client(1), way.vip(1)),
        way.later(way.host(), way.client(1)),
    );
    let ip = if way.v6 { 40 } else { 20 };
    for len in 14 + ip..headers(&frame) {
        for (hook, frame) in [
            (Hook::Xdp, &frame),
            (Hook::Ingress, &frame),
            (Hook::Egress, &reply),
            (Hook::Link, &reply),
        ] {
            let bytes = &frame.bytes()[..len];
            rig.run_bytes(hook, bytes).must_be_bytes(hook.pass(), bytes);
        }
    }
    assert_eq!(
        rig.stats(1)[1..],
        [1, frame_len(&way.opening(way.client(1), way.vip(1))), 0, 0]
    );
}

fn a_payload_cut_short_is_none_of_our_business(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    let frame = way.later(way.client(1), way.vip(1));
    for len in headers(&frame)..frame.bytes().len() {
        let wanted = frame.clone().to(way.host()).bytes();
        rig.run_bytes(Hook::Xdp, &frame.bytes()[..len])
            .must_be_bytes(XDP_PASS, &wanted[..len]);
    }
}

fn one_and_two_vlan_tags_are_kept_by_xdp(way: Way) {
    for tags in [vec![5], vec![5, 4094]] {
        let rig = Rig::serving(way, backend_kind::HOST);
        let tagged = |frame: Frame| Frame {
            tags: tags.clone(),
            ..frame
        };
        for frame in [
            way.opening(way.client(1), way.vip(1)),
            way.later(way.client(1), way.vip(1)),
        ]
        .map(tagged)
        {
            rig.expect(Hook::Xdp, &frame, XDP_PASS, &frame.clone().to(way.host()));
        }
        let other = tagged(way.opening(way.client(1), way.stranger()));
        rig.expect_untouched(Hook::Xdp, &other);
        assert_eq!(rig.counters(), []);
    }
}

fn packets_and_replies_with_tags_that_go_to_another_host_are_left_untouched_for_the_tc_twin(
    way: Way,
) {
    let rig = Rig::serving(way, backend_kind::NET);
    let net = Net::new();
    let opening = way.opening(way.client(1), way.vip(1));
    rig.run_from(Hook::Xdp, &opening.bytes(), net.first);
    let source = rig.flow(way, way.client(1), way.vip(1)).unwrap().leaves.0;
    let mut left = 0;
    for tags in [vec![5], vec![5, 4094]] {
        for frame in [
            way.later(way.client(1), way.vip(1)),
            way.later(way.backend(1), source),
        ] {
            let frame = Frame {
                tags: tags.clone(),
                ..frame
            };
            rig.expect_from(net.first, Hook::Xdp, &frame, XDP_PASS, &frame);
            left += 1;
            assert_eq!(rig.counters(), [(Reason::ToSlowPath, left)]);
        }
    }
}

fn a_reply_with_a_tag_finds_its_client_whatever_the_tag_of_the_client_was(way: Way) {
    // The client's packets came with two tags; what the node's stack sends has none here, as the tag of a VLAN is
    // beside the bytes of a packet that leaves.
    let rig = Rig::serving(way, backend_kind::HOST);
    let opening = Frame {
        tags: vec![5, 6],
        ..way.opening(way.client(1), way.vip(1))
    };
    let wanted = opening.clone().to(way.host());
    rig.expect(Hook::Xdp, &opening, XDP_PASS, &wanted);
    let reply = way.segment(way.host(), way.client(1), Segment::SynAck);
    rig.expect(Hook::Egress, &reply, TC_OK, &reply.clone().from(way.vip(1)));
    assert_eq!(rig.counters(), []);
}

fn a_tagged_header_cut_short_anywhere_passes_untouched(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    let frame = Frame {
        tags: vec![5, 6],
        ..way.later(way.client(1), way.vip(1))
    };
    let bytes = frame.bytes();
    for len in 14..headers(&frame) {
        rig.run_bytes(Hook::Xdp, &bytes[..len])
            .must_be_bytes(XDP_PASS, &bytes[..len]);
    }
    assert_eq!(rig.flows(way), []);
}

fn three_vlan_tags_are_not_parsed(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    let mut bytes = Frame {
        tags: vec![5, 6],
        ..way.opening(way.client(1), way.vip(1))
    }
    .bytes();
    bytes.splice(12..12, [0x88, 0xa8, 0, 4]);
    rig.run_bytes(Hook::Xdp, &bytes)
        .must_be_bytes(XDP_PASS, &bytes);
    assert_eq!(rig.counters(), []);
}

fn a_tag_within_the_packet_passes_tc_untouched(way: Way) {
    // The kernel keeps the outer one of two tags beside the packet; the inner one stays in it, and is what tc sees.
    let rig = Rig::serving(way, backend_kind::HOST);
    rig.run(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    let asked = way.later(way.client(1), way.vip(1));
    let reply = way.later(way.host(), way.client(1));
    for (hook, frame) in [
        (Hook::Ingress, asked),
        (Hook::Link, reply.clone()),
        (Hook::Egress, reply),
    ] {
        let tags = vec![5];
        rig.expect_untouched(hook, &Frame { tags, ..frame });
    }
    assert_eq!(rig.counters(), []);
}

fn an_ip_header_of_another_version_or_too_short_a_length_is_malformed(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    let mut bytes = way.opening(way.client(1), way.vip(1)).bytes();
    let firsts: &[u8] = if way.v6 {
        &[0x40, 0x00, 0xf0]
    } else {
        &[0x40, 0x44, 0x65, 0x05]
    };
    for first in firsts {
        bytes[14] = *first;
        malformed(&rig, way, Hook::Xdp, &bytes);
        malformed(&rig, way, Hook::Ingress, &bytes);
    }
}

fn frame_len(frame: &Frame) -> u64 {
    frame.bytes().len() as u64 - 14
}

mod ipv4 {
    use super::*;

    #[test]
    fn options_of_every_length_are_skipped_over_tcp() {
        for len in (4..=40).step_by(4) {
            // No-operation options (RFC 791 section 3.1).
            let make = |frame| Frame {
                options: vec![1; len],
                ..frame
            };
            carried(Way::V4_TCP, make);
            sent_on(Way::V4_TCP, make);
        }
    }

    #[test]
    fn options_of_every_length_are_skipped_over_udp() {
        for len in (4..=40).step_by(4) {
            let make = |frame| Frame {
                options: vec![1; len],
                ..frame
            };
            carried(Way::V4_UDP, make);
            sent_on(Way::V4_UDP, make);
        }
    }

    #[test]
    fn options_may_be_cut_short_anywhere() {
        let rig = Rig::serving(Way::V4_TCP, backend_kind::HOST);
        let frame = Frame {
            options: vec![1; 40],
            ..Way::V4_TCP.later(Way::V4_TCP.client(1), Way::V4_TCP.vip(1))
        };
        for len in 34..headers(&frame) {
            malformed(&rig, Way::V4_TCP, Hook::Xdp, &frame.bytes()[..len]);
            malformed(&rig, Way::V4_TCP, Hook::Ingress, &frame.bytes()[..len]);
        }
    }
}

mod ipv6 {
    use super::*;

    fn carried_with(extensions: Ipv6Extensions) {
        for way in [Way::V6_TCP, Way::V6_UDP] {
            let make = |frame| Frame {
                extensions: extensions.clone().into(),
                ..frame
            };
            carried(way, make);
            sent_on(way, make);
        }
    }

    #[test]
    fn hop_by_hop_options_are_skipped() {
        for more in [0, 1, 7] {
            carried_with(Ipv6Extensions {
                hop_by_hop_options: Some(options(more)),
                ..Ipv6Extensions::default()
            });
        }
    }

    #[test]
    fn destination_options_are_skipped() {
        carried_with(Ipv6Extensions {
            destination_options: Some(options(2)),
            ..Ipv6Extensions::default()
        });
    }

    #[test]
    fn the_longest_header_is_skipped() {
        // No interface sends it on.
        for way in [Way::V6_TCP, Way::V6_UDP] {
            carried(way, |mut frame| {
                frame.extensions.destination_options = Some(options(255));
                frame
            });
        }
    }

    #[test]
    fn an_atomic_fragment_is_a_whole_packet() {
        for way in [Way::V6_TCP, Way::V6_UDP] {
            carried(way, |frame| frame.fragment((0, false)));
        }
    }

    #[test]
    fn each_of_the_four_extension_headers_may_be_there() {
        for way in [Way::V6_TCP, Way::V6_UDP] {
            carried(way, |frame| {
                let mut frame = frame.fragment((0, false));
                frame.extensions.hop_by_hop_options = Some(options(1));
                frame.extensions.destination_options = Some(options(0));
                frame.extensions.routing = Some(Ipv6RoutingExtensions {
                    routing: options(0),
                    final_destination_options: None,
                });
                frame
            });
        }
    }

    #[test]
    fn a_fifth_extension_header_is_malformed() {
        for way in [Way::V6_TCP, Way::V6_UDP] {
            let mut frame = way.opening(way.client(1), way.vip(1)).fragment((0, false));
            frame.extensions.hop_by_hop_options = Some(options(1));
            frame.extensions.destination_options = Some(options(0));
            frame.extensions.routing = Some(Ipv6RoutingExtensions {
                routing: options(0),
                final_destination_options: Some(options(0)),
            });
            let rig = Rig::serving(way, backend_kind::HOST);
            malformed(&rig, way, Hook::Xdp, &frame.bytes());
            malformed(&rig, way, Hook::Ingress, &frame.bytes());
        }
    }

    #[test]
    fn extension_headers_may_be_cut_short_anywhere() {
        for way in [Way::V6_TCP, Way::V6_UDP] {
            let rig = Rig::serving(way, backend_kind::HOST);
            let mut frame = way.later(way.client(1), way.vip(1)).fragment((0, false));
            frame.extensions.hop_by_hop_options = Some(options(1));
            frame.extensions.destination_options = Some(options(0));
            for len in 54..headers(&frame) {
                malformed(&rig, way, Hook::Xdp, &frame.bytes()[..len]);
                malformed(&rig, way, Hook::Ingress, &frame.bytes()[..len]);
            }
        }
    }

    #[test]
    fn what_follows_a_fragment_header_is_not_taken_for_a_header() {
        // The middle of a datagram whose first header was destination options: no header begins here.
        let way = Way::V6_UDP;
        let rig = Rig::serving(way, backend_kind::HOST);
        let mut bytes = way
            .opening(way.client(1), way.vip(1))
            .fragment((3, true))
            .bytes();
        let after = 14 + 40;
        bytes[after] = 60;
        bytes[after + 8..after + 10].copy_from_slice(&[60, 0xff]);
        for (n, hook) in [Hook::Xdp, Hook::Ingress].into_iter().enumerate() {
            rig.run_bytes(hook, &bytes)
                .must_be_bytes(hook.drop(), &bytes);
            assert_eq!(rig.counters(), [(Reason::Fragment, n as u64 + 1)]);
        }
    }
}
