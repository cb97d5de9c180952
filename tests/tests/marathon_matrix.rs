//! Every kind of app that Marathon runs, in every network, asked by clients in every network, by name and by address.
//!
//! Runtimes differ in what Marathon says of a task, and in nothing that a packet sees: three servers stand behind all
//! apps. One has a port of its host, one an address of its own; the third has a port that its host publishes.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::time::Duration;

use lb_tests::{
    answers::Answers,
    asking::{ask, named},
    lab::{Host, Process, programs::program, wait_until},
    task::{READY, sentence},
    topology::{MARATHON, MASTER, Topology, WORKER3, Wishes},
};
use rustix::process::Signal;
use serde_json::{Value, json};

/// The node of all tasks, and the container on it in which two of the servers are.
const NODE: &str = "10.77.0.13";
const INSIDE: &str = "172.31.3.10";
/// Where the servers listen, and the port under which the node publishes the last.
const OF_HOST: u16 = 8001;
const OF_CONTAINER: u16 = 8002;
const BEHIND_BRIDGE: u16 = 8003;
const PUBLISHED: u16 = 31_080;
/// The port of all VIPs.
const VIP_PORT: u16 = 5000;
const QUESTIONS: u32 = 3;

/// How tasks are connected.
#[derive(Clone, Copy)]
enum Network {
    Host,
    Bridge,
    Container,
}

const NETWORKS: [(Network, &str); 3] = [
    (Network::Host, "host"),
    (Network::Bridge, "container/bridge"),
    (Network::Container, "container"),
];

/// An app, or a pod, and who is to answer for it.
struct Row {
    name: String,
    /// Its VIP that is an address.
    address: String,
    answer: String,
}

/// What Marathon is to say, and what comes of it.
#[derive(Default)]
struct Matrix {
    rows: Vec<Row>,
    apps: Vec<Value>,
    pods: Vec<Value>,
}

// === impl Matrix ===

impl Matrix {
    fn new() -> Self {
        let mut matrix = Self::default();
        matrix.app("none", Network::Host, "host", None);
        for (network, mode) in NETWORKS {
            for container in ["MESOS", "DOCKER"] {
                matrix.app(
                    &container.to_ascii_lowercase(),
                    network,
                    mode,
                    Some(container),
                );
            }
            matrix.pod(network, mode);
        }
        matrix
    }

    /// Adds the row; gives its name and the labels of its port.
    fn row(&mut self, runtime: &str, network: Network, mode: &str) -> (String, Value) {
        let name = format!("{runtime}-{}", mode.trim_start_matches("container/"));
        let address = format!("11.250.0.{}:{VIP_PORT}", self.rows.len() + 1);
        let labels = json!({"VIP_0": format!("/{name}:{VIP_PORT}"), "VIP_1": address});
        let answer = match network {
            Network::Host => sentence("host", OF_HOST),
            Network::Bridge => sentence("container", BEHIND_BRIDGE),
            Network::Container => sentence("container", OF_CONTAINER),
        };
        self.rows.push(Row {
            name: name.clone(),
            address,
            answer,
        });
        (name, labels)
    }

    fn app(&mut self, runtime: &str, network: Network, mode: &str, container: Option<&str>) {
        let (name, labels) = self.row(runtime, network, mode);
        let id = format!("/{name}");
        let mut app = json!({"id": id, "instances": 1, "networks": [{"mode": mode}]});
        if let Some(container) = container {
            app["container"] = json!({"type": container});
        }
        let mapping = match network {
            Network::Host => Value::Null,
            Network::Bridge => json!({"containerPort": BEHIND_BRIDGE, "hostPort": 0}),
            Network::Container => json!({"containerPort": OF_CONTAINER}),
        };
        if mapping.is_null() {
            app["portDefinitions"] = json!([{"port": 10_000, "protocol": "tcp", "labels": labels}]);
        } else {
            app["container"]["portMappings"] = json!([mapping]);
            app["container"]["portMappings"][0]["labels"] = labels;
        }
        let (ports, own) = match network {
            Network::Host => (json!([OF_HOST]), NODE),
            Network::Bridge => (json!([PUBLISHED]), INSIDE),
            Network::Container => (json!([]), INSIDE),
        };
        app["tasks"] = json!([{
            "id": format!("{name}.instance-1._app.1"), "appId": id, "host": NODE, "state": "TASK_RUNNING",
            "ports": ports, "ipAddresses": [{"ipAddress": own, "protocol": "IPv4"}],
        }]);
        self.apps.push(app);
    }

