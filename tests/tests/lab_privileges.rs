//! What a running agent may still do, and that it is enough.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{fs, time::Duration};

use lb_agent::privileges::KEPT;
use lb_tests::{
    asking::{ask, expect_all},
    fixed::{Fixed, HOST},
    lab::wait_until,
    topology::{MASTER, Wishes},
};
use rustix::process::Signal;

fn fixed() -> Fixed {
    Fixed::up(Wishes::default()).expect("a topology")
}

/// `/proc/PID/status` of every thread.
fn threads(pid: u32) -> Vec<String> {
    fs::read_dir(format!("/proc/{pid}/task"))
        .expect("threads")
        .map(|thread| fs::read_to_string(thread.expect("a thread").path().join("status")))
        .collect::<Result<_, _>>()
        .expect("their status")
}

#[test]
fn every_thread_of_the_agent_has_the_few_capabilities_it_needs() {
    let fixed = fixed();
    let agent = fixed.topology.agents[MASTER].as_ref().expect("an agent");
    let threads = threads(agent.pid());
    assert!(threads.len() > 1, "the runtime has threads");
    for status in threads {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.expect(name).trim_start_matches(':').trim().to_owned()
        };
        let kept = format!("{:016x}", KEPT.bits());
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            assert_eq!(field(set), kept, "{set}: {status}");
        }
        assert_eq!(field("CapInh"), format!("{:016x}", 0));
        assert_eq!(field("NoNewPrivs"), "1");
    }
}

#[test]
fn they_are_enough_to_start_again_and_to_carry_traffic() {
    let mut fixed = fixed();
    fixed.topology.kill_agent(MASTER).expect("killed");
    fixed.topology.start_agent(MASTER).expect("started");
    fixed.topology.agent_answers(MASTER).expect("it is back");
    for ipv6 in [false, true] {
        let vip = fixed.vip(HOST, ipv6).expect("a VIP");
        let flags: &[&str] = if ipv6 { &["--ipv6"] } else { &[] };
        for client in [fixed.topology.master(), &fixed.topology.client] {
            let outcome = ask(client, &vip.to_string(), 20, flags).expect("probe");
            expect_all(&outcome, vip, None).expect("every answer");
        }
    }
}

#[test]
fn what_the_agent_made_can_be_purged() {
    let mut fixed = fixed();
    let host = fixed.topology.master();
    let purge = fixed.topology.purge_argv(MASTER).expect("its flags");
    let purge: Vec<&str> = purge.iter().map(String::as_str).collect();
    let refused = host.run(&purge).expect("purge");
    assert!(
        refused.stderr.contains("is at work on"),
        "{}",
        refused.stderr
    );
    let agent = fixed.topology.agents[MASTER].as_mut().expect("an agent");
    agent.signal(Signal::TERM).expect("SIGTERM");
    wait_until("the agent ends", Duration::from_secs(10), || {
        agent.has_ended()
    })
    .expect("it ends");

    let host = fixed.topology.master();
    let removed = host.run(&purge).expect("purge").ok().expect("exit 0");
    for what in [
        "/v1/links/",
        "route unreachable 11.0.0.0/8",
        "address 169.254.53.53 on lo",
        "ip_local_reserved_ports",
    ] {
        assert!(removed.contains(what), "{what} in {removed}");
    }
    assert!(!host.pins().exists());
    let routes = ["-4", "-6"].map(|family| {
        let shown = host.run(&[
            "ip", family, "route", "show", "table", "all", "proto", "176",
        ]);
        shown.expect("ip").stdout
    });
    assert_eq!(routes, ["", ""]);
    let again = host.run(&purge).expect("purge").ok().expect("exit 0");
    assert_eq!(again, "nothing to remove\n");
}
