//! One app -> its pools: of the VIPs that its labels name, and of its service ports.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::{
    catalog::{Drain, Port, Protocol, Weight},
    provider::{Backend, PoolKey, VipHost},
};

use super::{
    agents,
    build::{Context, Own},
    deployment::Deployments,
    edge::{self, ServicePort},
    label::{self, IndexedTarget, Target},
    model::{Definition, Task},
    own::{self, OwnLabels},
    ports::{self, At, PortObject, Reached},
    reading::App,
    version::{self, Lookup, VersionKey},
    weight::{self, Health, Share},
};

/// Why a task that a deployment replaces gets no new flows.
const REPLACED: Drain = Drain::unfit("maintenance: replaced by a new task of its deployment group");

/// A definition, ready to be joined with tasks.
struct Declared<'a> {
    objects: Vec<PortObject<'a>>,
    /// Which of the app's service ports each port object has.
    service_ports: Vec<Option<usize>>,
    /// The VIPs of each port object, once per protocol.
    vips: Vec<Vec<(Protocol, Target)>>,
    indexed: Vec<IndexedTarget>,
    has_checks: bool,
}

/// One port object, and what it is behind.
struct Named<'d> {
    at: At,
    service_port: Option<usize>,
    vips: &'d [(Protocol, Target)],
}

/// What is true of all definitions of an app.
struct Common<'a> {
    app: &'a App,
    context: &'a Context<'a>,
    deployments: &'a Deployments<'a>,
    labels: OwnLabels,
    /// The service ports that are served.
    served: Vec<ServicePort>,
}

/// Adds what the app declares and who is behind it.
///
/// # Errors
/// The app is not usable this round: an unknown network mode, or the definition that a task runs
/// could not be had.
pub(super) fn collect(
    app: &App,
    context: &Context<'_>,
    deployments: &Deployments<'_>,
    own: &mut Own,
) -> Result<(), String> {
    let labels = match own::read(&app.current.labels, &mut own.problems) {
        Ok(labels) => labels,
        Err(why) => {
            own.problems.push(format!("{why}; the app is left out"));
            return Ok(());
        }
    };
    let current = Declared::of(&app.current, &mut own.problems)?;
    let mut common = Common {
        app,
        context,
        deployments,
        labels,
        served: service_ports(app, context, deployments, &mut own.problems),
    };
    common.declare(&current, own);
    let mut older: HashMap<VersionKey, Declared<'_>> = HashMap::new();
    for task in &app.tasks {
        if !weight::is_active(task.state.as_deref()) {
            continue;
        }
        let Some(key) = version::of_task(app, task) else {
            common.join(&current, task, own);
            continue;
        };
        match context.versions.apps.get(&key) {
            Some(Lookup::Found(definition)) => {
                if !older.contains_key(&key) {
                    older.insert(key.clone(), Declared::of(definition, &mut own.problems)?);
                }
                if let Some(declared) = older.get(&key) {
                    common.join(declared, task, own);
                }
            }
            Some(Lookup::Gone) => {
                own.problems.push(format!(
                    "version {} that a task runs is gone; its ports are read as in the current one",
                    key.version
                ));
                common.join(&current, task, own);
            }
            Some(Lookup::Failed(why)) => {
                return Err(format!(
                    "version {} that a task runs cannot be read: {why}",
                    key.version
                ));
            }
            None => {
                return Err(format!(
                    "version {} that a task runs was not read",
                    key.version
                ));
            }
        }
    }
    Ok(())
}

/// Whether any service port of the app is served.
pub(super) fn is_edge(app: &App, context: &Context<'_>) -> bool {
    !service_ports(app, context, &Deployments::default(), &mut Vec::new()).is_empty()
}

/// A task's share by the definition that it runs; `None`: it is in no pool, or that definition is not known.
pub(super) fn share_of(app: &App, task: &Task, context: &Context<'_>) -> Option<Share> {
    let found;
    let definition = match version::of_task(app, task) {
        None => &app.current,
        Some(key) => match context.versions.apps.get(&key)? {
            Lookup::Found(definition) => {
                found = Arc::clone(definition);
                &*found
            }
            Lookup::Gone => &app.current,
            Lookup::Failed(_) => return None,
        },
    };
    share(app, task, !definition.health_checks.is_empty())
}

