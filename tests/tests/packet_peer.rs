//! From a peer: what is inside goes to the backend that the peer chose, if that is on this node, and the answer goes to
//! the client directly.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;

use lb_common::{Reason, SLOTS_SMALL, addr_flag, backend_kind, backend_state};
use lb_tests::{
    each_way,
    packet::{receiving::*, *},
};

const ETH_LEN: usize = 14;
/// Counts each reason's packets.
fn drops(rig: &Rig, reason: Reason) -> u64 {
    rig.counter(reason)
}

const HOOKS: [Hook; 3] = [Hook::Xdp, Hook::XdpGeneral, Hook::Ingress];

each_way!(
    what_is_inside_goes_to_the_socket_that_the_peer_chose_and_the_answer_to_the_client,
    what_has_options_is_delivered_as_well,
    later_packets_stay_with_their_backend_and_go_the_short_way,
    only_peers_may_send,
    another_network_or_option_is_left_alone,
    a_node_without_peers_leaves_all_alone,
    what_no_agent_makes_is_dropped_as_it_came,
    a_backend_that_is_not_here_or_not_of_the_service_is_dropped_as_it_came,
    what_a_peer_sends_never_leaves_the_node,
    a_node_whose_address_shares_a_slot_with_a_vip_receives_as_well,
    what_is_only_passing_by_is_left_alone,
    a_container_gets_it_from_the_tc_program,
    tags_are_left_to_the_tc_program,
    a_mark_of_congestion_is_brought_in,
    an_error_about_a_reply_is_delivered,
    fragments_are_delivered,
    a_backend_that_is_down_is_refused
);

fn what_is_inside_goes_to_the_socket_that_the_peer_chose_and_the_answer_to_the_client(way: Way) {
    for hook in HOOKS {
        let rig = receiving(way, backend_kind::HOST);
        let frame = way.opening(way.client(1), way.vip(1));
        let out = rig.run_bytes(hook, &shim(way).around(&frame.bytes()));
        out.must_be(hook.pass(), &frame.clone().to(way.host()));
        let reply = way.segment(way.host(), way.client(1), Segment::SynAck);
        let wanted = reply.clone().from(way.vip(1));
        rig.expect(Hook::Egress, &reply, TC_OK, &wanted);
        let frame = way.later(way.client(1), way.vip(1));
        let out = rig.run_bytes(hook, &shim(way).around(&frame.bytes()));
        out.must_be(hook.pass(), &frame.clone().to(way.host()));
        let flows = rig.established(way);
        assert_eq!(flows.len(), 2);
        assert!(flows.iter().all(|flow| flow.backend == 1));
        assert_eq!(rig.counters(), []);
        assert_eq!(rig.service_stats(SERVICE).0, 1);
    }
}

fn what_has_options_is_delivered_as_well(way: Way) {
    for hook in HOOKS {
        let rig = receiving(way, backend_kind::HOST);
        for frame in [
            way.opening(way.client(1), way.vip(1)),
            way.later(way.client(1), way.vip(1)),
        ] {
            let frame = frame.with_options();
            let out = rig.run_bytes(hook, &shim(way).around(&frame.bytes()));
            out.must_be(hook.pass(), &frame.clone().to(way.host()));
        }
        assert_eq!(rig.counters(), []);
    }
}

