//! A node that drains before a shutdown: every node that shares its etcd sends nothing new to its backends.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use lb_tests::{
    etcd::pair::{ONE, OTHER, PATIENCE, Pair},
    lab::wait_until,
};
use serde_json::{Value, json};

/// The backend of the node that drains, and its entry.
const BACKEND: &str = "10.77.0.11:80";
const ENTRY: &str = "/lb-agent/drained/10.77.0.11";
const SERVICES: &str = "services:\n- {name: web, framework: marathon, port: 80, backends: ['10.77.0.11:80', \
                        '10.77.0.12:80']}\n";

/// Runs a subcommand that must succeed.
fn order(pair: &Pair, node: usize, words: &[&str]) {
    pair.run(node, words).ok().expect("obeyed");
}

/// State and reason of the backend on one node.
fn shown(pair: &Pair, node: usize) -> (String, String) {
    let status = pair.status(node);
    let services = status["services"].as_array().into_iter().flatten();
    let backends = services.filter_map(|one| one["backends"].as_array());
    let found = backends.flatten().find(|one| one["addr"] == BACKEND);
    let text = |key: &str| {
        let text = found.and_then(|one| one[key].as_str());
        text.unwrap_or("-").to_owned()
    };
    (text("state"), text("why"))
}

fn expect(pair: &Pair, node: usize, state: &str, why: &str) {
    let as_expected = || shown(pair, node) == (state.to_owned(), why.to_owned());
    let reached = wait_until("the backend is as expected", PATIENCE, as_expected);
    assert!(reached.is_ok(), "{:?}", shown(pair, node));
}

#[test]
fn the_backends_of_a_node_that_drains_get_nothing_new_from_any_node() {
    let mut pair = Pair::up(SERVICES, &[]);
    for node in [ONE, OTHER] {
        expect(&pair, node, "active", "-");
    }
    order(&pair, ONE, &["drain", "--node"]);
    expect(&pair, ONE, "draining", "by the operator");
    expect(&pair, OTHER, "draining", "drained by 10.77.0.11");
    let told: Value = serde_json::from_str(&pair.get(ENTRY)).expect("JSON");
    assert_eq!(told["addresses"], json!(["10.77.0.11"]));

    // That is what it is for: the node goes, and comes back as it went.
    pair.topology.kill_agent(ONE).expect("killed");
    expect(&pair, OTHER, "draining", "drained by 10.77.0.11");
    pair.again(ONE);
    expect(&pair, ONE, "draining", "by the operator");
    expect(&pair, OTHER, "draining", "drained by 10.77.0.11");

    order(&pair, ONE, &["ready", "--node"]);
    expect(&pair, ONE, "active", "-");
    expect(&pair, OTHER, "active", "-");
    assert_eq!(pair.get(ENTRY), "");
}

#[test]
fn while_etcd_is_away_others_go_by_what_they_heard_last() {
    let mut pair = Pair::up(SERVICES, &[]);
    order(&pair, ONE, &["drain", "--node"]);
    expect(&pair, OTHER, "draining", "drained by 10.77.0.11");
    pair.kill_etcd();
    order(&pair, ONE, &["ready", "--node"]);
    expect(&pair, ONE, "active", "-");
    let says_so = || pair.warns(ONE, |warning| warning.contains("other nodes are not told"));
    wait_until("it says that nobody hears it", PATIENCE, says_so).expect("it is shown");
    assert_eq!(shown(&pair, OTHER).0, "draining");
    pair.start_etcd();
    expect(&pair, OTHER, "active", "-");
}
