//! A task belongs to the definition of its version.

use std::sync::Arc;

use super::*;
use crate::provider::marathon::version::{self, Lookup, VersionKey};

const OLD: &str = "2024-03-05T08:00:00.000Z";
const NEW: &str = "2024-03-05T09:00:00.000Z";
const SCALED: &str = "2024-03-05T10:00:00.000Z";

/// The new version moved the VIP to the second port and added a health check.
fn body() -> Value {
    let task = |id: &str, version: &str, first: u16| {
        let mut task = task(id, &[first, first + 1]);
        task["version"] = json!(version);
        task
    };
    json!({ "apps": [{
        "id": "/a",
        "portDefinitions": [{"port": 0}, {"port": 0, "labels": {"VIP_0": "/a:80"}}],
        "healthChecks": [{"protocol": "TCP"}],
        "version": SCALED,
        "versionInfo": {"lastScalingAt": SCALED, "lastConfigChangeAt": NEW},
        "tasks": [task("old", OLD, 31000), task("new", NEW, 31100), task("scaled", SCALED, 31200)]
    }] })
}

fn key() -> VersionKey {
    VersionKey {
        id: "/a".to_owned(),
        version: OLD.to_owned(),
    }
}

fn versions(lookup: Lookup<crate::provider::marathon::model::Definition>) -> Versions {
    Versions {
        apps: [(key(), lookup)].into_iter().collect(),
        ..Versions::default()
    }
}

fn old_definition() -> Versions {
    let old = json!({"portDefinitions": [{"port": 0, "labels": {"VIP_0": "/a:80"}}, {"port": 0}]});
    versions(Lookup::Found(Arc::new(
        serde_json::from_value(old).unwrap(),
    )))
}

#[test]
fn only_versions_before_the_last_change_are_asked_for() {
    let needed = version::needed(&reading(&body(), &json!([])));
    assert_eq!(needed.apps, [key()].into());
    for missing in ["/apps/0/versionInfo", "/apps/0/tasks/0/version"] {
        let mut body = body();
        *body.pointer_mut(missing).unwrap() = json!(null);
        assert!(
            version::needed(&reading(&body, &json!([]))).apps.is_empty(),
            "{missing}"
        );
    }
    let mut body = body();
    body["apps"][0]["tasks"][0]["state"] = json!("TASK_KILLED");
    assert!(version::needed(&reading(&body, &json!([]))).apps.is_empty());
}

#[test]
fn an_old_task_keeps_its_ports_and_is_not_drained_by_a_new_health_check() {
    let snapshot = build_with(&body(), &json!([]), &old_definition(), None);
    assert_eq!(
        lines(&snapshot),
        [
            "/a.marathon:80/tcp /a = 10.0.0.1:31000 w1, 10.0.0.1:31101 w0 (no health result yet), \
          10.0.0.1:31201 w0 (no health result yet)"
        ]
    );
}

#[test]
fn a_version_that_is_gone_is_read_as_the_current_one_with_a_warning() {
    let snapshot = build_with(&body(), &json!([]), &versions(Lookup::Gone), None);
    assert!(lines(&snapshot)[0].contains("10.0.0.1:31001 w0"));
    assert!(
        reasons(&snapshot)[0].contains(OLD),
        "{:?}",
        reasons(&snapshot)
    );
}

#[test]
fn a_version_that_cannot_be_read_keeps_what_the_app_had() {
    let before = build_with(&body(), &json!([]), &old_definition(), None);
    let failed = versions(Lookup::Failed("answered 503".to_owned()));
    let after = build_with(&body(), &json!([]), &failed, Some(&before));
    assert_eq!(after.pools, before.pools);
    assert!(reasons(&after)[0].contains("answered 503"));
}

#[test]
fn a_pods_instance_runs_the_spec_it_refers_to() {
    let spec = |version: &str, name: &str| {
        json!({
            "version": version,
            "containers": [{"name": "c", "endpoints": [{
                "name": name, "hostPort": 0, "protocol": ["tcp"], "labels": {"VIP_0": "/p:80"}
            }]}]
        })
    };
    let pods = json!([{
        "id": "/p",
        "spec": spec(NEW, "new"),
        "instances": [{
            "id": "p.instance-1", "agentHostname": "10.0.0.1",
            "specReference": format!("/v2/pods/p::versions/{OLD}"),
            "containers": [{
                "name": "c", "status": "TASK_RUNNING",
                "endpoints": [{"name": "old", "allocatedHostPort": 31000}]
            }]
        }]
    }]);
    let none = json!({ "apps": [] });
    let key = VersionKey {
        id: "/p".to_owned(),
        version: OLD.to_owned(),
    };
    let needed = version::needed(&reading(&none, &pods));
    assert_eq!(needed.pods, [key.clone()].into());
    let old = Lookup::Found(Arc::new(serde_json::from_value(spec(OLD, "old")).unwrap()));
    let versions = Versions {
        pods: [(key, old)].into_iter().collect(),
        ..Versions::default()
    };
    let snapshot = build_with(&none, &pods, &versions, None);
    assert_eq!(
        lines(&snapshot),
        ["/p.marathon:80/tcp /p = 10.0.0.1:31000 w1"]
    );
}
