//! Clusters made of the model's own parts.

mod addresses;
mod drains;
mod fake;
mod hearing;
mod manners;
mod names;
mod outages;
mod reading;
mod shares;
mod telling;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::{EcsConfig, build::build, model::*};
use crate::{
    catalog::{Port, Protocol},
    provider::{Pool, Snapshot, VipHost},
};

const CLUSTER: &str = "hello-world-cluster";
const SERVICE: &str = "hello-world-test";
const ELB: &str = "hello-world-elb";
const HOST: &str = "arn:aws:ecs:us-east-1:123456789012:container-instance/hello-world-cluster/1";
const DEFINITION: &str = "arn:aws:ecs:us-east-1:123456789012:task-definition/hello-world:1";

fn port(number: u16) -> Port {
    Port::new(number).unwrap()
}

fn arn(task: &str) -> Arc<str> {
    format!("arn:aws:ecs:us-east-1:123456789012:task/{CLUSTER}/{task}").into()
}

fn classic(entries: &[(u16, u16, &str)]) -> Asked<Classic> {
    let listener = |&(port_, instance_port, protocol): &(u16, u16, &str)| ClassicListener {
        port: port(port_),
        instance_port,
        protocol: protocol.to_owned(),
    };
    Asked::Is(Classic {
        listeners: entries.iter().map(listener).collect(),
        ..Classic::default()
    })
}

fn group_arn(name: &str) -> Arc<str> {
    format!(
        "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/{name}/0123456789abcdef"
    )
    .into()
}

fn group(name: &str, listeners: &[(&str, u16, &str, Option<u32>)]) -> Group {
    let listener =
        |&(balancer, port_, protocol, share): &(&str, u16, &str, Option<u32>)| Listener {
            balancer: balancer.to_owned(),
            dns_name: format!("{balancer}-1.elb.us-east-1.amazonaws.com"),
            port: port(port_),
            protocol: protocol.to_owned(),
            share,
        };
    Group {
        name: name.to_owned(),
        protocol: "TCP".to_owned(),
        listeners: listeners.iter().map(listener).collect(),
        ..Group::default()
    }
}

fn entry(front: Front, container: &str, number: u16) -> Entry {
    Entry {
        front,
        container: container.into(),
        port: port(number),
    }
}

/// A running task of the tutorial's service with nothing bound.
fn task(service: &str) -> Task {
    Task {
        service: Some(service.into()),
        started_by: "ecs-svc/1".into(),
        definition: DEFINITION.into(),
        instance: Some(HOST.into()),
        last: Last::Running,
        stopping: false,
        health: Health::Unknown,
        zone: None,
        addresses: [].into(),
        containers: BTreeMap::from([("hello-world".into(), Container::default())]),
    }
}

/// The same with port 80 bound to one of the host.
fn bridge(service: &str, host_port: u16) -> Task {
    let mut task = task(service);
    bind(&mut task, "hello-world", 80, host_port, Protocol::Tcp);
    task
}

fn bind(task: &mut Task, container: &str, inside: u16, outside: u16, protocol: Protocol) {
    let container = task.containers.entry(container.into()).or_default();
    container.bindings.insert(Binding {
        container: port(inside),
        host: port(outside),
        protocol,
    });
}

/// deployfish's tutorial: one service behind a classic load balancer, without a task.
fn tutorial() -> Known {
    let mut known = Known::default();
    let service = Service {
        entries: vec![entry(Front::Classic(ELB.into()), "hello-world", 80)],
        definition: DEFINITION.into(),
        ..Service::default()
    };
    known.services.insert(SERVICE.into(), service);
    let container = Defined {
        ports: [(port(80), None, Protocol::Tcp)].into(),
        ..Defined::default()
    };
    let definition = Definition {
        containers: [("hello-world".into(), container)].into(),
        ..Definition::default()
    };
    known.definitions.insert(DEFINITION.into(), definition);
    let host: IpAddr = "10.77.0.11".parse().unwrap();
    known.hosts.insert(HOST.into(), Asked::Is(vec![host]));
    known
        .classics
        .insert(ELB.into(), classic(&[(80, 80, "TCP")]));
    known
}

fn built(known: &Known) -> Snapshot {
    build(known, &EcsConfig::new(CLUSTER))
}

/// `name:port/protocol` of a pool.
fn called(pool: &Pool) -> String {
    let host = match &pool.host {
        VipHost::Named { name, framework } => format!("{name}.{framework}"),
        VipHost::Addr(addr) => addr.to_string(),
    };
    format!("{host}:{}/{}", pool.port, pool.protocol)
}

fn names(snapshot: &Snapshot) -> Vec<String> {
    snapshot.pools.iter().map(called).collect()
}

/// `address=weight`, and why it takes no flows.
fn behind(snapshot: &Snapshot, name: &str) -> Vec<String> {
    let pools = snapshot.pools.iter().filter(|pool| called(pool) == name);
    let mut all: Vec<String> = pools
        .flat_map(|pool| &pool.backends)
        .map(|backend| match &backend.draining {
            None => format!("{}={}", backend.addr, backend.weight),
            Some(why) => format!("{}={} {why}", backend.addr, backend.weight),
        })
        .collect();
    all.sort();
    all
}

fn reasons(snapshot: &Snapshot) -> Vec<&str> {
    let problems = snapshot.problems.iter();
    problems.map(|problem| problem.reason.as_str()).collect()
}

/// The only reason there is.
fn only_reason(snapshot: &Snapshot) -> &str {
    let reasons = reasons(snapshot);
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    reasons[0]
}

const VIP: &str = "hello-world-elb.ecs:80/tcp";
const OWN: &str = "hello-world-test.hello-world-cluster.ecs:80/tcp";
