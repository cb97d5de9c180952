//! More connections of one client than it has ports: without a translation of its source there is no such limit.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use lb_tests::{
    lab::{programs::program, servers::Server},
    probe::Outcome,
    stage::Stage,
};

const VIP: &str = "10.99.0.1:80";
/// Behind it, on three servers.
const BACKENDS: u16 = 8;
/// The client's, at a time.
const PROCESSES: u64 = 4;
/// Of each process: a hundred thousand in all.
const CONNECTIONS: u64 = 25_000;
/// A closed connection keeps its port towards its backend for so long, tcp(7).
const TIME_WAIT: Duration = Duration::from_secs(60);

#[test]
fn a_client_on_the_node_opens_a_hundred_thousand_connections_in_a_minute() {
    let places: Vec<_> = (0..BACKENDS)
        .map(|number| (usize::from(number % 3), 81 + number))
        .collect();
    let each = places
        .iter()
        .map(|(server, port)| format!("'10.77.0.1{}:{port}'", server + 1));
    let backends = each.collect::<Vec<_>>().join(", ");
    let stage = Stage::up(
        &format!("services:\n- {{address: 10.99.0.1, port: 80, backends: [{backends}]}}\n"),
        &[],
    );
    let servers: Vec<_> = places
        .iter()
        .map(|(server, port)| {
            let at = ([0, 0, 0, 0], *port).into();
            Server::tcp_echo(&stage.servers[*server], at, &port.to_string()).expect("a server")
        })
        .collect();
    let (probe, count) = (
        program("probe").expect("it is built"),
        CONNECTIONS.to_string(),
    );
    let argv = [&probe, VIP, "--mode", "greeting", "--count", &count];
    let began = Instant::now();
    let clients: Vec<_> = (0..PROCESSES)
        .map(|_| stage.node.start("client", &argv).expect("started"))
        .collect();
    let mut reached = BTreeSet::new();
    for client in clients {
        let done = client.finish(2 * TIME_WAIT).and_then(|done| done.ok());
        let outcome: Outcome = serde_json::from_str(&done.expect("it ends well")).expect("JSON");
        assert_eq!(
            (outcome.answered, outcome.failed),
            (CONNECTIONS, 0),
            "{outcome:?}"
        );
        reached.extend(outcome.by_answer.into_keys());
    }
    assert_eq!(reached.len(), usize::from(BACKENDS), "{reached:?}");
    let took = began.elapsed();
    assert!(took < TIME_WAIT, "{took:?}: ports came back meanwhile");
    drop(servers);
}
