//! Port objects of an app, and which of a task's addresses and ports belongs to which of them.

use serde_json::Value;

use crate::catalog::Protocol;

use super::{
    label::Labels,
    model::{Definition, DiscoveryPort, PortDefinition, PortMapping},
};

/// How the app is on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// The agent's own network.
    Host,
    /// Private addresses behind the agent.
    Bridge,
    /// An address per task.
    Container,
}

/// One port that an app declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PortObject<'a> {
    /// Where it is reached.
    pub(super) at: At,
    /// As written; absent is tcp.
    pub(super) protocol: Option<&'a str>,
    /// Its labels.
    pub(super) labels: Option<&'a Labels>,
    /// Its service port; such ports are counted by the labels of Marathon-LB, others are skipped.
    pub(super) service_port: Option<u32>,
}

/// Where a port object is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// At the agent, on the next of the task's allocated host ports.
    Agent,
    /// At each of the task's own addresses, on this port; 0: nowhere.
    Task(u16),
}

/// Where one task answers for one port object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// `agent:port`.
    Agent(u16),
    /// `task address:port`, for every address.
    Task(u16),
    /// Nowhere: no port left, or port 0.
    Nowhere,
}

/// The mode of a definition of any generation.
///
/// # Errors
/// A mode that does not exist.
pub(super) fn mode(definition: &Definition) -> Result<Mode, String> {
    if let Some(network) = definition.networks.first() {
        return match network.mode.as_deref() {
            Some("host") => Ok(Mode::Host),
            Some("container/bridge") => Ok(Mode::Bridge),
            Some("container") | None => Ok(Mode::Container),
            Some(other) => Err(format!("network mode {other:?} is not known")),
        };
    }
    let docker = definition
        .container
        .as_ref()
        .and_then(|c| c.docker.as_ref());
    Ok(match docker.and_then(|d| d.network.as_deref()) {
        Some("USER") => Mode::Container,
        Some("BRIDGE") => Mode::Bridge,
        _ if definition.ip_address.is_some() => Mode::Container,
        _ => Mode::Host,
    })
}

/// The port objects of a definition, in declaration order.
///
/// # Errors
/// As [`mode`].
pub(super) fn port_objects(definition: &Definition) -> Result<Vec<PortObject<'_>>, String> {
    Ok(match mode(definition)? {
        Mode::Host if definition.port_definitions.is_empty() => {
            let port = |port: &Value| PortObject {
                service_port: port.as_u64().and_then(|port| port.try_into().ok()),
                ..PortObject::BARE
            };
            definition.ports.iter().map(port).collect()
        }
        Mode::Host => definition
            .port_definitions
            .iter()
            .map(PortObject::from)
            .collect(),
        // A mapping without hostPort counts as hostPort 0 here, so every one has a host port.
        Mode::Bridge => match mappings(definition) {
            [] => vec![PortObject::BARE],
            some => some
                .iter()
                .map(|m| PortObject {
                    at: At::Agent,
                    ..m.into()
                })
                .collect(),
        },
        Mode::Container => match mappings(definition) {
            [] => discovery_ports(definition)
                .iter()
                .map(PortObject::from)
                .collect(),
            some => some.iter().map(PortObject::from).collect(),
        },
    })
}

fn mappings(definition: &Definition) -> &[PortMapping] {
    let Some(container) = &definition.container else {
        return &[];
    };
    match (&container.port_mappings[..], &container.docker) {
        ([], Some(docker)) => &docker.port_mappings,
        (mappings, _) => mappings,
    }
}

fn discovery_ports(definition: &Definition) -> &[DiscoveryPort] {
    let discovery = definition
        .ip_address
        .as_ref()
        .and_then(|ip| ip.discovery.as_ref());
    discovery.map_or(&[], |d| &d.ports)
}

/// Pairs port objects with a task's allocated ports, which skip objects without a host port.
/// The second value says what did not come out even.
pub(super) fn align(objects: &[PortObject<'_>], ports: &[u16]) -> (Vec<Reached>, Option<String>) {
    let mut left = ports.iter();
    let mut missing = 0_usize;
    let reached = objects.iter().map(|object| match object.at {
        At::Task(0) => Reached::Nowhere,
        At::Task(port) => Reached::Task(port),
        At::Agent => match left.next() {
            Some(0) => Reached::Nowhere,
            Some(&port) => Reached::Agent(port),
            None => {
                missing += 1;
                Reached::Nowhere
            }
        },
    });
    let reached = reached.collect();
    let uneven = match (missing, left.len()) {
        (0, 0) => None,
        (0, over) => Some(format!(
            "its task has {over} host ports that no port object declares"
        )),
        (missing, _) => Some(format!(
            "its task lacks host ports for {missing} port objects"
        )),
    };
    (reached, uneven)
}

/// The protocols of a port object: `tcp`, `udp`, `udp,tcp`, in any letter case.
pub(super) fn protocols<'a>(
    written: impl IntoIterator<Item = &'a str>,
    problems: &mut Vec<String>,
) -> Vec<Protocol> {
    let mut protocols = Vec::new();
    for name in written.into_iter().flat_map(|list| list.split(',')) {
        let protocol = match name.trim().to_ascii_lowercase().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => {
                problems.push(format!("protocol {name:?} is neither tcp nor udp; ignored"));
                continue;
            }
        };
        if !protocols.contains(&protocol) {
            protocols.push(protocol);
        }
    }
    protocols
}

