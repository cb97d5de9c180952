//! A VIP of a running service is added, renamed, moved and removed: connections by the old one go on until they end.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use lb_tests::{
    lab::{Process, wait_until},
    stage::{PATIENCE, Stage, connect},
};
use serde_json::Value;
use socket2::SockRef;

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

#[test]
fn a_port_of_the_node_that_is_given_up_goes_on_for_what_came_by_it_and_refuses_the_rest() {
    const OLD: &str = "10.77.0.1:10000";
    const NEW: &str = "10.77.0.1:10001";
    let at = |port: u16| {
        format!("services:\n- {{name: /web, port: 80, external: {port}, {BACKENDS}}}\n")
    };
    let mut stage = Stage::up(&at(10_000), &POOL);
    let outside = connect(&stage.clients[0], OLD).expect("a connection").0;
    stage.write(&at(10_001), |status| {
        status["services"][0]["external"][0] == 10_001
    });
    for _ in 0..2 {
        let refused = connect(&stage.clients[0], OLD).expect_err("it takes no new ones");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        connect(&stage.clients[0], NEW).expect("the new port");
        assert!(echoes(&outside), "what came by the old port goes on");
        // And over a restart.
        stage.revive();
    }
    assert!(echoes(&outside));
}

/// The same servers behind addresses of the operator's own.
fn at(addrs: &[&str]) -> String {
    let entries = addrs
        .iter()
        .map(|addr| format!("- {{address: {addr}, port: 80, {BACKENDS}}}\n"));
    format!("services:\n{}", entries.collect::<String>())
}

/// Puts that file in place and waits until nothing else is served.
fn serve(stage: &Stage, addrs: &[&str]) {
    let text = if addrs.is_empty() {
        String::new()
    } else {
        at(addrs)
    };
    stage.write(&text, |status| {
        let services = status["services"].as_array();
        let served = services
            .into_iter()
            .flatten()
            .map(|one| one["addrs"][0].as_str());
        served.eq(addrs.iter().map(|addr| Some(*addr)))
    });
}

/// Whether the address is the node's, by the agent's route.
fn is_local(stage: &Stage, addr: &str) -> bool {
    let argv = ["ip", "route", "show", addr, "table", "local"];
    stage.node.run(&argv).expect("ip").stdout.contains(addr)
}

#[test]
fn an_ip_vip_that_moves_or_goes_keeps_its_address_for_what_came_by_it_and_refuses_the_rest() {
    const OLD: &str = "10.99.7.7";
    const NEW: &str = "10.99.7.8";
    /// Nobody ever came by it.
    const UNUSED: &str = "10.99.7.9";
    let mut stage = Stage::up(&at(&[OLD, UNUSED]), &[]);
    let (old, new) = (format!("{OLD}:80"), format!("{NEW}:80"));
    let outside = connect(&stage.clients[0], &old).expect("a connection").0;
    let inside = talks(&stage, &old);
    serve(&stage, &[NEW]);
    for _ in 0..2 {
        let refused = connect(&stage.clients[0], &old).expect_err("it takes no new ones");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        connect(&stage.clients[0], &new).expect("the new address");
        goes_on(&inside);
        assert!(echoes(&outside), "what came by the old address goes on");
        // And over a restart.
        stage.revive();
    }
    // Only a walk through the flow tables can tell the two from each other.
    let given_back = |addr: &str| {
        wait_until("its address is given back", 3 * PATIENCE, || {
            !is_local(&stage, addr)
        })
    };
    given_back(UNUSED).expect("nothing came by it");
    assert!(is_local(&stage, OLD) && echoes(&outside));
    let reset = SockRef::from(&outside).set_linger(Some(Duration::ZERO));
    reset.expect("it is to be reset");
    drop(outside);
    given_back(OLD).expect("nothing is left that came by it");

    // Where no backend is left the client is told, as by a name.
    let last = connect(&stage.clients[0], &new).expect("a connection").0;
    serve(&stage, &[]);
    (&last).write_all(b"ping").expect("sent");
    let told = (&last).read_exact(&mut [0]).expect_err("nobody answers");
    assert_eq!(told.kind(), ErrorKind::ConnectionReset);
    let refused = connect(&stage.clients[0], &new).expect_err("nobody is there any more");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}
