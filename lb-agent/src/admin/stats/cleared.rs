//! Pure: what was counted since an operator had the counters begin anew. The kernel's own go on: metrics must only grow.

use crate::admin::report::{ServiceTraffic, Traffic, since};

/// Counters, or what came to them since they were cleared.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Counted<T> {
    pub(crate) traffic: T,
    /// How often it went down.
    pub(crate) downs: u64,
    /// Checks that failed.
    pub(crate) checks_failed: u64,
}

/// What counters stood at when they were cleared, if they were.
#[derive(Debug)]
pub(super) struct Zero<T>(Option<Box<Counted<T>>>);

/// Numbers of the kernel.
pub(super) trait Counters: Clone {
    /// Flows ever.
    fn flows(&self) -> u64;
    /// What came since they stood at `zero`.
    fn since(&self, zero: &Self) -> Self;
}

impl Counters for Traffic {
    fn flows(&self) -> u64 {
        self.flows_new
    }

    fn since(&self, zero: &Self) -> Self {
        self.since(zero)
    }
}

impl Counters for ServiceTraffic {
    fn flows(&self) -> u64 {
        self.flows_new
    }

    fn since(&self, zero: &Self) -> Self {
        self.since(zero)
    }
}

// === impl Zero ===

impl<T> Default for Zero<T> {
    /// They never were.
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Counters> Zero<T> {
    /// What came since they were cleared; `None`: they never were. `clear`: they are now.
    pub(super) fn note(
        &mut self,
        traffic: &T,
        downs: u64,
        checks_failed: u64,
        clear: bool,
    ) -> Option<Box<Counted<T>>> {
        if clear {
            self.0 = Some(Box::new(Counted {
                traffic: traffic.clone(),
                downs,
                checks_failed,
            }));
        }
        // What the kernel has counted anew is all that there is.
        self.0
            .take_if(|zero| traffic.flows() < zero.traffic.flows());
        let zero = self.0.as_ref()?;
        Some(Box::new(Counted {
            traffic: traffic.since(&zero.traffic),
            downs: since(downs, zero.downs),
            checks_failed: since(checks_failed, zero.checks_failed),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::report::Outcomes;

    fn traffic(n: u64) -> Traffic {
        Traffic {
            flows_active: 5,
            flows_new: n,
            bytes_in: Some(100 * n),
            bytes_out: None,
            outcomes: Outcomes {
                handshakes: Some(n),
                ..Outcomes::default()
            },
            ..Traffic::default()
        }
    }

    #[test]
    fn what_was_before_is_left_out_and_what_is_unknown_stays_so() {
        let mut zero = Zero::default();
        assert_eq!(zero.note(&traffic(7), 1, 2, false), None);
        let since = zero.note(&traffic(7), 1, 2, true).unwrap();
        assert_eq!(
            (since.traffic.flows_new, since.traffic.bytes_in),
            (0, Some(0))
        );
        assert_eq!((since.downs, since.checks_failed), (0, 0));
        assert_eq!(since.traffic.flows_active, 5, "they are still there");
        let since = zero.note(&traffic(10), 2, 5, false).unwrap();
        assert_eq!(
            (since.traffic.flows_new, since.traffic.bytes_in),
            (3, Some(300))
        );
        assert_eq!(since.traffic.outcomes.handshakes, Some(3));
        assert_eq!(since.traffic.bytes_out, None);
        assert_eq!((since.downs, since.checks_failed), (1, 3));
    }

    #[test]
    fn counters_that_begin_anew_are_shown_whole() {
        let mut zero = Zero::default();
        zero.note(&traffic(100), 0, 0, true);
        assert_eq!(zero.note(&traffic(2), 0, 0, false), None);
        assert_eq!(zero.note(&traffic(200), 0, 0, false), None);
    }
}
