//! What the programs tell of packets while somebody asks, and that they tell nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::{IpAddr, SocketAddr};

use lb_common::{
    Addr4, Addr6, Address as _, Be16, Reason, TraceEvent, TraceMatch, addr_flag, backend_kind,
    direction, trace_flag, trace_hook, trace_verdict,
};
use lb_tests::{each_tcp_way, each_way, packet::*};

const ALL: u32 = 1_000_000;

each_way!(
    nothing_is_told_while_nobody_asks,
    a_first_packet_is_told_with_the_backend_that_it_got,
    packets_of_a_known_flow_are_told_where_the_filter_says_so,
    packets_that_keep_to_the_shortcut_are_not_told,
    a_reply_is_told_as_its_flows,
    a_refused_packet_is_told_with_the_reason,
    a_packet_is_told_as_it_came_and_as_it_went,
    a_dropped_packet_is_told_once,
    no_more_is_told_than_the_rate_and_the_rest_is_counted,
    of_known_flows_one_packet_in_so_many_is_told,
    what_nobody_wants_takes_nothing_of_the_rate,
    a_reply_is_wanted_by_its_client_and_its_vip
);

/// A rig that serves the first VIP from the node, and tells.
fn telling(way: Way, snap: u32) -> Rig {
    let mut rig = Rig::serving(way, backend_kind::HOST);
    rig.slot(way.vip(1).ip(), addr_flag::TRACED);
    rig.trace(ALL, 1, snap);
    rig
}

fn opening(way: Way) -> Frame {
    way.opening(way.client(1), way.vip(1))
}

/// Makes the flow of the first client one that both sides have confirmed.
fn establish(rig: &mut Rig, way: Way) {
    rig.run(Hook::Xdp, &opening(way));
    rig.run(Hook::Xdp, &way.later(way.client(1), way.vip(1)));
    rig.told();
}

#[track_caller]
fn one(rig: &mut Rig) -> (TraceEvent, Vec<u8>) {
    let told = rig.told();
    assert_eq!(told.len(), 1, "{told:?}");
    told[0].clone()
}

fn nothing_is_told_while_nobody_asks(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::HOST);
    rig.slot(way.vip(1).ip(), addr_flag::TRACED);
    rig.run(Hook::Xdp, &opening(way));
    rig.run(Hook::Ingress, &way.later(way.client(1), way.vip(1)));
    assert!(rig.told().is_empty());
    assert_eq!(rig.untold(), 0);
}

fn a_first_packet_is_told_with_the_backend_that_it_got(way: Way) {
    let mut rig = telling(way, 0);
    let frame = opening(way);
    rig.expect(Hook::Xdp, &frame, XDP_PASS, &frame.clone().to(way.host()));
    let (event, bytes) = one(&mut rig);
    assert!(bytes.is_empty());
    assert_eq!(event.hook, trace_hook::XDP);
    assert_eq!(event.verdict, trace_verdict::PASSED);
    assert_eq!(event.flags, trace_flag::FLOW);
    assert_eq!((event.backend, event.generation), (1, 1));
    assert_eq!(event.service, SERVICE);
    assert_eq!(event.reasons, 0);
    assert_eq!(event.dport.get(), way.vip(1).port());
    assert_eq!(event.new_dport.get(), way.host().port());
    assert_eq!(event.proto, way.proto());
    assert_eq!(event.kind, if way.tcp { 2 } else { 0 });
    assert_eq!(event.len as usize, frame.bytes().len());
}

fn packets_of_a_known_flow_are_told_where_the_filter_says_so(way: Way) {
    let mut rig = telling(way, 0);
    establish(&mut rig, way);
    let frame = way.later(way.client(1), way.vip(1));
    rig.expect(Hook::Xdp, &frame, XDP_PASS, &frame.clone().to(way.host()));
    let (event, _) = one(&mut rig);
    assert_eq!(event.flags, trace_flag::FLOW | trace_flag::KNOWN);
    assert_eq!(event.backend, 1);
}

fn packets_that_keep_to_the_shortcut_are_not_told(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::HOST);
    rig.trace(ALL, 1, 0);
    establish(&mut rig, way);
    rig.run(Hook::Xdp, &way.later(way.client(1), way.vip(1)));
    assert!(rig.told().is_empty());
}

