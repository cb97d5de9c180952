//! A node that drains before a shutdown: every node that shares its etcd sends nothing new to its backends.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::time::Duration;

use lb_tests::{
    etcd::Etcd,
    lab::wait_until,
    topology::{Topology, Wishes},
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);
/// The node that drains, its backend, and its entry.
const ONE: usize = 1;
const BACKEND: &str = "10.77.0.11:80";
const ENTRY: &str = "/lb-agent/drained/10.77.0.11";
/// Who hears of it.
const OTHER: usize = 2;
const SERVICES: &str = "services:\n- {name: web, framework: marathon, port: 80, backends: ['10.77.0.11:80', \
                        '10.77.0.12:80']}\n";
/// Of etcd, on the master.
const AT: &str = "10.77.0.1:2379";

/// Two nodes with one service.
struct Pair {
    etcd: Etcd,
    topology: Topology,
}

impl Pair {
    fn up() -> Self {
        let wishes = Wishes {
            agent_flags: ["--etcd", &format!("http://{AT}"), "--resync", "2"]
                .map(String::from)
                .into(),
            ..Wishes::default()
        };
        let mut topology = Topology::without_agents(wishes).expect("a topology");
        let mut etcd = Etcd::new(topology.master(), AT.parse().expect("an address"), None);
        etcd.start(topology.master()).expect("etcd");
        topology.put_services(SERVICES);
        for node in [ONE, OTHER] {
            topology.start_agent(node).expect("an agent");
            topology.agent_answers(node).expect("it answers");
        }
        Self { etcd, topology }
    }

    /// Runs a subcommand that must succeed.
    fn order(&self, node: usize, words: &[&str]) {
        let agent = self.topology.purge_argv(node).expect("an agent")[0].clone();
        let run = self.topology.nodes[node].dir().join("run");
        let run = run.display().to_string();
        let argv = [&[agent.as_str()], words, &["--run-dir", &run]].concat();
        let done = self.topology.nodes[node].run(&argv);
        done.and_then(|done| done.ok()).expect("obeyed");
    }

    /// State and reason of the backend on one node.
    fn shown(&self, node: usize) -> (String, String) {
        let status = self.topology.status(node).expect("it runs");
        let services = status["services"].as_array().cloned().unwrap_or_default();
        let backends = services.iter().filter_map(|one| one["backends"].as_array());
        let mut backends = backends.flatten();
        let found = backends.find(|one| one["addr"] == BACKEND);
        let text = |key: &str| {
            found
                .and_then(|one| one[key].as_str())
                .unwrap_or("-")
                .to_owned()
        };
        (text("state"), text("why"))
    }

    fn expect(&self, node: usize, state: &str, why: &str) {
        let as_expected = || self.shown(node) == (state.to_owned(), why.to_owned());
        let reached = wait_until("the backend is as expected", PATIENCE, as_expected);
        assert!(reached.is_ok(), "{:?}", self.shown(node));
    }

    fn entry(&self) -> String {
        let entry = self.etcd.get(self.topology.master(), ENTRY);
        entry.expect("an answer")
    }
}

#[test]
fn the_backends_of_a_node_that_drains_get_nothing_new_from_any_node() {
    let mut pair = Pair::up();
    for node in [ONE, OTHER] {
        pair.expect(node, "active", "-");
    }
    pair.order(ONE, &["drain", "--node"]);
    pair.expect(ONE, "draining", "by the operator");
    pair.expect(OTHER, "draining", "drained by 10.77.0.11");
    let told: Value = serde_json::from_str(&pair.entry()).expect("JSON");
    assert_eq!(told["addresses"], serde_json::json!(["10.77.0.11"]));

    // That is what it is for: the node goes, and comes back as it went.
    pair.topology.kill_agent(ONE).expect("killed");
    pair.expect(OTHER, "draining", "drained by 10.77.0.11");
    pair.topology.start_agent(ONE).expect("an agent");
    pair.topology.agent_answers(ONE).expect("it answers");
    pair.expect(ONE, "draining", "by the operator");
    pair.expect(OTHER, "draining", "drained by 10.77.0.11");

    pair.order(ONE, &["ready", "--node"]);
    pair.expect(ONE, "active", "-");
    pair.expect(OTHER, "active", "-");
    assert_eq!(pair.entry(), "");
}

#[test]
fn while_etcd_is_away_others_go_by_what_they_heard_last() {
    let mut pair = Pair::up();
    pair.order(ONE, &["drain", "--node"]);
    pair.expect(OTHER, "draining", "drained by 10.77.0.11");
    pair.etcd.kill().expect("killed");
    pair.order(ONE, &["ready", "--node"]);
    pair.expect(ONE, "active", "-");
    let says_so = || {
        let status = pair.topology.status(ONE).expect("it runs");
        let warnings = status["warnings"].as_array().cloned().unwrap_or_default();
        let mut warnings = warnings.iter().filter_map(Value::as_str);
        warnings.any(|warning| warning.contains("other nodes are not told"))
    };
    wait_until("it says that nobody hears it", PATIENCE, says_so).expect("it is shown");
    assert_eq!(pair.shown(OTHER).0, "draining");
    pair.etcd.start(pair.topology.master()).expect("etcd");
    pair.expect(OTHER, "active", "-");
}
