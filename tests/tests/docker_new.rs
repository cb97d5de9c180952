//! A label on a container is enough, and a name has one address for ever.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use lb_tests::{
    lab::wait_until,
    stage::PATIENCE,
    steady::ask,
    yard::{LABEL, Yard},
};

/// From the start of its first container until a service is reached.
const SOON: Duration = Duration::from_secs(1);

#[test]
fn a_label_is_enough_to_be_reached_within_a_second() {
    let yard = Yard::up("new", &[]);
    let client = &yard.stage.clients[0];
    // What the first container of an engine takes its time for is not the agent's.
    yard.run("web-1", &LABEL);
    yard.expect("web", 1);
    for number in 1..=5 {
        let vip = format!("10.99.0.{number}:80");
        let label = format!("lb.vip={vip}");
        yard.run(&format!("new-{number}"), &["--label", &label]);
        let (vip, began) = (
            vip.parse::<SocketAddr>().expect("an address"),
            Instant::now(),
        );
        // A SYN that comes before the service is sent again after a second only.
        let dial = || TcpStream::connect_timeout(&vip, Duration::from_millis(50)).is_ok();
        let reached = wait_until("it is reached", PATIENCE, || {
            client.enter(dial).expect("entered")
        });
        let took = began.elapsed();
        reached.expect("it does");
        assert!(took < SOON, "{vip}: {took:?}");
    }
}

#[test]
fn a_name_keeps_its_address_over_scaling_updates_and_restarts() {
    let mut yard = Yard::up("address", &[]);
    yard.run("web-1", &LABEL);
    let vip = yard.expect("web", 1);
    for name in ["web-2", "web-3"] {
        yard.run(name, &LABEL);
    }
    assert_eq!(yard.expect("web", 3), vip, "scaled");
    yard.docker(&["rm", "--force", "web-1", "web-2", "web-3"]);
    let gone = wait_until("it is gone", PATIENCE, || yard.service("web").is_null());
    gone.expect("nobody is left");
    let weighs = ["--label", "lb.vip=web:80", "--label", "lb.weight=7"];
    yard.run("web-4", &weighs);
    assert_eq!(yard.expect("web", 1), vip, "updated");
    yard.stage.revive();
    assert_eq!(yard.expect("web", 1), vip, "restarted");
    ask(&yard.stage.clients[0], vip).expect("it answers");
}
