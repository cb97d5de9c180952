//! Packets that cannot go on: no hop left, too long for the way, too many of them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;

use lb_common::{Backend, NextHop, Reason, backend_kind};
use lb_tests::{each_way, packet::*};

const MTU: u16 = 1_400;

/// A flow of client 1 to VIP 1 and its source after translation.
fn given(way: Way, kind: u8) -> (Rig, Net, SocketAddr) {
    let mut rig = Rig::serving(way, kind);
    let net = Net::new();
    if kind == backend_kind::LINK {
        let backend = backend(way, way.far_backend(1), kind);
        let ifindex = net.second;
        rig.backend(1, Backend { ifindex, ..backend });
    }
    let frame = way.opening(way.client(1), way.vip(1));
    rig.run_from(Hook::Xdp, &frame.bytes(), net.first);
    let source = rig.flow(way, way.client(1), way.vip(1)).unwrap().leaves.0;
    (rig, net, source)
}

/// The frame with so many bytes from the IP header on.
fn sized(frame: Frame, len: u16) -> Frame {
    let headers = frame.bytes().len() - 14 - frame.payload.len();
    Frame {
        payload: (0..=u8::MAX)
            .cycle()
            .take(usize::from(len) - headers)
            .collect(),
        ..frame
    }
}

fn with_ttl(frame: Frame, ttl: u8) -> Frame {
    Frame { ttl, ..frame }
}

each_way!(
    a_packet_without_a_hop_left_is_answered_with_time_exceeded_both_ways,
    the_last_hop_but_one_is_taken,
    a_packet_that_ends_on_this_host_needs_no_further_hop,
    a_container_is_a_hop_away,
    the_answer_to_a_tagged_packet_has_its_tag,
    a_packet_too_long_for_the_way_is_answered_with_its_mtu_both_ways,
    segments_that_were_joined_are_left_to_the_stack,
    a_packet_too_long_for_a_container_is_left_to_the_stack,
    the_tc_twin_answers_both_ways,
    where_xdp_may_send_nothing_all_is_left_to_the_tc_twin,
    the_tc_twin_knows_of_a_way_that_is_narrower_than_its_interface,
    a_device_that_summed_what_is_answered_is_not_contradicted,
    a_sender_without_an_address_of_its_own_is_not_answered,
    a_frame_to_a_group_of_stations_is_not_answered,
    answers_are_limited_and_what_is_not_answered_is_dropped,
    refusals_are_limited_and_what_is_not_refused_is_dropped
);

fn a_packet_without_a_hop_left_is_answered_with_time_exceeded_both_ways(way: Way) {
    let (rig, net, source) = given(way, backend_kind::NET);
    let mut wanted = 0;
    for ttl in [0, 1] {
        for len in [0, 1, 2, 3, 31, 700, 1_300] {
            for frame in [
                way.later(way.client(1), way.vip(1)),
                way.later(way.backend(1), source),
            ] {
                let mut frame = with_ttl(frame, ttl);
                frame.payload = vec![len as u8; len];
                let answer = Error::of_node(&frame, Trouble::TimeExceeded);
                rig.run_from(Hook::Xdp, &frame.bytes(), net.first)
                    .must_be_bytes(XDP_TX, &answer.bytes());
                wanted += 1;
                assert_eq!(rig.counters(), [(Reason::TtlExceeded, wanted)]);
            }
        }
    }
    assert_eq!(rig.stats(1)[1], 1, "nothing was sent on");
}

fn the_last_hop_but_one_is_taken(way: Way) {
    let (rig, net, source) = given(way, backend_kind::NET);
    let frame = with_ttl(way.later(way.client(1), way.vip(1)), 2);
    let wanted = with_ttl(frame.clone(), 1)
        .from(source)
        .to(way.backend(1))
        .between(FIRST_MAC, neighbour_mac(1));
    rig.expect_from(net.first, Hook::Xdp, &frame, XDP_TX, &wanted);
    let frame = with_ttl(way.later(way.client(1), way.vip(1)), 255);
    let wanted = with_ttl(frame.clone(), 254)
        .from(source)
        .to(way.backend(1))
        .between(FIRST_MAC, neighbour_mac(1));
    rig.expect_from(net.first, Hook::Xdp, &frame, XDP_TX, &wanted);
}

