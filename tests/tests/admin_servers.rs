//! Servers that HAProxy's orders add, move and remove, and what that does to traffic.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::TcpStream,
};

use lb_tests::{
    admin::{PROXY, SERVERS, VIP, ask, expect_status, rows, services, stage},
    lab::wait_until,
    stage::{PATIENCE, Stage, connect},
};
use serde_json::Value;

/// A server of the operator's own, as commands name it.
fn new() -> String {
    format!("{PROXY}/new")
}

fn expect(stage: &Stage, command: &str, answer: &str) {
    assert_eq!(ask(stage, command), format!("{answer}\n"), "{command}");
}

/// Takes out the two servers of the file, and has them back.
fn others(stage: &Stage, word: &str) {
    for server in SERVERS {
        expect(stage, &format!("{word} server {PROXY}/{server}"), "");
    }
}

fn only(stage: &Stage, name: &str) {
    let one = |_| connect(&stage.clients[0], VIP).expect("a connection").1;
    let seen: BTreeSet<_> = (0..20).map(one).collect();
    assert_eq!(seen, [name.to_owned()].into());
}

fn goes_on(mut stream: &TcpStream) -> bool {
    let mut echoed = [0; 4];
    stream.write_all(b"ping").is_ok() && stream.read_exact(&mut echoed).is_ok()
}

/// A field of a server's row; `None`: there is no such row.
fn field(stage: &Stage, server: &str, field: &str) -> Option<String> {
    let rows = rows(&ask(stage, "show stat"));
    Some(rows.get(server)?[field].clone())
}

/// What `status` says of the operator's own server, if it does.
fn own(status: &Value) -> Option<Value> {
    let words = status["operator"].as_array()?;
    let own = words.iter().find(|word| word["server"] == new())?;
    Some(own.clone())
}

#[test]
fn a_server_that_is_added_takes_flows_outlives_the_agent_and_goes_when_it_is_removed() {
    let mut stage = stage("");
    let (add, del) = (
        format!("add server {} 10.77.0.13:80 weight 3", new()),
        format!("del server {}", new()),
    );
    expect(&stage, &add, "New server registered.\n");
    let taken = "Already exists a server with the same name in backend.\n";
    expect(&stage, &add, taken);
    assert_eq!(field(&stage, "new", "status").as_deref(), Some("MAINT"));
    assert_eq!(field(&stage, "new", "uweight").as_deref(), Some("3"));
    others(&stage, "disable");
    connect(&stage.clients[0], VIP).expect_err("it takes no flows yet");
    expect(&stage, &format!("enable server {}", new()), "");
    only(&stage, "s3");
    stage.revive();
    expect_status(&stage, "new", "UP");
    only(&stage, "s3");
    let status = stage.status();
    let backends = status["services"][0]["backends"].as_array();
    let third = backends.and_then(|all| all.iter().find(|one| one["addr"] == "10.77.0.13:80"));
    assert_eq!(third.expect("it is there")["provider"], "operator:servers");
    assert!(own(&status).expect("it is told")["unused_since"].is_null());
    let (stream, _) = connect(&stage.clients[0], VIP).expect("a connection");
    let active = "Only servers in maintenance mode can be deleted.\n";
    expect(&stage, &del, active);
    others(&stage, "enable");
    expect(&stage, &format!("disable server {}", new()), "");
    wait_until("its connection is counted", PATIENCE, || {
        field(&stage, "new", "scur").as_deref() == Some("1")
    })
    .expect("it is");
    let busy = "Server still has connections attached to it, cannot remove it.\n";
    expect(&stage, &del, busy);
    assert!(goes_on(&stream), "what it has goes on");
    drop(stream);
    let mut last = String::new();
    wait_until("its connection is over", PATIENCE, || {
        last = ask(&stage, &del);
        last != format!("{busy}\n")
    })
    .expect("it is");
    assert_eq!(last, "Server deleted.\n\n");
    assert_eq!(field(&stage, "new", "status"), None);
    expect(&stage, &del, "No such server.\n");
    stage.revive();
    expect_status(&stage, SERVERS[0], "UP");
    assert_eq!(field(&stage, "new", "status"), None);
}

#[test]
fn a_server_of_a_service_that_is_gone_waits_for_it_or_to_be_removed() {
    let stage = stage("");
    let add = format!("add server {} 10.77.0.13:80 enabled", new());
    expect(&stage, &add, "New server registered.\n");
    others(&stage, "disable");
    only(&stage, "s3");
    let gone = services("").replace("10.99.0.1", "10.99.0.2");
    let waits = |status: &Value| own(status).is_some_and(|own| own["unused_since"].is_number());
    stage.write(&gone, waits);
    connect(&stage.clients[0], VIP).expect_err("its service is gone");
    stage.write(&services(""), |status| !waits(status));
    only(&stage, "s3");
    stage.write(&gone, waits);
    expect(
        &stage,
        &format!("del server {}", new()),
        "Server deleted.\n",
    );
    assert!(own(&stage.status()).is_none());
    stage.write(&services(""), |status| {
        status["services"][0]["addrs"][0] == "10.99.0.1"
    });
    assert_eq!(field(&stage, "new", "status"), None);
}

#[test]
fn a_server_of_the_file_is_moved_under_its_name_and_back() {
    let mut stage = stage("");
    let [first, second] = SERVERS.map(|server| format!("{PROXY}/{server}"));
    expect(&stage, &format!("disable server {second}"), "");
    only(&stage, "s1");
    let moved = "IP changed from '10.77.0.11' to '10.77.0.13' by 'stats socket command'\n";
    expect(
        &stage,
        &format!("set server {first} addr 10.77.0.13"),
        moved,
    );
    only(&stage, "s3");
    stage.revive();
    expect_status(&stage, SERVERS[0], "UP");
    only(&stage, "s3");
    let addr = field(&stage, SERVERS[0], "addr");
    assert_eq!(addr.as_deref(), Some("10.77.0.13:80"));
    let back = "IP changed from '10.77.0.13' to '10.77.0.11', no need to change the port by 'stats socket command'\n";
    expect(
        &stage,
        &format!("set server {first} addr 10.77.0.11 port 80"),
        back,
    );
    only(&stage, "s1");
    let words = stage.status()["operator"].as_array().map(Vec::len);
    assert_eq!(words, Some(1), "that the second is in maintenance");
}

#[test]
fn checks_ask_at_the_port_that_the_operator_says_over_restarts_until_he_takes_it_back() {
    let mut stage = stage("check: tcp interval=200ms,");
    let at = |port| format!("set server {PROXY}/{} check-port {port}", SERVERS[0]);
    // Nobody listens there.
    expect(&stage, &at(81), "health check port updated.\n");
    expect_status(&stage, SERVERS[0], "DOWN");
    only(&stage, "s2");
    assert_eq!(
        field(&stage, SERVERS[0], "check_status").as_deref(),
        Some("L4CON")
    );
    let state = ask(&stage, &format!("show servers state {PROXY}"));
    let of_first = |line: &&str| line.split(' ').nth(3) == Some(SERVERS[0]);
    let line = state.lines().find(of_first).expect("a line");
    assert_eq!(line.split(' ').nth(21), Some("81"), "{line}");
    stage.revive();
    expect_status(&stage, SERVERS[0], "DOWN");
    only(&stage, "s2");
    expect(&stage, &at(0), "health check port updated.\n");
    expect_status(&stage, SERVERS[0], "UP");
}
