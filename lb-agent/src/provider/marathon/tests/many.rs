//! A thousand apps: how long it takes from an answer to what is to be.

use std::time::{Duration, Instant};

use super::*;
use crate::{
    catalog::{Catalog, Policy},
    provider::{ProviderId, Update},
    vip,
};

const APPS: usize = 1_000;
const TASKS: usize = 10;

/// As Marathon answers it, with all that nobody reads.
fn app(number: usize, first_port: usize) -> Value {
    let id = format!("/group-{}/app-{number}", number % 20);
    let tasks = (0..TASKS).map(|n| {
        json!({
            "appId": id, "id": format!("group_app-{number}.instance-0000{n}-5c9a-11ee-8c99-0242ac120002._app.1"),
            "host": format!("10.{}.{}.{}", number % 4, n, 1 + number % 250), "state": "TASK_RUNNING",
            "ports": [first_port + n], "servicePorts": [], "slaveId": "6f1d7c0e-9c0a-4c3e-8d2b-0b8a3a5f2a11-S7",
            "ipAddresses": [{"ipAddress": "10.0.1.5", "protocol": "IPv4"}],
            "stagedAt": "2024-03-05T09:00:01.000Z", "startedAt": "2024-03-05T09:00:03.000Z",
            "version": "2024-03-05T09:00:00.000Z", "localVolumes": [], "role": "slave_public",
            "healthCheckResults": [{
                "alive": true, "consecutiveFailures": 0, "firstSuccess": "2024-03-05T09:00:08.000Z",
                "instanceId": "x", "lastSuccess": "2024-03-06T09:00:08.000Z"
            }]
        })
    });
    json!({
        "id": id, "cmd": "./serve --port $PORT0", "cpus": 0.5, "mem": 256, "disk": 0, "instances": TASKS,
        "networks": [{"mode": "host"}], "requirePorts": false, "backoffSeconds": 1, "backoffFactor": 1.15,
        "env": {"LEVEL": "info", "REGION": "eu-1"}, "labels": {"HAPROXY_GROUP": "external", "team": "blue"},
        "portDefinitions": [{
            "port": 10_000 + number, "protocol": "tcp", "name": "http", "labels": {"VIP_0": format!("{id}:80")}
        }],
        "healthChecks": [{"protocol": "MESOS_HTTP", "path": "/health", "portIndex": 0}],
        "upgradeStrategy": {"maximumOverCapacity": 1, "minimumHealthCapacity": 1},
        "version": "2024-03-05T09:00:00.000Z",
        "versionInfo": {
            "lastScalingAt": "2024-03-05T09:00:00.000Z", "lastConfigChangeAt": "2024-03-05T09:00:00.000Z"
        },
        "tasks": tasks.collect::<Vec<_>>(), "tasksRunning": TASKS, "deployments": []
    })
}

#[test]
fn ten_thousand_tasks_are_read_in_no_time_and_one_app_in_less() {
    let apps: Vec<Value> = (0..APPS).map(|number| app(number, 31_000)).collect();
    let body = json!({ "apps": apps }).to_string();
    let one = json!({ "app": app(7, 31_500) }).to_string();
    let edge = Edge {
        groups: ["external".to_owned()].into(),
        ..Edge::default()
    };
    let framework = "marathon".into();
    let context = Context {
        framework: &framework,
        versions: &Versions::default(),
        agents: &HashMap::new(),
        edge: &edge,
    };
    let (min, max) = ([11, 0, 0, 0].into(), [11, 255, 255, 255].into());
    let pools = vip::Pools {
        v4: Some(vip::AddressPool::new(min, max).unwrap()),
        v6: None,
    };
    let mut allocator = vip::Allocator::new(pools, vip::Leases::default());
    let mut catalog = Catalog::new([ProviderId::new("marathon", "m")]);
    let mut resolve = |snapshot: &Snapshot| {
        catalog.apply(Update {
            provider: ProviderId::new("marathon", "m"),
            at: std::time::SystemTime::now(),
            outcome: Ok(std::sync::Arc::new(snapshot.clone())),
        });
        catalog.resolve(&Policy::default(), &mut allocator)
    };

    let began = Instant::now();
    let mut reading = reading::read(body.as_bytes(), None).unwrap();
    let read = began.elapsed();
    let first = build::build(&reading, &context, None);
    let built = began.elapsed();
    let desired = resolve(&first);
    let whole = began.elapsed();
    println!(
        "snapshot of {} kB: read {read:?}, built {:?}, resolved {:?}",
        body.len() / 1000,
        built - read,
        whole - built
    );
    assert_eq!(
        (first.pools.len(), desired.services.len()),
        (2 * APPS, 2 * APPS)
    );
    assert!(first.problems.is_empty());

    let began = Instant::now();
    let ids = ["/group-7/app-7".to_owned()].into();
    reading
        .replace_app("/group-7/app-7", one.as_bytes())
        .unwrap();
    let part = reading.split(&ids, &[].into());
    let needed = super::super::version::needed(&part);
    let read = began.elapsed();
    let second = build::merge(&first, &ids, build::build(&part, &context, Some(&first)));
    let built = began.elapsed();
    let desired = resolve(&second);
    let single = began.elapsed();
    println!(
        "one app: read {read:?}, built {:?}, resolved {:?}",
        built - read,
        single - built
    );
    assert!(needed.apps.is_empty());
    reading.join(part);
    let all = build::build(&reading, &context, None);
    assert_eq!(second, all, "the same as from everything");
    assert_eq!(desired.services.len(), 2 * APPS);
    let changed = first
        .pools
        .iter()
        .zip(&second.pools)
        .filter(|(a, b)| a != b);
    assert_eq!(changed.count(), 2);
    // Far more than it takes: what is meant is that nothing is quadratic.
    assert!(whole < Duration::from_secs(10) && single < Duration::from_secs(5));
}
