//! A container as far as we care, and how the engine's answer is read.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, EndpointSettings, HealthStatusEnum,
    PortBinding, PortMap,
};

use super::{compat, labels::concerns_us, signal, swarm::Reach};
use crate::catalog::{Port, Protocol};

/// A container's port.
pub(super) type Target = (Port, Protocol);

/// One container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::provider) struct Container {
    /// The full id.
    pub(super) id: Arc<str>,
    /// Its name, without the slash.
    pub(super) name: Arc<str>,
    /// Those of its labels that concern us.
    pub(super) labels: BTreeMap<String, String>,
    /// Of its environment only what [`compat`] reads: the rest is none of our business.
    pub(super) env: BTreeMap<String, String>,
    /// What its image and its creator say that it listens on.
    pub(super) exposed: BTreeSet<Target>,
    /// Whether it runs.
    pub(super) phase: Phase,
    /// What its own check says; `None`: it has none.
    pub(super) health: Option<Health>,
    /// Where it is reached.
    pub(super) network: Network,
    /// Its ports at its node, with the addresses there.
    pub(super) published: BTreeMap<Target, Vec<SocketAddr>>,
    /// The signal that stops it.
    pub(super) stop_signal: u8,
    /// When it was started last (RFC 3339).
    pub(super) started: String,
}

/// Whether a container runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not yet, or not any more.
    Absent,
    /// It runs.
    Running,
    /// It is frozen.
    Paused,
}

/// What a container's own check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// Nothing yet.
    Starting,
    /// It works.
    Healthy,
    /// It does not.
    Unhealthy,
}

/// How a container is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Network {
    /// To networks, by name.
    Own(BTreeMap<String, Vec<IpAddr>>),
    /// It shares the node's.
    Host,
    /// It shares that of another container, by name or id.
    Of(String),
    /// As a task of a Swarm that is reached by its node, or over a network of the Swarm.
    Elsewhere(Reach),
}

// === impl Container ===

impl Container {
    /// One of which only the labels are known, as those of an ECS service.
    #[cfg(feature = "ecs")]
    pub(in crate::provider) fn of_labels(labels: BTreeMap<String, String>) -> Self {
        Self {
            id: "".into(),
            name: "".into(),
            labels,
            env: BTreeMap::new(),
            exposed: BTreeSet::new(),
            phase: Phase::Absent,
            health: None,
            network: Network::Own(BTreeMap::new()),
            published: BTreeMap::new(),
            stop_signal: signal::TERM,
            started: String::new(),
        }
    }

    /// Reads the answer to an inspection.
    ///
    /// # Errors
    /// What is missing.
    pub(super) fn read(answer: ContainerInspectResponse) -> Result<Self, String> {
        let id = answer.id.ok_or("it has no id")?;
        let name = answer.name.ok_or("it has no name")?;
        let config = answer.config.unwrap_or_default();
        let state = answer.state.unwrap_or_default();
        let health = state.health.and_then(|health| health.status);
        let mode = answer.host_config.and_then(|host| host.network_mode);
        let (networks, ports) = answer
            .network_settings
            .map_or((None, None), |net| (net.networks, net.ports));
        let stop_signal = config
            .stop_signal
            .as_deref()
            .filter(|name| !name.is_empty());
        Ok(Self {
            id: id.into(),
            name: name.trim_start_matches('/').into(),
            labels: labels(config.labels.unwrap_or_default()),
            env: compat::keep(&config.env.unwrap_or_default()),
            exposed: config
                .exposed_ports
                .unwrap_or_default()
                .iter()
                .filter_map(|port| target(port))
                .collect(),
            phase: phase(state.status),
            health: match health {
                Some(HealthStatusEnum::STARTING) => Some(Health::Starting),
                Some(HealthStatusEnum::HEALTHY) => Some(Health::Healthy),
                Some(HealthStatusEnum::UNHEALTHY) => Some(Health::Unhealthy),
                Some(HealthStatusEnum::NONE | HealthStatusEnum::EMPTY) | None => None,
            },
            network: network(mode.as_deref().unwrap_or_default(), networks),
            published: published(ports.unwrap_or_default()),
            stop_signal: stop_signal
                .map_or(Some(signal::TERM), signal::number)
                .unwrap_or(signal::TERM),
            started: state.started_at.unwrap_or_default(),
        })
    }

    /// A label's value without blanks around it.
    pub(super) fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name).map(|value| value.trim())
    }
}

/// `80/tcp`, `53/udp`, `80`.
pub(super) fn target(text: &str) -> Option<Target> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    };
    Some((Port::new(port.parse().ok()?)?, protocol))
}

/// What cannot be read is not there: a container may be reached otherwise.
fn published(ports: PortMap) -> BTreeMap<Target, Vec<SocketAddr>> {
    let place = |bound: PortBinding| {
        let addr = match bound.host_ip.unwrap_or_default().as_str() {
            "" => Ipv4Addr::UNSPECIFIED.into(),
            text => text.parse().ok()?,
        };
        let port = Port::new(bound.host_port?.parse().ok()?)?;
        Some(SocketAddr::new(addr, port.get()))
    };
    let ports = ports.into_iter().filter_map(|(port, bound)| {
        let places = bound.unwrap_or_default().into_iter();
        Some((target(&port)?, places.filter_map(place).collect()))
    });
    ports.collect()
}

fn labels(all: HashMap<String, String>) -> BTreeMap<String, String> {
    let ours = |(name, _): &(String, String)| concerns_us(name);
    all.into_iter().filter(ours).collect()
}

fn phase(status: Option<ContainerStateStatusEnum>) -> Phase {
    match status {
        Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::STOPPING) => {
            Phase::Running
        }
        Some(ContainerStateStatusEnum::PAUSED) => Phase::Paused,
        _ => Phase::Absent,
    }
}

fn network(mode: &str, networks: Option<HashMap<String, EndpointSettings>>) -> Network {
    if mode == "host" {
        return Network::Host;
    }
    if let Some(other) = mode.strip_prefix("container:") {
        return Network::Of(other.to_owned());
    }
    let addresses = |net: EndpointSettings| {
        let v4 = net
            .ip_address
            .and_then(|text| text.parse::<Ipv4Addr>().ok());
        let v6 = net
            .global_ipv6_address
            .and_then(|text| text.parse::<Ipv6Addr>().ok());
        v4.map(IpAddr::from)
            .into_iter()
            .chain(v6.map(IpAddr::from))
            .collect()
    };
    let networks = networks.unwrap_or_default().into_iter();
    Network::Own(networks.map(|(name, net)| (name, addresses(net))).collect())
}
