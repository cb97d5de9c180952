//! One reading of Marathon: bodies into apps, pods and what of them could not be read.
//!
//! A body of the wrong shape spoils the reading; a wrong object inside it spoils only itself.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::Value;

use super::{
    model::{AppState, Definition, Task},
    pod_model::{Pod, PodInstance, PodSpec, PodState},
};

/// What the apps and pods of one moment say.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Readable apps.
    pub(super) apps: Vec<App>,
    /// Readable pods.
    pub(super) pods: Vec<Pod>,
    /// Everything that was not readable.
    pub(super) broken: Vec<Broken>,
    /// There was no app and no pod at all, readable or not.
    pub(super) empty: bool,
}

/// An app and its readable tasks.
#[derive(Debug)]
pub(super) struct App {
    /// `/dcos-101/app2`.
    pub(super) id: String,
    /// The definition as returned.
    pub(super) current: Definition,
    /// `versionInfo.lastConfigChangeAt`.
    pub(super) last_config_change: Option<String>,
    /// `versionInfo.lastScalingAt`.
    pub(super) last_scaling: Option<String>,
    /// How many tasks it is to have.
    pub(super) instances: u64,
    /// Readable tasks, in any state.
    pub(super) tasks: Vec<Task>,
    /// Ids of tasks with a readiness result `false`.
    pub(super) not_ready: HashSet<String>,
}

/// An object that could not be read. What it contributed before stays in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    /// Which.
    pub(super) what: Culprit,
    /// What is wrong with it.
    pub(super) why: String,
}

/// Whose contribution to the last state stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Culprit {
    /// An app or pod; without an id it may be any that is not in this reading.
    App(Option<String>),
    /// A task of an app; without an id it may be any that is not in this reading.
    Task {
        /// The app.
        app: String,
        /// The task.
        id: Option<String>,
    },
    /// An instance of a pod, likewise.
    Instance {
        /// The pod.
        pod: String,
        /// The instance.
        id: Option<String>,
    },
}

#[derive(Deserialize)]
struct AppsBody {
    apps: Vec<Value>,
}

/// Reads the bodies of `/v2/apps` and `/v2/pods/::status` (absent: Marathon without pods).
///
/// # Errors
/// A body that is not complete JSON of the expected outer shape, in one sentence.
pub(super) fn read(apps: &[u8], pods: Option<&[u8]>) -> Result<Reading, String> {
    let apps: AppsBody = serde_json::from_slice(apps)
        .map_err(|e| format!("the answer to GET /v2/apps is not a list of apps: {e}"))?;
    let pods: Vec<Value> = pods.map_or_else(
        || Ok(Vec::new()),
        |body| {
            serde_json::from_slice(body).map_err(|e| {
                format!("the answer to GET /v2/pods/::status is not a list of pods: {e}")
            })
        },
    )?;
    let mut reading = Reading {
        empty: apps.apps.is_empty() && pods.is_empty(),
        ..Reading::default()
    };
    for value in &apps.apps {
        reading.app(value);
    }
    for value in &pods {
        reading.pod(value);
    }
    Ok(reading)
}

// === impl Reading ===

impl Reading {
    fn app(&mut self, value: &Value) {
        let id = match id_of(value) {
            Ok(id) => id,
            Err(why) => return self.broken(Culprit::App(None), why),
        };
        let parts = Definition::deserialize(value)
            .and_then(|current| Ok((current, AppState::deserialize(value)?)));
        let (current, state) = match parts {
            Ok(parts) => parts,
            Err(e) => return self.broken(Culprit::App(Some(id)), e.to_string()),
        };
        let mut tasks = Vec::with_capacity(state.tasks.len());
        for task in &state.tasks {
            match Task::deserialize(task) {
                Ok(task) => tasks.push(task),
                Err(e) => {
                    let what = Culprit::Task {
                        app: id.clone(),
                        id: id_of(task).ok(),
                    };
                    self.broken(what, e.to_string());
                }
            }
        }
        let not_ready = state.readiness_check_results.into_iter();
        let not_ready = not_ready
            .filter(|r| r.ready == Some(false))
            .map(|r| r.task_id)
            .collect();
        self.apps.push(App {
            id,
            current,
            last_config_change: state.version_info.last_config_change_at,
            last_scaling: state.version_info.last_scaling_at,
            instances: state.instances,
            tasks,
            not_ready,
        });
    }

    fn pod(&mut self, value: &Value) {
        let id = match id_of(value) {
            Ok(id) => id,
            Err(why) => return self.broken(Culprit::App(None), why),
        };
        let state = match PodState::deserialize(value) {
            Ok(state) => state,
            Err(e) => return self.broken(Culprit::App(Some(id)), e.to_string()),
        };
        let spec = match PodSpec::deserialize(&state.spec) {
            Ok(spec) => spec,
            Err(e) => return self.broken(Culprit::App(Some(id)), format!("spec: {e}")),
        };
        let mut instances = Vec::with_capacity(state.instances.len());
        for instance in &state.instances {
            match PodInstance::deserialize(instance) {
                Ok(instance) => instances.push(instance),
                Err(e) => {
                    let what = Culprit::Instance {
                        pod: id.clone(),
                        id: id_of(instance).ok(),
                    };
                    self.broken(what, e.to_string());
                }
            }
        }
        self.pods.push(Pod {
            id,
            spec,
            instances,
        });
    }

    fn broken(&mut self, what: Culprit, why: String) {
        self.broken.push(Broken { what, why });
    }
}

fn id_of(value: &Value) -> Result<String, String> {
    match value.get("id") {
        Some(Value::String(id)) if !id.is_empty() => Ok(id.clone()),
        Some(other) => Err(format!("its id is {other}")),
        None => Err("it has no id".to_owned()),
    }
}
