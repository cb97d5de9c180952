//! Every path that traffic for a VIP can take, over IPv4 and IPv6, TCP and UDP: it answers, the client sees
//! the VIP as its peer, and the server sees who it should. Checksum offload is on throughout.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::net::{IpAddr, SocketAddr};

use lb_tests::{
    asking::{ask, expect_all},
    fixed::{BOX, Fixed, HOST, WORKER1, on_switch},
    lab::Host,
    topology::{MASTER, WORKER3, Wishes},
};

/// What one path is asked.
const QUESTIONS: u32 = 20;

/// The last number of a host's address on the switch.
const CLIENT: u8 = 100;
const MASTER_NUMBER: u8 = 1;

/// Which hook of the agent meets what comes from outside.
#[derive(Clone, Copy, PartialEq)]
enum Hook {
    Xdp,
    /// XDP in the stack, which leaves what is to leave again to tc.
    Generic,
    /// The tc programs alone. Both also get packets whose checksum is unfinished.
    Tc,
}

fn fixed(client_via: usize, hook: Hook) -> Fixed {
    let mode = match hook {
        Hook::Xdp => "native",
        Hook::Generic => "generic",
        Hook::Tc => "off",
    };
    let wishes = Wishes {
        client_via,
        forward_drop: client_via == WORKER3,
        tx_checksum: true,
        unfinished_arrivals: hook != Hook::Xdp,
        agent_flags: vec!["--xdp-mode".into(), mode.into()],
        ..Wishes::default()
    };
    Fixed::up(wishes).expect("a topology")
}

/// Both families and protocols of a service, from one client; `seen(ipv6)` is the client the server sees.
fn all_ways(
    fixed: &Fixed,
    client: &Host,
    service: (&str, u16),
    seen: impl Fn(bool) -> Option<IpAddr>,
) {
    for ipv6 in [false, true] {
        let vip = fixed.vip(service, ipv6).expect("a VIP");
        for mode in ["tcp", "udp", "udp-unconnected"] {
            let flags: &[&str] = if ipv6 {
                &["--ipv6", "--mode", mode]
            } else {
                &["--mode", mode]
            };
            let outcome = ask(client, &vip.to_string(), QUESTIONS, flags).expect("probe");
            expect_all(&outcome, vip, seen(ipv6))
                .unwrap_or_else(|error| panic!("{mode} to {vip}: {error:#}"));
        }
    }
}

#[test]
fn full_nat_to_a_backend_elsewhere_shows_it_the_nodes_address() {
    let fixed = fixed(MASTER, Hook::Xdp);
    all_ways(&fixed, &fixed.topology.client, HOST, |ipv6| {
        Some(on_switch(MASTER_NUMBER, ipv6))
    });
    all_ways(&fixed, &fixed.topology.client, BOX, |ipv6| {
        Some(on_switch(MASTER_NUMBER, ipv6))
    });
}

#[test]
fn full_nat_by_tc_alone_or_behind_generic_xdp_with_offload_on() {
    for hook in [Hook::Tc, Hook::Generic] {
        let fixed = fixed(MASTER, hook);
        for service in [HOST, BOX] {
            all_ways(&fixed, &fixed.topology.client, service, |ipv6| {
                Some(on_switch(MASTER_NUMBER, ipv6))
            });
        }
    }
}

#[test]
fn dnat_to_a_host_socket_keeps_the_clients_address() {
    let fixed = fixed(WORKER1, Hook::Xdp);
    all_ways(&fixed, &fixed.topology.client, HOST, |ipv6| {
        Some(on_switch(CLIENT, ipv6))
    });
}

#[test]
fn dnat_to_a_host_socket_by_tc_alone_or_generic_xdp_with_offload_on() {
    for hook in [Hook::Tc, Hook::Generic] {
        let fixed = fixed(WORKER1, hook);
        all_ways(&fixed, &fixed.topology.client, HOST, |ipv6| {
            Some(on_switch(CLIENT, ipv6))
        });
    }
}

#[test]
fn dnat_to_a_container_does_not_mind_forward_drop_and_keeps_the_clients_address() {
    let fixed = fixed(WORKER3, Hook::Xdp);
    all_ways(&fixed, &fixed.topology.client, BOX, |ipv6| {
        Some(on_switch(CLIENT, ipv6))
    });
}

