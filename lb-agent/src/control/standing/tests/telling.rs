//! Since when a backend is as it is, and who is told when that changes.

use super::*;
use crate::log;

fn report(state: BackendState, why: Option<&str>) -> BackendReport {
    BackendReport {
        addr: ADDR.parse().expect("an address"),
        weight: 1,
        state,
        why: why.map(str::to_owned),
        since: None,
        provider: "".into(),
        app: "".into(),
        task: "".into(),
        instance: None,
        host: None,
        called: None,
        traffic: Default::default(),
        declared: Default::default(),
        health: Default::default(),
    }
}

fn nameless() -> Service {
    Service {
        name: None,
        properties: Arc::default(),
        backends: Vec::new(),
    }
}

#[test]
fn since_when_is_kept_until_the_state_is_another() {
    let (key, service) = (key(), nameless());
    let mut since = Since::default();
    let long_ago = Timestamp(1);
    let at = (key, ADDR.parse().expect("an address"));
    let been = Been {
        state: BackendState::Down,
        since: long_ago,
        downs: 1,
        down_ms: 0,
        forced: false,
    };
    since.states.insert(at, been);
    let mut note = |mut report: BackendReport| {
        since.note(&key, &service, &mut report);
        since.turn_over();
        report.since
    };
    assert_eq!(note(report(BackendState::Down, Some("a"))), Some(long_ago));
    assert_eq!(note(report(BackendState::Down, Some("b"))), Some(long_ago));
    assert!(note(report(BackendState::Active, None)) > Some(long_ago));
}

#[test]
fn a_change_is_one_line_with_both_states_and_the_reason() {
    let (key, service) = (key(), nameless());
    let mut since = Since::default();
    let told = log::tests::told(|| {
        for (state, why) in [
            (BackendState::Active, None),
            (BackendState::Active, None),
            (BackendState::Down, Some("connection refused")),
            // Another reason for the same state is no change.
            (BackendState::Down, Some("time-out")),
            (BackendState::Active, None),
        ] {
            since.note(&key, &service, &mut report(state, why));
            since.turn_over();
        }
    });
    let words = |line: &serde_json::Value| {
        let fields = [
            "level", "message", "service", "backend", "from", "to", "reason",
        ];
        fields
            .map(|field| line[field].as_str().unwrap_or("-").to_owned())
            .join(" | ")
    };
    let change = format!("backend state changed | {key} | {ADDR}");
    assert_eq!(
        told.iter().map(words).collect::<Vec<_>>(),
        [
            format!("WARN | {change} | active | down | connection refused"),
            format!("INFO | {change} | down | active | it answers again"),
        ]
    );
    let seen = since.events.after(0);
    assert_eq!(seen.len(), 2, "those who look at events hear the same");
    assert_eq!(seen[0].to.as_deref(), Some("down"));
}
