//! Starts that fail, and what the operator reads; interfaces that go and come back.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::time::Duration;

use lb_tests::lab::{Host, HostSpec, Lab, programs::agent, wait_until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

fn host(lab: &Lab) -> Host {
    let spec = HostSpec::new("node").address("10.77.0.1/24");
    lab.host(&spec).expect("a host")
}

/// The command line of an agent on this host with these flags.
fn command(host: &Host, flags: &[&str]) -> Vec<String> {
    let place = |name: &str| host.dir().join(name).display().to_string();
    let own = [
        ("--pin-dir", host.pins().display().to_string()),
        ("--cgroup", host.cgroup().path().display().to_string()),
        ("--state-dir", place("state")),
        ("--run-dir", place("run")),
        ("--flows", "65536".to_owned()),
        ("--udp-flows", "16384".to_owned()),
    ];
    let mut argv = vec![agent().expect("the agent")];
    argv.extend(
        own.into_iter()
            .flat_map(|(flag, value)| [flag.to_owned(), value]),
    );
    argv.extend(flags.iter().map(|&flag| flag.to_owned()));
    argv
}

fn words(command: &[String]) -> Vec<&str> {
    command.iter().map(String::as_str).collect()
}

/// What an agent with these flags wrote to standard error, which is a file, and its exit code.
fn failure(flags: &[&str]) -> (String, Option<i32>) {
    let lab = Lab::new().expect("a lab");
    let host = host(&lab);
    let ended = host.run(&words(&command(&host, flags))).expect("it ends");
    (ended.stderr, ended.status.code())
}

/// The error, which must be a sentence for people and come last.
fn sentence(stderr: &str) -> &str {
    let last = stderr.lines().last().expect("a line");
    assert!(
        last.starts_with("lb-agent: ") && !last.contains('{'),
        "{stderr}"
    );
    last
}

#[test]
fn an_interface_that_is_not_there_is_one_plain_sentence() {
    let (stderr, code) = failure(&["--iface", "nope"]);
    assert_eq!(
        sentence(&stderr),
        "lb-agent: there is no interface nope here; `ip link` shows those that are"
    );
    assert_eq!((stderr.lines().count(), code), (1, Some(1)), "{stderr}");
}

#[test]
fn a_start_that_fails_late_says_what_stays_and_how_to_remove_it() {
    let (stderr, code) = failure(&["--iface", "eth0", "--dns-listen", "192.0.2.1:53"]);
    let said = sentence(&stderr);
    assert!(
        said.contains("cannot listen for DNS on 192.0.2.1:53"),
        "{said}"
    );
    assert!(said.contains("`lb-agent purge` removes them"), "{said}");
    assert_eq!(code, Some(1));
}

#[test]
fn an_interface_that_comes_back_is_attached_to_again() {
    let lab = Lab::new().expect("a lab");
    let host = host(&lab);
    let ip = |line: &str| {
        let argv: Vec<_> = line.split(' ').collect();
        let done = host.run(&argv).expect("ip runs");
        done.ok().expect(line)
    };
    ip("ip link add x0 type veth peer name x1");
    let flags = ["--iface", "eth0,x0", "--dns-listen", "none"];
    let agent = command(&host, &flags);
    let _agent = host.start("lb-agent", &words(&agent)).expect("started");
    // Index, and what is attached.
    let shown = || -> Option<(u64, usize)> {
        let run_dir = host.dir().join("run").display().to_string();
        let argv = [&agent[0], "status", "--json", "--run-dir", &run_dir];
        let status = host.run(&argv).expect("status runs").stdout;
        let status: Value = serde_json::from_str(&status).ok()?;
        let mut all = status["datapath"]["interfaces"].as_array()?.iter();
        let x0 = all.find(|iface| iface["name"] == "x0")?;
        Some((x0["index"].as_u64()?, x0["attached"].as_array()?.len()))
    };
    let attached = |wanted: usize| {
        let is_so = || shown().is_some_and(|(_, attached)| attached == wanted);
        wait_until("status shows it", PATIENCE, is_so).expect("it is so");
        shown().expect("a status").0
    };
    let before = attached(3);
    ip("ip link del x0");
    attached(0);
    ip("ip link add x0 type veth peer name x1");
    assert_ne!(attached(3), before);
    let link = ip("ip link show dev x0");
    assert!(link.contains(" xdp "), "{link}");
}
