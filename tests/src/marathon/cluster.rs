//! Apps, tasks and where they run.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Agent, Config, app, clock};
use crate::lab::Process;

/// What a Mesos agent offers by default.
const HOST_PORTS: std::ops::Range<u16> = 31_000..32_000;

/// All of Marathon's state.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    inner: Mutex<Inner>,
    /// Held while a deployment runs: one at a time.
    pub(super) deploying: tokio::sync::Mutex<()>,
    launched: AtomicU32,
}

/// What the lock guards.
#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) apps: BTreeMap<String, App>,
    pub(super) tasks: Vec<Task>,
    pub(super) deployments: Vec<Value>,
    /// Ids of the tasks that go first when their app is scaled down.
    condemned: BTreeSet<String>,
    /// By task id.
    pub(super) processes: BTreeMap<String, Process>,
}

/// An app and all that it was.
#[derive(Debug)]
pub(super) struct App {
    /// The latest definition, with `version` and `versionInfo`.
    pub(super) current: Value,
    /// Every definition by version.
    pub(super) versions: BTreeMap<String, Value>,
}

/// A task from TASK_STAGING to the moment it is gone.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) id: String,
    pub(super) instance: String,
    pub(super) app: String,
    pub(super) agent: Agent,
    /// What it calls its node: the agent, and in a container its own address too.
    pub(super) node: String,
    pub(super) netns: String,
    pub(super) cgroup: PathBuf,
    /// Host ports in declaration order, as Marathon shows them.
    pub(super) ports: Vec<u16>,
    /// The ports it listens on: the host ports, or the container ports.
    pub(super) listens: Vec<u16>,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) state: &'static str,
    pub(super) version: String,
    pub(super) staged_at: String,
    pub(super) started_at: Option<String>,
}

/// What a deployment does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Start a task of the current definition.
    Start,
    /// Stop this one.
    Kill(String),
    /// Nothing: what runs is what was asked for.
    Done,
}

// === impl Cluster ===

impl Cluster {
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change leaves the state whole, so one that panicked elsewhere did no harm.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides where the next task of an app runs and enters it as TASK_STAGING.
    ///
    /// # Errors
    ///
    /// No node or container is free, or the app is gone.
    pub(super) fn place(&self, app_id: &str, config: &Config) -> Result<String> {
        let number = self.launched.fetch_add(1, Ordering::Relaxed);
        self.lock().place(app_id, config, number)
    }
}

// === impl Inner ===

impl Inner {
    /// Enters a new definition of an app.
    pub(super) fn define(&mut self, id: &str, mut definition: Value) -> Value {
        let version = clock::version();
        let mut info = json!({"lastScalingAt": version, "lastConfigChangeAt": version});
        if let Some(App { current, .. }) = self.apps.get(id) {
            if app::same_config(current, &definition) {
                info["lastConfigChangeAt"] = current["versionInfo"]["lastConfigChangeAt"].clone();
            } else {
                info["lastScalingAt"] = current["versionInfo"]["lastScalingAt"].clone();
            }
        }
        definition["version"] = json!(version);
        definition["versionInfo"] = info;
        let app = self.apps.entry(id.to_owned()).or_insert_with(|| App {
            current: Value::Null,
            versions: BTreeMap::new(),
        });
        app.versions.insert(version, definition.clone());
        app.current = definition.clone();
        definition
    }

    pub(super) fn task(&mut self, id: &str) -> Option<&mut Task> {
        self.tasks.iter_mut().find(|task| task.id == id)
    }

    /// Notes which tasks go next; their apps, and how many instances each is to have then.
    pub(super) fn condemn(&mut self, ids: &[&str]) -> BTreeMap<String, u64> {
        let mut apps = BTreeMap::new();
        for task in self.tasks.iter().filter(|task| ids.contains(&&*task.id)) {
            if !self.condemned.insert(task.id.clone()) {
                continue;
            }
            let instances = apps.entry(task.app.clone()).or_insert_with(|| {
                let app = self.apps.get(&task.app);
                app.and_then(|app| app.current["instances"].as_u64())
                    .unwrap_or(0)
            });
            *instances = instances.saturating_sub(1);
        }
        apps
    }

