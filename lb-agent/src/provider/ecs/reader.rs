//! Asks AWS in the right order, and no more than needed.
//!
//! Tasks are listed once for the whole cluster and grouped here: two requests for a hundred tasks. Services are read
//! again from time to time, and at once when a task names one that is unknown. What never changes is asked once.
//! Tasks and services are taken together or not at all, so that half an answer is never mistaken for few tasks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use tokio::time::Instant;

use super::{
    api::{Api, Failure, FailureKind, SERVICES, TASKS},
    asking::{AT_ONCE, ask, chunks, describe, pages},
    model::{Asked, Definition, Front, Known, Last, Service, Task, last},
    side::Side,
};
use crate::provider::backoff::Steps;

/// How often what is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cadence {
    /// Services, with their tags.
    pub(super) services: Duration,
    /// Load balancers.
    pub(super) fronts: Duration,
    /// After a failure of EC2 or of the load balancers' APIs.
    pub(super) backoff: Steps,
}

/// Reads one cluster.
pub(super) struct Reader<A> {
    api: A,
    cadence: Cadence,
    /// Addresses of hosts that are no EC2 instances.
    own_hosts: BTreeMap<String, IpAddr>,
    known: Known,
    /// Whether there is a state to keep.
    complete: bool,
    services_at: Option<Instant>,
    /// Names that no service has, as of the last reading of all: they are no reason for another.
    strangers: BTreeSet<Arc<str>>,
    ec2: Side,
    classic: Side,
    new: Side,
}

type Tasks = BTreeMap<Arc<str>, Task>;
type Services = BTreeMap<Arc<str>, Service>;

// === impl Reader ===

impl<A: Api> Reader<A> {
    pub(super) fn new(api: A, cadence: Cadence, own_hosts: BTreeMap<String, IpAddr>) -> Self {
        let side = || Side::new(cadence.backoff);
        Self {
            api,
            cadence,
            own_hosts,
            known: Known::default(),
            complete: false,
            services_at: None,
            strangers: BTreeSet::new(),
            ec2: side(),
            classic: side(),
            new: side(),
        }
    }

    /// What is known.
    pub(super) fn known(&self) -> &Known {
        &self.known
    }

    /// Has the next reading ask for everything that changes, due or not.
    pub(super) fn doubt(&mut self) {
        self.services_at = None;
        self.classic.doubt();
        self.new.doubt();
    }

    /// Brings what is known up to date.
    ///
    /// # Errors
    /// Why that was not possible; then tasks and services are as they were.
    pub(super) async fn read(&mut self, now: Instant) -> Result<(), Failure> {
        let mut tasks = self.tasks().await?;
        let mut services = self.services(&tasks, now).await?;
        self.definitions(&tasks, services.as_ref()).await?;
        self.hold_back(&mut tasks, services.as_mut());
        self.hosts(&tasks, now).await?;
        let current = services.as_ref().unwrap_or(&self.known.services).clone();
        self.fronts(&current, now).await?;
        self.known.tasks = tasks;
        if let Some(services) = services {
            self.known.services = services;
            // What waits is looked at again with the next poll.
            self.services_at = self.known.unread.is_empty().then_some(now);
        }
        self.complete = true;
        self.forget();
        Ok(())
    }

    /// All tasks that run, start or stop.
    async fn tasks(&self) -> Result<Tasks, Failure> {
        let api = &self.api;
        let mut wanted = pages("ListTasks", |page| self.api.list_tasks(false, page)).await?;
        if !self.complete {
            // Later, those that are to stop are known from before.
            wanted.extend(pages("ListTasks", |page| self.api.list_tasks(true, page)).await?);
        }
        // What was known and is not listed is stopping, or gone; ECS says which, moto is silent about the latter.
        let before = self.known.tasks.keys().cloned().collect();
        let found = describe("DescribeTasks", wanted, before, TASKS, |some| async move {
            api.tasks(&some).await
        });
        let mut found = found.await?;
        found.retain(|_, task| task.last != Last::Gone);
        Ok(found)
    }

