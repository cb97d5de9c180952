//! Backends that do not answer: new flows go elsewhere until they do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;

use lb_common::{Backend, Reason, SLOTS_SMALL, algorithm, backend_kind, suspicion};
use lb_tests::{each_tcp_way, each_udp_way, packet::*};

/// Longer than a suspect is out the first time, ns.
const OUT: u64 = 1_100_000_000;
/// Longer than a flow has to try one.
const TRIAL: u64 = 1_600_000_000;

/// Backends 1 and 2: 1 has most of the table.
fn two(way: Way, kind: u8) -> (Rig, Net) {
    let mut rig = Rig::serving(way, kind);
    let net = Net::new();
    for id in 1..=2 {
        rig.backend(id, member(way, kind, id, &net));
    }
    rig.service(way, way.vip(1), SERVICE, 0, &mostly_first());
    (rig, net)
}

fn mostly_first() -> Vec<u32> {
    let mut table = repeated(&[1], SLOTS_SMALL);
    for slot in table.iter_mut().step_by(5) {
        *slot = 2;
    }
    table
}

fn member(way: Way, kind: u8, id: u32, net: &Net) -> Backend {
    let at = if kind == backend_kind::HOST {
        SocketAddr::new(way.node(), 8_000 + id as u16)
    } else {
        way.backend(id as u8)
    };
    Backend {
        ifindex: if kind == backend_kind::LINK {
            net.second
        } else {
            0
        },
        ..backend(way, at, kind)
    }
}

fn from_client(rig: &Rig, way: Way, client: SocketAddr, segment: Segment) -> Out {
    rig.run(Hook::Xdp, &way.segment(client, way.vip(1), segment))
}

/// The backend of the client's flow; 0: it has none.
fn backend_of(rig: &Rig, way: Way, client: SocketAddr) -> u32 {
    rig.flow(way, client, way.vip(1))
        .map_or(0, |flow| flow.backend)
}

/// What the backend answers, at the hook by which that comes.
fn answer(rig: &Rig, way: Way, kind: u8, client: SocketAddr, segment: Segment) -> (Hook, Out) {
    let (source, backend) = rig.flow(way, client, way.vip(1)).unwrap().leaves;
    let hook = hook_of(kind);
    (hook, rig.run(hook, &way.segment(backend, source, segment)))
}

fn hook_of(kind: u8) -> Hook {
    match kind {
        backend_kind::NET => Hook::Xdp,
        backend_kind::LINK => Hook::Link,
        _ => Hook::Egress,
    }
}

/// A client whose flow goes to backend 1, by its SYN or first datagram.
fn client_of_first(rig: &Rig, way: Way, from: u16) -> SocketAddr {
    for port in from..from + 200 {
        let client = SocketAddr::new(way.client(1).ip(), port);
        rig.run(Hook::Xdp, &way.opening(client, way.vip(1)));
        if backend_of(rig, way, client) == 1 {
            return client;
        }
    }
    panic!("none of 200 flows goes to it")
}

/// A client whose flow goes to backend 1, by a segment amid a connection.
fn client_amid(rig: &Rig, way: Way, from: u16) -> SocketAddr {
    for port in from..from + 200 {
        let client = SocketAddr::new(way.client(1).ip(), port);
        from_client(rig, way, client, Segment::Ack);
        if backend_of(rig, way, client) == 1 {
            return client;
        }
    }
    panic!("none of 200 flows goes to it")
}

/// Makes backend 1 a suspect by a refusal.
fn refused(rig: &Rig, way: Way, kind: u8, from: u16) -> SocketAddr {
    let client = client_of_first(rig, way, from);
    let (hook, out) = answer(rig, way, kind, client, Segment::Rst);
    assert_eq!(out.verdict, hook.drop(), "{hook:?}");
    client
}

const KINDS: [u8; 3] = [backend_kind::NET, backend_kind::HOST, backend_kind::LINK];

