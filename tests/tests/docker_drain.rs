//! How long a container that is told to stop keeps its connections.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use lb_tests::{
    lab::{Host, wait_until},
    stage::PATIENCE,
    yard::{LABEL, Yard},
};

/// As long as a container that ignores its signal lives on.
const GRACE: Duration = Duration::from_secs(12);

/// A connection whose request is never complete, so that the server waits for the rest.
fn half_asked(client: &Host, vip: SocketAddr) -> TcpStream {
    let mut stream = client
        .enter(|| TcpStream::connect_timeout(&vip, Duration::from_secs(2)))
        .expect("entered")
        .expect("connected");
    let brief = Some(Duration::from_millis(200));
    stream.set_read_timeout(brief).expect("a time-out");
    stream.write_all(b"GET /").expect("sent");
    stream
}

/// Whether the connection is still there, after one more byte of the request.
fn goes_on(mut stream: &TcpStream) -> bool {
    let sent = stream.write_all(b"x");
    match sent.and_then(|()| stream.read(&mut [0])) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => true,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => false,
        // The server's kernel ends it with the process.
        Ok(0) => false,
        other => panic!("neither on nor over: {other:?}"),
    }
}

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
