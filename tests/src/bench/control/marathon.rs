//! A running agent that reads a Marathon of a thousand apps with ten tasks each.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, MapData};
use lb_agent::plan::Endpoint;
use lb_common::{Backend, backend_state};
use serde_json::{Value, json};

use super::{
    Effort,
    agent::{self, WITHIN, millis, pinned, wait},
};
use crate::{
    answers::Answers,
    lab::{HostSpec, Lab, wait_until},
};

/// Apps, and tasks of each.
pub(super) const APPS: usize = 1_000;
pub(super) const TASKS: usize = 10;

/// Figures of one agent.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// From the end of an answer that has a new task in the place of an old one in each app, until the last old one is
    /// out of the map, ms: all tables were swapped before.
    pub(super) snapshot: Vec<f64>,
    /// From the end of an answer about one app to the state of its task in the map, ms.
    pub(super) event: Vec<f64>,
    /// The same from the event that told of it.
    pub(super) whole: Vec<f64>,
    /// Percent of one CPU, with a stream that is silent.
    pub(super) idle: Vec<f64>,
}

/// One app: `generation` makes its first task another, `killing` is one that is being stopped.
fn app(number: usize, generation: u16, killing: Option<usize>) -> Value {
    let id = format!("/group-{}/app-{number}", number % 20);
    let tasks = (0..TASKS).map(|task| {
        let state = if killing == Some(task) { "TASK_KILLING" } else { "TASK_RUNNING" };
        let at = address(number, task, generation);
        json!({
            "appId": id, "id": format!("app-{number}.instance-{task}-5c9a-11ee-8c99-0242ac120002._app.1"),
            "host": at.ip().to_string(), "state": state, "ports": [at.port()], "servicePorts": [],
            "slaveId": "6f1d7c0e-9c0a-4c3e-8d2b-0b8a3a5f2a11-S7",
            "ipAddresses": [{"ipAddress": at.ip().to_string(), "protocol": "IPv4"}],
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
        "env": {"LEVEL": "info", "REGION": "eu-1"}, "labels": {"team": "blue"},
        "portDefinitions": [{
            "port": 10_000 + number, "protocol": "tcp", "name": "http", "labels": {"VIP_0": format!("{id}:80")}
        }],
        "healthChecks": [{"protocol": "MESOS_HTTP", "path": "/health", "portIndex": 0}],
        "version": "2024-03-05T09:00:00.000Z",
        "versionInfo": {
            "lastScalingAt": "2024-03-05T09:00:00.000Z", "lastConfigChangeAt": "2024-03-05T09:00:00.000Z"
        },
        "tasks": tasks.collect::<Vec<_>>(), "tasksRunning": TASKS, "deployments": []
    })
}

fn address(number: usize, task: usize, generation: u16) -> SocketAddr {
    let [_, _, high, low] = (number as u32).to_be_bytes();
    let port = 31_000 + if task == 0 { generation } else { 0 };
    (Ipv4Addr::new(10, task as u8 + 1, high, low), port).into()
}

fn apps(generation: u16) -> Value {
    let apps: Vec<Value> = (0..APPS)
        .map(|number| app(number, generation, None))
        .collect();
    json!({ "apps": apps })
}

/// Measures, and watches it for `idle` seconds without any change.
pub(super) fn measure(effort: &Effort, idle: u64) -> Result<Taken> {
    let lab = Lab::new()?;
    let host = lab.host(&HostSpec::new("control").address("10.77.0.1/24"))?;
    let answers = Answers::serve(&host, "10.77.0.1:8080".parse()?, "marathon", &apps(0))?;
    let mut taken = Taken::default();
    let mut agent = agent::start(&host, &["--marathon", "http://10.77.0.1:8080"])?;
    let backends = pinned(&host, &mut agent)?;
    wait_until("the first snapshot is in the maps", WITHIN, || {
        count(&backends, &all(0)).is_ok_and(|count| count == APPS * TASKS)
    })?;
    answers.wait_for_stream()?;
    for round in 1..=effort.agent_rounds as u16 {
        let old = firsts(round - 1);
        let last = ids(&backends, &old)?.into_iter().max();
        let last = last.context("no task is in the map")?;
        answers.set("/v2/apps", &apps(round));
        answers.event(&json!({"eventType": "group_change_success", "groupId": "/"}));
        wait(&mut agent, &backends, last, |value| {
            value.state == backend_state::FREE
        })?;
        // Pods are asked for last.
        let took = millis(answers.answered("/v2/pods/::status")?);
        taken.snapshot.push(took);
        let (left, new) = (count(&backends, &old)?, count(&backends, &all(round))?);
        ensure!(
            (left, new) == (0, APPS * TASKS),
            "{left} old and {new} of the new tasks"
        );
    }
    let generation = effort.agent_rounds as u16;
    for round in 0..effort.rounds {
        let (number, task) = ((round * 7919) % APPS, round % TASKS);
        let at = [address(number, task, generation)].into();
        let id = ids(&backends, &at)?.pop();
        let id = id.context("the task is in no map")?;
        let changed = app(number, generation, Some(task));
        let name = changed["id"].as_str().context("an id")?.to_owned();
        answers.set(&format!("/v2/apps{name}"), &json!({ "app": changed }));
        let began = Instant::now();
        let event = json!({
            "eventType": "status_update_event", "appId": name, "taskStatus": "TASK_KILLING", "taskId": "x"
        });
        answers.event(&event);
        wait(&mut agent, &backends, id, |value| {
            value.state == backend_state::DRAINING
        })?;
        taken.whole.push(millis(began));
        taken
            .event
            .push(millis(answers.answered(&format!("/v2/apps{name}"))?));
    }
    ensure!(
        answers.most_at_once() == 1,
        "more than one request at a time"
    );
    taken.idle.push(agent::at_rest(&mut agent, idle)?);
    Ok(taken)
}

fn all(generation: u16) -> BTreeSet<SocketAddr> {
    let tasks = (0..APPS).flat_map(|number| (0..TASKS).map(move |task| (number, task)));
    tasks
        .map(|(number, task)| address(number, task, generation))
        .collect()
}

/// The first task of each app.
fn firsts(generation: u16) -> BTreeSet<SocketAddr> {
    (0..APPS)
        .map(|number| address(number, 0, generation))
        .collect()
}

/// The ids of those that are in the map.
fn ids(backends: &Array<MapData, Backend>, wanted: &BTreeSet<SocketAddr>) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    for id in 1..=2 * (APPS * TASKS) as u32 {
        let value = backends.get(&id, 0)?;
        let Some(Endpoint { addr, port, .. }) = Endpoint::of(&value) else {
            continue;
        };
        if value.state != backend_state::FREE && wanted.contains(&SocketAddr::new(addr, port)) {
            ids.push(id);
        }
    }
    Ok(ids)
}

fn count(backends: &Array<MapData, Backend>, wanted: &BTreeSet<SocketAddr>) -> Result<usize> {
    Ok(ids(backends, wanted)?.len())
}