    fn pod(&mut self, network: Network, mode: &str) {
        let (name, labels) = self.row("pod", network, mode);
        let mut endpoint = json!({"name": "web", "protocol": ["tcp"], "labels": labels});
        let mut allocated = json!({"name": "web"});
        match network {
            Network::Host => {
                endpoint["hostPort"] = json!(0);
                allocated["allocatedHostPort"] = json!(OF_HOST);
            }
            Network::Bridge => {
                endpoint["hostPort"] = json!(0);
                endpoint["containerPort"] = json!(BEHIND_BRIDGE);
                allocated["allocatedHostPort"] = json!(PUBLISHED);
            }
            Network::Container => endpoint["containerPort"] = json!(OF_CONTAINER),
        }
        let container = json!({"name": "c", "endpoints": [endpoint]});
        let spec = json!({"id": format!("/{name}"), "networks": [{"mode": mode}], "containers": [container]});
        let running = json!({"name": "c", "status": "TASK_RUNNING", "endpoints": [allocated]});
        let instance = json!({
            "id": format!("{name}.instance-1"), "status": "STABLE", "agentHostname": NODE,
            "networks": [{"addresses": [INSIDE]}], "containers": [running],
        });
        self.pods.push(json!({
            "id": format!("/{name}"), "spec": spec, "status": "STABLE", "instances": [instance],
        }));
    }
}

/// A Marathon that says all this, in place of the stand-in, and agents that read it.
fn up(matrix: &Matrix) -> (Topology, Answers) {
    let mut topology = Topology::without_agents(Wishes {
        agent_flags: ["--ip-vips", "11.250.0.0/16"].map(String::from).into(),
        ..Wishes::default()
    })
    .expect("a topology");
    topology.marathon.signal(Signal::KILL).expect("killed");
    wait_until("it is gone", Duration::from_secs(5), || {
        topology.marathon.has_ended()
    })
    .expect("it ends");
    let apps = json!({"apps": matrix.apps});
    let marathon = Answers::serve(topology.master(), MARATHON, "marathon", &apps);
    let marathon = marathon.expect("a Marathon");
    marathon.set("/v2/pods/::status", &json!(matrix.pods));
    for node in 0..topology.nodes.len() {
        topology.start_agent(node).expect("started");
    }
    for node in 0..topology.nodes.len() {
        topology.agent_answers(node).expect("it answers");
        let served = || {
            let status = topology.status(node).expect("status");
            status["services"].as_array().map_or(0, Vec::len)
        };
        let all = 2 * matrix.rows.len();
        wait_until("it serves all VIPs", Duration::from_secs(30), || {
            served() == all
        })
        .unwrap_or_else(|why| panic!("{why:#}: {:#}", topology.status(node).expect("status")));
    }
    (topology, marathon)
}

fn serve(host: &Host, name: &str, ports: &[u16]) -> Process {
    let program = program("task-server").expect("it is built");
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let mut argv = vec![program.as_str(), "--node", name];
    for port in &ports {
        argv.extend(["--port", port]);
    }
    let server = host.start("server", &argv).expect("started");
    wait_until("it serves", Duration::from_secs(10), || {
        server.stdout().contains(READY)
    })
    .expect("it does");
    server
}

/// As engines do: whatever comes to the node's port, also from the node itself and from its containers, is the
/// container's; its own goes back by the bridge's port that it came in by.
fn publish(node: &Host) {
    let to = format!("ip daddr {NODE} tcp dport {PUBLISHED} dnat to {INSIDE}:{BEHIND_BRIDGE}");
    let rules = format!(
        "add table ip ports; \
         add chain ip ports pre {{ type nat hook prerouting priority dstnat; }}; \
         add chain ip ports out {{ type nat hook output priority -100; }}; \
         add chain ip ports post {{ type nat hook postrouting priority srcnat; }}; \
         add rule ip ports pre {to}; add rule ip ports out {to}; \
         add rule ip ports post ip saddr 172.31.3.0/24 ip daddr 172.31.3.0/24 ct status dnat masquerade"
    );
    let done = node.run(&["nft", &rules]).and_then(|nft| nft.ok());
    done.expect("published");
    let hairpin = [
        "ip",
        "link",
        "set",
        "vtask0",
        "type",
        "bridge_slave",
        "hairpin",
        "on",
    ];
    let done = node.run(&hairpin).and_then(|ip| ip.ok());
    done.expect("hairpin");
}

#[test]
fn apps_of_every_runtime_and_network_answer_clients_in_every_network_by_name_and_address() {
    let matrix = Matrix::new();
    let (topology, _marathon) = up(&matrix);
    let (node, inside) = (&topology.nodes[WORKER3], &topology.slots[0]);
    publish(node);
    let _servers = [
        serve(node, "host", &[OF_HOST]),
        serve(inside, "container", &[OF_CONTAINER, BEHIND_BRIDGE]),
    ];
    let clients = [
        ("the tasks' node", node),
        ("another node", &topology.nodes[MASTER]),
        ("a container beside the tasks", &topology.container),
        ("the container of the tasks", inside),
        ("outside", &topology.client),
    ];
    let mut failed = Vec::new();
    for row in &matrix.rows {
        for to in [named(&row.name, VIP_PORT), row.address.clone()] {
            for (place, client) in clients {
                let outcome = ask(client, &to, QUESTIONS, &[]).expect("probe");
                let answered = outcome.by_answer.get(&row.answer).copied();
                if answered != Some(u64::from(QUESTIONS)) {
                    failed.push(format!("{} at {to} from {place}: {outcome:?}", row.name));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
