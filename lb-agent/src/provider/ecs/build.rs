//! From what is known of a cluster to pools. Pure.
//!
//! A service stands under the names and ports of what is in front of it at AWS, under those that it asks for by tag or
//! docker label (`lb.vip`), and at the same ports under its own name, `SERVICE.CLUSTER`, and under the host names of the
//! load balancers where DNS answers for those.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{
    EcsConfig, FRAMEWORK,
    fronts::{self, FrontVip},
    model::{Asked, Definition, Entry, Health, Known, Manner, Service, Task, last},
};
use crate::{
    catalog::{Check, Drain, Port, Properties, Protocol, Weight},
    provider::{
        Backend, PoolKey, Pools, Problem, Snapshot, VipHost,
        check::LONGEST_GRACE,
        docker::{
            Balancer,
            container::Container,
            labels::{Vip, Wish, concerns_us, wish},
        },
    },
    vip::{OF_DOMAINS, is_in_domains},
};

/// How long a client stays with its backend where a target group says so, s. A load balancer of AWS names no time; this
/// is the one of its cookies.
const STICKY: u32 = 86_400;

/// All pools and problems of a cluster.
pub(super) fn build(known: &Known, config: &EcsConfig) -> Snapshot {
    let mut builder = Builder {
        known,
        cluster: config.name(),
        domains: &config.domains,
        declared: BTreeSet::new(),
        shapes: BTreeMap::new(),
        members: BTreeMap::new(),
        problems: BTreeSet::new(),
    };
    let mut tasks = BTreeMap::<&str, Vec<(&Arc<str>, &Task)>>::new();
    for (arn, task) in &known.tasks {
        if let Some(service) = &task.service {
            tasks.entry(service).or_default().push((arn, task));
        }
    }
    for (name, service) in &known.services {
        let tasks = tasks.remove(&**name).unwrap_or_default();
        let part = Part {
            name,
            service,
            tasks,
            definition: known.definitions.get(&service.definition),
        };
        builder.add(&part);
    }
    builder.tell_refusals();
    for (arn, why) in &known.unread {
        let reason = format!("cannot be read, so that what has it waits: {why}");
        builder.problem(last(arn), reason);
    }
    builder.finish()
}

/// A service with what belongs to it.
struct Part<'a> {
    name: &'a Arc<str>,
    service: &'a Service,
    tasks: Vec<(&'a Arc<str>, &'a Task)>,
    definition: Option<&'a Definition>,
}

/// A VIP of a service, and what is behind it.
#[derive(Clone, Debug)]
struct Wanted<'a> {
    host: VipHost,
    /// Of the load balancer whose name `host` is.
    dns_name: Option<Arc<str>>,
    port: Port,
    protocol: Protocol,
    share: Option<(Arc<str>, u32)>,
    manner: Option<&'a Manner>,
    container: Arc<str>,
    target: Port,
    /// Of the tasks only those that it is in front of.
    entry: Option<&'a Entry>,
}

/// What tells one VIP from another.
type Place = (VipHost, Port, Protocol);

/// A backend before its share is known.
struct Member {
    key: PoolKey,
    backend: Backend,
    share: Option<(Arc<str>, u32)>,
}

struct Builder<'a> {
    known: &'a Known,
    cluster: &'a str,
    /// See [`EcsConfig::domains`].
    domains: &'a BTreeSet<String>,
    declared: BTreeSet<PoolKey>,
    shapes: BTreeMap<PoolKey, Arc<Properties>>,
    members: BTreeMap<Place, Vec<Member>>,
    problems: BTreeSet<Problem>,
}

// === impl Builder ===

impl<'a> Builder<'a> {
    fn problem(&mut self, service: &str, reason: String) {
        self.problems.insert(Problem {
            subject: service.into(),
            reason,
        });
    }

