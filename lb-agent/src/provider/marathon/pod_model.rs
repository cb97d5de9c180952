//! The shapes of `/v2/pods/::status` and of a pod's spec.

use std::{net::IpAddr, sync::Arc};

use serde::Deserialize;
use serde_json::Value;

use super::{label::Labels, model::lenient};

/// A pod and its readable instances.
#[derive(Debug)]
pub(super) struct Pod {
    /// `/pod-web`.
    pub(super) id: String,
    /// The latest spec.
    pub(super) spec: PodSpec,
    /// Readable instances.
    pub(super) instances: Vec<PodInstance>,
}

/// A pod status object, its instances still unread.
#[derive(Debug, Deserialize)]
pub(super) struct PodState {
    /// The latest spec.
    #[serde(default)]
    pub(super) spec: Value,
    /// Instance objects, read one by one.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) instances: Vec<Value>,
}

/// What a version of a pod declares.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct PodSpec {
    /// Its containers.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) containers: Vec<PodContainer>,
    /// Which version this is.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) version: Option<String>,
}

/// A container of a spec.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct PodContainer {
    /// Names it inside the pod.
    pub(super) name: String,
    /// Its ports.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) endpoints: Vec<PodEndpoint>,
}

/// An endpoint of a spec.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodEndpoint {
    /// Names it inside the container.
    pub(super) name: String,
    /// Absent with host networking.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) container_port: Option<u16>,
    /// Present, 0 included: reached at the agent.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) host_port: Option<u16>,
    /// One service per entry; none, no service.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) protocol: Vec<String>,
    /// VIP labels.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) labels: Labels,
    /// Limits the networks whose addresses are used.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) network_names: Vec<String>,
}

/// A running instance of a pod.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodInstance {
    /// Never parsed.
    pub(super) id: String,
    /// Address or name.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) agent_hostname: Option<String>,
    /// The zone of its agent's fault domain, where agents have one.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) agent_zone: Option<Arc<str>>,
    /// Networks with addresses.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) networks: Vec<PodNetwork>,
    /// Path of the spec it runs: `/v2/pods/pod-web::versions/2024-...`.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) spec_reference: Option<String>,
    /// State of its containers.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) containers: Vec<ContainerStatus>,
}

/// A network of an instance.
#[derive(Debug, Deserialize)]
pub(super) struct PodNetwork {
    /// Absent for a default network.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) name: Option<String>,
    /// The instance's addresses there.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) addresses: Vec<IpAddr>,
}

/// The state of one container of an instance.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ContainerStatus {
    /// As in the spec.
    pub(super) name: String,
    /// The task id, never parsed.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) container_id: Option<String>,
    /// A `TASK_*` state.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) status: Option<String>,
    /// In any order.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) endpoints: Vec<EndpointStatus>,
    /// `healthy` among them when a check is defined.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) conditions: Vec<Condition>,
}

/// An endpoint of a running container.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndpointStatus {
    /// As in the spec.
    pub(super) name: String,
    /// Where it listens on the agent.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) allocated_host_port: Option<u16>,
}

/// A named condition of a container.
#[derive(Debug, Deserialize)]
pub(super) struct Condition {
    /// `healthy` or another.
    pub(super) name: String,
    /// `"true"` or `"false"`, as text.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) value: Option<String>,
    /// `health-unreported-by-mesos`: no result yet.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) reason: Option<String>,
}
