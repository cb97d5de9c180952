//! What the operator says of backends: at once, over restarts, and against everybody else.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use lb_tests::{
    lab::wait_until,
    stage::{PATIENCE, Stage, connect},
};
use serde_json::Value;

const VIP: &str = "10.99.0.1:80";
const FIRST: &str = "10.77.0.11:80";

fn file(keys: &str) -> String {
    let services = ["10.99.0.1", "10.99.0.2"].map(|vip| {
        format!(
            "- {{address: {vip}, port: 80, {keys} backends: [{{address: '{FIRST}', name: task-1}}, \
             '10.77.0.12:80']}}\n"
        )
    });
    format!("services:\n{}", services.concat())
}

/// Runs a subcommand that must succeed; what it printed.
fn order(stage: &Stage, words: &[&str]) -> String {
    let done = stage.run(words);
    assert_eq!(done.status.code(), Some(0), "{words:?}: {}", done.stderr);
    done.stdout
}

fn shares(stage: &Stage, vip: &str, count: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..count {
        let (_, name) = connect(&stage.clients[0], vip).expect("a connection");
        *shares.entry(name).or_default() += 1;
    }
    shares
}

fn only(stage: &Stage, vip: &str, name: &str) {
    let shares = shares(stage, vip, 40);
    assert_eq!(shares.keys().collect::<Vec<_>>(), [name], "{vip}");
}

fn both(stage: &Stage, vip: &str) {
    assert_eq!(shares(stage, vip, 40).len(), 2, "{vip}");
}

/// State and reason of the first backend in the first service.
fn first(status: &Value) -> (String, String) {
    let shown = &status["services"][0]["backends"][0];
    let text = |key: &str| shown[key].as_str().unwrap_or("-").to_owned();
    (text("state"), text("why"))
}

/// A connection to the first backend.
fn held(stage: &Stage) -> TcpStream {
    loop {
        let (stream, name) = connect(&stage.clients[0], VIP).expect("a connection");
        if name == "s1" {
            return stream;
        }
    }
}

fn goes_on(mut stream: &TcpStream) -> bool {
    let mut echoed = [0; 4];
    stream.write_all(b"ping").is_ok() && stream.read_exact(&mut echoed).is_ok()
}

#[test]
fn what_drains_takes_nothing_new_and_keeps_what_it_has_also_after_a_restart() {
    let mut stage = Stage::up(&file(""), &[]);
    let stream = held(&stage);
    let said = order(&stage, &["drain", FIRST]);
    assert!(
        said.contains("10.77.0.11:80 of 10.99.0.1:80/tcp: draining"),
        "{said}"
    );
    // The command comes back when it is so.
    only(&stage, VIP, "s2");
    only(&stage, "10.99.0.2:80", "s2");
    assert!(goes_on(&stream), "what it has goes on");
    let by = "by the operator".to_owned();
    assert_eq!(first(&stage.status()), ("draining".to_owned(), by.clone()));
    stage.revive();
    only(&stage, VIP, "s2");
    assert!(goes_on(&stream), "what it has goes on");
    order(&stage, &["maintenance", "task-1"]);
    assert_eq!(first(&stage.status()), ("maintenance".to_owned(), by));
    order(&stage, &["ready", FIRST]);
    both(&stage, VIP);
    both(&stage, "10.99.0.2:80");
    assert_eq!(stage.status()["operator"], serde_json::json!([]));
    assert!(goes_on(&stream));
}

