//! Service ports: what Marathon-LB opened on a public node is open on every node whose agent serves the group.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::time::Duration;

use lb_tests::{
    apps::{APP2, app2, on_host},
    asking::{Steady, ask, expect_all, named},
    lab::{Host, wait_until},
    probe::Outcome,
    topology::{MASTER, Topology, Wishes},
};
use serde_json::{Value, json};

/// The tutorial's `<public node>:10000`.
const PUBLIC: &str = "10.77.0.1:10000";
/// Where apps may have addresses of their own.
const IP_VIPS: &str = "11.250.0.0/16";
const PATIENCE: Duration = Duration::from_secs(20);
const QUESTIONS: u32 = 40;

fn topology() -> Topology {
    Topology::up(Wishes {
        agent_flags: ["--marathon-group", "external", "--ip-vips", IP_VIPS]
            .map(String::from)
            .into(),
        kill_delay: 500,
        ..Wishes::default()
    })
    .expect("a topology")
}

/// An app of the group with one service port, and no VIP of its own choice.
fn app(name: &str, instances: u32, labels: Value) -> Value {
    let mut app = on_host(name, "tcp", 10_000, instances);
    app["portDefinitions"][0]["labels"] = json!({});
    app["labels"] = labels;
    app["labels"]["HAPROXY_GROUP"] = json!("external");
    app
}

fn answers(host: &Host, to: &str) -> Outcome {
    ask(host, to, QUESTIONS, &[]).expect("probe")
}

/// Waits until so many tasks answer there, and nothing fails.
fn answered_by(host: &Host, to: &str, tasks: usize) {
    wait_until(&format!("{tasks} tasks answer at {to}"), PATIENCE, || {
        let outcome = answers(host, to);
        outcome.failed == 0 && outcome.by_answer.len() == tasks
    })
    .unwrap_or_else(|error| panic!("{}: {error:#}: {:?}", host.name(), answers(host, to)));
}

fn is_refused(host: &Host, to: &str) -> bool {
    let outcome = answers(host, to);
    let refused = outcome.errors.keys().all(|error| error.contains("refused"));
    outcome.answered == 0 && refused
}

fn problems(topology: &Topology) -> String {
    topology.status(MASTER).expect("status")["providers"].to_string()
}

fn said(topology: &Topology, reason: &str) {
    wait_until(reason, PATIENCE, || problems(topology).contains(reason))
        .unwrap_or_else(|error| panic!("{error:#}: {}", problems(topology)));
    let log = topology.agents[MASTER].as_ref().expect("an agent").stderr();
    assert_eq!(
        log.matches(reason).count(),
        1,
        "once, not again and again: {log}"
    );
}

#[test]
fn the_public_node_answers_at_the_service_port_of_its_group() {
    let topology = topology();
    topology.put_app(APP2, &app2()).expect("app2");
    for host in [&topology.client, topology.master()] {
        answered_by(host, PUBLIC, 1);
    }
    let steady = Steady::start(&topology.client, PUBLIC, &[]).expect("a client");
    topology
        .put_app(APP2, &json!({"instances": 2}))
        .expect("scaled up");
    for host in [&topology.client, topology.master()] {
        answered_by(host, PUBLIC, 2);
    }
    topology
        .put_app(APP2, &json!({"instances": 1}))
        .expect("scaled down");
    answered_by(&topology.client, PUBLIC, 1);
    let outcome = steady.stop().expect("an outcome");
    assert!(outcome.answered > 20 && outcome.failed == 0, "{outcome:?}");

    // The VIP of the label and the service port are one; the group concerns the port alone.
    let by_name = named("dcos-101app2", 10_000);
    answered_by(topology.master(), &by_name, 1);
    let other = json!({"labels": {"HAPROXY_GROUP": "internal"}});
    topology
        .put_app(APP2, &other)
        .expect("moved to another group");
    wait_until("the port is closed", PATIENCE, || {
        is_refused(&topology.client, PUBLIC) && is_refused(topology.master(), PUBLIC)
    })
    .expect("it is");
    answered_by(topology.master(), &by_name, 1);
}