// === impl PortObject ===

impl PortObject<'_> {
    /// A host port without labels: an entry of `ports`, or Marathon's default mapping.
    const BARE: Self = Self {
        at: At::Agent,
        protocol: None,
        labels: None,
        service_port: None,
    };

    /// Absent is tcp.
    pub(super) fn protocols(&self, problems: &mut Vec<String>) -> Vec<Protocol> {
        protocols([self.protocol.unwrap_or("tcp")], problems)
    }
}

impl<'a> From<&'a PortDefinition> for PortObject<'a> {
    fn from(port: &'a PortDefinition) -> Self {
        Self {
            at: At::Agent,
            protocol: port.protocol.as_deref(),
            labels: Some(&port.labels),
            service_port: port.port,
        }
    }
}

impl<'a> From<&'a PortMapping> for PortObject<'a> {
    fn from(port: &'a PortMapping) -> Self {
        let at = match port.host_port {
            Some(_) => At::Agent,
            None => At::Task(port.container_port),
        };
        Self {
            at,
            protocol: port.protocol.as_deref(),
            labels: Some(&port.labels),
            service_port: port.service_port,
        }
    }
}

impl<'a> From<&'a DiscoveryPort> for PortObject<'a> {
    fn from(port: &'a DiscoveryPort) -> Self {
        let at = At::Task(port.number);
        Self {
            at,
            protocol: port.protocol.as_deref(),
            labels: Some(&port.labels),
            service_port: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition(value: Value) -> Definition {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_mode_is_found_in_every_generation() {
        let docker = |network: &str| json!({"container": {"docker": {"network": network}}});
        let ip = json!({"ipAddress": {"groups": ["x"]}});
        for (value, expected) in [
            (json!({}), Mode::Host),
            (
                json!({"networks": [], "ipAddress": null, "container": {}}),
                Mode::Host,
            ),
            (json!({"networks": [{"mode": "host"}]}), Mode::Host),
            (
                json!({"networks": [{"mode": "container/bridge"}]}),
                Mode::Bridge,
            ),
            (
                json!({"networks": [{"mode": "container", "name": "dcos"}]}),
                Mode::Container,
            ),
            (json!({"networks": [{"name": "dcos"}]}), Mode::Container),
            (docker("USER"), Mode::Container),
            (docker("BRIDGE"), Mode::Bridge),
            (docker("HOST"), Mode::Host),
            (docker("NONE"), Mode::Host),
            (ip, Mode::Container),
            (
                json!({"networks": [{"mode": "host"}], "ipAddress": {"groups": ["x"]}}),
                Mode::Host,
            ),
        ] {
            assert_eq!(mode(&definition(value.clone())), Ok(expected), "{value}");
        }
        assert!(mode(&definition(json!({"networks": [{"mode": "magic"}]}))).is_err());
    }

    #[test]
    fn ports_skip_objects_without_a_host_port() {
        let definition = definition(json!({
            "networks": [{"mode": "container"}],
            "container": {"portMappings": [
                {"containerPort": 80}, {"containerPort": 0, "hostPort": 0},
                {"containerPort": 0}, {"containerPort": 90, "hostPort": 31000}
            ]}
        }));
        let objects = port_objects(&definition).unwrap();
        let (reached, uneven) = align(&objects, &[31100, 31000]);
        use Reached::{Agent, Nowhere, Task};
        assert_eq!(reached, [Task(80), Agent(31100), Nowhere, Agent(31000)]);
        assert_eq!(uneven, None);
    }

    #[test]
    fn a_list_that_does_not_come_out_even_keeps_the_pairs_found() {
        let three = [PortObject::BARE, PortObject::BARE, PortObject::BARE];
        let (reached, uneven) = align(&three, &[1, 2]);
        assert_eq!(
            reached,
            [Reached::Agent(1), Reached::Agent(2), Reached::Nowhere]
        );
        assert_eq!(
            uneven.unwrap(),
            "its task lacks host ports for 1 port objects"
        );
        let (reached, uneven) = align(&three[..1], &[1, 2]);
        assert_eq!(reached, [Reached::Agent(1)]);
        assert!(uneven.unwrap().contains("1 host ports that no"));
    }

    #[test]
    fn bridge_ignores_port_definitions_and_counts_a_missing_host_port_as_zero() {
        let definition = definition(json!({
            "container": {"docker": {"network": "BRIDGE", "portMappings": [{"containerPort": 80}]}},
            "portDefinitions": [{"port": 10000, "labels": {"VIP_0": "/no:1"}}, {"port": 10001}]
        }));
        let objects = port_objects(&definition).unwrap();
        assert_eq!(objects.len(), 1);
        assert_eq!(objects[0].at, At::Agent);
        assert!(objects[0].labels.unwrap().is_empty());
    }

    #[test]
    fn protocols_are_lower_cased_and_split() {
        let mut problems = Vec::new();
        assert_eq!(
            protocols(["UDP,tcp"], &mut problems),
            [Protocol::Udp, Protocol::Tcp]
        );
        assert_eq!(protocols(["tcp", "tcp"], &mut problems), [Protocol::Tcp]);
        assert_eq!(problems, [""; 0]);
        assert_eq!(protocols(["http", "udp"], &mut problems), [Protocol::Udp]);
        assert_eq!(problems.len(), 1);
    }
}
