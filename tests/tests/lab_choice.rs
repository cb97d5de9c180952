//! What a services file asks of the kernel reaches it: who may come, who is chosen, how many, and by which way.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
};

use lb_tests::{
    asking::{ask, expect_all},
    lab::{Host, programs::program, servers::Server, wait_until},
    stage::{CONNECT, PATIENCE, Stage, connect},
    task::READY,
};
use serde_json::Value;

/// As many connections, and how many each server has.
fn connections(
    client: &Host,
    vip: &str,
    count: usize,
) -> (Vec<TcpStream>, BTreeMap<String, usize>) {
    let mut shares = BTreeMap::new();
    let open = (0..count).map(|_| {
        let (stream, server) = connect(client, vip).expect("a connection");
        *shares.entry(server).or_default() += 1;
        stream
    });
    (open.collect(), shares)
}

fn is_refused(client: &Host, vip: &str) -> bool {
    let refused = |error: std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
    connect(client, vip).is_err_and(refused)
}

/// The state of the first service's backend at this server, and why.
fn state(status: &Value, server: u8) -> String {
    let addr = format!("10.77.0.{}:80", 10 + server);
    let backends = status["services"][0]["backends"].as_array();
    let found = backends.into_iter().flatten().find(|b| b["addr"] == *addr);
    found.map_or_else(String::new, |backend| {
        let word = |key: &str| backend[key].as_str().unwrap_or("-").to_owned();
        format!("{} {}", word("state"), word("why"))
    })
}

fn service(vip: &str, keys: &str, backends: &str) -> String {
    format!("services:\n- {{address: {vip}, port: 80, {keys} backends: [{backends}]}}\n")
}

#[test]
fn a_denied_client_is_kept_out_and_another_served() {
    let text = service("10.99.0.1", "deny: [10.77.0.101],", "10.77.0.11:80");
    let stage = Stage::up(&text, &[]);
    let [one, other] = [&stage.clients[0], &stage.clients[1]];
    connect(one, "10.99.0.1:80").expect("nobody denies it");
    let denied = connect(other, "10.99.0.1:80").expect_err("it is denied");
    assert_eq!(denied.kind(), std::io::ErrorKind::TimedOut);
    stage.expect_dropped("source_not_allowed");

    let text = service("10.99.0.1", "allow: [10.77.0.101],", "10.77.0.11:80");
    stage.write(&text, |_| connect(other, "10.99.0.1:80").is_ok());
    let denied = connect(one, "10.99.0.1:80").expect_err("it is not allowed");
    assert_eq!(denied.kind(), std::io::ErrorKind::TimedOut);

    let text = service("10.99.0.1", "", "10.77.0.11:80");
    stage.write(&text, |_| connect(one, "10.99.0.1:80").is_ok());
    connect(other, "10.99.0.1:80").expect("there is no list any more");
}

#[test]
fn least_connections_fills_up_the_server_that_has_few() {
    let backends = |weight| {
        let second = format!("{{address: '10.77.0.12:80', weight: {weight}}}");
        service(
            "10.99.0.1",
            "balance: least-conn,",
            &format!("10.77.0.11:80, {second}"),
        )
    };
    let stage = Stage::up(&backends(0), &[]);
    let client = &stage.clients[0];
    let (_held, shares) = connections(client, "10.99.0.1:80", 60);
    assert_eq!(shares, [("s1".to_owned(), 60)].into());
    stage.write(&backends(1), |status| {
        state(status, 2).starts_with("active")
    });
    // Chance alone would leave one with 160 and the other with 100, give or take 14. Here it takes about 120 to
    // close the gap, and then each further one of difference is a third as likely as the one before.
    let (_more, shares) = connections(client, "10.99.0.1:80", 200);
    let (one, other) = (60 + shares["s1"], shares["s2"]);
    assert!(one.abs_diff(other) <= 14, "{one} and {other}");
}

