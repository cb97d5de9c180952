//! ECS's answers into the model. What lacks what it must have is left out as if it were not there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use aws_sdk_ecs::types;

use crate::{
    catalog::{Port, Protocol},
    provider::ecs::{
        api::{Described, Failure, Page},
        model::{
            Binding, Container, Defined, Definition, Entry, Front, Health, Last, Service, Task,
        },
    },
};

pub(super) fn page(arns: Option<Vec<String>>, next: Option<String>) -> Page {
    Page {
        arns: arns
            .unwrap_or_default()
            .into_iter()
            .map(Arc::from)
            .collect(),
        next: next.filter(|token| !token.is_empty()),
    }
}

/// What an answer says that there is not. Any other failure in it makes it an answer to nothing.
pub(super) fn missing(
    call: &str,
    failures: Option<Vec<types::Failure>>,
) -> Result<Vec<Arc<str>>, Failure> {
    let mut missing = Vec::new();
    for failure in failures.unwrap_or_default() {
        let arn: Arc<str> = failure.arn.unwrap_or_default().into();
        match failure.reason.as_deref() {
            Some("MISSING") => missing.push(arn),
            reason => {
                let reason = reason.unwrap_or("no reason given");
                return Err(Failure::passing(format!("{call}: {arn}: {reason}")));
            }
        }
    }
    Ok(missing)
}

pub(super) fn services(all: Vec<types::Service>, mut missing: Vec<Arc<str>>) -> Described<Service> {
    let mut found = Vec::new();
    for service in all {
        let Some(arn) = service.service_arn.clone() else {
            continue;
        };
        match service.status.as_deref() {
            Some("ACTIVE" | "DRAINING") => found.push((arn.into(), read_service(service))),
            _ => missing.push(arn.into()),
        }
    }
    Described { found, missing }
}

fn read_service(service: types::Service) -> Service {
    let controller = service
        .deployment_controller
        .map(|controller| controller.r#type);
    let by_set = matches!(
        controller,
        Some(
            types::DeploymentControllerType::CodeDeploy | types::DeploymentControllerType::External
        )
    );
    let sets = service.task_sets.unwrap_or_default().into_iter();
    let sets = sets.filter_map(|set| Some((set.id?.into(), entries(set.load_balancers))));
    let tags = service.tags.unwrap_or_default().into_iter();
    Service {
        sets: by_set.then(|| sets.collect()),
        entries: entries(service.load_balancers),
        tags: tags
            .filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default())))
            .filter(|(key, _)| key.starts_with("lb."))
            .collect(),
        definition: service.task_definition.unwrap_or_default().into(),
        grace: service
            .health_check_grace_period_seconds
            .map_or(0, |seconds| seconds.try_into().unwrap_or(0)),
    }
}

fn entries(all: Option<Vec<types::LoadBalancer>>) -> Vec<Entry> {
    let read = |entry: types::LoadBalancer| {
        let text = |text: Option<String>| text.filter(|text| !text.is_empty()).map(Arc::from);
        let group = text(entry.target_group_arn).map(Front::Group);
        Some(Entry {
            front: group.or_else(|| text(entry.load_balancer_name).map(Front::Classic))?,
            container: text(entry.container_name)?,
            port: port(entry.container_port)?,
        })
    };
    all.unwrap_or_default()
        .into_iter()
        .filter_map(read)
        .collect()
}

pub(super) fn tasks(all: Vec<types::Task>) -> Vec<(Arc<str>, Task)> {
    let read = |task: types::Task| Some((task.task_arn.clone()?.into(), read_task(task)));
    all.into_iter().filter_map(read).collect()
}

fn read_task(task: types::Task) -> Task {
    let service = task.group.as_deref();
    let service = service.and_then(|group| group.strip_prefix("service:"));
    let text = |text: Option<String>| Arc::<str>::from(text.unwrap_or_default());
    let attachments = task.attachments.unwrap_or_default().into_iter();
    let own = attachments
        .filter(|attachment| attachment.r#type.as_deref() == Some("ElasticNetworkInterface"))
        .flat_map(|attachment| attachment.details.unwrap_or_default())
        .filter(|detail| {
            matches!(
                detail.name.as_deref(),
                Some("privateIPv4Address" | "ipv6Address" | "privateIPv6Address")
            )
        })
        .filter_map(|detail| address(detail.value.as_deref()));
    let containers = task.containers.unwrap_or_default().into_iter();
    Task {
        service: service.map(Arc::from),
        addresses: own.collect(),
        containers: containers
            .filter_map(|mut container| {
                Some((container.name.take()?.into(), read_container(container)))
            })
            .collect(),
        zone: task.availability_zone.map(Arc::from),
        started_by: text(task.started_by),
        definition: text(task.task_definition_arn),
        instance: task.container_instance_arn.map(Arc::from),
        last: Last::read(task.last_status.as_deref().unwrap_or_default()),
        stopping: task.desired_status.as_deref() == Some("STOPPED"),
        health: match task.health_status {
            Some(types::HealthStatus::Healthy) => Health::Healthy,
            Some(types::HealthStatus::Unhealthy) => Health::Unhealthy,
            _ => Health::Unknown,
        },
    }
}

fn read_container(container: types::Container) -> Container {
    let bindings = container.network_bindings.unwrap_or_default().into_iter();
    let interfaces = container.network_interfaces.unwrap_or_default();
    let addresses = |of: &types::NetworkInterface| -> BTreeSet<IpAddr> {
        let texts = [&of.private_ipv4_address, &of.ipv6_address];
        texts
            .into_iter()
            .filter_map(|text| address(text.as_deref()))
            .collect()
    };
    Container {
        bindings: bindings
            .filter_map(|binding| {
                Some(Binding {
                    container: port(binding.container_port)?,
                    host: port(binding.host_port)?,
                    protocol: protocol(binding.protocol),
                })
            })
            .collect(),
        addresses: interfaces.iter().flat_map(addresses).collect(),
    }
}

pub(super) fn instances(all: Vec<types::ContainerInstance>) -> Vec<(Arc<str>, String)> {
    let read = |instance: types::ContainerInstance| {
        Some((
            instance.container_instance_arn?.into(),
            instance.ec2_instance_id?,
        ))
    };
    all.into_iter().filter_map(read).collect()
}

pub(super) fn definition(definition: types::TaskDefinition) -> Definition {
    let containers = definition.container_definitions.unwrap_or_default();
    let defined = |container: types::ContainerDefinition| {
        let ports = container.port_mappings.unwrap_or_default().into_iter();
        let labels: BTreeMap<_, _> = container
            .docker_labels
            .unwrap_or_default()
            .into_iter()
            .collect();
        let defined = Defined {
            ports: ports
                .filter_map(|mapping| {
                    let inside = port(mapping.container_port)?;
                    Some((inside, port(mapping.host_port), protocol(mapping.protocol)))
                })
                .collect(),
            checked: container.health_check.is_some(),
            labels,
        };
        Some((Arc::<str>::from(container.name?), defined))
    };
    Definition {
        host_network: definition.network_mode == Some(types::NetworkMode::Host),
        containers: containers.into_iter().filter_map(defined).collect(),
    }
}

/// `None` for what no port can be, 0 included.
fn port(number: Option<i32>) -> Option<Port> {
    Port::new(number?.try_into().ok()?)
}

fn protocol(protocol: Option<types::TransportProtocol>) -> Protocol {
    match protocol {
        Some(types::TransportProtocol::Udp) => Protocol::Udp,
        _ => Protocol::Tcp,
    }
}

fn address(text: Option<&str>) -> Option<IpAddr> {
    text?.parse().ok()
}
