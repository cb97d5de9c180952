//! Backends on the node itself: DNAT on the way in, the VIP's address back on the way out.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use lb_common::{SLOTS_SMALL, backend_kind};
use lb_tests::{each_tcp_way, each_udp_way, each_way, packet::*};

each_way!(
    the_first_packet_reaches_the_host_with_its_address_and_port_written_in,
    the_tc_twin_does_the_same,
    the_reply_leaves_with_the_address_and_port_of_the_vip,
    every_later_packet_takes_the_same_way,
    what_xdp_has_translated_the_twin_leaves_alone,
    a_reply_of_the_node_to_another_client_leaves_untouched,
    flows_packets_and_bytes_are_counted_for_the_backend,
    a_device_that_summed_the_packet_is_not_contradicted
);

fn the_first_packet_reaches_the_host_with_its_address_and_port_written_in(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    let frame = way.opening(way.client(1), way.vip(1));
    rig.expect(Hook::Xdp, &frame, XDP_PASS, &frame.clone().to(way.host()));
    assert_eq!(rig.counters(), []);
    let half = Entry {
        arrives: (way.client(1), way.vip(1)),
        leaves: (way.client(1), way.host()),
        backend: 1,
        generation: 1,
        // The loopback of the test's own namespace.
        client_ifindex: 1,
        forward: true,
        kind: backend_kind::HOST,
        tcp: 0,
        service: SERVICE,
    };
    let other = Entry {
        arrives: (way.host(), way.client(1)),
        leaves: (way.vip(1), way.client(1)),
        forward: false,
        ..half
    };
    assert_eq!(rig.flows(way), [half, other]);
}

