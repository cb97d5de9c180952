//! One pod -> its pools.

use std::{net::SocketAddr, sync::Arc};

use crate::provider::Backend;

use super::{
    agents,
    build::{Context, Own},
    label,
    pod_model::{ContainerStatus, Pod, PodContainer, PodEndpoint, PodInstance, PodSpec},
    ports,
    version::{self, Lookup},
    weight::{self, Health, Share},
};

/// `reason` of a `healthy` condition before the first result; its value is `"false"` then.
const UNREPORTED: &str = "health-unreported-by-mesos";

/// Adds what the pod declares and who is behind it.
///
/// # Errors
/// The spec that an instance runs could not be had: the pod is not usable this round.
pub(super) fn collect(pod: &Pod, context: &Context<'_>, own: &mut Own) -> Result<(), String> {
    declare(pod, context, own);
    for instance in &pod.instances {
        let older = version::of_instance(pod, instance);
        let older = older
            .as_ref()
            .map(|key| (key, context.versions.pods.get(key)));
        match older {
            None => join(pod, &pod.spec, instance, context, own),
            Some((_, Some(Lookup::Found(spec)))) => join(pod, spec, instance, context, own),
            Some((key, Some(Lookup::Gone))) => {
                own.problems.push(format!(
                    "version {} that an instance runs is gone; it is read as the current one",
                    key.version
                ));
                join(pod, &pod.spec, instance, context, own);
            }
            Some((key, Some(Lookup::Failed(why)))) => {
                let version = &key.version;
                return Err(format!(
                    "version {version} that an instance runs cannot be read: {why}"
                ));
            }
            // Only instances with an active container have their version read.
            Some((_, None)) => {}
        }
    }
    Ok(())
}

fn declare(pod: &Pod, context: &Context<'_>, own: &mut Own) {
    for endpoint in pod.spec.containers.iter().flat_map(|c| &c.endpoints) {
        if endpoint.host_port.is_none() && endpoint.container_port.unwrap_or(0) == 0 {
            continue;
        }
        let targets = label::of_port(&endpoint.labels, &mut own.problems);
        if targets.is_empty() {
            continue;
        }
        let protocols = ports::protocols(names(endpoint), &mut own.problems);
        for protocol in protocols {
            for target in &targets {
                own.pools.declare(context.key(&pod.id, target, protocol));
            }
        }
    }
}

fn names(endpoint: &PodEndpoint) -> impl Iterator<Item = &str> {
    endpoint.protocol.iter().map(String::as_str)
}

fn join(pod: &Pod, spec: &PodSpec, instance: &PodInstance, context: &Context<'_>, own: &mut Own) {
    for container in &spec.containers {
        let Some(status) = instance
            .containers
            .iter()
            .find(|c| c.name == container.name)
        else {
            continue;
        };
        let Some(share) = weight::share(status.status.as_deref(), health(status), true) else {
            continue;
        };
        join_container(pod, container, instance, status, share, context, own);
    }
}

fn join_container(
    pod: &Pod,
    container: &PodContainer,
    instance: &PodInstance,
    status: &ContainerStatus,
    (weight, draining): Share,
    context: &Context<'_>,
    own: &mut Own,
) {
    let task: Arc<str> = status.container_id.as_deref().map_or_else(
        || format!("{}.{}", instance.id, status.name).into(),
        Arc::from,
    );
    for endpoint in &container.endpoints {
        let targets = label::of_port(&endpoint.labels, &mut own.problems);
        if targets.is_empty() {
            continue;
        }
        let addrs = addresses(endpoint, instance, status, context, &mut own.problems);
        for protocol in ports::protocols(names(endpoint), &mut own.problems) {
            for target in &targets {
                for &addr in &addrs {
                    let backend = Backend {
                        addr,
                        weight,
                        max_flows: 0,
                        backup: false,
                        zone: instance.agent_zone.clone(),
                        task: Arc::clone(&task),
                        instance: None,
                        host: agents::host(instance.agent_hostname.as_deref(), addr.ip()),
                        healthy: matches!(health(status), Health::Healthy),
                        draining,
                    };
                    own.pools
                        .add(context.key(&pod.id, target, protocol), backend);
                }
            }
        }
    }
}

/// Where one endpoint of one instance is reached.
fn addresses(
    endpoint: &PodEndpoint,
    instance: &PodInstance,
    status: &ContainerStatus,
    context: &Context<'_>,
    problems: &mut Vec<String>,
) -> Vec<SocketAddr> {
    if endpoint.host_port.is_some() {
        let allocated = status.endpoints.iter().find(|e| e.name == endpoint.name);
        let Some(port @ 1..) = allocated.and_then(|e| e.allocated_host_port) else {
            return Vec::new();
        };
        let host = instance.agent_hostname.as_deref().unwrap_or_default();
        let Some(addr) = agents::address(host, context.agents) else {
            problems.push(format!("the address of agent {host:?} is not known"));
            return Vec::new();
        };
        return vec![SocketAddr::new(addr, port)];
    }
    let Some(port @ 1..) = endpoint.container_port else {
        return Vec::new();
    };
    let wanted = |name: Option<&str>| {
        let limits = &endpoint.network_names;
        limits.is_empty() || name.is_some_and(|name| limits.iter().any(|limit| limit == name))
    };
    let networks = instance
        .networks
        .iter()
        .filter(|n| wanted(n.name.as_deref()));
    let addrs = networks
        .flat_map(|n| &n.addresses)
        .map(|addr| SocketAddr::new(*addr, port));
    let addrs: Vec<_> = addrs.collect();
    if addrs.is_empty() {
        problems.push(format!(
            "instance {} has neither an address of its own nor a host port for endpoint {}",
            instance.id, endpoint.name
        ));
    }
    addrs
}

/// The health of a container applies to all its endpoints.
fn health(status: &ContainerStatus) -> Health {
    let Some(healthy) = status.conditions.iter().find(|c| c.name == "healthy") else {
        return Health::NoCheck;
    };
    match (healthy.value.as_deref(), healthy.reason.as_deref()) {
        (Some("true"), _) => Health::Healthy,
        (_, Some(UNREPORTED)) => Health::NoResult,
        _ => Health::Unhealthy,
    }
}
