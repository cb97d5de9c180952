//! Echo requests: a VIP answers them, without the stack where XDP is on.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;

use lb_common::backend_kind;
use lb_tests::{each_tcp_way, packet::*};

const TC: [Hook; 3] = [Hook::Ingress, Hook::Link, Hook::Egress];

each_tcp_way!(
    a_ping_of_a_vip_is_answered_by_xdp_with_all_hops_left,
    a_tagged_ping_is_answered_with_its_tag,
    a_ping_of_a_vip_is_left_to_the_stack_by_tc,
    a_ping_of_the_node_or_of_nobody_here_passes_untouched,
    a_ping_with_odd_headers_is_left_to_the_stack,
    a_ping_cut_short_is_left_to_the_stack,
    a_ping_by_nobody_is_left_to_the_stack,
    a_pong_passes_untouched
);

fn ping(way: Way) -> Frame {
    way.opening(way.client(1), way.vip(1))
}

fn pong(frame: &Frame) -> Vec<u8> {
    Frame {
        ttl: 64,
        ..frame.clone().turned()
    }
    .as_pong()
}

#[track_caller]
fn untouched(rig: &Rig, hook: Hook, bytes: &[u8]) {
    rig.run_bytes(hook, bytes).must_be_bytes(hook.pass(), bytes);
}

fn a_ping_of_a_vip_is_answered_by_xdp_with_all_hops_left(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    for ttl in [1, 64, 255] {
        let frame = Frame { ttl, ..ping(way) };
        rig.run_bytes(Hook::Xdp, &frame.as_ping())
            .must_be_bytes(XDP_TX, &pong(&frame));
    }
    assert_eq!(rig.counters(), []);
}

fn a_tagged_ping_is_answered_with_its_tag(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    let tag = [0x81, 0, 0, 5];
    let (mut asked, mut answered) = (ping(way).as_ping(), pong(&ping(way)));
    asked.splice(12..12, tag);
    answered.splice(12..12, tag);
    rig.run_bytes(Hook::Xdp, &asked)
        .must_be_bytes(XDP_TX, &answered);
}

fn a_ping_of_a_vip_is_left_to_the_stack_by_tc(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    for hook in TC {
        untouched(&rig, hook, &ping(way).as_ping());
    }
    assert_eq!(rig.counters(), []);
}

fn a_ping_of_the_node_or_of_nobody_here_passes_untouched(way: Way) {
    let rig = Rig::serving(way, backend_kind::NET);
    for dst in [way.host(), way.stranger(), way.vip(2)] {
        untouched(&rig, Hook::Xdp, &ping(way).to(dst).as_ping());
    }
    assert_eq!(rig.counters(), []);
}

fn a_ping_with_odd_headers_is_left_to_the_stack(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    let mut frame = ping(way);
    frame.options = vec![1; 4];
    if way.v6 {
        let header = etherparse::Ipv6RawExtHeader::new_raw(etherparse::IpNumber::TCP, &[0; 6]);
        frame.extensions.hop_by_hop_options = Some(header.unwrap());
    }
    untouched(&rig, Hook::Xdp, &frame.as_ping());
    let mut parameter = ping(way).as_ping();
    let code = parameter.len() - 31 - 7;
    parameter[code] = 1;
    untouched(&rig, Hook::Xdp, &parameter);
    let proto = if way.v6 { 58 } else { 1 };
    for place in [(0, true), (5, true), (5, false)] {
        let part = ping(way).later_fragment(place, proto);
        untouched(&rig, Hook::Xdp, &part);
        untouched(&rig, Hook::Ingress, &part);
    }
    assert_eq!(rig.counters(), []);
}

fn a_ping_cut_short_is_left_to_the_stack(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    let bytes = ping(way).as_ping();
    let ip = if way.v6 { 40 } else { 20 };
    for len in 14 + ip..bytes.len() {
        untouched(&rig, Hook::Xdp, &bytes[..len]);
    }
    // Padding behind it is kept.
    let (mut asked, mut answered) = (bytes, pong(&ping(way)));
    asked.extend([7; 9]);
    answered.extend([7; 9]);
    rig.run_bytes(Hook::Xdp, &asked)
        .must_be_bytes(XDP_TX, &answered);
}

fn a_ping_by_nobody_is_left_to_the_stack(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    let nobody = if way.v6 { "::" } else { "0.0.0.0" };
    let nobody = SocketAddr::new(nobody.parse().unwrap(), 1);
    for from in [nobody, way.vip(1)] {
        untouched(&rig, Hook::Xdp, &ping(way).from(from).as_ping());
    }
}

fn a_pong_passes_untouched(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    untouched(&rig, Hook::Xdp, &ping(way).as_pong());
}
