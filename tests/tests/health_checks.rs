//! Backends that do not answer are left alone until they do: active checks, from the file to the client.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    thread,
    time::Instant,
};

use lb_tests::{
    lab::{Host, servers::Server, wait_until},
    stage::{PATIENCE, Stage, connect},
};
use serde_json::Value;

const VIP: &str = "10.99.0.1:80";

fn service(vip: &str, keys: &str, backends: &str) -> String {
    format!("- {{address: {vip}, port: 80, {keys}, backends: [{backends}]}}\n")
}

fn file(services: &[String]) -> String {
    format!("services:\n{}", services.concat())
}

/// A backend of the service at a VIP, as `status` shows it.
fn backend(status: &Value, vip: &str, addr: &str) -> Value {
    let all = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let services = all(&status["services"]);
    let service = services.iter().find(|service| service["addrs"][0] == vip);
    let backends = service.map(|service| all(&service["backends"]));
    let mut backends = backends.unwrap_or_default().into_iter();
    backends
        .find(|backend| backend["addr"] == addr)
        .unwrap_or_default()
}

/// Waits until a backend is in this state, for this reason.
fn becomes(stage: &Stage, vip: &str, addr: &str, state: &str, why: Option<&str>) {
    let what = format!("{addr} of {vip} is {state}: {why:?}");
    wait_until(&what, PATIENCE, || {
        let shown = backend(&stage.status(), vip, addr);
        shown["state"] == state && shown["why"].as_str() == why
    })
    .unwrap_or_else(|error| panic!("{error:#}: {}\n{}", stage.status(), stage.agent.stderr()));
}

/// Who answers of so many connections of a client outside.
fn answers(client: &Host, vip: &str, count: usize) -> Vec<String> {
    let mut names: Vec<_> = (0..count)
        .map(|_| connect(client, vip).expect("a connection").1)
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Who answers of so many connections of processes on the node.
fn answers_at_home(stage: &Stage, vip: &str, count: usize) -> Vec<String> {
    let path = vip.replace(':', "/");
    let script =
        format!("for i in $(seq {count}); do exec 3<>/dev/tcp/{path}; head -c 2 <&3; echo; done");
    let done = stage.node.run(&["bash", "-ec", &script]).expect("it runs");
    let said = done.ok().expect("every connection is answered");
    let mut names: Vec<_> = said.lines().map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

/// Answers requests with a status that can be changed.
fn http(host: &Host, port: u16) -> Arc<AtomicU16> {
    let at = SocketAddr::new("0.0.0.0".parse().expect("an address"), port);
    let listener = host.enter(|| TcpListener::bind(at)).expect("in the host");
    let listener = listener.expect("a listener");
    let status = Arc::new(AtomicU16::new(200));
    let now = Arc::clone(&status);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut asked = [0; 4_096];
            let length = stream.read(&mut asked).unwrap_or(0);
            let right = asked[..length].starts_with(b"GET /healthz HTTP/1.1\r\n");
            let code = if right {
                now.load(Ordering::Relaxed)
            } else {
                400
            };
            let head = format!("HTTP/1.1 {code} Word\r\ncontent-length: 0\r\n\r\n");
            let _ = stream.write_all(head.as_bytes());
        }
    });
    status
}

const BOTH: &str = "'10.77.0.11:80', '10.77.0.12:80'";

#[test]
fn a_backend_that_stops_listening_is_taken_out_and_comes_back_when_it_answers() {
    let check = "check: 'tcp interval=200ms fall=3 rise=2'";
    let mut stage = Stage::up(&file(&[service("10.99.0.1", check, BOTH)]), &[]);
    for addr in ["10.77.0.11:80", "10.77.0.12:80"] {
        becomes(&stage, "10.99.0.1", addr, "active", None);
    }
    assert_eq!(answers(&stage.clients[0], VIP, 40), ["s1", "s2"]);
    assert_eq!(answers_at_home(&stage, VIP, 40), ["s1", "s2"]);

    let gone = Instant::now();
    drop(stage.echoes.remove(0));
    let refused = Some("connection refused");
    becomes(&stage, "10.99.0.1", "10.77.0.11:80", "down", refused);
    // Three probes; what more there is goes to a busy machine.
    assert!(gone.elapsed() < PATIENCE / 2, "{:?}", gone.elapsed());
    assert_eq!(answers(&stage.clients[0], VIP, 60), ["s2"]);
    assert_eq!(answers_at_home(&stage, VIP, 60), ["s2"]);
    let shown = backend(&stage.status(), "10.99.0.1", "10.77.0.11:80");
    assert_eq!(shown["weight"], 1, "its weight is its own");
    assert!(shown["since"].is_number(), "{shown}");
    let log = stage.agent.stderr();
    for word in ["backend state changed", "down", "connection refused"] {
        assert!(log.contains(word), "{word}: {log}");
    }

    // An agent that comes after does not try it out on clients.
    stage.revive();
    let shown = backend(&stage.status(), "10.99.0.1", "10.77.0.11:80");
    assert_eq!(shown["state"], "down", "{shown}");
    assert_eq!(answers(&stage.clients[0], VIP, 40), ["s2"]);

    let at = "0.0.0.0:80".parse().expect("an address");
    let _again = Server::tcp_echo(&stage.servers[0], at, "s1").expect("a server");
    becomes(&stage, "10.99.0.1", "10.77.0.11:80", "active", None);
    assert_eq!(answers(&stage.clients[0], VIP, 40), ["s1", "s2"]);
    assert!(stage.agent.stderr().contains("it answers again"));
}

