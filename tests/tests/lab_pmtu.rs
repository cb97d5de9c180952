//! Packets too long or without a hop left, and datagrams in fragments, between real stacks.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    io::{ErrorKind, Read as _},
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use lb_tests::{
    fixed::{Fixed, HOST, WORKER1, on_switch},
    lab::{Host, http},
    topology::{MASTER, Wishes},
};
use socket2::{Domain, Protocol, Socket, Type};

/// The switch of the lab takes 1,500.
const MTU: u32 = 1_400;
const CLIENT: u8 = 100;
const WORKER1_NUMBER: u8 = 11;
/// How long one answer is waited for, and all tries together.
const TRY: Duration = Duration::from_millis(500);
const WITHIN: Duration = Duration::from_secs(10);

fn fixed(client_via: usize) -> Fixed {
    by_mode(client_via, "native")
}

/// With XDP attached in this mode.
fn by_mode(client_via: usize, mode: &str) -> Fixed {
    let wishes = Wishes {
        client_via,
        agent_flags: vec!["--xdp-mode".into(), mode.into()],
        ..Wishes::default()
    };
    Fixed::up(wishes).expect("a topology")
}

/// Narrows the master's way to a host on the switch.
fn narrow(fixed: &Fixed, number: u8) {
    for ipv6 in [false, true] {
        let to = on_switch(number, ipv6).to_string();
        let mtu = MTU.to_string();
        // Locked: XDP asks for what a router may rely on (`ip_mtu_from_fib_result`, `ip6_mtu_from_fib6`).
        let route = [
            "ip", "route", "add", &to, "dev", "eth0", "mtu", "lock", &mtu,
        ];
        let done = fixed.topology.master().run(&route).expect("ip");
        done.ok().expect("a route");
    }
}

/// Sends until a host has learned the path MTU to an address. The first packets may still go by the old route: an
/// agent hears of a new one by an event.
fn learns(host: &Host, to: IpAddr, mut send: impl FnMut()) {
    let (narrow, end) = (format!("mtu {MTU}"), Instant::now() + WITHIN);
    loop {
        send();
        let route = host.run(&["ip", "route", "get", &to.to_string()]);
        let route = route.and_then(|route| route.ok()).expect("ip route get");
        if route.contains(&narrow) {
            return;
        }
        assert!(Instant::now() < end, "{to}: {route}");
    }
}

/// Sends a datagram until an answer to it comes back.
fn echoed(host: &Host, to: SocketAddr, length: usize) {
    let payload: Vec<u8> = (0..=u8::MAX).cycle().take(length).collect();
    let got = host.enter(|| {
        let any: SocketAddr = if to.is_ipv6() {
            "[::]:0".parse().expect("an address")
        } else {
            "0.0.0.0:0".parse().expect("an address")
        };
        let socket = UdpSocket::bind(any).expect("a socket");
        socket.connect(to).expect("a route");
        socket.set_read_timeout(Some(TRY)).expect("a time-out");
        let end = Instant::now() + WITHIN;
        let mut room = vec![0; 65_536];
        while Instant::now() < end {
            // Longer than what is known of the path: the next one is sent in fragments.
            let _ = socket.send(&payload);
            match socket.recv(&mut room) {
                Ok(got) => return Some(room[..got].to_vec()),
                // Nothing yet, or word of a narrow path.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {}
                Err(error) => panic!("{to}: {error}"),
            }
        }
        None
    });
    let got = got.expect("a namespace");
    let got = got.unwrap_or_else(|| panic!("{length} bytes to {to}: no answer"));
    assert!(
        got.ends_with(&payload),
        "{length} bytes to {to}: {} came back",
        got.len()
    );
}

fn downloads(host: &Host, at: SocketAddr, bytes: usize) {
    let reply = host.enter(|| http::get(at, &format!("/download?bytes={bytes}")));
    let reply = reply.expect("a namespace").expect("a download");
    assert_eq!((reply.status, reply.body.len()), (200, bytes), "{at}");
}

#[test]
fn a_narrow_way_to_the_backend_is_learned_by_the_client() {
    let fixed = fixed(MASTER);
    narrow(&fixed, WORKER1_NUMBER);
    let client = &fixed.topology.client;
    for ipv6 in [false, true] {
        let vip = fixed.vip(HOST, ipv6).expect("a VIP");
        learns(client, vip.ip(), || echoed(client, vip, 1_440));
        downloads(client, vip, 100_000);
    }
}

#[test]
fn a_narrow_way_to_the_client_is_learned_by_the_backend() {
    let fixed = fixed(MASTER);
    narrow(&fixed, CLIENT);
    let backend = &fixed.topology.nodes[WORKER1];
    for ipv6 in [false, true] {
        let vip = fixed.vip(HOST, ipv6).expect("a VIP");
        learns(backend, on_switch(1, ipv6), || {
            downloads(&fixed.topology.client, vip, 1_000_000);
        });
    }
}

#[test]
fn a_datagram_in_fragments_is_answered_in_fragments() {
    // By full NAT, and to a socket of the node itself.
    for (via, service) in [(MASTER, HOST), (WORKER1, HOST)] {
        let fixed = fixed(via);
        for ipv6 in [false, true] {
            let vip = fixed.vip(service, ipv6).expect("a VIP");
            for length in [100, 2_000, 9_000, 20_000] {
                echoed(&fixed.topology.client, vip, length);
            }
        }
    }
}

#[test]
fn a_packet_without_a_hop_left_is_answered_by_the_vip() {
    for mode in ["native", "generic"] {
        is_answered_without_a_hop_left(&by_mode(MASTER, mode));
    }
}

fn is_answered_without_a_hop_left(fixed: &Fixed) {
    let vip = fixed.vip(HOST, false).expect("a VIP");
    let said = fixed.topology.client.enter(|| {
        let errors = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4));
        let mut errors = errors.expect("a raw socket");
        errors.set_read_timeout(Some(TRY)).expect("a time-out");
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.set_ttl(1).expect("a time to live");
        let end = Instant::now() + WITHIN;
        while Instant::now() < end {
            socket.send_to(b"are you there?", vip).expect("a route");
            let mut bytes = [0; 256];
            if errors.read(&mut bytes).is_err() {
                continue;
            }
            // Source address, and type and code behind a header of 20 bytes.
            let from: [u8; 4] = bytes[12..16].try_into().expect("an address");
            return Some((IpAddr::from(from), bytes[20], bytes[21]));
        }
        None
    });
    assert_eq!(said.expect("a namespace"), Some((vip.ip(), 11, 0)));
}
