//! Which backend a flow is given, and when it keeps it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::{IpAddr, SocketAddr};

use lb_common::{
    Addr4, Addr6, Backend, Be16, Reason, SLOTS_LARGE, SLOTS_MEDIUM, SLOTS_SMALL, backend_kind,
    backend_state, flow_hash, next_hash, scale, service_flag,
};
use lb_tests::{each_tcp_way, each_udp_way, each_way, packet::*};

/// A rig with `n` backends on the node's ports 8001 and up, and this table.
fn many(way: Way, n: u32, table: &[u32]) -> Rig {
    let mut rig = Rig::serving(way, backend_kind::HOST);
    for id in 1..=n {
        rig.backend(id, host(way, id));
    }
    rig.service(way, way.vip(1), SERVICE, 0, table);
    rig
}

fn host(way: Way, id: u32) -> Backend {
    backend(
        way,
        SocketAddr::new(way.node(), 8_000 + id as u16),
        backend_kind::HOST,
    )
}

fn client(way: Way, port: u16) -> SocketAddr {
    SocketAddr::new(way.client(1).ip(), port)
}

/// The id by which a client's packet was translated, 0 if it was not.
fn chosen(rig: &Rig, way: Way, client: SocketAddr) -> u32 {
    rig.run(Hook::Xdp, &way.opening(client, way.vip(1)));
    rig.flow(way, client, way.vip(1))
        .map_or(0, |flow| flow.backend)
}

fn hash(way: Way, client: SocketAddr) -> u32 {
    let (sport, dport) = (Be16::new(client.port()), Be16::new(way.vip(1).port()));
    match client.ip() {
        IpAddr::V4(ip) => flow_hash(&Addr4::from(ip), sport, dport, way.proto()),
        IpAddr::V6(ip) => flow_hash(&Addr6::from(ip), sport, dport, way.proto()),
    }
}

/// A table in no order at all.
fn shuffled(ids: u32, slots: usize) -> Vec<u32> {
    let mut state = 1;
    (0..slots)
        .map(|_| {
            state = next_hash(state);
            1 + scale(state, ids)
        })
        .collect()
}

each_way!(
    the_backend_is_that_of_the_flow_hashs_slot_in_every_size_of_table,
    a_slot_whose_backend_takes_no_new_flows_is_walked_past_as_on_every_node,
    a_share_of_the_table_is_a_share_of_the_flows,
    a_client_finds_the_same_backend_by_every_vip_of_the_service,
    a_flow_keeps_its_backend_when_the_table_changes,
    a_flow_that_was_silent_for_the_services_idle_time_chooses_afresh,
    a_draining_backend_keeps_its_flows_and_takes_no_new_ones,
    a_service_that_fails_open_uses_backends_that_are_down_but_never_one_that_drains,
    an_id_given_to_another_backend_is_not_the_flows_backend_any_more
);

fn the_backend_is_that_of_the_flow_hashs_slot_in_every_size_of_table(way: Way) {
    for slots in [SLOTS_SMALL, SLOTS_MEDIUM, SLOTS_LARGE] {
        let table = shuffled(40, slots);
        let rig = many(way, 40, &table);
        for port in 1_000..1_100 {
            let client = client(way, port);
            let slot = scale(hash(way, client), slots as u32) as usize;
            assert_eq!(
                chosen(&rig, way, client),
                table[slot],
                "of {slots} slots, {client}"
            );
        }
    }
}

fn a_slot_whose_backend_takes_no_new_flows_is_walked_past_as_on_every_node(way: Way) {
    let table = shuffled(10, SLOTS_SMALL);
    let mut rig = many(way, 10, &table);
    let idle = [
        backend_state::DRAINING,
        backend_state::DOWN,
        backend_state::FREE,
    ];
    for id in 1..=7 {
        rig.backend(
            id,
            Backend {
                state: idle[id as usize % 3],
                ..host(way, id)
            },
        );
    }
    for port in 1_000..1_200 {
        let client = client(way, port);
        let mut hash = hash(way, client);
        let wanted = loop {
            let id = table[scale(hash, SLOTS_SMALL as u32) as usize];
            if id > 7 {
                break id;
            }
            hash = next_hash(hash);
        };
        assert_eq!(chosen(&rig, way, client), wanted, "{client}");
    }
}

fn a_share_of_the_table_is_a_share_of_the_flows(way: Way) {
    let rig = many(way, 2, &repeated(&[1, 1, 1, 2], SLOTS_SMALL));
    for port in 10_000..14_000 {
        rig.run(Hook::Xdp, &way.opening(client(way, port), way.vip(1)));
    }
    let [first, second] = [1, 2].map(|id| rig.stats(id)[0]);
    assert_eq!(first + second, 4_000);
    // Four standard deviations of a binomial of 4,000 at 1/4 are 110.
    assert!(second.abs_diff(1_000) < 110, "{first} to {second}");
}

