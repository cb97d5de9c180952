//! What is said of packets and calls.

use std::net::Ipv4Addr;

use lb_common::backend_kind;

use super::*;

fn addr(text: &str) -> Addr6 {
    Addr4::from(text.parse::<Ipv4Addr>().unwrap()).widen()
}

/// A client's SYN that opened a flow.
fn syn() -> Seen {
    let event = TraceEvent {
        src: addr("192.0.2.7"),
        dst: addr("11.0.0.1"),
        sport: Be16::new(40_000),
        dport: Be16::new(80),
        new_src: addr("10.0.0.9"),
        new_dst: addr("10.0.0.1"),
        new_sport: Be16::new(61_001),
        new_dport: Be16::new(8080),
        len: 74,
        backend: 1,
        service: 1,
        flags: trace_flag::FLOW,
        verdict: trace_verdict::SENT,
        family: 4,
        proto: TCP,
        kind: 2,
        way: backend_kind::NET,
        ..TraceEvent::default()
    };
    Seen {
        event,
        ..Seen::default()
    }
}

/// The backend's answer to it.
fn reply() -> Seen {
    let mut seen = syn();
    let event = &mut seen.event;
    (event.src, event.dst) = (addr("10.0.0.1"), addr("10.0.0.9"));
    (event.sport, event.dport) = (Be16::new(8080), Be16::new(61_001));
    (event.new_src, event.new_dst) = (addr("11.0.0.1"), addr("192.0.2.7"));
    (event.new_sport, event.new_dport) = (Be16::new(80), Be16::new(40_000));
    event.direction = direction::REVERSE;
    event.flags |= trace_flag::KNOWN;
    event.kind = 0x12;
    seen
}

/// A segment to a port without a service.
fn refused() -> Seen {
    let mut seen = syn();
    seen.event.flags = 0;
    seen.event.verdict = trace_verdict::PASSED;
    seen.event.reasons = 1 << Reason::NoService as u32;
    seen
}

fn connect() -> Seen {
    let mut seen = syn();
    let event = &mut seen.event;
    (event.src, event.sport) = (Addr6::default(), Be16(0));
    event.hook = trace_hook::CONNECT;
    event.verdict = trace_verdict::PASSED;
    event.len = 0;
    seen
}

#[test]
fn a_line_says_what_became_of_a_packet() {
    let told = |seen: &Seen| {
        let report = seen.report(None);
        format!("[{}] {}", report.detail, report.story())
    };
    let backend = "backend 10.0.0.1:8080 by nat";
    assert_eq!(told(&syn()), format!("[S] new flow, {backend}, sent"));
    assert_eq!(told(&reply()), "[S.] reply of 10.0.0.1:8080 by nat, sent");
    assert_eq!(told(&refused()), "[S] refused (no_service)");
    assert_eq!(told(&connect()), format!("[] {backend}, passed"));
    let mut dropped = refused();
    dropped.event.verdict = trace_verdict::DROPPED;
    dropped.event.reasons |= 1 << Reason::RefusalGuard as u32;
    assert_eq!(told(&dropped), "[S] dropped (no_service, refusal_guard)");
}

#[test]
fn client_and_vip_are_the_same_for_both_directions_of_a_flow() {
    for seen in [syn(), reply()] {
        let report = seen.report(Some("eth0".to_owned()));
        assert_eq!(report.client.unwrap().to_string(), "192.0.2.7:40000");
        assert_eq!(report.vip.to_string(), "11.0.0.1:80");
        assert_eq!(report.backend.unwrap().to_string(), "10.0.0.1:8080");
    }
    assert_eq!(connect().report(None).client, None);
}

#[test]
fn a_packet_is_shown_if_all_that_is_asked_for_holds() {
    let filter = TraceFilter {
        vip: Some("11.0.0.1:80".parse().unwrap()),
        services: Some([Endpoint::new("11.0.0.1:80".parse().unwrap(), TCP)].into()),
        client: Some("192.0.2.0/24".parse().unwrap()),
        reason: None,
    };
    assert!(syn().is_for(&filter) && reply().is_for(&filter));
    assert!(connect().is_for(&TraceFilter {
        client: None,
        ..filter.clone()
    }));
    assert!(!connect().is_for(&filter), "nobody knows its address");
    for other in [
        TraceFilter {
            vip: Some("11.0.0.1:81".parse().unwrap()),
            ..filter.clone()
        },
        TraceFilter {
            client: Some("192.0.3.0/24".parse().unwrap()),
            ..filter.clone()
        },
        TraceFilter {
            services: Some([Endpoint::new("11.0.0.1:80".parse().unwrap(), UDP)].into()),
            ..filter.clone()
        },
        TraceFilter {
            reason: Some(Reason::NoService),
            ..filter.clone()
        },
    ] {
        assert!(!syn().is_for(&other), "{other:?}");
    }
    assert!(refused().is_for(&TraceFilter {
        reason: Some(Reason::NoService),
        ..TraceFilter::default()
    }));
}

#[test]
fn an_icmp_message_is_shown_for_every_service_of_its_vip() {
    let mut seen = refused();
    let event = &mut seen.event;
    (event.proto, event.kind, event.code) = (ICMP, 3, 4);
    (event.sport, event.dport) = (Be16(0), Be16(0));
    let of = |vip: &str| TraceFilter {
        services: Some([Endpoint::new(vip.parse().unwrap(), TCP)].into()),
        ..TraceFilter::default()
    };
    assert!(seen.is_for(&of("11.0.0.1:80")) && !seen.is_for(&of("11.0.0.2:80")));
    assert_eq!(seen.report(None).detail, "type 3 code 4");
}

#[test]
fn what_is_shown_is_among_what_the_programs_are_asked_for() {
    let vip = |text: &str| TraceFilter {
        vip: Some(text.parse().unwrap()),
        ..TraceFilter::default()
    };
    let service = |text: &str| TraceFilter {
        services: Some([Endpoint::new(text.parse().unwrap(), TCP)].into()),
        ..TraceFilter::default()
    };
    let client = |text: &str| TraceFilter {
        client: Some(text.parse().unwrap()),
        ..TraceFilter::default()
    };
    let because = |reason| TraceFilter {
        reason: Some(reason),
        ..TraceFilter::default()
    };
    let mut icmp = refused();
    icmp.event.proto = ICMP;
    (icmp.event.sport, icmp.event.dport) = (Be16(0), Be16(0));
    let all = [syn(), reply(), refused(), connect(), icmp];
    for (filter, shown) in [
        (TraceFilter::default(), [true; 5]),
        (vip("11.0.0.1"), [true; 5]),
        (vip("11.0.0.2"), [false; 5]),
        (vip("[fd00::1]:80"), [false; 5]),
        (service("11.0.0.1:80"), [true; 5]),
        (service("11.0.0.1:81"), [false, false, false, false, true]),
        (client("192.0.2.0/24"), [true, true, true, false, true]),
        (client("192.0.3.0/24"), [false; 5]),
        (
            because(Reason::NoService),
            [false, false, true, false, true],
        ),
    ] {
        let matches = filter.matches();
        let wanted = all
            .each_ref()
            .map(|seen| matches.iter().any(|one| one.wants(&seen.event)));
        assert_eq!(wanted, shown, "{filter:?}");
        assert_eq!(all.each_ref().map(|seen| seen.is_for(&filter)), shown);
    }
}