#[test]
fn dnat_to_a_container_by_tc_alone_or_behind_generic_xdp_with_offload_on() {
    for hook in [Hook::Tc, Hook::Generic] {
        let fixed = fixed(WORKER3, hook);
        all_ways(&fixed, &fixed.topology.client, BOX, |ipv6| {
            Some(on_switch(CLIENT, ipv6))
        });
    }
}

#[test]
fn the_socket_path_serves_processes_and_containers_of_a_node() {
    let fixed = fixed(MASTER, Hook::Xdp);
    let topology = &fixed.topology;
    for service in [HOST, BOX] {
        all_ways(&fixed, topology.master(), service, |ipv6| {
            // The container's address is routed, not on the switch; the source is the node's in both cases.
            Some(on_switch(MASTER_NUMBER, ipv6))
        });
        all_ways(&fixed, &topology.container, service, |_| None);
    }
}

#[test]
fn a_backend_reaches_its_own_vip() {
    let fixed = fixed(MASTER, Hook::Xdp);
    let topology = &fixed.topology;
    all_ways(&fixed, &topology.nodes[WORKER1], HOST, |_| None);
    all_ways(&fixed, &topology.slots[0], BOX, |_| None);
    // As often as it takes to meet whatever happens only at times: itself, its host, and a sibling of it.
    for (client, service) in [
        (&topology.nodes[WORKER1], HOST),
        (&topology.slots[0], BOX),
        (&topology.nodes[WORKER3], BOX),
        (&topology.container, BOX),
    ] {
        let vip = fixed.vip(service, false).expect("a VIP");
        let outcome = ask(client, &vip.to_string(), 100, &[]).expect("probe");
        expect_all(&outcome, vip, None)
            .unwrap_or_else(|error| panic!("{} to {vip}: {error:#}", client.name()));
    }
}

/// The client of one connection as the server sees it, which leaves the host from this port.
fn seen(client: &Host, port: u16, vip: SocketAddr) -> String {
    let (port, url) = (port.to_string(), format!("http://{vip}/"));
    let argv = ["curl", "-sS", "-m", "5", "--local-port", &port, &url];
    let page = client.run(&argv).and_then(|curl| curl.ok());
    let page = page.unwrap_or_else(|error| panic!("{} to {vip}: {error:#}", client.name()));
    let line = page.lines().find_map(|line| line.strip_prefix("client "));
    line.unwrap_or_else(|| panic!("no client: {page}"))
        .to_owned()
}

#[test]
fn a_backend_sees_address_and_port_of_a_client_outside_elsewhere_at_home_and_in_a_container() {
    let fixed = fixed(WORKER1, Hook::Xdp);
    let topology = &fixed.topology;
    let [host, container] = [HOST, BOX].map(|service| fixed.vip(service, false).expect("a VIP"));
    for (client, port, vip, address) in [
        (&topology.client, 41_001, host, "10.77.0.100"),
        (topology.master(), 41_002, host, "10.77.0.1"),
        (&topology.nodes[WORKER1], 41_003, host, "10.77.0.11"),
        (topology.master(), 41_004, container, "10.77.0.1"),
        (&topology.nodes[WORKER3], 41_005, container, "172.31.3.1"),
        (&topology.container, 41_006, container, "172.31.3.2"),
    ] {
        assert_eq!(seen(client, port, vip), format!("{address}:{port}"));
    }
}

#[test]
fn an_ipv6_socket_reaches_an_ipv4_vip_and_sees_it_as_its_peer() {
    let fixed = fixed(MASTER, Hook::Xdp);
    let vip = fixed.vip(HOST, false).expect("a VIP");
    let IpAddr::V4(v4) = vip.ip() else {
        panic!("{vip} is not IPv4")
    };
    let mapped = (IpAddr::from(v4.to_ipv6_mapped()), vip.port()).into();
    for mode in ["tcp-mapped", "udp-mapped"] {
        for client in [fixed.topology.master(), &fixed.topology.container] {
            let outcome =
                ask(client, &vip.to_string(), QUESTIONS, &["--mode", mode]).expect("probe");
            expect_all(&outcome, mapped, None).unwrap_or_else(|error| panic!("{mode}: {error:#}"));
        }
    }
}
