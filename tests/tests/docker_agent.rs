//! A real Docker Engine whose containers change while nobody follows them, or the engine itself stands still.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::net::{SocketAddr, TcpStream};

use lb_tests::{
    lab::wait_until,
    stage::PATIENCE,
    steady::{during, failures, goes_on, half_asked, shares},
    yard::{LABEL, Yard},
};
use rustix::process::{Pid, Signal, kill_process};

/// Waits until these containers, and no others, are known and answer.
fn expect(yard: &Yard, vip: SocketAddr, names: &[&str]) {
    let known = || {
        let backends = yard.service("web")["backends"].clone();
        let tasks = backends.as_array().into_iter().flatten();
        let mut tasks: Vec<String> = tasks
            .filter_map(|one| Some(one["task"].as_str()?.to_owned()))
            .collect();
        tasks.sort();
        tasks
    };
    let followed = wait_until("it follows", PATIENCE, || known() == names);
    assert!(followed.is_ok(), "{:?}", known());
    let shares = shares(&yard.stage.clients[0], vip, 60);
    assert_eq!(shares.into_keys().collect::<Vec<_>>(), names);
}

#[test]
fn an_agent_that_was_away_finds_what_changed_and_ends_no_connection() {
    let mut yard = Yard::up("absent", &[]);
    for n in 1..=3 {
        yard.run(&format!("web-{n}"), &LABEL);
    }
    let vip = yard.expect("web", 3);
    let client = &yard.stage.clients[0];
    let streams: Vec<TcpStream> = (0..12).map(|_| half_asked(client, vip)).collect();
    yard.stage.agent.signal(Signal::KILL).expect("killed");
    yard.docker(&["rm", "--force", "web-3"]);
    yard.run("web-4", &LABEL);
    // Those of the two that are left; the third had its share.
    let left: Vec<&TcpStream> = streams.iter().filter(|stream| goes_on(stream)).collect();
    assert!(!left.is_empty());
    yard.stage.revive();
    expect(&yard, vip, &["web-1", "web-2", "web-4"]);
    for stream in left {
        assert!(goes_on(stream), "it survives the agent's absence");
    }
}

#[test]
fn an_agent_that_stood_still_through_hundreds_of_events_follows_again() {
    let mut yard = Yard::up("still", &["--resync", "10"]);
    for n in 1..=2 {
        yard.run(&format!("web-{n}"), &LABEL);
    }
    let vip = yard.expect("web", 2);
    yard.stage.agent.signal(Signal::STOP).expect("stopped");
    for _ in 0..250 {
        for name in ["web-1", "web-2"] {
            let path = format!("/containers/{name}/kill?signal=SIGHUP");
            yard.docker.post(&path).expect("it is told");
        }
    }
    yard.docker(&["rm", "--force", "web-1"]);
    yard.run("web-3", &LABEL);
    yard.stage.agent.signal(Signal::CONT).expect("goes on");
    expect(&yard, vip, &["web-2", "web-3"]);
}

#[test]
fn an_engine_that_stands_still_is_told_of_and_followed_when_it_goes_on() {
    let mut yard = Yard::up("frozen", &[]);
    for n in 1..=2 {
        yard.run(&format!("web-{n}"), &LABEL);
    }
    let vip = yard.expect("web", 2);
    let pid = ["inspect", "--format", "{{.State.Pid}}", "web-2"];
    let pid = yard.docker.docker(&pid).expect("a process");
    let pid = pid.trim().parse().ok().and_then(Pid::from_raw);
    let pid = pid.expect("its number");

    yard.docker.signal(Signal::STOP).expect("it stands still");
    let Yard { docker, stage } = &mut yard;
    let failing = || {
        let status = stage.status();
        let mut providers = status["providers"].as_array().into_iter().flatten();
        providers.any(|one| one["last_error"].is_object())
    };
    let mut told = Ok(());
    let answers = during(&stage.clients[0], vip, || {
        told = wait_until("it is told", 2 * PATIENCE, failing);
    });
    let killed = kill_process(pid, Signal::KILL);
    // Whatever came of it: the engine is asked for all that follows.
    docker.signal(Signal::CONT).expect("it goes on");
    told.expect("a ping has no answer");
    killed.expect("killed");
    assert_eq!(failures(&answers), [""; 0], "of {}", answers.len());
    expect(&yard, vip, &["web-1"]);
}
