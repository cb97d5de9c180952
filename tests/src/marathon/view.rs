//! State as Marathon's API shows it.

use serde_json::{Value, json};

use super::{
    app,
    cluster::{App, Inner, Task},
};

/// A task; `service_ports` are filled in only by `/v2/tasks`.
pub(super) fn task(task: &Task, service_ports: &[u64]) -> Value {
    let mut shown = json!({
        "appId": task.app, "healthCheckResults": [], "host": task.agent.address.to_string(), "id": task.id,
        "ipAddresses": addresses(task), "ports": task.ports, "servicePorts": service_ports,
        "slaveId": slave_id(task), "state": task.state, "stagedAt": task.staged_at, "version": task.version,
        "localVolumes": [], "role": "slave_public",
    });
    if let Some(started) = &task.started_at {
        shown["startedAt"] = json!(started);
    }
    shown
}

/// The addresses of a task; none before it starts.
pub(super) fn addresses(task: &Task) -> Value {
    if task.state == "TASK_STAGING" {
        return json!([]);
    }
    task.addresses
        .iter()
        .map(|at| json!({"ipAddress": at, "protocol": if at.is_ipv6() { "IPv6" } else { "IPv4" }}))
        .collect()
}

pub(super) fn slave_id(task: &Task) -> String {
    format!("6f1d7c0e-9c0a-4c3e-8d2b-0b8a3a5f2a11-{}", task.agent.name)
}

/// An app with its counts and deployments, and what was asked to be embedded.
pub(super) fn app(inner: &Inner, app: &App, with_tasks: bool, with_readiness: bool) -> Value {
    let id = app.current["id"].as_str().unwrap_or_default();
    let mine = || inner.tasks.iter().filter(|task| task.app == id);
    let count = |states: &[&str]| mine().filter(|task| states.contains(&task.state)).count();
    let mut shown = app.current.clone();
    shown["ports"] = json!(app::service_ports(&app.current));
    shown["tasksStaged"] = json!(count(&["TASK_STAGING", "TASK_STARTING"]));
    shown["tasksRunning"] = json!(count(&["TASK_RUNNING"]));
    shown["tasksHealthy"] = json!(0);
    shown["tasksUnhealthy"] = json!(0);
    shown["deployments"] = inner
        .deployments
        .iter()
        .filter(|deployment| deployment["affectedApps"][0] == id)
        .map(|deployment| json!({"id": deployment["id"]}))
        .collect();
    if with_tasks {
        shown["tasks"] = mine().map(|mine| task(mine, &[])).collect();
    }
    if with_readiness {
        shown["readinessCheckResults"] = json!([]);
    }
    shown
}

/// All tasks, with the service ports of their app; `status` is `running` or `staging`.
pub(super) fn tasks(inner: &Inner, status: Option<&str>) -> Value {
    let wanted = |task: &&Task| match status {
        Some("running") => task.state == "TASK_RUNNING",
        Some("staging") => task.state == "TASK_STAGING",
        _ => true,
    };
    let with_ports = |shown: &Task| {
        let ports = inner
            .apps
            .get(&shown.app)
            .map(|app| app::service_ports(&app.current));
        task(shown, &ports.unwrap_or_default())
    };
    inner.tasks.iter().filter(wanted).map(with_ports).collect()
}
