//! How long a container that is told to stop keeps its connections.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    thread,
    time::{Duration, Instant},
};

use lb_tests::{
    lab::wait_until,
    stage::PATIENCE,
    steady::{goes_on, half_asked},
    yard::{LABEL, Yard},
};

/// As long as a container that ignores its signal lives on.
const GRACE: Duration = Duration::from_secs(12);

/// How long after `docker stop` the connection was over.
fn over_after(name: &str, drain: &[&str]) -> Duration {
    let yard = Yard::up(name, &[]);
    yard.run("web-1", &[&LABEL[..], drain].concat());
    let vip = yard.expect("web", 1);
    let stream = half_asked(&yard.stage.clients[0], vip);
    assert!(goes_on(&stream));
    let told = Instant::now();
    let grace = GRACE.as_secs().to_string();
    thread::scope(|scope| {
        scope.spawn(|| yard.docker(&["stop", "--time", &grace, "web-1"]));
        wait_until("it is over", PATIENCE, || !goes_on(&stream)).expect("it is");
        told.elapsed()
    })
}

#[test]
fn after_its_drain_what_a_stopping_container_has_left_is_reset() {
    let after = over_after("deadline", &["--label", "lb.drain=3"]);
    let (least, most) = (Duration::from_secs(3), GRACE - Duration::from_secs(3));
    assert!(least <= after && after < most, "{after:?}");
}

#[test]
fn what_is_left_is_reset_at_once_or_at_the_end_as_the_label_says() {
    let at_once = over_after("cut", &["--label", "lb.drain=-1"]);
    assert!(at_once < Duration::from_secs(3), "{at_once:?}");
    let at_the_end = over_after("keep", &[]);
    assert!(at_the_end >= GRACE, "{at_the_end:?}");
}