    /// New tasks come before old ones go, as with `minimumHealthCapacity` 1; the youngest goes first.
    pub(super) fn next_step(&self, app_id: &str) -> Step {
        let (wanted, since) = match self.apps.get(app_id) {
            None => (0, ""),
            Some(App { current, .. }) => (
                current["instances"].as_u64().unwrap_or(0),
                current["versionInfo"]["lastConfigChangeAt"]
                    .as_str()
                    .unwrap_or_default(),
            ),
        };
        let mine = || self.tasks.iter().filter(|task| task.app == app_id);
        let (current, old): (Vec<_>, Vec<_>) =
            mine().partition(|task| task.version.as_str() >= since);
        if (current.len() as u64) < wanted {
            return Step::Start;
        }
        let excess = if current.len() as u64 > wanted {
            let mut condemned = current.iter();
            let condemned = condemned.find(|task| self.condemned.contains(&task.id));
            condemned.or(current.last())
        } else {
            None
        };
        match old.first().or(excess) {
            Some(task) => Step::Kill(task.id.clone()),
            None => Step::Done,
        }
    }

    fn place(&mut self, app_id: &str, config: &Config, number: u32) -> Result<String> {
        let definition = &self.apps.get(app_id).context("the app is gone")?.current;
        let ports = app::ports(definition).len();
        let pinned = app::pinned_to(definition);
        let fits = |agent: &&Agent| {
            pinned.is_none_or(|at| agent.address.to_string() == at || agent.name == at)
        };
        let instance = format!(
            "{}.instance-{:08x}-0000-4000-8000-{:012x}",
            app_id.trim_start_matches('/').replace('/', "_"),
            number + 1,
            number + 1
        );
        let place = match app::mode(definition)? {
            app::Mode::Host => {
                let agents = config.agents.iter().filter(fits);
                let agent = agents
                    .min_by_key(|agent| self.load(app_id, agent))
                    .context("no agent fits")?;
                let ports = self.free_ports(agent, ports)?;
                let addresses = [Some(agent.address), agent.other]
                    .into_iter()
                    .flatten()
                    .collect();
                (
                    agent.clone(),
                    agent.netns.clone(),
                    agent.cgroup.clone(),
                    ports.clone(),
                    ports,
                    addresses,
                )
            }
            app::Mode::Container => {
                let free = |netns: &str| self.tasks.iter().all(|task| task.netns != netns);
                let slots = config.slots.iter().filter(|slot| free(&slot.netns));
                let (agent, slot) = slots
                    .filter_map(|slot| {
                        Some((config.agents.iter().find(|a| a.name == slot.agent)?, slot))
                    })
                    .filter(|(agent, _)| fits(agent))
                    .min_by_key(|(agent, _)| self.load(app_id, agent))
                    .context("no container is free")?;
                let listens = app::ports(definition)
                    .iter()
                    .filter_map(|port| u16::try_from(port["containerPort"].as_u64()?).ok())
                    .collect();
                (
                    agent.clone(),
                    slot.netns.clone(),
                    slot.cgroup.clone(),
                    Vec::new(),
                    listens,
                    slot.addresses.clone(),
                )
            }
        };
        let (agent, netns, cgroup, ports, listens, addresses) = place;
        let id = format!("{instance}._app.1");
        let node = match addresses.first() {
            Some(own) if netns != agent.netns => format!("{}/{own}", agent.name),
            _ => agent.name.clone(),
        };
        self.tasks.push(Task {
            id: id.clone(),
            instance,
            app: app_id.to_owned(),
            node,
            agent,
            netns,
            cgroup,
            ports,
            listens,
            addresses,
            state: "TASK_STAGING",
            version: definition["version"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            staged_at: clock::now(),
            started_at: None,
        });
        Ok(id)
    }

    /// Tasks of the app on an agent, then tasks of any app: spread what belongs together.
    fn load(&self, app_id: &str, agent: &Agent) -> (usize, usize) {
        let on = || {
            self.tasks
                .iter()
                .filter(|task| task.agent.name == agent.name)
        };
        (on().filter(|task| task.app == app_id).count(), on().count())
    }

    /// Allocated anew for each task, from anywhere in the range, so that nobody can count on a number.
    fn free_ports(&self, agent: &Agent, count: usize) -> Result<Vec<u16>> {
        let mut taken: BTreeSet<u16> = self
            .tasks
            .iter()
            .filter(|task| task.netns == agent.netns)
            .flat_map(|task| task.ports.iter().copied())
            .collect();
        let length = HOST_PORTS.end - HOST_PORTS.start;
        (0..count)
            .map(|_| {
                let start = random_u16() % length;
                let port = (0..length)
                    .map(|step| HOST_PORTS.start + (start + step) % length)
                    .find(|port| !taken.contains(port))
                    .context("no host port is free")?;
                taken.insert(port);
                Ok(port)
            })
            .collect()
    }
}

/// The standard library's hash keys are random; more is not needed here.
fn random_u16() -> u16 {
    use std::hash::{BuildHasher, Hasher};
    let bits = std::hash::RandomState::new().build_hasher().finish();
    (bits & 0xffff) as u16
}