    /// All services, if it is time, or if a task names one or a deployment of one that is unknown.
    async fn services(&mut self, tasks: &Tasks, now: Instant) -> Result<Option<Services>, Failure> {
        let due = self
            .services_at
            .is_none_or(|at| now.saturating_duration_since(at) >= self.cadence.services);
        let mut unknown = strangers(tasks, &self.known.services);
        // A new deployment: the service is another than it was.
        let before = self.known.tasks.values().map(|task| &task.started_by);
        let before: BTreeSet<_> = before.collect();
        let ours = tasks.values().filter(|task| task.service.is_some());
        let new = ours.map(|task| &task.started_by);
        unknown.extend(new.filter(|by| !before.contains(by)).cloned());
        if !due && unknown.is_subset(&self.strangers) {
            return Ok(None);
        }
        let arns = pages("ListServices", |page| self.api.list_services(page)).await?;
        let api = &self.api;
        let found = describe(
            "DescribeServices",
            arns,
            BTreeSet::new(),
            SERVICES,
            |some| async move { api.services(&some).await },
        );
        let found = found.await?.into_iter();
        let services = found
            .map(|(arn, service)| (last(&arn).into(), service))
            .collect();
        self.strangers = strangers(tasks, &services);
        // What could not be found out may be possible now.
        self.known
            .hosts
            .retain(|_, asked| matches!(asked, Asked::Is(_)));
        self.known
            .classics
            .retain(|_, asked| matches!(asked, Asked::Is(_)));
        self.known
            .groups
            .retain(|_, asked| matches!(asked, Asked::Is(_)));
        Ok(Some(services))
    }

