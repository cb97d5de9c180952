//! A VIP of a running service is added, renamed and moved: connections by the old one go on until they end.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
};

use lb_tests::{
    lab::{Process, wait_until},
    stage::{PATIENCE, Stage, connect},
};
use serde_json::Value;

/// Names are leased addresses of what the stage's clients have a route to.
const POOL: [&str; 2] = ["--vip-pool-v4", "10.99.1.1-10.99.255.254"];
const BACKENDS: &str = "backends: [10.77.0.11:80, 10.77.0.12:80]";

fn file(vips: &[(&str, u16)]) -> String {
    let entries = vips
        .iter()
        .map(|(name, port)| format!("- {{name: {name}, port: {port}, {BACKENDS}}}\n"));
    format!("services:\n{}", entries.collect::<String>())
}

/// Name and port of each service.
fn vips(status: &Value) -> Vec<String> {
    let services = status["services"].as_array();
    let place = |service: &Value| {
        let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        format!("{}:{}", word(&service["name"]), service["port"])
    };
    let mut places: Vec<String> = services.into_iter().flatten().map(place).collect();
    places.sort();
    places
}

/// The address of a name.
fn address(stage: &Stage, name: &str) -> String {
    let status = stage.status();
    let services = status["services"].as_array();
    let mut services = services.into_iter().flatten();
    let service = services.find(|service| service["name"] == name);
    let addr = service.and_then(|service| service["addrs"][0].as_str());
    addr.expect(name).to_owned()
}

/// A process of the node with a connection, which says a line for each answer.
fn talks(stage: &Stage, vip: &str) -> Process {
    let script = format!(
        "exec 3<>/dev/tcp/{}; head -c 2 <&3; \
         while printf ping >&3 && [ \"$(head -c 4 <&3)\" = ping ]; do echo; sleep 0.1; done; echo over",
        vip.replace(':', "/")
    );
    let process = stage.node.start("talks", &["bash", "-c", &script]);
    let process = process.expect("started");
    goes_on(&process);
    process
}

fn goes_on(process: &Process) {
    let answers = || process.stdout().lines().count();
    let before = answers();
    let more = wait_until("it is answered", PATIENCE, || answers() > before + 3);
    more.expect("it goes on");
    assert!(!process.stdout().contains("over"), "{}", process.stdout());
}

fn echoes(mut stream: &TcpStream) -> bool {
    let mut echoed = [0; 4];
    stream.write_all(b"ping").is_ok() && stream.read_exact(&mut echoed).is_ok()
}

#[test]
fn old_connections_go_on_while_a_vip_is_added_renamed_and_moved() {
    let mut stage = Stage::up(&file(&[("/old", 80)]), &POOL);
    let client = |vip: &str| connect(&stage.clients[0], vip);
    let old = format!("{}:80", address(&stage, "old.file"));
    let first = client(&old).expect("a connection").0;
    let inside = talks(&stage, &old);

    let is_now = |expected: &'static [&'static str]| move |status: &Value| vips(status) == expected;
    stage.write(
        &file(&[("/new", 80), ("/old", 80)]),
        is_now(&["new.file:80", "old.file:80"]),
    );
    let new = address(&stage, "new.file");
    assert_ne!(format!("{new}:80"), old);
    let second = client(&format!("{new}:80")).expect("the new name").0;
    client(&old).expect("the old name");

    // Renamed: the old name is gone.
    stage.write(&file(&[("/new", 80)]), is_now(&["new.file:80"]));
    let refused = client(&old).expect_err("nobody is there any more");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    goes_on(&inside);
    assert!(echoes(&first), "what came by the old name goes on");

    // Moved to another port.
    stage.write(&file(&[("/new", 81)]), is_now(&["new.file:81"]));
    let refused = client(&format!("{new}:80")).expect_err("nobody is there any more");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let third = client(&format!("{new}:81")).expect("the new port").0;
    assert_eq!(
        address(&stage, "new.file"),
        new,
        "the name keeps its address"
    );
    goes_on(&inside);
    assert!([&first, &second, &third].into_iter().all(echoes));

    // And over a restart.
    stage.revive();
    goes_on(&inside);
    assert!([&first, &second, &third].into_iter().all(echoes));
}
