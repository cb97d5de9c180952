//! Nodes that share an etcd give every name the same address, also names whose hashes collide.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{fs, net::IpAddr, time::Duration};

use lb_tests::{
    etcd::Etcd,
    lab::{retry, wait_until},
    topology::{MASTER, Topology, Wishes, ZONE},
};
use serde_json::Value;

/// The hashes of these two names collide: both want the first address.
const NAMES: [&str; 2] = ["svc1265", "svc4703"];
const FIRST: &str = "11.29.210.66";
const SECOND: &str = "11.29.210.67";
const PATIENCE: Duration = Duration::from_secs(30);
/// The nodes that disagree.
const ONE: usize = 1;
const OTHER: usize = 2;
/// Of etcd, on the master.
const AT: &str = "10.77.0.1:2379";

fn services(names: &[&str]) -> String {
    let each = names.iter().map(|name| {
        format!("- {{name: {name}, framework: marathon, port: 80, backends: ['10.77.0.11:80']}}\n")
    });
    match names {
        [] => "services: []\n".to_owned(),
        _ => format!("services:\n{}", each.collect::<String>()),
    }
}

/// Two nodes that read files of their own, beside an etcd that may be down.
struct Pair {
    etcd: Etcd,
    topology: Topology,
}

impl Pair {
    fn up(etcd_first: bool) -> Self {
        let wishes = Wishes {
            agent_flags: ["--etcd", &format!("http://{AT}"), "--resync", "2"]
                .map(String::from)
                .into(),
            ..Wishes::default()
        };
        let topology = Topology::without_agents(wishes).expect("a topology");
        let mut etcd = Etcd::new(topology.master(), AT.parse().expect("an address"), None);
        if etcd_first {
            etcd.start(topology.master()).expect("etcd");
        }
        let mut pair = Self { etcd, topology };
        // Each meets another name first.
        for (node, name) in [(ONE, NAMES[0]), (OTHER, NAMES[1])] {
            pair.topology.put_services(&services(&[name]));
            pair.topology.start_agent(node).expect("an agent");
            pair.topology.agent_answers(node).expect("it answers");
        }
        pair
    }

    /// The file of one node.
    fn write(&self, node: usize, names: &[&str]) {
        let path = self.topology.nodes[node].dir().join("services.yaml");
        let next = path.with_extension("next");
        fs::write(&next, services(names)).expect("written");
        fs::rename(next, path).expect("put in place");
    }

    fn vip(&self, node: usize, name: &str) -> IpAddr {
        self.topology.vip(node, name, false).expect(name)
    }

    /// Both names have the same addresses on both nodes; which.
    fn agreed(&self) -> [IpAddr; 2] {
        retry("the nodes agree", PATIENCE, || {
            let at = |node| NAMES.map(|name| self.vip(node, name));
            let (one, other) = (at(ONE), at(OTHER));
            anyhow::ensure!(one == other, "{one:?} on one, {other:?} on the other");
            Ok(one)
        })
        .expect("agreement")
    }

    /// What etcd says of an address.
    fn holder(&self, addr: &str) -> String {
        let key = format!("/lb-agent/addresses/{addr}");
        self.etcd
            .get(self.topology.master(), &key)
            .unwrap_or_default()
    }

    fn not_agreed(&self, node: usize) -> usize {
        let status = self.topology.status(node).expect("it runs");
        let services = status["services"].as_array().cloned().unwrap_or_default();
        services
            .iter()
            .filter(|service| service["address_not_agreed"] == true)
            .count()
    }

    /// Whether a node says that a name waits for its address.
    fn waits(&self, node: usize, name: &str) -> bool {
        let status = self.topology.status(node).expect("it runs");
        let warnings = status["warnings"].as_array().cloned().unwrap_or_default();
        warnings.iter().filter_map(Value::as_str).any(|warning| {
            warning.contains(&format!("VIP {name}.marathon"))
                && warning.contains(&format!("{SECOND} is given to it once"))
        })
    }

    /// What `lb-agent release` of a node prints, and whether it did so.
    fn release(&self, node: usize, name: &str) -> (String, bool) {
        let agent = self.topology.purge_argv(node).expect("an agent")[0].clone();
        let run = self.topology.nodes[node].dir().join("run");
        let run = run.display().to_string();
        let name = format!("{name}.marathon");
        let ended = self.topology.nodes[node].run(&[&agent, "release", &name, "--run-dir", &run]);
        let ended = ended.expect("it runs");
        let released = ended.stdout.contains("is released");
        (format!("{}{}", ended.stdout, ended.stderr), released)
    }

    /// What DNS of a node answers, at once.
    fn answer(&self, node: usize, name: &str) -> String {
        let name = format!("{name}.{ZONE}");
        let dig = self.topology.nodes[node].run(&["dig", "+short", "A", &name]);
        let answer = dig.and_then(|dig| dig.ok()).expect("an answer");
        answer.trim().to_owned()
    }
}

