//! A service port that is handed from one app to another task by task, as Marathon-LB's `zdd.py` does it: the next step is
//! taken from what the agents' statistics show.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::time::Duration;

use lb_tests::{
    admin::{Rows, rows_of},
    asking::{Steady, ask},
    lab::{Host, http, wait_until},
    topology::{Topology, Wishes},
};
use serde_json::{Value, json};

const PUBLIC: &str = "10.77.0.1:10000";
const ADMIN: &str = "127.0.0.1:9090";
/// Deployment group and service port.
const PROXY: &str = "shop_10000";
const INSTANCES: u64 = 4;
const PATIENCE: Duration = Duration::from_secs(30);

/// One of the two apps of the group. `started`: which is the newer one.
fn app(colour: &str, instances: u64, port: u16, started: &str) -> Value {
    json!({
        "id": format!("/shop-{colour}"), "cmd": "./app", "instances": instances, "ports": [port],
        "labels": {
            "HAPROXY_GROUP": "external", "HAPROXY_0_PORT": "10000", "HAPROXY_DEPLOYMENT_GROUP": "shop",
            "HAPROXY_DEPLOYMENT_ALT_PORT": "10001", "HAPROXY_DEPLOYMENT_COLOUR": colour,
            "HAPROXY_DEPLOYMENT_STARTED_AT": started, "HAPROXY_DEPLOYMENT_NEW_INSTANCES": "0",
            "HAPROXY_DEPLOYMENT_TARGET_INSTANCES": INSTANCES.to_string(),
        },
    })
}

/// The servers of the group, as one agent's statistics show them.
fn servers(host: &Host) -> Rows {
    let at = ADMIN.parse().expect("an address");
    let csv = host.enter(|| http::get(at, "/haproxy?stats;csv"));
    let csv = csv.expect("a namespace").expect("a page").body;
    let mut rows = rows_of(&csv, PROXY);
    rows.retain(|server, _| server != "FRONTEND" && server != "BACKEND");
    rows
}

fn is_drained(row: &std::collections::BTreeMap<String, String>) -> bool {
    row["status"] == "MAINT" && row["scur"] == "0" && row["qcur"] == "0"
}

/// Whether all agents show it as drained.
fn everywhere(shown: &[Rows], server: &str) -> bool {
    let mut agents = shown.iter();
    agents.all(|rows| rows.get(server).is_some_and(is_drained))
}

/// Waits until every agent shows so many servers, enough of them UP and one that can be killed; the tasks of `old` that
/// all agents show as drained.
fn drained(topology: &Topology, old: &str, servers_in_all: u64) -> Vec<String> {
    let mut shown = Vec::new();
    let settled = wait_until("the next step can be taken", PATIENCE, || {
        shown = topology.nodes.iter().map(servers).collect();
        let ready = shown.iter().all(|rows: &Rows| {
            let up = rows.values().filter(|row| row["status"] == "UP").count();
            rows.len() as u64 == servers_in_all && up as u64 >= INSTANCES
        });
        // One with a client at one agent may be idle at another.
        ready && shown[0].keys().any(|server| everywhere(&shown, server))
    });
    settled.unwrap_or_else(|why| panic!("{why:#}: {shown:?}"));
    let tasks = topology.tasks(old).expect("tasks").into_iter();
    let drained = tasks.filter(|task| {
        let host = task["host"].as_str().expect("a host").replace('.', "_");
        let server = format!("{host}_{}", task["ports"][0]);
        everywhere(&shown, &server)
    });
    drained
        .map(|task| task["id"].as_str().expect("an id").to_owned())
        .collect()
}

fn instances(topology: &Topology, app: &str) -> u64 {
    let shown = topology.marathon("GET", &format!("/v2/apps{app}"), &Value::Null);
    let instances = &shown.expect("an app")["app"]["instances"];
    instances.as_u64().expect("a number")
}

#[test]
fn a_group_goes_over_to_its_new_app_without_a_failed_connection() {
    let topology = Topology::up(Wishes {
        agent_flags: ["--marathon-group", "external"].map(String::from).into(),
        kill_delay: 500,
        ..Wishes::default()
    })
    .expect("a topology");
    let (old, new) = ("/shop-green", "/shop-blue");
    topology
        .put_app(old, &app("green", INSTANCES, 10_000, "2020-01-01T00:00:00"))
        .expect("the old app");
    let answering = || ask(&topology.client, PUBLIC, 40, &[]).expect("probe");
    wait_until("the old app answers", PATIENCE, || {
        let outcome = answering();
        outcome.failed == 0 && outcome.by_answer.len() as u64 == INSTANCES
    })
    .expect("it does");
    let before = answering().by_answer;

    let steady = Steady::start(&topology.client, PUBLIC, &[]).expect("a client");
    topology
        .put_app(new, &app("blue", 1, 10_001, "2020-01-02T00:00:00.5"))
        .expect("the new app");
    let mut steps = Vec::new();
    loop {
        let (of_new, of_old) = (instances(&topology, new), instances(&topology, old));
        let gone = drained(&topology, old, of_new + of_old);
        steps.push((of_new, gone.len()));
        if of_new == INSTANCES && gone.len() as u64 == of_old {
            break;
        }
        topology
            .marathon("POST", "/v2/tasks/delete?scale=true", &json!({"ids": gone}))
            .expect("killed");
        let more = of_new + of_new.div_ceil(2);
        let left = of_old - gone.len() as u64;
        let more = if more >= left { INSTANCES } else { more };
        topology
            .put_app(new, &json!({"instances": more}))
            .expect("scaled");
    }
    topology
        .marathon("DELETE", "/v2/apps/shop-green", &Value::Null)
        .expect("deleted");
    wait_until("only the new app answers", PATIENCE, || {
        let rows = servers(topology.master());
        rows.len() as u64 == INSTANCES && rows.values().all(|row| row["status"] == "UP")
    })
    .expect("it does");
    let outcome = steady.stop().expect("an outcome");
    assert!(outcome.answered > 100 && outcome.failed == 0, "{outcome:?}");
    let after = answering();
    assert_eq!(after.failed, 0, "{after:?}");
    assert_eq!(after.by_answer.len() as u64, INSTANCES);
    assert!(
        after
            .by_answer
            .keys()
            .all(|task| !before.contains_key(task))
    );
    // One task of the old app goes for each new one that is there.
    assert_eq!(steps.first(), Some(&(1, 1)), "{steps:?}");
    assert!(
        steps.len() >= 2 && steps.iter().all(|(_, gone)| *gone > 0),
        "{steps:?}"
    );
}