fn a_client_finds_the_same_backend_by_every_vip_of_the_service(way: Way) {
    let table = shuffled(40, SLOTS_SMALL);
    let mut rig = many(way, 40, &table);
    rig.service(way, way.vip(2), 8, 0, &table);
    for n in 1..=20 {
        // Of two clients, or the two flows would be alike on the backend's side.
        let wanted = chosen(&rig, way, way.client(n));
        rig.evict(
            way,
            rig.flow(way, way.client(n), way.vip(1)).unwrap().leaves.1,
            way.client(n),
        );
        rig.run(Hook::Xdp, &way.opening(way.client(n), way.vip(2)));
        assert_eq!(
            rig.flow(way, way.client(n), way.vip(2)).unwrap().backend,
            wanted
        );
    }
}

fn a_flow_keeps_its_backend_when_the_table_changes(way: Way) {
    let mut rig = many(way, 2, &repeated(&[1], SLOTS_SMALL));
    rig.run(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    rig.table(SERVICE, &repeated(&[2], SLOTS_SMALL));
    for frame in [
        way.later(way.client(1), way.vip(1)),
        way.opening(way.client(1), way.vip(1)),
    ] {
        let wanted = frame.clone().to(SocketAddr::new(way.node(), 8_001));
        rig.expect(Hook::Xdp, &frame, XDP_PASS, &wanted);
        rig.expect(Hook::Ingress, &frame, TC_OK, &wanted);
    }
    assert_eq!(chosen(&rig, way, way.client(2)), 2);
}

/// A service whose idle times, seconds, are these.
fn idling(way: Way, idle: u32, two_way: u32) -> Rig {
    let mut rig = many(way, 2, &repeated(&[1], SLOTS_SMALL));
    rig.shape(way, SLOTS_SMALL, |service| {
        service.idle_tcp = idle;
        service.idle_udp = idle;
        service.idle_udp_two_way = two_way;
    });
    rig
}

/// The backend of a first packet that comes so many seconds after the flow's last one, when all new flows go to
/// backend 2.
fn chosen_after(rig: &mut Rig, way: Way, seconds: u64) -> u32 {
    rig.table(SERVICE, &repeated(&[2], SLOTS_SMALL));
    rig.age_flow(way, way.client(1), way.vip(1), seconds * 1_000_000_000);
    chosen(rig, way, way.client(1))
}

fn a_flow_that_was_silent_for_the_services_idle_time_chooses_afresh(way: Way) {
    let mut rig = idling(way, 20, 20);
    let at = SocketAddr::new(way.node(), 8_001);
    rig.run(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    rig.run(
        Hook::Egress,
        &way.segment(at, way.client(1), Segment::SynAck),
    );
    rig.run(Hook::Xdp, &way.later(way.client(1), way.vip(1)));
    assert_eq!(chosen_after(&mut rig, way, 19), 1);
    assert_eq!(chosen_after(&mut rig, way, 21), 2);
    assert_eq!(rig.counters(), []);
}

fn a_draining_backend_keeps_its_flows_and_takes_no_new_ones(way: Way) {
    let mut rig = many(way, 2, &repeated(&[1, 1, 1, 1, 1, 1, 2], SLOTS_SMALL));
    let old: Vec<SocketAddr> = (1_000..1_020)
        .map(|port| client(way, port))
        .filter(|&client| chosen(&rig, way, client) == 1)
        .collect();
    assert!(old.len() > 5);
    rig.backend(
        1,
        Backend {
            state: backend_state::DRAINING,
            ..host(way, 1)
        },
    );
    for client in old {
        let frame = way.later(client, way.vip(1));
        rig.expect(
            Hook::Xdp,
            &frame,
            XDP_PASS,
            &frame.clone().to(SocketAddr::new(way.node(), 8_001)),
        );
    }
    for port in 2_000..2_020 {
        assert_eq!(chosen(&rig, way, client(way, port)), 2);
    }
    assert_eq!(rig.counters(), []);
}

fn a_service_that_fails_open_uses_backends_that_are_down_but_never_one_that_drains(way: Way) {
    let mut rig = many(way, 2, &repeated(&[1, 2], SLOTS_SMALL));
    let first = chosen(&rig, way, way.client(1));
    for (id, state) in [(1, backend_state::DOWN), (2, backend_state::DOWN)] {
        rig.backend(
            id,
            Backend {
                state,
                ..host(way, id)
            },
        );
    }
    rig.service(
        way,
        way.vip(1),
        SERVICE,
        service_flag::FAIL_OPEN,
        &repeated(&[1, 2], SLOTS_SMALL),
    );
    let frame = way.later(way.client(1), way.vip(1));
    let at = SocketAddr::new(way.node(), 8_000 + first as u16);
    rig.expect(Hook::Xdp, &frame, XDP_PASS, &frame.clone().to(at));
    rig.backend(
        1,
        Backend {
            state: backend_state::DRAINING,
            ..host(way, 1)
        },
    );
    for n in 2..20 {
        assert_eq!(chosen(&rig, way, way.client(n)), 2);
    }
    assert_eq!(rig.counters(), []);
    // When the service no longer fails open, down is down.
    rig.service(way, way.vip(1), SERVICE, 0, &repeated(&[1, 2], SLOTS_SMALL));
    rig.expect_untouched(Hook::Xdp, &way.opening(way.client(2), way.vip(1)));
    assert_eq!(
        rig.counters(),
        [(Reason::NoBackend, 1), (Reason::BackendGone, 1)]
    );
}

fn an_id_given_to_another_backend_is_not_the_flows_backend_any_more(way: Way) {
    let mut rig = many(way, 2, &repeated(&[1], SLOTS_SMALL));
    rig.run(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    rig.backend(
        1,
        Backend {
            generation: 2,
            port: Be16::new(9_999),
            ..host(way, 1)
        },
    );
    let frame = way.opening(way.client(1), way.vip(1));
    rig.expect(
        Hook::Xdp,
        &frame,
        XDP_PASS,
        &frame.clone().to(SocketAddr::new(way.node(), 9_999)),
    );
    assert_eq!(rig.counters(), [(Reason::BackendGone, 1)]);
    let flow = rig.flow(way, way.client(1), way.vip(1)).unwrap();
    assert_eq!((flow.backend, flow.generation), (1, 2));
    assert_eq!(rig.flows(way).len(), 2, "the old pair is gone");
}

each_tcp_way!(
    a_segment_to_a_backend_that_is_gone_is_left_to_the_stack_and_its_flow_forgotten,
    a_syn_to_a_backend_that_is_down_is_given_another_at_once
);

fn a_segment_to_a_backend_that_is_gone_is_left_to_the_stack_and_its_flow_forgotten(way: Way) {
    for hook in [Hook::Xdp, Hook::Ingress] {
        for gone in [
            Backend {
                state: backend_state::DOWN,
                ..host(way, 1)
            },
            Backend {
                state: backend_state::FREE,
                ..host(way, 1)
            },
            Backend {
                generation: 2,
                ..host(way, 1)
            },
            Backend::default(),
        ] {
            let mut rig = many(way, 2, &repeated(&[1], SLOTS_SMALL));
            rig.run(hook, &way.opening(way.client(1), way.vip(1)));
            rig.table(SERVICE, &repeated(&[2], SLOTS_SMALL));
            rig.backend(1, gone);
            rig.expect_untouched(hook, &way.later(way.client(1), way.vip(1)));
            assert_eq!(rig.counters(), [(Reason::BackendGone, 1)]);
            assert_eq!(rig.flows(way), []);
        }
    }
}

fn a_syn_to_a_backend_that_is_down_is_given_another_at_once(way: Way) {
    let mut rig = many(way, 2, &repeated(&[1], SLOTS_SMALL));
    rig.run(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    rig.table(SERVICE, &repeated(&[2], SLOTS_SMALL));
    rig.backend(
        1,
        Backend {
            state: backend_state::DOWN,
            ..host(way, 1)
        },
    );
    let frame = way.opening(way.client(1), way.vip(1));
    rig.expect(
        Hook::Xdp,
        &frame,
        XDP_PASS,
        &frame.clone().to(SocketAddr::new(way.node(), 8_002)),
    );
    assert_eq!(rig.flows(way).len(), 2);
}

each_udp_way!(
    a_datagram_to_a_backend_that_is_gone_is_given_another_at_once,
    a_flow_that_was_answered_is_kept_for_the_idle_time_of_those
);

fn a_datagram_to_a_backend_that_is_gone_is_given_another_at_once(way: Way) {
    for hook in [Hook::Xdp, Hook::Ingress] {
        for gone in [
            Backend {
                state: backend_state::DOWN,
                ..host(way, 1)
            },
            Backend {
                state: backend_state::FREE,
                ..host(way, 1)
            },
            Backend {
                generation: 2,
                ..host(way, 1)
            },
            Backend::default(),
        ] {
            let mut rig = many(way, 2, &repeated(&[1], SLOTS_SMALL));
            rig.run(hook, &way.opening(way.client(1), way.vip(1)));
            rig.table(SERVICE, &repeated(&[2], SLOTS_SMALL));
            rig.backend(1, gone);
            let frame = way.later(way.client(1), way.vip(1));
            rig.expect(
                hook,
                &frame,
                hook.pass(),
                &frame.clone().to(SocketAddr::new(way.node(), 8_002)),
            );
            assert_eq!(rig.counters(), [(Reason::BackendGone, 1)]);
            assert_eq!(rig.flows(way).len(), 2);
        }
    }
}

fn a_flow_that_was_answered_is_kept_for_the_idle_time_of_those(way: Way) {
    let mut rig = idling(way, 20, 40);
    let at = SocketAddr::new(way.node(), 8_001);
    rig.run(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    let reply = way.later(at, way.client(1));
    rig.expect(Hook::Egress, &reply, TC_OK, &reply.clone().from(way.vip(1)));
    assert_eq!(chosen_after(&mut rig, way, 39), 1);
    assert_eq!(chosen_after(&mut rig, way, 41), 2);
}