#[test]
fn a_check_that_brings_a_suspect_back_needs_no_client_to_try_it() {
    // Clients find out before the check does.
    let check = "check: 'tcp interval=200ms fall=10 rise=2'";
    let mut stage = Stage::up(&file(&[service("10.99.0.1", check, BOTH)]), &[]);
    let first = "10.77.0.11:80";
    becomes(&stage, "10.99.0.1", first, "active", None);
    drop(stage.echoes.remove(0));
    let told = |line: &str| stage.agent.stderr().contains(line);
    wait_until("the programs suspect it", PATIENCE, || {
        connect(&stage.clients[0], VIP).expect("the other one answers");
        told("backend suspect")
    })
    .expect("it refused a connection");
    becomes(
        &stage,
        "10.99.0.1",
        first,
        "down",
        Some("connection refused"),
    );

    let at = "0.0.0.0:80".parse().expect("an address");
    let _again = Server::tcp_echo(&stage.servers[0], at, "s1").expect("a server");
    // Nobody connects, and nothing is left to say of it.
    becomes(&stage, "10.99.0.1", first, "active", None);
    wait_until("it is told", PATIENCE, || {
        told("backend not suspect any more")
    })
    .expect("it is");
    assert_eq!(answers(&stage.clients[0], VIP, 40), ["s1", "s2"]);
}

#[test]
fn with_all_down_a_service_fails_open_unless_it_says_otherwise() {
    // What is asked is another port, so that all are down and yet serve.
    let check = "check: 'tcp port=81 interval=200ms fall=2 rise=1'";
    let closed = format!("{check}, fail-open: no");
    let services = [
        service("10.99.0.1", check, BOTH),
        service("10.99.0.2", &closed, BOTH),
    ];
    let stage = Stage::up(&file(&services), &[]);
    let refused = Some("connection refused");
    for vip in ["10.99.0.1", "10.99.0.2"] {
        for addr in ["10.77.0.11:80", "10.77.0.12:80"] {
            becomes(&stage, vip, addr, "down", refused);
        }
    }
    let fails_open = |vip: &str| {
        let status = stage.status();
        let services = status["services"].as_array().expect("services");
        let mut services = services.iter();
        let service = services.find(|service| service["addrs"][0] == vip);
        service.expect("it is there")["fail_open"] == true
    };
    assert!(fails_open("10.99.0.1") && !fails_open("10.99.0.2"));
    assert_eq!(answers(&stage.clients[0], VIP, 40), ["s1", "s2"]);
    assert_eq!(answers_at_home(&stage, VIP, 40), ["s1", "s2"]);
    let closed = connect(&stage.clients[0], "10.99.0.2:80").expect_err("nobody is up");
    assert_eq!(closed.kind(), std::io::ErrorKind::ConnectionRefused);

    let at = "0.0.0.0:81".parse().expect("an address");
    let _health = Server::tcp_echo(&stage.servers[0], at, "up").expect("a server");
    for vip in ["10.99.0.1", "10.99.0.2"] {
        becomes(&stage, vip, "10.77.0.11:80", "active", None);
        assert!(!fails_open(vip));
        let vip = format!("{vip}:80");
        assert_eq!(answers(&stage.clients[0], &vip, 40), ["s1"]);
        assert_eq!(answers_at_home(&stage, &vip, 40), ["s1"]);
    }
}

#[test]
fn a_backend_whose_answer_is_an_error_is_down_for_who_asks_and_for_nobody_else() {
    let check = "check: {http: /healthz, port: 8080, interval: 200ms, fall: 2, rise: 2}";
    let services = [
        service("10.99.0.1", check, BOTH),
        service("10.99.0.2", "balance: maglev", BOTH),
    ];
    let stage = Stage::up(&file(&services), &[]);
    let [first, _second] = [0, 1].map(|n| http(&stage.servers[n], 8_080));
    for addr in ["10.77.0.11:80", "10.77.0.12:80"] {
        becomes(&stage, "10.99.0.1", addr, "active", None);
    }
    first.store(500, Ordering::Relaxed);
    let why = Some("HTTP status 500, not 200-399");
    becomes(&stage, "10.99.0.1", "10.77.0.11:80", "down", why);
    assert_eq!(answers(&stage.clients[0], VIP, 60), ["s2"]);
    assert_eq!(answers_at_home(&stage, VIP, 60), ["s2"]);
    // The service that does not check goes on with both.
    becomes(&stage, "10.99.0.2", "10.77.0.11:80", "active", None);
    assert_eq!(answers(&stage.clients[0], "10.99.0.2:80", 40), ["s1", "s2"]);
    first.store(301, Ordering::Relaxed);
    becomes(&stage, "10.99.0.1", "10.77.0.11:80", "active", None);
    assert_eq!(answers(&stage.clients[0], VIP, 40), ["s1", "s2"]);
}

#[test]
fn no_check_passes_through_our_own_translation() {
    let check = "check: 'tcp interval=200ms fall=1'";
    let odd = "'10.77.0.11:80', '10.99.0.2:80', '10.77.0.1:10000'";
    let services = [
        service("10.99.0.1", check, odd),
        service("10.99.0.2", "external: 10000", "'10.77.0.12:80'"),
    ];
    let stage = Stage::up(&file(&services), &[]);
    // Both lead to a server that answers, for everybody but a probe.
    for vip in ["10.99.0.2:80", "10.77.0.1:10000"] {
        assert_eq!(answers_at_home(&stage, vip, 1), ["s2"]);
    }
    becomes(&stage, "10.99.0.1", "10.77.0.11:80", "active", None);
    let why = Some("its address is a VIP, behind which nothing listens");
    becomes(&stage, "10.99.0.1", "10.99.0.2:80", "down", why);
    let why = Some("not checked: a service stands at 10.77.0.1:10000 of this node");
    becomes(&stage, "10.99.0.1", "10.77.0.1:10000", "active", why);
}
