//! One reading of Marathon: bodies into apps, pods and what of them could not be read.
//!
//! A body of the wrong shape spoils the reading; a wrong object inside it spoils only itself.

use std::collections::{BTreeSet, HashSet};

use serde::Deserialize;
use serde_json::Value;

use super::{
    deployment,
    model::{AppState, Definition, Task, lenient},
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

#[derive(Deserialize)]
struct AppBody {
    app: Value,
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
    for value in apps.apps {
        reading.app(value);
    }
    for value in &pods {
        reading.pod(value);
    }
    Ok(reading)
}

// === impl Reading ===

impl Reading {
    /// The deployment groups that these apps are in.
    pub(super) fn groups_of(&self, ids: &BTreeSet<String>) -> BTreeSet<String> {
        let apps = self.apps.iter().filter(|app| ids.contains(&app.id));
        apps.filter_map(deployment::group_of).collect()
    }

    /// Takes these apps out, and those of these deployment groups: what one of them contributes follows from them alone.
    pub(super) fn split(&mut self, ids: &BTreeSet<String>, groups: &BTreeSet<String>) -> Self {
        let is_part = |app: &App| {
            ids.contains(&app.id)
                || (!groups.is_empty()
                    && deployment::group_of(app).is_some_and(|group| groups.contains(&group)))
        };
        let (part, rest) = std::mem::take(&mut self.apps)
            .into_iter()
            .partition(is_part);
        self.apps = rest;
        let mut part = Self {
            apps: part,
            ..Self::default()
        };
        let of_part = |what: &Culprit| match what {
            Culprit::App(Some(app)) | Culprit::Task { app, .. } => {
                ids.contains(app) || part.apps.iter().any(|known| known.id == *app)
            }
            Culprit::App(None) | Culprit::Instance { .. } => false,
        };
        let (broken, rest) = std::mem::take(&mut self.broken)
            .into_iter()
            .partition(|broken| of_part(&broken.what));
        self.broken = rest;
        part.broken = broken;
        part
    }

    /// Puts back what [`Self::split`] took out.
    pub(super) fn join(&mut self, part: Self) {
        self.apps.extend(part.apps);
        self.broken.extend(part.broken);
    }

    /// Puts an app in the place of what is known of it; `body`: of `/v2/apps/{id}`.
    ///
    /// # Errors
    /// The body is not the app's; nothing has changed then.
    pub(super) fn replace_app(&mut self, id: &str, body: &[u8]) -> Result<(), String> {
        let body: AppBody = serde_json::from_slice(body)
            .map_err(|e| format!("the answer to GET /v2/apps{id} is not an app: {e}"))?;
        if id_of(&body.app).as_deref() != Ok(id) {
            return Err(format!("the answer to GET /v2/apps{id} is another app"));
        }
        self.apps.retain(|app| app.id != id);
        self.broken.retain(|broken| match &broken.what {
            Culprit::App(of) => of.as_deref() != Some(id),
            Culprit::Task { app, .. } => app != id,
            Culprit::Instance { .. } => true,
        });
        self.empty = false;
        self.app(body.app);
        Ok(())
    }

    fn app(&mut self, mut value: Value) {
        let id = match id_of(&value) {
            Ok(id) => id,
            Err(why) => return self.broken(Culprit::App(None), why),
        };
        // By far the most of it: not to be copied.
        let tasks = value.get_mut("tasks").map(Value::take);
        let parts = tasks_of(tasks).and_then(|tasks| {
            let current = Definition::deserialize(&value)?;
            Ok((tasks, current, AppState::deserialize(&value)?))
        });
        let (all, current, state) = match parts {
            Ok(parts) => parts,
            Err(e) => return self.broken(Culprit::App(Some(id)), e.to_string()),
        };
        let mut tasks = Vec::with_capacity(all.len());
        for task in &all {
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

/// Absent, `null` and `{}` are none.
fn tasks_of(tasks: Option<Value>) -> Result<Vec<Value>, serde_json::Error> {
    match tasks {
        None => Ok(Vec::new()),
        Some(Value::Array(tasks)) => Ok(tasks),
        Some(other) => lenient(other),
    }
}

fn id_of(value: &Value) -> Result<String, String> {
    match value.get("id") {
        Some(Value::String(id)) if !id.is_empty() => Ok(id.clone()),
        Some(other) => Err(format!("its id is {other}")),
        None => Err("it has no id".to_owned()),
    }
}