fn later_packets_stay_with_their_backend_and_go_the_short_way(way: Way) {
    let mut rig = receiving(way, backend_kind::HOST);
    let open = way.opening(way.client(1), way.vip(1));
    rig.run_bytes(Hook::Xdp, &shim(way).around(&open.bytes()));
    rig.run(
        Hook::Egress,
        &way.segment(way.host(), way.client(1), Segment::SynAck),
    );
    let frame = way.later(way.client(1), way.vip(1));
    let frame = Frame {
        payload: vec![7; 64],
        ..frame
    };
    for _ in 0..3 {
        let out = rig.run_bytes(Hook::Xdp, &shim(way).around(&frame.bytes()));
        out.must_be(XDP_PASS, &frame.clone().to(way.host()));
    }
    // Nothing is asked of what only the long way knows.
    let mut draining = backend(way, way.host(), backend_kind::HOST);
    draining.state = backend_state::DRAINING;
    rig.backend(1, draining);
    rig.address(way.node(), 0);
    rig.slot(way.node(), addr_flag::NODE);
    let out = rig.run_bytes(Hook::Xdp, &shim(way).around(&frame.bytes()));
    out.must_be(XDP_PASS, &frame.clone().to(way.host()));
    let general = shim(way).around(&frame.bytes());
    let out = rig.run_bytes(Hook::XdpGeneral, &general);
    out.must_be_bytes(XDP_PASS, &general);
    assert_eq!(rig.counters(), []);
}

fn only_peers_may_send(way: Way) {
    for hook in HOOKS {
        let rig = receiving(way, backend_kind::HOST);
        let frame = way.opening(way.client(1), way.vip(1)).bytes();
        rig.run_bytes(hook, &shim(way).around(&frame));
        let stranger = Shim {
            src: way.stranger().ip(),
            ..shim(way)
        };
        for frame in [frame, way.later(way.client(1), way.vip(1)).bytes()] {
            let bytes = stranger.around(&frame);
            let out = rig.run_bytes(hook, &bytes);
            out.must_be_bytes(hook.drop(), &bytes);
        }
        assert_eq!(rig.counters(), [(Reason::PeerUnknown, 2)]);
        // A peer that is none any more is refused for the flows that it has, too.
        let mut rig = receiving(way, backend_kind::HOST);
        for frame in [
            way.opening(way.client(1), way.vip(1)),
            way.later(way.client(1), way.vip(1)),
        ] {
            rig.run_bytes(hook, &shim(way).around(&frame.bytes()));
        }
        rig.no_sender(sender(way), SENDER);
        let bytes = shim(way).around(&way.later(way.client(1), way.vip(1)).bytes());
        let out = rig.run_bytes(hook, &bytes);
        out.must_be_bytes(hook.drop(), &bytes);
        assert_eq!(drops(&rig, Reason::PeerUnknown), 1);
    }
}

fn another_network_or_option_is_left_alone(way: Way) {
    for hook in HOOKS {
        let rig = receiving(way, backend_kind::HOST);
        let frame = way.opening(way.client(1), way.vip(1)).bytes();
        for foreign in [
            Shim {
                vni: 7,
                ..shim(way)
            },
            Shim {
                option: 0x0102,
                ..shim(way)
            },
            Shim {
                vni: 7,
                src: way.stranger().ip(),
                ..shim(way)
            },
        ] {
            let bytes = foreign.around(&frame);
            let out = rig.run_bytes(hook, &bytes);
            out.must_be_bytes(hook.pass(), &bytes);
        }
        assert_eq!((rig.counters(), rig.flows(way)), (vec![], vec![]));
    }
}

fn a_node_without_peers_leaves_all_alone(way: Way) {
    for hook in HOOKS {
        let rig = Rig::serving(way, backend_kind::HOST);
        let bytes = shim(way).around(&way.opening(way.client(1), way.vip(1)).bytes());
        let out = rig.run_bytes(hook, &bytes);
        out.must_be_bytes(hook.pass(), &bytes);
        assert_eq!(rig.counters(), []);
    }
}

