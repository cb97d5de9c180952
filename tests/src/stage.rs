//! A node with the agent between two clients and three servers, its services in a file.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    path::PathBuf,
    thread,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::lab::{
    Finished, Host, HostSpec, Lab, Process, UPLINK, programs::agent, servers::Server, wait_until,
};

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The first client's address.
pub const CLIENT: &str = "10.77.0.100";
/// Long enough for a handshake, and for the first SYN that is sent again.
pub const CONNECT: Duration = Duration::from_millis(2_500);

/// A node with the agent, two clients that reach VIPs by it, and servers `s1` to `s3` without an agent. Fields end
/// in this order.
pub struct Stage {
    /// The agent of `node`.
    pub agent: Process,
    argv: Vec<String>,
    run_dir: PathBuf,
    /// `None`: it has no file.
    services: Option<PathBuf>,
    /// What answers on port 80 of each server; one that is dropped listens no more.
    pub echoes: Vec<Server>,
    /// They answer with their names.
    pub servers: Vec<Host>,
    /// They reach VIPs by `node`.
    pub clients: Vec<Host>,
    /// The node.
    pub node: Host,
    _lab: Lab,
}

// === impl Stage ===

impl Stage {
    /// Starts everything; `services`: the file, empty is none; `flags`: more of the agent.
    pub fn up(services: &str, flags: &[&str]) -> Self {
        Self::up_with(&[], services, flags)
    }

    /// As [`Stage::up`], with variables (`NAME=VALUE`) in the agent's environment.
    pub fn up_with(variables: &[&str], services: &str, flags: &[&str]) -> Self {
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
        let program = agent().expect("an agent");
        let mut own = vec![
            ("--pin-dir", text(node.pins().to_owned())),
            ("--state-dir", text(path("state"))),
            ("--run-dir", text(path("run"))),
            ("--cgroup", text(node.cgroup().path().to_owned())),
        ];
        let file = (!services.is_empty()).then(|| path("services.yaml"));
        if let Some(file) = &file {
            fs::write(file, services).expect("written");
            own.push(("--services", text(file.clone())));
        }
        let mut argv = if variables.is_empty() {
            vec![]
        } else {
            [&["env"], variables].concat()
        };
        argv.extend([
            program.as_str(),
            "--iface",
            "eth0",
            "--ip-vips",
            "10.99.0.0/16",
        ]);
        if !flags.contains(&"--dns-listen") {
            argv.extend(["--dns-listen", "none"]);
        }
        argv.extend(["--flows", "65536", "--udp-flows", "16384"]);
        argv.extend(own.iter().flat_map(|(flag, value)| [*flag, value.as_str()]));
        argv.extend(flags);
        let mut stage = Self {
            agent: node.start("lb-agent", &argv).expect("started"),
            argv: argv.into_iter().map(str::to_owned).collect(),
            run_dir: path("run"),
            services: file,
            echoes,
            servers,
            clients,
            node,
            _lab: lab,
        };
        stage.is_up();
        stage
    }

    /// Waits until the agent has read its file, or answers where it has none.
    fn is_up(&mut self) {
        wait_until("the agent has read the file", PATIENCE, || {
            let status = self.status();
            if self.services.is_none() {
                return self.agent.has_ended() || status.is_object();
            }
            let providers = status["providers"].as_array();
            let mut read = providers
                .into_iter()
                .flatten()
                .filter(|provider| provider["last_sync"].is_number());
            self.agent.has_ended()
                || read.any(|provider| {
                    provider["id"]
                        .as_str()
                        .is_some_and(|id| id.starts_with("file:"))
                })
        })
        .expect("it answers");
        assert!(!self.agent.has_ended(), "{}", self.agent.stderr());
    }

    /// Kills the agent and starts it again.
    pub fn revive(&mut self) {
        self.agent.signal(Signal::KILL).expect("killed");
        wait_until("the agent is gone", PATIENCE, || self.agent.has_ended()).expect("it ends");
        let argv: Vec<_> = self.argv.iter().map(String::as_str).collect();
        self.agent = self.node.start("lb-agent", &argv).expect("started");
        self.is_up();
    }

    /// Puts another file in place and waits until `status` shows what `shown` looks for.
    pub fn write(&self, services: &str, shown: impl Fn(&Value) -> bool) {
        let file = self.services.as_ref().expect("it has a file");
        let next = file.with_extension("next");
        fs::write(&next, services).expect("written");
        fs::rename(next, file).expect("put in place");
        wait_until("the new file is in force", PATIENCE, || {
            shown(&self.status())
        })
        .expect("it is read");
    }

    /// The agent's run directory.
    pub fn run_dir(&self) -> &std::path::Path {
        &self.run_dir
    }

