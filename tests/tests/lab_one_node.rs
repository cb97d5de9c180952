//! One node that carries everything: what a client outside, its own processes and a container of it send to VIPs, for a
//! server elsewhere, a socket of the node and another container. The suite `kernel` runs it on the oldest kernel, too.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    fs,
    net::{IpAddr, SocketAddr},
};

use lb_tests::{
    asking::{ask, expect_all},
    fixed::on_switch,
    lab::{
        BridgeSpec, Host, HostSpec, Lab, Process,
        programs::{agent, places, program},
        wait_until,
    },
    stage::PATIENCE,
    task::READY,
};
use serde_json::Value;

/// What each way is asked.
const QUESTIONS: u32 = 5;
const NODE: u8 = 1;
const CLIENT: u8 = 100;

/// A service: both families' VIP and backend. All are on port 80.
struct Service {
    vips: [&'static str; 2],
    backends: [&'static str; 2],
}

const ELSEWHERE: Service = Service {
    vips: ["10.99.0.1", "fd99::1"],
    backends: ["10.77.0.11", "fd77::11"],
};
const ON_NODE: Service = Service {
    vips: ["10.99.0.2", "fd99::2"],
    backends: ["10.77.0.1", "fd77::1"],
};
const IN_CONTAINER: Service = Service {
    vips: ["10.99.0.3", "fd99::3"],
    backends: ["172.31.1.10", "fd78:1::10"],
};

fn services() -> String {
    let mut yaml = "services:\n".to_owned();
    for Service { vips, backends } in [ELSEWHERE, ON_NODE, IN_CONTAINER] {
        for (vip, backend) in vips.iter().zip(backends) {
            let at = SocketAddr::new(backend.parse().expect("an address"), 80);
            yaml += &format!(
                "- {{address: '{vip}', port: 80, protocol: [tcp, udp], backends: ['{at}']}}\n"
            );
        }
    }
    yaml
}

/// On the switch.
fn host(name: &str, number: u8) -> HostSpec {
    HostSpec::new(name)
        .address(&format!("10.77.0.{number}/24"))
        .address(&format!("fd77::{number}/64"))
}

fn serve(host: &Host) -> Process {
    let program = program("task-server").expect("it is built");
    let argv = [&program, "--node", host.name(), "--port", "80"];
    let server = host.start("server", &argv).expect("started");
    let ready = || server.stdout().contains(READY);
    wait_until("a server is ready", PATIENCE, ready).expect("it says so");
    server
}

fn status(node: &Host) -> Value {
    let run_dir = node.dir().join("run").display().to_string();
    let agent = agent().expect("an agent");
    let argv = [&agent, "status", "--json", "--run-dir", &run_dir];
    let shown = node.run(&argv).expect("it runs");
    serde_json::from_str(&shown.stdout).unwrap_or_default()
}

fn start(node: &Host) -> Process {
    let file = node.dir().join("services.yaml");
    fs::write(&file, services()).expect("written");
    let (program, file) = (agent().expect("an agent"), file.display().to_string());
    let own = places(node, node.cgroup().path());
    let mut argv = vec![program.as_str(), "--iface", "eth0", "--services", &file];
    argv.extend(["--ip-vips", "10.99.0.0/16,fd99::/64"]);
    argv.extend(["--dns-listen", "none"]);
    argv.extend(["--flows", "65536", "--udp-flows", "16384"]);
    argv.extend(own.iter().map(String::as_str));
    let mut agent = node.start("lb-agent", &argv).expect("started");
    wait_until("the agent has read the file", PATIENCE, || {
        agent.has_ended() || status(node)["providers"][0]["last_sync"].is_number()
    })
    .expect("it answers");
    assert!(!agent.has_ended(), "{}", agent.stderr());
    agent
}

/// Both families and protocols of a service, from one client; `seen(ipv6)` is the client that the server sees.
fn all_ways(client: &Host, service: &Service, seen: impl Fn(bool) -> Option<IpAddr>) {
    for (vip, ipv6) in service.vips.iter().zip([false, true]) {
        let vip = SocketAddr::new(vip.parse().expect("an address"), 80);
        for mode in ["tcp", "udp", "udp-unconnected"] {
            let flags: &[&str] = if ipv6 {
                &["--ipv6", "--mode", mode]
            } else {
                &["--mode", mode]
            };
            let outcome = ask(client, &vip.to_string(), QUESTIONS, flags).expect("probe");
            expect_all(&outcome, vip, seen(ipv6))
                .unwrap_or_else(|error| panic!("{mode} to {vip}: {error:#}"));
        }
    }
}

#[test]
fn a_node_serves_clients_outside_its_processes_and_its_containers_over_both_families() {
    let lab = Lab::new().expect("a lab");
    let plug = |spec: &HostSpec| lab.host(spec).expect("a host");
    let (node, elsewhere) = (
        plug(&host("node", NODE).forwarding()),
        plug(&host("elsewhere", 11)),
    );
    let client = host("client", CLIENT).route("10.99.0.0/16 via 10.77.0.1");
    let client = plug(&client.route("fd99::/64 via fd77::1"));
    let bridge = BridgeSpec {
        device: "docker0".into(),
        addresses: vec!["172.31.1.1/24".into(), "fd78:1::1/64".into()],
        forward_drop: true,
        masquerade: true,
    };
    let bridge = node.bridge(&bridge).expect("a bridge");
    let container = |name: &str, number: u8| {
        let spec = HostSpec::new(name)
            .address(&format!("172.31.1.{number}/24"))
            .address(&format!("fd78:1::{number}/64"));
        bridge.container(&spec).expect("a container")
    };
    let (serving, asking) = (container("serving", 10), container("asking", 2));
    let _servers = [&elsewhere, &node, &serving].map(serve);
    let _agent = start(&node);

    // By packets: full NAT by way of the node, and DNAT to its own socket and container.
    all_ways(&client, &ELSEWHERE, |ipv6| Some(on_switch(NODE, ipv6)));
    all_ways(&client, &ON_NODE, |ipv6| Some(on_switch(CLIENT, ipv6)));
    all_ways(&client, &IN_CONTAINER, |ipv6| Some(on_switch(CLIENT, ipv6)));
    // By sockets.
    all_ways(&node, &ELSEWHERE, |ipv6| Some(on_switch(NODE, ipv6)));
    all_ways(&node, &ON_NODE, |_| None);
    for client in [&node, &asking] {
        all_ways(client, &IN_CONTAINER, |_| None);
    }
    // What leaves the node is masqueraded.
    all_ways(&asking, &ELSEWHERE, |_| None);
    let status = status(&node);
    let attached = &status["datapath"]["interfaces"][0]["attached"];
    assert_eq!(attached[0], "xdp native", "{attached}");
}
