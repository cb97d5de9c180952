//! Blue/green deployments: who is old, and how many of his tasks get no new flows.

use super::*;

const BLUE: &str = "2024-03-05T08:00:00.000Z";
const GREEN: &str = "2024-03-05T09:00:00.000Z";

fn edge() -> Edge {
    Edge {
        groups: ["*".to_owned()].into(),
        ..Edge::default()
    }
}

/// An app of the group `nginx` with so many tasks; those of `green` are at 10.0.0.2.
fn app(colour: &str, instances: u16, labels: Value) -> Value {
    let (host, first, started) = match colour {
        "blue" => ("10.0.0.1", 31_000, BLUE),
        _ => ("10.0.0.2", 32_000, GREEN),
    };
    let port = if colour == "blue" { 10_000 } else { 10_001 };
    let tasks = (0..instances).map(|n| {
        json!({"id": format!("{colour}{n}"), "host": host, "state": "TASK_RUNNING", "ports": [first + n]})
    });
    let mut app = json!({
        "id": format!("/nginx-{colour}"), "instances": instances,
        "labels": {
            "HAPROXY_GROUP": "external", "HAPROXY_DEPLOYMENT_GROUP": "nginx", "HAPROXY_0_PORT": "10000",
            "HAPROXY_DEPLOYMENT_STARTED_AT": started,
        },
        "portDefinitions": [{"port": port}],
        "tasks": tasks.collect::<Vec<_>>(),
    });
    for (name, value) in labels.as_object().unwrap() {
        app["labels"][name] = value.clone();
    }
    app["labels"]
        .as_object_mut()
        .unwrap()
        .retain(|_, value| !value.is_null());
    app
}

/// What zdd says of the new app.
fn towards(target: u32) -> Value {
    json!({
        "HAPROXY_DEPLOYMENT_TARGET_INSTANCES": target.to_string(), "HAPROXY_DEPLOYMENT_NEW_INSTANCES": "0"
    })
}

fn built(apps: Value) -> Snapshot {
    build_at(
        &json!({ "apps": apps }),
        &json!([]),
        &Versions::default(),
        None,
        &edge(),
    )
}

/// Tasks by whether they get new flows, of the group's VIP.
fn up_and_maintained(snapshot: &Snapshot) -> (Vec<String>, Vec<String>) {
    let of_group = snapshot
        .pools
        .iter()
        .filter(|pool| line(pool).starts_with("/nginx.marathon:10000/tcp "));
    let backends = of_group.flat_map(|pool| &pool.backends);
    let (up, maintained): (Vec<_>, Vec<_>) =
        backends.partition(|backend| backend.draining.is_none());
    for backend in &maintained {
        assert!(
            backend.draining.unwrap().why().starts_with("maintenance"),
            "{backend:?}"
        );
        assert_eq!(backend.weight.get(), 0);
    }
    let ids = |all: Vec<&crate::provider::Backend>| {
        all.iter().map(|backend| backend.task.to_string()).collect()
    };
    (ids(up), ids(maintained))
}

#[test]
fn as_many_old_tasks_are_taken_out_as_new_ones_came_in() {
    for (old, new, target, drain) in [(4, 0, 4, 0), (4, 1, 4, 1), (3, 2, 4, 1), (2, 4, 4, 2)] {
        let snapshot = built(json!([
            app("blue", old, json!({})),
            app("green", new, towards(target))
        ]));
        let (up, maintained) = up_and_maintained(&snapshot);
        let case = format!("{old} old, {new} new, {target} wanted");
        let first: Vec<_> = (0..drain).map(|n| format!("blue{n}")).collect();
        assert_eq!(maintained, first, "{case}");
        assert_eq!(up.len(), 4, "{case}");
        assert_eq!(reasons(&snapshot), [""; 0]);
    }
}

#[test]
fn both_apps_stand_at_the_service_ports_of_the_old_one_under_the_groups_name() {
    let blue = app(
        "blue",
        1,
        json!({"HAPROXY_0_PORT": "10007", "HAPROXY_0_BALANCE": "source"}),
    );
    let green = app(
        "green",
        1,
        json!({"HAPROXY_0_BALANCE": "leastconn", "HAPROXY_GROUP": "other"}),
    );
    let snapshot = built(json!([blue, green]));
    assert_eq!(
        lines(&snapshot),
        [
            "/nginx.marathon:10007/tcp /nginx-blue = 10.0.0.1:31000 w0 (maintenance: replaced by a new task of its \
             deployment group)",
            "/nginx.marathon:10007/tcp /nginx-green = 10.0.0.2:32000 w1",
        ]
    );
    assert_eq!(snapshot.pools[0].properties, snapshot.pools[1].properties);
    let properties = snapshot.pools[0].properties.as_ref().unwrap();
    assert_eq!(properties.balance, crate::catalog::Balance::Source);
}

