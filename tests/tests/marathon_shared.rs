//! One VIP of five apps with different networks, on nodes that publish the same port for something else.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{net::SocketAddr, time::Duration};

use lb_tests::{
    apps::{in_container, on_host},
    asking::{ask, expect_all, named},
    lab::{Host, wait_until},
    topology::{Topology, WORKER3, Wishes},
};
use serde_json::{Value, json};

const LABEL: &str = "/l4lbtest:5000";
/// What DC/OS gives this name.
const VIP: &str = "11.128.73.162:5000";
const APPS: usize = 5;
/// Of so many draws, all five come up but once in a billion times.
const MANY: u32 = 100;

/// Apps on ports of their hosts, and in containers.
fn apps() -> [(String, Value); APPS] {
    [1, 2, 3, 4, 5].map(|number| {
        let name = format!("app-{number}");
        let mut app = match number {
            1..=3 => on_host(&name, "tcp", 5000, 1),
            _ => in_container(&name, "tcp", 5000, 1),
        };
        let port = match number {
            1..=3 => &mut app["portDefinitions"][0],
            _ => &mut app["container"]["portMappings"][0],
        };
        port["labels"] = json!({"VIP_0": LABEL});
        (format!("/{name}"), app)
    })
}

/// As engines publish a port: whatever comes to any address of the node at it goes to where nobody listens.
fn publish(node: &Host) {
    let stolen = "fib daddr type local tcp dport 5000 dnat to 10.77.0.12:9";
    let rules = format!(
        "add table ip publish; \
         add chain ip publish pre {{ type nat hook prerouting priority dstnat; }}; \
         add chain ip publish out {{ type nat hook output priority -100; }}; \
         add rule ip publish pre {stolen}; add rule ip publish out {stolen}"
    );
    let done = node.run(&["nft", &rules]).and_then(|nft| nft.ok());
    done.expect("published");
}

#[test]
fn five_apps_share_a_vip_and_a_published_port_of_its_number_takes_nothing() {
    let topology = Topology::up(Wishes::default()).expect("a topology");
    for (id, app) in apps() {
        topology.put_app(&id, &app).expect("it runs");
    }
    let vip = topology.agreed_vip("l4lbtest", false).expect("a VIP");
    let vip = SocketAddr::new(vip, 5000);
    assert_eq!(vip.to_string(), VIP);
    let clients = [
        topology.master(),
        &topology.nodes[1],
        &topology.nodes[WORKER3],
        &topology.container,
        &topology.client,
    ];
    let all_answer = |client: &Host| {
        let outcome = ask(client, &named("l4lbtest", 5000), MANY, &[]).expect("probe");
        let checked = expect_all(&outcome, vip, None);
        checked.unwrap_or_else(|error| panic!("{}: {error:#}", client.name()));
        outcome.by_answer.len() == APPS
    };
    for client in clients {
        let five = wait_until("all five answer", Duration::from_secs(15), || {
            all_answer(client)
        });
        five.unwrap_or_else(|error| panic!("{}: {error:#}", client.name()));
    }
    for node in &topology.nodes {
        publish(node);
    }
    for client in clients {
        assert!(all_answer(client), "{}", client.name());
    }
}
