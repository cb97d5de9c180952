//! What all words of the operator together say of one backend, or of one service.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    admin::{orders::Forced, report::Timestamp},
    catalog::{Check, Port, Properties, Weight},
};

/// How a backend is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::control) struct Out {
    /// Shown as maintenance instead of draining.
    pub(in crate::control) maintenance: bool,
    /// When connections that are left are reset.
    pub(in crate::control) deadline: Option<Timestamp>,
}

/// What the operator says of one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::control) struct Said {
    /// It is taken out.
    pub(in crate::control) out: Option<Out>,
    /// Its share of new flows.
    pub(in crate::control) weight: Option<Weight>,
    /// How it is.
    pub(in crate::control) health: Option<Forced>,
    /// Its checks are stopped; true: it was down then.
    pub(in crate::control) unchecked: Option<bool>,
    /// Flows at a time.
    pub(in crate::control) limit: Option<u32>,
    /// Its checks ask it there.
    pub(in crate::control) check_port: Option<Port>,
}

/// What the operator says of one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::control) struct Front {
    /// It takes no new flows.
    pub(in crate::control) stopped: bool,
    /// Flows at a time.
    pub(in crate::control) limit: Option<u32>,
}

// === impl Out ===

impl Out {
    /// Both hold: maintenance is the stronger word, and the earlier deadline comes first.
    pub(in crate::control) fn and(self, other: Self) -> Self {
        let deadlines = [self.deadline, other.deadline].into_iter().flatten();
        Self {
            maintenance: self.maintenance || other.maintenance,
            deadline: deadlines.min(),
        }
    }

    /// Whether what is left is reset.
    pub(in crate::control) fn is_over(&self, now: Timestamp) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }
}

// === impl Said ===

impl Said {
    /// How a backend of such a service is checked; `None`: it is not.
    pub(in crate::control) fn check(&self, of: &Properties) -> Option<Arc<Check>> {
        Some(of.check.as_ref()?.asked_at(self.check_port))
    }

    pub(super) fn in_words(self) -> String {
        let out = self.out.map(|out| match out.maintenance {
            true => "maintenance".to_owned(),
            false => "draining".to_owned(),
        });
        let health = self.health.map(|forced| format!("health {forced}"));
        let weight = self.weight.map(|weight| format!("weight {weight}"));
        let unchecked = self.unchecked.map(|_| "checks stopped".to_owned());
        let asked = self
            .check_port
            .map(|port| format!("checked at port {port}"));
        let limit = at_most(self.limit);
        listed([out, health, weight, unchecked, asked, limit])
    }
}

// === impl Front ===

impl Front {
    pub(super) fn in_words(self) -> String {
        let stopped = self.stopped.then(|| "no new flows".to_owned());
        listed([stopped, at_most(self.limit)])
    }
}

fn at_most(limit: Option<u32>) -> Option<String> {
    limit.map(|flows| format!("at most {flows} flows"))
}

fn listed<const N: usize>(words: [Option<String>; N]) -> String {
    let words: Vec<_> = words.into_iter().flatten().collect();
    match words.is_empty() {
        true => "as its orchestrator says".to_owned(),
        false => words.join(", "),
    }
}
