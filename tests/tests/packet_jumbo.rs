//! Frames that are longer than a page.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{net::UdpSocket, time::Duration};

use lb_common::backend_kind;
use lb_tests::{each_udp_way, packet::*};

const MTU: u32 = 9_000;
/// How long a datagram may take from one end of a cable to the other.
const WITHIN: Duration = Duration::from_secs(10);

each_udp_way!(xdp_attaches_to_an_interface_for_jumbo_frames_and_translates_one);

/// A program that does not take a packet in several buffers is refused there (`veth_xdp_set`).
fn xdp_attaches_to_an_interface_for_jumbo_frames_and_translates_one(way: Way) {
    let mut rig = Rig::serving(way, backend_kind::HOST);
    let net = Net::new();
    net.widen(MTU);
    let _attached = rig.attach_xdp(net.first);
    let server = UdpSocket::bind(way.host()).unwrap();
    server.set_read_timeout(Some(WITHIN)).unwrap();
    let mut frame = way.opening(way.client(1), way.vip(1));
    let headers = frame.bytes().len() - 14 - frame.payload.len();
    frame.payload = (0..=u8::MAX).cycle().take(MTU as usize - headers).collect();
    net.deliver(&frame.bytes());
    let mut room = vec![0; 2 * MTU as usize];
    // The server's stack has found the sum of all of it right.
    let (len, from) = server.recv_from(&mut room).expect("the datagram");
    assert_eq!(from, way.client(1));
    assert!(room[..len] == frame.payload, "{len} bytes");
    assert_eq!(rig.counters(), []);
}
