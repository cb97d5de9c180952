//! What the agent says of single flows is what happens to them.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    fs,
    io::Read as _,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    time::Duration,
};

use lb_tests::lab::{Host, HostSpec, Lab, Process, programs::agent, servers::Server, wait_until};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough for a handshake, and for the first SYN that is sent again.
const CONNECT: Duration = Duration::from_millis(2_500);
const CLIENT: &str = "10.77.0.100";
const SERVERS: u8 = 3;

/// A node with the agent, a client that reaches VIPs by it, and servers that greet with their name. Fields end in
/// this order.
struct Stage {
    _agent: Process,
    run_dir: PathBuf,
    _servers: Vec<Server>,
    _hosts: Vec<Host>,
    client: Host,
    node: Host,
    _lab: Lab,
}

// === impl Stage ===

impl Stage {
    fn up(services: &str) -> Self {
        let lab = Lab::new().expect("a lab");
        let host =
            |name: &str, number: u8| HostSpec::new(name).address(&format!("10.77.0.{number}/24"));
        let plug = |spec: &HostSpec| lab.host(spec).expect("a host");
        let node = plug(&host("node", 1).forwarding());
        let client = plug(&host("client", 100).route("10.99.0.0/16 via 10.77.0.1"));
        let hosts: Vec<_> = (1..=SERVERS)
            .map(|n| plug(&host(&format!("s{n}"), 10 + n)))
            .collect();
        let echo = |host: &Host| {
            let at = "0.0.0.0:80".parse().expect("an address");
            Server::tcp_echo(host, at, host.name()).expect("a server")
        };
        let servers = hosts.iter().map(echo).collect();
        let path = |name: &str| node.dir().join(name);
        let text = |path: PathBuf| path.display().to_string();
        let (program, file) = (agent().expect("an agent"), path("services.yaml"));
        fs::write(&file, services).expect("written");
        let own = [
            ("--pin-dir", text(node.pins().to_owned())),
            ("--state-dir", text(path("state"))),
            ("--run-dir", text(path("run"))),
            ("--cgroup", text(node.cgroup().path().to_owned())),
            ("--services", text(file)),
        ];
        let mut argv = vec![program.as_str(), "--iface", "eth0"];
        argv.extend(["--ip-vips", "10.99.0.0/16", "--dns-listen", "none"]);
        argv.extend(["--flows", "65536", "--udp-flows", "16384"]);
        // What is dumped whole.
        argv.extend(["--max-backends", "256", "--max-services", "64"]);
        argv.extend(own.iter().flat_map(|(flag, value)| [*flag, value.as_str()]));
        let stage = Self {
            _agent: node.start("lb-agent", &argv).expect("started"),
            run_dir: path("run"),
            _servers: servers,
            _hosts: hosts,
            client,
            node,
            _lab: lab,
        };
        let synced = || stage.ask(&["status"])["providers"][0]["last_sync"].is_number();
        wait_until("the agent has read the file", PATIENCE, synced).expect("it answers");
        stage
    }

    /// What a subcommand prints with `--json`; `null` while the agent does not answer.
    fn ask(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.print(&[words, &["--json"]].concat())).unwrap_or_default()
    }

    /// What a subcommand prints.
    fn print(&self, words: &[&str]) -> String {
        let (program, dir) = (
            agent().expect("an agent"),
            self.run_dir.display().to_string(),
        );
        let argv = [&[program.as_str()], words, &["--run-dir", &dir]].concat();
        self.node.run(&argv).expect("it runs").stdout
    }

    /// The flows that match.
    fn flows(&self, filter: &[&str]) -> Vec<Value> {
        let found = self.ask(&[&["flows"], filter].concat());
        found["flows"].as_array().expect("flows").clone()
    }

    /// What is said of a flow from this source port.
    fn explain(&self, port: u16, vip: &str, flags: &[&str]) -> Value {
        let client = format!("{CLIENT}:{port}");
        self.ask(&[&["explain", client.as_str(), vip], flags].concat())
    }

    /// What the kernel holds that a new flow changes: entries of these tables as bpftool prints them.
    fn census(&self) -> Vec<(&'static str, Value)> {
        const TABLES: [&str; 14] = [
            "LB_FLOWS_TCP4",
            "LB_FLOWS_HALF4",
            "LB_FLOWS_UDP4",
            "LB_AFFINITY",
            "LB_SOURCE_RATES",
            "LB_SERVICE_STATES",
            "LB_GUARD",
            "LB_COUNTERS",
            "LB_LOADS",
            "LB_STATS",
            "LB_CONNECTIONS",
            "LB_SERVICE_STATS",
            "LB_SOCK_PEERS",
            "LB_SOCK_CHOICES",
        ];
        let table = |name| {
            let path = self.node.pins().join("v1").join(name).display().to_string();
            let argv = ["bpftool", "--json", "map", "dump", "pinned", &path];
            let dump = self.node.run(&argv).expect("bpftool runs").stdout;
            (name, serde_json::from_str(&dump).expect("JSON"))
        };
        TABLES.map(table).into()
    }

    /// A connection from this source port, and the server that it came to.
    fn connect(&self, port: u16, vip: &str) -> (TcpStream, String) {
        let from: SocketAddr = format!("{CLIENT}:{port}").parse().expect("an address");
        let to: SocketAddr = vip.parse().expect("an address");
        let dial = || -> std::io::Result<TcpStream> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&from.into())?;
            socket.connect_timeout(&to.into(), CONNECT)?;
            Ok(socket.into())
        };
        let mut stream = self.client.enter(dial).expect("in the host").expect(vip);
        stream.set_read_timeout(Some(CONNECT)).expect("set");
        let mut name = [0; 2];
        stream.read_exact(&mut name).expect("a greeting");
        let number = name[1] - b'0';
        (stream, format!("10.77.0.{}:80", 10 + number))
    }
}

