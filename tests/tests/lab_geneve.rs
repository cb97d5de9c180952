//! A backend on a peer answers the client directly: what the client sends goes there by Geneve.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    collections::BTreeMap,
    fs,
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    time::{Duration, Instant},
};

use lb_tests::{
    asking::{ask, expect_all},
    lab::{
        Host, HostSpec, Lab, Process, http,
        programs::{agent, program},
        servers::Server,
        wait_until,
    },
    stage::{bytes, connect, echoed},
    task::READY,
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);
const TRY: Duration = Duration::from_millis(500);
const MEGABYTE: usize = 1_000_000;
const PEERS: &str = "10.77.0.1,10.77.0.2,10.77.0.3,fd77::1,fd77::2,fd77::3";
/// Over HTTP, over TCP and UDP that echo; port of the VIP, and of the backend.
const HTTP: (u16, u16) = (80, 8_080);
const ECHO: (u16, u16) = (7, 7_007);
const CLIENT: [&str; 2] = ["10.77.0.100", "fd77::100"];

/// A node with its agent. Fields end in this order.
struct Node {
    agent: Process,
    run_dir: PathBuf,
    services: PathBuf,
    host: Host,
}

/// Nodes `n1` to `n3`, of which the client knows the first as the way to VIPs; backends are on the others.
struct Stage {
    _servers: Vec<(Process, Vec<Server>)>,
    nodes: Vec<Node>,
    client: Host,
    _lab: Lab,
}

// === impl Node ===

impl Node {
    fn up(host: Host, services: &str, flags: &[&str]) -> Self {
        let path = |name: &str| host.dir().join(name);
        let text = |path: PathBuf| path.display().to_string();
        let (program, file) = (agent().expect("an agent"), path("services.yaml"));
        fs::write(&file, services).expect("written");
        let own = [
            ("--pin-dir", text(host.pins().to_owned())),
            ("--state-dir", text(path("state"))),
            ("--run-dir", text(path("run"))),
            ("--cgroup", text(host.cgroup().path().to_owned())),
            ("--services", text(file.clone())),
        ];
        let mut argv = vec![program.as_str(), "--iface", "eth0"];
        argv.extend(["--ip-vips", "10.99.0.0/16,fd99::/64"]);
        argv.extend(["--dns-listen", "none", "--peers", PEERS]);
        argv.extend(["--flows", "65536", "--udp-flows", "16384"]);
        argv.extend(own.iter().flat_map(|(flag, value)| [*flag, value.as_str()]));
        argv.extend(flags);
        let mut node = Self {
            agent: host.start("lb-agent", &argv).expect("started"),
            run_dir: path("run"),
            services: file,
            host,
        };
        wait_until("the agent has read the file", PATIENCE, || {
            node.agent.has_ended() || node.status()["providers"][0]["last_sync"].is_number()
        })
        .expect("it answers");
        assert!(!node.agent.has_ended(), "{}", node.agent.stderr());
        node
    }

    fn status(&self) -> Value {
        self.ask(&["status"])
    }

    /// What a subcommand prints with `--json`; `null` while the agent does not answer.
    fn ask(&self, words: &[&str]) -> Value {
        let (program, dir) = (
            agent().expect("an agent"),
            self.run_dir.display().to_string(),
        );
        let argv = [&[program.as_str()], words, &["--json", "--run-dir", &dir]].concat();
        let shown = self.host.run(&argv).expect("it runs");
        serde_json::from_str(&shown.stdout).unwrap_or_default()
    }

    /// Packets that the programs saw of this kind.
    fn counted(&self, reason: &str) -> u64 {
        let status = self.status();
        let drops = status["datapath"]["drops"].as_array();
        let mut drops = drops.into_iter().flatten();
        let found = drops.find(|drop| drop["reason"] == reason);
        found.and_then(|drop| drop["packets"].as_u64()).unwrap_or(0)
    }