#[test]
fn one_service_can_be_meant_and_one_backend_weigh_more() {
    let mut stage = Stage::up(&file(""), &[]);
    order(&stage, &["drain", "--service", "10.99.0.1:80", FIRST]);
    only(&stage, VIP, "s2");
    both(&stage, "10.99.0.2:80");
    order(&stage, &["ready", FIRST]);
    both(&stage, VIP);
    order(&stage, &["weight", FIRST, "9"]);
    let shares = shares(&stage, VIP, 200);
    // 180 are expected; 150 are more than six standard deviations away.
    assert!(shares["s1"] > 150, "{shares:?}");
    stage.revive();
    let shown = stage.status()["services"][0]["backends"][0].clone();
    assert_eq!(shown["weight"], 9, "also after a restart: {shown}");
    assert_eq!(shown["why"], "weight by the operator");
    order(&stage, &["weight", FIRST, "0"]);
    only(&stage, VIP, "s2");
    let wrong = stage.run(&["drain", "10.77.0.99:80"]);
    assert_eq!(wrong.status.code(), Some(1));
    let why = "there is no backend 10.77.0.99:80; `lb-agent status` lists them";
    assert!(wrong.stderr.contains(why), "{}", wrong.stderr);
    let wrong = stage.run(&["drain"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", wrong.stderr);
}

#[test]
fn after_the_deadline_what_is_left_is_reset_on_both_paths() {
    let stage = Stage::up(&file(""), &[]);
    let outside = held(&stage);
    let script = "while :; do exec 3<>/dev/tcp/10.99.0.1/80; [ $(head -c 2 <&3) = s1 ] && break; done; \
                  echo open; head -c 1 <&3; echo over; sleep 60";
    let inside = stage.node.start("client", &["bash", "-c", script]);
    let inside = inside.expect("started");
    wait_until("it is connected", PATIENCE, || inside.stdout() == "open\n").expect("it is");
    order(&stage, &["drain", FIRST, "--deadline", "3"]);
    assert!(goes_on(&outside), "it is not over yet");
    assert_eq!(inside.stdout(), "open\n");
    wait_until("the process is told", PATIENCE, || {
        inside.stdout() == "open\nover\n"
    })
    .expect("it is");
    wait_until("the client outside is reset", PATIENCE, || {
        !goes_on(&outside)
    })
    .expect("it is");
    let (state, why) = first(&stage.status());
    assert_eq!(state, "draining");
    assert_eq!(why, "by the operator; what was left was reset");
    only(&stage, VIP, "s2");
    order(&stage, &["drain", "10.77.0.12", "--deadline", "0"]);
    let refused = connect(&stage.clients[0], VIP).expect_err("nobody is left");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    order(&stage, &["ready", FIRST]);
    order(&stage, &["ready", "10.77.0.12"]);
    both(&stage, VIP);
}

#[test]
fn the_backends_of_the_node_can_be_drained_together() {
    let own = "services:\n- {address: 10.99.0.1, port: 80, backends: ['10.77.0.1:8080', '10.77.0.12:80']}\n";
    let stage = Stage::up(own, &[]);
    let at = "0.0.0.0:8080".parse().expect("an address");
    let _own = lb_tests::lab::servers::Server::tcp_echo(&stage.node, at, "me").expect("a server");
    both(&stage, VIP);
    order(&stage, &["drain", "--node"]);
    only(&stage, VIP, "s2");
    order(&stage, &["ready", "--node"]);
    both(&stage, VIP);
}

#[test]
fn a_backend_that_comes_starts_slowly() {
    let one = |backends: &str| {
        format!(
            "services:\n- {{address: 10.99.0.1, port: 80, slow-start: 20s, backends: [{backends}]}}\n"
        )
    };
    let stage = Stage::up(&one("'10.77.0.12:80'"), &[]);
    only(&stage, VIP, "s2");
    stage.write(&one("'10.77.0.11:80', '10.77.0.12:80'"), |status| {
        status["services"][0]["backends"][1].is_object()
    });
    let early = shares(&stage, VIP, 100);
    // A ninth at first, a fifth 2.5 s later, half of them in the end.
    assert!(early.get("s1").copied().unwrap_or(0) < 35, "{early:?}");
    assert_eq!(first(&stage.status()).1, "slow start");
    wait_until("it has started", Duration::from_secs(60), || {
        first(&stage.status()).1 == "-"
    })
    .expect("it does");
    let late = shares(&stage, VIP, 200);
    assert!(late["s1"] > 60, "{late:?}");
}
