//! Full NAT by the array of next hops, and by the kernel where the array cannot say.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::{IpAddr, SocketAddr};

use lb_common::{Backend, NextHop, Reason, backend_kind};
use lb_tests::{each_way, packet::*};

/// Index of the backend's next hop, and of the client's.
const TO_BACKEND: u16 = 5;
const TO_CLIENT: u16 = 4_095;
/// MAC addresses that no route or neighbour of the kernel leads to.
const BACKEND_MAC: [u8; 6] = [2, 0, 0, 0, 0xaa, 1];
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0xaa, 2];
/// Packets of a test-run come in by `lo`, unless it says otherwise.
const LOOPBACK: u32 = 1;

fn hop(to: [u8; 6], ifindex: u32, mtu: u32) -> NextHop {
    let halves = |mac: [u8; 6]| [0, 2, 4].map(|at| u16::from_ne_bytes([mac[at], mac[at + 1]]));
    NextHop {
        to: halves(to),
        from: halves(FIRST_MAC),
        ifindex,
        mtu,
    }
}

/// A rig whose backend is reached by [`TO_BACKEND`].
fn serving(way: Way) -> Rig {
    let mut rig = Rig::serving(way, backend_kind::NET);
    let value = Backend {
        next_hop: TO_BACKEND,
        ..backend(way, way.backend(1), backend_kind::NET)
    };
    rig.backend(1, value);
    rig
}

/// The router to the clients, as [`Net`] has it.
fn gateway(way: Way) -> IpAddr {
    if way.v6 {
        "fd00:1::253".parse().unwrap()
    } else {
        "10.1.0.253".parse().unwrap()
    }
}

fn claimed(rig: &Rig, way: Way) -> SocketAddr {
    rig.flow(way, way.client(1), way.vip(1))
        .expect("a flow")
        .leaves
        .0
}

/// A packet of the client goes to the backend at `mac`.
#[track_caller]
fn goes_to_the_backend_at(rig: &Rig, way: Way, ifindex: u32, mac: [u8; 6]) {
    let frame = way.opening(way.client(1), way.vip(1));
    let out = rig.run_from(Hook::Xdp, &frame.bytes(), ifindex);
    let wanted = frame
        .from(claimed(rig, way))
        .to(way.backend(1))
        .forwarded()
        .between(FIRST_MAC, mac);
    out.must_be(XDP_TX, &wanted);
}

/// A reply goes to the client at `mac`.
#[track_caller]
fn returns_to_the_client_at(rig: &Rig, way: Way, ifindex: u32, mac: [u8; 6]) {
    let reply = way.segment(way.backend(1), claimed(rig, way), Segment::SynAck);
    let wanted = reply
        .clone()
        .from(way.vip(1))
        .to(way.client(1))
        .forwarded()
        .between(FIRST_MAC, mac);
    rig.expect_from(ifindex, Hook::Xdp, &reply, XDP_TX, &wanted);
}

/// As [`serving`], in a network whose kernel knows every next hop, with a flow under way whose reply the
/// kernel was asked about once.
fn under_way(way: Way) -> (Rig, Net) {
    let mut rig = serving(way);
    let net = Net::new();
    rig.next_hop(TO_BACKEND, hop(BACKEND_MAC, net.first, 1500));
    rig.next_hop(TO_CLIENT, hop(CLIENT_MAC, net.first, 1500));
    rig.neighbour(net.first, gateway(way), TO_CLIENT);
    goes_to_the_backend_at(&rig, way, net.first, BACKEND_MAC);
    returns_to_the_client_at(&rig, way, net.first, GATEWAY_MAC);
    (rig, net)
}

each_way!(
    a_next_hop_in_the_array_needs_no_route_of_the_kernel,
    a_new_mac_address_in_the_array_holds_for_the_next_packet,
    an_entry_without_an_interface_leaves_the_backend_to_the_kernel,
    a_packet_longer_than_the_backends_entry_allows_is_answered_with_what_fits,
    a_reply_goes_by_the_index_that_its_flow_remembers,
    a_client_whose_next_hop_has_no_index_is_asked_for_each_time,
    an_entry_without_an_interface_leaves_the_client_to_the_kernel,
    a_packet_longer_than_the_clients_entry_allows_is_answered_with_what_fits,
    a_flow_asks_anew_when_routes_have_changed
);

fn a_next_hop_in_the_array_needs_no_route_of_the_kernel(way: Way) {
    let mut rig = serving(way);
    rig.next_hop(TO_BACKEND, hop(BACKEND_MAC, LOOPBACK, 1500));
    goes_to_the_backend_at(&rig, way, 0, BACKEND_MAC);
    assert_eq!(rig.counters(), []);
}

