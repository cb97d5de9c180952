//! Which backend a flow gets, and why: the body of `GET /v1/explain` and of `lb-agent explain --json`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{FlowReport, Way};
use crate::{admin::report::protocol, catalog::Protocol};

/// Which flow is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Who opens it.
    pub client: SocketAddr,
    /// What the client speaks to, of the same family.
    pub vip: SocketAddr,
    /// The client is a process of this node, which is connected without packets being rewritten.
    pub local: bool,
}

/// What becomes of a flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Explanation {
    /// `tcp` or `udp`.
    #[serde(with = "protocol")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub protocol: Protocol,
    /// Who opens it.
    pub client: SocketAddr,
    /// What the client speaks to.
    pub vip: SocketAddr,
    /// Asked for a process of this node.
    pub local: bool,
    /// Whether the address is one of ours.
    pub address: Whose,
    /// What stands at address and port.
    pub service: Option<ServiceView>,
    /// Whether the client may use it; `None`: it is not asked.
    pub source: Option<SourceView>,
    /// The flow that there is.
    pub flow: Option<FlowReport>,
    /// Why that flow does not go on.
    pub lost: Option<String>,
    /// What a new flow gets; `None`: there is a flow that goes on, or none is opened.
    pub choice: Option<Choice>,
    /// Why no flow is opened.
    pub refused: Option<Refusal>,
    /// Whoever stands in the service's table, most slots first.
    pub backends: Vec<Candidate>,
}

/// Whose an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Whose {
    /// A VIP: all for it is ours.
    Vip,
    /// The node's own: single ports may be ours.
    Node,
    /// Nothing for it is ours.
    Foreign,
}

/// A service as the kernel has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ServiceView {
    /// Canonical name without zone; `None`: an IP VIP.
    pub name: Option<String>,
    /// Its number in the kernel.
    pub id: u32,
    /// `maglev`, `least-conn`, `round-robin` or `source`.
    pub algorithm: String,
    /// `nat`, `dsr-geneve`, `dsr-ipip` or `dsr-l2`, which `auto` stands for here, too; backends of this node are reached by DNAT in any case.
    pub mode: String,
    /// Slots of its table; 0: no backend takes new flows.
    pub slots: u32,
    /// How long a client is given its backend again, s; 0: no affinity.
    pub affinity_s: u32,
    /// Flows at present.
    pub flows: u64,
    /// Flows at a time; 0: no limit.
    pub max_flows: u32,
    /// All its backends are down, so down counts as active.
    pub fail_open: bool,
}

/// What is said of a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SourceView {
    /// Whether it may open flows.
    pub allowed: bool,
    /// What says so.
    pub why: String,
}

/// A backend that is chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Choice {
    /// Where it listens.
    pub backend: SocketAddr,
    /// How it is reached; `None`: by the client's own connection to it.
    pub how: Option<Way>,
    /// What made it so.
    pub why: String,
    /// `false`: chance or other clients' flows have a say, so that the next flow may get another one.
    pub certain: bool,
    /// Its slot in the service's table; `None`: the table was not asked, or chance was.
    pub slot: Option<u32>,
    /// Backends whose slots were tried before.
    pub passed_over: Vec<Passed>,
}

/// A backend that takes no new flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Passed {
    /// Where it listens; `None`: its id is not in use.
    pub backend: Option<SocketAddr>,
    /// The slot that was tried.
    pub slot: u32,
    /// Why not.
    pub why: String,
}

/// A flow that is not opened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Refusal {
    /// The name of the reason, as in `status`.
    pub reason: String,
    /// What the client notices.
    pub then: String,
}

/// A backend of a service's table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Candidate {
    /// Where it listens.
    pub backend: SocketAddr,
    /// `active`, `draining`, `down`.
    pub state: String,
    /// Its slots.
    pub slots: u32,
    /// Flows at present, on the packet path.
    pub flows: u64,
    /// Flows at a time; 0: no limit.
    pub max_flows: u32,
}

// === impl Explanation ===

impl Explanation {
    /// Nothing known yet.
    pub fn of(question: &Question, address: Whose) -> Self {
        let &Question {
            protocol,
            client,
            vip,
            local,
        } = question;
        Self {
            protocol,
            client,
            vip,
            local,
            address,
            service: None,
            source: None,
            flow: None,
            lost: None,
            choice: None,
            refused: None,
            backends: Vec::new(),
        }
    }
}