fn a_reply_is_told_as_its_flows(way: Way) {
    let mut rig = telling(way, 0);
    establish(&mut rig, way);
    let reply = way.later(way.host(), way.client(1));
    rig.expect(Hook::Egress, &reply, TC_OK, &reply.clone().from(way.vip(1)));
    let (event, _) = one(&mut rig);
    assert_eq!(event.hook, trace_hook::EGRESS);
    assert_eq!(event.direction, direction::REVERSE);
    assert_eq!(event.new_sport.get(), way.vip(1).port());
    // What is none of ours leaves without a word.
    rig.run(Hook::Egress, &way.later(way.host(), way.client(2)));
    assert!(rig.told().is_empty());
}

fn a_refused_packet_is_told_with_the_reason(way: Way) {
    let mut rig = telling(way, 0);
    let mut vip = way.vip(1);
    vip.set_port(1);
    rig.expect_untouched(Hook::Xdp, &way.opening(way.client(1), vip));
    let (event, _) = one(&mut rig);
    assert_eq!(event.reasons, 1 << Reason::NoService as u32);
    assert_eq!(event.verdict, trace_verdict::PASSED);
    assert_eq!((event.flags, event.backend), (0, 0));
}

fn a_packet_is_told_as_it_came_and_as_it_went(way: Way) {
    let mut rig = telling(way, 2_000);
    let frame = opening(way);
    rig.run(Hook::Xdp, &frame);
    let told = rig.told();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0].1, frame.bytes());
    assert_eq!(told[0].0.flags & trace_flag::AFTER, 0);
    assert_eq!(told[1].1, frame.clone().to(way.host()).bytes());
    assert_ne!(told[1].0.flags & trace_flag::AFTER, 0);
    rig.trace(ALL, 1, 30);
    rig.run(Hook::Xdp, &frame);
    let told = rig.told();
    assert_eq!(told[0].1, frame.bytes()[..30]);
    assert_eq!(told[0].0.len as usize, frame.bytes().len());
}

fn a_dropped_packet_is_told_once(way: Way) {
    let mut rig = telling(way, 64);
    let frame = way.opening(way.stranger(), way.vip(1));
    rig.expect_dropped(Hook::Xdp, &frame);
    let (event, bytes) = one(&mut rig);
    assert_eq!(event.verdict, trace_verdict::DROPPED);
    assert_eq!(event.reasons, 1 << Reason::SourceNotAllowed as u32);
    assert_eq!(bytes, frame.bytes()[..bytes.len()]);
}

fn no_more_is_told_than_the_rate_and_the_rest_is_counted(way: Way) {
    let mut rig = telling(way, 0);
    rig.trace(8, 1, 0);
    let runs = 500;
    for _ in 0..runs {
        rig.run(Hook::Xdp, &opening(way));
    }
    let told = rig.told().len() as u64;
    assert!((1..runs / 2).contains(&told), "{told}");
    assert_eq!(told + rig.untold(), runs);
}

fn of_known_flows_one_packet_in_so_many_is_told(way: Way) {
    let mut rig = telling(way, 0);
    establish(&mut rig, way);
    rig.trace(ALL, 10, 0);
    for _ in 0..1_000 {
        rig.run(Hook::Xdp, &way.later(way.client(1), way.vip(1)));
    }
    let told = rig.told().len();
    // Beyond eight standard deviations.
    assert!((20..180).contains(&told), "{told}");
    rig.run(Hook::Xdp, &way.opening(way.client(2), way.vip(1)));
    assert_eq!(rig.told().len(), 1, "a new flow is always told");
}

/// What is to be told: packets of this client for this VIP.
fn of(way: Way, client: SocketAddr, vip: SocketAddr) -> TraceMatch {
    let (all, wide) = if way.v6 {
        (Addr6([u32::MAX; 4]), wide6 as fn(SocketAddr) -> Addr6)
    } else {
        (Addr6([u32::MAX, 0, 0, 0]), wide4 as fn(SocketAddr) -> Addr6)
    };
    TraceMatch {
        vip: wide(vip),
        vip_mask: all,
        client: wide(client),
        client_mask: all,
        port: Be16::new(vip.port()),
        proto: way.proto(),
        family: if way.v6 { 6 } else { 4 },
        ..TraceMatch::default()
    }
}

fn wide4(at: SocketAddr) -> Addr6 {
    match at.ip() {
        IpAddr::V4(addr) => Addr4::from(addr).widen(),
        IpAddr::V6(_) => panic!("{at} is not IPv4"),
    }
}

