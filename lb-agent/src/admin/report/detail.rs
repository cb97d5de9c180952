//! What is said of services and backends besides: limits, what orchestrators declare, and how they have been.

use serde::{Deserialize, Serialize};

use super::Timestamp;
use crate::admin::orders::Forced;

/// What a service takes at most; 0: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LimitsReport {
    /// Flows at a time.
    pub flows: u32,
    /// New flows a second.
    pub rate: u32,
    /// New flows a second of one client address.
    pub source_rate: u32,
}

/// What the orchestrator says of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DeclaredReport {
    /// Its weight, 0..=256.
    pub weight: u16,
    /// It is used only while no other takes flows.
    pub backup: bool,
    /// Flows at a time, unless the operator says otherwise: then his limit; 0: none.
    pub max_flows: u32,
    /// It checks the backend, and finds it well.
    #[serde(default)]
    pub healthy: bool,
}

/// How a backend has been since this agent knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HealthReport {
    /// How often it went down.
    pub downs: u64,
    /// How long it was down or in maintenance before the state in which it is now, ms.
    pub down_ms: u64,
    /// The share of its weight that it has while it starts slowly, percent.
    pub starting: Option<u8>,
    /// How the operator says that it is, whatever its checks say.
    #[serde(default)]
    pub forced: Option<Forced>,
    /// The operator has stopped its checks.
    #[serde(default)]
    pub unchecked: bool,
    /// The operator has it checked at this port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_port: Option<u16>,
    /// The latest probe; `None`: there was none. Filled in on request.
    pub probe: Option<ProbeReport>,
}

/// The latest probe of a backend, and those before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProbeReport {
    /// When it ended.
    pub at: Timestamp,
    /// In the words of HAProxy: `L4OK`, `L4CON`, `L4TOUT`, `L7OK`, `L7STS`, `L7RSP`, `L7TOUT`.
    pub result: String,
    /// The status code of an HTTP answer.
    pub code: Option<u16>,
    /// How long it took, ms.
    pub took_ms: u64,
    /// Why it failed; `None`: it did not.
    pub why: Option<String>,
    /// Probes that failed since this agent asks.
    pub failed: u64,
    /// Probes in a row that speak against the state which the checks gave it.
    pub against: u32,
    /// Probes in a row that bring it back, and that take it down.
    pub rise: u32,
    /// As `rise`.
    pub fall: u32,
    /// The checks hold it for up.
    pub up: bool,
}
