//! Every orchestrator at once, each a program of its own: killed in turn and together, traffic goes on, and they are
//! followed again without a restart of the agent.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{env, path::Path, time::Duration};

use lb_tests::{
    docker::{Docker, place},
    ecs::{CLUSTER, Cloud, ENDPOINT, VARIABLES},
    etcd::Etcd,
    lab::{Host, Process, http, wait_until},
    stage::{Stage, connect},
};
use rustix::process::Signal;
use serde_json::Value;

/// Python and deployfish take their time.
const PATIENCE: Duration = Duration::from_secs(90);
/// The stage's own file has nothing.
const NONE: &str = "services: []\n";
const ETCD: &str = "127.0.0.1:2379";
const MARATHON: &str = "8080";
/// Of the service in etcd.
const IN_ETCD: &str = "services: [{name: kept, port: 80, backends: ['10.77.0.11:80']}]";
/// Every service by the beginning of its name.
const NAMES: [&str; 4] = [
    "web.docker",
    "shop.marathon",
    "hello-world-elb.ecs",
    "kept.file",
];
/// The kinds of their providers.
const KINDS: [&str; 4] = ["docker", "marathon", "ecs", "etcd"];

/// A node with all of them. What runs on it ends before it does.
struct Yard {
    docker: Docker,
    cloud: Cloud,
    etcd: Etcd,
    marathon: Process,
    stage: Stage,
}

impl Yard {
    fn up() -> Self {
        let dir = place("all").expect("a folder");
        let docker = format!("--docker=unix://{}/docker.sock", dir.display());
        let (etcd, marathon) = (
            format!("http://{ETCD}"),
            format!("http://127.0.0.1:{MARATHON}"),
        );
        let flags = [
            docker.as_str(),
            "--vip-pool-v4",
            "10.99.1.1-10.99.255.254",
            "--etcd",
            &etcd,
            "--marathon",
            &marathon,
            "--ecs",
            CLUSTER,
            "--ecs-region",
            "us-east-1",
            "--ecs-endpoint",
            ENDPOINT,
        ];
        let stage = Stage::up_with(&VARIABLES, NONE, &flags);
        let mut etcd = Etcd::new(&stage.node, ETCD.parse().expect("an address"), None);
        etcd.start(&stage.node).expect("etcd");
        let yard = Self {
            docker: Docker::start(&stage.node, dir).expect("an engine"),
            cloud: Cloud::start(&stage, 10).expect("a cloud"),
            marathon: marathon_on(&stage.node),
            etcd,
            stage,
        };
        let node = &yard.stage.node;
        for name in ["web-1", "web-2"] {
            let label = ["--label", "lb.vip=web:80"];
            yard.docker.run(name, &label).expect("a container");
        }
        yard.etcd
            .put(node, "/lb-agent/services/kept", IN_ETCD)
            .expect("put");
        let create = ["create", "hello-world-test"];
        yard.cloud
            .deploy(node, "hello-world.yml", &create)
            .expect("deployed");
        let all = || NAMES.iter().all(|name| yard.backend(name).is_some());
        if wait_until("all are served", PATIENCE, all).is_err() {
            panic!("{:#}", yard.stage.status());
        }
        yard
    }

    fn service(&self, name: &str) -> Value {
        let status = self.stage.status();
        let services = status["services"].as_array();
        let is_it = |service: &&Value| service["name"] == name;
        services
            .into_iter()
            .flatten()
            .find(is_it)
            .cloned()
            .unwrap_or_default()
    }

    /// A backend that takes connections.
    fn backend(&self, name: &str) -> Option<String> {
        let service = self.service(name);
        let mut backends = service["backends"].as_array()?.iter();
        let ready = backends.find(|one| one["weight"] != 0)?;
        Some(ready["addr"].as_str()?.to_owned())
    }

    fn vip(&self, name: &str) -> String {
        let addr = self.service(name)["addrs"][0].clone();
        format!("{}:80", addr.as_str().expect("an address"))
    }

    /// The kinds of providers whose last reading failed.
    fn failing(&self) -> Vec<String> {
        let status = self.stage.status();
        let providers = status["providers"].as_array().cloned().unwrap_or_default();
        let kind = |one: &Value| {
            let id = one["id"].as_str().unwrap_or_default();
            id.split(':').next().unwrap_or_default().to_owned()
        };
        let failing = providers.iter().filter(|one| one["last_error"].is_object());
        let mut kinds: Vec<_> = failing.map(kind).collect();
        kinds.sort();
        kinds
    }

