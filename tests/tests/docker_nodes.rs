//! Two real Docker Engines in one Swarm: the manager's agent serves the tasks of both nodes.
//!
//! Tasks publish their port at their own node (mode `host`), so that neither an overlay network nor IPVS is needed.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use lb_tests::{
    docker::{Docker, IMAGE, place},
    steady::{during, failures, shares},
    yard::Yard,
};

const MANAGER: &str = "10.77.0.1";
const WORKER: &str = "10.77.0.11";

/// A service that is told of when it listens, and whose containers ignore their stop signal for a while.
const CREATE: [&str; 18] = [
    "service",
    "create",
    "--detach",
    "--no-resolve-image",
    "--stop-grace-period",
    "3s",
    "--health-cmd",
    "wget -q -O /dev/null http://127.0.0.1/index.html",
    "--health-interval",
    "500ms",
    "--publish",
    "mode=host,target=80",
    "--label",
    "lb.vip=web:80",
    "--replicas",
    "4",
    "--name",
    "web",
];

#[test]
fn tasks_of_both_nodes_are_behind_the_vip_while_the_service_is_scaled() {
    let yard = Yard::manager("nodes", &[], MANAGER);
    let dir = place("nodes-2").expect("a folder");
    let manager = (&yard.docker, MANAGER);
    let _worker =
        Docker::start_worker(&yard.stage.servers[0], dir, WORKER, manager).expect("a worker");
    yard.docker(&[&CREATE[..], &[IMAGE]].concat());
    let vip = yard.expect("web", 4);
    let backends = yard.service("web")["backends"].clone();
    let addrs = backends.as_array().into_iter().flatten();
    let addrs: Vec<&str> = addrs.filter_map(|one| one["addr"].as_str()).collect();
    let (there, here): (Vec<&str>, Vec<_>) =
        addrs.iter().partition(|addr| addr.starts_with(WORKER));
    // The Swarm spreads them.
    assert!(!there.is_empty() && !here.is_empty(), "{addrs:?}");
    let client = &yard.stage.clients[0];
    assert_eq!(shares(client, vip, 80).len(), 4, "all answer");
    let answers = during(client, vip, || {
        yard.docker(&["service", "scale", "--detach", "web=8"]);
        yard.expect("web", 8);
        yard.docker(&["service", "scale", "--detach", "web=2"]);
        yard.expect("web", 2);
    });
    assert!(answers.len() > 100, "{} connections", answers.len());
    assert_eq!(failures(&answers), [""; 0], "of {}", answers.len());
    assert_eq!(shares(client, vip, 40).len(), 2);
}