fn what_no_agent_makes_is_dropped_as_it_came(way: Way) {
    for hook in HOOKS {
        let rig = receiving(way, backend_kind::HOST);
        let frame = way.opening(way.client(1), way.vip(1)).bytes();
        let words = if way.v6 { 6 } else { 3 };
        let odd = [
            Shim {
                first: Some(0x40 | words),
                ..shim(way)
            },
            Shim {
                first: Some(words + 1),
                ..shim(way)
            },
            Shim {
                control: 0xc0,
                ..shim(way)
            },
            Shim {
                control: 0,
                ..shim(way)
            },
            Shim {
                ethertype: Some(0x6558),
                ..shim(way)
            },
            Shim {
                kind: Some(0x83),
                ..shim(way)
            },
        ];
        for shim in &odd {
            let bytes = shim.around(&frame);
            rig.run_bytes(hook, &bytes)
                .must_be_bytes(hook.drop(), &bytes);
        }
        // The packet inside is cut short, or is none.
        let mut short = shim(way).around(&frame);
        short.truncate(short.len() - 1);
        let at = ETH_LEN + shim(way).len();
        let mut none = shim(way).around(&frame);
        none[at] = 0x10;
        let mut longer = shim(way).around(&frame);
        let len = at + if way.v6 { 5 } else { 3 };
        longer[len] += 1;
        for bytes in [none, longer] {
            rig.run_bytes(hook, &bytes)
                .must_be_bytes(hook.drop(), &bytes);
        }
        assert_eq!(rig.counters(), [(Reason::PeerMalformed, 8)]);
        assert_eq!(rig.flows(way), []);
    }
}

fn a_backend_that_is_not_here_or_not_of_the_service_is_dropped_as_it_came(way: Way) {
    for hook in HOOKS {
        let mut rig = receiving(way, backend_kind::HOST);
        let other = SocketAddr::new(way.host().ip(), 9_999);
        rig.service(
            way,
            way.vip(2),
            SERVICE + 1,
            0,
            &repeated(&[1], SLOTS_SMALL),
        );
        // The agent never writes such a one; the backend says that it is elsewhere.
        rig.local(SERVICE, way.far_backend(1), 2);
        // The id is another's by now.
        rig.local(SERVICE, way.backend(3), 1);
        let to = |vip, backend| {
            let frame = way.opening(way.client(1), vip).bytes();
            let shim = Shim {
                backend,
                ..shim(way)
            };
            shim.around(&frame)
        };
        let wrong = [
            to(way.vip(1), other),
            to(way.vip(2), way.host()),
            to(way.vip(3), way.host()),
            to(way.stranger(), way.host()),
            to(way.host(), way.host()),
            to(way.vip(1), way.far_backend(1)),
            to(way.vip(1), way.backend(3)),
        ];
        for bytes in &wrong {
            rig.run_bytes(hook, bytes).must_be_bytes(hook.drop(), bytes);
        }
        // An echo request is answered by the node that the client sent it to.
        let bytes = shim(way).around(&way.opening(way.client(1), way.vip(1)).as_ping());
        rig.run_bytes(hook, &bytes)
            .must_be_bytes(hook.drop(), &bytes);
        // A packet for another peer inside.
        let inner = shim(way).around(&way.opening(way.client(1), way.vip(1)).bytes());
        let bytes = shim(way).around(&inner);
        rig.run_bytes(hook, &bytes)
            .must_be_bytes(hook.drop(), &bytes);
        assert_eq!(rig.counters(), [(Reason::PeerBackend, 9)]);
        assert_eq!(rig.flows(way), []);
    }
}

fn what_a_peer_sends_never_leaves_the_node(way: Way) {
    for hook in HOOKS {
        let mut rig = receiving(way, backend_kind::HOST);
        let net = Net::new();
        // The client's own packets go elsewhere by this node's choice.
        let frame = way.opening(way.client(1), way.vip(1));
        rig.run_from(hook, &frame.bytes(), net.first);
        assert_eq!(rig.flows(way)[0].kind, backend_kind::NET);
        // A peer's never do: another choice of the same flow takes its place.
        let out = rig.run_from(hook, &shim(way).around(&frame.bytes()), net.first);
        out.must_be(hook.pass(), &frame.clone().to(way.host()));
        let flow = rig.flow(way, way.client(1), way.vip(1)).unwrap();
        assert_eq!((flow.kind, flow.backend), (backend_kind::HOST, 1));
        // Once the backend is gone nobody else is chosen.
        rig.backend(1, lb_agent::plan::Op::freed(1));
        let bytes = shim(way).around(&frame.bytes());
        rig.run_from(hook, &bytes, net.first)
            .must_be_bytes(hook.drop(), &bytes);
        assert_eq!(drops(&rig, Reason::PeerBackend), 1);
    }
}