    /// Ten connections to each VIP, of which none may fail.
    fn all_answer(&self, vips: &[String]) {
        let client = &self.stage.clients[0];
        for _ in 0..10 {
            for (name, vip) in NAMES.iter().zip(vips) {
                answers(client, name, vip);
            }
        }
    }

    fn kill(&mut self, kind: &str) {
        match kind {
            "docker" => self.docker.kill().expect("killed"),
            "marathon" => {
                self.marathon.signal(Signal::KILL).expect("killed");
                let gone = || self.marathon.has_ended();
                wait_until("it is gone", PATIENCE, gone).expect("it ends");
            }
            "ecs" => self.cloud.kill().expect("killed"),
            _ => self.etcd.kill().expect("killed"),
        }
    }

    fn revive(&mut self, kind: &str) {
        let node = &self.stage.node;
        match kind {
            "docker" => self.docker.revive(node).expect("it is back"),
            "marathon" => self.marathon = marathon_on(node),
            "ecs" => self.cloud.revive(node).expect("it is back"),
            _ => self.etcd.start(node).expect("it is back"),
        }
    }

    /// Kills these, and brings them back after the agent has noticed.
    fn without(&mut self, kinds: &[&str], vips: &[String]) {
        let agent = self.stage.agent.pid();
        for kind in kinds {
            self.kill(kind);
        }
        self.all_answer(vips);
        let mut expected: Vec<_> = kinds.iter().map(|kind| (*kind).to_owned()).collect();
        expected.sort();
        if wait_until("it is noticed", PATIENCE, || self.failing() == expected).is_err() {
            panic!(
                "{kinds:?} are away, but: {:#}",
                self.stage.status()["providers"]
            );
        }
        self.all_answer(vips);
        for kind in kinds {
            self.revive(kind);
        }
        let well = || self.failing().is_empty();
        if wait_until("all is well again", PATIENCE, well).is_err() {
            panic!(
                "{kinds:?} are back, but: {:#}",
                self.stage.status()["providers"]
            );
        }
        self.all_answer(vips);
        assert_eq!(self.stage.agent.pid(), agent, "the agent was not restarted");
        assert!(!self.stage.agent.has_ended());
    }
}

fn marathon_on(node: &Host) -> Process {
    let venv = env::var("LB_ECS_VENV").expect("LB_ECS_VENV: `cargo xtask test together` sets it");
    let python = format!("{venv}/bin/python");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("together/marathon.py");
    let argv = [
        &python,
        &*script.display().to_string(),
        MARATHON,
        "10.77.0.13:80",
    ];
    node.start("marathon", &argv).expect("started")
}

/// One connection. Containers of Docker speak HTTP, all others name themselves.
fn answers(client: &Host, name: &str, vip: &str) {
    if name != NAMES[0] {
        let (_, said) = connect(client, vip).expect(name);
        assert!(!said.is_empty(), "{name}");
        return;
    }
    let at = vip.parse().expect("an address");
    let page = client
        .enter(|| http::get(at, "/index.html"))
        .expect("entered");
    assert_eq!(page.expect(name).status, 200, "{name}");
}

#[test]
fn orchestrators_are_killed_in_turn_and_together_and_traffic_goes_on() {
    let mut yard = Yard::up();
    let vips = NAMES.map(|name| yard.vip(name));
    yard.all_answer(&vips);
    for kind in KINDS {
        yard.without(&[kind], &vips);
    }
    yard.without(&KINDS, &vips);
    // They are not only read, but followed.
    let node = &yard.stage.node;
    let moved = IN_ETCD.replace("10.77.0.11", "10.77.0.12");
    yard.etcd
        .put(node, "/lb-agent/services/kept", &moved)
        .expect("put");
    // Not a new one: an engine that was killed may give it the address of a container that it found running.
    let stop = ["stop", "--time", "0", "web-2"];
    yard.docker.docker(&stop).expect("stopped");
    yard.cloud
        .deploy(node, "hello-world.yml", &["scale", "test", "2"])
        .expect("scaled");
    let followed = || {
        let backends = |name| {
            yard.service(name)["backends"]
                .as_array()
                .map_or(0, Vec::len)
        };
        let kept = yard.backend("kept.file");
        (backends("web.docker"), backends("hello-world-elb.ecs")) == (1, 2)
            && kept.as_deref() == Some("10.77.0.12:80")
    };
    if wait_until("all are followed", PATIENCE, followed).is_err() {
        panic!("{:#}", yard.stage.status());
    }
    yard.all_answer(&vips);
}