each_tcp_way!(
    a_refusal_is_dropped_and_the_next_syn_goes_elsewhere,
    the_refusal_of_the_only_backend_reaches_the_client,
    a_refusal_reaches_the_client_when_every_other_backend_is_suspect_too,
    silence_sends_the_next_syn_elsewhere,
    a_syn_sent_again_after_an_answer_stays,
    silence_is_no_suspicion_where_others_were_answered,
    a_reset_amid_a_connection_is_no_refusal_and_reaches_the_client,
    a_connection_from_the_port_of_one_that_was_lost_chooses_afresh,
    new_flows_avoid_a_suspect_by_every_algorithm_and_established_ones_stay,
    affinity_does_not_lead_to_a_suspect,
    one_flow_tries_a_suspect_and_an_answer_clears_it,
    a_suspect_that_refuses_again_is_out_for_longer,
    an_unreachable_backend_is_suspect_and_its_client_hears_nothing,
    whoever_gets_the_id_of_a_suspect_is_none
);
each_udp_way!(a_datagram_to_a_closed_port_makes_the_next_one_go_elsewhere);

fn a_refusal_is_dropped_and_the_next_syn_goes_elsewhere(way: Way) {
    for kind in KINDS {
        let (mut rig, _net) = two(way, kind);
        let client = refused(&rig, way, kind, 1_000);
        assert_eq!(backend_of(&rig, way, client), 0, "the flow is forgotten");
        assert_eq!(rig.load(1), 0);
        assert_eq!(rig.suspect(1).why, suspicion::REFUSED);
        assert_eq!(rig.counter(Reason::BackendRefused), 1);
        assert_eq!(rig.counter(Reason::BackendSuspect), 1);
        assert_eq!(rig.connections(1).backend_resets, 1);
        assert_eq!(rig.connections(1).redispatched, 1);
        from_client(&rig, way, client, Segment::Syn);
        assert_eq!(backend_of(&rig, way, client), 2);
    }
}

fn the_refusal_of_the_only_backend_reaches_the_client(way: Way) {
    for kind in KINDS {
        let mut rig = Rig::serving(way, kind);
        let net = Net::new();
        rig.backend(1, member(way, kind, 1, &net));
        let client = client_of_first(&rig, way, 1_000);
        let (hook, out) = answer(&rig, way, kind, client, Segment::Rst);
        assert_ne!(out.verdict, hook.drop(), "{hook:?}");
        from_client(&rig, way, client, Segment::Syn);
        assert_eq!(
            backend_of(&rig, way, client),
            1,
            "where all are suspect, none is"
        );
    }
}

fn a_refusal_reaches_the_client_when_every_other_backend_is_suspect_too(way: Way) {
    let kind = backend_kind::HOST;
    let (rig, _net) = two(way, kind);
    let client = refused(&rig, way, kind, 1_000);
    from_client(&rig, way, client, Segment::Syn);
    assert_eq!(backend_of(&rig, way, client), 2);
    let (hook, out) = answer(&rig, way, kind, client, Segment::Rst);
    assert_eq!(out.verdict, hook.pass());
}

fn silence_sends_the_next_syn_elsewhere(way: Way) {
    for kind in KINDS {
        let (mut rig, _net) = two(way, kind);
        let client = client_of_first(&rig, way, 1_000);
        from_client(&rig, way, client, Segment::Syn);
        assert_eq!(backend_of(&rig, way, client), 1, "the twin sees it, too");
        rig.age_flow(way, client, way.vip(1), OUT);
        from_client(&rig, way, client, Segment::Syn);
        assert_eq!(backend_of(&rig, way, client), 2);
        assert_eq!(rig.suspect(1).why, suspicion::SILENT);
        assert_eq!(rig.counter(Reason::BackendSilent), 1);
        assert_eq!(rig.connections(1).redispatched, 1);
        assert_eq!(rig.service_connections(SERVICE).redispatched, 1);
        assert_eq!(rig.load(1), 0);
    }
}

fn a_syn_sent_again_after_an_answer_stays(way: Way) {
    for kind in KINDS {
        let (mut rig, _net) = two(way, kind);
        let client = client_of_first(&rig, way, 1_000);
        answer(&rig, way, kind, client, Segment::SynAck);
        rig.age_suspect(1, 10 * OUT);
        rig.age_flow(way, client, way.vip(1), OUT);
        from_client(&rig, way, client, Segment::Syn);
        assert_eq!(backend_of(&rig, way, client), 1);
        assert_eq!(rig.suspect(1).times, 0);
    }
}

fn silence_is_no_suspicion_where_others_were_answered(way: Way) {
    let kind = backend_kind::HOST;
    let (mut rig, _net) = two(way, kind);
    let lost = client_of_first(&rig, way, 1_000);
    let other = client_of_first(&rig, way, 2_000);
    answer(&rig, way, kind, other, Segment::SynAck);
    rig.age_flow(way, lost, way.vip(1), OUT);
    from_client(&rig, way, lost, Segment::Syn);
    assert_eq!(backend_of(&rig, way, lost), 1, "it works: the SYN was lost");
    rig.age_suspect(1, OUT);
    from_client(&rig, way, lost, Segment::Syn);
    assert_eq!(backend_of(&rig, way, lost), 2);
}

