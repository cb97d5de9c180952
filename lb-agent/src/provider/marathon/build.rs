//! A reading -> a snapshot. Pure: everything it needs is given.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use crate::{
    catalog::Protocol,
    provider::{Backend, Pool, PoolKey, Pools, Problem, Snapshot},
};

use super::{
    agents::Addresses,
    app_pools, deployment,
    edge::Edge,
    label::Target,
    pod_pools,
    reading::{Broken, Culprit, Reading},
    version::Versions,
    weight,
};

/// What is known besides the reading itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    /// The Mesos framework name: the name space of named VIPs.
    pub(super) framework: &'a Arc<str>,
    /// Older versions, as [`super::version::needed`] asked for them.
    pub(super) versions: &'a Versions,
    /// Addresses of agents that are given by name.
    pub(super) agents: &'a Addresses,
    /// Which service ports are served.
    pub(super) edge: &'a Edge,
}

/// What one app or pod contributes.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// Its pools.
    pub(super) pools: Pools,
    /// What was left out.
    pub(super) problems: Vec<String>,
}

/// Builds the snapshot. What an unreadable object contributed to `last` stays.
pub(super) fn build(reading: &Reading, context: &Context<'_>, last: Option<&Snapshot>) -> Snapshot {
    let mut pools = Pools::default();
    let mut problems = BTreeSet::new();
    let mut broken = reading.broken.clone();
    let deployments = deployment::of(reading, context, |app| app_pools::is_edge(app, context));
    let apps = reading.apps.iter().map(|app| {
        let mut own = Own::default();
        let result = app_pools::collect(app, context, &deployments, &mut own);
        (&app.id, result, own)
    });
    let pods = reading.pods.iter().map(|pod| {
        let mut own = Own::default();
        (&pod.id, pod_pools::collect(pod, context, &mut own), own)
    });
    for (id, result, own) in apps.chain(pods) {
        match result {
            Ok(()) => pools.extend(own.pools),
            Err(why) => broken.push(Broken {
                what: Culprit::App(Some(id.clone())),
                why,
            }),
        }
        let problem = |reason| Problem {
            subject: id.as_str().into(),
            reason,
        };
        problems.extend(own.problems.into_iter().map(problem));
    }
    let of_groups = deployments.problems.iter();
    problems.extend(of_groups.map(|(app, reason)| Problem {
        subject: (*app).into(),
        reason: reason.clone(),
    }));
    problems.extend(broken.iter().map(Broken::problem));
    if let Some(last) = last {
        keep(&mut pools, last, &broken, reading);
    }
    Snapshot {
        pools: pools.into_vec(),
        problems: problems.into_iter().collect(),
        ..Snapshot::default()
    }
}

/// The snapshot that is `last` but for what these apps contribute: that is all of `part`.
pub(super) fn merge(last: &Snapshot, apps: &BTreeSet<String>, part: Snapshot) -> Snapshot {
    let pools = last.pools.iter().filter(|pool| !apps.contains(&*pool.app));
    let mut pools: Vec<Pool> = pools.cloned().chain(part.pools).collect();
    pools.sort_by_cached_key(|pool| PoolKey::from(pool));
    let problems = last.problems.iter();
    let problems = problems.filter(|problem| !apps.contains(&*problem.subject));
    let mut problems: Vec<Problem> = problems.cloned().chain(part.problems).collect();
    problems.sort();
    Snapshot {
        pools,
        problems,
        ..Snapshot::default()
    }
}

/// The names of the agents that active tasks run on.
pub(super) fn agent_names(reading: &Reading) -> BTreeSet<&str> {
    let tasks = reading.apps.iter().flat_map(|app| &app.tasks);
    let tasks = tasks.filter(|task| weight::is_active(task.state.as_deref()));
    let instances = reading.pods.iter().flat_map(|pod| &pod.instances);
    let hosts = tasks.filter_map(|task| task.host.as_deref());
    hosts
        .chain(instances.filter_map(|instance| instance.agent_hostname.as_deref()))
        .collect()
}

