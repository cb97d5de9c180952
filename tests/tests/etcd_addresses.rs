//! Nodes that share an etcd give every name the same address, also names whose hashes collide.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{fs, net::IpAddr};

use lb_tests::{
    etcd::pair::{ONE, OTHER, PATIENCE, Pair},
    lab::{retry, wait_until},
    topology::{MASTER, ZONE},
};

/// The hashes of these two names collide: both want the first address.
const NAMES: [&str; 2] = ["svc1265", "svc4703"];
const FIRST: &str = "11.29.210.66";
const SECOND: &str = "11.29.210.67";

fn services(names: &[&str]) -> String {
    let each = names.iter().map(|name| {
        format!("- {{name: {name}, framework: marathon, port: 80, backends: ['10.77.0.11:80']}}\n")
    });
    match names {
        [] => "services: []\n".to_owned(),
        _ => format!("services:\n{}", each.collect::<String>()),
    }
}

/// Starts both nodes; each meets another name first.
fn up(etcd_first: bool) -> Pair {
    let mut pair = Pair::new(&[]);
    if etcd_first {
        pair.start_etcd();
    }
    for (node, name) in [(ONE, NAMES[0]), (OTHER, NAMES[1])] {
        pair.start(node, &services(&[name]));
    }
    pair
}

/// Gives one node another file.
fn write(pair: &Pair, node: usize, names: &[&str]) {
    let path = pair.topology.nodes[node].dir().join("services.yaml");
    let next = path.with_extension("next");
    fs::write(&next, services(names)).expect("written");
    fs::rename(next, path).expect("put in place");
}

fn vip(pair: &Pair, node: usize, name: &str) -> IpAddr {
    pair.topology.vip(node, name, false).expect(name)
}

/// Both names have the same addresses on both nodes; which.
fn agreed(pair: &Pair) -> [IpAddr; 2] {
    retry("the nodes agree", PATIENCE, || {
        let at = |node| NAMES.map(|name| vip(pair, node, name));
        let (one, other) = (at(ONE), at(OTHER));
        anyhow::ensure!(one == other, "{one:?} on one, {other:?} on the other");
        Ok(one)
    })
    .expect("agreement")
}

/// The key of an address, and that of a name.
fn address_key(addr: &str) -> String {
    format!("/lb-agent/addresses/{addr}")
}

fn name_key(name: &str) -> String {
    format!("/lb-agent/vips/ipv4/{name}.marathon")
}

fn not_agreed(pair: &Pair, node: usize) -> usize {
    let status = pair.status(node);
    let services = status["services"].as_array().into_iter().flatten();
    services
        .filter(|service| service["address_not_agreed"] == true)
        .count()
}

/// Whether a node says that a name waits for its address.
fn waits(pair: &Pair, node: usize, name: &str) -> bool {
    pair.warns(node, |warning| {
        warning.contains(&format!("VIP {name}.marathon"))
            && warning.contains(&format!("{SECOND} is given to it once"))
    })
}

/// What `lb-agent release` of a node prints, and whether it did so.
fn release(pair: &Pair, node: usize, name: &str) -> (String, bool) {
    let ended = pair.run(node, &["release", &format!("{name}.marathon")]);
    let released = ended.stdout.contains("is released");
    (format!("{}{}", ended.stdout, ended.stderr), released)
}

/// What DNS of a node answers, at once.
fn answer(pair: &Pair, node: usize, name: &str) -> String {
    let name = format!("{name}.{ZONE}");
    let dig = pair.topology.nodes[node].run(&["dig", "+short", "A", &name]);
    let answer = dig.and_then(|dig| dig.ok()).expect("an answer");
    answer.trim().to_owned()
}

