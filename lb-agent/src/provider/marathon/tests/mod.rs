//! Bodies of Marathon -> pools, and the watcher against a Marathon on loopback.

mod deployments;
mod emptiness;
mod fixtures;
mod generations;
mod logging_in;
mod malformed;
mod many;
mod outages;
mod over_tls;
mod server;
mod service_ports;
mod single;
mod versions;
mod watched;
mod watching;

use std::{collections::HashMap, net::IpAddr};

use serde_json::{Value, json};

use super::{
    build::{self, Context},
    edge::Edge,
    reading::{self, Reading},
    version::Versions,
};
use crate::provider::{Pool, Snapshot, VipHost};

fn reading(apps: &Value, pods: &Value) -> Reading {
    reading::read(
        apps.to_string().as_bytes(),
        Some(pods.to_string().as_bytes()),
    )
    .unwrap()
}

/// The snapshot of a list of apps.
fn apps(apps: Value) -> Snapshot {
    build_with(
        &json!({ "apps": apps }),
        &json!([]),
        &Versions::default(),
        None,
    )
}

fn build_with(a: &Value, p: &Value, versions: &Versions, last: Option<&Snapshot>) -> Snapshot {
    build_at(a, p, versions, last, &Edge::default())
}

fn build_at(
    a: &Value,
    p: &Value,
    versions: &Versions,
    last: Option<&Snapshot>,
    edge: &Edge,
) -> Snapshot {
    let agents: HashMap<String, IpAddr> = [("agent-7".to_owned(), [10, 0, 0, 7].into())]
        .into_iter()
        .collect();
    let context = Context {
        framework: &"marathon".into(),
        versions,
        agents: &agents,
        edge,
    };
    build::build(&reading(a, p), &context, last)
}

/// One line per pool: `vip:port/protocol app = backends`, each with weight and reason.
fn lines(snapshot: &Snapshot) -> Vec<String> {
    snapshot.pools.iter().map(line).collect()
}

fn line(pool: &Pool) -> String {
    let host = match &pool.host {
        VipHost::Named { name, framework } => format!("{name}.{framework}"),
        VipHost::Addr(addr) => format!("[{addr}]"),
    };
    let backends = pool.backends.iter().map(|backend| {
        let why = backend
            .draining
            .map(|why| format!(" ({why})"))
            .unwrap_or_default();
        format!("{} w{}{why}", backend.addr, backend.weight)
    });
    let backends = backends.collect::<Vec<_>>().join(", ");
    format!(
        "{host}:{}/{} {} = {backends}",
        pool.port, pool.protocol, pool.app
    )
}

fn reasons(snapshot: &Snapshot) -> Vec<String> {
    let problems = snapshot.problems.iter();
    problems
        .map(|problem| format!("{}: {}", problem.subject, problem.reason))
        .collect()
}

/// A running task on 10.0.0.1.
fn task(id: &str, ports: &[u16]) -> Value {
    json!({ "id": id, "host": "10.0.0.1", "state": "TASK_RUNNING", "ports": ports })
}

/// A host-mode app with one VIP, one task and 10.0.0.1:`port` behind it.
fn simple_app(id: &str, port: u16) -> Value {
    json!({
        "id": id,
        "networks": [{"mode": "host"}],
        "portDefinitions": [{"port": 0, "labels": {"VIP_0": format!("{id}:80")}}],
        "tasks": [task(&format!("task{}", id.replace('/', "_")), &[port])]
    })
}