fn pool_key(app: &App, host: &VipHost, port: Port, protocol: Protocol) -> PoolKey {
    PoolKey {
        app: app.id.as_str().into(),
        host: host.clone(),
        port,
        protocol,
    }
}

fn share(app: &App, task: &Task, has_checks: bool) -> Option<Share> {
    let ready = !app.not_ready.contains(&task.id);
    let results = task.health_check_results.iter().flatten();
    let health = Health::of_results(has_checks, results.map(|result| result.alive));
    weight::share(task.state.as_deref(), health, ready)
}

/// Whether its checks have results, all of them good.
fn is_well(task: &Task) -> bool {
    let mut results = task.health_check_results.iter().flatten().peekable();
    results.peek().is_some() && results.all(|result| result.alive)
}

/// The service ports of an app that are served. In a deployment group those of the old app count.
fn service_ports(
    app: &App,
    context: &Context<'_>,
    deployments: &Deployments<'_>,
    problems: &mut Vec<String>,
) -> Vec<ServicePort> {
    if context.edge.groups.is_empty() {
        return Vec::new();
    }
    let place = deployments.place(&app.id);
    let (old, name) = place.map_or((app, app.id.as_str()), |place| (place.old, &place.group));
    let mut unsaid = Vec::new();
    // What is wrong with the old app is said of the old app.
    let problems = if old.id == app.id {
        problems
    } else {
        &mut unsaid
    };
    let (Ok(objects), Ok(labels)) = (
        ports::port_objects(&old.current),
        own::read(&old.current.labels, &mut Vec::new()),
    ) else {
        return Vec::new();
    };
    let name = (name, context.framework);
    edge::service_ports(
        old,
        name,
        &objects,
        &labels.properties,
        context.edge,
        problems,
    )
}

// === impl Declared ===

impl<'a> Declared<'a> {
    fn of(definition: &'a Definition, problems: &mut Vec<String>) -> Result<Self, String> {
        let objects = ports::port_objects(definition)?;
        let vips = objects.iter().map(|object| {
            let targets = object
                .labels
                .map(|l| label::of_port(l, problems))
                .unwrap_or_default();
            if targets.is_empty() {
                return Vec::new();
            }
            let protocols = object.protocols(problems).into_iter();
            protocols
                .flat_map(|p| targets.iter().map(move |t| (p, t.clone())))
                .collect()
        });
        let vips = vips.collect();
        let indexed = label::of_app(&definition.labels, problems);
        Ok(Self {
            service_ports: edge::indices(&objects),
            objects,
            vips,
            indexed,
            has_checks: !definition.health_checks.is_empty(),
        })
    }

    /// Each port object with what is behind it.
    fn each(&self) -> impl Iterator<Item = Named<'_>> {
        let vips = self.vips.iter().map(Vec::as_slice);
        let named = self.service_ports.iter().copied().zip(vips);
        let objects = self.objects.iter().zip(named);
        objects.map(|(object, (service_port, vips))| Named {
            at: object.at,
            service_port,
            vips,
        })
    }
}

// === impl Common ===