#[test]
fn an_app_alone_in_its_group_is_an_ordinary_app_with_the_groups_name() {
    let snapshot = built(json!([app(
        "blue",
        2,
        json!({"HAPROXY_DEPLOYMENT_GROUP": "/nginx"})
    )]));
    assert_eq!(
        lines(&snapshot),
        ["/nginx.marathon:10000/tcp /nginx-blue = 10.0.0.1:31000 w1, 10.0.0.1:31001 w1"]
    );
}

#[test]
fn the_date_says_who_is_new_and_none_is_the_oldest() {
    for (blue, green, first_out) in [
        (json!(GREEN), json!(BLUE), "green0"),
        (json!(BLUE), json!(GREEN), "blue0"),
        (json!(GREEN), Value::Null, "green0"),
        (json!("soon"), json!(GREEN), "blue0"),
        // Equal, or neither: by app id.
        (json!(BLUE), json!(BLUE), "blue0"),
        (Value::Null, Value::Null, "blue0"),
        // The same moment elsewhere.
        (
            json!("2024-03-05T10:30:00+02:00"),
            json!("2024-03-05T08:29:00Z"),
            "green0",
        ),
        // As zdd.py writes it, without a zone.
        (
            json!("2024-03-05T10:30:00.123456"),
            json!("2024-03-05T09:29:00.123456"),
            "green0",
        ),
    ] {
        let started = |at: &Value| json!({"HAPROXY_DEPLOYMENT_STARTED_AT": at});
        let snapshot = built(json!([
            app("blue", 1, started(&blue)),
            app("green", 1, started(&green))
        ]));
        assert_eq!(
            up_and_maintained(&snapshot).1,
            [first_out],
            "{blue} {green}"
        );
    }
}

#[test]
fn without_the_number_of_new_instances_the_target_is_one() {
    let snapshot = built(json!([
        app("blue", 3, json!({})),
        app("green", 2, json!({}))
    ]));
    assert_eq!(
        up_and_maintained(&snapshot).1,
        ["blue0", "blue1"],
        "never more than came in"
    );
}

#[test]
fn in_a_hybrid_deployment_the_app_that_was_scaled_last_is_being_filled() {
    let hybrid = |new: &str| json!({"HAPROXY_DEPLOYMENT_TARGET_INSTANCES": "4", "HAPROXY_DEPLOYMENT_NEW_INSTANCES": new});
    for (new, scaled_blue, first_out) in [
        ("2", GREEN, "green0"),
        ("2", BLUE, "blue0"),
        ("0", GREEN, "blue0"),
    ] {
        let mut blue = app("blue", 3, hybrid("2"));
        blue["versionInfo"] = json!({"lastScalingAt": scaled_blue});
        let mut green = app("green", 2, hybrid(new));
        green["versionInfo"] = json!({"lastScalingAt": "2024-03-05T08:30:00Z"});
        let snapshot = built(json!([blue, green]));
        assert_eq!(
            up_and_maintained(&snapshot).1[0],
            first_out,
            "{new} {scaled_blue}"
        );
    }
}

#[test]
fn of_three_apps_the_latest_is_new_and_it_is_said() {
    let mut red = app(
        "green",
        1,
        json!({"HAPROXY_DEPLOYMENT_STARTED_AT": "2024-03-05T10:00:00Z"}),
    );
    red["id"] = json!("/nginx-red");
    red["tasks"] =
        json!([{"id": "red0", "host": "10.0.0.3", "state": "TASK_RUNNING", "ports": [33000]}]);
    let snapshot = built(json!([
        app("blue", 1, json!({})),
        app("green", 1, json!({})),
        red
    ]));
    let (up, maintained) = up_and_maintained(&snapshot);
    assert_eq!((up.len(), maintained), (2, vec!["blue0".to_owned()]));
    assert_eq!(
        reasons(&snapshot),
        [
            "/nginx-red: deployment group /nginx has more than two apps: this one is the new one, /nginx-blue, /nginx-green \
          are all old"
        ]
    );
}

