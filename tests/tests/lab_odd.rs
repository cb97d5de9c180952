//! What is no ordinary connection: ping, ports that nobody serves, services without a usable backend, and who
//! would listen at a VIP.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use lb_tests::{
    asking::ask,
    fixed::{Fixed, HOST, IDLE, WORKER1},
    lab::{Host, programs::program, servers::Server},
    stage::{Stage, connect},
    topology::Wishes,
};

/// "At once", on a machine that is busy with other tests.
const AT_ONCE: Duration = Duration::from_secs(2);

fn fixed() -> Fixed {
    Fixed::up(Wishes::default()).expect("a topology")
}

fn clients(fixed: &Fixed) -> [&Host; 4] {
    [
        fixed.topology.master(),
        &fixed.topology.nodes[WORKER1],
        &fixed.topology.container,
        &fixed.topology.client,
    ]
}

#[test]
fn a_vip_answers_ping() {
    let fixed = fixed();
    for ipv6 in [false, true] {
        let vip = fixed.vip(HOST, ipv6).expect("a VIP").ip().to_string();
        for client in [fixed.topology.master(), &fixed.topology.client] {
            let ping = client
                .run(&["ping", "-c", "3", "-i", "0.2", "-W", "2", &vip])
                .expect("ping");
            assert!(
                ping.stdout.contains(" 0% packet loss"),
                "{} to {vip}: {}",
                client.name(),
                ping.stdout
            );
        }
    }
}

/// Neither answer nor hang, over TCP and UDP.
fn is_refused(fixed: &Fixed, name: &str, port: u16) {
    for ipv6 in [false, true] {
        let vip = fixed.vip((name, port), ipv6).expect("a VIP").to_string();
        for client in clients(fixed) {
            for mode in ["tcp", "udp"] {
                let flags: &[&str] = if ipv6 {
                    &["--ipv6", "--mode", mode]
                } else {
                    &["--mode", mode]
                };
                let start = Instant::now();
                let outcome = ask(client, &vip, 1, flags).expect("probe");
                let refused = outcome.errors.keys().all(|error| error.contains("refused"));
                let case = format!("{mode} {vip} from {}", client.name());
                assert!(outcome.failed == 1 && refused, "{case}: {outcome:?}");
                assert!(
                    start.elapsed() < AT_ONCE,
                    "{case}: after {:?}",
                    start.elapsed()
                );
            }
        }
    }
}

#[test]
fn a_port_that_no_service_has_is_refused_at_once() {
    is_refused(&fixed(), HOST.0, 9);
}

#[test]
fn a_port_of_the_node_itself_is_not_reached_by_a_vip() {
    // The backend's server listens on every address of worker1, to which the VIP is local.
    is_refused(&fixed(), HOST.0, 8001);
}

#[test]
fn a_service_whose_backends_all_drain_is_refused_at_once() {
    is_refused(&fixed(), IDLE.0, IDLE.1);
}

#[test]
fn a_socket_on_every_address_of_the_node_is_not_found_for_a_vip() {
    let services = "services:\n- {address: 10.99.0.1, port: 80, backends: ['10.77.0.11:80']}\n";
    let stage = Stage::up(services, &[]);
    let at = "0.0.0.0:81".parse().expect("an address");
    let _own = Server::tcp_echo(&stage.node, at, "me").expect("a server");
    let client = &stage.clients[0];
    let (_, name) = connect(client, "10.77.0.1:81").expect("it listens");
    assert_eq!(name, "me");
    connect(client, "10.99.0.1:80").expect("the VIP is in force");
    let error = connect(client, "10.99.0.1:81").expect_err("no service is there");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
    stage.expect_dropped("local_socket_guarded");
}

#[test]
fn a_process_that_is_refused_is_counted_with_the_reason() {
    let services = "services:\n- address: 10.99.0.1\n  port: 80\n  backends:\n  \
                    - {address: '10.77.0.11:80', weight: 0}\n";
    let stage = Stage::up(services, &[]);
    for (port, reason) in [(80, "sock_no_backend"), (81, "sock_no_service")] {
        let url = format!("http://10.99.0.1:{port}/");
        let curl = stage.node.run(&["curl", "-sS", "-m", "5", &url]);
        let curl = curl.expect("it runs");
        assert_eq!(curl.status.code(), Some(7), "{reason}: {}", curl.stderr);
        stage.expect_dropped(reason);
    }
}

#[test]
fn a_process_cannot_listen_on_a_vip() {
    let services = "services:\n- {address: 10.99.0.1, port: 80, backends: ['10.77.0.11:80']}\n";
    let stage = Stage::up(services, &[]);
    let program = program("task-server").expect("a server");
    for at in ["10.99.0.1", "::ffff:10.99.0.1"] {
        let argv = [
            "timeout", "5", &program, "--node", "node", "--bind", at, "--port", "81",
        ];
        let server = stage.node.run(&argv).expect("it runs");
        let why = &server.stderr;
        assert!(why.contains("Address already in use"), "{at}: {why}");
    }
    stage.expect_dropped("bind_refused");
}
