//! What a services file asks of the kernel reaches it: who may come, who is chosen, how many, and by which way.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use lb_tests::{
    asking::{ask, expect_all},
    lab::{
        Host, HostSpec, Lab, Process,
        programs::{agent, program},
        servers::Server,
        wait_until,
    },
    task::READY,
};
use rustix::process::Signal;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough for a handshake, and for the first SYN that is sent again.
const CONNECT: Duration = Duration::from_millis(2_500);

/// A node with the agent, two clients that reach VIPs by it, and servers `s1` to `s3` without an agent. Fields end
/// in this order.
struct Stage {
    agent: Process,
    argv: Vec<String>,
    run_dir: PathBuf,
    services: PathBuf,
    _echoes: Vec<Server>,
    servers: Vec<Host>,
    clients: Vec<Host>,
    node: Host,
    _lab: Lab,
}

// === impl Stage ===

impl Stage {
    fn up(services: &str, flags: &[&str]) -> Self {
        let lab = Lab::new().expect("a lab");
        let host =
            |name: &str, number: u8| HostSpec::new(name).address(&format!("10.77.0.{number}/24"));
        let plug = |spec: &HostSpec| lab.host(spec).expect("a host");
        let node = plug(&host("node", 1).forwarding());
        let client = |name, number| plug(&host(name, number).route("10.99.0.0/16 via 10.77.0.1"));
        let clients = vec![client("c1", 100), client("c2", 101)];
        let servers: Vec<_> = (1..=3)
            .map(|n| plug(&host(&format!("s{n}"), 10 + n)))
            .collect();
        let echo = |host: &Host| {
            let at = "0.0.0.0:80".parse().expect("an address");
            Server::tcp_echo(host, at, host.name()).expect("a server")
        };
        let echoes = servers.iter().map(echo).collect();
        let path = |name: &str| node.dir().join(name);
        let text = |path: PathBuf| path.display().to_string();
        let (program, file) = (agent().expect("an agent"), path("services.yaml"));
        fs::write(&file, services).expect("written");
        let own = [
            ("--pin-dir", text(node.pins().to_owned())),
            ("--state-dir", text(path("state"))),
            ("--run-dir", text(path("run"))),
            ("--cgroup", text(node.cgroup().path().to_owned())),
            ("--services", text(file.clone())),
        ];
        let mut argv = vec![
            program.as_str(),
            "--iface",
            "eth0",
            "--ip-vips",
            "10.99.0.0/16",
        ];
        argv.extend(["--dns-listen", "none"]);
        argv.extend(["--flows", "65536", "--udp-flows", "16384"]);
        argv.extend(own.iter().flat_map(|(flag, value)| [*flag, value.as_str()]));
        argv.extend(flags);
        let mut stage = Self {
            agent: node.start("lb-agent", &argv).expect("started"),
            argv: argv.into_iter().map(str::to_owned).collect(),
            run_dir: path("run"),
            services: file,
            _echoes: echoes,
            servers,
            clients,
            node,
            _lab: lab,
        };
        stage.is_up();
        stage
    }

    fn is_up(&mut self) {
        wait_until("the agent has read the file", PATIENCE, || {
            self.agent.has_ended() || self.status()["providers"][0]["last_sync"].is_number()
        })
        .expect("it answers");
        assert!(!self.agent.has_ended(), "{}", self.agent.stderr());
    }

    /// Kills the agent and starts it again.
    fn revive(&mut self) {
        self.agent.signal(Signal::KILL).expect("killed");
        wait_until("the agent is gone", PATIENCE, || self.agent.has_ended()).expect("it ends");
        let argv: Vec<_> = self.argv.iter().map(String::as_str).collect();
        self.agent = self.node.start("lb-agent", &argv).expect("started");
        self.is_up();
    }

    /// Puts another file in place and waits until `status` shows what `shown` looks for.
    fn write(&self, services: &str, shown: impl Fn(&Value) -> bool) {
        let next = self.services.with_extension("next");
        fs::write(&next, services).expect("written");
        fs::rename(next, &self.services).expect("put in place");
        wait_until("the new file is in force", PATIENCE, || {
            shown(&self.status())
        })
        .expect("it is read");
    }

    /// `null` while the agent does not answer.
    fn status(&self) -> Value {
        let (program, dir) = (
            agent().expect("an agent"),
            self.run_dir.display().to_string(),
        );
        let argv = [&program, "status", "--json", "--run-dir", &dir];
        let shown = self.node.run(&argv).expect("status runs");
        serde_json::from_str(&shown.stdout).unwrap_or_default()
    }

    /// Packets went no further for this reason, as `status` tells within seconds.
    fn expect_dropped(&self, reason: &str) {
        wait_until("the packets are counted", PATIENCE, || {
            let status = self.status();
            let drops = status["datapath"]["drops"].as_array();
            let mut reasons = drops.into_iter().flatten().map(|drop| &drop["reason"]);
            reasons.any(|known| known == reason)
        })
        .expect(reason);
    }
}

/// A connection to a server, and its name.
fn connect(client: &Host, vip: &str) -> std::io::Result<(TcpStream, String)> {
    let to: SocketAddr = vip.parse().expect("an address");
    let dial = || TcpStream::connect_timeout(&to, CONNECT);
    let mut stream = client.enter(dial).expect("in the host")?;
    stream.set_read_timeout(Some(CONNECT))?;
    let mut name = [0; 2];
    stream.read_exact(&mut name)?;
    Ok((stream, String::from_utf8_lossy(&name).into_owned()))
}

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
        "key mode: dsr-geneve needs other agents as peers",
    ] {
        assert!(status.contains(reason), "{reason}: {status}");
        assert!(log.contains(reason), "{reason}: {log}");
    }
}
