//! From a peer: connections and datagrams from their beginning to their end.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;

use lb_common::{Reason, SLOTS_SMALL, backend_kind};
use lb_tests::{
    each_tcp_way, each_udp_way,
    packet::{receiving::*, *},
};

const HOOKS: [Hook; 3] = [Hook::Xdp, Hook::XdpGeneral, Hook::Ingress];

each_tcp_way!(
    a_connection_whose_backend_is_gone_is_reset,
    segments_are_made_to_fit_where_a_peer_wraps_them,
    a_handshake_is_half_open_until_the_clients_ack,
    a_segment_without_a_flow_opens_one_and_a_reset_does_not,
    a_new_connection_may_have_another_backend
);

fn a_connection_whose_backend_is_gone_is_reset(way: Way) {
    for hook in HOOKS {
        let mut rig = receiving(way, backend_kind::HOST);
        let frame = way.later(way.client(1), way.vip(1));
        for frame in [&way.opening(way.client(1), way.vip(1)), &frame] {
            rig.run_bytes(hook, &shim(way).around(&frame.bytes()));
        }
        rig.backend(1, lb_agent::plan::Op::freed(1));
        let out = rig.run_bytes(hook, &shim(way).around(&frame.bytes()));
        out.must_be(hook.pass(), &frame);
        assert_eq!(rig.counters(), [(Reason::BackendGone, 1)]);
        assert_eq!(rig.flows(way), []);
    }
}

fn segments_are_made_to_fit_where_a_peer_wraps_them(way: Way) {
    let fits = 1_400 - if way.v6 { 80 + 60 } else { 48 + 40 };
    for padding in 0..4 {
        let mut rig = receiving(way, backend_kind::HOST);
        rig.peer_mtu(1_400);
        let open = way.opening(way.client(1), way.vip(1));
        rig.run_bytes(Hook::Xdp, &shim(way).around(&open.bytes()));
        let reply = way.segment(way.host(), way.client(1), Segment::SynAck);
        let sent = reply.clone().from(way.vip(1));
        for (says, leaves) in [(1_460, fits), (fits + 1, fits), (fits, fits), (536, 536)] {
            let out = rig.run_bytes(Hook::Egress, &reply.with_mss(says, padding));
            out.must_be_bytes(TC_OK, &sent.with_mss(leaves, padding));
        }
        rig.run_summed_bytes(Hook::Egress, &reply.with_mss(1_460, padding))
            .unwrap();
        // Other segments and other flows stay as they are.
        let data = way.later(way.host(), way.client(1));
        let wanted = data.clone().from(way.vip(1));
        rig.expect(Hook::Egress, &data, TC_OK, &wanted);
        rig.table(SERVICE, &repeated(&[1], SLOTS_SMALL));
        let own = way.opening(way.client(2), way.vip(1));
        rig.run(Hook::Xdp, &own);
        let reply = way.segment(way.host(), way.client(2), Segment::SynAck);
        let out = rig.run_bytes(Hook::Egress, &reply.with_mss(1_460, padding));
        out.must_be_bytes(
            TC_OK,
            &reply.clone().from(way.vip(1)).with_mss(1_460, padding),
        );
    }
}

fn a_handshake_is_half_open_until_the_clients_ack(way: Way) {
    let mut rig = receiving(way, backend_kind::HOST);
    let open = way.opening(way.client(1), way.vip(1));
    for _ in 0..2 {
        rig.run_bytes(Hook::Xdp, &shim(way).around(&open.bytes()));
        assert_eq!(
            (rig.half_open(way).len(), rig.established(way).len()),
            (2, 0)
        );
        // A SYN is sent again after 1 s.
        rig.age_flow(way, way.client(1), way.vip(1), 1_000_000_000);
    }
    assert_eq!(rig.connections(1).syn_retransmits, 1);
    rig.run(
        Hook::Egress,
        &way.segment(way.host(), way.client(1), Segment::SynAck),
    );
    let frame = way.later(way.client(1), way.vip(1));
    rig.run_bytes(Hook::Xdp, &shim(way).around(&frame.bytes()));
    assert_eq!(
        (rig.half_open(way).len(), rig.established(way).len()),
        (0, 2)
    );
}

fn a_segment_without_a_flow_opens_one_and_a_reset_does_not(way: Way) {
    for hook in HOOKS {
        let rig = receiving(way, backend_kind::HOST);
        let reset = way.segment(way.client(2), way.vip(1), Segment::Rst);
        let out = rig.run_bytes(hook, &shim(way).around(&reset.bytes()));
        out.must_be(hook.pass(), &reset);
        assert_eq!(rig.counters(), [(Reason::NoFlow, 1)]);
        let frame = way.later(way.client(1), way.vip(1));
        for _ in 0..2 {
            let out = rig.run_bytes(hook, &shim(way).around(&frame.bytes()));
            out.must_be(hook.pass(), &frame.clone().to(way.host()));
        }
    }
}

fn a_new_connection_may_have_another_backend(way: Way) {
    for hook in HOOKS {
        let mut rig = receiving(way, backend_kind::HOST);
        let other = SocketAddr::new(way.host().ip(), 9_090);
        rig.backend(3, backend(way, other, backend_kind::HOST));
        rig.local(SERVICE, other, 3);
        let shim_to = |backend| Shim {
            backend,
            ..shim(way)
        };
        let send = |frame: &Frame, backend| {
            let bytes = shim_to(backend).around(&frame.bytes());
            rig.run_bytes(hook, &bytes)
        };
        let (open, later) = (
            way.opening(way.client(1), way.vip(1)),
            way.later(way.client(1), way.vip(1)),
        );
        send(&open, way.host());
        send(&later, way.host());
        // In the midst of a connection it stays where it is.
        send(&later, other).must_be(hook.pass(), &later.clone().to(way.host()));
        send(&open, other).must_be(hook.pass(), &open.clone().to(other));
        send(&later, other).must_be(hook.pass(), &later.clone().to(other));
        assert_eq!(rig.flows(way).len(), 2);
    }
}

each_udp_way!(
    a_datagram_goes_wherever_the_peer_says,
    the_shortest_datagram_arrives
);

fn the_shortest_datagram_arrives(way: Way) {
    for hook in HOOKS {
        let rig = receiving(way, backend_kind::HOST);
        for payload in [0, 1, 11, 12] {
            let mut frame = way.later(way.client(1), way.vip(1));
            frame.payload = vec![7; payload];
            let out = rig.run_bytes(hook, &shim(way).around(&frame.bytes()));
            out.must_be(hook.pass(), &frame.clone().to(way.host()));
        }
        assert_eq!(rig.counters(), []);
    }
}

fn a_datagram_goes_wherever_the_peer_says(way: Way) {
    for hook in HOOKS {
        let mut rig = receiving(way, backend_kind::HOST);
        let other = SocketAddr::new(way.host().ip(), 9_090);
        rig.backend(3, backend(way, other, backend_kind::HOST));
        rig.local(SERVICE, other, 3);
        let frame = way.later(way.client(1), way.vip(1));
        for backend in [way.host(), way.host(), other, other, way.host()] {
            let shim = Shim {
                backend,
                ..shim(way)
            };
            let out = rig.run_bytes(hook, &shim.around(&frame.bytes()));
            out.must_be(hook.pass(), &frame.clone().to(backend));
        }
        assert_eq!(rig.flows(way).len(), 2);
    }
}
