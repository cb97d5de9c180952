//! What becomes of connections, old and new, as Marathon says that a task is unwell, about to be killed, or gone.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use lb_tests::{
    answers::Answers,
    lab::wait_until,
    stage::{PATIENCE, Stage, connect},
};
use serde_json::{Value, json};

const VIP: &str = "10.99.0.9:80";
/// Of so many connections one goes to each of two tasks, but once in a billion times.
const MANY: usize = 30;
/// How soon after Marathon has said so a task gets no new connection.
const SOON: Duration = Duration::from_millis(100);
const ROUNDS: usize = 10;

/// What Marathon says of a task: its state, and the result of its health check.
#[derive(Clone, Copy)]
struct Said(&'static str, Option<bool>);

const WELL: Said = Said("TASK_RUNNING", Some(true));
const UNWELL: Said = Said("TASK_RUNNING", Some(false));
const NOT_CHECKED: Said = Said("TASK_RUNNING", None);
const KILLING: Said = Said("TASK_KILLING", Some(true));
const KILLED: Said = Said("TASK_KILLED", None);

/// The app with a task on each of the first two servers.
fn app(said: [Said; 2]) -> Value {
    let task = |(server, Said(state, alive)): (usize, Said)| {
        let results = alive.map(|alive| json!({"alive": alive}));
        json!({
            "id": format!("web.instance-{server}._app.1"), "appId": "/web", "host": format!("10.77.0.1{server}"),
            "state": state, "ports": [80], "healthCheckResults": results.into_iter().collect::<Vec<_>>(),
        })
    };
    json!({
        "id": "/web", "instances": 2, "networks": [{"mode": "host"}], "healthChecks": [{"protocol": "TCP"}],
        "portDefinitions": [{"port": 10000, "protocol": "tcp", "labels": {"VIP_0": VIP}}],
        "tasks": (1..).zip(said).map(task).collect::<Vec<_>>(),
    })
}

/// Has Marathon say so, and tell of it by an event about the app.
fn say(marathon: &Answers, said: [Said; 2]) {
    let app = app(said);
    marathon.set("/v2/apps", &json!({"apps": [app]}));
    marathon.set("/v2/apps/web", &json!({"app": app}));
    marathon.event(&json!({"eventType": "status_update_event", "appId": "/web"}));
}

fn up() -> (Stage, Answers) {
    let stage = Stage::up("", &["--marathon", "http://10.77.0.1:8080"]);
    let at = ([10, 77, 0, 1], 8080).into();
    let apps = json!({"apps": [app([WELL; 2])]});
    let marathon = Answers::serve(&stage.node, at, "marathon", &apps).expect("a Marathon");
    marathon.wait_for_stream().expect("it listens");
    (stage, marathon)
}

/// The servers that new connections come to.
fn reached(stage: &Stage) -> Vec<String> {
    let client = &stage.clients[0];
    let names = (0..MANY).map(|_| connect(client, VIP).map(|(_, name)| name));
    let mut names: Vec<_> = names
        .map(|name| name.unwrap_or_else(|why| why.kind().to_string()))
        .collect();
    names.sort();
    names.dedup();
    names
}

fn becomes(stage: &Stage, expected: &[&str]) {
    let reaches = || reached(stage) == expected;
    let done = wait_until("the right tasks are reached", PATIENCE, reaches);
    done.unwrap_or_else(|why| {
        panic!(
            "{why:#}: {:?} of {expected:?}, {:#}",
            reached(stage),
            stage.status()
        )
    });
}

fn echoes(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.write_all(b"ping")?;
    stream.read_exact(&mut [0; 4])
}

/// Why the first task takes no new connections, as `status` has it.
fn reason(stage: &Stage) -> String {
    let status = stage.status();
    let backends = status["services"][0]["backends"].as_array();
    let mut backends = backends.into_iter().flatten();
    let first = backends.find(|one| one["addr"] == "10.77.0.11:80");
    first.expect("it is shown").to_string()
}

#[test]
fn a_task_that_is_unwell_or_killed_gets_nothing_new_and_keeps_what_it_has_until_it_is_gone() {
    let (stage, marathon) = up();
    let both = ["s1", "s2"];
    becomes(&stage, &both);
    let kept = connection_to(&stage, "s1");
    for (said, why) in [
        (UNWELL, "unhealthy"),
        (NOT_CHECKED, "no health result yet"),
        (KILLING, "TASK_KILLING"),
    ] {
        say(&marathon, [said, WELL]);
        becomes(&stage, &["s2"]);
        let shown = wait_until(why, PATIENCE, || reason(&stage).contains(why));
        shown.unwrap_or_else(|error| panic!("{error:#}: {}", reason(&stage)));
        echoes(&kept).expect(why);
        say(&marathon, [WELL; 2]);
        becomes(&stage, &both);
    }
    // None of them takes any: told at once, and what there is goes on.
    say(&marathon, [UNWELL, KILLING]);
    let refused = ErrorKind::ConnectionRefused.to_string();
    becomes(&stage, &[refused.as_str()]);
    echoes(&kept).expect("it goes on");

    say(&marathon, [KILLED, WELL]);
    becomes(&stage, &["s2"]);
    let over = echoes(&kept).expect_err("its task is gone");
    assert_eq!(over.kind(), ErrorKind::ConnectionReset);
}

/// A connection to this server.
fn connection_to(stage: &Stage, server: &str) -> TcpStream {
    let mut found = None;
    let search = || {
        let (stream, name) = connect(&stage.clients[0], VIP).expect("a connection");
        found = (name == server).then_some(stream);
        found.is_some()
    };
    wait_until("a connection to it", PATIENCE, search).expect("one of two");
    found.expect("it was found")
}

#[test]
fn a_task_gets_no_new_connection_a_tenth_of_a_second_after_marathon_said_that_it_is_killed() {
    let (stage, marathon) = up();
    let mut late = Vec::new();
    for _ in 0..ROUNDS {
        say(&marathon, [WELL; 2]);
        becomes(&stage, &["s1", "s2"]);
        say(&marathon, [KILLING, WELL]);
        let told = Instant::now();
        let (mut last, mut since) = (told, 0);
        while since < MANY {
            let began = Instant::now();
            let (_, name) = connect(&stage.clients[0], VIP).expect("one of them answers");
            if name == "s1" {
                (last, since) = (began, 0);
            } else {
                since += 1;
            }
            assert!(told.elapsed() < PATIENCE, "new ones come to it still");
        }
        let answered = marathon.answered("/v2/apps/web").expect("it was asked");
        assert!(answered > told, "the event had it ask");
        late.push(last.saturating_duration_since(answered));
    }
    late.sort();
    // The machine may have been elsewhere once.
    assert!(late[ROUNDS - 2] < SOON, "{late:?}");
}