#[test]
fn two_nodes_agree_on_names_that_collide() {
    let pair = up(true);
    // Whoever came first has the first address, the other one moved on.
    pair.held(&[&address_key(SECOND)]);
    for node in [ONE, OTHER] {
        write(&pair, node, &NAMES);
    }
    let agreed = agreed(&pair);
    let mut sorted = agreed;
    sorted.sort();
    assert_eq!(sorted.map(|addr| addr.to_string()), [FIRST, SECOND]);
    for (name, addr) in NAMES.iter().zip(agreed) {
        let addr = addr.to_string();
        assert_eq!(pair.get(&address_key(&addr)), format!("{name}.marathon"));
        assert_eq!(pair.get(&name_key(name)), addr);
    }
    wait_until("nothing is contested", PATIENCE, || {
        not_agreed(&pair, ONE) + not_agreed(&pair, OTHER) == 0
    })
    .expect("all is agreed");
}

#[test]
fn without_etcd_a_name_that_collides_waits_and_has_the_agreed_address_when_it_comes_back() {
    let mut pair = up(false);
    assert_eq!(vip(&pair, ONE, NAMES[0]).to_string(), FIRST);
    assert_eq!(
        vip(&pair, OTHER, NAMES[1]).to_string(),
        FIRST,
        "each is alone"
    );
    for node in [ONE, OTHER] {
        write(&pair, node, &NAMES);
    }
    for (node, first, second) in [(ONE, NAMES[0], NAMES[1]), (OTHER, NAMES[1], NAMES[0])] {
        let waiting = wait_until("the second waits", PATIENCE, || waits(&pair, node, second));
        waiting.expect("it is shown");
        assert_eq!(answer(&pair, node, second), "");
        assert_eq!(answer(&pair, node, first), FIRST);
        assert_eq!(
            not_agreed(&pair, node),
            1,
            "the other may have it elsewhere"
        );
    }
    pair.start_etcd();
    for (node, name) in [(ONE, NAMES[1]), (OTHER, NAMES[0])] {
        let waiting = wait_until("nobody waits", PATIENCE, || !waits(&pair, node, name));
        waiting.expect("it has its address");
    }
    let agreed_on = agreed(&pair);
    assert_ne!(agreed_on[0], agreed_on[1]);

    // And it stays so while etcd is away, also over a restart.
    pair.kill_etcd();
    for node in [ONE, OTHER] {
        pair.topology.kill_agent(node).expect("killed");
        pair.start(node, &services(&NAMES));
    }
    assert_eq!(agreed(&pair), agreed_on);

    // A newcomer without any memory learns it.
    pair.start_etcd();
    pair.start(MASTER, &services(&[NAMES[1]]));
    assert_eq!(vip(&pair, MASTER, NAMES[1]), agreed_on[1]);
}

#[test]
fn the_operator_gives_back_the_address_of_a_name_that_nobody_serves() {
    let pair = up(true);
    pair.held(&[&address_key(FIRST), &address_key(SECOND)]);
    let moved = pair.get(&address_key(SECOND));
    let of = |name: &&str| moved == format!("{name}.marathon");
    let second = NAMES.into_iter().find(of).expect("one of both");
    let node = if second == NAMES[0] { ONE } else { OTHER };
    assert_eq!(vip(&pair, node, second).to_string(), SECOND);
    let (said, released) = release(&pair, node, second);
    assert!(!released && said.contains("is in use"), "{said}");

    write(&pair, node, &[]);
    wait_until("nobody serves it", PATIENCE, || {
        answer(&pair, node, second).is_empty()
    })
    .expect("it is gone from DNS");
    assert_eq!(pair.get(&address_key(SECOND)), moved, "its address is kept");
    let (said, released) = release(&pair, node, second);
    assert!(released && said.contains(SECOND), "{said}");
    assert_eq!(pair.get(&address_key(SECOND)), "");
    assert_eq!(pair.get(&name_key(second)), "");
    wait_until("the node heard of it", PATIENCE, || {
        release(&pair, node, second)
            .0
            .contains("no address is kept")
    })
    .expect("there is nothing left to release");
}