    /// What the agent has in memory, KiB.
    pub fn memory(&self) -> u64 {
        let status = format!("/proc/{}/status", self.agent.pid());
        let status = fs::read_to_string(status).expect("the agent runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.trim().strip_suffix("kB"));
        let number = number.expect("its memory").trim();
        number.parse().expect("a number")
    }

    /// `null` while the agent does not answer.
    pub fn status(&self) -> Value {
        self.ask(&["status"])
    }

    /// What a subcommand prints with `--json`; `null` while the agent does not answer.
    pub fn ask(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.print(&[words, &["--json"]].concat())).unwrap_or_default()
    }

    /// What a subcommand prints.
    pub fn print(&self, words: &[&str]) -> String {
        self.run(words).stdout
    }

    /// Runs a subcommand.
    pub fn run(&self, words: &[&str]) -> Finished {
        let argv = self.subcommand(words);
        let argv: Vec<_> = argv.iter().map(String::as_str).collect();
        self.node.run(&argv).expect("it runs")
    }

    /// A connection of the first client from this port, and the backend that it came to.
    pub fn connect(&self, port: u16, vip: &str) -> (TcpStream, String) {
        let (stream, name) = connect_from(&self.clients[0], port, vip).expect(vip);
        let number = name.trim_start_matches('s');
        (stream, format!("10.77.0.1{number}:80"))
    }

    /// Starts a subcommand that goes on, and waits until it has said so; `name`: of the process.
    pub fn follow(&self, name: &str, words: &[&str]) -> Process {
        let argv = self.subcommand(words);
        let argv: Vec<_> = argv.iter().map(String::as_str).collect();
        let process = self.node.start(name, &argv).expect("started");
        let ready = || process.stderr().contains("stop with Ctrl-C");
        wait_until("it is switched on", PATIENCE, ready).expect("it says so");
        process
    }

    fn subcommand(&self, words: &[&str]) -> Vec<String> {
        let (program, dir) = (
            agent().expect("an agent"),
            self.run_dir.display().to_string(),
        );
        let argv = [&[program.as_str()], words, &["--run-dir", &dir]].concat();
        argv.into_iter().map(str::to_owned).collect()
    }

    /// Packets went no further for this reason, as `status` tells within seconds.
    pub fn expect_dropped(&self, reason: &str) {
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
///
/// # Errors
///
/// As `connect` and `read` give them.
pub fn connect(client: &Host, vip: &str) -> std::io::Result<(TcpStream, String)> {
    connect_from(client, 0, vip)
}

/// As [`connect`], from this port.
///
/// # Errors
///
/// As `bind`, `connect` and `read` give them.
pub fn connect_from(client: &Host, port: u16, vip: &str) -> std::io::Result<(TcpStream, String)> {
    let to: SocketAddr = vip.parse().expect("an address");
    let dial = || -> std::io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
        let any: IpAddr = any.parse().expect("an address");
        socket.bind(&SocketAddr::new(any, port).into())?;
        socket.connect_timeout(&to.into(), CONNECT)?;
        Ok(socket.into())
    };
    let mut stream = client.enter(dial).expect("in the host")?;
    stream.set_read_timeout(Some(CONNECT))?;
    let mut name = [0; 2];
    stream.read_exact(&mut name)?;
    Ok((stream, String::from_utf8_lossy(&name).into_owned()))
}

/// Sends this much to a server that echoes and reads it again; gives the server's name.
///
/// # Errors
///
/// As `connect`, `read` and `write` give them.
pub fn echoed(client: &Host, to: SocketAddr, bytes: usize) -> std::io::Result<String> {
    let dial = || {
        let mut stream = TcpStream::connect_timeout(&to, CONNECT)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut name = [0; 2];
        stream.read_exact(&mut name)?;
        let mut sender = stream.try_clone()?;
        let writer = thread::spawn(move || {
            let payload: Vec<u8> = (0..=u8::MAX).cycle().take(bytes).collect();
            sender.write_all(&payload)
        });
        let mut back = vec![0; bytes];
        stream.read_exact(&mut back)?;
        writer.join().expect("no panic")?;
        let same = back.iter().zip((0..=u8::MAX).cycle()).all(|(a, b)| *a == b);
        assert!(same, "what comes back is what was sent");
        Ok(String::from_utf8_lossy(&name).into_owned())
    };
    client.enter(dial).expect("in the host")
}

/// Bytes that came in (`rx`) or went out (`tx`) by a host's network card.
pub fn bytes(host: &Host, way: &str) -> u64 {
    let shown = host.run(&["ip", "-s", "-j", "link", "show", UPLINK]);
    let shown = shown.and_then(|shown| shown.ok()).expect("ip");
    let links: Value = serde_json::from_str(&shown).expect("JSON");
    let bytes = links[0]["stats64"][way]["bytes"].as_u64();
    bytes.unwrap_or_else(|| panic!("{way} of {}: {shown}", host.name()))
}
