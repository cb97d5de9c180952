//! One app -> its pools.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::{
    catalog::Protocol,
    provider::{Backend, PoolKey, Pools},
};

use super::{
    agents,
    build::{Context, Own},
    label::{self, IndexedTarget, Target},
    model::{Definition, Task},
    ports::{self, At, PortObject, Reached},
    reading::App,
    version::{self, Lookup, VersionKey},
    weight::{self, Health, Share},
};

/// A definition, ready to be joined with tasks.
struct Declared<'a> {
    objects: Vec<PortObject<'a>>,
    /// The VIPs of each port object, once per protocol.
    vips: Vec<Vec<(Protocol, Target)>>,
    indexed: Vec<IndexedTarget>,
    has_checks: bool,
}

/// Adds what the app declares and who is behind it.
///
/// # Errors
/// The app is not usable this round: an unknown network mode, or the definition that a task runs
/// could not be had.
pub(super) fn collect(app: &App, context: &Context<'_>, own: &mut Own) -> Result<(), String> {
    let current = Declared::of(&app.current, &mut own.problems)?;
    current.declare(app, context, &mut own.pools);
    let mut older: HashMap<VersionKey, Declared<'_>> = HashMap::new();
    for task in &app.tasks {
        if !weight::is_active(task.state.as_deref()) {
            continue;
        }
        let Some(key) = version::of_task(app, task) else {
            current.join(app, task, context, own);
            continue;
        };
        match context.versions.apps.get(&key) {
            Some(Lookup::Found(definition)) => {
                if !older.contains_key(&key) {
                    older.insert(key.clone(), Declared::of(definition, &mut own.problems)?);
                }
                if let Some(declared) = older.get(&key) {
                    declared.join(app, task, context, own);
                }
            }
            Some(Lookup::Gone) => {
                own.problems.push(format!(
                    "version {} that a task runs is gone; its ports are read as in the current one",
                    key.version
                ));
                current.join(app, task, context, own);
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

fn health(task: &Task, has_checks: bool) -> Health {
    Health::of_results(
        has_checks,
        task.health_check_results.iter().flatten().map(|r| r.alive),
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
            objects,
            vips,
            indexed,
            has_checks: !definition.health_checks.is_empty(),
        })
    }

    /// A VIP exists from its declaration on, with or without backends.
    fn declare(&self, app: &App, context: &Context<'_>, pools: &mut Pools) {
        for (object, vips) in self.objects.iter().zip(&self.vips) {
            if object.at != At::Task(0) {
                for (protocol, target) in vips {
                    pools.declare(context.key(&app.id, target, *protocol));
                }
            }
        }
        for label in &self.indexed {
            pools.declare(context.key(&app.id, &label.target, label.protocol));
        }
    }

    /// Adds one task to every pool it belongs to.
    fn join(&self, app: &App, task: &Task, context: &Context<'_>, own: &mut Own) {
        let ready = !app.not_ready.contains(&task.id);
        let health = health(task, self.has_checks);
        let Some(share) = weight::share(task.state.as_deref(), health, ready) else {
            return;
        };
        let (reached, uneven) = ports::align(&self.objects, &task.ports);
        if self.vips.iter().any(|vips| !vips.is_empty()) {
            own.problems.extend(uneven);
        }
        for (reached, vips) in reached.into_iter().zip(&self.vips) {
            for (protocol, target) in vips {
                let key = context.key(&app.id, target, *protocol);
                self.add(key, task, reached, share, context, own);
            }
        }
        for label in &self.indexed {
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
            self.add(key, task, reached, share, context, own);
        }
    }

    fn add(
        &self,
        key: PoolKey,
        task: &Task,
        reached: Reached,
        (weight, draining): Share,
        context: &Context<'_>,
        own: &mut Own,
    ) {
        let backend = |addr: IpAddr, port: u16| Backend {
            addr: SocketAddr::new(addr, port),
            weight,
            max_flows: 0,
            backup: false,
            zone: None,
            task: task.id.as_str().into(),
            draining: draining.map(Arc::from),
        };
        match reached {
            Reached::Nowhere => {}
            Reached::Agent(port) => {
                let host = task.host.as_deref().unwrap_or_default();
                match agents::address(host, context.agents) {
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
