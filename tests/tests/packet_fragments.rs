//! Fragments: the first has ports, the others follow it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;

use lb_common::{Backend, Reason, backend_kind};
use lb_tests::{each_way, packet::*};

const FIRST: (u16, bool) = (0, true);
/// Behind the first: offset in units of 8 bytes, and whether more follow.
const LATER: [(u16, bool); 3] = [(5, true), (100, true), (9, false)];
const BOTH: [Hook; 2] = [Hook::Xdp, Hook::Ingress];

fn given(way: Way, kind: u8) -> (Rig, Net) {
    let mut rig = Rig::serving(way, kind);
    let net = Net::new();
    let (at, ifindex) = match kind {
        backend_kind::HOST => (way.host(), 0),
        backend_kind::LINK => (way.far_backend(1), net.second),
        _ => (way.backend(1), net.first),
    };
    let backend = backend(way, at, kind);
    rig.backend(1, Backend { ifindex, ..backend });
    (rig, net)
}

/// The same frame in a VLAN.
fn tagged(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.splice(12..12, [0x81, 0, 0, 5]);
    bytes
}

fn source(rig: &Rig, way: Way) -> SocketAddr {
    rig.flow(way, way.client(1), way.vip(1)).unwrap().leaves.0
}

/// Sends all parts of a packet and demands that all come out as this one.
#[track_caller]
fn carried(
    rig: &Rig,
    way: Way,
    hook: Hook,
    from: u32,
    frame: &Frame,
    verdict: u32,
    wanted: &Frame,
) {
    rig.run_from(hook, &frame.clone().fragment(FIRST).bytes(), from)
        .must_be_bytes(verdict, &wanted.clone().fragment(FIRST).bytes());
    for place in LATER {
        rig.run_from(hook, &frame.later_fragment(place, way.proto()), from)
            .must_be_bytes(verdict, &wanted.later_fragment(place, way.proto()));
    }
}

each_way!(
    fragments_for_a_socket_of_this_host_follow_the_first_and_so_do_the_answers,
    fragments_go_through_full_nat_both_ways,
    fragments_go_to_a_container_and_back_by_tc,
    a_fragment_without_its_first_is_dropped_and_counted,
    a_fragment_is_known_by_addresses_identification_and_protocol,
    a_fragment_is_waited_for_as_long_as_the_stack_would,
    fragments_that_are_none_of_ours_pass_untouched,
    fragments_of_a_packet_that_is_refused_are_left_to_the_stack,
    a_fragment_without_a_hop_left_is_dropped,
    a_fragment_too_long_for_the_way_is_dropped,
    tagged_fragments_are_carried_to_this_host,
    tagged_fragments_for_another_host_are_left_untouched_for_the_tc_twin,
    a_device_that_summed_a_fragment_is_not_contradicted
);

fn fragments_for_a_socket_of_this_host_follow_the_first_and_so_do_the_answers(way: Way) {
    let (rig, net) = given(way, backend_kind::HOST);
    let frame = way.opening(way.client(1), way.vip(1));
    let wanted = frame.clone().to(way.host());
    for hook in BOTH {
        carried(&rig, way, hook, net.first, &frame, hook.pass(), &wanted);
    }
    let reply = way.later(way.host(), way.client(1));
    let wanted = reply.clone().from(way.vip(1));
    carried(&rig, way, Hook::Egress, 0, &reply, TC_OK, &wanted);
    assert_eq!(rig.counters(), []);
    assert_eq!(rig.stats(1)[1], 8);
    assert_eq!(rig.stats(1)[3], 4);
}

fn fragments_go_through_full_nat_both_ways(way: Way) {
    let (rig, net) = given(way, backend_kind::NET);
    let opening = way.opening(way.client(1), way.vip(1));
    rig.run_from(Hook::Xdp, &opening.bytes(), net.first);
    let source = source(&rig, way);
    let frame = way.later(way.client(1), way.vip(1));
    let sent = frame.clone().from(source).to(way.backend(1)).forwarded();
    let reply = way.later(way.backend(1), source);
    let back = reply.clone().from(way.vip(1)).to(way.client(1)).forwarded();
    let to_backend = sent.clone().between(FIRST_MAC, neighbour_mac(1));
    let to_client = back.clone().between(FIRST_MAC, GATEWAY_MAC);
    carried(&rig, way, Hook::Xdp, net.first, &frame, XDP_TX, &to_backend);
    carried(&rig, way, Hook::Xdp, net.first, &reply, XDP_TX, &to_client);
    let twin = Hook::Ingress;
    carried(&rig, way, twin, net.first, &frame, TC_REDIRECT, &sent);
    carried(&rig, way, twin, net.first, &reply, TC_REDIRECT, &back);
    assert_eq!(rig.counters(), []);
}