    fn add(&mut self, part: &Part<'a>) {
        let mut notes = Vec::new();
        let asked = Container::of_labels(part.labels());
        match wish(&asked, &Balancer::default(), &mut notes) {
            Ok(wish) if wish.enabled => {
                let wanted = part.wanted(self.known, &wish, self.cluster, &mut notes);
                for vip in wanted {
                    if let Some(again) = vip.in_domain(self.domains) {
                        self.add_vip(part, &wish, again, &mut notes);
                    }
                    self.add_vip(part, &wish, vip, &mut notes);
                }
            }
            Ok(_) => {}
            Err(why) => notes.push(format!("{why}; service left out")),
        }
        for note in notes {
            self.problem(part.name, note);
        }
    }

    fn add_vip(&mut self, part: &Part<'a>, wish: &Wish, vip: Wanted<'a>, notes: &mut Vec<String>) {
        let key = PoolKey {
            app: format!("/{}/{}", self.cluster, part.name).into(),
            host: vip.host.clone(),
            port: vip.port,
            protocol: vip.protocol,
        };
        let mut properties = wish.properties.clone();
        if wish.at_node {
            properties.external.insert(vip.port);
        }
        if let Some(manner) = vip.manner {
            part.take_over(manner, &mut properties);
        }
        self.declared.insert(key.clone());
        if properties != Properties::default() {
            self.shapes
                .entry(key.clone())
                .or_insert_with(|| Arc::new(properties));
        }
        let place = (vip.host.clone(), vip.port, vip.protocol);
        let mut members = Vec::new();
        for (arn, task) in &part.tasks {
            let behind = |entry: &Entry| part.service.entries_of(task).contains(entry);
            let checked = part.is_checked(self.known, task, &vip.container);
            let (true, Some(draining)) = (vip.entry.is_none_or(behind), task.draining(checked))
            else {
                continue;
            };
            let reached = task.reached(self.known, &vip.container, vip.target, vip.protocol);
            let addresses = match reached {
                Ok(addresses) => addresses,
                Err(why) => {
                    notes.push(format!("task {} is left out: {why}", last(arn)));
                    continue;
                }
            };
            let draining = draining.or((wish.weight == Weight::DRAIN).then_some(Drain::WEIGHT_0));
            members.extend(addresses.into_iter().map(|addr| Member {
                key: key.clone(),
                share: vip.share.clone(),
                backend: Backend {
                    addr,
                    weight: if draining.is_some() {
                        Weight::DRAIN
                    } else {
                        wish.weight
                    },
                    max_flows: wish.max_flows,
                    backup: wish.backup,
                    zone: wish.zone.clone().or_else(|| task.zone.clone()),
                    task: last(arn).into(),
                    instance: None,
                    host: None,
                    healthy: task.health == Health::Healthy,
                    draining,
                },
            }));
        }
        self.members.entry(place).or_default().extend(members);
    }

    /// Attributes that may not be read: one sentence a call, whatever the number of load balancers.
    fn tell_refusals(&mut self) {
        let classics = self
            .known
            .classics
            .values()
            .filter_map(|asked| match asked {
                Asked::Is(classic) => classic.manner.refused.as_ref(),
                Asked::Refused(_) => None,
            });
        let groups = self.known.groups.values().filter_map(|asked| match asked {
            Asked::Is(group) => group.manner.refused.as_ref(),
            Asked::Refused(_) => None,
        });
        let [classic, group] = [classics.min(), groups.min()];
        for (what, why) in [
            ("connection draining of classic load balancers", classic),
            (
                "deregistration delay and stickiness of target groups",
                group,
            ),
        ] {
            if let Some(why) = why {
                self.problem(self.cluster, format!("{what}: not taken over: {why}"));
            }
        }
    }