#[test]
fn only_tasks_that_take_flows_replace_others_and_only_running_ones_are_replaced() {
    for (state, checks, out) in [
        ("TASK_RUNNING", json!([]), 1),
        ("TASK_STAGING", json!([]), 0),
        ("TASK_KILLING", json!([]), 0),
        ("TASK_RUNNING", json!([{"protocol": "TCP"}]), 0),
    ] {
        let mut green = app("green", 1, towards(4));
        green["tasks"][0]["state"] = json!(state);
        green["healthChecks"] = checks.clone();
        let snapshot = built(json!([app("blue", 4, json!({})), green]));
        let maintained = snapshot.pools.iter().flat_map(|pool| &pool.backends);
        let maintained = maintained.filter(|b| {
            b.draining
                .is_some_and(|drain| drain.why().starts_with("maintenance"))
        });
        assert_eq!(maintained.count(), out, "{state} {checks}");
    }
    let mut green = towards(4);
    green["lb.weight"] = json!("0");
    let snapshot = built(json!([app("blue", 4, json!({})), app("green", 1, green)]));
    let backends = snapshot.pools.iter().flat_map(|pool| &pool.backends);
    let whys = backends.filter_map(|b| Some(b.draining?.why()));
    assert!(
        whys.eq(["weight 0"]),
        "it takes nothing, and nobody's place"
    );
    let mut blue = app("blue", 4, json!({}));
    blue["instances"] = json!(3);
    blue["tasks"][0]["state"] = json!("TASK_KILLING");
    let snapshot = built(json!([blue, app("green", 2, towards(4))]));
    let blues = &snapshot.pools[0].backends;
    let reasons: Vec<_> = blues
        .iter()
        .map(|b| b.draining.map_or("", crate::catalog::Drain::why))
        .collect();
    assert_eq!(reasons[0], "TASK_KILLING");
    assert!(reasons[1].starts_with("maintenance"), "{reasons:?}");
    assert_eq!(reasons[2..], ["", ""]);
}

#[test]
fn a_replaced_task_gets_no_new_flows_by_any_other_vip() {
    let mut blue = app("blue", 1, json!({}));
    blue["portDefinitions"][0]["labels"] = json!({"VIP_0": "/web:80"});
    let snapshot = built(json!([blue, app("green", 1, json!({}))]));
    let named = lines(&snapshot)
        .into_iter()
        .find(|line| line.starts_with("/web.marathon:80"));
    assert!(named.unwrap().contains("10.0.0.1:31000 w0 (maintenance"));
}

#[test]
fn an_agent_of_another_group_leaves_the_deployment_alone() {
    let mut blue = app("blue", 1, json!({}));
    blue["portDefinitions"][0]["labels"] = json!({"VIP_0": "/web:80"});
    let apps = json!({ "apps": [blue, app("green", 1, json!({}))] });
    let snapshot = build_at(
        &apps,
        &json!([]),
        &Versions::default(),
        None,
        &Edge::default(),
    );
    assert_eq!(
        lines(&snapshot),
        ["/web.marathon:80/tcp /nginx-blue = 10.0.0.1:31000 w1"]
    );
}

#[test]
fn a_target_that_is_no_number_takes_nobody_out() {
    let wrong = json!({"HAPROXY_DEPLOYMENT_TARGET_INSTANCES": "many", "HAPROXY_DEPLOYMENT_NEW_INSTANCES": "0"});
    let snapshot = built(json!([app("blue", 2, json!({})), app("green", 2, wrong)]));
    assert_eq!(up_and_maintained(&snapshot).0.len(), 4);
    assert_eq!(
        reasons(&snapshot),
        [
            "/nginx-green: label HAPROXY_DEPLOYMENT_TARGET_INSTANCES is not a number, and HAPROXY_DEPLOYMENT_NEW_INSTANCES \
          needs it; no task of the deployment group is taken out"
        ]
    );
    let nameless = built(json!([app(
        "blue",
        1,
        json!({"HAPROXY_DEPLOYMENT_GROUP": "/"})
    )]));
    assert_eq!(
        lines(&nameless),
        ["/nginx-blue.marathon:10000/tcp /nginx-blue = 10.0.0.1:31000 w1"]
    );
    assert!(reasons(&nameless)[0].contains("it names no group"));
}