fn a_packet_that_ends_on_this_host_needs_no_further_hop(way: Way) {
    let (rig, net, _) = given(way, backend_kind::HOST);
    let frame = with_ttl(way.later(way.client(1), way.vip(1)), 1);
    for hook in [Hook::Xdp, Hook::Ingress] {
        let wanted = frame.clone().to(way.host());
        rig.expect_from(net.first, hook, &frame, hook.pass(), &wanted);
    }
    let reply = with_ttl(way.later(way.host(), way.client(1)), 1);
    let wanted = reply.clone().from(way.vip(1));
    rig.expect_from(net.first, Hook::Egress, &reply, TC_OK, &wanted);
    assert_eq!(rig.counters(), []);
}

fn a_container_is_a_hop_away(way: Way) {
    let (rig, net, _) = given(way, backend_kind::LINK);
    let frame = with_ttl(way.later(way.client(1), way.vip(1)), 1);
    let answer = Error::of_node(&frame, Trouble::TimeExceeded);
    rig.run_from(Hook::Xdp, &frame.bytes(), net.first)
        .must_be_bytes(XDP_TX, &answer.bytes());
    // Where XDP is off, the stack answers what it would forward.
    let wanted = frame.clone().to(way.far_backend(1));
    rig.expect_from(net.first, Hook::Ingress, &frame, TC_OK, &wanted);
    let reply = with_ttl(way.later(way.far_backend(1), way.client(1)), 1);
    let out = rig.run_from(Hook::Link, &reply.bytes(), net.second);
    assert_eq!(out.verdict, TC_SHOT);
    assert_eq!(rig.counter(Reason::TtlExceeded), 2);
}

fn the_answer_to_a_tagged_packet_has_its_tag(way: Way) {
    for tags in [vec![5], vec![5, 6]] {
        let (rig, net, _) = given(way, backend_kind::NET);
        let frame = with_ttl(way.later(way.client(1), way.vip(1)), 1);
        let mut answer = Error::of_node(&frame, Trouble::TimeExceeded).bytes();
        let tagged = Frame { tags, ..frame }.bytes();
        let tags = tagged[12..tagged.len() - (answer_len(way) - 12)].to_vec();
        answer.splice(12..12, tags);
        rig.run_from(Hook::Xdp, &tagged, net.first)
            .must_be_bytes(XDP_TX, &answer);
    }
}

/// Bytes of the frame that [`Way::later`] makes.
fn answer_len(way: Way) -> usize {
    way.later(way.client(1), way.vip(1)).bytes().len()
}

fn a_packet_too_long_for_the_way_is_answered_with_its_mtu_both_ways(way: Way) {
    let (rig, net, source) = given(way, backend_kind::NET);
    net.narrow(MTU.into());
    let ways = [(way.client(1), way.vip(1)), (way.backend(1), source)];
    let fits = sized(way.later(way.client(1), way.vip(1)), MTU);
    let out = fits
        .clone()
        .from(source)
        .to(way.backend(1))
        .forwarded()
        .between(FIRST_MAC, neighbour_mac(1));
    rig.expect_from(net.first, Hook::Xdp, &fits, XDP_TX, &out);
    let mut wanted = 0;
    for (from, to) in ways {
        for len in [MTU + 1, MTU + 2, MTU + 3, 1_500] {
            let long = sized(way.later(from, to), len);
            let answer = Error::of_node(&long, Trouble::TooBig(MTU));
            rig.run_from(Hook::Xdp, &long.bytes(), net.first)
                .must_be_bytes(XDP_TX, &answer.bytes());
            wanted += 1;
            assert_eq!(rig.counters(), [(Reason::TooBig, wanted)]);
        }
    }
}