#[test]
fn a_backup_or_another_zone_is_used_only_while_nobody_before_it_is_there() {
    let backends = |first, second| {
        let each = [
            format!("{{address: '10.77.0.11:80', zone: a, weight: {first}}}"),
            format!("{{address: '10.77.0.12:80', zone: b, weight: {second}}}"),
            "{address: '10.77.0.13:80', zone: a, backup: true}".to_owned(),
        ];
        service("10.99.0.1", "", &each.join(", "))
    };
    let stage = Stage::up(&backends(1, 1), &["--zone", "a"]);
    let client = &stage.clients[0];
    let (_held, shares) = connections(client, "10.99.0.1:80", 20);
    assert_eq!(shares, [("s1".to_owned(), 20)].into());
    for (first, second, used, states) in [
        (
            0,
            1,
            "s2",
            ["draining weight 0", "active -", "standby backup"],
        ),
        (
            0,
            0,
            "s3",
            ["draining weight 0", "draining weight 0", "active -"],
        ),
        (1, 1, "s1", ["active -", "standby zone b", "standby backup"]),
    ] {
        stage.write(&backends(first, second), |status| {
            [1, 2, 3].map(|server| state(status, server)) == states
        });
        let (_, shares) = connections(client, "10.99.0.1:80", 20);
        assert_eq!(shares, [(used.to_owned(), 20)].into());
    }
}

#[test]
fn flows_of_a_backend_that_drains_or_stands_by_outlive_the_agent() {
    let backends = |keys| {
        let first = format!("{{address: '10.77.0.11:80', {keys}}}");
        service("10.99.0.1", "", &format!("{first}, 10.77.0.12:80"))
    };
    for (keys, shown) in [
        ("weight: 0", "draining weight 0"),
        ("backup: true", "standby backup"),
    ] {
        let text = service("10.99.0.1", "", "10.77.0.11:80");
        let mut stage = Stage::up(&text, &[]);
        let (held, _) = connections(&stage.clients[0], "10.99.0.1:80", 5);
        stage.write(&backends(keys), |status| state(status, 1) == shown);
        stage.revive();
        for mut stream in held {
            stream.write_all(b"still there").expect("sent");
            let mut echoed = [0; 11];
            stream.read_exact(&mut echoed).expect("its flow lived on");
        }
        let (_, shares) = connections(&stage.clients[0], "10.99.0.1:80", 5);
        assert_eq!(shares, [("s2".to_owned(), 5)].into());
    }
}

#[test]
fn one_flow_more_than_a_service_or_its_backends_may_have_is_refused() {
    let limited = "services:
- {address: 10.99.0.1, port: 80, max-flows: 5, backends: [10.77.0.11:80, 10.77.0.12:80]}
- address: 10.99.0.2
  port: 80
  backends:
    - {address: '10.77.0.11:80', max-flows: 20}
    - {address: '10.77.0.12:80', max-flows: 2}
";
    let stage = Stage::up(limited, &[]);
    let client = &stage.clients[0];
    let (mut held, _) = connections(client, "10.99.0.1:80", 5);
    assert!(is_refused(client, "10.99.0.1:80"), "the sixth");
    stage.expect_dropped("service_full");
    held.pop();
    let connects = || connect(client, "10.99.0.1:80").is_ok();
    wait_until("there is room again", PATIENCE, connects).expect("one was closed");
    drop(held);

    // Of the first service's flows those of its backends count as well.
    let of_both = |status: &Value| {
        status["services"]
            .as_array()
            .is_some_and(|all| all.len() == 1)
    };
    let second = limited.split_once("- address").expect("two services").1;
    stage.write(&format!("services:\n- address{second}"), of_both);
    let mut all = BTreeMap::<String, usize>::new();
    let mut held = Vec::new();
    wait_until("both are full", PATIENCE, || {
        match connect(client, "10.99.0.2:80") {
            Ok((stream, server)) => {
                held.push(stream);
                *all.entry(server).or_default() += 1;
                false
            }
            Err(_) => held.len() >= 22,
        }
    })
    .expect("they fill up");
    assert_eq!(all, [("s1".to_owned(), 20), ("s2".to_owned(), 2)].into());
    assert!(is_refused(client, "10.99.0.2:80"), "the next one");
}

