//! The life of a flow: opened, closed, evicted, claimed by another.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;

use lb_common::{Reason, SLOTS_SMALL, backend_kind, tcp_state};
use lb_tests::{each_tcp_way, each_way, packet::*};

const SECOND: u64 = 1_000_000_000;
/// Further than any time stamp may lag (`lb_common::touch_interval`).
const LAG: u64 = 10 * SECOND;

/// Two VIPs with one backend on the node.
fn two_vips(way: Way) -> Rig {
    let mut rig = Rig::serving(way, backend_kind::HOST);
    rig.service(way, way.vip(2), 8, 0, &repeated(&[1], SLOTS_SMALL));
    rig
}

each_way!(
    two_flows_that_would_be_alike_for_the_backend_are_not_both_opened,
    a_flow_that_was_silent_for_a_minute_gives_way_to_another,
    a_flow_used_this_very_moment_on_another_cpu_does_not_give_way,
    a_flow_may_be_opened_again_by_its_own_client,
    the_half_that_was_evicted_comes_back_when_the_other_is_used,
    a_time_stamp_moves_when_it_lags
);

fn two_flows_that_would_be_alike_for_the_backend_are_not_both_opened(way: Way) {
    let rig = two_vips(way);
    let (first, second) = (
        way.opening(way.client(1), way.vip(1)),
        way.opening(way.client(1), way.vip(2)),
    );
    rig.expect(Hook::Xdp, &first, XDP_PASS, &first.clone().to(way.host()));
    for (n, hook) in [Hook::Xdp, Hook::Ingress].into_iter().enumerate() {
        rig.expect_dropped(hook, &second);
        assert_eq!(rig.counters(), [(Reason::FlowCollision, n as u64 + 1)]);
    }
    assert_eq!(rig.flow(way, way.client(1), way.vip(2)), None);
    let reply = way.later(way.host(), way.client(1));
    rig.expect(Hook::Egress, &reply, TC_OK, &reply.clone().from(way.vip(1)));
}

