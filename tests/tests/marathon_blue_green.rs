//! A service port that is handed from one app to another task by task, as Marathon-LB's `zdd.py` does it: the next step
//! is taken from what the agents' statistics show.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use lb_tests::{
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

const OLD: &str = "/shop-green";
const NEW: &str = "/shop-blue";

/// A line of the CSV by its fields.
type Row = BTreeMap<String, String>;

/// One of the two apps of the group. `started`: which is the newer one; `kept`: so many of it are to stand beside the
/// other's, 0 for all.
fn app(id: &str, instances: u64, port: u16, started: &str, kept: u64) -> Value {
    json!({
        "id": id, "cmd": "./app", "instances": instances, "ports": [port],
        "labels": {
            "HAPROXY_GROUP": "external", "HAPROXY_0_PORT": "10000", "HAPROXY_DEPLOYMENT_GROUP": "shop",
            "HAPROXY_DEPLOYMENT_ALT_PORT": "10001", "HAPROXY_APP_ID": "shop",
            "HAPROXY_DEPLOYMENT_COLOUR": id.trim_start_matches("/shop-"),
            "HAPROXY_DEPLOYMENT_STARTED_AT": started, "HAPROXY_DEPLOYMENT_NEW_INSTANCES": kept.to_string(),
            "HAPROXY_DEPLOYMENT_TARGET_INSTANCES": INSTANCES.to_string(),
        },
    })
}

