//! What the agent says of single flows is what happens to them.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::net::UdpSocket;

use lb_tests::{
    lab::{servers::Server, wait_until},
    stage::{CLIENT, PATIENCE, Stage},
};
use serde_json::Value;

/// For maps that are dumped whole.
const SMALL: &[&str] = &["--max-backends", "256", "--max-services", "64"];

/// The flows that match.
fn flows_of(stage: &Stage, filter: &[&str]) -> Vec<Value> {
    let found = stage.ask(&[&["flows"], filter].concat());
    found["flows"].as_array().expect("flows").clone()
}

/// What is said of a flow from this source port.
fn explain(stage: &Stage, port: u16, vip: &str, flags: &[&str]) -> Value {
    let client = format!("{CLIENT}:{port}");
    stage.ask(&[&["explain", client.as_str(), vip], flags].concat())
}

/// What the kernel holds that a new flow changes: entries of these tables as bpftool prints them.
fn census(stage: &Stage) -> Vec<(&'static str, Value)> {
    const TABLES: [&str; 14] = [
        "LB_FLOWS_TCP4",
        "LB_FLOWS_HALF4",
        "LB_FLOWS_UDP4",
        "LB_AFFINITY",
        "LB_SOURCE_RATES",
        "LB_SERVICE_STATES",
        "LB_GUARD",
        "LB_COUNTERS",
        "LB_LOADS",
        "LB_STATS",
        "LB_CONNECTIONS",
        "LB_SERVICE_STATS",
        "LB_SOCK_PEERS",
        "LB_SOCK_CHOICES",
    ];
    let table = |name| {
        let path = stage
            .node
            .pins()
            .join("v1")
            .join(name)
            .display()
            .to_string();
        let argv = ["bpftool", "--json", "map", "dump", "pinned", &path];
        let dump = stage.node.run(&argv).expect("bpftool runs").stdout;
        (name, serde_json::from_str(&dump).expect("JSON"))
    };
    TABLES.map(table).into()
}

/// The backend that is or would be given.
fn chosen(told: &Value) -> &str {
    let choice = &told["choice"]["backend"];
    choice.as_str().unwrap_or_else(|| panic!("{told}"))
}

fn services(more: &str) -> String {
    let backends = "backends: [10.77.0.11:80, 10.77.0.12:80, 10.77.0.13:80]";
    format!(
        "services:\n- {{address: 10.99.0.1, port: 80, {backends}}}\n\
         - {{address: 10.99.0.2, port: 80, {more} {backends}}}\n"
    )
}

#[test]
fn an_open_connection_is_a_flow_from_its_client_to_its_backend_until_it_closes() {
    let stage = Stage::up(&services(""), SMALL);
    assert_eq!(stage.print(&["flows"]), "no flow matches\n");
    let (open, backend) = stage.connect(40_000, "10.99.0.1:80");
    let (other, _) = stage.connect(40_001, "10.99.0.2:80");
    let flows = flows_of(&stage, &["--vip", "10.99.0.1"]);
    assert_eq!(flows.len(), 1, "{flows:?}");
    let flow = &flows[0];
    assert_eq!(flow["protocol"], "tcp");
    assert_eq!(flow["client"], format!("{CLIENT}:40000"));
    assert_eq!(flow["vip"], "10.99.0.1:80");
    assert_eq!(flow["backend"], backend);
    assert_eq!(flow["how"], "nat");
    assert_eq!(flow["state"], "established");
    assert_eq!(flows_of(&stage, &["--client", CLIENT]).len(), 2);
    assert_eq!(flows_of(&stage, &["--backend", "10.77.0.99"]).len(), 0);
    assert_eq!(stage.ask(&["flows", "--limit", "1"])["more"], 1);
    let line = format!("{CLIENT}:40000");
    let text = stage.print(&["flows"]);
    let shown = text.lines().find(|shown| shown.contains(&line));
    assert!(shown.expect("a line").contains(&backend), "{text}");
    drop((open, other));
    wait_until("both are seen to close", PATIENCE, || {
        let flows = flows_of(&stage, &[]);
        flows.iter().all(|flow| flow["state"] == "closing")
    })
    .expect("they close");
}

