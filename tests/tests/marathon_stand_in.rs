//! The Marathon stand-in: its shapes, its events, and tasks that really answer.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    io::Read,
    net::SocketAddr,
    time::{Duration, Instant},
};

use lb_tests::{
    apps::{APP2, app2, in_container, on_host, tied_to},
    lab::{Process, http, programs::program, wait_for, wait_until},
    probe::Outcome,
    topology::{MARATHON, MASTER, Topology, Wishes},
};
use serde_json::{Value, json};

const NONE: Value = Value::Null;

fn topology() -> Topology {
    Topology::without_agents(Wishes {
        kill_delay: 200,
        ..Wishes::default()
    })
    .expect("a topology")
}

/// Reads an event stream on a thread until the connection ends.
fn watch(topology: &Topology, query: &str) -> impl Fn() -> String + use<> {
    let headers = [("Accept", "text/event-stream")];
    let path = format!("/v2/events{query}");
    let open = || http::open(MARATHON, "GET", &path, &headers, "");
    let mut stream = topology
        .master()
        .enter(open)
        .expect("enter")
        .expect("a stream");
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("a time-out");
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let writer = std::sync::Arc::clone(&seen);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            writer
                .lock()
                .expect("a lock")
                .extend_from_slice(&buffer[..length]);
        }
    });
    move || String::from_utf8_lossy(&seen.lock().expect("a lock")).into_owned()
}

fn address_of(task: &Value) -> String {
    format!(
        "{}:{}",
        task["host"].as_str().expect("a host"),
        task["ports"][0]
    )
}

#[test]
fn a_task_runs_where_the_api_says_and_answers_over_tcp_and_udp() {
    let topology = topology();
    topology.put_app(APP2, &app2()).expect("app2");
    let tasks = topology.tasks(APP2).expect("tasks");
    assert_eq!(tasks.len(), 1);
    assert_eq!(
        (&tasks[0]["state"], &tasks[0]["servicePorts"]),
        (&json!("TASK_RUNNING"), &json!([]))
    );

    let to = address_of(&tasks[0]);
    let curl = topology
        .client
        .run(&["curl", "-s", &format!("http://{to}/")])
        .expect("curl");
    let page = curl.ok().expect("a page");
    let port = &tasks[0]["ports"][0];
    assert!(
        page.starts_with(&format!("Running on node 'worker1' and port '{port}'\n")),
        "{page}"
    );
    assert!(page.contains("client 10.77.0.100:"), "{page}");

    let probe = program("probe").expect("the probe");
    for mode in ["tcp", "udp", "udp-unconnected"] {
        let asked = topology
            .client
            .run(&[&probe, &to, "--mode", mode, "--count", "20"])
            .expect("probe");
        let outcome: Outcome = serde_json::from_str(&asked.ok().expect("exit 0")).expect("JSON");
        assert_eq!(
            (outcome.answered, outcome.failed),
            (20, 0),
            "{mode}: {outcome:?}"
        );
        assert_eq!(outcome.by_peer.get(&to), Some(&20), "{mode}");
    }
}

#[test]
fn scaling_up_spreads_and_scaling_down_stops_the_youngest() {
    let topology = topology();
    topology.put_app(APP2, &app2()).expect("app2");
    let first = topology.tasks(APP2).expect("tasks");
    topology
        .put_app(APP2, &json!({"instances": 2}))
        .expect("scaled up");
    let both = topology.tasks(APP2).expect("tasks");
    assert_eq!(both.len(), 2);
    assert_ne!(both[0]["host"], both[1]["host"]);
    topology
        .put_app(APP2, &json!({"instances": 1}))
        .expect("scaled down");
    let left = topology.tasks(APP2).expect("tasks");
    assert_eq!(left[0]["id"], first[0]["id"]);

    let gone = format!("http://{}/", address_of(&both[1]));
    let curl = topology.client.run(&["curl", "-s", &gone]).expect("curl");
    assert_eq!(curl.status.code(), Some(7), "curl: connection refused");
}