/// The backend that is or would be given.
fn chosen(told: &Value) -> &str {
    let choice = &told["choice"]["backend"];
    choice.as_str().unwrap_or_else(|| panic!("{told}"))
}

fn services(more: &str) -> String {
    let backends = "backends: [10.77.0.11:80, 10.77.0.12:80, 10.77.0.13:80]";
    format!(
        "services:\n- {{address: 10.99.0.1, port: 80, {backends}}}\n\
         - {{address: 10.99.0.2, port: 80, {more} {backends}}}\n"
    )
}

#[test]
fn an_open_connection_is_a_flow_from_its_client_to_its_backend_until_it_closes() {
    let stage = Stage::up(&services(""));
    assert_eq!(stage.print(&["flows"]), "no flow matches\n");
    let (open, backend) = stage.connect(40_000, "10.99.0.1:80");
    let (other, _) = stage.connect(40_001, "10.99.0.2:80");
    let flows = stage.flows(&["--vip", "10.99.0.1"]);
    assert_eq!(flows.len(), 1, "{flows:?}");
    let flow = &flows[0];
    assert_eq!(flow["protocol"], "tcp");
    assert_eq!(flow["client"], format!("{CLIENT}:40000"));
    assert_eq!(flow["vip"], "10.99.0.1:80");
    assert_eq!(flow["backend"], backend);
    assert_eq!(flow["how"], "nat");
    assert_eq!(flow["state"], "established");
    assert_eq!(stage.flows(&["--client", CLIENT]).len(), 2);
    assert_eq!(stage.flows(&["--backend", "10.77.0.99"]).len(), 0);
    assert_eq!(stage.ask(&["flows", "--limit", "1"])["more"], 1);
    let line = format!("{CLIENT}:40000");
    let text = stage.print(&["flows"]);
    let shown = text.lines().find(|shown| shown.contains(&line));
    assert!(shown.expect("a line").contains(&backend), "{text}");
    drop((open, other));
    wait_until("both are seen to close", PATIENCE, || {
        let flows = stage.flows(&[]);
        flows.iter().all(|flow| flow["state"] == "closing")
    })
    .expect("they close");
}

#[test]
fn explain_names_the_backend_that_the_next_connection_gets_and_opens_nothing() {
    for algorithm in ["maglev", "source", "round-robin"] {
        let keys = format!("balance: {algorithm}, affinity: 1m, rate: 1000, source-rate: 1000,");
        let stage = Stage::up(&services(&keys));
        // What ends would move its flow between two looks.
        let mut kept = Vec::new();
        for (vip, ports) in [
            ("10.99.0.1:80", 41_000..41_006),
            ("10.99.0.2:80", 42_000..42_003),
        ] {
            for port in ports {
                let before = stage.census();
                let told = stage.explain(port, vip, &[]);
                let again = stage.explain(port, vip, &[]);
                assert_eq!(before, stage.census(), "{algorithm} {vip}");
                assert_eq!(told, again, "{algorithm} {vip}");
                assert_eq!(told["address"], "vip");
                assert_eq!(told["source"]["allowed"], true, "{told}");
                assert!(
                    told["flow"].is_null() && told["refused"].is_null(),
                    "{told}"
                );
                let afresh = told["choice"]["slot"].is_number();
                let why = told["choice"]["why"].as_str().unwrap_or_default();
                assert!(afresh || why.starts_with("affinity"), "{told}");
                let (open, backend) = stage.connect(port, vip);
                assert_eq!(chosen(&told), backend, "{algorithm} {vip}");
                let told = stage.explain(port, vip, &[]);
                assert_eq!(told["flow"]["backend"], backend, "{told}");
                assert!(told["choice"].is_null() && told["lost"].is_null(), "{told}");
                kept.push(open);
            }
        }
    }
}

#[test]
fn explain_says_who_is_kept_out_and_what_is_not_ours() {
    let stage = Stage::up(&services("deny: [10.77.0.100], max-flows: 5,"));
    let before = stage.census();
    let told = stage.explain(40_000, "10.99.0.2:80", &[]);
    assert_eq!(told["refused"]["reason"], "source_not_allowed", "{told}");
    assert_eq!(told["source"]["allowed"], false, "{told}");
    let told = stage.explain(40_000, "10.99.0.1:81", &[]);
    assert_eq!(told["refused"]["reason"], "no_service", "{told}");
    assert_eq!(
        (&told["address"], &told["service"]),
        (&"vip".into(), &Value::Null)
    );
    let told = stage.explain(40_000, "10.99.0.1:80", &["--udp"]);
    assert_eq!(told["refused"]["reason"], "no_service", "{told}");
    let told = stage.explain(40_000, "10.77.0.11:80", &[]);
    assert_eq!(told["address"], "foreign", "{told}");
    let told = stage.explain(40_000, "10.99.0.1:80", &["--local"]);
    assert_eq!(told["choice"]["certain"], false, "{told}");
    assert_eq!(told["backends"].as_array().map(Vec::len), Some(3), "{told}");
    let text = stage.print(&["explain", "10.77.0.100:40000", "10.99.0.2:80"]);
    let last = text.lines().last().expect("lines");
    assert!(last.ends_with("(source_not_allowed)"), "{text}");
    assert_eq!(before, stage.census());
}
