//! Whether all is well, as whoever watches the agent asks.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::bail;
use serde_json::Value;

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
    let answer = site.get("/_mlb_signal/hup", "");
    assert_eq!(status(&answer), "500", "{answer:?}");
    site.logged(&[
        "WARN",
        "failed: the control loop stands still",
        "/_mlb_signal/hup",
    ]);
    assert_eq!(answer.1, "the control loop stands still\n");
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

#[test]
fn counters_that_cannot_be_read_are_not_known_and_not_0() {
    let site = Site::of(|sources| {
        let mut report = StatusReport::clone(&sources.report.load());
        report.agent.started = Timestamp(1);
        sources.report.store(Arc::new(report));
        sources.count = Arc::new(|_| bail!("no such map"));
    });
    let answer = site.get("/healthz", "");
    assert_eq!(status(&answer), "503", "{answer:?}");
    assert_eq!(answer.1, "the counters are not read any more\n");
    assert_eq!(
        site.get("/;csv", "").1.lines().count(),
        1,
        "no rows of zeros"
    );
    let report: Value = serde_json::from_str(&site.get("/v1/status", "").1).unwrap();
    let service = &report["services"][0];
    assert_eq!(service["name"], "web.x");
    for counted in [service, &service["backends"][0]] {
        assert_eq!(counted.get("traffic"), None, "{counted}");
    }
    assert_eq!(report["warnings"][1], "no counters: no such map");
    let read: StatusReport = serde_json::from_value(report).unwrap();
    assert!(read.services[0].traffic.unread && read.services[0].backends[1].traffic.unread);
}

#[test]
fn what_was_counted_last_stays_while_counters_cannot_be_read() {
    let site = Site::of(|sources| {
        let once = AtomicBool::new(false);
        sources.count = Arc::new(move |_| match once.swap(true, Ordering::Relaxed) {
            true => bail!("no such map"),
            false => Ok(()),
        });
    });
    let at = || -> Value {
        let stats: Value = serde_json::from_str(&site.get("/v1/stats", "").1).unwrap();
        assert_eq!(stats["services"][0]["traffic"]["flows_new"], 80, "{stats}");
        stats["at"].clone()
    };
    let first = at();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(20) {
        assert_eq!(at(), first, "it grows old");
    }
    assert_eq!(
        status(&site.get("/healthz", "")),
        "200",
        "but not yet too old"
    );
}