    fn write(&self, services: &str) {
        let next = self.services.with_extension("next");
        fs::write(&next, services).expect("written");
        fs::rename(next, &self.services).expect("put in place");
    }
}

// === impl Stage ===

impl Stage {
    fn up(mode: &str, flags: &[&str]) -> Self {
        let lab = Lab::new().expect("a lab");
        let spec = |name: &str, number: u8| {
            HostSpec::new(name)
                .address(&format!("10.77.0.{number}/24"))
                .address(&format!("fd77::{number}/64"))
        };
        let plug = |spec: &HostSpec| lab.host(spec).expect("a host");
        let services = services(mode, 2);
        let mut nodes = Vec::new();
        let mut servers = Vec::new();
        for number in 1..=3 {
            let host = plug(&spec(&format!("n{number}"), number).forwarding());
            if number > 1 {
                servers.push(serve(&host));
            }
            nodes.push(Node::up(host, &services, flags));
        }
        let client = spec("client", 100)
            .route("10.99.0.0/16 via 10.77.0.1")
            .route("fd99::/64 via fd77::1");
        Self {
            _servers: servers,
            nodes,
            client: plug(&client),
            _lab: lab,
        }
    }

    fn no_drops(&self) {
        for node in &self.nodes {
            for reason in ["peer_unknown", "peer_backend", "peer_malformed", "not_sent"] {
                assert_eq!(node.counted(reason), 0, "{}: {reason}", node.host.name());
            }
        }
    }
}

/// A web server and echoes, on both families.
fn serve(host: &Host) -> (Process, Vec<Server>) {
    let task = program("task-server").expect("a server");
    let port = HTTP.1.to_string();
    let argv = [&task, "--node", host.name(), "--port", &port];
    let mut process = host.start("task", &argv).expect("started");
    wait_until("the server is ready", PATIENCE, || {
        process.stdout().contains(READY) || process.has_ended()
    })
    .expect("it is");
    let at = SocketAddr::new("::".parse().expect("an address"), ECHO.1);
    let echoes = vec![
        Server::tcp_echo(host, at, host.name()).expect("a server"),
        Server::udp_echo(host, at, host.name()).expect("a server"),
    ];
    (process, echoes)
}

/// Services whose backends are on this node.
fn services(mode: &str, node: u8) -> String {
    let mut text = "services:\n".to_owned();
    for (vip, backend) in [
        ("10.99.0.1".to_owned(), format!("10.77.0.{node}")),
        ("fd99::1".to_owned(), format!("[fd77::{node}]")),
    ] {
        for (protocol, (port, at)) in [("tcp", HTTP), ("tcp", ECHO), ("udp", ECHO)] {
            text += &format!(
                "- {{address: '{vip}', port: {port}, protocol: {protocol}, mode: {mode}, backends: ['{backend}:{at}']}}\n"
            );
        }
    }
    text
}

fn vip(ipv6: bool, (port, _): (u16, u16)) -> SocketAddr {
    let addr = if ipv6 { "fd99::1" } else { "10.99.0.1" };
    SocketAddr::new(addr.parse().expect("an address"), port)
}

/// Sends a datagram until an answer comes back: the first ones may only teach the sender the path's MTU.
fn answered(client: &Host, to: SocketAddr, length: usize) -> String {
    let payload: Vec<u8> = (0..=u8::MAX).cycle().take(length).collect();
    let got = client.enter(|| {
        let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(any).expect("a socket");
        socket.connect(to).expect("a route");
        socket.set_read_timeout(Some(TRY)).expect("a time-out");
        let end = Instant::now() + PATIENCE;
        let mut room = vec![0; 65_536];
        while Instant::now() < end {
            let _ = socket.send(&payload);
            if let Ok(got) = socket.recv(&mut room) {
                return Some(room[..got].to_vec());
            }
        }
        None
    });
    let got = got.expect("in the host");
    let got = got.unwrap_or_else(|| panic!("{length} bytes to {to}: no answer"));
    assert!(got.ends_with(&payload), "{length} bytes to {to}");
    String::from_utf8_lossy(&got[..2]).into_owned()
}

