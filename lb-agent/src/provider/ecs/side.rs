//! One of the APIs beside ECS: when it is asked, about what, and what stays while it fails.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    api::{Failure, FailureKind},
    model::Asked,
    waits::Waits,
};
use crate::provider::backoff::Steps;

/// What is known of an API.
#[derive(Debug)]
pub(super) struct Side {
    waits: Waits,
    /// Until then it is not asked.
    until: Option<Instant>,
    /// When the round began in which all is read anew.
    round: Option<Instant>,
    /// What has been answered in this round: after a failure only the rest is asked for.
    fresh: BTreeSet<Arc<str>>,
}

// === impl Side ===

impl Side {
    pub(super) fn new(steps: Steps) -> Self {
        Self {
            waits: Waits::new(steps),
            until: None,
            round: None,
            fresh: BTreeSet::new(),
        }
    }

    /// Whether it may be asked.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now >= until)
    }

    /// Has everything be read anew.
    pub(super) fn doubt(&mut self) {
        self.round = None;
    }

    /// Of what is wanted that which is not known, or not as of this round; a round is `every` so long.
    pub(super) fn stale<T>(
        &mut self,
        mut wanted: BTreeSet<Arc<str>>,
        known: &BTreeMap<Arc<str>, T>,
        every: Duration,
        now: Instant,
    ) -> BTreeSet<Arc<str>> {
        let is_over = |begun: Instant| now.saturating_duration_since(begun) >= every;
        if self.round.is_none_or(is_over) {
            self.round = Some(now);
            self.fresh.clear();
        }
        self.fresh.retain(|name| wanted.contains(name));
        wanted.retain(|name| !self.fresh.contains(name) || !known.contains_key(name));
        wanted
    }

    /// Takes answers; what was known stays where there is none. The last failure, if any.
    pub(super) fn take<T>(
        &mut self,
        asked: Vec<(Arc<str>, Result<T, Failure>)>,
        known: &mut BTreeMap<Arc<str>, Asked<T>>,
    ) -> Option<Failure> {
        let mut failed = None;
        for (name, answer) in asked {
            let answer = match answer {
                Ok(answer) => Some(Asked::Is(answer)),
                // What was read once may be denied for a while.
                Err(failure) if failure.kind == FailureKind::Refused => {
                    let is_new = !known.contains_key(&name);
                    is_new.then_some(Asked::Refused(failure.reason))
                }
                Err(failure) => {
                    failed = Some(failure);
                    continue;
                }
            };
            if let Some(answer) = answer {
                known.insert(Arc::clone(&name), answer);
            }
            self.fresh.insert(name);
        }
        failed
    }

    /// Takes note of how it went. Without a state to keep, a failure is one of the whole reading: else what could
    /// not be found out would be missing from the first state, and be taken away.
    pub(super) fn settle(
        &mut self,
        failed: Option<Failure>,
        complete: bool,
        now: Instant,
    ) -> Result<(), Failure> {
        let Some(failure) = failed else {
            self.waits.reset();
            self.until = None;
            return Ok(());
        };
        if !complete {
            return Err(failure);
        }
        let wait = self.waits.after_failure(failure.kind, rand::random());
        tracing::warn!(%failure, "what was read of it before stays; asked again in {wait:.1?}");
        self.until = Some(now + wait);
        Ok(())
    }
}
