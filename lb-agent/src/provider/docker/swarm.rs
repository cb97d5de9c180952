//! Services and tasks of a whole Swarm, as one of its managers tells them. Pure.
//!
//! A task of this engine's own node is one of its containers, which it knows better; of its task only the state and the
//! service's labels are taken. A task of another node is made a container of, as far as the manager knows it.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    compat,
    container::{Container, Network, Phase, Target, target},
    labels::{self, concerns_us},
    signal, wire,
};
use crate::{
    catalog::{Drain, Port},
    provider::{Problem, values::word},
};

/// Labels that a container of a Swarm has.
pub(super) const SERVICE_NAME: &str = "com.docker.swarm.service.name";
const SERVICE_ID: &str = "com.docker.swarm.service.id";
const TASK_ID: &str = "com.docker.swarm.task.id";
/// `service.slot.id`, or `service.node id.id` where there is one on each node.
pub(super) const TASK_NAME: &str = "com.docker.swarm.task.name";

/// The network behind Swarm's own mesh of ports, on which nothing is reached from outside.
pub(super) const INGRESS: &str = "ingress";

const TO_STOP: Drain = Drain::ending("its task is to stop");
const NODE_DOWN: Drain = Drain::unfit("its node is down");

/// Between two looks at the tasks of a service that is rolled over: Swarm tells a task to stop some 3 s before its container.
const ROLLING: Duration = Duration::from_secs(1);

/// What a manager answered; each element is read on its own.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// `/services`.
    pub(super) services: Vec<Value>,
    /// `/nodes`.
    pub(super) nodes: Vec<Value>,
    /// `/tasks`.
    pub(super) tasks: Vec<Value>,
}

/// A Swarm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Swarm {
    /// This engine's node.
    own: String,
    services: BTreeMap<String, Service>,
    nodes: BTreeMap<String, Node>,
    /// Those that run.
    tasks: BTreeMap<String, Task>,
    /// What cannot be read.
    pub(super) problems: Vec<Problem>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Service {
    /// What its containers are to be like; it never runs itself.
    template: Container,
    /// Labels of the service itself.
    labels: BTreeMap<String, String>,
    /// Whether its tasks are being replaced.
    rolling: bool,
    /// Whether it was removed, and only its tasks are left.
    removed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    name: String,
    addr: Option<IpAddr>,
    down: bool,
    /// The value of its label.
    zone: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Task {
    service: String,
    node: String,
    slot: Option<u64>,
    to_stop: bool,
    /// As far as the manager knows it.
    container: Container,
    reach: Reach,
}

/// Where a task is reached that is not on a network of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    /// Its node's address; `None`: this node, or one whose address nobody knows.
    pub(super) node: Option<IpAddr>,
    /// Whether its node is this one.
    pub(super) here: bool,
    /// Whether it shares its node's network.
    pub(super) host: bool,
    /// Its ports at the node.
    pub(super) published: BTreeMap<Target, Port>,
    /// Its addresses on networks of the Swarm, by name.
    pub(super) overlays: BTreeMap<String, Vec<IpAddr>>,
}

/// A container that may be served, wherever it runs.
#[derive(Clone, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) container: Cow<'a, Container>,
    /// Why it takes no new flows, beyond what the container itself says.
    pub(super) draining: Option<Drain>,
}

// === impl Candidate ===

impl<'a> From<&'a Container> for Candidate<'a> {
    fn from(container: &'a Container) -> Self {
        Self {
            container: Cow::Borrowed(container),
            draining: None,
        }
    }
}

// === impl Swarm ===

