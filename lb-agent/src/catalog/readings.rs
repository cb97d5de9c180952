//! What each provider said last.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use crate::provider::{ProviderId, Snapshot, Update};

/// The last good state of every provider, and how its reading goes.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    readings: BTreeMap<ProviderId, Reading>,
}

/// What one provider said.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// The last good state; `None` before the first, when nothing that this provider made may be removed.
    pub snapshot: Option<Arc<Snapshot>>,
    /// When [`Self::snapshot`] was complete.
    pub last_success: Option<SystemTime>,
    /// The last failure, also when a success came after it.
    pub last_failure: Option<Failure>,
}

/// A reading that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When it failed.
    pub at: SystemTime,
    /// One sentence.
    pub reason: String,
}

// === impl Catalog ===

impl Catalog {
    /// Waits for `providers`: until each has given its first snapshot, its part of the state is unknown.
    pub fn new(providers: impl IntoIterator<Item = ProviderId>) -> Self {
        let unread = |provider| (provider, Reading::default());
        Self {
            readings: providers.into_iter().map(unread).collect(),
        }
    }

    /// Takes a provider's latest word. True if the desired state may be another now.
    pub fn apply(&mut self, update: Update) -> bool {
        let Update {
            provider,
            at,
            outcome,
        } = update;
        let reading = self.readings.entry(provider).or_default();
        match outcome {
            Ok(snapshot) => {
                let changed = reading.snapshot.as_ref() != Some(&snapshot);
                reading.snapshot = Some(snapshot);
                reading.last_success = Some(at);
                changed
            }
            Err(reason) => {
                reading.last_failure = Some(Failure { at, reason });
                false
            }
        }
    }

    /// Every provider, ascending.
    pub fn readings(&self) -> impl Iterator<Item = (&ProviderId, &Reading)> {
        self.readings.iter()
    }
}

// === impl Reading ===

impl Reading {
    /// Why the last reading failed, unless it went well.
    pub fn failing(&self) -> Option<&Failure> {
        let last_success = self.last_success;
        self.last_failure
            .as_ref()
            .filter(|failure| last_success.is_none_or(|success| success < failure.at))
    }
}