#[test]
fn explain_names_the_backend_that_the_next_connection_gets_and_opens_nothing() {
    for algorithm in ["maglev", "source", "round-robin"] {
        let keys = format!("balance: {algorithm}, affinity: 1m, rate: 1000, source-rate: 1000,");
        let stage = Stage::up(&services(&keys), SMALL);
        // What ends would move its flow between two looks.
        let mut kept = Vec::new();
        for (vip, ports) in [
            ("10.99.0.1:80", 41_000..41_006),
            ("10.99.0.2:80", 42_000..42_003),
        ] {
            for port in ports {
                let before = census(&stage);
                let told = explain(&stage, port, vip, &[]);
                let again = explain(&stage, port, vip, &[]);
                assert_eq!(before, census(&stage), "{algorithm} {vip}");
                assert_eq!(told, again, "{algorithm} {vip}");
                assert_eq!(told["address"], "vip");
                assert_eq!(told["source"]["allowed"], true, "{told}");
                assert!(
                    told["flow"].is_null() && told["refused"].is_null(),
                    "{told}"
                );
                let afresh = told["choice"]["slot"].is_number();
                let why = told["choice"]["why"].as_str().unwrap_or_default();
                assert!(afresh || why.starts_with("affinity"), "{told}");
                let (open, backend) = stage.connect(port, vip);
                assert_eq!(chosen(&told), backend, "{algorithm} {vip}");
                let told = explain(&stage, port, vip, &[]);
                assert_eq!(told["flow"]["backend"], backend, "{told}");
                assert!(told["choice"].is_null() && told["lost"].is_null(), "{told}");
                kept.push(open);
            }
        }
    }
}

#[test]
fn explain_says_who_is_kept_out_and_what_is_not_ours() {
    let stage = Stage::up(&services("deny: [10.77.0.100], max-flows: 5,"), SMALL);
    let before = census(&stage);
    let told = explain(&stage, 40_000, "10.99.0.2:80", &[]);
    assert_eq!(told["refused"]["reason"], "source_not_allowed", "{told}");
    assert_eq!(told["source"]["allowed"], false, "{told}");
    let told = explain(&stage, 40_000, "10.99.0.1:81", &[]);
    assert_eq!(told["refused"]["reason"], "no_service", "{told}");
    assert_eq!(
        (&told["address"], &told["service"]),
        (&"vip".into(), &Value::Null)
    );
    let told = explain(&stage, 40_000, "10.99.0.1:80", &["--udp"]);
    assert_eq!(told["refused"]["reason"], "no_service", "{told}");
    let told = explain(&stage, 40_000, "10.77.0.11:80", &[]);
    assert_eq!(told["address"], "foreign", "{told}");
    let told = explain(&stage, 40_000, "10.99.0.1:80", &["--local"]);
    assert_eq!(told["choice"]["certain"], false, "{told}");
    assert_eq!(told["backends"].as_array().map(Vec::len), Some(3), "{told}");
    assert_eq!(told["source"]["allowed"], true, "{told}");
    let told = explain(&stage, 40_000, "10.99.0.2:80", &["--local"]);
    assert_eq!(told["refused"]["reason"], "source_not_allowed", "{told}");
    assert!(told["choice"].is_null(), "{told}");
    let text = stage.print(&["explain", "10.77.0.100:40000", "10.99.0.2:80"]);
    let last = text.lines().last().expect("lines");
    assert!(last.ends_with("(source_not_allowed)"), "{text}");
    assert_eq!(before, census(&stage));
}

#[test]
fn a_udp_flow_gets_the_backend_that_was_told_and_is_shown_one_way_or_both() {
    let text = "services:
- {address: 10.99.0.1, port: 80, protocol: udp, backends: [10.77.0.11:80, 10.77.0.12:80]}
- {address: 10.99.0.2, port: 80, protocol: udp, backends: [10.77.0.13:80]}
";
    let stage = Stage::up(text, SMALL);
    let at = "0.0.0.0:80".parse().expect("an address");
    let echo = |n: usize| Server::udp_echo(&stage.servers[n], at, stage.servers[n].name());
    let _echoes = [0, 1].map(|n| echo(n).expect("a server"));
    stage.servers[2].hush("udp", 80).expect("it is silent");
    for port in 43_000..43_004 {
        let told = explain(&stage, port, "10.99.0.1:80", &["--udp"]);
        let bound = || UdpSocket::bind(("0.0.0.0", port));
        let socket = stage.clients[0].enter(bound).expect("in the host");
        let socket = socket.expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("set");
        socket.send_to(b"?", "10.99.0.1:80").expect("sent");
        let mut answer = [0; 3];
        let (_, from) = socket.recv_from(&mut answer).expect("an answer");
        assert_eq!(from.to_string(), "10.99.0.1:80");
        let number = char::from(answer[1]);
        let backend = format!("10.77.0.1{number}:80");
        assert_eq!(chosen(&told), backend);
        let told = explain(&stage, port, "10.99.0.1:80", &["--udp"]);
        assert_eq!(told["flow"]["backend"], backend, "{told}");
        let flows = flows_of(&stage, &["--client", &format!("{CLIENT}:{port}")]);
        assert_eq!(flows.len(), 1, "{flows:?}");
        assert_eq!(flows[0]["protocol"], "udp");
        assert_eq!(flows[0]["state"], "established");
        socket.send_to(b"?", "10.99.0.2:80").expect("sent");
        let one_way = || {
            let flows = flows_of(&stage, &["--vip", "10.99.0.2:80"]);
            flows.iter().any(|flow| {
                flow["client"] == format!("{CLIENT}:{port}") && flow["state"] == "one-way"
            })
        };
        wait_until("nothing comes back", PATIENCE, one_way).expect("one way");
    }
}