#[test]
fn a_service_port_of_udp_and_tcp_is_open_for_both_on_every_node() {
    let topology = topology();
    let mut both = app("both", 1, json!({}));
    both["portDefinitions"][0]["protocol"] = json!("udp,tcp");
    topology.put_app("/both", &both).expect("it runs");
    for node in ["10.77.0.1", "10.77.0.11", "10.77.0.12", "10.77.0.13"] {
        let to = format!("{node}:10000");
        answered_by(&topology.client, &to, 1);
        let outcome = ask(&topology.client, &to, QUESTIONS, &["--mode", "udp"]).expect("probe");
        let to = to.parse().expect("an address");
        expect_all(&outcome, to, None).unwrap_or_else(|error| panic!("{to}: {error:#}"));
    }
}

#[test]
fn a_port_that_two_apps_claim_stays_with_the_first_and_wrong_labels_harm_nobody() {
    let topology = topology();
    topology
        .put_app("/first", &app("first", 1, json!({})))
        .expect("first");
    answered_by(&topology.client, PUBLIC, 1);
    let first = answers(&topology.client, PUBLIC).by_answer;
    for (name, labels, reason) in [
        (
            "a-second",
            json!({}),
            "VIP a-second.marathon.l4lb.thisdcos.directory:10000 cannot have port 10000/tcp of this node: VIP \
             first.marathon.l4lb.thisdcos.directory:10000 has it, which came first",
        ),
        (
            "reaching",
            json!({"HAPROXY_0_PORT": "22"}),
            "VIP reaching.marathon.l4lb.thisdcos.directory:22 cannot have port 22/tcp of this node: it is outside \
             --node-ports 10000-20000",
        ),
        (
            "wrong",
            json!({"HAPROXY_0_PORT": "70000"}),
            "service port 0 is not served: label HAPROXY_0_PORT: \\\"70000\\\" is not a port (1-65535)",
        ),
        (
            "web",
            json!({"HAPROXY_0_PORT": "10010", "HAPROXY_0_PATH": "/shop"}),
            "label HAPROXY_0_PATH: no effect: paths of requests are not looked at: the port serves all of them",
        ),
        (
            "bound",
            json!({"HAPROXY_0_BIND_ADDR": "10.77.0.1"}),
            "IP VIP 10.77.0.1 is the address of a node, a resolver or an orchestrator",
        ),
    ] {
        topology
            .put_app(&format!("/{name}"), &app(name, 1, labels))
            .expect(name);
        said(&topology, reason);
        assert_eq!(
            answers(&topology.client, PUBLIC).by_answer.len(),
            1,
            "{name}"
        );
    }
    let now = answers(&topology.client, PUBLIC);
    assert_eq!(now.failed, 0, "{now:?}");
    assert_eq!(
        now.by_answer.keys().collect::<Vec<_>>(),
        first.keys().collect::<Vec<_>>()
    );
    answered_by(&topology.client, "10.77.0.1:10010", 1);
    // Its VIP works all the same.
    answered_by(topology.master(), &named("a-second", 10_000), 1);

    topology
        .marathon("DELETE", "/v2/apps//first", &Value::Null)
        .expect("deleted");
    wait_until("the second has the port", PATIENCE, || {
        let outcome = answers(&topology.client, PUBLIC);
        outcome.failed == 0
            && outcome
                .by_answer
                .keys()
                .all(|answer| !first.contains_key(answer))
    })
    .expect("it comes next");
}

#[test]
fn an_address_to_bind_is_served_in_place_of_the_nodes() {
    let topology = topology();
    let labels = json!({"HAPROXY_0_BIND_ADDR": "11.250.0.9"});
    topology
        .put_app("/bound", &app("bound", 1, labels))
        .expect("it runs");
    for host in [&topology.client, topology.master()] {
        answered_by(host, "11.250.0.9:10000", 1);
        assert!(is_refused(host, PUBLIC), "{}", host.name());
    }
}

