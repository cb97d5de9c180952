//! Which version of a definition a task runs, and what is known of older versions.
//!
//! A task belongs to the definition of its version: an update that adds a health check must not
//! drain the old tasks, which will never have a result.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    model::{Definition, Task},
    pod_model::{Pod, PodInstance, PodSpec},
    reading::{App, Reading},
    weight,
};
use crate::provider::instant::instant;

/// Names one immutable older version of an app or pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct VersionKey {
    /// App or pod id.
    pub(super) id: String,
    /// As Marathon writes it.
    pub(super) version: String,
}

/// What asking for a version gave.
#[derive(Clone, Debug)]
pub(super) enum Lookup<D> {
    /// It is known.
    Found(Arc<D>),
    /// Marathon does not have it (any more).
    Gone,
    /// Marathon could not be asked.
    Failed(String),
}

/// Older versions, as far as a reading needs them.
#[derive(Clone, Debug, Default)]
pub(super) struct Versions {
    /// Of apps.
    pub(super) apps: HashMap<VersionKey, Lookup<Definition>>,
    /// Of pods.
    pub(super) pods: HashMap<VersionKey, Lookup<PodSpec>>,
}

/// The older versions that a reading needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Needed {
    /// Of apps.
    pub(super) apps: BTreeSet<VersionKey>,
    /// Of pods.
    pub(super) pods: BTreeSet<VersionKey>,
}

// === impl Versions ===

impl Versions {
    /// Whether none is needed.
    pub(super) fn is_empty(&self) -> bool {
        let Self { apps, pods } = self;
        apps.is_empty() && pods.is_empty()
    }
}

/// Finds them: one per version that an active task still runs.
pub(super) fn needed(reading: &Reading) -> Needed {
    let mut needed = Needed::default();
    for app in &reading.apps {
        let active = app
            .tasks
            .iter()
            .filter(|t| weight::is_active(t.state.as_deref()));
        needed
            .apps
            .extend(active.filter_map(|task| of_task(app, task)));
    }
    for pod in &reading.pods {
        let active = |i: &&PodInstance| {
            i.containers
                .iter()
                .any(|c| weight::is_active(c.status.as_deref()))
        };
        let instances = pod.instances.iter().filter(active);
        needed
            .pods
            .extend(instances.filter_map(|instance| of_instance(pod, instance)));
    }
    needed
}

/// The older version that a task runs; `None`: the app as returned. Scaling alone moves an app's
/// version but not its `lastConfigChangeAt`.
pub(super) fn of_task(app: &App, task: &Task) -> Option<VersionKey> {
    let version = task.version.as_deref()?;
    let changed = app.last_config_change.as_deref()?;
    let older = instant(version)? < instant(changed)?;
    older.then(|| VersionKey {
        id: app.id.clone(),
        version: version.to_owned(),
    })
}

/// The older version that a pod instance runs; `None`: the latest.
pub(super) fn of_instance(pod: &Pod, instance: &PodInstance) -> Option<VersionKey> {
    let latest = pod.spec.version.as_deref()?;
    let (_, version) = instance
        .spec_reference
        .as_deref()?
        .rsplit_once("::versions/")?;
    let same =
        version == latest || (instant(version).is_some() && instant(version) == instant(latest));
    (!same).then(|| VersionKey {
        id: pod.id.clone(),
        version: version.to_owned(),
    })
}
