//! The main job, end to end: from a Marathon event to an answer by name, for clients on a node, in a
//! container and outside.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::time::Duration;

use lb_tests::{
    apps::{APP2, app2, in_container, on_host},
    asking::{Steady, ask, named},
    lab::{Host, wait_until},
    topology::{Topology, Wishes},
};
use serde_json::{Value, json};

/// As the tutorial writes it, before mangling and zone.
const APP2_NAME: &str = "dcos-101app2";

/// Enough that a fair coin stays within 35-65 % in all but one of ten thousand runs.
const MANY: u32 = 200;

fn clients(topology: &Topology) -> [&Host; 3] {
    [topology.master(), &topology.container, &topology.client]
}

fn with_app(id: &str, app: &Value, name: &str, ipv6: bool) -> Topology {
    let topology = Topology::up(Wishes::default()).expect("a topology");
    topology.put_app(id, app).expect("the app runs");
    topology
        .agreed_vip(name, ipv6)
        .expect("a VIP on every node");
    topology
}

#[test]
fn curl_by_name_answers_on_the_node_in_a_container_and_outside() {
    let topology = with_app(APP2, &app2(), APP2_NAME, false);
    let port = topology.tasks(APP2).expect("tasks")[0]["ports"][0].clone();
    for client in clients(&topology) {
        let url = format!("http://{}/", named(APP2_NAME, 10000));
        let page = client
            .run(&["curl", "-sS", "-m", "5", &url])
            .expect("curl")
            .ok()
            .expect("a page");
        assert!(
            page.starts_with(&format!("Running on node 'worker1' and port '{port}'\n")),
            "{page}"
        );
    }
}

#[test]
fn app2_has_the_address_that_dcos_gives_it() {
    let topology = with_app(APP2, &app2(), APP2_NAME, false);
    let vip = topology.agreed_vip(APP2_NAME, false).expect("a VIP");
    assert_eq!(vip.to_string(), "11.68.84.23");
}

#[test]
fn two_instances_share_new_connections_evenly() {
    let two = json!({"instances": 2});
    let topology = with_app(APP2, &app2(), APP2_NAME, false);
    topology.put_app(APP2, &two).expect("two instances");
    for client in clients(&topology) {
        both_answer(client, &named(APP2_NAME, 10000), &[]);
        let outcome = ask(client, &named(APP2_NAME, 10000), MANY, &[]).expect("probe");
        assert_eq!(
            (outcome.answered, outcome.failed),
            (MANY.into(), 0),
            "{}: {outcome:?}",
            client.name()
        );
        assert!(
            (0.35..=0.65).contains(&outcome.largest_share()),
            "{}: {outcome:?}",
            client.name()
        );
        assert_eq!(outcome.by_answer.len(), 2, "{}: {outcome:?}", client.name());
    }
}

#[test]
fn no_connection_fails_while_app2_scales_up_and_down() {
    let topology = with_app(APP2, &app2(), APP2_NAME, false);
    scales_without_a_failure(&topology, APP2, &named(APP2_NAME, 10000), &[]);
}

#[test]
fn no_datagram_is_lost_while_a_udp_app_scales_up_and_down() {
    let topology = with_app("/udp", &on_host("udp", "udp", 5000, 1), "udp", false);
    scales_without_a_failure(&topology, "/udp", &named("udp", 5000), &["--mode", "udp"]);
}

#[test]
fn no_connection_fails_while_an_ipv6_app_scales_up_and_down() {
    let topology = with_app("/six", &in_container("six", "tcp", 8080, 1), "six", true);
    scales_without_a_failure(&topology, "/six", &named("six", 8080), &["--ipv6"]);
}

#[test]
fn a_name_is_gone_with_its_app() {
    let topology = with_app(APP2, &app2(), APP2_NAME, false);
    topology
        .marathon("DELETE", &format!("/v2/apps/{APP2}"), &Value::Null)
        .expect("deleted");
    let dig = [
        "dig",
        "+time=1",
        "+tries=1",
        &format!("{APP2_NAME}.{}", lb_tests::topology::ZONE),
    ];
    wait_until("NXDOMAIN on every node", Duration::from_secs(15), || {
        let gone = |node: &Host| {
            node.run(&dig)
                .is_ok_and(|dig| dig.stdout.contains("status: NXDOMAIN"))
        };
        topology.nodes.iter().all(gone)
    })
    .expect("the name is gone");
}

/// Until an agent has heard of both instances; no answer may fail meanwhile.
fn both_answer(client: &Host, to: &str, flags: &[&str]) {
    wait_until(
        &format!("both instances answer {}", client.name()),
        Duration::from_secs(10),
        || {
            let outcome = ask(client, to, 20, flags).expect("probe");
            assert_eq!(outcome.failed, 0, "{}: {outcome:?}", client.name());
            outcome.by_answer.len() == 2
        },
    )
    .expect("both");
}

fn scales_without_a_failure(topology: &Topology, id: &str, to: &str, flags: &[&str]) {
    let steady =
        clients(topology).map(|client| Steady::start(client, to, flags).expect("a client"));
    topology
        .put_app(id, &json!({"instances": 2}))
        .expect("scaled up");
    for client in clients(topology) {
        both_answer(client, to, flags);
    }
    topology
        .put_app(id, &json!({"instances": 1}))
        .expect("scaled down");
    for (steady, client) in steady.into_iter().zip(clients(topology)) {
        let outcome = steady.stop().expect("counts");
        assert_eq!(outcome.failed, 0, "{}: {outcome:?}", client.name());
        assert!(
            outcome.answered > 50 && outcome.by_answer.len() == 2,
            "{}: {outcome:?}",
            client.name()
        );
        let after = ask(client, to, 50, flags).expect("probe");
        assert_eq!(
            (after.failed, after.by_answer.len()),
            (0, 1),
            "{}: {after:?}",
            client.name()
        );
    }
}