fn fragments_go_to_a_container_and_back_by_tc(way: Way) {
    let (rig, net) = given(way, backend_kind::LINK);
    let frame = way.opening(way.client(1), way.vip(1));
    carried(&rig, way, Hook::Xdp, net.first, &frame, XDP_PASS, &frame);
    let wanted = frame.clone().to(way.far_backend(1)).forwarded();
    carried(
        &rig,
        way,
        Hook::Ingress,
        net.first,
        &frame,
        TC_REDIRECT,
        &wanted,
    );
    let reply = way.later(way.far_backend(1), way.client(1));
    let wanted = reply.clone().from(way.vip(1)).forwarded();
    carried(
        &rig,
        way,
        Hook::Link,
        net.second,
        &reply,
        TC_REDIRECT,
        &wanted,
    );
    assert_eq!(rig.counters(), [(Reason::ToSlowPath, 4)]);
}

fn a_fragment_without_its_first_is_dropped_and_counted(way: Way) {
    let (rig, _) = given(way, backend_kind::HOST);
    let mut wanted = 0;
    for place in LATER {
        for hook in BOTH {
            let part = way
                .opening(way.client(1), way.vip(1))
                .later_fragment(place, way.proto());
            assert_eq!(rig.run_bytes(hook, &part).verdict, hook.drop());
            wanted += 1;
            assert_eq!(rig.counters(), [(Reason::Fragment, wanted)]);
        }
    }
    assert_eq!(rig.flows(way), []);
}

fn a_fragment_is_known_by_addresses_identification_and_protocol(way: Way) {
    let (mut rig, _) = given(way, backend_kind::HOST);
    rig.service(
        way,
        way.vip(2),
        8,
        0,
        &repeated(&[1], lb_common::SLOTS_SMALL),
    );
    let frame = way.opening(way.client(1), way.vip(1));
    rig.run(Hook::Xdp, &frame.clone().fragment(FIRST));
    let other_proto = if way.tcp { 17 } else { 6 };
    let mut other_id = frame.later_fragment(LATER[0], way.proto());
    let id = if way.v6 { 14 + 40 + 7 } else { 14 + 5 };
    other_id[id] ^= 1;
    if !way.v6 {
        // The header's checksum is none of the program's business, but let it be right.
        other_id[14 + 11] = other_id[14 + 11].wrapping_add(1);
    }
    for (n, part) in [
        frame
            .clone()
            .from(way.client(2))
            .later_fragment(LATER[0], way.proto()),
        frame
            .clone()
            .to(way.vip(2))
            .later_fragment(LATER[0], way.proto()),
        frame.later_fragment(LATER[0], other_proto),
        other_id,
    ]
    .iter()
    .enumerate()
    {
        assert_eq!(rig.run_bytes(Hook::Xdp, part).verdict, XDP_DROP);
        assert_eq!(rig.counters(), [(Reason::Fragment, n as u64 + 1)]);
    }
}

fn a_fragment_is_waited_for_as_long_as_the_stack_would(way: Way) {
    let (mut rig, _) = given(way, backend_kind::HOST);
    let frame = way.opening(way.client(1), way.vip(1));
    rig.run(Hook::Xdp, &frame.clone().fragment(FIRST));
    let part = frame.later_fragment(LATER[0], way.proto());
    assert_eq!(rig.run_bytes(Hook::Xdp, &part).verdict, XDP_PASS);
    rig.forget_fragments(way);
    assert_eq!(rig.run_bytes(Hook::Xdp, &part).verdict, XDP_DROP);
    assert_eq!(rig.counters(), [(Reason::Fragment, 1)]);
}

fn fragments_that_are_none_of_ours_pass_untouched(way: Way) {
    let (rig, net) = given(way, backend_kind::NET);
    let ssh = SocketAddr::new(way.node(), 22);
    for (from, to) in [
        (way.client(1), ssh),
        (way.client(1), way.stranger()),
        (way.backend(1), way.client(1)),
    ] {
        let frame = way.later(from, to);
        for hook in [Hook::Xdp, Hook::Ingress, Hook::Link, Hook::Egress] {
            carried(&rig, way, hook, net.first, &frame, hook.pass(), &frame);
        }
    }
    assert_eq!(rig.counters(), []);
}

