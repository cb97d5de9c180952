//! Connections on which nothing happens for long: they go on, or are told at once that they are over.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    env, fs,
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    thread,
    time::Duration,
};

use lb_tests::{
    lab::wait_until,
    stage::{PATIENCE, Stage, connect},
};

/// The shortest idle time that there is, and the usual one.
const SERVICES: &str = "services:
- {address: 10.99.0.1, port: 80, idle: {tcp: 10s}, backends: [10.77.0.11:80]}
- {address: 10.99.0.2, port: 80, backends: [10.77.0.11:80]}
- {address: 10.99.0.3, port: 80, idle: {tcp: 10s}, backends: [10.77.0.11:80]}
";
/// Ten seconds, and the walk that comes after them.
const FORGOTTEN: Duration = Duration::from_secs(50);

/// What comes of a byte that is sent now.
fn next_byte(mut stream: &TcpStream) -> std::io::Result<usize> {
    let second = Some(Duration::from_secs(1));
    stream.set_read_timeout(second).expect("set");
    stream.write_all(b"x")?;
    stream.read(&mut [0; 1])
}

#[test]
fn after_a_long_silence_the_next_byte_arrives_or_the_connection_is_reset_within_a_second() {
    let stage = Stage::up(SERVICES, &[]);
    let client = &stage.clients[0];
    let open = |vip| connect(client, vip).expect("a connection").0;
    let (forgotten, known) = (open("10.99.0.1:80"), open("10.99.0.2:80"));
    // A process of the node needs no entry in a table.
    let go = stage.node.dir().join("go");
    let script = format!(
        "exec 3<>/dev/tcp/10.99.0.3/80; head -c 2 <&3; echo; while [ ! -e {} ]; do sleep 0.1; done; \
         printf more >&3; head -c 4 <&3; echo; sleep 60",
        go.display()
    );
    let local = stage.node.start("local", &["bash", "-c", &script]);
    let local = local.expect("started");
    wait_until("it is connected", PATIENCE, || local.stdout() == "s1\n").expect("it is");
    let flows = |number: usize| {
        let status = stage.status();
        status["services"][number]["traffic"]["flows_active"].clone()
    };
    wait_until("both are flows", PATIENCE, || {
        flows(0) == 1 && flows(1) == 1
    })
    .expect("they are");

    wait_until("one is no flow any more", FORGOTTEN, || flows(0) == 0).expect("it is silent");
    assert_eq!(
        next_byte(&known).expect("it arrives"),
        1,
        "two hours are not over"
    );
    match next_byte(&forgotten) {
        Ok(1) => {}
        Ok(_) => panic!("it is closed as if the server had done so"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    assert_eq!(next_byte(&open("10.99.0.1:80")).expect("a new one"), 1);
    fs::write(go, "").expect("written");
    let more = || local.stdout() == "s1\nmore\n";
    wait_until("the process is answered", PATIENCE, more).expect("it goes on");
}

/// Minutes of silence; the usual idle time, after which a connection is over, is 124.
const MINUTES: &str = "LB_IDLE_MINUTES";

#[test]
#[ignore = "20 minutes: `cargo xtask test lab -- --ignored silent_for`; LB_IDLE_MINUTES=120 for the long run"]
fn connections_that_are_silent_for_twenty_minutes_go_on() {
    let minutes = env::var(MINUTES).map_or(20, |text| text.parse().expect(MINUTES));
    let stage = Stage::up(SERVICES, &[]);
    let (outside, _) = connect(&stage.clients[0], "10.99.0.2:80").expect("a connection");
    let go = stage.node.dir().join("go");
    let script = format!(
        "exec 3<>/dev/tcp/10.99.0.2/80; head -c 2 <&3; echo; while [ ! -e {} ]; do sleep 1; done; printf more >&3; \
         head -c 4 <&3; echo; sleep 60",
        go.display()
    );
    let inside = stage.node.start("inside", &["bash", "-c", &script]);
    let inside = inside.expect("started");
    wait_until("it is connected", PATIENCE, || inside.stdout() == "s1\n").expect("it is");
    thread::sleep(Duration::from_secs(60 * minutes));
    assert_eq!(next_byte(&outside).expect("it arrives"), 1);
    fs::write(go, "").expect("written");
    let more = || inside.stdout() == "s1\nmore\n";
    wait_until("the process is answered", PATIENCE, more).expect("it goes on");
}