impl Common<'_> {
    /// A VIP exists from its declaration on, with or without backends.
    fn declare(&mut self, declared: &Declared<'_>, own: &mut Own) {
        let Self {
            app,
            context,
            labels,
            served,
            ..
        } = self;
        let mut taken = BTreeMap::new();
        for named in declared.each().filter(|named| named.at != At::Task(0)) {
            for (protocol, target) in named.vips {
                let key = context.key(&app.id, target, *protocol);
                taken.entry(key).or_insert(named.service_port);
            }
        }
        for label in &declared.indexed {
            let key = context.key(&app.id, &label.target, label.protocol);
            taken.entry(key).or_insert(None);
        }
        for port in served.iter_mut() {
            let is_free = |host: &VipHost| {
                port.protocols.iter().all(|protocol| {
                    let key = pool_key(app, host, port.port, *protocol);
                    // The first port of the app that has a VIP keeps it.
                    taken
                        .get(&key)
                        .is_none_or(|index| *index == Some(port.index))
                })
            };
            let before = port.vips.len();
            port.vips.retain(|(host, _)| is_free(host));
            if port.vips.len() < before {
                own.problems.push(format!(
                    "service port {} is not served under every name: a label on another port of the app names the VIP \
                     of its port {}",
                    port.index, port.port
                ));
            }
            for (host, properties) in &port.vips {
                for protocol in &port.protocols {
                    let key = pool_key(app, host, port.port, *protocol);
                    own.pools.shape(&key, properties);
                }
            }
        }
        let shape = labels.shape();
        for key in taken.into_keys() {
            match &shape {
                // Where a service port has the VIP, it has this and more.
                Some(shape) => _ = own.pools.shape(&key, shape),
                None => own.pools.declare(key),
            }
        }
    }

    /// Adds one task to every pool it belongs to.
    fn join(&self, declared: &Declared<'_>, task: &Task, own: &mut Own) {
        let Self { app, context, .. } = self;
        let Some(share) = share(app, task, declared.has_checks) else {
            return;
        };
        let share = self.weighted(task, share);
        let (reached, uneven) = ports::align(&declared.objects, &task.ports);
        let is_served = |index: &Option<usize>| self.served(*index).is_some();
        if declared.vips.iter().any(|vips| !vips.is_empty())
            || declared.service_ports.iter().any(is_served)
        {
            own.problems.extend(uneven);
        }
        for (reached, named) in reached.into_iter().zip(declared.each()) {
            for (protocol, target) in named.vips {
                let key = context.key(&app.id, target, *protocol);
                self.add(key, task, reached, share, own);
            }
            let Some(port) = self.served(named.service_port) else {
                continue;
            };
            for (host, _) in &port.vips {
                for protocol in &port.protocols {
                    let key = pool_key(app, host, port.port, *protocol);
                    self.add(key, task, reached, share, own);
                }
            }
        }
        for label in &declared.indexed {
            let Some(&port) = task.ports.get(label.index) else {
                own.problems.push(format!(
                    "label {}: its index is past the end of the task's {} host ports; label ignored",
                    label.key,
                    task.ports.len()
                ));
                continue;
            };
            let reached = if port == 0 {
                Reached::Nowhere
            } else {
                Reached::Agent(port)
            };
            let key = context.key(&app.id, &label.target, label.protocol);
            self.add(key, task, reached, share, own);
        }
    }

    fn served(&self, index: Option<usize>) -> Option<&ServicePort> {
        let index = index?;
        self.served.iter().find(|port| port.index == index)
    }

    /// The share that the app's labels and its deployment leave of a task's own.
    fn weighted(&self, task: &Task, (weight, draining): Share) -> Share {
        if draining.is_some() {
            (weight, draining)
        } else if self.deployments.maintains(&self.app.id, &task.id) {
            (Weight::DRAIN, Some(REPLACED))
        } else if self.labels.weight == Weight::DRAIN {
            (Weight::DRAIN, Some(Drain::WEIGHT_0))
        } else {
            (self.labels.weight, None)
        }
    }

    fn add(
        &self,
        key: PoolKey,
        task: &Task,
        reached: Reached,
        (weight, draining): Share,
        own: &mut Own,
    ) {
        let backend = |addr: IpAddr, port: u16| Backend {
            host: agents::host(task.host.as_deref(), addr),
            addr: SocketAddr::new(addr, port),
            weight,
            max_flows: self.labels.max_flows,
            backup: self.labels.backup,
            zone: task.zone.clone(),
            task: task.id.as_str().into(),
            instance: None,
            healthy: is_well(task),
            draining,
        };
        match reached {
            Reached::Nowhere => {}
            Reached::Agent(port) => {
                let host = task.host.as_deref().unwrap_or_default();
                match agents::address(host, self.context.agents) {
                    Some(addr) => _ = own.pools.add(key, backend(addr, port)),
                    None => own
                        .problems
                        .push(format!("the address of agent {host:?} is not known")),
                }
            }
            Reached::Task(_) if task.ip_addresses.is_empty() => own.problems.push(format!(
                "task {} has neither an address of its own nor a host port for this VIP",
                task.id
            )),
            Reached::Task(port) => {
                for ip in &task.ip_addresses {
                    own.pools.add(key.clone(), backend(ip.ip_address, port));
                }
            }
        }
    }
}
