//! A node with an engine and an agent that reads it and nothing else, on the stage.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{net::SocketAddr, path::PathBuf};

use serde_json::Value;

use crate::{
    docker::{Docker, place},
    lab::wait_until,
    stage::{PATIENCE, Stage},
};

/// VIPs are leased of what the stage's clients have a route to.
const POOL: [&str; 2] = ["--vip-pool-v4", "10.99.1.1-10.99.255.254"];
/// Port 80 of these containers is behind the VIP `web:80`.
pub const LABEL: [&str; 2] = ["--label", "lb.vip=web:80"];
/// The node's address, and the first server's.
const NODE: &str = "10.77.0.1";
const SERVER: &str = "10.77.0.11";
/// Where an engine on the stage's first server listens.
const ELSEWHERE: &str = "10.77.0.11:2375";

/// A node with an agent, and the engine that it reads.
pub struct Yard {
    /// Its containers end before the host does.
    pub docker: Docker,
    /// Node, clients and agent.
    pub stage: Stage,
}

impl Yard {
    /// The agent, with these flags besides, and the engine.
    pub fn up(name: &str, flags: &[&str]) -> Self {
        Self::with(name, flags, |stage, dir| Docker::start(&stage.node, dir))
    }

    /// As [`Yard::up`], with an engine that gives containers IPv6 addresses, too.
    pub fn dual(name: &str, flags: &[&str]) -> Self {
        let start = |stage: &Stage, dir| Docker::start_dual(&stage.node, dir);
        Self::with(name, flags, start)
    }

    /// As [`Yard::up`], with an engine that is the manager of a Swarm of this one node.
    pub fn swarm(name: &str, flags: &[&str]) -> Self {
        Self::manager(name, flags, "127.0.0.1")
    }

    /// As [`Yard::swarm`]; further nodes know the manager by `addr`.
    pub fn manager(name: &str, flags: &[&str], addr: &str) -> Self {
        Self::with(name, flags, |stage, dir| {
            Docker::start_manager(&stage.node, dir, addr)
        })
    }

    /// As [`Yard::up`], with an engine that is a worker in the Swarm of a manager on the first server, which has no agent.
    pub fn worker(name: &str, flags: &[&str]) -> (Self, Docker) {
        let mut manager = None;
        let yard = Self::with(name, flags, |stage, dir| {
            let apart = place(&format!("{name}-manager"))?;
            let of = Docker::start_manager(&stage.servers[0], apart, SERVER)?;
            let worker = Docker::start_worker(&stage.node, dir, NODE, (&of, SERVER));
            manager = Some(of);
            worker
        });
        (yard, manager.expect("a manager"))
    }

    /// As [`Yard::up`], with an engine on another node, which has no agent.
    pub fn elsewhere(name: &str, flags: &[&str]) -> Self {
        let dir = place(name).expect("a folder");
        let engine = format!("--docker=tcp://{ELSEWHERE}");
        let stage = Stage::up("", &[&[engine.as_str()], &POOL[..], flags].concat());
        let at = ELSEWHERE.parse().expect("an address");
        let docker = Docker::start_behind_tcp(&stage.servers[0], dir, at).expect("an engine");
        Self { docker, stage }
    }

    fn with(
        name: &str,
        flags: &[&str],
        start: impl FnOnce(&Stage, PathBuf) -> anyhow::Result<Docker>,
    ) -> Self {
        let dir = place(name).expect("a folder");
        let socket = format!("--docker=unix://{}/docker.sock", dir.display());
        // The engine comes later than the agent, which waits for it.
        let stage = Stage::up("", &[&[socket.as_str()], &POOL[..], flags].concat());
        let docker = start(&stage, dir).expect("an engine");
        Self { docker, stage }
    }

    /// Starts a container.
    pub fn run(&self, name: &str, options: &[&str]) {
        self.docker.run(name, options).expect(name);
    }

    /// Runs the engine's command.
    pub fn docker(&self, words: &[&str]) {
        self.docker.docker(words).expect("it is done");
    }

    /// The service of this name in `status`.
    pub fn service(&self, name: &str) -> Value {
        let status = self.stage.status();
        let services = status["services"].as_array();
        let found = services.into_iter().flatten().find(|service| {
            service["name"]
                .as_str()
                .is_some_and(|full| full.starts_with(&format!("{name}.docker")))
        });
        found.cloned().unwrap_or_default()
    }

    /// Waits for so many backends that take new flows; the VIP.
    pub fn expect(&self, name: &str, ready: usize) -> SocketAddr {
        let seen = wait_until("the backends are ready", PATIENCE, || {
            weights(&self.service(name))
                .iter()
                .filter(|weight| **weight > 0)
                .count()
                == ready
        });
        if seen.is_err() {
            panic!(
                "{name} never has {ready} backends: {:#}",
                self.stage.status()
            );
        }
        let vip = self.service(name)["addrs"][0]
            .as_str()
            .expect("an address")
            .to_owned();
        SocketAddr::new(vip.parse().expect("an address"), 80)
    }
}

/// The weight of each of its backends.
fn weights(service: &Value) -> Vec<u64> {
    let backends = service["backends"].as_array();
    backends
        .into_iter()
        .flatten()
        .map(|backend| backend["weight"].as_u64().unwrap_or(0))
        .collect()
}
