//! What HAProxy's orders over the stats socket do to traffic.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
};

use lb_tests::{
    admin::{PROXY, SERVERS, VIP, ask, expect_status, page, rows, run, socket, stage, venv},
    lab::{servers::Server, wait_until},
    stage::{PATIENCE, Stage, connect},
};

/// The first server, as commands name it.
fn first() -> String {
    format!("{PROXY}/{}", SERVERS[0])
}

/// Gives an order that is obeyed.
fn order(stage: &Stage, command: &str) {
    assert_eq!(ask(stage, command), "\n", "{command}");
}

/// Who answers twenty new connections.
fn seen(stage: &Stage) -> BTreeSet<String> {
    let one = |_| connect(&stage.clients[0], VIP).expect("a connection").1;
    (0..20).map(one).collect()
}

fn only(stage: &Stage, name: &str) {
    assert_eq!(seen(stage), [name.to_owned()].into());
}

fn both(stage: &Stage) {
    assert_eq!(seen(stage).len(), 2);
}

fn refused(stage: &Stage) {
    let error = connect(&stage.clients[0], VIP).expect_err("it is refused");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

/// A connection to this server.
fn held(stage: &Stage, wanted: &str) -> TcpStream {
    loop {
        let (stream, name) = connect(&stage.clients[0], VIP).expect("a connection");
        if name == wanted {
            return stream;
        }
    }
}

fn goes_on(mut stream: &TcpStream) -> bool {
    let mut echoed = [0; 4];
    stream.write_all(b"ping").is_ok() && stream.read_exact(&mut echoed).is_ok()
}

fn status(stage: &Stage, row: &str) -> String {
    rows(&ask(stage, "show stat"))[row]["status"].clone()
}

#[test]
fn sessions_that_are_shut_down_are_reset_and_new_ones_go_on_coming() {
    let stage = stage("");
    let (one, other) = (held(&stage, "s1"), held(&stage, "s2"));
    let script = "while :; do exec 3<>/dev/tcp/10.99.0.1/80; [ $(head -c 2 <&3) = s1 ] && break; done; \
                  echo open; head -c 1 <&3; echo over; sleep 60";
    let inside = stage.node.start("client", &["bash", "-c", script]);
    let inside = inside.expect("started");
    wait_until("it is connected", PATIENCE, || inside.stdout() == "open\n").expect("it is");
    assert!(goes_on(&one) && goes_on(&other));
    // As haproxyadmin does it.
    let program = "import sys\n\
                   from haproxyadmin import haproxy\n\
                   [server] = haproxy.HAProxy(socket_file=sys.argv[1]).server(sys.argv[2], backend=sys.argv[3])\n\
                   assert server.shutdown()\n";
    let python = venv().join("bin/python").display().to_string();
    let path = socket(&stage);
    run(&stage, &[&python, "-c", program, &path, SERVERS[0], PROXY]);
    wait_until("the process is told", PATIENCE, || {
        inside.stdout() == "open\nover\n"
    })
    .expect("it is");
    assert_eq!(rows(&ask(&stage, "show stat"))[SERVERS[0]]["scur"], "0");
    assert!(!goes_on(&one), "the client outside is reset");
    assert!(goes_on(&other), "those of another server go on");
    assert_eq!(status(&stage, SERVERS[0]), "UP");
    both(&stage);
    let again = held(&stage, "s1");
    let told = stage.print(&["reset", "10.77.0.11:80"]);
    assert!(told.contains("reset at their next packet: "), "{told}");
    assert!(!goes_on(&again));
}

#[test]
fn forced_health_holds_until_ready_also_over_a_restart() {
    let mut stage = stage("check: tcp interval=200ms,");
    let server = first();
    let stream = held(&stage, "s1");
    order(&stage, &format!("set server {server} health stopping"));
    only(&stage, "s2");
    assert_eq!(status(&stage, SERVERS[0]), "NOLB");
    assert!(goes_on(&stream), "what it has goes on");
    order(&stage, &format!("set server {server} health down"));
    only(&stage, "s2");
    assert_eq!(status(&stage, SERVERS[0]), "DOWN");
    assert!(!goes_on(&stream), "what it has is reset");
    let events = page(&stage, "/v1/events");
    assert!(events.contains("health stopping"), "{events}");
    stage.revive();
    expect_status(&stage, SERVERS[0], "DOWN");
    only(&stage, "s2");
    let why = stage.status()["services"][0]["backends"][0]["why"].clone();
    assert_eq!(why, "by the operator");
    // Forced down is no failure: nobody else has it fail open.
    let other = format!("{PROXY}/{}", SERVERS[1]);
    order(&stage, &format!("set server {other} health down"));
    refused(&stage);
    assert_eq!(status(&stage, "BACKEND"), "DOWN");
    order(&stage, &format!("set server {other} state ready"));
    only(&stage, "s2");
    order(&stage, &format!("set server {server} state ready"));
    expect_status(&stage, SERVERS[0], "UP");
    both(&stage);
}

#[test]
fn up_by_force_is_up_although_checks_fail_and_checks_that_are_stopped_say_nothing_new() {
    let mut stage = stage("check: tcp interval=200ms,");
    let server = first();
    order(&stage, &format!("disable health {server}"));
    drop(stage.echoes.remove(0));
    let row = || rows(&ask(&stage, "show stat"))[SERVERS[0]].clone();
    let still = wait_until("nothing", std::time::Duration::from_secs(2), || {
        row()["status"] != "UP"
    });
    assert!(still.is_err(), "nobody asks it: {:?}", row()["status"]);
    assert_eq!(row()["check_status"], "");
    order(&stage, &format!("enable health {server}"));
    expect_status(&stage, SERVERS[0], "DOWN");
    order(&stage, &format!("set server {server} health up"));
    assert_eq!(status(&stage, SERVERS[0]), "UP");
    let at = "0.0.0.0:80".parse().expect("an address");
    let _again = Server::tcp_echo(&stage.servers[0], at, "s1").expect("a server");
    wait_until("both take connections", PATIENCE, || {
        seen(&stage).len() == 2
    })
    .expect("they do");
}

#[test]
fn a_frontend_that_is_disabled_takes_nothing_new_and_limits_hold() {
    let mut stage = stage("");
    let stream = held(&stage, "s1");
    order(&stage, &format!("disable frontend {PROXY}"));
    refused(&stage);
    assert!(goes_on(&stream), "what it has goes on");
    assert_eq!(status(&stage, "FRONTEND"), "STOP");
    assert_eq!(status(&stage, "BACKEND"), "UP");
    stage.revive();
    expect_status(&stage, "FRONTEND", "STOP");
    refused(&stage);
    assert!(goes_on(&stream), "what it has goes on");
    order(&stage, &format!("enable frontend {PROXY}"));
    both(&stage);
    assert_eq!(status(&stage, "FRONTEND"), "OPEN");
    // One connection of s1 is there.
    order(&stage, &format!("set maxconn server {} 1", first()));
    only(&stage, "s2");
    let limit = |row: &str| rows(&ask(&stage, "show stat"))[row]["slim"].clone();
    assert_eq!(limit(SERVERS[0]), "1");
    order(&stage, &format!("set maxconn server {} 0", first()));
    assert_eq!(limit(SERVERS[0]), "");
    both(&stage);
    order(&stage, &format!("set maxconn frontend {PROXY} 1"));
    assert_eq!(limit("FRONTEND"), "1");
    refused(&stage);
    order(&stage, &format!("set maxconn frontend {PROXY} 0"));
    both(&stage);
}
