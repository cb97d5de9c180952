//! Algorithms, affinity, limits, rates and lists of sources.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use lb_common::{
    Reason, SLOTS_SMALL, algorithm, backend_kind, backend_state, service_flag, source_rule,
};
use lb_tests::{each_tcp_way, each_way, packet::*};

/// A service with backends 1 to `n`, which take turns in its table.
fn many(way: Way, n: u32) -> Rig {
    let mut rig = Rig::serving(way, backend_kind::HOST);
    for id in 1..=n {
        let at = SocketAddr::new(way.node(), 8_000 + id as u16);
        rig.backend(id, backend(way, at, backend_kind::HOST));
        rig.limit(id, 1, 0);
    }
    let ids: Vec<u32> = (1..=n).collect();
    rig.table(SERVICE, &repeated(&ids, SLOTS_SMALL));
    rig
}

fn client(way: Way, port: u16) -> SocketAddr {
    SocketAddr::new(way.client(1).ip(), port)
}

/// The backend that a client's first packet was given, 0 if none.
fn chosen(rig: &Rig, way: Way, client: SocketAddr) -> u32 {
    rig.run(Hook::Xdp, &way.opening(client, way.vip(1)));
    rig.flow(way, client, way.vip(1))
        .map_or(0, |flow| flow.backend)
}

fn shares(rig: &Rig, way: Way, flows: u16) -> BTreeMap<u32, usize> {
    let mut shares = BTreeMap::new();
    for port in 0..flows {
        *shares
            .entry(chosen(rig, way, client(way, 20_000 + port)))
            .or_default() += 1;
    }
    shares
}

each_way!(
    round_robin_gives_backends_their_turn_in_order,
    round_robin_passes_over_a_backend_that_drains,
    by_source_all_flows_of_a_client_go_to_one_backend,
    least_connections_fills_the_emptier_backend,
    least_connections_counts_flows_by_weight,
    a_client_with_affinity_finds_its_backend_again,
    affinity_ends_with_its_time_and_with_its_backend,
    a_backend_with_all_the_flows_it_may_have_is_passed_over,
    a_service_whose_backends_are_all_full_is_refused,
    a_service_with_all_the_flows_it_may_have_is_refused,
    a_service_takes_no_more_new_flows_than_its_rate,
    who_may_not_come_from_outside_spends_no_rate,
    a_source_opens_no_more_flows_than_its_rate_and_harms_no_other,
    an_allow_list_keeps_all_others_out,
    a_service_may_refuse_whoever_may_not_use_it,
    a_deny_list_lets_all_others_in,
    the_longest_prefix_of_a_list_counts,
    a_refused_source_leaves_no_trace
);

fn round_robin_gives_backends_their_turn_in_order(way: Way) {
    let mut rig = many(way, 3);
    rig.shape(way, SLOTS_SMALL, |s| s.algorithm = algorithm::ROUND_ROBIN);
    let turns: Vec<u32> = (0..9)
        .map(|n| chosen(&rig, way, client(way, 20_000 + n)))
        .collect();
    assert_eq!(turns, [1, 2, 3, 1, 2, 3, 1, 2, 3]);
}

fn round_robin_passes_over_a_backend_that_drains(way: Way) {
    let mut rig = many(way, 3);
    rig.shape(way, SLOTS_SMALL, |s| s.algorithm = algorithm::ROUND_ROBIN);
    let mut draining = backend(way, SocketAddr::new(way.node(), 8_002), backend_kind::HOST);
    draining.state = backend_state::DRAINING;
    rig.backend(2, draining);
    let shares = shares(&rig, way, 60);
    assert_eq!(shares.keys().copied().collect::<Vec<_>>(), [1, 3]);
}

fn by_source_all_flows_of_a_client_go_to_one_backend(way: Way) {
    let mut rig = many(way, 10);
    rig.shape(way, SLOTS_SMALL, |s| s.algorithm = algorithm::SOURCE);
    assert_eq!(shares(&rig, way, 50).len(), 1);
    let others: std::collections::BTreeSet<u32> =
        (2..40).map(|n| chosen(&rig, way, way.client(n))).collect();
    assert!(others.len() > 5, "{others:?}");
}

fn least_connections_fills_the_emptier_backend(way: Way) {
    let mut rig = many(way, 2);
    rig.shape(way, SLOTS_SMALL, |s| s.algorithm = algorithm::LEAST_CONN);
    rig.set_load(1, 100);
    // Two draws of the same backend, one time in four, leave no choice.
    let shares = shares(&rig, way, 100);
    assert!(shares[&2] > 60 && shares[&2] < 95, "{shares:?}");
    assert_eq!(rig.load(1), 100 + shares[&1] as u64);
    assert_eq!(rig.load(2), shares[&2] as u64);
}

