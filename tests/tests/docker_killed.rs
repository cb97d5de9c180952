//! A real Docker Engine: containers that are killed, and clients on their own node.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::time::{Duration, Instant};

use lb_tests::{
    lab::wait_until,
    stage::PATIENCE,
    yard::{LABEL, Yard},
};
use rustix::process::Signal;

/// Asks again and again: how long each question took, and the name that answered, or why none did.
const ASK: &str = "import socket, sys, time\n\
                   while True:\n \
                   began = time.monotonic()\n \
                   try:\n  \
                   s = socket.create_connection((sys.argv[1], 80), 10)\n  \
                   s.sendall(b'GET /index.html HTTP/1.0\\r\\n\\r\\n')\n  \
                   said = b''.join(iter(lambda: s.recv(4096), b'')).decode()\n  \
                   end = said.split()[-1] if ' 200 ' in said else 'error: ends early'\n \
                   except OSError as error:\n  \
                   end = 'error: %s' % error\n \
                   print('%.3f %s' % (time.monotonic() - began, end), flush=True)\n \
                   time.sleep(0.02)\n";

/// Less than the second after which a SYN without an answer is sent again.
const AT_ONCE: Duration = Duration::from_millis(800);

#[test]
fn a_client_on_the_node_has_an_error_at_once_and_goes_elsewhere_then() {
    let yard = Yard::up("local", &[]);
    for n in 1..=4 {
        yard.run(&format!("web-{n}"), &LABEL);
    }
    let vip = yard.expect("web", 4).ip().to_string();
    let argv = ["python3", "-c", ASK, &vip];
    let mut client = yard.stage.node.start("client", &argv).expect("started");
    // All containers were asked before the first is killed, and those that are left after each.
    let asked_all = |client: &lb_tests::lab::Process, from: usize, left: &[&str]| {
        wait_until("all are asked", PATIENCE, || {
            let said = client.stdout();
            let new: Vec<&str> = said.lines().skip(from).collect();
            left.iter()
                .all(|name| new.iter().any(|line| line.ends_with(name)))
        })
        .expect("by one client");
    };
    let all = ["web-1", "web-2", "web-3", "web-4"];
    let mut from = 0;
    for killed in 0..3 {
        asked_all(&client, from, &all[killed..]);
        yard.docker(&["kill", all[killed]]);
        from = client.stdout().lines().count();
    }
    asked_all(&client, from, &all[3..]);
    client.signal(Signal::TERM).expect("told to end");
    wait_until("it ends", PATIENCE, || client.has_ended()).expect("ended");

    let said = client.stdout();
    let answers: Vec<(Duration, &str)> = said
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(took, end)| (Duration::from_secs_f64(took.parse().expect("s")), end))
        .collect();
    let failed = |(_, end): &(Duration, &str)| end.starts_with("error");
    let failures: Vec<_> = answers.iter().filter(|answer| failed(answer)).collect();
    // The engine tells of it afterwards, so that the next one may meet it, too, but none after that.
    assert!(failures.len() <= 6, "of {}: {failures:?}", answers.len());
    let thrice = answers.windows(3).any(|row| row.iter().all(&failed));
    assert!(!thrice, "{failures:?}");
    let longest = answers.iter().map(|(took, _)| *took).max();
    assert!(longest < Some(AT_ONCE), "{longest:?}, {failures:?}");
}

#[test]
fn a_connection_of_a_client_on_the_node_is_over_at_once_with_its_container() {
    let yard = Yard::up("over", &[]);
    yard.run("web-1", &LABEL);
    let vip = yard.expect("web", 1).ip();
    // Its request is never complete, so that the server waits for the rest; then it asks anew.
    let script = format!(
        "exec 3<>/dev/tcp/{vip}/80; printf 'GET /' >&3; echo open; head -c 1 <&3; echo over; \
         sleep 0.1; exec 3<>/dev/tcp/{vip}/80; printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' >&3; \
         tail -n 1 <&3; sleep 30"
    );
    let client = ["bash", "-c", &script];
    let client = yard.stage.node.start("client", &client).expect("started");
    let says = |what: &str| {
        wait_until(what, PATIENCE, || client.stdout() == what)
            .unwrap_or_else(|_| panic!("not {what:?} but {:?}", client.stdout()));
    };
    says("open\n");
    yard.run("web-2", &LABEL);
    yard.expect("web", 2);
    let killed = Instant::now();
    yard.docker(&["kill", "web-1"]);
    says("open\nover\nweb-2\n");
    // The command to the engine itself takes a part of that.
    assert!(
        killed.elapsed() < Duration::from_secs(2),
        "{:?}",
        killed.elapsed()
    );
}
