//! Whether all is well, as whoever watches the agent asks.

use std::sync::{Arc, atomic::Ordering};

use super::*;
use crate::admin::report::{ProviderReport, StatusReport, Timestamp};

#[test]
fn a_control_loop_that_stands_still_is_not_well() {
    let site = Site::with(
        |_| {},
        None,
        |admin| admin.alive.turned.store(1, Ordering::Relaxed),
    );
    for page in ["/healthz", "/_haproxy_health_check"] {
        let answer = site.get(page, "");
        assert_eq!(status(&answer), "503", "{answer:?}");
        assert_eq!(answer.1, "the control loop stands still\n");
    }
    assert_eq!(status(&site.get("/readyz", "")), "200");
}

#[test]
fn a_monitor_may_ask_at_a_path_of_its_own() {
    let site = Site::open(|access| {
        access.closed = true;
        access.health = Some("/monitor".to_owned());
    });
    for page in ["/healthz", "/monitor", "/monitor?x=1"] {
        let answer = site.get(page, "");
        assert_eq!((status(&answer), &*answer.1), ("200", "ok\n"), "{page}");
    }
    for page in ["/monitor/", "/", "/metrics"] {
        assert_eq!(status(&site.get(page, "")), "401", "{page}");
    }
}

#[test]
fn an_agent_is_ready_when_every_source_was_read() {
    let read = |last_sync| {
        Site::with(
            |_| {},
            None,
            move |admin| {
                let report = StatusReport::clone(&admin.report.load());
                let provider = |id: &str, last_sync| ProviderReport {
                    id: id.to_owned(),
                    last_sync,
                    ..ProviderReport::default()
                };
                admin.report.store(Arc::new(StatusReport {
                    providers: vec![
                        provider("file:a", Some(Timestamp(1))),
                        provider("docker:b", last_sync),
                    ],
                    ..report
                }));
            },
        )
    };
    let answer = read(None).get("/readyz", "");
    assert_eq!(status(&answer), "503", "{answer:?}");
    assert_eq!(answer.1, "docker:b was not read yet\n");
    assert_eq!(status(&read(Some(Timestamp(2))).get("/readyz", "")), "200");
}
