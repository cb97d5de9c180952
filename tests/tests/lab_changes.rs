//! Ten thousand changes of backends under load: they cost no connection anything, and leave nothing behind.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use lb_tests::{
    admin::{page, rows_of},
    asking::{Steady, ask},
    lab::{Host, Process, programs::program, wait_until},
    stage::{PATIENCE, Stage, connect},
    task::READY,
};
use serde_json::Value;

/// What the load goes to.
const WEB: &str = "10.99.0.1:80";
/// Where connections stay open.
const KEPT: &str = "10.99.0.2:80";
/// What HAProxy's tools call that.
const KEPT_PROXY: &str = "10.99.0.2_80";
/// Of these.
const LONG: usize = 30;
/// Services whose backends change as well.
const OTHERS: usize = 100;
/// How often the file is written; each time every backend is another than before.
const ROUNDS: usize = 35;
/// Of those, after which the agent's memory is what it is.
const SETTLED: usize = 5;
/// Connections of each client before the first change, for comparison.
const CALM: u32 = 300;
/// What the work of the agent itself may add to the time of a connection on a machine with few CPUs; a SYN that waits
/// for anything takes much longer.
const BUSY: Duration = Duration::from_millis(20);
/// What two minutes of the numbers of every backend may take, KiB.
const KEPT_NUMBERS: u64 = 16 << 10;

/// Weights, and backends that come and go, differ from one round to the next.
fn services(round: usize) -> String {
    let weight = |number: usize| 1 + (round + number) % 7;
    let on = |server: usize, port: u16, weight: usize| {
        format!("{{address: '10.77.0.1{server}:{port}', weight: {weight}}}")
    };
    // One drains every other time.
    let all = |port| {
        [
            on(1, port, weight(0)),
            on(2, port, weight(1)),
            on(3, port, round % 2),
        ]
        .join(", ")
    };
    let mut text = format!(
        "services:\n- {{address: 10.99.0.1, port: 80, backends: [{}]}}\n\
         - {{address: 10.99.0.2, port: 80, backends: [{}]}}\n",
        all(8080),
        all(80)
    );
    for number in 0..OTHERS {
        let mut backends = vec![on(1, 9000, weight(number)), on(2, 9000, weight(number + 1))];
        if (round + number).is_multiple_of(2) {
            backends.push(on(3, 9000, 1));
        }
        let backends = backends.join(", ");
        writeln!(
            text,
            "- {{address: 10.99.1.{}, port: 80, backends: [{backends}]}}",
            number + 1
        )
        .expect("text");
    }
    text
}

/// What `status` shows of the file of this round, once it is in force.
fn is_in_force(status: &Value, round: usize) -> bool {
    let services = status["services"].as_array();
    let web = services
        .into_iter()
        .flatten()
        .find(|service| service["addrs"][0] == "10.99.0.1");
    web.is_some_and(|web| {
        web["backends"][0]["weight"] == 1 + round % 7 && web["backends"][2]["weight"] == round % 2
    })
}

/// A task that says where it runs.
fn serve(host: &Host) -> Process {
    let program = program("task-server").expect("it is built");
    let argv = [&program, "--node", host.name(), "--port", "8080"];
    let server = host.start("web", &argv).expect("started");
    wait_until("it serves", PATIENCE, || server.stdout().contains(READY)).expect("it does");
    server
}

fn goes_on(mut stream: &TcpStream) -> bool {
    let mut echoed = [0; 4];
    stream.write_all(b"ping").is_ok() && stream.read_exact(&mut echoed).is_ok()
}

#[test]
fn ten_thousand_changes_cost_no_connection_anything_and_leave_nothing_behind() {
    let mut stage = Stage::up(&services(0), &[]);
    let _tasks: Vec<Process> = stage.servers.iter().map(serve).collect();
    let long: Vec<TcpStream> = (0..LONG)
        .map(|_| connect(&stage.clients[0], KEPT).expect("a connection").0)
        .collect();
    let clients = [&stage.clients[0], &stage.clients[1], &stage.node];
    let calm = clients.map(|client| {
        let outcome = ask(client, WEB, CALM, &[]).expect("counts");
        outcome.connect_p99().expect("connections")
    });
    let load = clients.map(|client| Steady::start(client, WEB, &[]).expect("a client"));
    let mut settled = 0;
    for round in 1..=ROUNDS {
        stage.write(&services(round), |status| is_in_force(status, round));
        if round == SETTLED {
            settled = stage.memory();
        }
    }
    let now = stage.memory();
    for ((load, client), calm) in load.into_iter().zip(clients).zip(calm) {
        let outcome = load.stop().expect("counts");
        let said = format!("{}: {outcome:?}", client.name());
        assert!(outcome.failed == 0 && outcome.answered > 100, "{said}");
        assert!(outcome.by_answer.len() > 1, "{said}");
        // A SYN is sent again after 1 s, RFC 6298 section 2.1.
        assert!(outcome.slowest_us < 1_000_000, "a SYN was lost: {said}");
        let p99 = outcome.connect_p99().expect("connections");
        eprintln!(
            "{}: 99 % of connections within {calm:?} before, {p99:?} during the changes",
            client.name()
        );
        assert!(p99 < calm + BUSY, "{calm:?} before, {p99:?} now: {said}");
    }
    assert!(long.iter().all(goes_on), "none of them was touched");
    assert!(now < settled + KEPT_NUMBERS, "{settled} KiB, then {now}");
    let pids = page(&stage, "/_haproxy_getpids");
    let pids: Vec<&str> = pids.split_whitespace().collect();
    assert_eq!(pids, [stage.agent.pid().to_string()], "one process");
    // The number of sessions is that of the connections, now and after half of them have ended.
    let sessions = || -> usize {
        let rows = rows_of(&page(&stage, "/;csv"), KEPT_PROXY);
        rows["BACKEND"]["scur"].parse().unwrap_or(usize::MAX)
    };
    let counted = |number| wait_until("they are counted", PATIENCE, || sessions() == number);
    counted(LONG).expect("all that are open");
    let left = long.into_iter().take(LONG / 2).collect::<Vec<_>>();
    counted(left.len()).expect("those that are left");
    assert!(!stage.agent.has_ended());
}