fn a_node_whose_address_shares_a_slot_with_a_vip_receives_as_well(way: Way) {
    for hook in HOOKS {
        let mut rig = receiving(way, backend_kind::HOST);
        rig.slot(way.node(), addr_flag::VIP);
        for frame in [
            way.opening(way.client(1), way.vip(1)),
            way.later(way.client(1), way.vip(1)),
            way.later(way.client(1), way.vip(1)),
        ] {
            let out = rig.run_bytes(hook, &shim(way).around(&frame.bytes()));
            out.must_be(hook.pass(), &frame.clone().to(way.host()));
        }
    }
}

fn what_is_only_passing_by_is_left_alone(way: Way) {
    for hook in HOOKS {
        let mut rig = receiving(way, backend_kind::HOST);
        rig.slot(way.stranger().ip(), addr_flag::NODE);
        let onward = Shim {
            dst: way.stranger().ip(),
            ..shim(way)
        };
        let bytes = onward.around(&way.opening(way.client(1), way.vip(1)).bytes());
        rig.run_bytes(hook, &bytes)
            .must_be_bytes(hook.pass(), &bytes);
        assert_eq!(rig.counters(), []);
    }
}

fn a_container_gets_it_from_the_tc_program(way: Way) {
    let mut rig = receiving(way, backend_kind::LINK);
    let net = Net::new();
    let mut at = backend(way, way.backend(1), backend_kind::LINK);
    at.ifindex = net.second;
    rig.backend(1, at);
    let shim = Shim {
        backend: way.backend(1),
        ..shim(way)
    };
    for frame in [
        way.opening(way.client(1), way.vip(1)),
        way.later(way.client(1), way.vip(1)),
        way.later(way.client(1), way.vip(1)),
    ] {
        let bytes = shim.around(&frame.bytes());
        let out = rig.run_from(Hook::Xdp, &bytes, net.first);
        out.must_be_bytes(XDP_PASS, &bytes);
        let out = rig.run_from(Hook::Ingress, &bytes, net.first);
        let wanted = frame.clone().to(way.backend(1)).forwarded();
        out.must_be(TC_REDIRECT, &wanted);
    }
    assert_eq!(rig.counters(), [(Reason::ToSlowPath, 3)]);
    assert_eq!(rig.stats(1)[0], 1);
    assert_eq!(rig.connections(1).syn_retransmits, 0);
    let reply = way.later(way.backend(1), way.client(1));
    let wanted = reply.clone().from(way.vip(1)).forwarded();
    let out = rig.run_from(Hook::Link, &reply.bytes(), net.second);
    out.must_be(TC_REDIRECT, &wanted);
}

fn tags_are_left_to_the_tc_program(way: Way) {
    let rig = receiving(way, backend_kind::HOST);
    let frame = way.opening(way.client(1), way.vip(1)).bytes();
    let mut bytes = shim(way).around(&frame);
    bytes.splice(12..12, [0x81, 0x00, 0x00, 0x07]);
    rig.run_bytes(Hook::Xdp, &bytes)
        .must_be_bytes(XDP_PASS, &bytes);
    assert_eq!(rig.counters(), [(Reason::ToSlowPath, 1)]);
}