fn wide6(at: SocketAddr) -> Addr6 {
    match at.ip() {
        IpAddr::V6(addr) => addr.into(),
        IpAddr::V4(_) => panic!("{at} is not IPv6"),
    }
}

fn what_nobody_wants_takes_nothing_of_the_rate(way: Way) {
    let mut rig = telling(way, 0);
    let wanted = of(way, way.client(2), way.vip(1));
    let other = TraceMatch {
        reasons: 1 << Reason::NoService as u32,
        ..TraceMatch::default()
    };
    rig.trace_only(8, 1, 0, &[other, wanted]);
    for _ in 0..500 {
        rig.run(Hook::Xdp, &opening(way));
    }
    assert_eq!((rig.told().len(), rig.untold()), (0, 0));
    rig.run(Hook::Xdp, &way.opening(way.client(2), way.vip(1)));
    let (event, _) = one(&mut rig);
    assert_eq!(event.src, wanted.client);
    rig.trace_only(
        8,
        1,
        0,
        &[TraceMatch {
            port: Be16::new(1),
            ..wanted
        }],
    );
    rig.run(Hook::Xdp, &way.opening(way.client(2), way.vip(1)));
    assert_eq!((rig.told().len(), rig.untold()), (0, 0));
}

fn a_reply_is_wanted_by_its_client_and_its_vip(way: Way) {
    let mut rig = telling(way, 0);
    establish(&mut rig, way);
    let reply = way.later(way.host(), way.client(1));
    rig.trace_only(ALL, 1, 0, &[of(way, way.client(1), way.vip(1))]);
    rig.run(Hook::Egress, &reply);
    assert_eq!(one(&mut rig).0.direction, direction::REVERSE);
    rig.trace_only(ALL, 1, 0, &[of(way, way.client(1), way.vip(2))]);
    rig.run(Hook::Egress, &reply);
    assert!(rig.told().is_empty());
}

each_tcp_way!(
    a_ping_is_told_as_sent,
    a_fragment_without_its_first_is_told_as_dropped,
    packets_to_others_are_not_told,
    a_packet_handed_to_the_twin_is_told_at_both
);

fn a_ping_is_told_as_sent(way: Way) {
    let mut rig = telling(way, 0);
    assert_eq!(
        rig.run_bytes(Hook::Xdp, &opening(way).as_ping()).verdict,
        XDP_TX
    );
    let (event, _) = one(&mut rig);
    assert_eq!(event.verdict, trace_verdict::SENT);
    assert_eq!(event.kind, if way.v6 { 128 } else { 8 });
    assert_eq!((event.sport.get(), event.dport.get()), (0, 0));
}

fn a_fragment_without_its_first_is_told_as_dropped(way: Way) {
    let mut rig = telling(way, 0);
    let bytes = opening(way).later_fragment((185, false), way.proto());
    assert_eq!(rig.run_bytes(Hook::Xdp, &bytes).verdict, XDP_DROP);
    let (event, _) = one(&mut rig);
    assert_eq!(event.flags, trace_flag::FRAGMENT);
    assert_eq!(event.reasons, 1 << Reason::Fragment as u32);
}

fn packets_to_others_are_not_told(way: Way) {
    let mut rig = telling(way, 64);
    rig.expect_untouched(Hook::Xdp, &way.opening(way.client(1), way.stranger()));
    // In a slot of the coarse filter that an address of ours shares, too.
    rig.slot(way.stranger().ip(), addr_flag::VIP | addr_flag::TRACED);
    rig.run(Hook::Xdp, &way.opening(way.client(1), way.stranger()));
    if !way.v6 {
        rig.run_bytes(Hook::Xdp, &Frame::arp(way.client(1), way.vip(1)));
    }
    assert!(rig.told().is_empty());
}

fn a_packet_handed_to_the_twin_is_told_at_both(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::LINK);
    rig.slot(way.vip(1).ip(), addr_flag::TRACED);
    rig.trace(ALL, 1, 64);
    let frame = opening(way);
    rig.expect_untouched(Hook::Xdp, &frame);
    let (event, _) = one(&mut rig);
    assert_eq!(event.reasons, 1 << Reason::ToSlowPath as u32);
    rig.run(Hook::Ingress, &frame);
    let told = rig.told();
    assert_eq!(told[0].0.hook, trace_hook::INGRESS);
    assert_eq!(told[0].1, frame.bytes()[..64.min(frame.bytes().len())]);
}
