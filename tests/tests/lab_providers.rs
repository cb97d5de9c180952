//! Two providers of which one cannot be read after a start: neither waits for the other.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::time::Duration;

use lb_tests::{
    apps::{APP2, app2},
    asking::{ask, expect_all, named},
    fixed::{BOX, Fixed, HOST, IDLE, services},
    lab::{Host, wait_until},
    topology::{MASTER, Topology, Wishes},
};
use rustix::process::Signal;

const APP2_NAME: &str = "dcos-101app2";

/// Every one of twenty questions is refused.
fn is_refused(client: &Host, vip: &str) -> bool {
    let outcome = ask(client, vip, 20, &[]).expect("probe");
    let refused = outcome.errors.keys().all(|error| error.contains("refused"));
    outcome.failed == 20 && refused
}

fn agent_log(topology: &Topology) -> String {
    topology.agents[MASTER].as_ref().expect("an agent").stderr()
}

#[test]
fn what_one_provider_dropped_goes_while_another_was_never_read() {
    let Fixed {
        mut topology,
        servers: _servers,
    } = Fixed::up(Wishes::default()).expect("a topology");
    topology.put_app(APP2, &app2()).expect("the app runs");
    let app2 = topology.vip(MASTER, APP2_NAME, false).expect("a VIP");
    let app2 = std::net::SocketAddr::new(app2, 10000);
    let host = topology.vip(MASTER, HOST.0, false).expect("a VIP");
    let host = std::net::SocketAddr::new(host, HOST.1).to_string();

    topology.kill_agent(MASTER).expect("killed");
    topology.marathon.signal(Signal::STOP).expect("frozen");
    topology.put_services(&services(&[BOX, IDLE]));
    topology.start_agent(MASTER).expect("started");
    topology.agent_answers(MASTER).expect("it is back");
    let master = topology.master();
    wait_until("the dropped service goes", Duration::from_secs(10), || {
        is_refused(master, &host) && is_refused(&topology.client, &host)
    })
    .expect("the file was read, so nothing holds it");
    for client in [master, &topology.client] {
        for to in [app2.to_string(), named(APP2_NAME, app2.port())] {
            let outcome = ask(client, &to, 20, &[]).expect("probe");
            expect_all(&outcome, app2, None).expect("Marathon was not read, so its app stays");
        }
    }

    topology.marathon.signal(Signal::CONT).expect("thawed");
    let removed = topology.marathon("DELETE", &format!("/v2/apps/{APP2}"), &().into());
    removed.expect("deleted");
    wait_until("the app goes", Duration::from_secs(30), || {
        is_refused(topology.master(), &app2.to_string())
    })
    .expect("Marathon was read");
    let removed = || agent_log(&topology).matches("\"service removed\"").count();
    wait_until("it is told", Duration::from_secs(10), || removed() > 4)
        .expect("four of the file and the app");
    assert_eq!(removed(), 5);
}

#[test]
fn services_of_an_earlier_life_are_adopted_once_and_not_added_again() {
    let mut fixed = Fixed::up(Wishes::default()).expect("a topology");
    let added = |topology: &Topology| agent_log(topology).matches("\"service added\"").count();
    assert!(added(&fixed.topology) > 0, "the first life adds them");
    fixed.topology.kill_agent(MASTER).expect("killed");
    fixed.topology.start_agent(MASTER).expect("started");
    fixed.topology.agent_answers(MASTER).expect("it is back");
    let topology = &fixed.topology;
    let put = topology.put_app(APP2, &app2());
    put.expect("the app runs");
    topology.vip(MASTER, APP2_NAME, false).expect("a VIP");
    wait_until("the new app is added", Duration::from_secs(10), || {
        added(topology) == 1
    })
    .expect("it alone");
    let log = agent_log(topology);
    assert_eq!(log.matches("adopted 12 services").count(), 1, "{log}");
}