#[test]
fn two_nodes_agree_on_names_that_collide() {
    let pair = Pair::up(true);
    // Whoever came first has the first address, the other one moved on.
    wait_until("both are claimed", PATIENCE, || {
        !pair.holder(SECOND).is_empty()
    })
    .expect("claims");
    for node in [ONE, OTHER] {
        pair.write(node, &NAMES);
    }
    let agreed = pair.agreed();
    let mut sorted = agreed;
    sorted.sort();
    assert_eq!(sorted.map(|addr| addr.to_string()), [FIRST, SECOND]);
    for (name, addr) in NAMES.iter().zip(agreed) {
        assert_eq!(pair.holder(&addr.to_string()), format!("{name}.marathon"));
        let key = format!("/lb-agent/vips/ipv4/{name}.marathon");
        let held = pair
            .etcd
            .get(pair.topology.master(), &key)
            .expect("an answer");
        assert_eq!(held, addr.to_string());
    }
    wait_until("nothing is contested", PATIENCE, || {
        pair.not_agreed(ONE) + pair.not_agreed(OTHER) == 0
    })
    .expect("all is agreed");
}

#[test]
fn without_etcd_a_name_that_collides_waits_and_has_the_agreed_address_when_it_comes_back() {
    let mut pair = Pair::up(false);
    assert_eq!(pair.vip(ONE, NAMES[0]).to_string(), FIRST);
    assert_eq!(
        pair.vip(OTHER, NAMES[1]).to_string(),
        FIRST,
        "each is alone"
    );
    for node in [ONE, OTHER] {
        pair.write(node, &NAMES);
    }
    for (node, first, second) in [(ONE, NAMES[0], NAMES[1]), (OTHER, NAMES[1], NAMES[0])] {
        wait_until("the second waits", PATIENCE, || pair.waits(node, second)).expect("it is shown");
        assert_eq!(pair.answer(node, second), "");
        assert_eq!(pair.answer(node, first), FIRST);
        assert_eq!(pair.not_agreed(node), 1, "the other may have it elsewhere");
    }
    pair.etcd.start(pair.topology.master()).expect("etcd");
    for (node, name) in [(ONE, NAMES[1]), (OTHER, NAMES[0])] {
        wait_until("nobody waits", PATIENCE, || !pair.waits(node, name))
            .expect("it has its address");
    }
    let agreed = pair.agreed();
    assert_ne!(agreed[0], agreed[1]);

    // And it stays so while etcd is away, also over a restart.
    pair.etcd.kill().expect("killed");
    pair.topology.put_services(&services(&NAMES));
    for node in [ONE, OTHER] {
        pair.topology.kill_agent(node).expect("killed");
        pair.topology.start_agent(node).expect("an agent");
        pair.topology.agent_answers(node).expect("it answers");
    }
    assert_eq!(pair.agreed(), agreed);

    // A newcomer without any memory learns it.
    pair.etcd.start(pair.topology.master()).expect("etcd");
    pair.topology.put_services(&services(&[NAMES[1]]));
    pair.topology.start_agent(MASTER).expect("an agent");
    pair.topology.agent_answers(MASTER).expect("it answers");
    assert_eq!(pair.vip(MASTER, NAMES[1]), agreed[1]);
}

#[test]
fn the_operator_gives_back_the_address_of_a_name_that_nobody_serves() {
    let pair = Pair::up(true);
    wait_until("both are claimed", PATIENCE, || {
        !pair.holder(FIRST).is_empty() && !pair.holder(SECOND).is_empty()
    })
    .expect("claims");
    let moved = pair.holder(SECOND);
    let of = |name: &&str| moved == format!("{name}.marathon");
    let second = NAMES.into_iter().find(of).expect("one of both");
    let node = if second == NAMES[0] { ONE } else { OTHER };
    assert_eq!(pair.vip(node, second).to_string(), SECOND);
    let (said, released) = pair.release(node, second);
    assert!(!released && said.contains("is in use"), "{said}");

    pair.write(node, &[]);
    wait_until("nobody serves it", PATIENCE, || {
        pair.answer(node, second).is_empty()
    })
    .expect("it is gone from DNS");
    assert_eq!(pair.holder(SECOND), moved, "its address is kept");
    let (said, released) = pair.release(node, second);
    assert!(released && said.contains(SECOND), "{said}");
    assert_eq!(pair.holder(SECOND), "");
    let key = format!("/lb-agent/vips/ipv4/{second}.marathon");
    let held = pair.etcd.get(pair.topology.master(), &key);
    assert_eq!(held.expect("an answer"), "");
    wait_until("the node heard of it", PATIENCE, || {
        pair.release(node, second).0.contains("no address is kept")
    })
    .expect("there is nothing left to release");
}