/// What all agents show of the group's servers, read as `zdd.py` reads it: the CSV of one after that of another, every
/// line with as many values as there are names, names that can be those of fields, and the one process of each.
fn servers(topology: &Topology) -> Vec<Row> {
    let at = ADMIN.parse().expect("an address");
    let get = |host: &Host, target: &str| {
        let reply = host.enter(|| http::get(at, target)).expect("a namespace");
        let reply = reply.expect("a page");
        assert_eq!(reply.status, 200, "{target}: {}", reply.body);
        reply.body
    };
    let mut all = String::new();
    for host in &topology.nodes {
        let pids = get(host, "/_haproxy_getpids");
        assert_eq!(
            pids.split_whitespace().count(),
            1,
            "two are a reload: {pids}"
        );
        all += &get(host, "/haproxy?stats;csv");
    }
    let mut lines = all.lines();
    let head = lines.next().expect("a head").trim_start_matches(['#', ' ']);
    let names: Vec<_> = head.trim_end_matches(',').split(',').collect();
    let is_name = |name: &&str| {
        let mut chars = name.chars();
        chars.next().is_some_and(|c| c.is_ascii_alphabetic())
            && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    assert!(names.iter().all(is_name), "{names:?}");
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    let rows = lines
        .filter(|line| !line.starts_with('#'))
        .map(|line| -> Row {
            assert!(!line.contains(['\'', '"']), "nothing is quoted: {line}");
            let values: Vec<_> = line.split(',').map(str::to_owned).collect();
            // What comes after the last comma is left out.
            assert_eq!(values.len() - 1, names.len(), "{line:?}");
            names
                .iter()
                .map(|name| (*name).to_owned())
                .zip(values)
                .collect()
        });
    let ours = rows.filter(|row| row["pxname"] == PROXY);
    ours.filter(|row| !["FRONTEND", "BACKEND"].contains(&&*row["svname"]))
        .collect()
}

fn are(rows: &[Row], status: &str) -> u64 {
    rows.iter().filter(|row| row["status"] == status).count() as u64
}

/// In maintenance, and nobody's connection is left; what is empty counts as 0.
fn is_drained(row: &Row) -> bool {
    let none = |name: &str| ["", "0"].contains(&&*row[name]);
    row["status"] == "MAINT" && none("scur") && none("qcur")
}

/// The tasks that are drained at every agent.
fn drained_of(topology: &Topology, app: &str, shown: &[Row]) -> Vec<String> {
    let tasks = topology.tasks(app).expect("tasks").into_iter();
    let drained = tasks.filter(|task| {
        let host = task["host"].as_str().expect("a host").replace('.', "_");
        let server = format!("{host}_{}", task["ports"][0]);
        let rows = shown.iter().filter(|row| row["svname"] == server);
        rows.filter(|row| is_drained(row)).count() == topology.nodes.len()
    });
    let id = |task: Value| task["id"].as_str().expect("an id").to_owned();
    drained.map(id).collect()
}

/// Waits until every agent shows so many servers, enough of them UP and one that can be killed; the tasks of `old` that
/// all agents show as drained.
fn drained(topology: &Topology, old: &str, servers_in_all: u64) -> Vec<String> {
    let agents = topology.nodes.len() as u64;
    let (mut shown, mut gone) = (Vec::new(), Vec::new());
    let settled = wait_until("the next step can be taken", PATIENCE, || {
        shown = servers(topology);
        let ready = shown.len() as u64 == servers_in_all * agents
            && are(&shown, "UP") >= INSTANCES * agents;
        // One with a client at one agent may be idle at another.
        gone = if ready {
            drained_of(topology, old, &shown)
        } else {
            Vec::new()
        };
        !gone.is_empty()
    });
    settled.unwrap_or_else(|why| panic!("{why:#}: {shown:?}"));
    gone
}

/// Has `new` take the place of `old` step by step; how many new ones and how many drained old ones there were at each.
/// `keep`: the end is so many new ones beside the rest of the old ones, as with `--new-instances`.
fn hand_over(topology: &Topology, old: &str, new: &str, keep: Option<u64>) -> Vec<(u64, usize)> {
    let most = keep.unwrap_or(INSTANCES);
    let mut steps = Vec::new();
    loop {
        let (of_new, of_old) = (instances(topology, new), instances(topology, old));
        if keep == Some(of_new) && of_old == INSTANCES - of_new {
            return steps;
        }
        // Where there are no more than are wanted none is drained: zdd.py loses patience and goes on.
        let gone = match of_new + of_old > INSTANCES {
            true => drained(topology, old, of_new + of_old),
            false => Vec::new(),
        };
        steps.push((of_new, gone.len()));
        if of_new == INSTANCES && gone.len() as u64 == of_old {
            let path = format!("/v2/apps{old}");
            let deleted = topology.marathon("DELETE", &path, &Value::Null);
            deleted.expect("deleted");
            return steps;
        }
        if !gone.is_empty() {
            topology
                .marathon("POST", "/v2/tasks/delete?scale=true", &json!({"ids": gone}))
                .expect("killed");
        }
        if of_new < most {
            let more = of_new + of_new.div_ceil(2);
            let more = match keep {
                Some(keep) => more.min(keep),
                None if more >= of_old => INSTANCES,
                None => more,
            };
            let scaled = topology.put_app(new, &json!({"instances": more}));
            scaled.expect("scaled");
        }
    }
}

/// Waits until every agent shows as many servers as are wanted, all of them UP.
fn all_up(topology: &Topology) {
    let all = INSTANCES * topology.nodes.len() as u64;
    let mut shown = Vec::new();
    let up = wait_until("all that are left are up", PATIENCE, || {
        shown = servers(topology);
        shown.len() as u64 == all && are(&shown, "UP") == all
    });
    up.unwrap_or_else(|why| panic!("{why:#}: {shown:?}"));
}

fn instances(topology: &Topology, app: &str) -> u64 {
    let shown = topology.marathon("GET", &format!("/v2/apps{app}"), &Value::Null);
    let instances = &shown.expect("an app")["app"]["instances"];
    instances.as_u64().expect("a number")
}

/// The old app, which answers, and the tasks that do.
fn begun() -> (Topology, BTreeSet<String>) {
    let topology = Topology::up(Wishes {
        agent_flags: ["--marathon-group", "external"].map(String::from).into(),
        kill_delay: 500,
        ..Wishes::default()
    })
    .expect("a topology");
    let old = app(OLD, INSTANCES, 10_000, "2020-01-01T00:00:00", 0);
    topology.put_app(OLD, &old).expect("the old app");
    let before = answering(&topology);
    (topology, before)
}

/// Waits until as many tasks as are wanted answer, and all questions are answered.
fn answering(topology: &Topology) -> BTreeSet<String> {
    let mut tasks = BTreeSet::new();
    wait_until("all tasks answer", PATIENCE, || {
        let outcome = ask(&topology.client, PUBLIC, 40, &[]).expect("probe");
        tasks = outcome.by_answer.into_keys().collect();
        outcome.failed == 0 && tasks.len() as u64 == INSTANCES
    })
    .expect("they do");
    tasks
}

/// Nobody who asked meanwhile was left without an answer.
fn unharmed(steady: Steady) {
    let outcome = steady.stop().expect("an outcome");
    assert!(outcome.answered > 100 && outcome.failed == 0, "{outcome:?}");
}

#[test]
fn a_group_goes_over_to_its_new_app_without_a_failed_connection() {
    let (topology, before) = begun();
    let steady = Steady::start(&topology.client, PUBLIC, &[]).expect("a client");
    let new = app(NEW, 1, 10_001, "2020-01-02T00:00:00.5", 0);
    topology.put_app(NEW, &new).expect("the new app");
    let steps = hand_over(&topology, OLD, NEW, None);
    all_up(&topology);
    unharmed(steady);
    assert!(answering(&topology).is_disjoint(&before));
    // One task of the old app goes for each new one that is there.
    assert_eq!(steps.first(), Some(&(1, 1)), "{steps:?}");
    assert!(
        steps.len() >= 2 && steps.iter().all(|(_, gone)| *gone > 0),
        "{steps:?}"
    );
}

#[test]
fn a_group_stays_between_its_apps_for_as_long_as_is_wanted_and_goes_either_way() {
    const KEPT: u64 = 2;
    for (ends_with, goes) in [(NEW, OLD), (OLD, NEW)] {
        let (topology, before) = begun();
        let steady = Steady::start(&topology.client, PUBLIC, &[]).expect("a client");
        let new = app(NEW, 1, 10_001, "2020-01-02T00:00:00.5", KEPT);
        topology.put_app(NEW, &new).expect("the new app");
        let steps = hand_over(&topology, OLD, NEW, Some(KEPT));
        let gone: usize = steps.iter().map(|(_, gone)| gone).sum();
        assert_eq!(gone as u64, KEPT, "one for each new one: {steps:?}");
        all_up(&topology);
        let split = answering(&topology);
        assert_eq!(split.intersection(&before).count() as u64, INSTANCES - KEPT);
        unharmed(steady);
        // `--complete-cur`, and `--complete-prev`.
        let steady = Steady::start(&topology.client, PUBLIC, &[]).expect("a client");
        hand_over(&topology, goes, ends_with, None);
        all_up(&topology);
        unharmed(steady);
        let after = answering(&topology);
        let stayed = after.intersection(&split).count() as u64;
        assert_eq!(stayed, KEPT, "{after:?} after {split:?}");
        let of_old = after.intersection(&before).count() as u64;
        let expected = if ends_with == OLD {
            INSTANCES - KEPT
        } else {
            0
        };
        assert_eq!(of_old, expected, "{after:?} after {before:?}");
    }
}
