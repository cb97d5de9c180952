//! What an engine answers about itself and its Swarm, as far as we care. Go writes an empty list or map as `null`, or not
//! at all.

use std::collections::HashMap;

use serde::Deserialize;

/// `/version`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Versions {
    /// The newest version of its API.
    pub(super) api_version: String,
    /// The oldest that it still speaks.
    #[serde(rename = "MinAPIVersion")]
    pub(super) min_api_version: Option<String>,
}

/// `/info`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Info {
    pub(super) swarm: Option<SwarmInfo>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct SwarmInfo {
    #[serde(rename = "NodeID")]
    pub(super) node_id: String,
    /// `active`: it is in a Swarm.
    pub(super) local_node_state: String,
    /// Whether it is a manager.
    pub(super) control_available: bool,
}

/// What comes with a status that is none of success.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Message {
    pub(super) message: String,
}

/// One of `/services`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Service {
    #[serde(rename = "ID")]
    pub(super) id: String,
    #[serde(default)]
    pub(super) updated_at: String,
    pub(super) spec: ServiceSpec,
    pub(super) endpoint: Option<Ports>,
    pub(super) update_status: Option<UpdateStatus>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ServiceSpec {
    pub(super) name: String,
    pub(super) labels: Option<HashMap<String, String>>,
    #[serde(default)]
    pub(super) task_template: TaskSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct UpdateStatus {
    pub(super) state: Option<String>,
}

/// Published ports.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Ports {
    pub(super) ports: Option<Vec<Published>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Published {
    pub(super) protocol: String,
    pub(super) target_port: u16,
    pub(super) published_port: u16,
    /// `host`: at the task's node; `ingress`: at every node, to any task.
    pub(super) publish_mode: String,
}

/// One of `/nodes`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Node {
    #[serde(rename = "ID")]
    pub(super) id: String,
    #[serde(default)]
    pub(super) spec: NodeSpec,
    #[serde(default)]
    pub(super) description: Description,
    #[serde(default)]
    pub(super) status: NodeStatus,
    pub(super) manager_status: Option<NodeStatus>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct NodeSpec {
    pub(super) labels: Option<HashMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Description {
    pub(super) hostname: String,
}

/// Of a node, or of the manager on it, whose address has a port.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct NodeStatus {
    pub(super) state: String,
    pub(super) addr: String,
}

/// One of `/tasks`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Task {
    #[serde(rename = "ID")]
    pub(super) id: String,
    #[serde(rename = "ServiceID", default)]
    pub(super) service: String,
    #[serde(rename = "NodeID", default)]
    pub(super) node: String,
    pub(super) slot: Option<u64>,
    #[serde(default)]
    pub(super) created_at: String,
    pub(super) desired_state: String,
    pub(super) status: TaskStatus,
    #[serde(default)]
    pub(super) spec: TaskSpec,
    pub(super) networks_attachments: Option<Vec<Attachment>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct TaskStatus {
    pub(super) state: String,
    pub(super) port_status: Option<Ports>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct TaskSpec {
    pub(super) container_spec: ContainerSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct ContainerSpec {
    pub(super) labels: Option<HashMap<String, String>>,
    pub(super) env: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Attachment {
    pub(super) network: AttachedNetwork,
    /// `10.0.1.3/24`.
    pub(super) addresses: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct AttachedNetwork {
    pub(super) spec: NetworkSpec,
    pub(super) driver_state: Driver,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct NetworkSpec {
    pub(super) name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Driver {
    pub(super) name: String,
}
