//! How long to wait after a failure, by what kind of failure it was. Pure.
//!
//! Two rules, each with its own reason. Where AWS says that it is asked too much, the waits grow to a minute: its
//! limits are the account's, and others live by them, too. Any other failure is over when AWS can be reached again, and
//! nobody is harmed by one request in ten seconds: so the state is right soon after an outage, however long that was.

use std::time::Duration;

use super::api::FailureKind;
use crate::provider::backoff::{Backoff, Steps};

/// The longest wait after a failure that is not about asking too much. With the deadline of a request that came to
/// nothing just before AWS was back, 20 s; what is read then takes the rest of the 35 s that are promised.
pub(super) const SOON: Duration = Duration::from_secs(10);

/// Waits of one API.
#[derive(Debug)]
pub(super) struct Waits {
    throttled: Backoff,
    passing: Backoff,
}

// === impl Waits ===

impl Waits {
    /// `steps`: while AWS asks for less.
    pub(super) fn new(steps: Steps) -> Self {
        let soon = Steps {
            cap: steps.cap.min(SOON),
            ..steps
        };
        Self {
            throttled: Backoff::new(steps),
            passing: Backoff::new(soon),
        }
    }

    /// The next wait; `random` (0..1) spreads the agents of a cluster.
    pub(super) fn after_failure(&mut self, kind: FailureKind, random: f64) -> Duration {
        match kind {
            FailureKind::Throttled => self.throttled.after_failure(random),
            FailureKind::Refused | FailureKind::Doubted | FailureKind::Passing => {
                self.passing.after_failure(random)
            }
        }
    }

    /// All is well again.
    pub(super) fn reset(&mut self) {
        self.throttled.reset();
        self.passing.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::ecs::{DEADLINE, Timings};

    fn longest(kind: FailureKind, random: f64) -> Duration {
        let mut waits = Waits::new(Timings::default().backoff);
        let all = (0..12).map(|_| waits.after_failure(kind, random));
        all.max().unwrap_or_default()
    }

    #[test]
    fn only_where_aws_is_asked_too_much_a_wait_is_a_minute() {
        assert_eq!(
            longest(FailureKind::Throttled, 1.0),
            Duration::from_secs(60)
        );
        for kind in [
            FailureKind::Passing,
            FailureKind::Doubted,
            FailureKind::Refused,
        ] {
            assert_eq!(longest(kind, 1.0), SOON, "{kind:?}");
        }
    }

    #[test]
    fn the_longest_waits_are_spread_too() {
        for kind in [FailureKind::Throttled, FailureKind::Passing] {
            assert_eq!(longest(kind, 0.0) * 2, longest(kind, 1.0), "{kind:?}");
        }
    }

    #[test]
    fn after_an_outage_there_is_time_left_to_read() {
        // It ends just after a request was sent that comes to nothing.
        let asked_again = DEADLINE + longest(FailureKind::Passing, 1.0);
        assert!(asked_again + DEADLINE < Duration::from_secs(35));
    }

    #[test]
    fn when_all_is_well_the_first_wait_is_short_again() {
        let mut waits = Waits::new(Timings::default().backoff);
        for kind in [FailureKind::Throttled, FailureKind::Passing] {
            let first = waits.after_failure(kind, 1.0);
            waits.after_failure(kind, 1.0);
            waits.reset();
            assert_eq!(waits.after_failure(kind, 1.0), first, "{kind:?}");
        }
    }
}