fn least_connections_counts_flows_by_weight(way: Way) {
    let mut rig = many(way, 2);
    rig.shape(way, SLOTS_SMALL, |s| s.algorithm = algorithm::LEAST_CONN);
    rig.limit(1, 10, 0);
    rig.set_load(1, 500);
    rig.set_load(2, 100);
    let shares = shares(&rig, way, 100);
    assert!(
        shares[&1] > 60,
        "500 at weight 10 are lighter than 100 at 1: {shares:?}"
    );
}

fn a_client_with_affinity_finds_its_backend_again(way: Way) {
    let mut rig = many(way, 10);
    rig.shape(way, SLOTS_SMALL, |s| s.affinity = 60);
    assert_eq!(shares(&rig, way, 50).len(), 1);
    rig.shape(way, SLOTS_SMALL, |s| s.affinity = 0);
    let mut others = BTreeMap::<u32, usize>::new();
    for port in 0..50 {
        *others
            .entry(chosen(&rig, way, client(way, 30_000 + port)))
            .or_default() += 1;
    }
    assert!(others.len() > 5, "{others:?}");
}

fn affinity_ends_with_its_time_and_with_its_backend(way: Way) {
    let mut rig = many(way, 10);
    rig.shape(way, SLOTS_SMALL, |s| s.affinity = 60);
    let first = chosen(&rig, way, client(way, 20_000));
    let mut gone = backend(
        way,
        SocketAddr::new(way.node(), 8_000 + first as u16),
        backend_kind::HOST,
    );
    gone.state = backend_state::DRAINING;
    rig.backend(first, gone);
    let second = chosen(&rig, way, client(way, 20_001));
    assert!(second != first && second != 0);
    assert_eq!(chosen(&rig, way, client(way, 20_002)), second);
    rig.age_affinity(61);
    let later: std::collections::BTreeSet<u32> = (0..20)
        .map(|n| {
            rig.age_affinity(61);
            chosen(&rig, way, client(way, 21_000 + n))
        })
        .collect();
    assert!(later.len() > 3, "{later:?}");
}

fn a_backend_with_all_the_flows_it_may_have_is_passed_over(way: Way) {
    let mut rig = many(way, 2);
    rig.limit(1, 1, 5);
    let shares = shares(&rig, way, 100);
    assert_eq!((shares[&1], shares[&2]), (5, 95));
    assert!(rig.counter(Reason::BackendFull) > 0);
}

fn a_service_whose_backends_are_all_full_is_refused(way: Way) {
    let mut rig = many(way, 2);
    rig.limit(1, 1, 3);
    rig.limit(2, 1, 3);
    assert_eq!(shares(&rig, way, 20)[&0], 14);
    assert_eq!(rig.counter(Reason::NoBackend), 14);
    rig.expect_untouched(Hook::Xdp, &way.opening(client(way, 1), way.vip(1)));
}

fn a_service_with_all_the_flows_it_may_have_is_refused(way: Way) {
    let mut rig = many(way, 2);
    rig.shape(way, SLOTS_SMALL, |s| s.max_flows = 7);
    assert_eq!(shares(&rig, way, 20)[&0], 13);
    assert_eq!(rig.service_load(), 7);
    assert_eq!(rig.counter(Reason::ServiceFull), 13);
    rig.expect_untouched(Hook::Xdp, &way.opening(client(way, 1), way.vip(1)));
}

fn a_service_takes_no_more_new_flows_than_its_rate(way: Way) {
    let mut rig = many(way, 2);
    rig.shape(way, SLOTS_SMALL, |s| s.rate = 8);
    // A burst of an eighth of a second's flows, and what the time of the test adds.
    let shares = shares(&rig, way, 200);
    let refused = shares[&0];
    assert!((100..200).contains(&refused), "{refused}");
    assert_eq!(rig.counter(Reason::ServiceRate), refused as u64);
    rig.expect_dropped(Hook::Xdp, &way.opening(client(way, 1), way.vip(1)));
}

fn who_may_not_come_from_outside_spends_no_rate(way: Way) {
    let mut rig = many(way, 2);
    rig.shape(way, SLOTS_SMALL, |s| (s.rate, s.source_rate) = (8, 8));
    for _ in 0..50 {
        rig.expect_dropped(Hook::Xdp, &way.opening(way.stranger(), way.vip(1)));
    }
    assert_eq!(rig.counters(), [(Reason::SourceNotAllowed, 50)]);
    assert_ne!(chosen(&rig, way, way.client(1)), 0);
}

fn a_source_opens_no_more_flows_than_its_rate_and_harms_no_other(way: Way) {
    let mut rig = many(way, 2);
    rig.shape(way, SLOTS_SMALL, |s| s.source_rate = 8);
    let refused = shares(&rig, way, 100)[&0];
    assert!((60..100).contains(&refused), "{refused}");
    assert_eq!(rig.counter(Reason::SourceRate), refused as u64);
    assert_ne!(chosen(&rig, way, way.client(2)), 0);
}