#[test]
fn events_tell_what_happens_in_the_order_it_does() {
    let topology = topology();
    let seen = watch(&topology, "?plan-format=light");
    wait_until("attached", Duration::from_secs(5), || {
        seen().contains("event_stream_attached")
    })
    .expect("it");
    topology.put_app(APP2, &app2()).expect("app2");
    topology
        .put_app(APP2, &json!({"instances": 0}))
        .expect("scaled to nothing");
    let text = wait_for("the end", Duration::from_secs(10), || {
        Some(seen()).filter(|text| text.matches("event: deployment_success").count() == 2)
    })
    .expect("two deployments");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert!(head.contains("text/event-stream;charset=utf-8"), "{head}");
    assert!(!head.to_lowercase().contains("chunked"), "{head}");
    let states: Vec<&str> = body
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter_map(|data| data.split("\"taskStatus\":\"").nth(1)?.split('"').next())
        .collect();
    let expected = [
        "TASK_STAGING",
        "TASK_STARTING",
        "TASK_RUNNING",
        "TASK_KILLING",
        "TASK_KILLED",
    ];
    assert_eq!(states, expected);
    assert!(body.contains("event: api_post_event\r\ndata: {"), "{body}");
}

#[test]
fn a_filtered_stream_carries_what_was_asked_for_and_heart_beats() {
    let topology = Topology::without_agents(Wishes::default()).expect("a topology");
    let seen = watch(&topology, "?event_type=api_post_event");
    topology
        .put_app("/a", &on_host("a", "udp", 5000, 0))
        .expect("an app");
    let start = Instant::now();
    let text = wait_for("a heart-beat", Duration::from_secs(15), || {
        Some(seen()).filter(|text| text.ends_with("}\r\n\r\n\r\n"))
    })
    .expect("within 10 s and a bit");
    assert!(
        start.elapsed() > Duration::from_secs(5),
        "a heart-beat comes every 10 s"
    );
    assert_eq!(text.matches("event: ").count(), 1, "{text}");
}

#[test]
fn the_stream_wants_exactly_its_accept_header() {
    let topology = topology();
    for accept in ["text/event-stream, */*", "*/*", "application/json"] {
        let ask = || http::open(MARATHON, "GET", "/v2/events", &[("Accept", accept)], "");
        let reply = topology
            .master()
            .enter(|| ask().and_then(http::read))
            .expect("enter")
            .expect("it");
        assert_eq!(reply.status, 405, "{accept}");
    }
}

#[test]
fn the_api_has_the_shapes_of_marathon() {
    let topology = topology();
    topology.put_app(APP2, &app2()).expect("app2");
    let get = |path: &str| topology.marathon("GET", path, &NONE).expect(path);

    let bare = get("/v2/apps");
    assert!(bare["apps"][0].get("tasks").is_none());
    let full = get("/v2/apps?embed=apps.tasks&embed=apps.readiness");
    let app = &full["apps"][0];
    assert_eq!(
        app["portDefinitions"][0]["labels"]["VIP_0"],
        "/dcos-101/app2:10000"
    );
    assert_eq!(
        (&app["tasksRunning"], &app["networks"]),
        (&json!(1), &json!([{"mode": "host"}]))
    );
    assert_eq!(app["tasks"][0]["appId"], APP2);
    assert!(
        app.get("healthChecks").is_none() && app.get("ipAddress").is_none(),
        "no nulls: {app}"
    );
    assert_eq!(get("/v2/tasks")["tasks"][0]["servicePorts"], json!([10000]));

    let one = get("/v2/apps//dcos-101/app2");
    let version = one["app"]["version"].as_str().expect("a version");
    assert_eq!(
        get(&format!("/v2/apps/{APP2}/versions"))["versions"],
        json!([version])
    );
    assert_eq!(
        get(&format!("/v2/apps/{APP2}/versions/{version}"))["id"],
        APP2
    );
    let config = one["app"]["versionInfo"]["lastConfigChangeAt"].clone();
    topology
        .put_app(APP2, &json!({"instances": 2}))
        .expect("scaled");
    let scaled = get("/v2/apps//dcos-101/app2");
    assert_ne!(scaled["app"]["version"], one["app"]["version"]);
    assert_eq!(scaled["app"]["versionInfo"]["lastConfigChangeAt"], config);

    assert_eq!(get("/v2/pods/::status"), json!([]));
    assert_eq!(
        get("/v2/info")["marathon_config"]["framework_name"],
        "marathon"
    );
    assert_eq!(get("/v2/leader")["leader"], "10.77.0.1:8080");
    let nope = topology
        .master()
        .enter(|| http::get(MARATHON, "/v2/apps//nope"))
        .expect("enter");
    let nope = nope.expect("an answer");
    assert_eq!(
        (nope.status, nope.json().expect("JSON")),
        (404, json!({"message": "App '/nope' does not exist"}))
    );
    let ping = topology
        .master()
        .enter(|| http::get(MARATHON, "/ping"))
        .expect("enter")
        .expect("it");
    assert_eq!(ping.body.trim(), "pong");
    assert_eq!(
        ping.header("X-Marathon-Leader"),
        Some("http://10.77.0.1:8080")
    );
}

