//! What `status` counts is what happened: flows, bytes, resets and refusals, from outside and from the node itself.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use lb_tests::{
    asking::ask as probe,
    lab::{servers::Server, wait_until},
    stage::{PATIENCE, Stage, connect},
};
use serde_json::Value;

/// Sent by a client and echoed.
const PAYLOAD: &[u8] = &[b'x'; 10_000];

/// One service of one server, of which nothing else knows.
const SERVICES: &str = "services:
- {address: 10.99.0.1, port: 80, backends: [10.77.0.11:80]}
- {address: 10.99.0.2, port: 80, backends: [10.77.0.11:81]}
- {address: 10.99.0.3, port: 80, backends: [{address: '10.77.0.13:80', weight: 0}]}
- {address: 10.99.0.4, port: 80, max-flows: 1, backends: [10.77.0.12:80]}
- {address: 10.99.0.5, port: 80, protocol: udp, backends: [10.77.0.11:80]}
";

/// What the service at this address counts.
fn service<'a>(status: &'a Value, addr: &str) -> &'a Value {
    let services = status["services"].as_array();
    let found = services
        .into_iter()
        .flatten()
        .find(|s| s["addrs"][0] == *addr);
    found.unwrap_or(&Value::Null)
}

/// What its only backend counts.
fn backend<'a>(status: &'a Value, addr: &str) -> &'a Value {
    &service(status, addr)["backends"][0]["traffic"]
}

