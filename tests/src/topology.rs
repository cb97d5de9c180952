//! The network of the demo and of the main tests.
//!
//! ```text
//!  client  10.77.0.100 ---+--- switch ---+--- master   10.77.0.1   Marathon
//!  (no agent; routes to   |              +--- worker1  10.77.0.11
//!   the VIPs by master)   |              +--- worker2  10.77.0.12
//!                         +--------------+--- worker3  10.77.0.13
//!                                               | docker0 172.31.3.1
//!                                               +-- box    172.31.3.2  (a client)
//!                                               +-- task0  172.31.3.10 (a task's container)
//! ```
//!
//! Every node has IPv6 `fd77::N`; the containers `fd78:3::N`.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::lab::{
    BridgeSpec, Finished, Host, HostSpec, Lab, Process, http,
    programs::{agent, program},
    retry, wait_for, wait_until,
};

/// Where VIPs come from.
pub const VIPS: [&str; 2] = ["11.0.0.0/8", "fd01:c::/64"];

/// The node that Marathon runs on, and that routes for the client.
pub const MASTER: usize = 0;

/// The worker that has containers.
pub const WORKER3: usize = 3;

/// Where the stand-in listens.
pub const MARATHON: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1)), 8080);

/// Where an agent answers the DNS queries of its containers.
pub const LINK_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 53, 53);

/// The zone of named VIPs.
pub const ZONE: &str = "marathon.l4lb.thisdcos.directory";

const NODES: [(&str, u8); 4] = [
    ("master", 1),
    ("worker1", 11),
    ("worker2", 12),
    ("worker3", 13),
];

/// What differs from test to test.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// Leave checksum offload on wherever packets start.
    pub tx_checksum: bool,
    /// Let nodes receive unfinished checksums; only tc can work on those.
    pub unfinished_arrivals: bool,
    /// FORWARD policy DROP on the worker with containers; then other nodes do not reach its tasks.
    pub forward_drop: bool,
    /// The node that the client's routes to the VIPs lead to.
    pub client_via: usize,
    /// Further flags of every agent.
    pub agent_flags: Vec<String>,
    /// The services file of every agent; empty is none.
    pub services: String,
    /// Milliseconds from TASK_KILLING to SIGTERM.
    pub kill_delay: u32,
}

/// The hosts, and what runs on them. Fields end in this order.
#[derive(Debug)]
pub struct Topology {
    /// One per node, in the order of the nodes; `None` while killed.
    pub agents: Vec<Option<Process>>,
    /// The Marathon stand-in; its tasks end with it.
    pub marathon: Process,
    /// The outside client.
    pub client: Host,
    /// A container on the third worker that only asks.
    pub container: Host,
    /// Containers on the third worker for tasks.
    pub slots: Vec<Host>,
    /// [`MASTER`], and three workers.
    pub nodes: Vec<Host>,
    /// All of it.
    pub lab: Lab,
    wishes: Wishes,
}

// === impl Wishes ===

impl Default for Wishes {
    fn default() -> Self {
        Self {
            tx_checksum: false,
            unfinished_arrivals: false,
            forward_drop: false,
            client_via: MASTER,
            agent_flags: Vec::new(),
            services: String::new(),
            kill_delay: 1000,
        }
    }
}

// === impl Topology ===

impl Topology {
    /// Makes the network, starts Marathon, and an agent on every node.
    ///
    /// # Errors
    ///
    /// What is missing on this machine, or what did not come up and what it wrote.
    pub fn up(wishes: Wishes) -> Result<Self> {
        let mut topology = Self::without_agents(wishes)?;
        for node in 0..topology.nodes.len() {
            topology.start_agent(node)?;
        }
        for node in 0..topology.nodes.len() {
            topology.agent_answers(node)?;
        }
        Ok(topology)
    }

