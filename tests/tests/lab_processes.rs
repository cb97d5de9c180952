//! What a service asks of its clients holds for processes of the node and of its containers, too.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use lb_tests::{
    lab::{BridgeSpec, Host, HostSpec, Process, servers::Server, wait_until},
    stage::{PATIENCE, Stage},
};
use serde_json::Value;

const REFUSED: &str = "Connection refused";
const FORBIDDEN: &str = "Operation not permitted";

/// Why a process of this host cannot speak to the VIP, empty if it can.
fn failure(host: &Host, protocol: &str, vip: &str) -> String {
    let script = format!("exec 3<>/dev/{protocol}/{vip}/80 && echo >&3");
    let done = host.run(&["bash", "-c", &script]).expect("bash runs");
    if done.status.success() {
        return String::new();
    }
    let known = [REFUSED, FORBIDDEN].into_iter();
    let found = known.filter(|why| done.stderr.contains(why)).collect();
    assert_ne!(found, "", "{}", done.stderr);
    found
}

/// A process that holds a connection until it ends.
fn held(stage: &Stage, protocol: &str, vip: &str) -> Process {
    let script = format!("exec 3<>/dev/{protocol}/{vip}/80; echo; sleep 60");
    let argv = ["bash", "-c", &script];
    let process = stage.node.start("held", &argv).expect("started");
    wait_until("it is connected", PATIENCE, || process.stdout() == "\n").expect("it says so");
    process
}

/// Waits until the service at this address and protocol has counted so many.
fn expect(stage: &Stage, vip: &str, protocol: &str, key: &str, count: usize) {
    let traffic = |status: &Value| {
        let services = status["services"].as_array();
        let is_it = |s: &&Value| s["addrs"][0] == *vip && s["protocol"] == *protocol;
        let found = services.into_iter().flatten().find(is_it);
        found.map_or(Value::Null, |service| service["traffic"].clone())
    };
    let shown = || traffic(&stage.status())[key] == count;
    wait_until(key, PATIENCE, shown).unwrap_or_else(|_| {
        panic!(
            "{vip} {protocol}: {key} is not {count}: {}",
            traffic(&stage.status())
        )
    });
}

fn service(vip: &str, protocol: &str, keys: &str) -> String {
    format!(
        "- {{address: {vip}, port: 80, protocol: {protocol}, {keys}, backends: [10.77.0.11:80]}}\n"
    )
}

#[test]
fn lists_keep_out_processes_by_the_address_that_they_speak_from() {
    let services: String = [
        ("10.99.0.1", "deny: [10.77.0.1]"),
        ("10.99.0.2", "allow: [10.77.0.1]"),
        ("10.99.0.3", "allow: [10.77.0.9]"),
        ("10.99.0.4", "deny: [172.31.1.2]"),
        ("10.99.0.5", "deny: [127.0.0.2]"),
    ]
    .into_iter()
    .flat_map(|(vip, keys)| ["tcp", "udp"].map(|protocol| service(vip, protocol, keys)))
    .collect();
    let stage = Stage::up(&format!("services:\n{services}"), &[]);
    let at = "0.0.0.0:80".parse().expect("an address");
    let _echo = Server::udp_echo(&stage.servers[0], at, "s1").expect("a server");
    for protocol in ["tcp", "udp"] {
        for (vip, why) in [
            ("10.99.0.1", FORBIDDEN),
            ("10.99.0.2", ""),
            ("10.99.0.3", FORBIDDEN),
            ("10.99.0.4", ""),
        ] {
            assert_eq!(failure(&stage.node, protocol, vip), why, "{protocol} {vip}");
        }
        expect(&stage, "10.99.0.1", protocol, "flows_denied", 1);
        expect(&stage, "10.99.0.1", protocol, "flows_new", 0);
    }
    stage.expect_dropped("source_not_allowed");
    // What a socket is bound to counts before all else.
    let argv = [
        "curl",
        "-sS",
        "-m",
        "2",
        "--interface",
        "127.0.0.2",
        "telnet://10.99.0.5:80",
    ];
    let bound = stage.node.run(&argv).expect("curl runs");
    bound.ok().expect_err("its address is denied");
    expect(&stage, "10.99.0.5", "tcp", "flows_denied", 1);

    let bridge = BridgeSpec {
        device: "docker0".into(),
        addresses: vec!["172.31.1.1/24".into()],
        forward_drop: false,
        masquerade: true,
    };
    let bridge = stage.node.bridge(&bridge).expect("a bridge");
    let spec = HostSpec::new("box").address("172.31.1.2/24");
    let inside = bridge.container(&spec).expect("a container");
    assert_eq!(
        failure(&inside, "tcp", "10.99.0.1"),
        "",
        "it is not the node"
    );
    assert_eq!(
        failure(&inside, "tcp", "10.99.0.4"),
        FORBIDDEN,
        "its address is known by now"
    );
    assert_eq!(failure(&inside, "udp", "10.99.0.4"), FORBIDDEN);
}

#[test]
fn processes_count_among_the_flows_that_a_service_may_have() {
    let services: String = ["tcp", "udp"]
        .map(|protocol| service("10.99.0.1", protocol, "max-flows: 1"))
        .concat();
    let stage = Stage::up(&format!("services:\n{services}"), &[]);
    for protocol in ["tcp", "udp"] {
        let mut one = held(&stage, protocol, "10.99.0.1");
        assert_eq!(failure(&stage.node, protocol, "10.99.0.1"), REFUSED);
        expect(&stage, "10.99.0.1", protocol, "flows_limited", 1);
        one.signal(rustix::process::Signal::KILL).expect("killed");
        wait_until("there is room again", PATIENCE, || {
            failure(&stage.node, protocol, "10.99.0.1").is_empty()
        })
        .expect("it has ended");
    }
    stage.expect_dropped("service_full");
}

#[test]
fn processes_open_no_more_new_flows_a_second_than_a_service_or_a_source_may() {
    let services: String = [
        ("10.99.0.1", "rate: 1"),
        ("10.99.0.2", "source-rate: 1"),
        ("10.99.0.3", "rate: 1000, source-rate: 1000"),
    ]
    .map(|(vip, keys)| service(vip, "tcp", keys))
    .concat();
    let stage = Stage::up(&format!("services:\n{services}"), &[]);
    for vip in ["10.99.0.1", "10.99.0.2"] {
        // One a second, so that of ten in a row some are beyond it.
        let ends: Vec<_> = (0..10).map(|_| failure(&stage.node, "tcp", vip)).collect();
        assert_eq!(ends[0], "", "{vip} {ends:?}");
        let refused = ends.iter().filter(|end| *end == REFUSED).count();
        assert!(refused >= 1, "{vip} {ends:?}");
        expect(&stage, vip, "tcp", "flows_limited", refused);
    }
    for reason in ["service_rate", "source_rate"] {
        stage.expect_dropped(reason);
    }
    for _ in 0..10 {
        assert_eq!(failure(&stage.node, "tcp", "10.99.0.3"), "");
    }
}