impl Swarm {
    /// Reads what a manager on node `own` answered. What cannot be read is named, and left out alone.
    pub(super) fn read(own: &str, answers: Answers) -> Self {
        let Answers {
            services,
            nodes,
            tasks,
        } = answers;
        let mut swarm = Self {
            own: own.to_owned(),
            ..Self::default()
        };
        for service in swarm.each::<wire::Service>("service", services) {
            let id = service.id.clone();
            swarm.services.insert(id, Service::of(service));
        }
        for node in swarm.each::<wire::Node>("node", nodes) {
            let id = node.id.clone();
            let node = Node::of(node, &mut swarm.problems);
            swarm.nodes.insert(id, node);
        }
        for task in swarm.each::<wire::Task>("task", tasks) {
            // Before that, and after, it is not there. Swarm says of one with a health check that it runs when it is well.
            if task.status.state == "running" && !task.service.is_empty() {
                let id = task.id.clone();
                swarm.tasks.insert(id, Task::of(task));
            }
        }
        swarm
    }

    fn each<T: DeserializeOwned>(&mut self, kind: &str, values: Vec<Value>) -> Vec<T> {
        let mut read = Vec::new();
        for value in values {
            let id = value["ID"].as_str().unwrap_or("without an id");
            let id: String = id.chars().take(64).collect();
            match serde_json::from_value(value) {
                Ok(one) => read.push(one),
                Err(error) => {
                    let why: String = error.to_string().chars().take(200).collect();
                    self.problems.push(Problem {
                        subject: format!("{kind} {id}").into(),
                        reason: format!(
                            "what the Swarm's manager says of it cannot be read: {why}"
                        ),
                    });
                }
            }
        }
        read
    }

    /// Keeps services that are gone since `before` while tasks of theirs are left: these end in peace.
    pub(super) fn remember(&mut self, before: &Self) {
        for task in self.tasks.values() {
            if let Some(service) = before.services.get(&task.service)
                && !self.services.contains_key(&task.service)
            {
                let service = Service {
                    removed: true,
                    ..service.clone()
                };
                self.services.insert(task.service.clone(), service);
            }
        }
    }

    /// How long after the last look the next one is due: `poll`, or sooner while a service is rolled over.
    pub(super) fn patience(&self, poll: Duration) -> Duration {
        match self.services.values().any(|service| service.rolling) {
            true => poll.min(ROLLING),
            false => poll,
        }
    }