    /// The network and Marathon alone.
    ///
    /// # Errors
    ///
    /// As [`Topology::up`].
    pub fn without_agents(wishes: Wishes) -> Result<Self> {
        let lab = Lab::new()?;
        let nodes = NODES
            .iter()
            .map(|&(name, number)| lab.host(&node_spec(name, number, &wishes)))
            .collect::<Result<Vec<_>>>()?;
        let mut client = HostSpec::new("client")
            .address("10.77.0.100/24")
            .address("fd77::100/64")
            .nameserver(MARATHON.ip());
        let via = NODES[wishes.client_via].1;
        for (range, by) in VIPS
            .iter()
            .zip([format!("10.77.0.{via}"), format!("fd77::{via}")])
        {
            client = client.route(&format!("{range} via {by}"));
        }
        let client = lab.host(&client.tx_checksum(wishes.tx_checksum))?;
        let (container, slots) = containers(&nodes[WORKER3], &wishes)?;
        let marathon = start_marathon(&nodes, &slots, &wishes)?;
        Ok(Self {
            agents: vec![None, None, None, None],
            marathon,
            client,
            container,
            slots,
            nodes,
            lab,
            wishes,
        })
    }

    /// The node Marathon runs on.
    pub fn master(&self) -> &Host {
        &self.nodes[MASTER]
    }

    /// One of Marathon's API calls, made on the master node.
    ///
    /// # Errors
    ///
    /// Marathon does not answer, or refuses.
    pub fn marathon(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let reply = self
            .master()
            .enter(|| http::request(MARATHON, method, path, body))??;
        ensure!(
            reply.status < 300,
            "{method} {path}: {} {}",
            reply.status,
            reply.body
        );
        reply.json()
    }

    /// Adds or changes an app and waits until as many tasks run as it asks for, and no other.
    ///
    /// # Errors
    ///
    /// Marathon refuses, or the tasks do not come up.
    pub fn put_app(&self, id: &str, body: &Value) -> Result<()> {
        self.marathon("PUT", &format!("/v2/apps/{id}"), body)?;
        wait_until(
            &format!("{id} runs as asked for"),
            Duration::from_secs(30),
            || {
                let deployments = self.marathon("GET", "/v2/deployments", &Value::Null);
                deployments.is_ok_and(|running| running.as_array().is_some_and(Vec::is_empty))
            },
        )
    }

    /// The tasks of an app, as Marathon shows them.
    ///
    /// # Errors
    ///
    /// Marathon does not answer.
    pub fn tasks(&self, id: &str) -> Result<Vec<Value>> {
        let shown = self.marathon("GET", &format!("/v2/apps/{id}/tasks"), &Value::Null)?;
        Ok(shown["tasks"].as_array().cloned().unwrap_or_default())
    }

    /// The address that the agent on a node gives for a VIP name, by asking its DNS.
    ///
    /// # Errors
    ///
    /// No address within 15 s.
    pub fn vip(&self, node: usize, name: &str, ipv6: bool) -> Result<IpAddr> {
        let kind = if ipv6 { "AAAA" } else { "A" };
        let name = format!("{name}.{ZONE}");
        retry(
            &format!("{name} has {kind} on {}", NODES[node].0),
            Duration::from_secs(15),
            || {
                let dig =
                    self.nodes[node].run(&["dig", "+short", "+time=1", "+tries=1", kind, &name])?;
                let answer = dig.ok()?;
                answer
                    .trim()
                    .parse()
                    .with_context(|| format!("dig says {answer:?}"))
            },
        )
    }

    /// As [`Topology::vip`], on every node; they must agree.
    ///
    /// # Errors
    ///
    /// A node has none within 15 s, or another one.
    pub fn agreed_vip(&self, name: &str, ipv6: bool) -> Result<IpAddr> {
        let vip = self.vip(MASTER, name, ipv6)?;
        for (node, (node_name, _)) in NODES.iter().enumerate() {
            let theirs = self.vip(node, name, ipv6)?;
            ensure!(
                theirs == vip,
                "{name} is {vip} on {}, and {theirs} on {node_name}",
                NODES[MASTER].0
            );
        }
        Ok(vip)
    }

