//! Blue/green deployments of Marathon-LB: apps with one `HAPROXY_DEPLOYMENT_GROUP` share the service ports of the old
//! one, and as many old tasks get no new flows as new ones have taken their place.
//!
//! Follows from each reading alone, and never from what was decided before.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{
    app_pools::share_of,
    build::Context,
    label::{Labels, text},
    own,
    reading::{App, Reading},
};
use crate::{catalog::Weight, provider::instant::instant};

const GROUP: &str = "HAPROXY_DEPLOYMENT_GROUP";
const STARTED_AT: &str = "HAPROXY_DEPLOYMENT_STARTED_AT";
const TARGET_INSTANCES: &str = "HAPROXY_DEPLOYMENT_TARGET_INSTANCES";
const NEW_INSTANCES: &str = "HAPROXY_DEPLOYMENT_NEW_INSTANCES";

/// The groups of a reading.
#[derive(Debug, Default)]
pub(super) struct Deployments<'a> {
    groups: HashMap<&'a str, Place<'a>>,
    /// Tasks that get no new flows, by app and id.
    maintained: HashSet<(&'a str, &'a str)>,
    /// What is to be said of an app.
    pub(super) problems: Vec<(&'a str, String)>,
}

/// Where an app stands in its group.
#[derive(Clone, Debug)]
pub(super) struct Place<'a> {
    /// What its service ports are called.
    pub(super) group: String,
    /// Whose labels and service ports count.
    pub(super) old: &'a App,
}

/// The apps of one group.
#[derive(Debug)]
struct Roles<'a> {
    old: Vec<&'a App>,
    new: &'a App,
}

/// Finds the groups; `is_edge`: whether any service port of an app is served.
pub(super) fn of<'a>(
    reading: &'a Reading,
    context: &Context<'_>,
    is_edge: impl Fn(&App) -> bool,
) -> Deployments<'a> {
    let mut deployments = Deployments::default();
    let mut groups = BTreeMap::<String, Vec<&App>>::new();
    for app in &reading.apps {
        match group_of(app) {
            Some(group) => groups.entry(group).or_default().push(app),
            None if app.current.labels.contains_key(GROUP) => {
                let why = format!("label {GROUP}: it names no group; the app stands alone");
                deployments.problems.push((&app.id, why));
            }
            None => {}
        }
    }
    for (group, apps) in groups {
        deployments.add(&group, apps, context, &is_edge);
    }
    deployments
}

/// The deployment group of an app, with a slash before it.
pub(super) fn group_of(app: &App) -> Option<String> {
    let name = text(app.current.labels.get(GROUP)?).ok()?;
    let name = name.trim_start_matches('/');
    (!name.is_empty()).then(|| format!("/{name}"))
}

// === impl Deployments ===

impl<'a> Deployments<'a> {
    /// The app's place in its group, if it has one.
    pub(super) fn place(&self, app: &str) -> Option<&Place<'a>> {
        self.groups.get(app)
    }

    /// Whether a task of the app gets no new flows, in whatever pool it is.
    pub(super) fn maintains(&self, app: &str, task: &str) -> bool {
        self.maintained.contains(&(app, task))
    }

    fn add(
        &mut self,
        group: &str,
        apps: Vec<&'a App>,
        context: &Context<'_>,
        is_edge: &impl Fn(&App) -> bool,
    ) {
        let members = apps.clone();
        let Some(roles) = Roles::of(apps) else {
            return;
        };
        let old = roles.old.last().copied().unwrap_or(roles.new);
        for app in &members {
            let place = Place {
                group: group.to_owned(),
                old,
            };
            self.groups.insert(&app.id, place);
        }
        if roles.old.is_empty() || !is_edge(old) {
            return;
        }
        if roles.old.len() > 1 {
            let others: Vec<_> = roles.old.iter().map(|app| app.id.as_str()).collect();
            let reason = format!(
                "deployment group {group} has more than two apps: this one is the new one, {} are all old",
                others.join(", ")
            );
            self.problems.push((&roles.new.id, reason));
        }
        match roles.drained(context) {
            Ok(tasks) => self.maintained.extend(tasks),
            Err(why) => self.problems.push((
                &roles.new.id,
                format!("{why}; no task of the deployment group is taken out"),
            )),
        }
    }
}

// === impl Roles ===

impl<'a> Roles<'a> {
    /// The latest app is the new one; what has no date is older than all that has one. `None`: no app.
    fn of(mut apps: Vec<&'a App>) -> Option<Self> {
        apps.sort_by_key(|app| (started(&app.current.labels), &app.id));
        let new = apps.pop()?;
        let mut roles = Self { old: apps, new };
        let hybrid = roles
            .new
            .current
            .labels
            .get(NEW_INSTANCES)
            .is_some_and(|value| number(value.as_str()) != Some(0));
        let scaled = |app: &App| app.last_scaling.as_deref().and_then(instant);
        // The one that was scaled last is being filled again.
        if hybrid
            && let [only] = &mut roles.old[..]
            && scaled(only) > scaled(roles.new)
        {
            std::mem::swap(only, &mut roles.new);
        }
        Some(roles)
    }

    /// The old tasks whose place new ones have taken.
    fn drained(&self, context: &Context<'_>) -> Result<Vec<(&'a str, &'a str)>, String> {
        let target = target(&self.new.current.labels)?;
        let running = |app: &&'a App| {
            let tasks = app.tasks.iter();
            let running = tasks.filter(|task| task.state.as_deref() == Some("TASK_RUNNING"));
            let app = app.id.as_str();
            running.map(move |task| (task.id.as_str(), app))
        };
        let old: BTreeSet<_> = self.old.iter().flat_map(running).collect();
        let new = self.new.tasks.iter();
        // An app that is to have no connections takes nobody's place.
        let labels = own::read(&self.new.current.labels, &mut Vec::new());
        let takes_none = labels.is_ok_and(|labels| labels.weight == Weight::DRAIN);
        let healthy = new.filter(|task| {
            !takes_none
                && share_of(self.new, task, context).is_some_and(|(weight, _)| weight.get() > 0)
        });
        let healthy = healthy.count() as u64;
        let instances = self.old.iter().map(|app| app.instances);
        let instances = instances.fold(0, u64::saturating_add);
        let over = healthy.saturating_add(instances).saturating_sub(target);
        let count = (old.len() as u64).min(healthy).min(over);
        let drained = old.into_iter().map(|(task, app)| (app, task));
        Ok(drained.take(count as usize).collect())
    }
}

/// When a deployment began, as far as a label says so. zdd.py writes the time of its own clock, without a zone.
fn started(labels: &Labels) -> Option<i128> {
    let text = labels.get(STARTED_AT)?.as_str()?;
    instant(text).or_else(|| instant(&format!("{text}Z")))
}

/// How many tasks the group has in the end.
fn target(labels: &Labels) -> Result<u64, String> {
    if !labels.contains_key(NEW_INSTANCES) {
        return Ok(1);
    }
    let written = labels
        .get(TARGET_INSTANCES)
        .and_then(|value| value.as_str());
    number(written).ok_or_else(|| {
        format!("label {TARGET_INSTANCES} is not a number, and {NEW_INSTANCES} needs it")
    })
}

fn number(text: Option<&str>) -> Option<u64> {
    let text = text.filter(|text| !text.starts_with('+'))?;
    text.parse().ok()
}