#[test]
fn turns_are_taken_and_a_client_with_affinity_takes_none() {
    let text = "services:
- {address: 10.99.0.1, port: 80, balance: round-robin, backends: [10.77.0.11:80, 10.77.0.12:80]}
- address: 10.99.0.2
  port: 80
  balance: round-robin
  affinity: 1h
  backends: [10.77.0.11:80, 10.77.0.12:80]
";
    let stage = Stage::up(text, &[]);
    let client = &stage.clients[0];
    let (_held, shares) = connections(client, "10.99.0.1:80", 100);
    // Turns go through the slots of a Maglev table, which alternate but for a few.
    assert!(shares["s1"].abs_diff(shares["s2"]) < 30, "{shares:?}");
    let (_held, shares) = connections(client, "10.99.0.2:80", 20);
    assert_eq!(shares.len(), 1, "{shares:?}");
}

#[test]
fn direct_server_return_shows_a_neighbour_the_client_itself() {
    let text = "services:
- {address: 10.99.0.1, port: 8080, mode: dsr-l2, backends: [10.77.0.11:8080]}
- {address: 10.99.0.1, port: 8081, protocol: udp, mode: dsr-l2, backends: [10.77.0.11:8081]}
- {address: 10.99.0.2, port: 8080, mode: nat, backends: [10.77.0.11:8080]}
";
    let stage = Stage::up(text, &[]);
    let server = &stage.servers[0];
    server
        .run(&["ip", "address", "add", "10.99.0.1/32", "dev", "lo"])
        .and_then(|done| done.ok())
        .expect("it carries the VIP");
    let task = program("task-server").expect("a server");
    let argv = [&task, "--node", "s1", "--port", "8080"];
    let mut process = server.start("task", &argv).expect("started");
    wait_until("the server is ready", PATIENCE, || {
        process.stdout().contains(READY) || process.has_ended()
    })
    .expect("it is");
    let client = &stage.clients[0];
    for (vip, seen) in [
        ("10.99.0.1:8080", "10.77.0.100"),
        ("10.99.0.2:8080", "10.77.0.1"),
    ] {
        let vip: SocketAddr = vip.parse().expect("an address");
        let outcome = ask(client, &vip.to_string(), 20, &[]).expect("probe");
        let seen = seen.parse().expect("an address");
        expect_all(&outcome, vip, Some(seen)).expect("it is served");
    }
    // A socket that listens everywhere would answer from the server's own address.
    let at: SocketAddr = "10.99.0.1:8081".parse().expect("an address");
    let _echo = Server::udp_echo(server, at, "s1:").expect("a server");
    let socket = client
        .enter(|| UdpSocket::bind("0.0.0.0:0"))
        .expect("in the host")
        .expect("a socket");
    socket.set_read_timeout(Some(CONNECT)).expect("set");
    socket.connect(at).expect("connected");
    for _ in 0..5 {
        socket.send(b"hello").expect("sent");
        let mut answer = [0; 64];
        let length = socket.recv(&mut answer).expect("the VIP answers");
        assert_eq!(&answer[..length], b"s1:hello");
    }
}

#[test]
fn an_impossible_mode_is_refused_with_its_reason_and_others_go_on() {
    let text = "services:
- {name: /port, port: 81, mode: dsr-l2, backends: [10.77.0.11:80]}
- {address: 10.99.0.2, port: 80, mode: dsr-l2, backends: [10.88.0.1:80]}
- {address: 10.99.0.3, port: 80, mode: dsr-geneve, backends: [10.77.0.11:80]}
- {address: 10.99.0.4, port: 80, backends: [10.77.0.11:80]}
";
    let stage = Stage::up(text, &[]);
    connect(&stage.clients[0], "10.99.0.4:80").expect("it asks for nothing odd");
    assert!(is_refused(&stage.clients[0], "10.99.0.2:80"));
    let status = stage.status().to_string();
    let log = stage.agent.stderr();
    for reason in [
        "VIP port.file.l4lb.thisdcos.directory:81/tcp cannot have mode dsr-l2: backend 10.77.0.11:80 is at another \
         port",
        "VIP 10.99.0.2:80/tcp cannot have mode dsr-l2: backend 10.88.0.1:80 is on no network",
        "VIP 10.99.0.3:80/tcp cannot have mode dsr-geneve: backend 10.77.0.11:80 is neither on this node nor at the \
         address of a peer (--peers)",
    ] {
        assert!(status.contains(reason), "{reason}: {status}");
        assert!(log.contains(reason), "{reason}: {log}");
    }
}
