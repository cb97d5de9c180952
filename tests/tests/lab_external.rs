//! Services at a port of the node's own addresses, as outside clients and processes of the node reach them, and
//! everything else of the node as before.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
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
const QUESTIONS: u32 = 40;
/// The node's addresses with the port.
const PORTS: [&str; 2] = ["10.77.0.1:10000", "[fd77::1]:10000"];

/// A node with the agent and something like an ssh server, a client beyond a router's reach of VIPs, and two
/// servers. Fields end in this order.
struct Stage {
    agent: Process,
    argv: Vec<String>,
    services: PathBuf,
    run_dir: String,
    session: TcpStream,
    _shell: Server,
    _tasks: Vec<Process>,
    _servers: Vec<Host>,
    client: Host,
    node: Host,
    _lab: Lab,
}

/// Both servers at a port of the node.
fn web(keys: &str) -> String {
    let each = [11, 12].map(|n| format!("'10.77.0.{n}:8080', '[fd77::{n}]:8080'"));
    format!(
        "- {{name: /web, port: 80, protocol: [tcp, udp], {keys} backends: [{}]}}\n",
        each.join(", ")
    )
}

// === impl Stage ===

impl Stage {
    fn up(services: &str) -> Self {
        let lab = Lab::new().expect("a lab");
        let host = |name: &str, number: u8| {
            let spec = HostSpec::new(name).address(&format!("10.77.0.{number}/24"));
            spec.address(&format!("fd77::{number}/64"))
        };
        let plug = |spec: &HostSpec| lab.host(spec).expect("a host");
        let node = plug(&host("node", 1).forwarding());
        let client = plug(&host("client", 100));
        let servers: Vec<_> = [11, 12].map(|n| plug(&host(&format!("s{n}"), n))).into();
        let tasks = servers.iter().map(serve).collect();
        let at = "[::]:22".parse().expect("an address");
        let shell = Server::tcp_echo(&node, at, "ssh").expect("a server");
        let path = |name: &str| node.dir().join(name).display().to_string();
        let (program, file) = (agent().expect("an agent"), path("services.yaml"));
        fs::write(&file, format!("services:\n{services}")).expect("written");
        let pins = node.pins().display().to_string();
        let cgroup = node.cgroup().path().display().to_string();
        let (state, run_dir) = (path("state"), path("run"));
        let argv = [
            &[program.as_str(), "--iface", "eth0", "--dns-listen", "none"][..],
            &["--flows", "65536", "--udp-flows", "16384"],
            &["--outside-allow", "none", "--services", &file],
            &["--pin-dir", &pins, "--cgroup", &cgroup],
            &["--state-dir", &state, "--run-dir", &run_dir],
        ]
        .concat();
        let mut stage = Self {
            agent: node.start("lb-agent", &argv).expect("started"),
            argv: argv.iter().map(ToString::to_string).collect(),
            services: file.into(),
            run_dir,
            session: connect(&client, "10.77.0.1:22").expect("a session"),
            _shell: shell,
            _tasks: tasks,
            _servers: servers,
            client,
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
        self.served_from_outside();
        let argv: Vec<_> = self.argv.iter().map(String::as_str).collect();
        self.agent = self.node.start("lb-agent", &argv).expect("started");
        self.is_up();
    }

    /// Puts another file in place and waits until `status` shows what `shown` looks for.
    fn write(&self, services: &str, shown: impl Fn(&Value) -> bool) {
        let next = self.services.with_extension("next");
        fs::write(&next, format!("services:\n{services}")).expect("written");
        fs::rename(next, &self.services).expect("put in place");
        wait_until("the new file is in force", PATIENCE, || {
            shown(&self.status())
        })
        .unwrap_or_else(|error| panic!("{error:#}: {}", self.status()));
    }

    /// `null` while the agent does not answer.
    fn status(&self) -> Value {
        let program = agent().expect("an agent");
        let argv = [&program, "status", "--json", "--run-dir", &self.run_dir];
        let shown = self.node.run(&argv).expect("status runs");
        serde_json::from_str(&shown.stdout).unwrap_or_default()
    }

    /// Every address and protocol answers as itself, by both servers.
    fn served(&self, host: &Host) {
        for to in PORTS {
            served(host, to);
        }
    }

    fn served_from_outside(&self) {
        self.served(&self.client);
    }

    /// What is not ours works: an open session, a new one, and answers to closed ports.
    fn rest_is_as_before(&mut self) {
        self.session.write_all(b"ls").expect("sent");
        let mut echoed = [0; 2];
        self.session.read_exact(&mut echoed).expect("an echo");
        assert_eq!(&echoed, b"ls");
        for at in ["10.77.0.1:22", "[fd77::1]:22"] {
            connect(&self.client, at).unwrap_or_else(|error| panic!("{at}: {error}"));
        }
        for at in ["10.77.0.1:9999", "[fd77::1]:10009"] {
            assert!(refused(&self.client, at), "{at}");
        }
    }
}

fn serve(host: &Host) -> Process {
    let task = program("task-server").expect("a server");
    let argv = [&task, "--node", host.name(), "--port", "8080"];
    let mut process = host.start("task", &argv).expect("started");
    wait_until("the server is ready", PATIENCE, || {
        process.stdout().contains(READY) || process.has_ended()
    })
    .expect("it is");
    process
}

/// Answers by both servers, over both protocols.
fn served(host: &Host, to: &str) {
    let at: SocketAddr = to.parse().expect("an address");
    for mode in ["tcp", "udp", "udp-unconnected"] {
        let flags = ["--mode", mode, "--ipv6"];
        let flags = &flags[..if at.is_ipv6() { 3 } else { 2 }];
        let outcome = ask(host, to, QUESTIONS, flags).expect("probe");
        expect_all(&outcome, at, None)
            .unwrap_or_else(|error| panic!("{mode} to {to} from {}: {error:#}", host.name()));
        assert_eq!(outcome.by_answer.len(), 2, "{mode} to {to}: {outcome:?}");
    }
}

/// A connection to the shell, which greets.
fn connect(client: &Host, to: &str) -> std::io::Result<TcpStream> {
    let mut stream = dial(client, to)?;
    let mut greeting = [0; 3];
    stream.read_exact(&mut greeting)?;
    assert_eq!(&greeting, b"ssh", "{to}");
    Ok(stream)
}

fn dial(client: &Host, to: &str) -> std::io::Result<TcpStream> {
    let to: SocketAddr = to.parse().expect("an address");
    let dial = || TcpStream::connect_timeout(&to, PATIENCE);
    let stream = client.enter(dial).expect("in the host")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn refused(client: &Host, to: &str) -> bool {
    dial(client, to).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Whether a datagram is answered by a port unreachable.
fn refused_datagram(client: &Host, to: &str) -> bool {
    let to: SocketAddr = to.parse().expect("an address");
    let from = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let socket = client.enter(|| UdpSocket::bind(from));
    let socket = socket.expect("in the host").expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    socket.connect(to).expect("connected");
    socket.send(b"hello").expect("sent");
    let answer = socket.recv(&mut [0; 64]);
    answer.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// The ports of the node in the first service's line.
fn shown(status: &Value) -> Vec<u64> {
    let ports = status["services"][0]["external"].as_array();
    ports
        .into_iter()
        .flatten()
        .filter_map(Value::as_u64)
        .collect()
}

fn problems(status: &Value) -> String {
    status["providers"][0]["problems"].to_string()
}

#[test]
fn a_port_of_the_node_is_served_from_outside_and_inside_until_the_service_goes() {
    let mut stage = Stage::up(&web("external: 10000,"));
    wait_until("the port is shown", PATIENCE, || {
        shown(&stage.status()) == [10_000]
    })
    .expect("it is");
    stage.served_from_outside();
    // A process of the node connects past all packets.
    stage.served(&stage.node);
    stage.rest_is_as_before();
    stage.revive();
    stage.served_from_outside();
    stage.rest_is_as_before();

    stage.write(&web(""), |status| {
        shown(status).is_empty() && status["services"][0].is_object()
    });
    for at in PORTS {
        for host in [&stage.client, &stage.node] {
            assert!(refused(host, at), "{at} from {}", host.name());
        }
        assert!(refused_datagram(&stage.client, at), "{at}");
    }
    stage.rest_is_as_before();
    stage.write(&web("external: [10000, 10001],"), |status| {
        shown(status) == [10_000, 10_001]
    });
    stage.served_from_outside();
    served(&stage.client, "10.77.0.1:10001");
    stage.write("", |status| status["services"] == serde_json::json!([]));
    assert!(refused(&stage.client, PORTS[0]));
    stage.rest_is_as_before();
}

#[test]
fn the_port_follows_the_addresses_of_the_node() {
    let stage = Stage::up(&web("external: 10000,"));
    stage.served_from_outside();
    let change = |what: &str, addr: &str| {
        let mut argv = vec!["ip", "address", what, addr, "dev", "eth0"];
        if what == "add" && addr.contains(':') {
            argv.push("nodad");
        }
        let done = stage.node.run(&argv).and_then(|done| done.ok());
        done.expect("the address changes");
    };
    for (addr, at) in [
        ("10.77.0.7/24", "10.77.0.7:10000"),
        ("fd77::7/64", "[fd77::7]:10000"),
    ] {
        assert!(dial(&stage.client, at).is_err(), "{at} is nobody's");
        change("add", addr);
        wait_until("the new address is served", PATIENCE, || {
            dial(&stage.client, at).is_ok()
        })
        .expect(at);
        served(&stage.client, at);
        change("del", addr);
        stage.served_from_outside();
    }
}

#[test]
fn a_port_that_is_not_to_be_had_is_refused_with_its_reason_and_the_rest_goes_on() {
    let mut stage = Stage::up("");
    let at = "0.0.0.0:10001".parse().expect("an address");
    let own = Server::tcp_echo(&stage.node, at, "ssh").expect("a server");
    let both = web("external: [22, 10000, 10001, 61005],")
        + "- {name: /other, port: 81, external: 10000, backends: ['10.77.0.11:8080']}\n";
    stage.write(&web("external: 10000,"), |status| shown(status) == [10_000]);
    stage.write(&both, |status| {
        status["services"]
            .as_array()
            .is_some_and(|all| all.len() == 3)
    });
    stage.served_from_outside();
    stage.rest_is_as_before();
    connect(&stage.client, "10.77.0.1:10001").expect("whoever listens there goes on");
    let (status, log) = (problems(&stage.status()), stage.agent.stderr());
    let vip = "VIP web.file.l4lb.thisdcos.directory:80 cannot have port";
    for reason in [
        format!("{vip} 22/tcp of this node: it is outside --node-ports 10000-20000"),
        format!("{vip} 61005/udp of this node: it is outside --node-ports 10000-20000"),
        format!("{vip} 10001/tcp of this node: a socket of this host listens at 0.0.0.0:10001"),
        "VIP other.file.l4lb.thisdcos.directory:81 cannot have port 10000/tcp of this node: VIP \
         web.file.l4lb.thisdcos.directory:80 has it, which came first"
            .to_owned(),
    ] {
        assert!(status.contains(&reason), "{reason}: {status}");
        assert!(log.contains(&reason), "{reason}: {log}");
    }
    drop(own);
    stage.write(&web("external: [10000, 10001],"), |status| {
        shown(status).contains(&10_001)
    });
    served(&stage.client, "10.77.0.1:10001");
    stage.rest_is_as_before();
}