fn everything_is_answered_by_the_peer(mode: &str, flags: &[&str]) {
    let stage = Stage::up(mode, flags);
    let client = &stage.client;
    let first = &stage.nodes[0];
    for ipv6 in [false, true] {
        // The server sees the client, and the client hears the VIP.
        let seen = CLIENT[usize::from(ipv6)].parse().expect("an address");
        let to = vip(ipv6, HTTP);
        let family: &[&str] = if ipv6 { &["--ipv6"] } else { &[] };
        let outcome = ask(client, &to.to_string(), 20, family).expect("probe");
        expect_all(&outcome, to, Some(seen)).expect("it is served");
        // What is sent back does not come by the first node.
        let before = (bytes(&first.host, "rx"), bytes(&first.host, "tx"));
        let path = format!("/download?bytes={}", 10 * MEGABYTE);
        let reply = client.enter(|| http::get(to, &path)).expect("in the host");
        let reply = reply.expect("a download");
        assert_eq!((reply.status, reply.body.len()), (200, 10 * MEGABYTE));
        let after = (
            bytes(&first.host, "rx") - before.0,
            bytes(&first.host, "tx") - before.1,
        );
        assert!(
            after.0 < 2 * MEGABYTE as u64,
            "{after:?} bytes by the first node"
        );
        assert!(
            after.1 < 2 * MEGABYTE as u64,
            "{after:?} bytes by the first node"
        );
        // The client's segments fit, although the way to the peer is no wider than its own.
        let before = bytes(&first.host, "tx");
        let server = echoed(client, vip(ipv6, ECHO), 5 * MEGABYTE).expect("an upload");
        assert_eq!(server, "n2");
        assert!(
            bytes(&first.host, "tx") - before > 5 * MEGABYTE as u64,
            "it went by the first node"
        );
        for length in [1, 100, 1_300] {
            assert_eq!(answered(client, vip(ipv6, ECHO), length), "n2");
        }
        if !flags.contains(&"off") {
            // Longer than fits inside, and in fragments.
            for length in [1_440, 4_000] {
                assert_eq!(answered(client, vip(ipv6, ECHO), length), "n2");
            }
        }
    }
    stage.no_drops();
    // The backend moves to another peer.
    let moved = services(mode, 3);
    for node in &stage.nodes {
        node.write(&moved);
    }
    for ipv6 in [false, true] {
        wait_until("the other peer serves", PATIENCE, || {
            echoed(client, vip(ipv6, ECHO), 1_000).is_ok_and(|server| server == "n3")
        })
        .expect("the backend moved");
        assert_eq!(answered(client, vip(ipv6, ECHO), 100), "n3");
    }
}

#[test]
fn by_xdp_a_peer_answers_directly() {
    everything_is_answered_by_the_peer("dsr-geneve", &[]);
}

#[test]
fn by_tc_a_peer_answers_directly() {
    everything_is_answered_by_the_peer("dsr-geneve", &["--xdp-mode", "off"]);
}

#[test]
fn a_service_of_no_mode_goes_by_peers_where_the_operator_says_so() {
    let stage = Stage::up("auto", &["--dsr"]);
    let to = vip(false, HTTP);
    let outcome = ask(&stage.client, &to.to_string(), 10, &[]).expect("probe");
    let seen = CLIENT[0].parse().expect("an address");
    expect_all(&outcome, to, Some(seen)).expect("it is served");
    let stage = Stage::up("auto", &[]);
    let outcome = ask(&stage.client, &to.to_string(), 10, &[]).expect("probe");
    let node = "10.77.0.1".parse().expect("an address");
    expect_all(&outcome, to, Some(node)).expect("it is served by full NAT");
}

