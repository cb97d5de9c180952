//! Two nodes of the topology that share an etcd.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::time::Duration;

use serde_json::Value;

use super::Etcd;
use crate::{
    lab::{Finished, wait_until},
    topology::{Topology, Wishes},
};

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// One node.
pub const ONE: usize = 1;
/// The other one.
pub const OTHER: usize = 2;
/// Of etcd, on the master.
const AT: &str = "10.77.0.1:2379";

/// Both, and what they share.
pub struct Pair {
    // Ends before its host does.
    etcd: Etcd,
    /// The nodes.
    pub topology: Topology,
}

// === impl Pair ===

impl Pair {
    /// Prepares them; `flags`: more of the agents. Neither etcd nor an agent runs yet.
    pub fn new(flags: &[&str]) -> Self {
        let url = format!("http://{AT}");
        let own = ["--etcd", &url, "--resync", "2"];
        let flags = own.iter().chain(flags).map(|flag| (*flag).to_owned());
        let wishes = Wishes {
            agent_flags: flags.collect(),
            ..Wishes::default()
        };
        let topology = Topology::without_agents(wishes).expect("a topology");
        let at = AT.parse().expect("an address");
        let etcd = Etcd::new(topology.master(), at, None);
        Self { etcd, topology }
    }

    /// Starts etcd, and both agents with these services.
    pub fn up(services: &str, flags: &[&str]) -> Self {
        let mut pair = Self::new(flags);
        pair.start_etcd();
        for node in [ONE, OTHER] {
            pair.start(node, services);
        }
        pair
    }

    /// Starts etcd, or starts it again with what it had.
    pub fn start_etcd(&mut self) {
        self.etcd.start(self.topology.master()).expect("etcd");
    }

    /// SIGKILL, as a crash would.
    pub fn kill_etcd(&mut self) {
        self.etcd.kill().expect("killed");
    }

    /// Starts an agent with these services.
    pub fn start(&mut self, node: usize, services: &str) {
        self.topology.put_services(services);
        self.again(node);
    }

    /// Starts an agent with the services that the last one had.
    pub fn again(&mut self, node: usize) {
        self.topology.start_agent(node).expect("an agent");
        self.topology.agent_answers(node).expect("it answers");
    }

    /// Runs a subcommand of the agent of a node.
    pub fn run(&self, node: usize, words: &[&str]) -> Finished {
        self.topology.run(node, words).expect("it runs")
    }

    /// What an agent says of itself.
    pub fn status(&self, node: usize) -> Value {
        self.topology.status(node).expect("it runs")
    }

    /// Whether an agent warns of something.
    pub fn warns(&self, node: usize, is_it: impl Fn(&str) -> bool) -> bool {
        let status = self.status(node);
        let warnings = status["warnings"].as_array().into_iter().flatten();
        warnings.filter_map(Value::as_str).any(is_it)
    }

    /// What etcd holds at a key; empty if that is not there.
    pub fn get(&self, key: &str) -> String {
        let held = self.etcd.get(self.topology.master(), key);
        held.expect("an answer")
    }

    /// Waits until etcd holds something at each of these keys.
    pub fn held(&self, keys: &[&str]) {
        let all = || keys.iter().all(|key| !self.get(key).is_empty());
        wait_until("etcd holds it", PATIENCE, all).expect("it is put");
    }

    /// Runs etcdctl; what it prints.
    pub fn etcdctl(&self, words: &[&str]) -> String {
        let done = self.etcd.client(self.topology.master(), words);
        done.expect("it obeys")
    }
}
