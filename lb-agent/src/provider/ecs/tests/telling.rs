//! What is told, and how long until the next reading.

use std::time::Duration;

use super::*;
use crate::provider::ecs::{
    api::{Failure, FailureKind},
    watcher::Teller,
};

fn failure(kind: FailureKind) -> Failure {
    Failure {
        kind,
        reason: "no".to_owned(),
    }
}

fn seconds(wait: Duration) -> f64 {
    wait.as_secs_f64()
}

#[test]
fn an_unchanged_state_is_the_same_one_after_a_failure_too() {
    let config = EcsConfig::new(CLUSTER);
    let mut teller = Teller::new(&config);
    let (first, wait) = teller.take(Ok(built(&tutorial())));
    assert!((4.5..=5.0).contains(&seconds(wait)), "{wait:?}");
    assert_eq!(first.provider.as_str(), "ecs:hello-world-cluster");
    let (failed, _) = teller.take(Err(failure(FailureKind::Passing)));
    assert_eq!(failed.outcome.unwrap_err(), "no");
    let (again, _) = teller.take(Ok(built(&tutorial())));
    assert!(Arc::ptr_eq(
        &first.outcome.unwrap(),
        &again.outcome.unwrap()
    ));
}

#[test]
fn an_endpoint_that_is_away_is_asked_at_least_every_ten_seconds() {
    let config = EcsConfig::new(CLUSTER);
    let mut teller = Teller::new(&config);
    let waits: Vec<_> = (0..12)
        .map(|_| seconds(teller.take(Err(failure(FailureKind::Passing))).1))
        .collect();
    assert!((0.5..=1.0).contains(&waits[0]), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= 10.0), "{waits:?}");
    let longest = &waits[4..];
    assert!(longest.iter().all(|wait| *wait >= 5.0), "{waits:?}");
    let spread = longest.iter().any(|wait| (wait - longest[0]).abs() > 1e-6);
    assert!(spread, "not all agents at once: {waits:?}");
}

#[test]
fn while_aws_asks_for_less_the_polls_come_ever_more_rarely() {
    let config = EcsConfig::new(CLUSTER);
    let mut teller = Teller::new(&config);
    let mut throttled = || seconds(teller.take(Err(failure(FailureKind::Throttled))).1);
    for most in [10.0, 20.0, 40.0, 60.0, 60.0] {
        let wait = throttled();
        assert!((most * 0.9..=most).contains(&wait), "{wait} of {most}");
    }
    for most in [60.0, 60.0, 40.0, 20.0, 10.0, 5.0, 5.0] {
        let wait = seconds(teller.take(Ok(Snapshot::default())).1);
        assert!(
            wait <= most && wait >= most.min(5.0) * 0.9,
            "{wait} of {most}"
        );
    }
}

#[test]
fn an_error_answer_says_what_to_do() {
    for (status, code, kind, says) in [
        (
            400,
            "ThrottlingException",
            FailureKind::Throttled,
            "ThrottlingException",
        ),
        (
            503,
            "RequestLimitExceeded",
            FailureKind::Throttled,
            "RequestLimitExceeded",
        ),
        (400, "Throttling", FailureKind::Throttled, "Throttling"),
        (429, "Other", FailureKind::Throttled, "Other"),
        (
            500,
            "ServerException",
            FailureKind::Passing,
            "ServerException",
        ),
        (
            400,
            "ExpiredTokenException",
            FailureKind::Doubted,
            "renew the credentials",
        ),
        (
            400,
            "ClusterNotFoundException",
            FailureKind::Refused,
            "--ecs-region",
        ),
        (
            400,
            "AccessDeniedException",
            FailureKind::Refused,
            "docs/ecs.md",
        ),
        (
            403,
            "UnauthorizedOperation",
            FailureKind::Refused,
            "docs/ecs.md",
        ),
        (
            400,
            "TargetGroupNotFound",
            FailureKind::Refused,
            "TargetGroupNotFound",
        ),
    ] {
        let failure = Failure::of_answer("Call", status, code, "Rate exceeded");
        assert_eq!(failure.kind, kind, "{code}");
        assert!(failure.reason.contains(says), "{failure}");
        assert!(failure.reason.starts_with("Call: "), "{failure}");
    }
    let long = Failure::of_answer("Call", 500, "X", &"y".repeat(1 << 20));
    assert!(long.reason.len() < 400);
}