#[test]
fn a_backend_at_no_peer_is_carried_by_full_nat_and_each_way_is_shown_as_what_it_is() {
    let stage = Stage::up("auto", &["--dsr"]);
    // An address of the third node that nobody calls a peer's.
    let add = ["ip", "address", "add", "10.77.0.33/24", "dev", "eth0"];
    let added = stage.nodes[2].host.run(&add).and_then(|done| done.ok());
    added.expect("an address");
    for node in &stage.nodes {
        let backends = "['10.77.0.2:7007', '10.77.0.33:7007']";
        node.write(&format!(
            "services:\n- {{address: 10.99.0.8, port: 7, backends: {backends}}}\n"
        ));
    }
    let mut open = BTreeMap::new();
    wait_until("both backends serve", PATIENCE, || {
        let dialed = connect(&stage.client, "10.99.0.8:7");
        open.extend(dialed.map(|(stream, name)| (name, stream)));
        open.len() == 2
    })
    .expect("they do");
    let first = &stage.nodes[0];
    let told = first.ask(&["flows"]);
    let flows = told["flows"].as_array().expect("flows").iter();
    let ways: BTreeMap<_, _> = flows
        .map(|flow| (flow["backend"].as_str(), flow["how"].as_str()))
        .collect();
    let expected = [("10.77.0.2:7007", "dsr-geneve"), ("10.77.0.33:7007", "nat")];
    assert_eq!(ways, expected.map(|(at, how)| (Some(at), Some(how))).into());
    let told = first.ask(&["explain", "10.77.0.100:1", "10.99.0.8:7"]);
    assert_eq!(told["service"]["mode"], "dsr-geneve", "{told}");
    let choice = &told["choice"];
    assert_eq!(choice["how"].as_str(), ways[&choice["backend"].as_str()]);
    // What is known of both, and of the one whose answers come by.
    let traffic = |status: &Value, at: &str| {
        let backends = status["services"][0]["backends"].as_array();
        let found = backends.into_iter().flatten().find(|one| one["addr"] == at);
        found.map_or(Value::Null, |backend| backend["traffic"].clone())
    };
    let status = first.status();
    for (at, known) in [("10.77.0.2:7007", false), ("10.77.0.33:7007", true)] {
        let traffic = traffic(&status, at);
        assert!(traffic["bytes_in"].as_u64() > Some(0), "{at}: {traffic}");
        assert_eq!(traffic["bytes_out"].as_u64() > Some(0), known, "{traffic}");
        assert_eq!(traffic["bytes_out"].is_null(), !known, "{traffic}");
    }
}

#[test]
fn who_is_no_peer_is_refused_and_others_are_not() {
    let stage = Stage::up("dsr-geneve", &[]);
    let text = format!(
        "{}- {{address: 10.99.0.9, port: 80, mode: dsr-geneve, backends: ['10.77.0.200:80']}}\n",
        services("dsr-geneve", 2)
    );
    stage.nodes[0].write(&text);
    let reason = "backend 10.77.0.200:80 is neither on this node nor at the address of a peer";
    wait_until("it is refused", PATIENCE, || {
        stage.nodes[0].status().to_string().contains(reason)
    })
    .expect(reason);
    assert_eq!(answered(&stage.client, vip(false, ECHO), 10), "n2");
    // A stranger on the network sends what only a peer may.
    let mut forged = vec![0x03, 0x40, 0x08, 0x00, 0x00, 0x4c, 0x42, 0];
    forged.extend([0xff, 0x4c, 0x81, 0x02, 10, 77, 0, 2, 0x1f, 0x90, 0, 0]);
    forged.extend([0x45; 40]);
    let sent = stage.client.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.send_to(&forged, "10.77.0.2:6081")
    });
    sent.expect("in the host").expect("sent");
    wait_until("it is counted", PATIENCE, || {
        stage.nodes[1].counted("peer_unknown") == 1
    })
    .expect("a drop");
}