    fn finish(self) -> Snapshot {
        let mut pools = Pools::default();
        for key in self.declared {
            pools.declare(key.clone());
            if let Some(properties) = self.shapes.get(&key) {
                pools.shape(&key, properties);
            }
        }
        for (_, mut members) in self.members {
            spread(&mut members);
            for member in members {
                // An IP VIP takes backends of its own family alone.
                pools.add(member.key, member.backend);
            }
        }
        Snapshot {
            pools: pools.into_vec(),
            problems: self.problems.into_iter().collect(),
            ..Snapshot::default()
        }
    }
}

/// Gives each target group its share of the clients, however many tasks it has.
fn spread(members: &mut [Member]) {
    let mut groups = BTreeMap::<Arc<str>, (f64, f64)>::new();
    for member in members.iter() {
        if let Some((group, share)) = &member.share {
            let (of, sum) = groups.entry(Arc::clone(group)).or_default();
            *of = f64::from(*share);
            *sum += f64::from(member.backend.weight.get());
        }
    }
    if groups.len() < 2 {
        // Whoever else has a share is not here.
        return;
    }
    let part = |member: &Member| {
        let (group, _) = member.share.as_ref()?;
        let (of, sum) = groups.get(group)?;
        let weight = f64::from(member.backend.weight.get());
        (*sum > 0.0).then(|| of * weight / sum)
    };
    let parts: Vec<_> = members.iter().map(part).collect();
    let most = parts.iter().flatten().copied().fold(0.0, f64::max);
    for (member, part) in members.iter_mut().zip(parts) {
        let Some(part) = part.filter(|_| member.backend.weight != Weight::DRAIN) else {
            continue;
        };
        let scaled = part / most * f64::from(Weight::MAX.get());
        member.backend.weight = if part > 0.0 {
            weight(scaled.round().max(1.0))
        } else {
            member.backend.draining = Some(Drain::unfit("its target group has weight 0"));
            Weight::DRAIN
        };
    }
}

/// Of a number from 1 to 256.
fn weight(number: f64) -> Weight {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is between 1 and 256"
    )]
    let number = number as u16;
    Weight::new(number).unwrap_or(Weight::MAX)
}

// === impl Part ===

impl<'a> Part<'a> {
    /// Docker labels of all containers of the definition, and over them the service's tags.
    fn labels(&self) -> BTreeMap<String, String> {
        let containers = self
            .definition
            .into_iter()
            .flat_map(|found| found.containers.values());
        let labels = containers.flat_map(|container| &container.labels);
        labels
            .filter(|(name, _)| concerns_us(name))
            .chain(&self.service.tags)
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// What the load balancer does, where neither tag nor label says other.
    fn take_over(&self, manner: &Manner, properties: &mut Properties) {
        let labels = self.labels();
        let is_open = |label: &str| !labels.contains_key(label);
        if manner.by_source && is_open("lb.affinity") {
            properties.affinity = STICKY;
        }
        if is_open("lb.drain") {
            properties.drain = manner.drain;
        }
        if is_open("lb.check") {
            properties.check = manner.check.clone().map(|check| {
                let grace = Duration::from_secs(self.service.grace.into());
                Arc::new(Check {
                    grace: grace.min(LONGEST_GRACE),
                    ..check
                })
            });
        }
    }

    /// Every VIP that it is to have, each once.
    fn wanted(
        &self,
        known: &'a Known,
        wish: &Wish,
        cluster: &str,
        notes: &mut Vec<String>,
    ) -> Vec<Wanted<'a>> {
        let mut wanted = Vec::new();
        for entry in self.service.all_entries() {
            let ports = self.host_ports(&entry.container, entry.port);
            match fronts::vips(known, entry, &ports, notes) {
                Ok(vips) => wanted.extend(vips.into_iter().map(|vip| Wanted::of(entry, vip))),
                Err(why) => notes.push(why),
            }
        }
        for vip in &wish.vips {
            match self.container_at(vip.target) {
                Some(container) => wanted.push(Wanted::chosen(vip, container)),
                None => notes.push(format!(
                    "lb.vip: no container of its task definition has port {}",
                    vip.target
                )),
            }
        }
        self.add_own_name(&mut wanted, cluster, notes);
        wanted
    }