    /// Everything that may be served, each once: the engine's `own` containers, the tasks of other nodes, and the services
    /// for the sake of their names.
    pub(super) fn candidates<'a>(
        &'a self,
        own: impl Iterator<Item = &'a Container>,
    ) -> Vec<Candidate<'a>> {
        let mut exposed: BTreeMap<&str, BTreeSet<Target>> = BTreeMap::new();
        for (id, service) in &self.services {
            exposed.insert(id, service.template.exposed.clone());
        }
        let mut all = Vec::new();
        let mut tasks = Vec::new();
        for container in own {
            let service = container
                .label(SERVICE_ID)
                .filter(|id| self.services.contains_key(*id));
            match service {
                None => all.push(Candidate::from(container)),
                // What has ended says nothing: the service says what is to be.
                Some(_) if container.phase == Phase::Absent => {}
                Some(id) => {
                    exposed.entry(id).or_default().extend(&container.exposed);
                    tasks.push((id, self.own_task(container)));
                }
            }
        }
        let elsewhere = |task: &&Task| {
            // Of its end nobody would tell.
            let lost = task.to_stop && self.is_down(&task.node);
            task.node != self.own && self.services.contains_key(&task.service) && !lost
        };
        for task in self.tasks.values().filter(elsewhere) {
            tasks.push((task.service.as_str(), self.task_elsewhere(task)));
        }
        let templates = self.services.iter().filter(|(_, service)| !service.removed);
        tasks.extend(
            templates.map(|(id, service)| (id.as_str(), Candidate::from(&service.template))),
        );
        for (id, mut candidate) in tasks {
            if let Some(service) = self.services.get(id) {
                let container = candidate.container.to_mut();
                container.labels.extend(service.labels.clone());
                container.exposed.clone_from(&exposed[id]);
            }
            all.push(candidate);
        }
        all
    }

    /// A container of this node that is a task.
    fn own_task<'a>(&'a self, container: &'a Container) -> Candidate<'a> {
        let task = container.label(TASK_ID).and_then(|id| self.tasks.get(id));
        let mut candidate = Candidate::from(container);
        self.name_by_label(candidate.container.to_mut());
        self.zone_by_node(candidate.container.to_mut(), &self.own);
        // It is healthy before the Swarm says that it runs.
        let Some(task) = task else {
            return candidate;
        };
        candidate.draining = task.to_stop.then_some(TO_STOP);
        let container = candidate.container.to_mut();
        container.started.clone_from(&task.container.started);
        // Nothing outside an overlay network reaches it there; at the node's port everybody does.
        let Reach {
            published,
            overlays,
            ..
        } = &task.reach;
        if let Network::Own(networks) = &container.network
            && !published.is_empty()
            && networks
                .keys()
                .all(|name| name == INGRESS || overlays.contains_key(name))
        {
            container.network = Network::Elsewhere(Reach {
                here: true,
                ..task.reach.clone()
            });
        }
        candidate
    }

    fn task_elsewhere<'a>(&'a self, task: &'a Task) -> Candidate<'a> {
        let mut candidate = Candidate::from(&task.container);
        let node = self.nodes.get(&task.node);
        candidate.draining = match task.to_stop {
            true => Some(TO_STOP),
            false => self.is_down(&task.node).then_some(NODE_DOWN),
        };
        let container = candidate.container.to_mut();
        if let Some(service) = self.services.get(&task.service) {
            let name = service.template.name.to_string();
            container.labels.insert(SERVICE_NAME.to_owned(), name);
        }
        self.zone_by_node(container, &task.node);
        let service = container.label(SERVICE_NAME).unwrap_or_default();
        let place = match task.slot {
            Some(slot) => slot.to_string(),
            None => self.place(&task.node),
        };
        let name = format!("{service}.{place}.{}", task.container.id);
        container.name = name.as_str().into();
        container.labels.insert(TASK_NAME.to_owned(), name);
        container.network = Network::Elsewhere(Reach {
            node: node.and_then(|node| node.addr),
            ..task.reach.clone()
        });
        candidate
    }

    fn is_down(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(|node| node.down)
    }

    /// Has the node's name where the name that Swarm gave it has the node's id.
    fn name_by_label(&self, container: &mut Container) {
        let Some(given) = container.label(TASK_NAME) else {
            return;
        };
        let id = format!(".{}.", self.own);
        let name = given.replacen(&id, &format!(".{}.", self.place(&self.own)), 1);
        container.labels.insert(TASK_NAME.to_owned(), name);
    }

    /// Has the zone of its node where nothing else is said of it.
    fn zone_by_node(&self, container: &mut Container, node: &str) {
        if let Some(zone) = self.nodes.get(node).and_then(|node| node.zone.as_ref()) {
            let said = container.labels.entry(labels::ZONE.to_owned());
            said.or_insert_with(|| zone.clone());
        }
    }

    /// What a node is called within the name of a task.
    fn place(&self, node: &str) -> String {
        match self.nodes.get(node) {
            Some(Node { name, .. }) if !name.is_empty() => name.replace('.', "-"),
            _ => node.to_owned(),
        }
    }
}

// === impl Service ===

impl Service {
    fn of(answer: wire::Service) -> Self {
        let wire::ServiceSpec {
            name,
            labels,
            task_template,
        } = answer.spec;
        let own = kept(labels);
        let rolling = answer.update_status.and_then(|update| update.state);
        let mut template = container(&answer.id, &name, &answer.updated_at, task_template);
        template.labels.insert(SERVICE_NAME.to_owned(), name);
        template.exposed = of_ports(answer.endpoint)
            .map(|(target, _)| target)
            .collect();
        Self {
            template,
            labels: own,
            rolling: matches!(rolling.as_deref(), Some("updating" | "rollback_started")),
            removed: false,
        }
    }
}

// === impl Node ===