    /// The definitions that tasks and services name and that are not known yet.
    async fn definitions(
        &mut self,
        tasks: &Tasks,
        services: Option<&Services>,
    ) -> Result<(), Failure> {
        let of_tasks = tasks.values().filter(|task| task.service.is_some());
        let of_tasks = of_tasks.map(|task| &task.definition);
        let of_services = services.into_iter().flat_map(BTreeMap::values);
        let wanted: BTreeSet<Arc<str>> = of_tasks
            .chain(of_services.map(|service| &service.definition))
            .filter(|arn| !arn.is_empty() && !self.known.definitions.contains_key(*arn))
            .cloned()
            .collect();
        let api = &self.api;
        let asked = ask(wanted, |arn| async move { api.definition(&arn).await }).await;
        // What was answered is kept, whatever else fails.
        let mut failed = None;
        self.known.unread.clear();
        for (arn, answer) in asked {
            match answer {
                Ok(definition) => _ = self.known.definitions.insert(arn, definition),
                Err(failure) if failure.kind == FailureKind::Refused => {
                    tracing::warn!(definition = &*arn, %failure, "a task definition cannot be read");
                    self.known.definitions.insert(arn, Definition::default());
                }
                Err(failure) if failure.kind == FailureKind::Passing && self.complete => {
                    self.known.unread.insert(arn, failure.reason);
                }
                Err(failure) => failed = Some(failure),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Has tasks and services wait whose definition could not be read, so that one harms no other: new tasks are not
    /// there yet, and services are as they were.
    fn hold_back(&self, tasks: &mut Tasks, services: Option<&mut Services>) {
        let is_read = |arn: &Arc<str>| !self.known.unread.contains_key(arn);
        tasks.retain(|_, task| task.service.is_none() || is_read(&task.definition));
        let Some(services) = services else { return };
        services.retain(|name, service| {
            if is_read(&service.definition) {
                return true;
            }
            let before = self.known.services.get(name);
            before.is_some_and(|before| {
                service.clone_from(before);
                true
            })
        });
    }

    /// The hosts that tasks are on and that are not known yet.
    async fn hosts(&mut self, tasks: &Tasks, now: Instant) -> Result<(), Failure> {
        let needs = |task: &&Task| task.service.is_some() && !task.has_own_address();
        let wanted: BTreeSet<Arc<str>> = tasks
            .values()
            .filter(needs)
            .filter_map(|task| task.instance.clone())
            .filter(|arn| !self.known.hosts.contains_key(arn))
            .collect();
        if wanted.is_empty() || !self.ec2.is_due(now) {
            return Ok(());
        }
        let call = "DescribeContainerInstances";
        let api = &self.api;
        let found = describe(
            call,
            wanted.clone(),
            BTreeSet::new(),
            TASKS,
            |some| async move { api.instances(&some).await },
        );
        let mut ids = BTreeMap::<String, Arc<str>>::new();
        let found = found.await?;
        for arn in wanted {
            let Some(id) = found.get(&arn) else {
                let gone = Asked::Refused("the container instance is gone".to_owned());
                self.known.hosts.insert(arn, gone);
                continue;
            };
            if let Some(addr) = self.own_hosts.get(id) {
                self.known.hosts.insert(arn, Asked::Is(vec![*addr]));
            } else if id.starts_with("mi-") {
                let why =
                    format!("{id} is no EC2 instance; say its address (--ecs-hosts {id}=ADDRESS)");
                self.known.hosts.insert(arn, Asked::Refused(why));
            } else {
                ids.insert(id.clone(), arn);
            }
        }
        let all: Vec<String> = ids.keys().cloned().collect();
        let mut asked = stream::iter(chunks(all, TASKS))
            .map(|some| async {
                let answer = self.api.addresses(&some).await;
                (some, answer)
            })
            .buffer_unordered(AT_ONCE)
            .collect::<Vec<_>>()
            .await;
        let mut failed = None;
        for (some, answer) in &mut asked {
            match answer {
                Ok(addresses) => {
                    for id in some {
                        let Some(arn) = ids.get(id) else { continue };
                        let asked = match addresses.remove(id) {
                            Some(addresses) if !addresses.is_empty() => Asked::Is(addresses),
                            _ => Asked::Refused(format!("EC2 knows no address of {id}")),
                        };
                        self.known.hosts.insert(Arc::clone(arn), asked);
                    }
                }
                Err(failure) if failure.kind == FailureKind::Refused => {
                    for arn in some.iter().filter_map(|id| ids.get(id)) {
                        let why = Asked::Refused(failure.reason.clone());
                        self.known.hosts.insert(Arc::clone(arn), why);
                    }
                }
                Err(failure) => failed = Some(failure.clone()),
            }
        }
        self.ec2.settle(failed, self.complete, now)
    }

    /// The load balancers that services name: those that are not known, and from time to time all.
    async fn fronts(&mut self, services: &Services, now: Instant) -> Result<(), Failure> {
        let (mut classics, mut groups) = (BTreeSet::new(), BTreeSet::new());
        for entry in services.values().flat_map(Service::all_entries) {
            match &entry.front {
                Front::Classic(name) => _ = classics.insert(Arc::clone(name)),
                Front::Group(arn) => _ = groups.insert(Arc::clone(arn)),
            }
        }
        let (api, known) = (&self.api, &mut self.known);
        known.classics.retain(|name, _| classics.contains(name));
        known.groups.retain(|arn, _| groups.contains(arn));
        let every = self.cadence.fronts;
        if self.classic.is_due(now) {
            let wanted = self.classic.stale(classics, &known.classics, every, now);
            let asked = ask(wanted, |name| async move { api.classic(&name).await }).await;
            let failed = self.classic.take(asked, &mut known.classics);
            self.classic.settle(failed, self.complete, now)?;
        }
        if self.new.is_due(now) {
            let wanted = self.new.stale(groups, &known.groups, every, now);
            let asked = ask(wanted, |arn| async move { api.group(&arn).await }).await;
            let failed = self.new.take(asked, &mut known.groups);
            self.new.settle(failed, self.complete, now)?;
        }
        Ok(())
    }

    /// Drops what nothing names any more.
    fn forget(&mut self) {
        let Known {
            services,
            tasks,
            definitions,
            hosts,
            ..
        } = &mut self.known;
        let of_tasks = tasks.values().map(|task| &task.definition);
        let of_services = services.values().map(|service| &service.definition);
        let used: BTreeSet<_> = of_tasks.chain(of_services).collect();
        definitions.retain(|arn, _| used.contains(arn));
        let used: BTreeSet<_> = tasks
            .values()
            .filter_map(|task| task.instance.as_ref())
            .collect();
        hosts.retain(|arn, _| used.contains(arn));
    }
}

/// Services, and task sets of services, that tasks name and that are not there.
fn strangers(tasks: &Tasks, services: &Services) -> BTreeSet<Arc<str>> {
    let stranger = |task: &Task| {
        let name = task.service.as_ref()?;
        let Some(service) = services.get(name) else {
            return Some(Arc::clone(name));
        };
        let sets = service.sets.as_ref()?;
        (!sets.contains_key(&task.started_by)).then(|| Arc::clone(&task.started_by))
    };
    tasks.values().filter_map(stranger).collect()
}