    /// What the agent of a node says of itself; `null` while it does not answer.
    ///
    /// # Errors
    ///
    /// There is no agent program.
    pub fn status(&self, node: usize) -> Result<Value> {
        let shown = self.run(node, &["status", "--json"])?;
        Ok(serde_json::from_str(&shown.stdout).unwrap_or_default())
    }

    /// Runs a subcommand of the agent of a node.
    ///
    /// # Errors
    ///
    /// There is no agent program.
    pub fn run(&self, node: usize, words: &[&str]) -> Result<Finished> {
        let run_dir = self.nodes[node].dir().join("run").display().to_string();
        let agent = agent()?;
        let argv = [&[agent.as_str()], words, &["--run-dir", &run_dir]].concat();
        self.nodes[node].run(&argv)
    }

    /// Starts the agent of a node, or starts it again.
    ///
    /// # Errors
    ///
    /// It cannot be run.
    pub fn start_agent(&mut self, node: usize) -> Result<()> {
        self.start_agent_by(node, &[])
    }

    /// As [`Topology::start_agent`], by a program that executes what comes after its own arguments.
    ///
    /// # Errors
    ///
    /// It cannot be run.
    pub fn start_agent_by(&mut self, node: usize, starter: &[&str]) -> Result<()> {
        let own = self.agent_argv(node)?;
        let argv: Vec<&str> = starter
            .iter()
            .copied()
            .chain(own.iter().map(String::as_str))
            .collect();
        self.agents[node] = Some(self.nodes[node].start("lb-agent", &argv)?);
        Ok(())
    }

    /// The services file of agents that start from now on.
    pub fn put_services(&mut self, services: &str) {
        services.clone_into(&mut self.wishes.services);
    }

    /// SIGKILL, as a crash would.
    ///
    /// # Errors
    ///
    /// There is no agent on that node.
    pub fn kill_agent(&mut self, node: usize) -> Result<()> {
        let mut agent = self.agents[node].take().context("no agent runs there")?;
        agent.signal(Signal::KILL)?;
        wait_until("the agent is gone", Duration::from_secs(5), || {
            agent.has_ended()
        })
    }

    /// Waits until the agent of a node answers DNS.
    ///
    /// # Errors
    ///
    /// It does not within 20 s, or ended; the error holds what it wrote.
    pub fn agent_answers(&mut self, node: usize) -> Result<()> {
        let host = &self.nodes[node];
        let agent = self.agents[node].as_mut().context("no agent runs there")?;
        let soa = [
            "dig",
            "+short",
            "+time=1",
            "+tries=1",
            "SOA",
            "l4lb.thisdcos.directory",
        ];
        let up = wait_for("the agent answers DNS", Duration::from_secs(60), || {
            let answers = || {
                host.run(&soa)
                    .is_ok_and(|dig| dig.stdout.contains("ns.spartan"))
            };
            (agent.has_ended() || answers()).then_some(())
        });
        ensure!(
            up.is_ok() && !agent.has_ended(),
            "the agent on {} is not up; it wrote:\n{}{}",
            NODES[node].0,
            agent.stdout(),
            agent.stderr()
        );
        Ok(())
    }

    /// What ends all that the agent of a node did there.
    ///
    /// # Errors
    ///
    /// There is no agent program.
    pub fn purge_argv(&self, node: usize) -> Result<Vec<String>> {
        let mut argv = vec![agent()?, "purge".into()];
        argv.extend(places(&self.nodes[node]));
        Ok(argv)
    }