fn the_tc_twin_does_the_same(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    let frame = way.opening(way.client(1), way.vip(1));
    rig.expect_from(
        1,
        Hook::Ingress,
        &frame,
        TC_OK,
        &frame.clone().to(way.host()),
    );
    let by_tc = rig.flows(way);
    let rig = Rig::serving(way, backend_kind::HOST);
    rig.expect(Hook::Xdp, &frame, XDP_PASS, &frame.clone().to(way.host()));
    let without_ifindex = |flows: Vec<Entry>| {
        flows
            .into_iter()
            .map(|f| Entry {
                client_ifindex: 0,
                ..f
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(without_ifindex(by_tc), without_ifindex(rig.flows(way)));
}

fn the_reply_leaves_with_the_address_and_port_of_the_vip(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    rig.run(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    for segment in [Segment::SynAck, Segment::Ack, Segment::Fin, Segment::Rst] {
        let reply = way.segment(way.host(), way.client(1), segment);
        rig.expect(Hook::Egress, &reply, TC_OK, &reply.clone().from(way.vip(1)));
    }
}

fn every_later_packet_takes_the_same_way(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    rig.run(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    for segment in [Segment::Ack, Segment::Fin, Segment::Rst] {
        let frame = way.segment(way.client(1), way.vip(1), segment);
        rig.expect(Hook::Xdp, &frame, XDP_PASS, &frame.clone().to(way.host()));
        rig.expect(Hook::Ingress, &frame, TC_OK, &frame.clone().to(way.host()));
    }
    assert_eq!(rig.flows(way).len(), 2);
}

fn what_xdp_has_translated_the_twin_leaves_alone(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    let frame = way.opening(way.client(1), way.vip(1));
    let out = rig.run(Hook::Xdp, &frame);
    rig.run_bytes(Hook::Ingress, &out.bytes)
        .must_be_bytes(TC_OK, &out.bytes);
}

fn a_reply_of_the_node_to_another_client_leaves_untouched(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    rig.run(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    rig.expect_untouched(Hook::Egress, &way.later(way.host(), way.client(2)));
    let mut port = way.client(1);
    port.set_port(40_001);
    rig.expect_untouched(Hook::Egress, &way.later(way.host(), port));
}

fn flows_packets_and_bytes_are_counted_for_the_backend(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    let first = way.opening(way.client(1), way.vip(1));
    let second = way.later(way.client(1), way.vip(1));
    let reply = way.later(way.host(), way.client(1));
    rig.run(Hook::Xdp, &first);
    rig.run(Hook::Ingress, &second);
    rig.run(Hook::Egress, &reply);
    let len = |frame: &Frame| frame.bytes().len() as u64 - 14;
    assert_eq!(
        rig.stats(1),
        [1, 2, len(&first) + len(&second), 1, len(&reply)]
    );
}

fn a_device_that_summed_the_packet_is_not_contradicted(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    let frame = way.opening(way.client(1), way.vip(1));
    match rig.run_summed(Hook::Ingress, &frame) {
        Ok(out) => out.must_be(TC_OK, &frame.to(way.host())),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            panic!("this kernel cannot check the sum; 6.16 or later is needed for this test")
        }
        Err(error) => panic!("the sum no longer holds: {error}"),
    }
}

each_tcp_way!(
    tcp_and_udp_on_the_same_ports_are_two_flows,
    a_segment_whose_flow_was_evicted_finds_the_same_backend_again
);

fn tcp_and_udp_on_the_same_ports_are_two_flows(way: Way) {
    let udp = Way { tcp: false, ..way };
    let mut rig = Rig::serving(way, backend_kind::HOST);
    let mut at = way.host();
    at.set_port(9_090);
    rig.backend(2, backend(udp, at, backend_kind::HOST));
    rig.service(udp, way.vip(1), 8, 0, &repeated(&[2], SLOTS_SMALL));
    let (segment, datagram) = (
        way.opening(way.client(1), way.vip(1)),
        udp.opening(way.client(1), way.vip(1)),
    );
    rig.expect(
        Hook::Xdp,
        &segment,
        XDP_PASS,
        &segment.clone().to(way.host()),
    );
    rig.expect(Hook::Xdp, &datagram, XDP_PASS, &datagram.clone().to(at));
    assert_eq!((rig.flows(way).len(), rig.flows(udp).len()), (2, 2));
}

fn a_segment_whose_flow_was_evicted_finds_the_same_backend_again(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::HOST);
    let ids: Vec<u32> = (1..=9).collect();
    for &id in &ids {
        rig.backend(id, backend(way, way.backend(id as u8), backend_kind::HOST));
    }
    rig.table(SERVICE, &repeated(&ids, SLOTS_SMALL));
    rig.run(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    let flow = rig.flow(way, way.client(1), way.vip(1)).unwrap();
    rig.evict(way, way.client(1), way.vip(1));
    let frame = way.later(way.client(1), way.vip(1));
    rig.expect(
        Hook::Xdp,
        &frame,
        XDP_PASS,
        &frame.clone().to(flow.leaves.1),
    );
    assert_eq!(rig.counters(), []);
}

each_udp_way!(
    a_datagram_without_a_checksum_stays_without,
    a_checksum_that_comes_out_as_zero_is_sent_as_ones
);

fn a_datagram_without_a_checksum_stays_without(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    let unsummed = |frame: Frame| Frame {
        transport: Transport::UdpUnsummed,
        ..frame
    };
    let frame = unsummed(way.opening(way.client(1), way.vip(1)));
    rig.expect(Hook::Xdp, &frame, XDP_PASS, &frame.clone().to(way.host()));
    rig.expect(Hook::Ingress, &frame, TC_OK, &frame.clone().to(way.host()));
    let reply = unsummed(way.later(way.host(), way.client(1)));
    rig.expect(Hook::Egress, &reply, TC_OK, &reply.clone().from(way.vip(1)));
}

fn a_checksum_that_comes_out_as_zero_is_sent_as_ones(way: Way) {
    let rig = Rig::serving(way, backend_kind::HOST);
    let zero = |frame: &Frame, wanted: fn(&Way, Frame) -> Frame| {
        (0..=u16::MAX)
            .map(|word| Frame {
                payload: word.to_be_bytes().to_vec(),
                ..frame.clone()
            })
            .find(|frame| {
                let bytes = wanted(&way, frame.clone()).bytes();
                bytes[bytes.len() - 4..bytes.len() - 2] == [0xff, 0xff]
            })
            .expect("one of all sums is zero")
    };
    let frame = zero(&way.opening(way.client(1), way.vip(1)), |way, f| {
        f.to(way.host())
    });
    rig.expect(Hook::Xdp, &frame, XDP_PASS, &frame.clone().to(way.host()));
    rig.expect(Hook::Ingress, &frame, TC_OK, &frame.clone().to(way.host()));
    let reply = zero(&way.later(way.host(), way.client(1)), |way, f| {
        f.from(way.vip(1))
    });
    rig.expect(Hook::Egress, &reply, TC_OK, &reply.clone().from(way.vip(1)));
}
