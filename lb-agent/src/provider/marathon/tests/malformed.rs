//! What is wrong costs only itself; what it had contributed before stays.

use super::*;

fn two() -> Value {
    json!({ "apps": [simple_app("/a", 31000), simple_app("/b", 32000)] })
}

fn before() -> Snapshot {
    build_with(&two(), &json!([]), &Versions::default(), None)
}

fn after(apps: &Value) -> Snapshot {
    build_with(apps, &json!([]), &Versions::default(), Some(&before()))
}

#[test]
fn a_body_of_another_shape_is_no_snapshot() {
    for bad in [
        "",
        "null",
        "[]",
        "{}",
        r#"{"message":"no"}"#,
        r#"{"apps":null}"#,
        r#"{"apps":{}}"#,
        r#"{"apps":[{"id":"/a"}"#,
        r#"{"apps":[]} trailing"#,
        "<html></html>",
    ] {
        assert!(reading::read(bad.as_bytes(), None).is_err(), "{bad}");
    }
    let deep = format!(r#"{{"apps":{}"#, "[".repeat(100_000));
    assert!(
        reading::read(deep.as_bytes(), None).is_err(),
        "nesting is bounded"
    );
    let apps = br#"{"apps":[]}"#;
    for bad in ["", "{}", "null", "[{}"] {
        assert!(reading::read(apps, Some(bad.as_bytes())).is_err(), "{bad}");
    }
    assert!(reading::read(apps, None).unwrap().empty);
}

#[test]
fn a_malformed_app_keeps_what_it_had_and_leaves_the_others_alone() {
    let breakages: [fn(&mut Value); 7] = [
        |app| app["portDefinitions"] = json!("x"),
        |app| app["networks"] = json!([{"mode": "magic"}]),
        |app| app["tasks"] = json!(7),
        |app| app["labels"] = json!("x"),
        |app| app["container"] = json!({"portMappings": [{"containerPort": 70_000}]}),
        |app| app["versionInfo"] = json!("yesterday"),
        |app| app["portDefinitions"][0]["labels"] = json!(["x"]),
    ];
    for (n, breakage) in breakages.iter().enumerate() {
        let mut apps = two();
        breakage(&mut apps["apps"][0]);
        apps["apps"][1]["tasks"][0]["ports"] = json!([32001]);
        let snapshot = after(&apps);
        assert_eq!(
            lines(&snapshot),
            [
                "/a.marathon:80/tcp /a = 10.0.0.1:31000 w1",
                "/b.marathon:80/tcp /b = 10.0.0.1:32001 w1",
            ],
            "breakage {n}"
        );
        assert_eq!(
            snapshot.problems.len(),
            1,
            "breakage {n}: {:?}",
            snapshot.problems
        );
        assert_eq!(&*snapshot.problems[0].subject, "/a");
    }
}

#[test]
fn a_malformed_app_that_was_never_read_contributes_nothing() {
    let mut apps = two();
    apps["apps"][0]["portDefinitions"] = json!("x");
    let snapshot = build_with(&apps, &json!([]), &Versions::default(), None);
    assert_eq!(
        lines(&snapshot),
        ["/b.marathon:80/tcp /b = 10.0.0.1:32000 w1"]
    );
}

#[test]
fn an_app_without_a_readable_id_may_be_any_that_is_missing() {
    for nameless in [
        json!(null),
        json!(7),
        json!({"id": 7}),
        json!({}),
        json!({"id": ""}),
    ] {
        let mut apps = two();
        apps["apps"][0] = nameless.clone();
        assert_eq!(after(&apps).pools, before().pools, "{nameless}");
    }
    let gone = json!({ "apps": [simple_app("/b", 32000)] });
    assert_eq!(
        after(&gone).pools.len(),
        1,
        "an app that is simply gone is gone"
    );
}

#[test]
fn a_malformed_task_keeps_what_it_had_and_leaves_the_others_alone() {
    for broken in [
        json!({"id": "task_a", "ports": [-1]}),
        json!({"id": "task_a", "ports": [31000], "state": 5}),
        json!({"id": "task_a", "ipAddresses": [{"ipAddress": "nowhere"}]}),
        json!({"ports": [1]}),
        json!("task"),
    ] {
        let mut apps = two();
        apps["apps"][0]["tasks"] = json!([broken, task("second", &[31005])]);
        let snapshot = after(&apps);
        assert_eq!(
            lines(&snapshot)[0],
            "/a.marathon:80/tcp /a = 10.0.0.1:31000 w1, 10.0.0.1:31005 w1",
            "{broken}"
        );
        assert_eq!(snapshot.problems.len(), 1);
    }
    let mut apps = two();
    apps["apps"][0]["tasks"] = json!([{"id": "another", "ports": [-1]}]);
    assert_eq!(
        lines(&after(&apps))[0],
        "/a.marathon:80/tcp /a = ",
        "its own id is not there"
    );
}

#[test]
fn an_invalid_label_keeps_nothing_from_before() {
    let mut apps = two();
    apps["apps"][0]["portDefinitions"][0]["labels"]["VIP_0"] = json!("/a:0");
    let snapshot = after(&apps);
    assert_eq!(
        lines(&snapshot),
        ["/b.marathon:80/tcp /b = 10.0.0.1:32000 w1"]
    );
    assert_eq!(&*snapshot.problems[0].subject, "/a");
}

#[test]
fn what_stays_goes_on_staying_until_it_can_be_read_or_is_gone() {
    let mut apps = two();
    apps["apps"][0]["tasks"] = json!("x");
    let mut state = before();
    for _ in 0..3 {
        state = build_with(&apps, &json!([]), &Versions::default(), Some(&state));
        assert_eq!(state.pools, before().pools);
    }
    state = build_with(
        &json!({"apps": []}),
        &json!([]),
        &Versions::default(),
        Some(&state),
    );
    assert_eq!(state, Snapshot::default());
}

#[test]
fn a_malformed_pod_or_instance_keeps_what_it_had() {
    let instance = |n: u16| {
        json!({
            "id": format!("p.instance-{n}"), "agentHostname": "10.0.0.1",
            "containers": [{
                "name": "c", "status": "TASK_RUNNING", "containerId": format!("p.instance-{n}.c.1"),
                "endpoints": [{"name": "e", "allocatedHostPort": 31000 + n}]
            }]
        })
    };
    let pods = json!([{
        "id": "/p",
        "spec": {"containers": [{"name": "c", "endpoints": [{
            "name": "e", "hostPort": 0, "protocol": ["tcp"], "labels": {"VIP_0": "/p:80"}
        }]}]},
        "instances": [instance(1), instance(12)]
    }]);
    let none = json!({ "apps": [] });
    let build = |pods: &Value, last| build_with(&none, pods, &Versions::default(), last);
    let before = build(&pods, None);
    assert_eq!(
        lines(&before),
        ["/p.marathon:80/tcp /p = 10.0.0.1:31001 w1, 10.0.0.1:31012 w1"]
    );
    let breakages: [(&str, Value); 4] = [
        ("/0/spec", json!("x")),
        ("/0/spec/containers", json!("x")),
        ("/0/instances/0/containers/0/endpoints", json!("x")),
        ("/0/instances/0/id", json!(1)),
    ];
    for (place, value) in breakages {
        let mut broken = pods.clone();
        *broken.pointer_mut(place).unwrap() = value;
        let after = build(&broken, Some(&before));
        assert_eq!(after.pools, before.pools, "{place}");
        assert_eq!(after.problems.len(), 1, "{place}");
    }
    let mut one_broken_one_gone = pods.clone();
    one_broken_one_gone[0]["instances"] = json!([{"id": "p.instance-1", "containers": 3}]);
    let after = build(&one_broken_one_gone, Some(&before));
    assert_eq!(lines(&after), ["/p.marathon:80/tcp /p = 10.0.0.1:31001 w1"]);
}
