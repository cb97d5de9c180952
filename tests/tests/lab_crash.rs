//! Killing the agent: what is under way goes on, new connections too, and a restart changes nothing.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::net::SocketAddr;

use lb_tests::{
    asking::{Download, Steady, ask, expect_all},
    fixed::{BOX, Fixed, HOST, WORKER1},
    topology::{MASTER, Topology, WORKER3, Wishes},
};

/// At a million bytes a second: longer than killing and restarting takes.
const BYTES: u64 = 8_000_000;

fn fixed(client_via: usize) -> Fixed {
    let wishes = Wishes {
        client_via,
        forward_drop: client_via == WORKER3,
        ..Wishes::default()
    };
    Fixed::up(wishes).expect("a topology")
}

/// Kills and restarts the agent of `node` during a download and under load, from `client`.
fn survives(
    mut fixed: Fixed,
    node: usize,
    service: (&str, u16),
    client: fn(&Topology) -> &lb_tests::lab::Host,
) {
    let vips: Vec<SocketAddr> = [false, true]
        .iter()
        .map(|&ipv6| fixed.vip(service, ipv6).expect("a VIP"))
        .collect();
    let mut under_way = Vec::new();
    for vip in &vips {
        let client = client(&fixed.topology);
        let flags: &[&str] = if vip.is_ipv6() { &["--ipv6"] } else { &[] };
        let udp = [flags, &["--mode", "udp"]].concat();
        let steady = [flags, &udp]
            .map(|flags| Steady::start(client, &vip.to_string(), flags).expect("load"));
        let download = Download::start(client, *vip, BYTES).expect("a download");
        under_way.push((download, steady));
    }

    fixed.topology.kill_agent(node).expect("killed");
    for vip in &vips {
        let flags: &[&str] = if vip.is_ipv6() { &["--ipv6"] } else { &[] };
        let outcome = ask(client(&fixed.topology), &vip.to_string(), 20, flags).expect("probe");
        expect_all(&outcome, *vip, None).expect("new connections go on without the agent");
    }
    fixed.topology.start_agent(node).expect("started");
    fixed.topology.agent_answers(node).expect("it is back");

    for (mut download, steady) in under_way {
        assert!(
            download.goes_on(),
            "the download ended before the agent was back: make it longer"
        );
        download.finish().expect("the download completes");
        for steady in steady {
            let outcome = steady.stop().expect("counts");
            assert!(outcome.failed == 0 && outcome.answered > 50, "{outcome:?}");
        }
    }
}

#[test]
fn full_nat_survives_the_agents_death_and_return() {
    survives(fixed(MASTER), MASTER, HOST, |topology| &topology.client);
}

#[test]
fn dnat_to_a_host_socket_survives_the_agents_death_and_return() {
    survives(fixed(WORKER1), WORKER1, HOST, |topology| &topology.client);
}

#[test]
fn dnat_to_a_container_survives_the_agents_death_and_return() {
    survives(fixed(WORKER3), WORKER3, BOX, |topology| &topology.client);
}

#[test]
fn the_socket_path_survives_the_agents_death_and_return() {
    survives(fixed(MASTER), MASTER, HOST, |topology| topology.master());
}
