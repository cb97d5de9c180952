//! Nodes that know each other as peers by etcd.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::time::Duration;

use lb_tests::{
    etcd::Etcd,
    lab::wait_until,
    topology::{Topology, Wishes},
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);
const ONE: usize = 1;
const OTHER: usize = 2;
/// The entry of `ONE`.
const ENTRY: &str = "/lb-agent/peers/10.77.0.11";
const SERVICES: &str =
    "services:\n- {name: web, framework: marathon, port: 80, backends: ['10.77.0.11:80']}\n";
/// Of etcd, on the master.
const AT: &str = "10.77.0.1:2379";

/// Two nodes.
struct Pair {
    etcd: Etcd,
    topology: Topology,
}

impl Pair {
    fn up() -> Self {
        let url = format!("http://{AT}");
        let flags = ["--etcd", &url, "--peers", "etcd", "--dsr", "--resync", "2"];
        let wishes = Wishes {
            agent_flags: flags.map(String::from).into(),
            ..Wishes::default()
        };
        let mut topology = Topology::without_agents(wishes).expect("a topology");
        let mut etcd = Etcd::new(topology.master(), AT.parse().expect("an address"), None);
        etcd.start(topology.master()).expect("etcd");
        topology.put_services(SERVICES);
        let mut pair = Self { etcd, topology };
        for node in [ONE, OTHER] {
            pair.start(node);
        }
        pair
    }

    fn start(&mut self, node: usize) {
        self.topology.start_agent(node).expect("an agent");
        self.topology.agent_answers(node).expect("it answers");
    }

    /// Waits until this node takes packets from so many others over IPv4.
    fn expect_peers(&self, node: usize, count: u64) {
        let shown = || self.topology.status(node).expect("it runs");
        let peers = |status: &Value| {
            let maps = status["datapath"]["maps"].as_array().cloned();
            let mut maps = maps.unwrap_or_default().into_iter();
            maps.find(|map| map["name"] == "peers, IPv4")
                .and_then(|map| map["used"].as_u64())
        };
        let reached = wait_until("it knows its peers", PATIENCE, || {
            peers(&shown()) == Some(count)
        });
        assert!(reached.is_ok(), "{count} at {node}: {:#}", shown());
    }

    fn entry(&self) -> String {
        let entry = self.etcd.get(self.topology.master(), ENTRY);
        entry.expect("an answer")
    }
}

#[test]
fn nodes_are_peers_as_long_as_they_stand_in_etcd() {
    let mut pair = Pair::up();
    for node in [ONE, OTHER] {
        pair.expect_peers(node, 1);
    }
    let told: Value = serde_json::from_str(&pair.entry()).expect("JSON");
    let addresses = told["addresses"].as_array().expect("a list");
    assert!(addresses.contains(&"10.77.0.11".into()), "{told}");
    let leases = pair.etcd.client(pair.topology.master(), &["lease", "list"]);
    let leases = leases.expect("an answer");
    assert!(!leases.contains("found 0 leases"), "{leases}");

    // Who is there enters itself anew; who is not is a peer until its entry goes.
    let delete = |pair: &Pair| {
        let deleted = pair.etcd.client(pair.topology.master(), &["del", ENTRY]);
        deleted.expect("deleted");
    };
    delete(&pair);
    wait_until("it is back", PATIENCE, || !pair.entry().is_empty()).expect("it is entered");
    pair.topology.kill_agent(ONE).expect("killed");
    pair.expect_peers(OTHER, 1);
    delete(&pair);
    pair.expect_peers(OTHER, 0);
    pair.start(ONE);
    pair.expect_peers(OTHER, 1);
}

#[test]
fn an_agent_that_starts_while_etcd_is_away_keeps_its_peers() {
    let mut pair = Pair::up();
    pair.expect_peers(OTHER, 1);
    pair.etcd.kill().expect("killed");
    pair.topology.kill_agent(OTHER).expect("killed");
    pair.start(OTHER);
    pair.expect_peers(OTHER, 1);
    pair.etcd.start(pair.topology.master()).expect("etcd");
    pair.expect_peers(ONE, 1);
    pair.expect_peers(OTHER, 1);
}
