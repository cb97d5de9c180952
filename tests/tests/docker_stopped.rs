//! A real Docker Engine: a service of which every container is stopped.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    io::ErrorKind,
    net::TcpStream,
    time::{Duration, Instant},
};

use lb_tests::{
    admin::{page, rows_of},
    lab::wait_until,
    stage::{CONNECT, PATIENCE},
    steady::shares,
    yard::{LABEL, Yard},
};

/// Much less than the second after which a SYN without an answer is sent again.
const AT_ONCE: Duration = Duration::from_millis(500);

/// A name that nobody has is none of the agent's zone unless it is written whole.
const WHOLE: &str = "web.docker.l4lb.thisdcos.directory";

#[test]
fn a_service_that_is_stopped_keeps_its_name_and_refuses_at_once() {
    let yard = Yard::up("stopped", &[]);
    for n in 1..=2 {
        yard.run(&format!("web-{n}"), &LABEL);
    }
    let vip = yard.expect("web", 2);
    let expect_status = |expected: &str| {
        wait_until(expected, PATIENCE, || {
            let rows = rows_of(&page(&yard.stage, "/;csv"), "web.docker_80");
            rows.get("BACKEND")
                .is_some_and(|row| row["status"] == expected)
        })
        .expect("shown");
    };
    expect_status("UP");
    yard.docker(&["stop", "--time", "0", "web-1", "web-2"]);
    wait_until("nobody is behind it", PATIENCE, || {
        let backends = yard.service("web")["backends"].as_array().map(Vec::len);
        backends == Some(0)
    })
    .expect("gone");

    expect_status("DOWN");
    let resolved = |name: &str| yard.stage.ask(&["resolve", name]);
    let found = resolved("web.docker");
    assert_eq!(found["code"], "NOERROR", "{found}");
    assert_eq!(found["addrs"][0], vip.ip().to_string(), "{found}");
    let tasks = resolved("tasks.web.docker");
    assert_eq!(tasks["code"], "NOERROR", "{tasks}");
    assert_eq!(tasks["addrs"].as_array().map(Vec::len), Some(0), "{tasks}");
    for host in [&yard.stage.clients[0], &yard.stage.node] {
        let began = Instant::now();
        let answer = host.enter(|| TcpStream::connect_timeout(&vip, CONNECT));
        let why = answer.expect("entered").expect_err("nobody answers");
        assert_eq!(why.kind(), ErrorKind::ConnectionRefused, "{}", host.name());
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    }

    yard.docker(&["start", "web-1"]);
    assert_eq!(yard.expect("web", 1), vip, "at the same address");
    expect_status("UP");
    let client = &yard.stage.clients[0];
    assert_eq!(shares(client, vip, 5), [("web-1".to_owned(), 5)].into());
    yard.docker(&["rm", "--force", "web-1", "web-2"]);
    let gone = wait_until("its name is gone", PATIENCE, || {
        resolved(WHOLE)["code"] == "NXDOMAIN"
    });
    assert!(gone.is_ok(), "{}", resolved(WHOLE));
}