fn an_allow_list_keeps_all_others_out(way: Way) {
    let mut rig = many(way, 2);
    rig.shape(way, SLOTS_SMALL, |s| s.flags = service_flag::ALLOW_LISTED);
    rig.list(host_net(way.client(1).ip()), source_rule::ALLOW);
    assert_ne!(chosen(&rig, way, way.client(1)), 0);
    rig.expect_dropped(Hook::Xdp, &way.opening(way.client(2), way.vip(1)));
    assert_eq!(rig.counters(), [(Reason::SourceNotAllowed, 1)]);
}

fn a_service_may_refuse_whoever_may_not_use_it(way: Way) {
    for (flags, from) in [
        (service_flag::REFUSES, way.stranger()),
        (
            service_flag::REFUSES | service_flag::ALLOW_LISTED,
            way.client(1),
        ),
    ] {
        let mut rig = many(way, 2);
        rig.shape(way, SLOTS_SMALL, |s| s.flags = flags);
        // The stack says so: the VIP is an address of its own at which nobody listens.
        for (n, hook) in [Hook::Xdp, Hook::Ingress].into_iter().enumerate() {
            rig.expect_untouched(hook, &way.opening(from, way.vip(1)));
            assert_eq!(rig.counters(), [(Reason::SourceRefused, n as u64 + 1)]);
        }
        assert_eq!(rig.flows(way), []);
    }
}

fn a_deny_list_lets_all_others_in(way: Way) {
    let mut rig = many(way, 2);
    rig.shape(way, SLOTS_SMALL, |s| s.flags = service_flag::DENY_LISTED);
    rig.list(host_net(way.client(1).ip()), source_rule::DENY);
    rig.expect_dropped(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    assert_ne!(chosen(&rig, way, way.client(2)), 0);
    assert_eq!(rig.counters(), [(Reason::SourceNotAllowed, 1)]);
}

fn the_longest_prefix_of_a_list_counts(way: Way) {
    let mut rig = many(way, 2);
    rig.shape(way, SLOTS_SMALL, |s| s.flags = service_flag::ALLOW_LISTED);
    let wide = ipnet::IpNet::new(way.client(0).ip(), if way.v6 { 64 } else { 24 }).unwrap();
    rig.list(wide.trunc(), source_rule::ALLOW);
    rig.list(host_net(way.client(9).ip()), source_rule::DENY);
    assert_ne!(chosen(&rig, way, way.client(1)), 0);
    rig.expect_dropped(Hook::Xdp, &way.opening(way.client(9), way.vip(1)));
}

fn a_refused_source_leaves_no_trace(way: Way) {
    let mut rig = many(way, 2);
    rig.shape(way, SLOTS_SMALL, |s| {
        s.flags = service_flag::ALLOW_LISTED;
        s.affinity = 60;
    });
    rig.expect_dropped(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    assert_eq!(rig.flows(way), []);
    assert_eq!((rig.load(1), rig.load(2), rig.service_load()), (0, 0, 0));
}

fn host_net(addr: IpAddr) -> ipnet::IpNet {
    addr.into()
}

each_tcp_way!(a_flow_is_counted_out_when_it_ends_and_only_once);

fn a_flow_is_counted_out_when_it_ends_and_only_once(way: Way) {
    let mut rig = many(way, 1);
    let syn = way.opening(way.client(1), way.vip(1));
    rig.run(Hook::Xdp, &syn);
    rig.run(Hook::Xdp, &way.opening(way.client(2), way.vip(1)));
    assert_eq!((rig.load(1), rig.service_load()), (2, 2));
    for _ in 0..2 {
        rig.run(
            Hook::Xdp,
            &way.segment(way.client(1), way.vip(1), Segment::Fin),
        );
    }
    rig.run(
        Hook::Xdp,
        &way.segment(way.client(1), way.vip(1), Segment::Rst),
    );
    assert_eq!((rig.load(1), rig.service_load()), (1, 1));
    // The next connection from the same port is a flow of its own.
    rig.run(Hook::Xdp, &syn);
    assert_eq!((rig.load(1), rig.service_load()), (2, 2));
}

each_tcp_way!(a_flow_that_is_counted_out_twice_leaves_no_less_than_none);

fn a_flow_that_is_counted_out_twice_leaves_no_less_than_none(way: Way) {
    let mut rig = many(way, 1);
    rig.limit(1, 1, 1);
    rig.shape(way, SLOTS_SMALL, |s| s.max_flows = 1);
    rig.run(Hook::Xdp, &way.opening(client(way, 1), way.vip(1)));
    rig.set_load(1, 0);
    rig.set_service_load(0);
    rig.run(
        Hook::Xdp,
        &way.segment(client(way, 1), way.vip(1), Segment::Rst),
    );
    assert_eq!((rig.load(1), rig.service_load()), (0, 0));
    assert_eq!(chosen(&rig, way, client(way, 2)), 1);
    assert_eq!((rig.load(1), rig.service_load()), (1, 1));
}