fn a_flow_that_was_silent_for_a_minute_gives_way_to_another(way: Way) {
    let mut rig = two_vips(way);
    rig.run(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    let now = rig.last_seen(way, way.host(), way.client(1));
    rig.set_last_seen(way, way.host(), way.client(1), now - 59 * SECOND);
    rig.expect_dropped(Hook::Xdp, &way.opening(way.client(1), way.vip(2)));
    rig.set_last_seen(way, way.host(), way.client(1), now - 61 * SECOND);
    let frame = way.opening(way.client(1), way.vip(2));
    rig.expect(Hook::Xdp, &frame, XDP_PASS, &frame.clone().to(way.host()));
    let reply = way.later(way.host(), way.client(1));
    rig.expect(Hook::Egress, &reply, TC_OK, &reply.clone().from(way.vip(2)));
}

fn a_flow_used_this_very_moment_on_another_cpu_does_not_give_way(way: Way) {
    // That CPU's clock has ticked since this one read its own.
    let mut rig = two_vips(way);
    rig.run(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    let now = rig.last_seen(way, way.host(), way.client(1));
    rig.set_last_seen(way, way.host(), way.client(1), now + 10 * SECOND);
    rig.expect_dropped(Hook::Xdp, &way.opening(way.client(1), way.vip(2)));
    assert_eq!(rig.counters(), [(Reason::FlowCollision, 1)]);
}

fn a_flow_may_be_opened_again_by_its_own_client(way: Way) {
    let mut rig = two_vips(way);
    let frame = way.opening(way.client(1), way.vip(1));
    rig.run(Hook::Xdp, &frame);
    rig.evict(way, way.client(1), way.vip(1));
    rig.expect(Hook::Xdp, &frame, XDP_PASS, &frame.clone().to(way.host()));
    assert_eq!(rig.flows(way).len(), 2);
}

fn the_half_that_was_evicted_comes_back_when_the_other_is_used(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::HOST);
    rig.run(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    let whole = rig.flows(way);
    let now = rig.last_seen(way, way.client(1), way.vip(1));
    rig.evict(way, way.host(), way.client(1));
    rig.set_last_seen(way, way.client(1), way.vip(1), now - LAG);
    rig.run(Hook::Xdp, &way.later(way.client(1), way.vip(1)));
    assert_eq!(rig.flows(way), whole);
    rig.evict(way, way.client(1), way.vip(1));
    rig.set_last_seen(way, way.host(), way.client(1), now - LAG);
    rig.run(Hook::Egress, &way.later(way.host(), way.client(1)));
    assert_eq!(rig.flows(way), whole);
}

fn a_time_stamp_moves_when_it_lags(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::HOST);
    rig.run(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    let at = rig.last_seen(way, way.client(1), way.vip(1));
    rig.set_last_seen(way, way.client(1), way.vip(1), at - LAG);
    rig.run(Hook::Xdp, &way.later(way.client(1), way.vip(1)));
    // The stamp of a new flow is precise; others lag by a tick at most.
    assert!(rig.last_seen(way, way.client(1), way.vip(1)) >= at - SECOND / 100);
    let future = at + 3_600 * SECOND;
    rig.set_last_seen(way, way.client(1), way.vip(1), future);
    rig.run(Hook::Xdp, &way.later(way.client(1), way.vip(1)));
    assert_eq!(
        rig.last_seen(way, way.client(1), way.vip(1)),
        future,
        "a young stamp stays"
    );
}

each_tcp_way!(
    the_end_of_a_connection_is_noted_on_both_sides,
    a_closing_connection_goes_on_until_its_last_segment,
    a_syn_on_a_closed_connection_chooses_afresh,
    a_syn_ack_does_not_open_a_closed_connection_anew,
    the_acknowledgement_moves_a_half_open_connection,
    an_acknowledgement_of_nothing_moves_no_connection,
    a_flow_whose_tuple_was_given_away_ends_with_its_next_segment,
    a_half_open_flow_whose_tuple_was_given_away_does_not_take_it_back,
    a_half_that_was_evicted_before_the_acknowledgement_comes_back,
    a_flow_that_is_pushed_out_by_its_other_half_is_dropped_and_counted,
    a_cpu_opens_no_more_flows_than_the_guard_lets_it,
    a_flood_of_syns_evicts_no_established_flow,
    a_flood_of_datagrams_evicts_no_established_flow,
    a_closed_flow_gives_way_to_another,
    a_flow_that_gave_way_does_not_harm_the_one_it_gave_way_to,
    a_new_connection_under_full_nat_is_given_a_new_port_after_a_reset
);

fn the_end_of_a_connection_is_noted_on_both_sides(way: Way) {
    // A reset ends both directions at once.
    for (segment, state, other) in [
        (Segment::Fin, tcp_state::FIN, tcp_state::PEER_CLOSED),
        (
            Segment::Rst,
            tcp_state::RST,
            tcp_state::PEER_CLOSED | tcp_state::RST,
        ),
    ] {
        let rig = Rig::serving(way, backend_kind::HOST);
        rig.run(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
        rig.run(Hook::Xdp, &way.segment(way.client(1), way.vip(1), segment));
        let states = |rig: &Rig| {
            rig.flows(way)
                .iter()
                .map(|half| half.tcp)
                .collect::<Vec<_>>()
        };
        assert_eq!(states(&rig), [state, other]);
        rig.run(
            Hook::Egress,
            &way.segment(way.host(), way.client(1), Segment::Fin),
        );
        assert_eq!(
            states(&rig),
            [state | tcp_state::PEER_CLOSED, other | tcp_state::FIN,]
        );
    }
}

fn a_closing_connection_goes_on_until_its_last_segment(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    rig.run(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    rig.run(
        Hook::Xdp,
        &way.segment(way.client(1), way.vip(1), Segment::Fin),
    );
    let reply = way.later(way.host(), way.client(1));
    rig.expect(Hook::Egress, &reply, TC_OK, &reply.clone().from(way.vip(1)));
    let frame = way.later(way.client(1), way.vip(1));
    rig.expect(Hook::Xdp, &frame, XDP_PASS, &frame.clone().to(way.host()));
}

fn a_syn_on_a_closed_connection_chooses_afresh(way: Way) {
    let ends: [(Hook, bool, Segment); 4] = [
        (Hook::Xdp, true, Segment::Fin),
        (Hook::Xdp, true, Segment::Rst),
        (Hook::Egress, false, Segment::Fin),
        (Hook::Egress, false, Segment::Rst),
    ];
    for (hook, by_client, segment) in ends {
        let mut rig = Rig::serving(way, backend_kind::HOST);
        let syn = way.opening(way.client(1), way.vip(1));
        rig.run(Hook::Xdp, &syn);
        rig.backend(2, backend(way, way.backend(2), backend_kind::HOST));
        rig.table(SERVICE, &repeated(&[2], SLOTS_SMALL));
        rig.expect(Hook::Xdp, &syn, XDP_PASS, &syn.clone().to(way.host()));
        rig.run(
            hook,
            &if by_client {
                way.segment(way.client(1), way.vip(1), segment)
            } else {
                way.segment(way.host(), way.client(1), segment)
            },
        );
        rig.expect(Hook::Xdp, &syn, XDP_PASS, &syn.clone().to(way.backend(2)));
        let flows = rig.flows(way);
        assert_eq!(flows.len(), 2, "the old pair is gone");
        assert!(flows.iter().all(|half| half.backend == 2 && half.tcp == 0));
    }
}

fn a_syn_ack_does_not_open_a_closed_connection_anew(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    rig.run(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    rig.run(
        Hook::Xdp,
        &way.segment(way.client(1), way.vip(1), Segment::Fin),
    );
    let before = rig.flows(way);
    let reply = way.segment(way.host(), way.client(1), Segment::SynAck);
    rig.expect(Hook::Egress, &reply, TC_OK, &reply.clone().from(way.vip(1)));
    assert_eq!(rig.flows(way), before);
}

fn the_acknowledgement_moves_a_half_open_connection(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    rig.run(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    rig.run(
        Hook::Egress,
        &way.segment(way.host(), way.client(1), Segment::SynAck),
    );
    rig.run(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    let both = rig.half_open(way);
    assert_eq!((both.len(), rig.established(way).len()), (2, 0));
    rig.run(Hook::Xdp, &way.later(way.client(1), way.vip(1)));
    assert_eq!((rig.half_open(way).len(), rig.established(way)), (0, both));
}

fn an_acknowledgement_of_nothing_moves_no_connection(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    rig.run(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    for _ in 0..3 {
        let frame = way.later(way.client(1), way.vip(1));
        rig.expect(Hook::Xdp, &frame, XDP_PASS, &frame.clone().to(way.host()));
    }
    assert_eq!(
        (rig.half_open(way).len(), rig.established(way).len()),
        (2, 0)
    );
}

fn a_flow_whose_tuple_was_given_away_ends_with_its_next_segment(way: Way) {
    let mut rig = two_vips(way);
    rig.accepted(way, way.client(1), way.vip(1));
    rig.age_flow(way, way.host(), way.client(1), 61 * SECOND);
    rig.age_flow(way, way.client(1), way.vip(1), 61 * SECOND);
    rig.accepted(way, way.client(1), way.vip(2));
    assert_eq!(rig.flows(way).len(), 3);
    let stolen = rig.flow(way, way.host(), way.client(1)).unwrap();
    // Its first segment says that it has no answers any more; the second is reset by the stack.
    let old = way.later(way.client(1), way.vip(1));
    rig.run(Hook::Xdp, &old);
    rig.expect_untouched(Hook::Xdp, &old);
    assert_eq!(rig.counter(Reason::BackendGone), 1);
    assert_eq!(rig.flow(way, way.client(1), way.vip(1)), None);
    let now = rig.flow(way, way.host(), way.client(1));
    assert_eq!(now, Some(stolen), "the other flow is as it was");
    assert_eq!(rig.load(1), 1, "one of the two is over");
}

fn a_half_open_flow_whose_tuple_was_given_away_does_not_take_it_back(way: Way) {
    let mut rig = two_vips(way);
    rig.run(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    rig.run(
        Hook::Egress,
        &way.segment(way.host(), way.client(1), Segment::SynAck),
    );
    rig.age_flow(way, way.host(), way.client(1), 61 * SECOND);
    rig.accepted(way, way.client(1), way.vip(2));
    let other = rig.flow(way, way.host(), way.client(1)).unwrap();
    rig.expect_dropped(Hook::Xdp, &way.later(way.client(1), way.vip(1)));
    assert_eq!(rig.counter(Reason::FlowCollision), 1);
    assert_eq!(rig.flow(way, way.client(1), way.vip(1)), None);
    assert_eq!(rig.flow(way, way.host(), way.client(1)), Some(other));
}

fn a_half_that_was_evicted_before_the_acknowledgement_comes_back(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::HOST);
    rig.run(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    rig.run(
        Hook::Egress,
        &way.segment(way.host(), way.client(1), Segment::SynAck),
    );
    let both = rig.flows(way);
    rig.evict(way, way.host(), way.client(1));
    rig.run(Hook::Xdp, &way.later(way.client(1), way.vip(1)));
    assert_eq!(rig.established(way), both);
}

fn a_flow_that_is_pushed_out_by_its_other_half_is_dropped_and_counted(way: Way) {
    // The table holds one entry: the half that comes back takes the place of the one that brought it back.
    let sizes = Sizes {
        half: 1,
        ..Sizes::default()
    };
    let rig = Rig::sized(sizes).with_service(way, backend_kind::HOST);
    let frame = way.opening(way.client(1), way.vip(1));
    for dropped in 1..=3 {
        rig.expect(Hook::Xdp, &frame, XDP_PASS, &frame.clone().to(way.host()));
        rig.expect_dropped(Hook::Xdp, &frame);
        assert_eq!(rig.counters(), [(Reason::FlowTableFull, dropped)]);
    }
}

fn a_cpu_opens_no_more_flows_than_the_guard_lets_it(way: Way) {
    let rig = Rig::guarded(8).with_service(way, backend_kind::HOST);
    let kept = way.opening(way.client(1), way.vip(1));
    rig.run(Hook::Xdp, &kept);
    for port in 1_000..1_200 {
        let client = SocketAddr::new(way.client(2).ip(), port);
        rig.run(Hook::Xdp, &way.opening(client, way.vip(1)));
    }
    let dropped = rig.counter(Reason::NewFlowGuard);
    // A burst of an eighth of a second on each CPU, and what the test's own time adds.
    assert!((100..200).contains(&dropped), "{dropped}");
    assert_eq!(rig.flows(way).len() as u64, 2 * (201 - dropped));
    rig.expect(Hook::Xdp, &kept, XDP_PASS, &kept.clone().to(way.host()));
}

fn a_flood_of_syns_evicts_no_established_flow(way: Way) {
    outlives_a_flood(way, way);
}

fn a_flood_of_datagrams_evicts_no_established_flow(way: Way) {
    outlives_a_flood(way, Way { tcp: false, ..way });
}

/// Twice as many first packets as the table that they go to holds, and no guard.
fn outlives_a_flood(way: Way, flood: Way) {
    const ESTABLISHED: u16 = 500;
    let mut rig = Rig::guarded(0).with_service(way, backend_kind::HOST);
    if flood != way {
        rig.backend(2, backend(flood, flood.host(), backend_kind::HOST));
        rig.service(flood, flood.vip(1), 8, 0, &repeated(&[2], SLOTS_SMALL));
    }
    let of = |n: u8, port: u16| SocketAddr::new(way.client(n).ip(), port);
    let kept: Vec<_> = (0..ESTABLISHED).map(|n| of(1, 20_000 + n)).collect();
    for &client in &kept {
        rig.accepted(way, client, way.vip(1));
    }
    for port in 0..2 * 16_384_u16 {
        rig.run(Hook::Xdp, &flood.opening(of(2, 1_024 + port), way.vip(1)));
    }
    assert!(rig.flows(flood).len() > 16_384 / 2, "it was a flood");
    assert_eq!(rig.established(way).len(), 2 * usize::from(ESTABLISHED));
    for &client in &kept {
        let frame = way.later(client, way.vip(1));
        rig.expect(Hook::Xdp, &frame, XDP_PASS, &frame.clone().to(way.host()));
    }
}

fn a_closed_flow_gives_way_to_another(way: Way) {
    for segment in [Segment::Fin, Segment::Rst] {
        let rig = two_vips(way);
        rig.run(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
        rig.run(Hook::Xdp, &way.segment(way.client(1), way.vip(1), segment));
        let frame = way.opening(way.client(1), way.vip(2));
        rig.expect(Hook::Xdp, &frame, XDP_PASS, &frame.clone().to(way.host()));
        let reply = way.segment(way.host(), way.client(1), Segment::SynAck);
        rig.expect(Hook::Egress, &reply, TC_OK, &reply.clone().from(way.vip(2)));
    }
}

fn a_flow_that_gave_way_does_not_harm_the_one_it_gave_way_to(way: Way) {
    let rig = two_vips(way);
    rig.run(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    rig.run(
        Hook::Xdp,
        &way.segment(way.client(1), way.vip(1), Segment::Fin),
    );
    rig.run(Hook::Xdp, &way.opening(way.client(1), way.vip(2)));
    let alive = rig.flow(way, way.host(), way.client(1)).unwrap();
    assert_eq!(alive.leaves.0, way.vip(2));
    // A late end of the old connection, then a new one in its place.
    rig.run(
        Hook::Xdp,
        &way.segment(way.client(1), way.vip(1), Segment::Rst),
    );
    assert_eq!(rig.flow(way, way.host(), way.client(1)), Some(alive));
    rig.expect_dropped(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    assert_eq!(rig.counters(), [(Reason::FlowCollision, 1)]);
    assert_eq!(rig.flow(way, way.host(), way.client(1)), Some(alive));
    let reply = way.later(way.host(), way.client(1));
    rig.expect(Hook::Egress, &reply, TC_OK, &reply.clone().from(way.vip(2)));
}

fn a_new_connection_under_full_nat_is_given_a_new_port_after_a_reset(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::NET);
    rig.node(way, 30_000, 1);
    let syn = way.opening(way.client(1), way.vip(1));
    rig.expect_untouched(Hook::Xdp, &syn);
    rig.run(
        Hook::Ingress,
        &way.segment(way.client(1), way.vip(1), Segment::Rst),
    );
    // The only port is free again, because the closed flow went with its claim.
    rig.expect_untouched(Hook::Xdp, &syn);
    assert_eq!(rig.counter(Reason::NoSnatPort), 0);
    assert_eq!(rig.flows(way).len(), 2);
}
