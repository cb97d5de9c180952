//! Our own labels on an app, the same as on a container: what all of its VIPs are to be like, and its tasks in them.

use std::sync::Arc;

use crate::{
    catalog::{Properties, Weight},
    provider::{
        shape,
        values::{count, flag, said, weight},
    },
};

use super::label::{Labels, text};

/// Every label that is read.
const NAMES: [&str; 18] = [
    "lb.allow",
    "lb.affinity",
    "lb.backup",
    "lb.balance",
    "lb.check",
    "lb.fail-open",
    "lb.group",
    "lb.deny",
    "lb.denied",
    "lb.idle",
    "lb.maxflows",
    "lb.maxflows-backend",
    "lb.mode",
    "lb.rate",
    "lb.slow-start",
    "lb.drain",
    "lb.source-rate",
    "lb.weight",
];

/// What an app's labels of ours say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OwnLabels {
    /// A running task's share of new flows.
    pub(super) weight: Weight,
    /// Used only while no other takes flows.
    pub(super) backup: bool,
    /// A task's flows at a time; 0: no limit.
    pub(super) max_flows: u32,
    /// What the VIPs are to be like.
    pub(super) properties: Properties,
}

/// Reads them.
///
/// # Errors
/// The first label whose value cannot be used: then the app is left out, since to serve it in another way than it asks
/// for may be to serve whom it keeps out.
pub(super) fn read(labels: &Labels, problems: &mut Vec<String>) -> Result<OwnLabels, String> {
    let mut own = OwnLabels::default();
    for (name, value) in labels.iter().filter(|(name, _)| name.starts_with("lb.")) {
        if !NAMES.contains(&name.as_str()) {
            let name = said(name);
            problems.push(format!(
                "label {name} is none that lb-agent reads of an app, and has no effect"
            ));
            continue;
        }
        text(value).map_err(|why| format!("label {name}: {why}"))?;
    }
    let label = |name: &str| {
        labels
            .get(name)
            .and_then(|value| Some(value.as_str()?.trim()))
    };
    if let Some(weight) = shape::read(label, "lb.weight", weight)? {
        own.weight = weight;
    }
    if let Some(backup) = shape::read(label, "lb.backup", flag)? {
        own.backup = backup;
    }
    if let Some(most) = shape::read(label, "lb.maxflows-backend", count)? {
        own.max_flows = most;
    }
    shape::properties(label, &mut own.properties)?;
    Ok(own)
}

// === impl OwnLabels ===

impl OwnLabels {
    /// What a VIP is given; `None`: nothing is asked for.
    pub(super) fn shape(&self) -> Option<Arc<Properties>> {
        (self.properties != Properties::default()).then(|| Arc::new(self.properties.clone()))
    }
}

impl Default for OwnLabels {
    fn default() -> Self {
        Self {
            weight: Weight::ONE,
            backup: false,
            max_flows: 0,
            properties: Properties::default(),
        }
    }
}