fn a_mark_of_congestion_is_brought_in(way: Way) {
    let ecn = |frame: &mut Vec<u8>, ecn: u8| {
        if way.v6 {
            frame[ETH_LEN + 1] = frame[ETH_LEN + 1] & 0xcf | ecn << 4;
        } else {
            frame[ETH_LEN + 1] = frame[ETH_LEN + 1] & 0xfc | ecn;
            let ip = etherparse::Ipv4Header::from_slice(&frame[ETH_LEN..])
                .unwrap()
                .0;
            let sum = ip.calc_header_checksum().to_be_bytes();
            frame[ETH_LEN + 10..ETH_LEN + 12].copy_from_slice(&sum);
        }
    };
    for hook in HOOKS {
        let rig = receiving(way, backend_kind::HOST);
        for frame in [
            way.opening(way.client(1), way.vip(1)),
            way.later(way.client(1), way.vip(1)),
            way.later(way.client(1), way.vip(1)),
        ] {
            for (inside, outside, arrives) in [
                (2, 2, Some(2)),
                (2, 3, Some(3)),
                (3, 3, Some(3)),
                (0, 3, None),
            ] {
                let mut inner = frame.bytes();
                ecn(&mut inner, inside);
                let shim = Shim {
                    class: outside,
                    ..shim(way)
                };
                let bytes = shim.around(&inner);
                let out = rig.run_bytes(hook, &bytes);
                let Some(arrives) = arrives else {
                    out.must_be_bytes(hook.drop(), &bytes);
                    continue;
                };
                let mut wanted = frame.clone().to(way.host()).bytes();
                ecn(&mut wanted, arrives);
                out.must_be_bytes(hook.pass(), &wanted);
            }
        }
        assert_eq!(rig.counters(), [(Reason::PeerMalformed, 3)]);
    }
}

fn an_error_about_a_reply_is_delivered(way: Way) {
    for hook in HOOKS {
        let rig = receiving(way, backend_kind::HOST);
        let error = |reply: Frame| reply.error(way.stranger().ip(), Trouble::TooBig(1_280), 8);
        let about = error(way.later(way.vip(1), way.client(1)));
        let bytes = shim(way).around(&about.bytes());
        rig.run_bytes(hook, &bytes)
            .must_be_bytes(hook.drop(), &bytes);
        assert_eq!(rig.counters(), [(Reason::PeerBackend, 1)]);
        let open = way.opening(way.client(1), way.vip(1));
        rig.run_bytes(hook, &shim(way).around(&open.bytes()));
        let out = rig.run_bytes(hook, &bytes);
        let wanted = error(way.later(way.host(), way.client(1)));
        let wanted = wanted.carried(|carrier| carrier.to(SocketAddr::new(way.host().ip(), 0)));
        out.must_be_bytes(hook.pass(), &wanted.bytes());
    }
}

fn fragments_are_delivered(way: Way) {
    for hook in HOOKS {
        let rig = receiving(way, backend_kind::HOST);
        let frame = way.opening(way.client(1), way.vip(1));
        let later = frame.later_fragment((5, false), way.proto());
        let bytes = shim(way).around(&later);
        rig.run_bytes(hook, &bytes)
            .must_be_bytes(hook.drop(), &bytes);
        assert_eq!(rig.counters(), [(Reason::PeerBackend, 1)]);
        let first = frame.clone().fragment((0, true));
        let out = rig.run_bytes(hook, &shim(way).around(&first.bytes()));
        out.must_be(hook.pass(), &first.clone().to(way.host()));
        let out = rig.run_bytes(hook, &bytes);
        let wanted = frame.clone().to(way.host());
        out.must_be_bytes(hook.pass(), &wanted.later_fragment((5, false), way.proto()));
    }
}

fn a_backend_that_is_down_is_refused(way: Way) {
    for hook in HOOKS {
        let mut rig = receiving(way, backend_kind::HOST);
        let mut down = backend(way, way.host(), backend_kind::HOST);
        down.state = backend_state::DOWN;
        rig.backend(1, down);
        // By the stack, which has the client's packet.
        let frame = way.opening(way.client(1), way.vip(1));
        let out = rig.run_bytes(hook, &shim(way).around(&frame.bytes()));
        out.must_be(hook.pass(), &frame);
        assert_eq!(rig.counters(), [(Reason::NoBackend, 1)]);
    }
}
