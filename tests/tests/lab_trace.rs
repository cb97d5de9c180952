//! What is told of single packets and calls is what happened, and it ends with who asked.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::time::Duration;

use lb_common::addr_flag;
use lb_tests::{
    lab::{Process, wait_until},
    stage::{CLIENT, PATIENCE, Stage, connect},
};
use rustix::process::Signal;
use serde_json::Value;

const SERVICES: &str = "services:\n\
    - {name: /shop, framework: marathon, port: 80, backends: [{address: 10.77.0.11:80, name: first}]}\n\
    - {address: 10.99.0.1, port: 80, backends: [10.77.0.11:80, 10.77.0.12:80]}\n\
    - {address: 10.99.0.2, port: 80, deny: [10.77.0.100], backends: [10.77.0.11:80]}\n";

fn events(process: &Process) -> Vec<Value> {
    let text = process.stdout();
    let lines = text.lines();
    lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// The first event that is like this.
fn event(process: &Process, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    let find = || events(process).into_iter().find(|event| is_it(event));
    wait_until(what, PATIENCE, || find().is_some()).expect(what);
    find().expect(what)
}

/// Whether packets are kept off the shortcut.
fn is_traced(stage: &Stage) -> bool {
    let path = stage.node.pins().join("v1/LB_FILTER4");
    let path = path.display().to_string();
    let argv = ["bpftool", "--json", "map", "dump", "pinned", &path];
    let dump = stage.node.run(&argv).expect("bpftool runs").stdout;
    let dump: Value = serde_json::from_str(&dump).expect("JSON");
    let slots = dump[0]["value"].as_array().expect("slots");
    let flags = slots.iter().map(|slot| {
        let text = slot.as_str().expect("a byte").trim_start_matches("0x");
        u32::from_str_radix(text, 16).expect("a byte")
    });
    flags
        .into_iter()
        .any(|flags| flags & addr_flag::TRACED != 0)
}

#[test]
fn a_connection_is_followed_from_its_first_packet_to_its_end() {
    let stage = Stage::up(SERVICES, &[]);
    let trace = stage.follow("trace", &["trace", "--json", "--vip", "10.99.0.1"]);
    let (open, backend) = stage.connect(40_000, "10.99.0.1:80");
    let client = format!("{CLIENT}:40000");
    let syn = event(&trace, "the SYN", |e| e["flow"] == "new");
    assert_eq!(syn["client"], client, "{syn}");
    assert_eq!(syn["backend"], backend, "{syn}");
    assert_eq!(syn["detail"], "S", "{syn}");
    assert_eq!(syn["how"], "nat", "{syn}");
    assert_eq!(syn["interface"], "eth0", "{syn}");
    let answer = event(&trace, "the SYN-ACK", |e| e["detail"] == "S.");
    assert_eq!(answer["from"], backend, "{answer}");
    assert_eq!(answer["client"], client, "{answer}");
    assert_eq!(answer["vip"], "10.99.0.1:80", "{answer}");
    event(&trace, "the greeting", |e| {
        e["detail"] == "P." && e["from"] == backend
    });
    drop(open);
    event(&trace, "the end", |e| {
        e["detail"] == "F." && e["from"] == client
    });
    let others = stage.connect(40_001, "10.99.0.1:80");
    event(&trace, "the next one", |e| {
        e["client"] == format!("{CLIENT}:40001")
    });
    drop(others);
    let vip = |e: &Value| e["vip"] == "10.99.0.1:80";
    assert!(events(&trace).iter().all(vip), "only what was asked for");
}

#[test]
fn a_trace_of_one_client_tells_of_nobody_else() {
    let stage = Stage::up(SERVICES, &[]);
    let trace = stage.follow("trace", &["trace", "--json", "--client", "10.77.0.101/32"]);
    let is_its = |e: &Value| {
        let client = e["client"].as_str();
        client.is_some_and(|client| client.starts_with("10.77.0.101:"))
    };
    let _others = stage.connect(40_000, "10.99.0.1:80");
    let _its = connect(&stage.clients[1], "10.99.0.1:80").expect("a connection");
    event(&trace, "its SYN", |e| is_its(e) && e["detail"] == "S");
    event(&trace, "the answer", |e| is_its(e) && e["detail"] == "S.");
    // Of two traces each has its own.
    let more = stage.follow("more", &["trace", "--json", "--vip", "10.99.0.2"]);
    let argv = ["curl", "-sS", "-m", "2", "http://10.99.0.2/"];
    let _ = stage.clients[1].run(&argv).expect("curl runs");
    event(&more, "a SYN to the other VIP", |e| {
        e["to"] == "10.99.0.2:80"
    });
    event(&trace, "the same for its client", |e| {
        e["to"] == "10.99.0.2:80"
    });
    assert!(events(&trace).iter().all(is_its));
    assert!(events(&more).iter().all(|e| e["vip"] == "10.99.0.2:80"));
}

#[test]
fn who_is_refused_or_dropped_is_told_with_the_reason() {
    let stage = Stage::up(SERVICES, &[]);
    let trace = stage.follow("trace", &["trace", "--json"]);
    let dropped = stage.follow("dropped", &["trace", "--reason", "source-not-allowed"]);
    let curl = |to: &str| {
        let argv = ["curl", "-sS", "-m", "2", to];
        let _ = stage.clients[0].run(&argv).expect("curl runs");
    };
    curl("http://10.99.0.1:81/");
    curl("http://10.99.0.2:80/");
    let refused = event(&trace, "a refusal", |e| e["to"] == "10.99.0.1:81");
    assert_eq!(refused["then"], "refused", "{refused}");
    assert_eq!(refused["reasons"], serde_json::json!(["no_service"]));
    let kept_out = event(&trace, "a drop", |e| e["to"] == "10.99.0.2:80");
    assert_eq!(kept_out["then"], "dropped", "{kept_out}");
    let shown = || dropped.stdout().contains("dropped (source_not_allowed)");
    wait_until("a line", PATIENCE, shown).expect("it is shown");
    assert!(
        !dropped.stdout().contains("10.99.0.1"),
        "{}",
        dropped.stdout()
    );
}

#[test]
fn calls_of_processes_on_the_node_are_told_with_the_backend_or_the_reason() {
    let stage = Stage::up(SERVICES, &[]);
    let trace = stage.follow("trace", &["trace", "--json", "--vip", "shop.marathon"]);
    let told = stage.ask(&["resolve", "shop.marathon"]);
    let vip = told["addrs"][0].as_str().expect("an address").to_owned();
    for port in [80, 81] {
        let to = format!("telnet://{vip}:{port}");
        let argv = ["curl", "-sS", "-m", "2", &to];
        let _ = stage.node.run(&argv).expect("curl runs");
    }
    let call = event(&trace, "a connect", |e| e["hook"] == "connect");
    assert_eq!(call["backend"], "10.77.0.11:80", "{call}");
    assert_eq!(call["name"], "shop.marathon", "{call}");
    assert_eq!(call["task"], "first", "{call}");
    assert_eq!(call["then"], "passed", "{call}");
    let all = stage.follow("all", &["trace", "--count", "1", "--vip", &vip]);
    let to = format!("telnet://{vip}:81");
    let curl = stage.node.run(&["curl", "-sS", "-m", "2", &to]);
    curl.expect("curl runs").ok().expect_err("it is refused");
    let text = all
        .finish(PATIENCE)
        .expect("it ends")
        .ok()
        .expect("by itself");
    let line = format!("connect tcp a process > {vip}:81: refused (sock_no_service)\n");
    assert!(text.ends_with(&line) && text.lines().count() == 1, "{text}");
}

#[test]
fn a_trace_ends_with_its_command_however_that_ends() {
    let stage = Stage::up(SERVICES, &[]);
    assert!(!is_traced(&stage));
    let mut trace = stage.follow("trace", &["trace"]);
    assert!(is_traced(&stage));
    trace.signal(Signal::KILL).expect("killed");
    wait_until("it is switched off", PATIENCE, || !is_traced(&stage)).expect("it is");
    // And once more, by itself.
    let begun = std::time::Instant::now();
    let trace = stage.follow("again", &["trace", "--for", "1"]);
    trace
        .finish(PATIENCE)
        .expect("it ends")
        .ok()
        .expect("by itself");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    wait_until("it is switched off", PATIENCE, || !is_traced(&stage)).expect("it is");
}

#[test]
fn a_killed_agent_ends_its_traces_and_the_next_one_is_as_fast_as_ever() {
    let mut stage = Stage::up(SERVICES, &[]);
    let trace = stage.follow("trace", &["trace"]);
    stage.agent.signal(Signal::KILL).expect("killed");
    let ended = trace.finish(PATIENCE).expect("it ends");
    assert!(ended.stderr.contains("did not answer"), "{}", ended.stderr);
    ended.ok().expect_err("it could not go on");
    // Packets are carried all the same, the long way.
    let (kept, _) = stage.connect(40_000, "10.99.0.1:80");
    assert!(is_traced(&stage), "nobody was there to change it");
    stage.revive();
    assert!(!is_traced(&stage));
    drop(kept);
}

#[test]
fn a_capture_holds_each_packet_as_it_came_and_as_it_went() {
    let stage = Stage::up(SERVICES, &[]);
    let file = stage.node.dir().join("packets.pcapng");
    let file = file.display().to_string();
    // Handshake and greeting: five packets, each of them twice.
    let argv = [
        "capture",
        "-w",
        &file,
        "--vip",
        "10.99.0.1:80",
        "--count",
        "10",
    ];
    let capture = stage.follow("capture", &argv);
    let (_open, backend) = stage.connect(40_000, "10.99.0.1:80");
    capture
        .finish(PATIENCE)
        .expect("it ends")
        .ok()
        .expect("by itself");
    let argv = ["tcpdump", "-nn", "-t", "-r", &file];
    let text = stage
        .node
        .run(&argv)
        .expect("tcpdump runs")
        .ok()
        .expect("it reads");
    let server = backend.replace(":80", ".80");
    let shown = |from: &str, to: &str, flags: &str| {
        let line = |line: &&str| {
            line.contains(from) && line.contains(&format!("> {to}")) && line.contains(flags)
        };
        text.lines().filter(line).count()
    };
    let client = format!("{CLIENT}.40000");
    assert_eq!(shown(&client, "10.99.0.1.80", "[S]"), 1, "{text}");
    assert_eq!(shown("IP 10.77.0.1.", &server, "[S]"), 1, "{text}");
    assert_eq!(shown(&server, "10.77.0.1.", "[S.]"), 1, "{text}");
    assert_eq!(shown("IP 10.99.0.1.80", &client, "[S.]"), 1, "{text}");
    assert_eq!(shown("IP 10.99.0.1.80", &client, "[P.]"), 1, "{text}");
    assert_eq!(text.lines().count(), 10, "{text}");
    // Checksums are those of whole packets: what went is what the program wrote.
    let argv = ["tcpdump", "-nn", "-t", "-v", "-r", &file];
    let text = stage
        .node
        .run(&argv)
        .expect("tcpdump runs")
        .ok()
        .expect("it reads");
    assert!(
        text.contains("(correct)") && !text.contains("incorrect"),
        "{text}"
    );
}