fn segments_that_were_joined_are_left_to_the_stack(way: Way) {
    let (rig, net, _) = given(way, backend_kind::NET);
    // The interface itself takes 1,500: nobody sent this as it is.
    let joined = sized(way.later(way.client(1), way.vip(1)), 3_000);
    rig.expect_from(net.first, Hook::Xdp, &joined, XDP_PASS, &joined);
    assert_eq!(rig.counters(), [(Reason::ToSlowPath, 1)]);
}

fn a_packet_too_long_for_a_container_is_left_to_the_stack(way: Way) {
    let (rig, net, _) = given(way, backend_kind::LINK);
    let long = sized(way.later(way.client(1), way.vip(1)), 1_501);
    rig.expect_from(net.first, Hook::Xdp, &long, XDP_PASS, &long);
    let wanted = long.clone().to(way.far_backend(1));
    rig.expect_from(net.first, Hook::Ingress, &long, TC_OK, &wanted);
}

/// A flow whose backend is known to be behind the first interface.
fn led(way: Way, next_hop: u16) -> (Rig, Net, SocketAddr) {
    let (mut rig, net, source) = given(way, backend_kind::NET);
    let backend = backend(way, way.backend(1), backend_kind::NET);
    let led = Backend {
        ifindex: net.first,
        next_hop,
        ..backend
    };
    rig.backend(1, led);
    (rig, net, source)
}

fn the_tc_twin_answers_both_ways(way: Way) {
    let (rig, net, source) = led(way, 0);
    let (mut hops, mut long) = (0, 0);
    for (from, to) in [(way.client(1), way.vip(1)), (way.backend(1), source)] {
        for len in [0, 1, 2, 3, 31, 700, 1_300] {
            let mut frame = with_ttl(way.later(from, to), 1);
            frame.payload = vec![len as u8; len];
            let answer = Error::of_node(&frame, Trouble::TimeExceeded);
            rig.run_from(Hook::Ingress, &frame.bytes(), net.first)
                .must_be_bytes(TC_REDIRECT, &answer.bytes());
            hops += 1;
        }
        for len in [1_501, 1_502, 1_503, 3_000] {
            let frame = sized(way.later(from, to), len);
            let answer = Error::of_node(&frame, Trouble::TooBig(1_500));
            rig.run_from(Hook::Ingress, &frame.bytes(), net.first)
                .must_be_bytes(TC_REDIRECT, &answer.bytes());
            long += 1;
        }
    }
    let counted = [(Reason::TtlExceeded, hops), (Reason::TooBig, long)];
    assert_eq!(rig.counters(), counted);
    assert_eq!(rig.stats(1)[1], 1, "nothing was sent on");
}

fn where_xdp_may_send_nothing_all_is_left_to_the_tc_twin(way: Way) {
    let rig = Rig::redirecting().with_service(way, backend_kind::NET);
    let net = Net::new();
    net.narrow(u32::from(MTU));
    let later = || way.later(way.client(1), way.vip(1));
    let frames = [
        way.opening(way.client(1), way.vip(1)),
        later(),
        with_ttl(later(), 1),
        sized(later(), MTU + 1),
    ];
    for (left, frame) in (1..).zip(frames) {
        rig.expect_from(net.first, Hook::Xdp, &frame, XDP_PASS, &frame);
        assert_eq!(rig.counters(), [(Reason::ToSlowPath, left)]);
    }
    let ping = later().as_ping();
    rig.run_from(Hook::Xdp, &ping, net.first)
        .must_be_bytes(XDP_PASS, &ping);
}

