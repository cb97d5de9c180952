//! The sample bodies give exactly the pools that are listed for them.

use super::*;

const APP2: &str =
    "/dcos-101/app2.marathon:10000/tcp /dcos-101/app2 = 10.0.1.5:28543 w1, 10.0.3.9:11017 w1";
const SHOP: [&str; 5] = [
    "/shop/api.marathon:80/tcp /shop/api = 10.0.1.5:31001 w1, \
     10.0.1.5:31010 w0 (no health result yet), 10.0.3.9:20560 w0 (unhealthy)",
    "/shop/dns.marathon:53/tcp /shop/api = 10.0.1.5:31003 w1, \
     10.0.1.5:31012 w0 (no health result yet), 10.0.3.9:20562 w0 (unhealthy)",
    "/shop/dns.marathon:53/udp /shop/api = 10.0.1.5:31003 w1, \
     10.0.1.5:31012 w0 (no health result yet), 10.0.3.9:20562 w0 (unhealthy)",
    "/shop/stats.marathon:8125/udp /shop/api = 10.0.1.5:31002 w1, \
     10.0.1.5:31011 w0 (no health result yet), 10.0.3.9:20561 w0 (unhealthy)",
    "shop-api.marathon:8080/tcp /shop/api = 10.0.1.5:31001 w1, \
     10.0.1.5:31010 w0 (no health result yet), 10.0.3.9:20560 w0 (unhealthy)",
];
const KILLING: &str =
    "/shop/killing.marathon:80/tcp /shop/killing = 10.0.1.5:31020 w0 (TASK_KILLING)";
const MYAPP: [&str; 2] = [
    "/mygroup/myapp.marathon:80/tcp /mygroup/myapp = 9.0.1.6:80 w1, 9.0.2.130:80 w1",
    "[10.1.2.3]:5000/tcp /mygroup/myapp = 10.0.1.5:31100 w1, 10.0.3.9:31101 w1",
];
const SIX: [&str; 2] = [
    "/six.marathon:8080/tcp /six = 172.19.0.2:8080 w1, [fd01:b::2:8000:0:2]:8080 w1",
    "[fd01:c::1234]:8080/tcp /six = [fd01:b::2:8000:0:2]:8080 w1",
];

fn body(name: &str) -> Value {
    let text = match name {
        "01" => include_str!("../fixtures/01-apps-dcos101-host.json"),
        "02" => include_str!("../fixtures/02-apps-bridge.json"),
        "03" => include_str!("../fixtures/03-apps-container.json"),
        "05" => include_str!("../fixtures/05-tasks.json"),
        "06" => include_str!("../fixtures/06-pods-status.json"),
        other => panic!("no fixture {other}"),
    };
    serde_json::from_str(text).unwrap()
}

fn of_apps(name: &str) -> Snapshot {
    let snapshot = build_with(&body(name), &json!([]), &Versions::default(), None);
    assert_eq!(reasons(&snapshot), [""; 0]);
    snapshot
}

#[test]
fn dcos_101_on_the_hosts_network() {
    assert_eq!(lines(&of_apps("01")), [APP2]);
}

#[test]
fn bridge_with_health_two_vips_on_a_port_and_two_protocols() {
    let expected: Vec<&str> = SHOP.into_iter().chain([KILLING]).collect();
    assert_eq!(lines(&of_apps("02")), expected);
}

#[test]
fn container_network_with_ip_vips_and_both_families() {
    let expected: Vec<&str> = MYAPP.into_iter().chain(SIX).collect();
    assert_eq!(lines(&of_apps("03")), expected);
}

#[test]
fn tasks_joined_with_definitions_by_app_id_give_the_same_pools() {
    let tasks = body("05");
    let tasks = tasks["tasks"].as_array().unwrap();
    let mut joined = Vec::new();
    for mut app in ["01", "02", "03"]
        .iter()
        .flat_map(|name| body(name)["apps"].as_array().unwrap().clone())
    {
        let own = tasks.iter().filter(|task| task["appId"] == app["id"]);
        app["tasks"] = own.cloned().collect();
        if app["tasks"] != json!([]) {
            joined.push(app);
        }
    }
    let mut expected = vec![APP2];
    expected.extend(MYAPP);
    expected.extend(SHOP);
    expected.sort_by_key(|line| line.split(' ').nth(1));
    assert_eq!(lines(&apps(joined.into())), expected);
}

#[test]
fn a_pod_with_and_without_a_host_port() {
    let empty = json!({ "apps": [] });
    let snapshot = build_with(&empty, &body("06"), &Versions::default(), None);
    assert_eq!(
        lines(&snapshot),
        [
            "/pod-adm.marathon:81/tcp /pod-web = 10.0.1.5:31201 w1",
            "/pod-web.marathon:80/tcp /pod-web = 9.0.1.7:80 w1",
        ]
    );
    assert_eq!(reasons(&snapshot), [""; 0]);
}

/// Explicit nulls, `[]` and `{}` for what is absent: the oldest and the newest writers agree.
#[test]
fn null_and_empty_mean_absent() {
    for empty in [json!(null), json!([]), json!({})] {
        let mut body = body("02");
        for app in body["apps"].as_array_mut().unwrap() {
            for key in [
                "ipAddress",
                "portDefinitions",
                "ports",
                "readinessCheckResults",
                "labels",
            ] {
                if app
                    .get(key)
                    .is_none_or(|value| key == "labels" || value.is_null())
                {
                    app[key] = empty.clone();
                }
            }
            if app.get("healthChecks").is_none() {
                app["healthChecks"] = empty.clone();
            }
            for task in app["tasks"].as_array_mut().unwrap() {
                if task["healthCheckResults"] == json!([]) {
                    task["healthCheckResults"] = empty.clone();
                }
            }
        }
        let snapshot = build_with(&body, &json!([]), &Versions::default(), None);
        assert_eq!(lines(&snapshot), lines(&of_apps("02")), "{empty}");
    }
}