#[test]
fn deleting_an_app_stops_its_tasks() {
    let topology = topology();
    topology.put_app(APP2, &app2()).expect("app2");
    let to = address_of(&topology.tasks(APP2).expect("tasks")[0]);
    topology
        .marathon("DELETE", &format!("/v2/apps/{APP2}"), &NONE)
        .expect("deleted");
    wait_until("nothing answers", Duration::from_secs(10), || {
        let curl = topology
            .client
            .run(&["curl", "-s", "-m", "1", &format!("http://{to}/")]);
        curl.is_ok_and(|curl| curl.status.code() == Some(7))
    })
    .expect("it stops");
    assert_eq!(
        topology.marathon("GET", "/v2/apps", &NONE).expect("apps"),
        json!({"apps": []})
    );
}

#[test]
fn a_container_task_has_addresses_of_its_own_in_both_families() {
    let topology = topology();
    topology
        .put_app("/six", &in_container("six", "tcp", 8080, 1))
        .expect("an app");
    let task = &topology.tasks("/six").expect("tasks")[0];
    assert_eq!(task["ports"], json!([]));
    let addresses: Vec<&str> = task["ipAddresses"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|at| at["ipAddress"].as_str())
        .collect();
    assert_eq!(addresses, ["172.31.3.10", "fd78:3::10"]);
    for url in ["http://172.31.3.10:8080/", "http://[fd78:3::10]:8080/"] {
        let page = topology
            .master()
            .run(&["curl", "-s", url])
            .expect("curl")
            .ok()
            .expect(url);
        assert!(
            page.starts_with("Running on node 'worker3/172.31.3.10' and port '8080'"),
            "{page}"
        );
    }
}

#[test]
fn a_constraint_ties_an_app_to_a_node() {
    let topology = topology();
    topology
        .put_app(
            "/tied",
            &tied_to(on_host("tied", "tcp", 80, 2), "10.77.0.12"),
        )
        .expect("an app");
    let tasks = topology.tasks("/tied").expect("tasks");
    assert!(
        tasks.len() == 2 && tasks.iter().all(|task| task["host"] == "10.77.0.12"),
        "{tasks:?}"
    );
}

#[test]
fn credentials_are_asked_for_and_a_standby_sends_watchers_to_the_leader() {
    let topology = topology();
    let start = |name: &str, argv: &[&str]| -> Process {
        let program = program("marathon-stand-in").expect("it is built");
        let whole = [&[program.as_str()], argv].concat();
        let process = topology.nodes[MASTER]
            .start(name, &whole)
            .expect("it starts");
        wait_until("ready", Duration::from_secs(5), || {
            process.stdout().contains("ready")
        })
        .expect("ready");
        process
    };
    let _guarded = start(
        "guarded",
        &[
            "--listen",
            "10.77.0.1:8081",
            "--http-credentials",
            "user:secret",
        ],
    );
    let _standby = start(
        "standby",
        &[
            "--listen",
            "10.77.0.1:8082",
            "--standby-of",
            "http://10.77.0.1:8081",
        ],
    );
    let ask = |port: u16, path: &str, headers: &[(&str, &str)]| {
        let at = SocketAddr::new(MARATHON.ip(), port);
        let ask = || http::open(at, "GET", path, headers, "").and_then(http::read);
        topology
            .master()
            .enter(ask)
            .expect("enter")
            .expect("an answer")
    };
    let login = ("Authorization", "Basic dXNlcjpzZWNyZXQ=");
    let refused = ask(8081, "/v2/apps", &[]);
    assert_eq!(
        (refused.status, refused.header("WWW-Authenticate")),
        (401, Some("Basic realm=\"Mesosphere\""))
    );
    assert_eq!(ask(8081, "/v2/apps", &[login]).status, 200);
    let handed_on = ask(8082, "/v2/apps", &[login]);
    assert_eq!(
        (
            handed_on.status,
            handed_on.header("X-Marathon-Via").is_some()
        ),
        (200, true)
    );
    let sent = ask(
        8082,
        "/v2/events?plan-format=light",
        &[("Accept", "text/event-stream")],
    );
    assert_eq!(sent.status, 302);
    assert_eq!(
        sent.header("Location"),
        Some("http://10.77.0.1:8081/v2/events?plan-format=light")
    );
}
