//! How long to wait after a failure: exponential, jittered, capped.

use std::time::Duration;

/// The steps of a back-off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Steps {
    /// The first wait, before jitter.
    pub first: Duration,
    /// Each wait is this many times the one before.
    pub factor: f64,
    /// The longest wait, before jitter.
    pub cap: Duration,
}

/// Waits between failures in a row.
#[derive(Debug)]
pub(in crate::provider) struct Backoff {
    steps: Steps,
    next: Duration,
}

// === impl Backoff ===

impl Backoff {
    /// Nothing has failed yet.
    pub(in crate::provider) fn new(steps: Steps) -> Self {
        Self {
            steps,
            next: steps.first,
        }
    }

    /// The next wait: between half of the step and the whole of it, as `random` (0..1) says, so
    /// that the agents of a cluster do not come back all at once.
    pub(in crate::provider) fn after_failure(&mut self, random: f64) -> Duration {
        let wait = self.next.min(self.steps.cap);
        self.next = self.next.mul_f64(self.steps.factor).min(self.steps.cap);
        wait.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }

    /// All is well again.
    pub(in crate::provider) fn reset(&mut self) {
        self.next = self.steps.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_start_again_after_a_reset() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new(Steps {
            first: seconds(2),
            factor: 1.5,
            cap: seconds(5),
        });
        let waits: Vec<_> = (0..4)
            .map(|_| backoff.after_failure(1.0).as_secs_f64())
            .collect();
        assert_eq!(waits, [2.0, 3.0, 4.5, 5.0]);
        backoff.reset();
        assert_eq!(
            backoff.after_failure(0.0),
            seconds(1),
            "jitter takes up to half"
        );
    }
}