/// Waits until `shown` holds, and says what there is instead if it never does.
fn expect(stage: &Stage, what: &str, shown: impl Fn(&Value) -> bool) {
    let seen = wait_until(what, PATIENCE, || shown(&stage.status()));
    if seen.is_err() {
        panic!("{what}: {:#}", stage.status()["services"]);
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn ask(stream: &mut TcpStream) {
    stream.write_all(PAYLOAD).expect("sent");
    let mut echoed = vec![0; PAYLOAD.len()];
    stream.read_exact(&mut echoed).expect("echoed");
}

#[test]
fn connections_from_outside_are_counted_with_their_bytes_handshakes_and_resets() {
    let stage = Stage::up(SERVICES, &[]);
    let client = &stage.clients[0];
    let open = || connect(client, "10.99.0.1:80").expect("a connection").0;
    let mut held: Vec<_> = (0..7).map(|_| open()).collect();
    held.iter_mut().for_each(ask);
    expect(&stage, "seven flows are open", |status| {
        let (whole, one) = (
            &service(status, "10.99.0.1")["traffic"],
            backend(status, "10.99.0.1"),
        );
        let bytes = |key: &str| number(&one[key]);
        // The payload, and headers of at least 40 bytes for each packet.
        let carried = |way: &str| {
            let (bytes, packets) = (
                bytes(&format!("bytes_{way}")),
                bytes(&format!("packets_{way}")),
            );
            bytes >= 70_000 + 40 * packets && bytes <= 70_014 + 60 * packets
        };
        whole["flows_new"] == 7
            && whole["flows_active"] == 7
            && whole["flows_refused"] == 0
            && one["flows_new"] == 7
            && one["flows_active"] == 7
            && one["flows_closed"] == 0
            && one["handshakes"] == 7
            && number(&one["handshake_ns"]) > 7 * 1_000
            && whole["handshakes"]
                .as_array()
                .is_some_and(|all| all.iter().map(number).sum::<u64>() == 7)
            && carried("in")
            && carried("out")
            && ["packets_in", "packets_out", "bytes_in", "bytes_out"]
                .iter()
                .all(|key| whole[key] == one[key])
    });
    // Unread bytes make the kernel reset at the end.
    let mut rude = held.pop().expect("seven");
    rude.write_all(b"hello").expect("sent");
    let mut seen = [0; 1];
    rude.read_exact(&mut seen).expect("echoed");
    drop(rude);
    drop(held);
    expect(&stage, "all have ended, one by a reset", |status| {
        let one = backend(status, "10.99.0.1");
        one["flows_closed"] == 7
            && one["flows_active"] == 0
            && one["client_resets"] == 1
            && one["backend_resets"] == 0
            && service(status, "10.99.0.1")["traffic"]["flows_active"] == 0
    });
    for _ in 0..3 {
        connect(client, "10.99.0.2:80").expect_err("nobody listens there");
        connect(client, "10.99.0.3:80").expect_err("there is no backend");
    }
    let _one = connect(client, "10.99.0.4:80").expect("it may have one");
    connect(client, "10.99.0.4:80").expect_err("and no more");
    expect(&stage, "refusals are counted by who refused", |status| {
        let refused = |addr: &str| number(&service(status, addr)["traffic"]["flows_refused"]);
        let one = backend(status, "10.99.0.2");
        one["backend_resets"] == 3
            && one["handshakes"] == 0
            && refused("10.99.0.2") == 0
            && refused("10.99.0.3") >= 3
            && refused("10.99.0.4") >= 1
    });
}

#[test]
fn connections_of_the_node_itself_are_counted_alike() {
    let stage = Stage::up(SERVICES, &[]);
    let shell = |script: &str| {
        let done = stage.node.run(&["bash", "-c", script]).expect("bash runs");
        done.ok()
    };
    let talk = "exec 3<>/dev/tcp/10.99.0.1/80; head -c 2 <&3 >/dev/null; \
                printf %05d 1 >&3; head -c 5 <&3 >/dev/null";
    for _ in 0..4 {
        shell(talk).expect("an answer");
    }
    expect(&stage, "four connections have come and gone", |status| {
        let (whole, one) = (
            &service(status, "10.99.0.1")["traffic"],
            backend(status, "10.99.0.1"),
        );
        whole["flows_new"] == 4
            && whole["flows_active"] == 0
            && one["flows_new"] == 4
            && one["flows_closed"] == 4
            && one["flows_active"] == 0
            && one["bytes_in"] == 4 * 5
            && one["bytes_out"] == 4 * 7
            // SYN, ACK, payload and FIN of each at least, and what answers them.
            && number(&one["packets_in"]) >= 4 * 4
            && number(&one["packets_out"]) >= 4 * 3
            && one["handshakes"] == 4
            && number(&one["handshake_ns"]) > 4_000
            && one["client_resets"] == 0
            && one["backend_resets"] == 0
    });
    // What was not read makes the kernel reset when the shell ends.
    shell(
        "exec 3<>/dev/tcp/10.99.0.1/80; head -c 2 <&3 >/dev/null; \
           printf %05d 1 >&3; while ! read -t 0 -u 3; do sleep 0.01; done",
    )
    .expect("it is sent");
    shell("exec 3<>/dev/tcp/10.99.0.2/80").expect_err("nobody listens there");
    shell("exec 3<>/dev/tcp/10.99.0.3/80").expect_err("there is no backend");
    expect(
        &stage,
        "a reset, a failure and a refusal are counted",
        |status| {
            backend(status, "10.99.0.1")["client_resets"] == 1
                && backend(status, "10.99.0.2")["failed"] == 1
                && backend(status, "10.99.0.2")["flows_active"] == 0
                && service(status, "10.99.0.3")["traffic"]["flows_refused"] == 1
        },
    );
    let mut held = stage
        .node
        .start(
            "held",
            &["bash", "-c", "exec 3<>/dev/tcp/10.99.0.1/80; sleep 60"],
        )
        .expect("started");
    expect(&stage, "a connection that lives is active", |status| {
        backend(status, "10.99.0.1")["flows_active"] == 1
    });
    held.signal(rustix::process::Signal::KILL).expect("killed");
    expect(&stage, "it has ended", |status| {
        backend(status, "10.99.0.1")["flows_active"] == 0
    });
}

#[test]
fn udp_sockets_of_the_node_itself_are_flows_until_they_close_and_their_bytes_are_unknown() {
    let stage = Stage::up(SERVICES, &[]);
    let at = "0.0.0.0:80".parse().expect("an address");
    let _echo = Server::udp_echo(&stage.servers[0], at, "s1").expect("a server");
    let counts = |status: &Value, new: u64, active: u64| {
        let (whole, one) = (
            &service(status, "10.99.0.5")["traffic"],
            backend(status, "10.99.0.5"),
        );
        let all_alike = [
            ("flows_new", new),
            ("flows_active", active),
            ("flows_closed", new - active),
        ]
        .iter()
        .all(|(key, count)| one[*key] == *count);
        all_alike
            && whole["flows_new"] == new
            && whole["flows_active"] == active
            && whole["connections"]["closed"] == new - active
    };
    expect(&stage, "nothing has come", |status| {
        counts(status, 0, 0) && backend(status, "10.99.0.5")["bytes_in"] == 0
    });
    let script = "exec 3<>/dev/udp/10.99.0.5/80; echo >&3; head -c 2 <&3; \
                  exec 4<>/dev/udp/10.99.0.5/80; echo >&4; head -c 2 <&4; sleep 60";
    let mut held = stage
        .node
        .start("held", &["bash", "-c", script])
        .expect("started");
    expect(&stage, "two connected sockets are two flows", |status| {
        counts(status, 2, 2)
    });
    for key in ["packets_in", "packets_out", "bytes_in", "bytes_out"] {
        let status = stage.status();
        assert!(backend(&status, "10.99.0.5")[key].is_null(), "{key}");
        let whole = &service(&status, "10.99.0.5")["traffic"];
        assert!(whole[key].is_null(), "{key}");
    }
    let flags = ["--mode", "udp-unconnected"];
    let asked = probe(&stage.node, "10.99.0.5:80", 5, &flags).expect("it runs");
    assert_eq!(asked.failed, 0, "{asked:?}");
    expect(&stage, "sockets that are closed have ended", |status| {
        counts(status, 7, 2)
    });
    held.signal(rustix::process::Signal::KILL).expect("killed");
    expect(&stage, "a process that dies ends its own", |status| {
        counts(status, 7, 0)
    });
}

#[test]
fn syns_that_a_process_sends_again_are_counted() {
    let stage = Stage::up(SERVICES, &[]);
    stage.servers[0].hush("tcp", 80).expect("it is silent");
    // A SYN is sent again after 1 s, RFC 6298 section 2.1.
    let script = "exec 3<>/dev/tcp/10.99.0.1/80";
    let argv = ["timeout", "-s", "KILL", "2.5", "bash", "-c", script];
    let done = stage.node.run(&argv).expect("bash runs");
    done.ok().expect_err("nobody answers");
    expect(&stage, "the attempt and its SYNs are counted", |status| {
        let (whole, one) = (
            &service(status, "10.99.0.1")["traffic"],
            backend(status, "10.99.0.1"),
        );
        one["failed"] == 1
            && number(&one["syn_retransmits"]) >= 1
            && one["handshakes"] == 0
            && one["flows_active"] == 0
            && one["flows_closed"] == 1
            && whole["connections"]["failed"] == 1
            && whole["connections"]["syn_retransmits"] == one["syn_retransmits"]
    });
}