/// The connection was another backend's, which is gone.
fn a_reset_amid_a_connection_is_no_refusal_and_reaches_the_client(way: Way) {
    for kind in [backend_kind::HOST, backend_kind::LINK] {
        let (mut rig, _net) = two(way, kind);
        let client = client_amid(&rig, way, 1_000);
        let (hook, out) = answer(&rig, way, kind, client, Segment::Rst);
        assert_ne!(out.verdict, hook.drop(), "{hook:?}");
        let (source, backend) = rig.flow(way, client, way.vip(1)).unwrap().leaves;
        let sent = way.segment(source, backend, Segment::Ack);
        let error = sent.error(way.stranger().ip(), Trouble::Unreachable, 8);
        assert_ne!(rig.run_bytes(hook, &error.bytes()).verdict, hook.drop());
        assert_eq!(rig.suspect(1).times, 0);
        assert_eq!(rig.counter(Reason::BackendRefused), 0);
        assert_eq!(rig.connections(1).backend_resets, 1);
        assert_eq!(rig.connections(1).refused, 0);
    }
}

fn a_connection_from_the_port_of_one_that_was_lost_chooses_afresh(way: Way) {
    let kind = backend_kind::HOST;
    let (mut rig, _net) = two(way, kind);
    let client = client_amid(&rig, way, 1_000);
    rig.age_flow(way, client, way.vip(1), OUT);
    rig.service(way, way.vip(1), SERVICE, 0, &repeated(&[2], SLOTS_SMALL));
    from_client(&rig, way, client, Segment::Syn);
    assert_eq!(backend_of(&rig, way, client), 2);
    // Nobody had asked it.
    assert_eq!(rig.suspect(1).times, 0);
    assert_eq!(rig.connections(1).syn_retransmits, 0);
    assert_eq!(rig.load(1), 0);
    // From here on it is a connection as any other.
    let (hook, out) = answer(&rig, way, kind, client, Segment::Rst);
    assert_eq!(out.verdict, hook.pass(), "there is no other backend");
    assert_eq!(rig.suspect(2).why, suspicion::REFUSED);
}

fn new_flows_avoid_a_suspect_by_every_algorithm_and_established_ones_stay(way: Way) {
    let kind = backend_kind::HOST;
    for with in [
        algorithm::MAGLEV,
        algorithm::LEAST_CONN,
        algorithm::ROUND_ROBIN,
        algorithm::SOURCE,
    ] {
        let (mut rig, _net) = two(way, kind);
        let old = client_of_first(&rig, way, 900);
        answer(&rig, way, kind, old, Segment::SynAck);
        from_client(&rig, way, old, Segment::Ack);
        rig.age_suspect(1, 10 * OUT);
        refused(&rig, way, kind, 1_000);
        rig.hold_suspect(1);
        rig.shape(way, SLOTS_SMALL, |service| service.algorithm = with);
        for port in 2_000..2_200 {
            let client = SocketAddr::new(way.client(1).ip(), port);
            from_client(&rig, way, client, Segment::Syn);
            assert_eq!(backend_of(&rig, way, client), 2, "algorithm {with}");
        }
        let out = from_client(&rig, way, old, Segment::Ack);
        assert_eq!(out.verdict, Hook::Xdp.pass());
        assert_eq!(backend_of(&rig, way, old), 1);
    }
}

fn affinity_does_not_lead_to_a_suspect(way: Way) {
    let kind = backend_kind::HOST;
    let (mut rig, _net) = two(way, kind);
    rig.shape(way, SLOTS_SMALL, |service| service.affinity = 60);
    // Every client has one backend.
    let mut clients = (1..=50).map(|n| way.client(n));
    let to_first = |client: &SocketAddr| {
        from_client(&rig, way, *client, Segment::Syn);
        backend_of(&rig, way, *client) == 1
    };
    let client = clients.find(to_first).expect("it has most of the table");
    let (hook, out) = answer(&rig, way, kind, client, Segment::Rst);
    assert_eq!(out.verdict, hook.drop());
    from_client(&rig, way, client, Segment::Syn);
    assert_eq!(backend_of(&rig, way, client), 2);
    // From now on this is the client's backend.
    let next = SocketAddr::new(client.ip(), 5_000);
    rig.age_suspect(1, OUT);
    from_client(&rig, way, next, Segment::Syn);
    assert_eq!(backend_of(&rig, way, next), 2);
}

