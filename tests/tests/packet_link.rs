//! Backends of this node behind a bridge or veth: DNAT and out of that interface, by tc.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use lb_common::{Backend, Reason, backend_kind};
use lb_tests::{each_way, packet::*};

fn serving(way: Way, net: &Net, mut rig: Rig) -> Rig {
    let backend = backend(way, way.far_backend(1), backend_kind::LINK);
    let ifindex = net.second;
    rig.backend(1, Backend { ifindex, ..backend });
    rig
}

each_way!(
    xdp_leaves_the_packet_untouched_and_opens_the_flow,
    the_tc_twin_sends_it_out_of_the_backends_interface,
    the_reply_is_sent_to_the_clients_interface_as_the_vip,
    a_reply_too_long_for_the_way_is_left_to_the_stack_and_translated_by_egress,
    what_else_a_container_sends_passes_untouched,
    a_device_that_summed_the_packet_is_not_contradicted_either_way
);

fn xdp_leaves_the_packet_untouched_and_opens_the_flow(way: Way) {
    let rig = Rig::serving(way, backend_kind::LINK);
    let net = Net::new();
    let rig = serving(way, &net, rig);
    let frame = way.opening(way.client(1), way.vip(1));
    rig.expect_from(net.first, Hook::Xdp, &frame, XDP_PASS, &frame);
    assert_eq!(rig.counters(), [(Reason::ToSlowPath, 1)]);
    let flows = rig.flows(way);
    assert_eq!(flows[0].leaves, (way.client(1), way.far_backend(1)));
    assert_eq!(flows[1].leaves, (way.vip(1), way.client(1)));
    assert!(
        flows
            .iter()
            .all(|f| f.kind == backend_kind::LINK && f.client_ifindex == net.first)
    );
}

fn the_tc_twin_sends_it_out_of_the_backends_interface(way: Way) {
    let rig = Rig::serving(way, backend_kind::LINK);
    let net = Net::new();
    let rig = serving(way, &net, rig);
    for segment in [Segment::Syn, Segment::Ack, Segment::Fin] {
        let frame = way.segment(way.client(1), way.vip(1), segment);
        let wanted = frame.clone().to(way.far_backend(1)).forwarded();
        rig.expect_from(net.first, Hook::Ingress, &frame, TC_REDIRECT, &wanted);
    }
    assert_eq!(rig.counters(), []);
    assert_eq!(rig.flows(way).len(), 2);
}

fn the_reply_is_sent_to_the_clients_interface_as_the_vip(way: Way) {
    let rig = Rig::serving(way, backend_kind::LINK);
    let net = Net::new();
    let rig = serving(way, &net, rig);
    rig.run_from(
        Hook::Xdp,
        &way.opening(way.client(1), way.vip(1)).bytes(),
        net.first,
    );
    for segment in [Segment::SynAck, Segment::Ack, Segment::Fin] {
        let reply = way.segment(way.far_backend(1), way.client(1), segment);
        let wanted = reply.clone().from(way.vip(1)).forwarded();
        rig.expect_from(net.second, Hook::Link, &reply, TC_REDIRECT, &wanted);
    }
}

fn a_reply_too_long_for_the_way_is_left_to_the_stack_and_translated_by_egress(way: Way) {
    let rig = Rig::serving(way, backend_kind::LINK);
    let net = Net::new();
    let rig = serving(way, &net, rig);
    let opening = way.opening(way.client(1), way.vip(1));
    rig.run_from(Hook::Ingress, &opening.bytes(), net.first);
    // Put together by a bridge with connection tracking.
    let mut reply = way.later(way.far_backend(1), way.client(1));
    reply.payload = vec![7; 1_500];
    rig.expect_from(net.second, Hook::Link, &reply, TC_OK, &reply);
    assert_eq!(rig.counters(), [(Reason::ToSlowPath, 1)]);
    let wanted = reply.clone().from(way.vip(1));
    rig.expect_from(net.first, Hook::Egress, &reply, TC_OK, &wanted);
}

fn what_else_a_container_sends_passes_untouched(way: Way) {
    let rig = Rig::serving(way, backend_kind::LINK);
    let net = Net::new();
    let rig = serving(way, &net, rig);
    rig.run_from(
        Hook::Xdp,
        &way.opening(way.client(1), way.vip(1)).bytes(),
        net.first,
    );
    for hook in [Hook::Link, Hook::Egress] {
        rig.expect_untouched(hook, &way.opening(way.far_backend(1), way.stranger()));
        rig.expect_untouched(hook, &way.later(way.far_backend(1), way.client(2)));
        rig.expect_untouched(hook, &way.later(way.far_backend(2), way.client(1)));
        // A forward half is not for the way out.
        rig.expect_untouched(hook, &way.later(way.client(1), way.vip(1)));
    }
}

fn a_device_that_summed_the_packet_is_not_contradicted_either_way(way: Way) {
    let rig = Rig::serving(way, backend_kind::LINK);
    let net = Net::new();
    let rig = serving(way, &net, rig);
    let frame = way.opening(way.client(1), way.vip(1));
    let out = rig
        .run_summed(Hook::Ingress, &frame)
        .expect("the sum holds");
    out.must_be(TC_REDIRECT, &frame.to(way.far_backend(1)).forwarded());
    let reply = way.later(way.far_backend(1), way.client(1));
    let out = rig.run_summed(Hook::Link, &reply).expect("the sum holds");
    out.must_be(TC_REDIRECT, &reply.from(way.vip(1)).forwarded());
}