#[test]
fn only_clients_of_the_allowed_networks_reach_a_service_port() {
    let topology = topology();
    let allowed = |nets: &str| {
        app(
            "guarded",
            1,
            json!({"HAPROXY_0_BACKEND_NETWORK_ALLOWED_ACL": nets}),
        )
    };
    topology
        .put_app("/guarded", &allowed("10.77.0.64/26 fd77::/64"))
        .expect("guarded");
    answered_by(&topology.client, PUBLIC, 1);
    topology
        .put_app("/guarded", &allowed("192.0.2.0/24 10.77.0.12"))
        .expect("guarded otherwise");
    wait_until("the client is kept out", PATIENCE, || {
        let outcome = ask(&topology.client, PUBLIC, 2, &[]).expect("probe");
        outcome.answered == 0
    })
    .expect("it is");
}

#[test]
fn a_deployment_takes_old_tasks_out_as_new_ones_come_in_and_no_connection_fails() {
    let topology = topology();
    let colour = |name: &str, instances: u32, started: &str| {
        app(
            name,
            instances,
            json!({
                "HAPROXY_DEPLOYMENT_GROUP": "shop", "HAPROXY_0_PORT": "10000",
                "HAPROXY_DEPLOYMENT_STARTED_AT": started,
                "HAPROXY_DEPLOYMENT_TARGET_INSTANCES": "2", "HAPROXY_DEPLOYMENT_NEW_INSTANCES": "0",
            }),
        )
    };
    let blue = colour("shop-blue", 2, "2026-01-01T00:00:00.000Z");
    topology.put_app("/shop-blue", &blue).expect("blue");
    answered_by(&topology.client, PUBLIC, 2);
    let blues = answers(&topology.client, PUBLIC).by_answer;
    let steady = Steady::start(&topology.client, PUBLIC, &[]).expect("a client");
    let inside = Steady::start(topology.master(), &named("shop", 10_000), &[]).expect("a client");

    let green = colour("shop-green", 1, "2026-02-01T00:00:00.000Z");
    topology.put_app("/shop-green", &green).expect("green");
    let mixed = || -> (usize, usize) {
        let outcome = answers(&topology.client, PUBLIC);
        let old = outcome
            .by_answer
            .keys()
            .filter(|answer| blues.contains_key(*answer));
        let old = old.count();
        (old, outcome.by_answer.len() - old)
    };
    wait_until("one old and one new task answer", PATIENCE, || {
        mixed() == (1, 1)
    })
    .unwrap_or_else(|error| panic!("{error:#}: {:?}", mixed()));
    let services = topology.status(MASTER).expect("status")["services"].to_string();
    assert!(
        services.contains("maintenance: replaced by a new task"),
        "{services}"
    );

    topology
        .put_app("/shop-blue", &json!({"instances": 1}))
        .expect("one old task goes");
    topology
        .put_app("/shop-green", &json!({"instances": 2}))
        .expect("all new ones");
    wait_until("only new tasks answer", PATIENCE, || mixed() == (0, 2))
        .unwrap_or_else(|error| panic!("{error:#}: {:?}", mixed()));
    topology
        .marathon("DELETE", "/v2/apps//shop-blue", &Value::Null)
        .expect("deleted");
    wait_until("its task is gone", PATIENCE, || {
        topology
            .tasks("/shop-blue")
            .map_or(true, |tasks| tasks.is_empty())
    })
    .expect("it is");
    assert_eq!(mixed(), (0, 2));
    for (client, steady) in [("outside", steady), ("inside", inside)] {
        let outcome = steady.stop().expect("an outcome");
        assert!(
            outcome.answered > 20 && outcome.failed == 0,
            "{client}: {outcome:?}"
        );
    }
}
