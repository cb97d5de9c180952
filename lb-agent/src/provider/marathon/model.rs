//! The shapes of Marathon's JSON, of all three generations of app definitions.
//!
//! Only what names a VIP or a backend is read. For every optional field *absent*, `null`, `[]` and
//! `{}` mean the same, and unknown fields are ignored.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error as _};
use serde_json::Value;

use super::label::Labels;

/// The part of an app that can differ between its versions.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Definition {
    /// From 1.5 on.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) networks: Vec<Network>,
    /// From 0.16 on, host networking.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) port_definitions: Vec<PortDefinition>,
    /// Before 0.16: service ports.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) ports: Vec<Value>,
    /// Docker or Mesos container.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) container: Option<Container>,
    /// IP per task, up to 1.4.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) ip_address: Option<IpPerTask>,
    /// App-level labels.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) labels: Labels,
    /// Only whether there are any matters: their results are on the tasks.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) health_checks: Vec<Value>,
}

/// An entry of `networks`.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Network {
    /// `host`, `container/bridge` or `container` (also when absent).
    #[serde(default, deserialize_with = "lenient")]
    pub(super) mode: Option<String>,
}

/// An entry of `portDefinitions`.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct PortDefinition {
    /// The service port.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) port: Option<u32>,
    /// `tcp`, `udp` or `udp,tcp`.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) protocol: Option<String>,
    /// Labels of the port.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) labels: Labels,
}

/// `container`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Container {
    /// From 1.5 on.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) port_mappings: Vec<PortMapping>,
    /// `container.docker`.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) docker: Option<Docker>,
}

/// `container.docker`; its ports and network up to 1.4 only.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Docker {
    /// `HOST`, `BRIDGE`, `USER` or `NONE`.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) network: Option<String>,
    /// Mapped ports.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) port_mappings: Vec<PortMapping>,
}

/// An entry of `portMappings`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PortMapping {
    /// 0 = same as the host port.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) container_port: u16,
    /// 0 = any; absent = none (in bridge mode: any).
    #[serde(default, deserialize_with = "lenient")]
    pub(super) host_port: Option<u16>,
    /// The service port.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) service_port: Option<u32>,
    /// `tcp`, `udp` or `udp,tcp`.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) protocol: Option<String>,
    /// Labels of the port.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) labels: Labels,
}

/// `ipAddress`.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct IpPerTask {
    /// Its ports.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) discovery: Option<Discovery>,
}

/// `ipAddress.discovery`.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Discovery {
    /// Ports on the task's own address.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) ports: Vec<DiscoveryPort>,
}

/// An entry of `ipAddress.discovery.ports`.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct DiscoveryPort {
    /// Port on the task's own address.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) number: u16,
    /// `tcp` or `udp`.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) protocol: Option<String>,
    /// Labels of the port.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) labels: Labels,
}

/// The part of an app that is about now, not about a version.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AppState {
    /// How many tasks it is to have.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) instances: u64,
    /// `versionInfo`.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) version_info: VersionInfo,
    /// Present with the embed and while a deployment runs.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) readiness_check_results: Vec<Readiness>,
}

/// `versionInfo`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VersionInfo {
    /// When the definition last changed other than by scaling.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) last_config_change_at: Option<String>,
    /// When the number of instances last changed.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) last_scaling_at: Option<String>,
}

/// An entry of `readinessCheckResults`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Readiness {
    /// Which task.
    pub(super) task_id: String,
    /// Absent counts as ready: only `false` holds traffic back.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) ready: Option<bool>,
}

/// A task.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Task {
    /// Never parsed.
    pub(super) id: String,
    /// The agent, address or name.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) host: Option<String>,
    /// Absent = `TASK_STAGING`.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) state: Option<String>,
    /// Allocated host ports, in declaration order.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) ports: Vec<u16>,
    /// The task's own addresses.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) ip_addresses: Vec<IpAddress>,
    /// One entry per check that has a result; older releases have `null` for the others.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) health_check_results: Vec<Option<HealthResult>>,
    /// The definition it runs.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) version: Option<String>,
    /// The zone of its agent's fault domain, where agents have one; from 1.5 on.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) zone: Option<Arc<str>>,
}

/// An entry of `ipAddresses`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IpAddress {
    /// IPv4 or IPv6.
    pub(super) ip_address: std::net::IpAddr,
}

/// An entry of `healthCheckResults`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct HealthResult {
    /// There was a success and it is newer than the last failure.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) alive: bool,
}

/// Reads `null`, `[]` and `{}` as the default; all else as `T`.
pub(super) fn lenient<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + DeserializeOwned,
{
    let value = Value::deserialize(deserializer)?;
    let empty = match &value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    if empty {
        Ok(T::default())
    } else {
        T::deserialize(value).map_err(D::Error::custom)
    }
}