fn the_tc_twin_knows_of_a_way_that_is_narrower_than_its_interface(way: Way) {
    const HOP: u16 = 3;
    let (mut rig, net, source) = led(way, HOP);
    let value = NextHop {
        ifindex: net.first,
        mtu: MTU.into(),
        ..NextHop::default()
    };
    rig.next_hop(HOP, value);
    let fits = sized(way.later(way.client(1), way.vip(1)), MTU);
    let sent = fits.clone().from(source).to(way.backend(1)).forwarded();
    rig.expect_from(net.first, Hook::Ingress, &fits, TC_REDIRECT, &sent);
    let long = sized(way.later(way.client(1), way.vip(1)), MTU + 1);
    let answer = Error::of_node(&long, Trouble::TooBig(MTU));
    rig.run_from(Hook::Ingress, &long.bytes(), net.first)
        .must_be_bytes(TC_REDIRECT, &answer.bytes());
    assert_eq!(rig.counters(), [(Reason::TooBig, 1)]);
}

fn a_device_that_summed_what_is_answered_is_not_contradicted(way: Way) {
    let (rig, _, source) = led(way, 0);
    for (from, to) in [(way.client(1), way.vip(1)), (way.backend(1), source)] {
        // Quoted to the end: the kernel forgets the sum of a packet that is cut (`__skb_trim_rcsum`).
        for payload in [0, 4, 400] {
            let mut frame = with_ttl(way.later(from, to), 1);
            frame.payload = vec![7; payload];
            let answer = Error::of_node(&frame, Trouble::TimeExceeded);
            let out = rig.run_summed(Hook::Ingress, &frame);
            out.expect("the sum holds")
                .must_be_bytes(TC_REDIRECT, &answer.bytes());
        }
    }
}

fn a_sender_without_an_address_of_its_own_is_not_answered(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::NET);
    let nobody = if way.v6 {
        "[::]:40000"
    } else {
        "0.0.0.0:40000"
    };
    let group = if way.v6 {
        "[ff02::1]:40000"
    } else {
        "224.0.0.1:40000"
    };
    rig.allow("0.0.0.0".parse().unwrap(), 0);
    rig.allow("::".parse().unwrap(), 0);
    for from in [nobody, group] {
        let frame = with_ttl(way.opening(from.parse().unwrap(), way.vip(1)), 1);
        rig.expect_dropped(Hook::Xdp, &frame);
    }
    assert_eq!(rig.counters(), [(Reason::TtlExceeded, 2)]);
}

fn a_frame_to_a_group_of_stations_is_not_answered(way: Way) {
    let (rig, _, _) = given(way, backend_kind::NET);
    let frame = with_ttl(way.later(way.client(1), way.vip(1)), 1);
    let (from, _) = frame.macs;
    rig.expect_dropped(Hook::Xdp, &frame.between(from, [0xff; 6]));
}

fn answers_are_limited_and_what_is_not_answered_is_dropped(way: Way) {
    let (rig, net, _) = given(way, backend_kind::NET);
    let frame = with_ttl(way.later(way.client(1), way.vip(1)), 1);
    let mut dropped = 0;
    for _ in 0..5_000 {
        let out = rig.run_from(Hook::Xdp, &frame.bytes(), net.first);
        if out.verdict == XDP_DROP {
            assert_eq!(out.bytes, frame.bytes());
            dropped += 1;
        }
    }
    assert!(dropped > 0);
    assert_eq!(
        rig.counters(),
        [(Reason::TtlExceeded, 5_000), (Reason::AnswerGuard, dropped)]
    );
}

fn refusals_are_limited_and_what_is_not_refused_is_dropped(way: Way) {
    let rig = Rig::serving(way, backend_kind::NET);
    let mut vip = way.vip(1);
    vip.set_port(9);
    let frame = way.opening(way.client(1), vip).bytes();
    // As fast as the kernel runs it: a thread of its own for each packet would be slower than the limit.
    let (count, verdicts) = rig.run_often(Hook::Xdp, &frame, 200_000);
    assert!([XDP_PASS, XDP_DROP].contains(&verdicts));
    assert_eq!(rig.counter(Reason::NoService), count);
    let dropped = rig.counter(Reason::RefusalGuard);
    assert!(dropped > 0 && dropped < count, "{dropped} of {count}");
}