fn a_new_mac_address_in_the_array_holds_for_the_next_packet(way: Way) {
    let mut rig = serving(way);
    for mac in [BACKEND_MAC, CLIENT_MAC] {
        rig.next_hop(TO_BACKEND, hop(mac, LOOPBACK, 1500));
        goes_to_the_backend_at(&rig, way, 0, mac);
    }
}

fn an_entry_without_an_interface_leaves_the_backend_to_the_kernel(way: Way) {
    let mut rig = serving(way);
    let net = Net::new();
    rig.next_hop(TO_BACKEND, hop(BACKEND_MAC, 0, 1500));
    goes_to_the_backend_at(&rig, way, net.first, neighbour_mac(1));
    assert_eq!(rig.counters(), []);
}

fn a_packet_longer_than_the_backends_entry_allows_is_answered_with_what_fits(way: Way) {
    let mut rig = serving(way);
    let net = Net::new();
    rig.next_hop(TO_BACKEND, hop(BACKEND_MAC, net.first, 1_280));
    let headers = way.opening(way.client(1), way.vip(1)).bytes().len() - 14;
    for (len, fits) in [(1_280, true), (1_281, false)] {
        let mut frame = way.opening(way.client(1), way.vip(1));
        frame.payload.extend(vec![7; len - headers]);
        let out = rig.run_from(Hook::Xdp, &frame.bytes(), net.first);
        if fits {
            let wanted = frame
                .from(claimed(&rig, way))
                .to(way.backend(1))
                .forwarded()
                .between(FIRST_MAC, BACKEND_MAC);
            out.must_be(XDP_TX, &wanted);
        } else {
            let answer = Error::of_node(&frame, Trouble::TooBig(1_280));
            out.must_be_bytes(XDP_TX, &answer.bytes());
        }
    }
    assert_eq!(rig.counters(), [(Reason::TooBig, 1)]);
}

fn a_reply_goes_by_the_index_that_its_flow_remembers(way: Way) {
    let (mut rig, net) = under_way(way);
    returns_to_the_client_at(&rig, way, net.first, CLIENT_MAC);
    rig.next_hop(TO_CLIENT, hop(BACKEND_MAC, net.first, 1500));
    returns_to_the_client_at(&rig, way, net.first, BACKEND_MAC);
    assert_eq!(rig.counters(), []);
}

fn a_client_whose_next_hop_has_no_index_is_asked_for_each_time(way: Way) {
    let mut rig = serving(way);
    let net = Net::new();
    rig.next_hop(TO_CLIENT, hop(CLIENT_MAC, net.first, 1500));
    rig.neighbour(net.second, gateway(way), TO_CLIENT);
    goes_to_the_backend_at(&rig, way, net.first, neighbour_mac(1));
    for _ in 0..3 {
        returns_to_the_client_at(&rig, way, net.first, GATEWAY_MAC);
    }
}

fn an_entry_without_an_interface_leaves_the_client_to_the_kernel(way: Way) {
    let (mut rig, net) = under_way(way);
    rig.next_hop(TO_CLIENT, NextHop::default());
    returns_to_the_client_at(&rig, way, net.first, GATEWAY_MAC);
    rig.next_hop(TO_CLIENT, hop(CLIENT_MAC, net.first, 1500));
    returns_to_the_client_at(&rig, way, net.first, CLIENT_MAC);
    assert_eq!(rig.counters(), []);
}

fn a_packet_longer_than_the_clients_entry_allows_is_answered_with_what_fits(way: Way) {
    let (mut rig, net) = under_way(way);
    rig.next_hop(TO_CLIENT, hop(CLIENT_MAC, net.first, 1_280));
    returns_to_the_client_at(&rig, way, net.first, CLIENT_MAC);
    let long = Frame {
        payload: vec![7; 1_300],
        ..way.later(way.backend(1), claimed(&rig, way))
    };
    let answer = Error::of_node(&long, Trouble::TooBig(1_280));
    let out = rig.run_from(Hook::Xdp, &long.bytes(), net.first);
    out.must_be_bytes(XDP_TX, &answer.bytes());
    assert_eq!(rig.counters(), [(Reason::TooBig, 1)]);
}

fn a_flow_asks_anew_when_routes_have_changed(way: Way) {
    let (mut rig, net) = under_way(way);
    returns_to_the_client_at(&rig, way, net.first, CLIENT_MAC);
    rig.route_epoch(1);
    returns_to_the_client_at(&rig, way, net.first, GATEWAY_MAC);
    returns_to_the_client_at(&rig, way, net.first, CLIENT_MAC);
}
