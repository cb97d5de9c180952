//! State and health of a task -> its share of new flows.
//!
//! Weight 0 is a drain: no new flows, established ones go on. Tasks that are neither running nor
//! being killed are not in a pool at all.

use crate::catalog::{Drain, Weight};

/// What is known about a task's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// The definition that applies has no check.
    NoCheck,
    /// Checks are defined, none has a result yet.
    NoResult,
    /// Every result is good.
    Healthy,
    /// Some result is bad.
    Unhealthy,
}

/// A weight, and the reason if it is 0.
pub(super) type Share = (Weight, Option<Drain>);

const DRAIN_KILLING: Share = (Weight::DRAIN, Some(Drain::ending("TASK_KILLING")));
const DRAIN_UNHEALTHY: Share = (Weight::DRAIN, Some(Drain::unfit("unhealthy")));
const DRAIN_NO_RESULT: Share = (Weight::DRAIN, Some(Drain::unfit("no health result yet")));
const DRAIN_NOT_READY: Share = (Weight::DRAIN, Some(Drain::unfit("not ready")));

/// Whether a task in this state belongs into a pool; an absent state is `TASK_STAGING`.
pub(super) fn is_active(state: Option<&str>) -> bool {
    matches!(state, Some("TASK_RUNNING" | "TASK_KILLING"))
}

/// `None`: not in the pool.
pub(super) fn share(state: Option<&str>, health: Health, ready: bool) -> Option<Share> {
    let share = match (state?, health) {
        ("TASK_KILLING", _) => DRAIN_KILLING,
        ("TASK_RUNNING", Health::Unhealthy) => DRAIN_UNHEALTHY,
        ("TASK_RUNNING", Health::NoResult) => DRAIN_NO_RESULT,
        ("TASK_RUNNING", _) if !ready => DRAIN_NOT_READY,
        ("TASK_RUNNING", _) => (Weight::ONE, None),
        _ => return None,
    };
    Some(share)
}

// === impl Health ===

impl Health {
    /// Marathon's own count: at least one result, and all of them alive.
    pub(super) fn of_results(has_checks: bool, alive: impl IntoIterator<Item = bool>) -> Self {
        if !has_checks {
            return Self::NoCheck;
        }
        let mut alive = alive.into_iter();
        match alive.next() {
            None => Self::NoResult,
            Some(first) if first && alive.all(|alive| alive) => Self::Healthy,
            Some(_) => Self::Unhealthy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_healthy_only_when_all_results_are_alive() {
        assert_eq!(Health::of_results(false, [false]), Health::NoCheck);
        assert_eq!(Health::of_results(true, []), Health::NoResult);
        assert_eq!(Health::of_results(true, [true, true]), Health::Healthy);
        assert_eq!(Health::of_results(true, [true, false]), Health::Unhealthy);
    }

    #[test]
    fn a_running_task_takes_flows_unless_its_health_or_readiness_forbids() {
        let running = Some("TASK_RUNNING");
        for health in [Health::NoCheck, Health::Healthy] {
            assert_eq!(share(running, health, true), Some((Weight::ONE, None)));
            assert_eq!(share(running, health, false), Some(DRAIN_NOT_READY));
        }
        assert_eq!(
            share(running, Health::Unhealthy, true),
            Some(DRAIN_UNHEALTHY)
        );
        assert_eq!(
            share(running, Health::NoResult, true),
            Some(DRAIN_NO_RESULT)
        );
        assert_eq!(
            share(Some("TASK_KILLING"), Health::Healthy, true),
            Some(DRAIN_KILLING)
        );
    }

    #[test]
    fn every_other_state_is_out_of_the_pool() {
        for state in [
            "STAGING",
            "STARTING",
            "UNREACHABLE",
            "UNKNOWN",
            "FINISHED",
            "FAILED",
            "KILLED",
            "LOST",
            "ERROR",
            "DROPPED",
            "GONE",
            "GONE_BY_OPERATOR",
            "SOMETHING_NEW",
            "",
        ] {
            let state = format!("TASK_{state}");
            assert_eq!(share(Some(&state), Health::Healthy, true), None, "{state}");
            assert!(!is_active(Some(&state)));
        }
        assert_eq!(share(None, Health::NoCheck, true), None);
    }
}