impl Node {
    fn of(answer: wire::Node, problems: &mut Vec<Problem>) -> Self {
        let wire::Node {
            id,
            spec,
            description,
            status,
            manager_status,
        } = answer;
        // A manager may know itself as 0.0.0.0, and then has its own address besides, with a port.
        let of_manager = manager_status.and_then(|manager| manager.addr.parse().ok());
        let addr = status.addr.parse().ok().filter(is_of_a_node);
        let of_manager = of_manager.map(|addr: SocketAddr| addr.ip());
        Self {
            name: description.hostname,
            addr: addr.or(of_manager.filter(is_of_a_node)),
            down: status.state == "down",
            zone: zone(&id, &spec.labels.unwrap_or_default(), problems),
        }
    }
}

/// What a node's label says; one that cannot be used is named, and harms none of its tasks.
fn zone(id: &str, labels: &HashMap<String, String>, problems: &mut Vec<Problem>) -> Option<String> {
    match word(labels.get(labels::ZONE)?.trim()) {
        Ok(zone) => Some(zone.to_owned()),
        Err(why) => {
            problems.push(Problem {
                subject: format!("node {id}").into(),
                reason: format!("label {}: {why}; it counts as in no zone", labels::ZONE),
            });
            None
        }
    }
}

fn is_of_a_node(addr: &IpAddr) -> bool {
    !addr.is_unspecified() && !addr.is_loopback() && !addr.is_multicast()
}

// === impl Task ===

impl Task {
    fn of(answer: wire::Task) -> Self {
        let mut container = container(&answer.id, &answer.id, &answer.created_at, answer.spec);
        container.phase = Phase::Running;
        let published = of_ports(answer.status.port_status);
        let mut reach = Reach {
            published: published
                .filter_map(|(target, published)| Some((target, published?)))
                .collect(),
            ..Reach::default()
        };
        for attached in answer.networks_attachments.unwrap_or_default() {
            let wire::AttachedNetwork { spec, driver_state } = attached.network;
            let addresses = attached.addresses.unwrap_or_default();
            let addresses = addresses.iter().filter_map(|text| {
                let (addr, _) = text.split_once('/').unwrap_or((text, ""));
                addr.parse::<IpAddr>().ok()
            });
            match driver_state.name.as_str() {
                "host" => reach.host = true,
                _ if spec.name == INGRESS => {}
                _ => {
                    let mut each = Vec::<IpAddr>::new();
                    for addr in addresses {
                        if each.iter().all(|other| other.is_ipv4() != addr.is_ipv4()) {
                            each.push(addr);
                        }
                    }
                    if !each.is_empty() {
                        reach.overlays.insert(spec.name, each);
                    }
                }
            }
        }
        Self {
            to_stop: matches!(answer.desired_state.as_str(), "shutdown" | "remove"),
            service: answer.service,
            node: answer.node,
            slot: answer.slot,
            container,
            reach,
        }
    }
}

/// What a manager knows of a container.
fn container(id: &str, name: &str, started: &str, spec: wire::TaskSpec) -> Container {
    let wire::ContainerSpec { labels, env } = spec.container_spec;
    Container {
        id: id.into(),
        name: name.into(),
        labels: kept(labels),
        env: compat::keep(&env.unwrap_or_default()),
        exposed: BTreeSet::new(),
        phase: Phase::Absent,
        health: None,
        network: Network::Own(BTreeMap::new()),
        published: BTreeMap::new(),
        stop_signal: signal::TERM,
        started: started.to_owned(),
    }
}

fn kept(labels: Option<HashMap<String, String>>) -> BTreeMap<String, String> {
    let labels = labels.unwrap_or_default().into_iter();
    labels.filter(|(name, _)| concerns_us(name)).collect()
}

/// Ports of containers, and where they stand at the container's node.
fn of_ports(ports: Option<wire::Ports>) -> impl Iterator<Item = (Target, Option<Port>)> {
    let ports = ports.and_then(|ports| ports.ports).unwrap_or_default();
    ports.into_iter().filter_map(|port| {
        let inside = target(&format!("{}/{}", port.target_port, port.protocol))?;
        let at_node = (port.publish_mode == "host").then_some(port.published_port);
        Some((inside, at_node.and_then(Port::new)))
    })
}