fn fragments_of_a_packet_that_is_refused_are_left_to_the_stack(way: Way) {
    let (rig, net) = given(way, backend_kind::HOST);
    let mut vip = way.vip(1);
    vip.set_port(9);
    let frame = way.opening(way.client(1), vip);
    for hook in BOTH {
        carried(&rig, way, hook, net.first, &frame, hook.pass(), &frame);
    }
    assert_eq!(rig.counters(), [(Reason::NoService, 2)]);
}

fn a_fragment_without_a_hop_left_is_dropped(way: Way) {
    let (rig, net) = given(way, backend_kind::NET);
    let frame = way.opening(way.client(1), way.vip(1));
    let first = frame.clone().fragment(FIRST);
    rig.run_from(Hook::Xdp, &first.bytes(), net.first);
    let last = Frame { ttl: 1, ..frame };
    for (n, hook) in BOTH.into_iter().enumerate() {
        let part = last.later_fragment(LATER[0], way.proto());
        let out = rig.run_from(hook, &part, net.first);
        assert_eq!(out.verdict, hook.drop());
        assert_eq!(rig.counters(), [(Reason::TtlExceeded, n as u64 + 1)]);
    }
    let first = last.fragment(FIRST);
    let answer = Error::of_node(&first, Trouble::TimeExceeded);
    rig.run_from(Hook::Xdp, &first.bytes(), net.first)
        .must_be_bytes(XDP_TX, &answer.bytes());
}

fn a_fragment_too_long_for_the_way_is_dropped(way: Way) {
    let (rig, net) = given(way, backend_kind::NET);
    let frame = way.opening(way.client(1), way.vip(1));
    let first = frame.clone().fragment(FIRST);
    rig.run_from(Hook::Xdp, &first.bytes(), net.first);
    net.narrow(1_280);
    let mut part = frame.later_fragment(LATER[0], way.proto());
    let long = 1_290_usize;
    part.resize(14 + long, 7);
    // The length that the header says.
    let (at, len) = if way.v6 { (18, long - 40) } else { (16, long) };
    part[at..at + 2].copy_from_slice(&(len as u16).to_be_bytes());
    let out = rig.run_from(Hook::Xdp, &part, net.first);
    assert_eq!(out.verdict, XDP_DROP);
    assert_eq!(rig.counters(), [(Reason::TooBig, 1)]);
}

fn tagged_fragments_are_carried_to_this_host(way: Way) {
    let (rig, _) = given(way, backend_kind::HOST);
    let frame = way.opening(way.client(1), way.vip(1));
    let wanted = frame.clone().to(way.host());
    let out = rig.run_bytes(Hook::Xdp, &tagged(frame.clone().fragment(FIRST).bytes()));
    out.must_be_bytes(XDP_PASS, &tagged(wanted.clone().fragment(FIRST).bytes()));
    let part = |frame: &Frame| tagged(frame.later_fragment(LATER[0], way.proto()));
    rig.run_bytes(Hook::Xdp, &part(&frame))
        .must_be_bytes(XDP_PASS, &part(&wanted));
}

fn tagged_fragments_for_another_host_are_left_untouched_for_the_tc_twin(way: Way) {
    let (rig, net) = given(way, backend_kind::NET);
    let frame = way.opening(way.client(1), way.vip(1));
    for (left, part) in (1..).zip([
        frame.clone().fragment(FIRST).bytes(),
        frame.later_fragment(LATER[0], way.proto()),
    ]) {
        let part = tagged(part);
        rig.run_from(Hook::Xdp, &part, net.first)
            .must_be_bytes(XDP_PASS, &part);
        assert_eq!(rig.counters(), [(Reason::ToSlowPath, left)]);
    }
}

fn a_device_that_summed_a_fragment_is_not_contradicted(way: Way) {
    let (rig, net) = given(way, backend_kind::LINK);
    let frame = way.opening(way.client(1), way.vip(1));
    let first = frame.clone().fragment(FIRST);
    rig.run_from(Hook::Xdp, &first.bytes(), net.first);
    let wanted = frame.clone().to(way.far_backend(1)).forwarded();
    let out = rig
        .run_summed(Hook::Ingress, &first)
        .expect("the sum holds");
    out.must_be_bytes(TC_REDIRECT, &wanted.clone().fragment(FIRST).bytes());
    let part = |frame: &Frame| frame.later_fragment(LATER[0], way.proto());
    let out = rig.run_summed_bytes(Hook::Ingress, &part(&frame));
    out.expect("the sum holds")
        .must_be_bytes(TC_REDIRECT, &part(&wanted));
}
