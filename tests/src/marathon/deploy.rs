//! Deployments: starting and stopping tasks until what runs is what was asked for.

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{task::spawn_blocking, time::sleep};

use super::{Marathon, clock, cluster::Step, launch::launch, view};
use crate::lab::wait_until;

impl Marathon {
    /// Starts a deployment in the background and returns `{"version", "deploymentId"}`.
    pub(super) fn deploy(&self, app_id: &str, action: &'static str) -> Value {
        let version = clock::version();
        let digits: String = version.chars().filter(char::is_ascii_digit).collect();
        let id = format!("97c136bf-5a28-4821-9d94-{}", &digits[digits.len() - 12..]);
        let deployment = json!({
            "id": id, "version": version, "affectedApps": [app_id], "affectedPods": [],
            "steps": [{"actions": [{"action": action, "app": app_id}]}],
            "currentActions": [{"action": action, "app": app_id}], "currentStep": 1, "totalSteps": 1,
        });
        self.cluster.lock().deployments.push(deployment);
        let plan = json!({
            "id": id, "version": version, "steps": [{"actions": [{"action": action, "app": app_id}]}],
        });
        let (marathon, app_id) = (self.clone(), app_id.to_owned());
        tokio::spawn(async move { marathon.carry_out(&app_id, plan).await });
        json!({"version": version, "deploymentId": id})
    }

    async fn carry_out(&self, app_id: &str, plan: Value) {
        let _one_at_a_time = self.cluster.deploying.lock().await;
        let (id, step) = (plan["id"].clone(), plan["steps"][0].clone());
        self.bus.send(
            "group_change_success",
            json!({"groupId": "/", "version": plan["version"]}),
        );
        self.bus.send(
            "deployment_info",
            json!({"plan": plan, "currentStep": step}),
        );
        let ended = self.converge(app_id).await;
        self.cluster
            .lock()
            .deployments
            .retain(|deployment| deployment["id"] != id);
        match ended {
            Ok(()) => {
                self.bus.send(
                    "deployment_step_success",
                    json!({"plan": plan, "currentStep": step}),
                );
                self.bus
                    .send("deployment_success", json!({"id": id, "plan": plan}));
            }
            Err(error) => {
                eprintln!("deployment of {app_id} failed: {error:#}");
                let reason = format!("{error:#}");
                self.bus.send(
                    "deployment_failed",
                    json!({"id": id, "plan": plan, "reason": reason}),
                );
            }
        }
    }

    async fn converge(&self, app_id: &str) -> Result<()> {
        loop {
            let step = self.cluster.lock().next_step(app_id);
            match step {
                Step::Start => self.start(app_id).await?,
                Step::Kill(task) => self.kill(&task).await?,
                Step::Done => break,
            }
        }
        if !self.cluster.lock().apps.contains_key(app_id) {
            self.bus
                .send("app_terminated_event", json!({"appId": app_id}));
        }
        Ok(())
    }

    async fn start(&self, app_id: &str) -> Result<()> {
        let id = self.cluster.place(app_id, &self.config)?;
        self.enter(&id, "TASK_STAGING", "Staging")?;
        sleep(self.config.step).await;
        let (marathon, task_id) = (self.clone(), id.clone());
        let launched = spawn_blocking(move || marathon.launch(&task_id)).await?;
        if let Err(error) = launched {
            self.enter(&id, "TASK_FAILED", "Failed")?;
            self.cluster.lock().tasks.retain(|task| task.id != id);
            return Err(error);
        }
        self.enter(&id, "TASK_STARTING", "Starting")?;
        sleep(self.config.step).await;
        if let Some(task) = self.cluster.lock().task(&id) {
            task.started_at = Some(clock::now());
        }
        self.enter(&id, "TASK_RUNNING", "Running")
    }

    /// TASK_KILLING, a pause, SIGTERM, and TASK_KILLED once the process is gone.
    async fn kill(&self, id: &str) -> Result<()> {
        self.enter(id, "TASK_KILLING", "Killing")?;
        sleep(self.config.kill_delay).await;
        let process = self.cluster.lock().processes.remove(id);
        let grace = self.config.kill_grace;
        spawn_blocking(move || {
            let Some(mut process) = process else { return };
            // Mesos sends SIGKILL when the grace period is over, as dropping the process does.
            let _ = process.signal(Signal::TERM);
            let _ = wait_until("the task ends", grace, || process.has_ended());
        })
        .await?;
        self.enter(id, "TASK_KILLED", "Killed")?;
        self.cluster.lock().tasks.retain(|task| task.id != id);
        Ok(())
    }

    /// Blocks until the task answers.
    fn launch(&self, id: &str) -> Result<()> {
        let task = self
            .cluster
            .lock()
            .task(id)
            .cloned()
            .context("the task is gone")?;
        let process = launch(&task, &self.config.logs, self.config.kill_grace)?;
        self.cluster.lock().processes.insert(task.id, process);
        Ok(())
    }

    /// Sets a task's state and tells everybody, as Marathon does, with two events.
    fn enter(&self, id: &str, state: &'static str, condition: &str) -> Result<()> {
        let mut inner = self.cluster.lock();
        let task = inner.task(id).context("the task is gone")?;
        task.state = state;
        let killed = state == "TASK_KILLED";
        let message = if killed {
            "Command terminated with signal Terminated"
        } else {
            ""
        };
        let host = task.agent.address.to_string();
        self.bus.send(
            "status_update_event",
            json!({
                "slaveId": view::slave_id(task), "taskId": task.id, "taskStatus": state, "message": message,
                "appId": task.app, "host": host, "ipAddresses": view::addresses(task), "ports": task.ports,
                "version": task.version,
            }),
        );
        self.bus.send(
            "instance_changed_event",
            json!({
                "instanceId": task.instance, "condition": condition, "runSpecId": task.app,
                "agentId": view::slave_id(task), "host": host, "runSpecVersion": task.version,
            }),
        );
        Ok(())
    }
}
