//! Starts that fail: what the operator reads.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use lb_tests::lab::{HostSpec, Lab, programs::agent};

/// What an agent with these flags wrote to standard error, which is a file, and its exit code.
fn failure(flags: &[&str]) -> (String, Option<i32>) {
    let lab = Lab::new().expect("a lab");
    let host = lab
        .host(&HostSpec::new("node").address("10.77.0.1/24"))
        .expect("a host");
    let place = |name: &str| host.dir().join(name).display().to_string();
    let (program, pins, cgroup) = (
        agent().expect("the agent"),
        host.pins().display().to_string(),
        host.cgroup().path().display().to_string(),
    );
    let (state, run) = (place("state"), place("run"));
    let own = [
        program.as_str(),
        "--pin-dir",
        &pins,
        "--cgroup",
        &cgroup,
        "--state-dir",
        &state,
        "--run-dir",
        &run,
        "--flows",
        "65536",
        "--udp-flows",
        "16384",
    ];
    let ended = host.run(&[&own, flags].concat()).expect("it ends");
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
