//! Nodes that know each other as peers by etcd.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use lb_tests::{
    etcd::pair::{ONE, OTHER, PATIENCE, Pair},
    lab::wait_until,
};
use serde_json::Value;

/// The entry of `ONE`.
const ENTRY: &str = "/lb-agent/peers/10.77.0.11";
const SERVICES: &str =
    "services:\n- {name: web, framework: marathon, port: 80, backends: ['10.77.0.11:80']}\n";
const FLAGS: [&str; 3] = ["--peers", "etcd", "--dsr"];

/// Waits until this node takes packets from so many others over IPv4.
fn expect_peers(pair: &Pair, node: usize, count: u64) {
    let peers = |status: &Value| {
        let mut maps = status["datapath"]["maps"].as_array().into_iter().flatten();
        maps.find(|map| map["name"] == "peers, IPv4")
            .and_then(|map| map["used"].as_u64())
    };
    let reached = wait_until("it knows its peers", PATIENCE, || {
        peers(&pair.status(node)) == Some(count)
    });
    assert!(
        reached.is_ok(),
        "{count} at {node}: {:#}",
        pair.status(node)
    );
}

#[test]
fn nodes_are_peers_as_long_as_they_stand_in_etcd() {
    let mut pair = Pair::up(SERVICES, &FLAGS);
    for node in [ONE, OTHER] {
        expect_peers(&pair, node, 1);
    }
    let told: Value = serde_json::from_str(&pair.get(ENTRY)).expect("JSON");
    let addresses = told["addresses"].as_array().expect("a list");
    assert!(addresses.contains(&"10.77.0.11".into()), "{told}");
    let leases = pair.etcdctl(&["lease", "list"]);
    assert!(!leases.contains("found 0 leases"), "{leases}");

    // Who is there enters itself anew; who is not is a peer until its entry goes.
    pair.etcdctl(&["del", ENTRY]);
    pair.held(&[ENTRY]);
    pair.topology.kill_agent(ONE).expect("killed");
    expect_peers(&pair, OTHER, 1);
    pair.etcdctl(&["del", ENTRY]);
    expect_peers(&pair, OTHER, 0);
    pair.again(ONE);
    expect_peers(&pair, OTHER, 1);
}

#[test]
fn an_agent_that_starts_while_etcd_is_away_keeps_its_peers() {
    let mut pair = Pair::up(SERVICES, &FLAGS);
    expect_peers(&pair, OTHER, 1);
    pair.kill_etcd();
    pair.topology.kill_agent(OTHER).expect("killed");
    pair.again(OTHER);
    expect_peers(&pair, OTHER, 1);
    pair.start_etcd();
    expect_peers(&pair, ONE, 1);
    expect_peers(&pair, OTHER, 1);
}