    /// The same ports under the service's own name.
    fn add_own_name(&self, wanted: &mut Vec<Wanted<'a>>, cluster: &str, notes: &mut Vec<String>) {
        let host = named(&format!("{}.{cluster}", self.name));
        let mut taken = BTreeMap::new();
        let mut own = Vec::new();
        for vip in wanted.iter() {
            let behind = (Arc::clone(&vip.container), vip.target);
            let first = taken
                .entry((vip.port, vip.protocol))
                .or_insert_with(|| behind.clone());
            if *first != behind {
                notes.push(format!(
                    "under its own name, port {}/{} leads to port {} of container {} alone",
                    vip.port, vip.protocol, first.1, first.0
                ));
            } else if vip.host != host {
                own.push(Wanted {
                    host: host.clone(),
                    dns_name: None,
                    ..vip.clone()
                });
            }
        }
        wanted.append(&mut own);
    }

    /// Ports of hosts that lead to this port: those that the definition fixes and those that are bound.
    fn host_ports(&self, container: &str, port: Port) -> BTreeSet<Port> {
        let defined = self
            .definition
            .and_then(|found| found.containers.get(container));
        let fixed = defined.into_iter().flat_map(|found| &found.ports);
        let fixed = fixed
            .filter(|(inside, ..)| *inside == port)
            .filter_map(|(_, outside, _)| *outside);
        let found = self
            .tasks
            .iter()
            .filter_map(|(_, task)| task.containers.get(container));
        let bound = found
            .flat_map(|found| &found.bindings)
            .filter(|binding| binding.container == port)
            .map(|binding| binding.host);
        fixed.chain(bound).collect()
    }

    /// The container that has this port; of several the first by name.
    fn container_at(&self, port: Port) -> Option<Arc<str>> {
        let mut containers = self.definition?.containers.iter();
        let found = containers.find(|(_, defined)| {
            let mut ports = defined.ports.iter();
            ports.any(|(inside, ..)| *inside == port)
        });
        found.map(|(name, _)| Arc::clone(name))
    }

    /// Whether a task's container has a health check: by its own definition, which may be an older one.
    fn is_checked(&self, known: &Known, task: &Task, container: &str) -> bool {
        let definition = known.definitions.get(&task.definition);
        let defined = definition.and_then(|found| found.containers.get(container));
        defined.is_some_and(|defined| defined.checked)
    }
}

// === impl Wanted ===

impl<'a> Wanted<'a> {
    fn of(entry: &'a Entry, vip: FrontVip<'a>) -> Self {
        let FrontVip {
            name,
            dns_name,
            port,
            protocol,
            share,
            manner,
        } = vip;
        Self {
            host: named(&name),
            dns_name,
            port,
            protocol,
            share,
            manner,
            container: Arc::clone(&entry.container),
            target: entry.port,
            entry: Some(entry),
        }
    }

    /// The same under the host name that AWS gave the load balancer, where DNS answers for that.
    fn in_domain(&self, domains: &BTreeSet<String>) -> Option<Self> {
        let name = self.dns_name.as_ref()?;
        is_in_domains(name, domains).then(|| Self {
            host: VipHost::Named {
                name: Arc::clone(name),
                framework: OF_DOMAINS.into(),
            },
            ..self.clone()
        })
    }

    fn chosen(vip: &Vip, container: Arc<str>) -> Self {
        Self {
            host: match &vip.host {
                VipHost::Named { name, .. } => named(name),
                addr => addr.clone(),
            },
            dns_name: None,
            port: vip.port,
            protocol: vip.protocol,
            share: None,
            manner: None,
            container,
            target: vip.target,
            entry: None,
        }
    }
}

fn named(name: &str) -> VipHost {
    VipHost::Named {
        name: name.into(),
        framework: FRAMEWORK.into(),
    }
}