fn one_flow_tries_a_suspect_and_an_answer_clears_it(way: Way) {
    for kind in KINDS {
        let (mut rig, _net) = two(way, kind);
        refused(&rig, way, kind, 1_000);
        rig.age_suspect(1, OUT);
        let trying = client_of_first(&rig, way, 2_000);
        rig.hold_suspect(1);
        for port in 3_000..3_100 {
            let client = SocketAddr::new(way.client(1).ip(), port);
            from_client(&rig, way, client, Segment::Syn);
            assert_eq!(backend_of(&rig, way, client), 2, "one is enough");
        }
        answer(&rig, way, kind, trying, Segment::SynAck);
        assert_eq!(rig.suspect(1).times, 0);
        client_of_first(&rig, way, 4_000);
    }
}

fn a_suspect_that_refuses_again_is_out_for_longer(way: Way) {
    let kind = backend_kind::HOST;
    let (mut rig, _net) = two(way, kind);
    refused(&rig, way, kind, 1_000);
    rig.age_suspect(1, OUT);
    refused(&rig, way, kind, 2_000);
    assert_eq!(rig.suspect(1).times, 2);
    rig.age_suspect(1, 2 * OUT);
    client_of_first(&rig, way, 4_000);
    // Nobody complains of the trial.
    rig.age_suspect(1, TRIAL);
    client_of_first(&rig, way, 5_000);
    assert_eq!(rig.suspect(1).times, 0);
}

fn an_unreachable_backend_is_suspect_and_its_client_hears_nothing(way: Way) {
    for kind in KINDS {
        let (mut rig, _net) = two(way, kind);
        let client = client_of_first(&rig, way, 1_000);
        let (source, backend) = rig.flow(way, client, way.vip(1)).unwrap().leaves;
        let sent = way.segment(source, backend, Segment::Syn);
        let router = way.stranger().ip();
        let hook = hook_of(kind);
        let narrow = sent.error(router, Trouble::TooBig(1_400), 8);
        assert_ne!(
            rig.run_bytes(hook, &narrow.bytes()).verdict,
            hook.drop(),
            "{hook:?}: no word of the backend itself"
        );
        assert_eq!(rig.suspect(1).times, 0);
        let error = sent.error(router, Trouble::Unreachable, 8);
        assert_eq!(rig.run_bytes(hook, &error.bytes()).verdict, hook.drop());
        assert_eq!(rig.suspect(1).why, suspicion::UNREACHABLE);
        from_client(&rig, way, client, Segment::Syn);
        assert_eq!(backend_of(&rig, way, client), 2);
    }
}

fn whoever_gets_the_id_of_a_suspect_is_none(way: Way) {
    let kind = backend_kind::HOST;
    let (mut rig, net) = two(way, kind);
    refused(&rig, way, kind, 1_000);
    let other = Backend {
        generation: 2,
        ..member(way, kind, 1, &net)
    };
    rig.backend(1, other);
    client_of_first(&rig, way, 2_000);
}

fn a_datagram_to_a_closed_port_makes_the_next_one_go_elsewhere(way: Way) {
    for kind in KINDS {
        let (mut rig, _net) = two(way, kind);
        let client = client_of_first(&rig, way, 1_000);
        let (source, backend) = rig.flow(way, client, way.vip(1)).unwrap().leaves;
        let sent = way.later(source, backend);
        let error = sent.error(backend.ip(), Trouble::Unreachable, 8);
        let hook = hook_of(kind);
        assert_eq!(rig.run_bytes(hook, &error.bytes()).verdict, hook.drop());
        assert_eq!(rig.suspect(1).why, suspicion::UNREACHABLE);
        rig.run(Hook::Xdp, &way.opening(client, way.vip(1)));
        assert_eq!(backend_of(&rig, way, client), 2);
        // One flow tries it, and nobody complains.
        rig.age_suspect(1, OUT);
        client_of_first(&rig, way, 2_000);
        rig.age_suspect(1, TRIAL);
        client_of_first(&rig, way, 3_000);
        assert_eq!(rig.suspect(1).times, 0);
    }
}