    fn agent_argv(&self, node: usize) -> Result<Vec<String>> {
        let (host, number) = (&self.nodes[node], NODES[node].1);
        let path = |name: &str| host.dir().join(name).display().to_string();
        let mut argv = vec![
            agent()?,
            "--iface".into(),
            "eth0".into(),
            "--marathon".into(),
            format!("http://{MARATHON}"),
            "--cgroup".into(),
            host.cgroup().path().display().to_string(),
        ];
        argv.extend(places(host));
        for listen in ["127.0.0.1:53".to_owned(), format!("10.77.0.{number}:53")] {
            argv.extend(["--dns-listen".into(), listen]);
        }
        // Four nodes and more share this machine's memory.
        argv.extend(["--flows", "65536", "--udp-flows", "16384"].map(String::from));
        if !self.wishes.services.is_empty() {
            fs::write(path("services.yaml"), &self.wishes.services)?;
            argv.extend(["--services".into(), path("services.yaml")]);
        }
        argv.extend(self.wishes.agent_flags.iter().cloned());
        Ok(argv)
    }
}

/// The flags for a node's own pins, state and sockets.
fn places(host: &Host) -> [String; 6] {
    let path = |name: &str| host.dir().join(name).display().to_string();
    [
        "--pin-dir".into(),
        host.pins().display().to_string(),
        "--state-dir".into(),
        path("state"),
        "--run-dir".into(),
        path("run"),
    ]
}

fn node_spec(name: &str, number: u8, wishes: &Wishes) -> HostSpec {
    let mut spec = HostSpec::new(name)
        .address(&format!("10.77.0.{number}/24"))
        .address(&format!("fd77::{number}/64"))
        .nameserver(Ipv4Addr::LOCALHOST.into())
        .forwarding();
    if name != NODES[WORKER3].0 {
        // What an overlay would do: nodes reach tasks' addresses on other nodes.
        spec = spec
            .route("172.31.3.0/24 via 10.77.0.13")
            .route("fd78:3::/64 via fd77::13");
    }
    spec.tx_checksum(wishes.tx_checksum)
        .unfinished_arrivals(wishes.unfinished_arrivals)
}

/// A container that asks, and two for tasks.
fn containers(worker: &Host, wishes: &Wishes) -> Result<(Host, Vec<Host>)> {
    let bridge = worker.bridge(&BridgeSpec {
        device: "docker0".into(),
        addresses: vec!["172.31.3.1/24".into(), "fd78:3::1/64".into()],
        forward_drop: wishes.forward_drop,
        masquerade: true,
    })?;
    let container = |name: &str, number: u8| {
        let spec = HostSpec::new(name)
            .address(&format!("172.31.3.{number}/24"))
            .address(&format!("fd78:3::{number}/64"))
            .nameserver(LINK_ADDRESS.into());
        bridge.container(&spec.tx_checksum(wishes.tx_checksum))
    };
    Ok((
        container("box", 2)?,
        vec![container("task0", 10)?, container("task1", 11)?],
    ))
}

fn start_marathon(nodes: &[Host], slots: &[Host], wishes: &Wishes) -> Result<Process> {
    let master = &nodes[MASTER];
    let mut argv = vec![
        program("marathon-stand-in")?,
        "--listen".into(),
        MARATHON.to_string(),
        "--logs".into(),
        master.dir().display().to_string(),
        "--kill-delay".into(),
        wishes.kill_delay.to_string(),
    ];
    for (node, (name, number)) in nodes.iter().zip(NODES).skip(1) {
        let (netns, cgroup) = (node.netns().name(), node.cgroup().path().display());
        argv.extend([
            "--agent".into(),
            format!("{name}={netns},10.77.0.{number},{cgroup}"),
        ]);
    }
    for (slot, number) in slots.iter().zip([10, 11]) {
        let (netns, cgroup) = (slot.netns().name(), slot.cgroup().path().display());
        let v6: Ipv6Addr = format!("fd78:3::{number}").parse()?;
        argv.extend([
            "--slot".into(),
            format!("worker3={netns},{cgroup},172.31.3.{number},{v6}"),
        ]);
    }
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    let mut marathon = master.start("marathon", &argv)?;
    wait_until("Marathon is ready", Duration::from_secs(10), || {
        marathon.stdout().contains("ready") || marathon.has_ended()
    })?;
    ensure!(
        !marathon.has_ended(),
        "Marathon ended: {}",
        marathon.stderr()
    );
    Ok(marathon)
}