/// Copies from the last state what the broken objects contributed to it.
fn keep(pools: &mut Pools, last: &Snapshot, broken: &[Broken], reading: &Reading) {
    let mut by_app: HashMap<&str, Vec<&Culprit>> = HashMap::new();
    let mut nameless_app = false;
    for Broken { what, .. } in broken {
        match what {
            Culprit::App(None) => nameless_app = true,
            Culprit::App(Some(app))
            | Culprit::Task { app, .. }
            | Culprit::Instance { pod: app, .. } => {
                by_app.entry(app).or_default().push(what);
            }
        }
    }
    if by_app.is_empty() && !nameless_app {
        return;
    }
    let tasks = reading
        .apps
        .iter()
        .flat_map(|app| app.tasks.iter().map(|task| task.id.as_str()));
    let read_tasks: HashSet<&str> = tasks.collect();
    let instances = reading
        .pods
        .iter()
        .flat_map(|pod| pod.instances.iter().map(|i| i.id.as_str()));
    let read_instances: HashSet<&str> = instances.collect();
    let apps = reading.apps.iter().map(|app| app.id.as_str());
    let read_apps: HashSet<&str> = apps
        .chain(reading.pods.iter().map(|p| p.id.as_str()))
        .collect();

    for pool in &last.pools {
        let culprits = by_app
            .get(&*pool.app)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let whole = culprits.iter().any(|c| matches!(c, Culprit::App(_)))
            || (nameless_app && culprits.is_empty() && !read_apps.contains(&*pool.app));
        let stays = |backend: &Backend| {
            whole
                || culprits.iter().any(|culprit| match culprit {
                    Culprit::App(_) => true,
                    Culprit::Task { id: Some(id), .. } => **id == *backend.task,
                    Culprit::Task { id: None, .. } => !read_tasks.contains(&*backend.task),
                    Culprit::Instance { id: Some(id), .. } => is_of(&backend.task, id),
                    Culprit::Instance { id: None, .. } => {
                        !read_instances.iter().any(|id| is_of(&backend.task, id))
                    }
                })
        };
        if whole {
            let key = PoolKey::from(pool);
            match &pool.properties {
                // Who may use it, and where it stands, are as they were, too.
                Some(properties) => _ = pools.shape(&key, properties),
                None => pools.declare(key),
            }
        }
        for backend in pool.backends.iter().filter(|backend| stays(backend)) {
            pools.add(PoolKey::from(pool), backend.clone());
        }
    }
}

/// A pod's container has the instance's id before a dot.
fn is_of(task: &str, instance: &str) -> bool {
    task.strip_prefix(instance)
        .is_some_and(|rest| rest.starts_with('.'))
}

// === impl Context ===

impl Context<'_> {
    /// The pool of a VIP that `app` declares.
    pub(super) fn key(&self, app: &str, target: &Target, protocol: Protocol) -> PoolKey {
        PoolKey {
            app: app.into(),
            host: target.host(self.framework),
            port: target.port,
            protocol,
        }
    }
}

// === impl Broken ===

impl Broken {
    fn problem(&self) -> Problem {
        let named = |kind: &str, id: &Option<String>| match id {
            Some(id) => format!("{kind} {id} cannot be read"),
            None => format!("a {kind} cannot be read"),
        };
        let (subject, what) = match &self.what {
            Culprit::App(Some(id)) => (id.as_str(), "it cannot be read".to_owned()),
            Culprit::App(None) => ("(an app without id)", "it cannot be read".to_owned()),
            Culprit::Task { app, id } => (app.as_str(), named("task", id)),
            Culprit::Instance { pod, id } => (pod.as_str(), named("instance", id)),
        };
        let reason = format!("{what}, so what it had before stays: {}", self.why);
        Problem {
            subject: subject.into(),
            reason,
        }
    }
}
