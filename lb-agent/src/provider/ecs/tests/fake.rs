//! A cluster that answers from memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use async_trait::async_trait;

use super::*;
use crate::provider::ecs::api::{Api, Described, Failure, FailureKind, Page, SERVICES, TASKS};

/// A cluster that answers from memory.
#[derive(Default)]
pub(super) struct Fake(Mutex<State>);

#[derive(Default)]
pub(super) struct State {
    pub(super) known: Known,
    /// Requests, by name.
    pub(super) calls: BTreeMap<&'static str, usize>,
    /// Calls that fail, and how.
    pub(super) failing: BTreeMap<&'static str, Failure>,
    /// Target groups and task definitions about which there is no answer.
    pub(super) sick: BTreeSet<Arc<str>>,
    /// Calls whose answers lack the first thing that was asked for.
    pub(super) cut: BTreeSet<&'static str>,
    /// Whether what does not exist is not said to be missing.
    pub(super) silent: bool,
    /// Ids of hosts.
    pub(super) ids: BTreeMap<Arc<str>, String>,
}

impl Fake {
    fn answer<T>(&self, call: &'static str, read: impl FnOnce(&State) -> T) -> Result<T, Failure> {
        let mut state = self.0.lock().unwrap();
        *state.calls.entry(call).or_default() += 1;
        match state.failing.get(call) {
            Some(failure) => Err(failure.clone()),
            None => Ok(read(&state)),
        }
    }

    fn describe<T>(
        &self,
        call: &'static str,
        most: usize,
        arns: &[Arc<str>],
        find: impl Fn(&State, &Arc<str>) -> Option<T>,
    ) -> Result<Described<T>, Failure> {
        assert!(
            !arns.is_empty() && arns.len() <= most,
            "{call} of {}",
            arns.len()
        );
        self.answer(call, |state| {
            let skip = usize::from(state.cut.contains(call));
            let (mut found, mut missing) = (Vec::new(), Vec::new());
            for arn in arns.iter().skip(skip) {
                match find(state, arn) {
                    Some(thing) => found.push((Arc::clone(arn), thing)),
                    // As moto does.
                    None if state.silent => {}
                    None => missing.push(Arc::clone(arn)),
                }
            }
            Described { found, missing }
        })
    }
}

/// Pages of a hundred.
fn page(all: Vec<Arc<str>>, page: Option<String>) -> Page {
    let start: usize = page.map_or(0, |page| page.parse().unwrap());
    let end = (start + 100).min(all.len());
    Page {
        arns: all[start..end].to_vec(),
        next: (end < all.len()).then(|| end.to_string()),
    }
}

#[async_trait]
impl Api for &Fake {
    async fn list_services(&self, token: Option<String>) -> Result<Page, Failure> {
        let arns = |state: &State| {
            let names = state.known.services.keys();
            names
                .map(|name| format!("arn:service/{CLUSTER}/{name}").into())
                .collect()
        };
        self.answer("ListServices", |state| page(arns(state), token))
    }

    async fn services(&self, arns: &[Arc<str>]) -> Result<Described<Service>, Failure> {
        self.describe("DescribeServices", SERVICES, arns, |state, arn| {
            state.known.services.get(last(arn)).cloned()
        })
    }

    async fn list_tasks(&self, stopped: bool, token: Option<String>) -> Result<Page, Failure> {
        self.answer("ListTasks", |state| {
            let tasks = state.known.tasks.iter();
            let listed = tasks.filter(|(_, task)| task.stopping == stopped);
            page(listed.map(|(arn, _)| Arc::clone(arn)).collect(), token)
        })
    }

    async fn tasks(&self, arns: &[Arc<str>]) -> Result<Described<Task>, Failure> {
        self.describe("DescribeTasks", TASKS, arns, |state, arn| {
            state.known.tasks.get(arn).cloned()
        })
    }

    async fn instances(&self, arns: &[Arc<str>]) -> Result<Described<String>, Failure> {
        self.describe("DescribeContainerInstances", TASKS, arns, |state, arn| {
            state.ids.get(arn).cloned()
        })
    }

    async fn definition(&self, arn: &str) -> Result<Definition, Failure> {
        self.answer("DescribeTaskDefinition", |state| {
            if state.sick.contains(arn) {
                return Err(Failure::passing("no answer"));
            }
            let known = state.known.definitions.get(arn);
            Ok(known.cloned().unwrap_or_default())
        })?
    }

    async fn addresses(&self, ids: &[String]) -> Result<BTreeMap<String, Vec<IpAddr>>, Failure> {
        assert!(!ids.is_empty() && ids.len() <= TASKS);
        self.answer("DescribeInstances", |state| {
            let asked = state.ids.iter().filter(|(_, id)| ids.contains(id));
            let known = asked.filter_map(|(arn, id)| match state.known.hosts.get(arn) {
                Some(Asked::Is(addresses)) => Some((id.clone(), addresses.clone())),
                _ => None,
            });
            known.collect()
        })
    }

    async fn classic(&self, name: &str) -> Result<Classic, Failure> {
        self.answer("classic", |state| match state.known.classics.get(name) {
            Some(Asked::Is(classic)) => Ok(classic.clone()),
            _ => Err(Failure::of_answer(
                "DescribeLoadBalancers",
                400,
                "LoadBalancerNotFound",
                "",
            )),
        })?
    }

    async fn group(&self, arn: &str) -> Result<Group, Failure> {
        self.answer("group", |state| match state.known.groups.get(arn) {
            _ if state.sick.contains(arn) => Err(Failure::passing("no answer")),
            Some(Asked::Is(group)) => Ok(group.clone()),
            _ => Err(Failure::of_answer(
                "DescribeTargetGroups",
                400,
                "TargetGroupNotFound",
                "",
            )),
        })?
    }
}

// === impl Fake ===

impl Fake {
    pub(super) fn of(known: Known) -> Self {
        let fake = Self::default();
        fake.change(|state| {
            state.known = known;
            state.ids.insert(HOST.into(), "i-1".to_owned());
        });
        fake
    }

    pub(super) fn change(&self, act: impl FnOnce(&mut State)) {
        act(&mut self.0.lock().unwrap());
    }

    pub(super) fn fail(&self, call: &'static str, kind: FailureKind) {
        let reason = format!("{call}: no");
        self.change(|state| _ = state.failing.insert(call, Failure { kind, reason }));
    }

    pub(super) fn mend(&self) {
        self.change(|state| {
            state.failing.clear();
            state.sick.clear();
            state.cut.clear();
        });
    }

    /// The requests since the last look.
    pub(super) fn calls(&self) -> BTreeMap<&'static str, usize> {
        std::mem::take(&mut self.0.lock().unwrap().calls)
    }
}
