//! From containers to pools. Pure.
//!
//! A service is what Compose, Swarm or the label `lb.service` calls one, else a container by its name without a trailing
//! number. It is served under its own name (`web.shop` for service `web` of project `shop`) and under the names that its
//! containers choose (`lb.vip`).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use super::{
    DockerConfig,
    container::{Container, Health, Network, Phase, Target},
    engine::Engine,
    labels::{Vip, Wish, named, wish},
    places::Places,
    swarm::{SERVICE_NAME, TASK_NAME},
};
use crate::{
    catalog::{Drain, Port, Properties, Protocol, Weight},
    provider::{Alias, Backend, PoolKey, Pools, Problem, Snapshot, VipHost},
};

const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";
const ONE_OFF: &str = "com.docker.compose.oneoff";
const STACK: &str = "com.docker.stack.namespace";
const NUMBER: &str = "com.docker.compose.container-number";

/// The port at which a service with one port stands, too.
const HTTP: u16 = 80;

/// Who a container works for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Identity {
    /// Compose project or Swarm stack.
    project: Option<String>,
    /// The service in it.
    service: String,
}

/// A container with what it asks for.
struct Member<'a> {
    container: &'a Container,
    wish: Wish,
    /// Why it takes no new flows, beyond what the container itself says.
    draining: Option<Drain>,
}

/// All pools and problems of an engine.
pub(super) fn build(engine: &Engine, config: &DockerConfig) -> Snapshot {
    let mut builder = Builder {
        engine,
        config,
        places: Places { engine, config },
        pools: Pools::default(),
        shaped: BTreeSet::new(),
        domains: BTreeMap::new(),
        aliases: Vec::new(),
        problems: BTreeSet::new(),
    };
    let mut services = BTreeMap::<Identity, Vec<Member<'_>>>::new();
    let candidates = engine.candidates();
    for candidate in &candidates {
        let container = &*candidate.container;
        let Some(identity) = Identity::of(container) else {
            continue;
        };
        let mut notes = Vec::new();
        match wish(container, &config.compat, &mut notes) {
            Ok(mut wish) if wish.enabled => {
                if container.label("lb.drain").is_none() {
                    wish.properties.drain = config.drain;
                }
                let member = Member {
                    container,
                    wish,
                    draining: candidate.draining,
                };
                services.entry(identity).or_default().push(member);
            }
            Ok(_) => {}
            Err(why) => builder.problem(container, format!("{why}; container left out")),
        }
        for note in notes {
            builder.problem(container, note);
        }
    }
    services.retain(|identity, members| builder.is_served(identity, members));
    builder.name_again(services.keys());
    for (identity, mut members) in services {
        // While a service is rolled over to other settings, the newest container says what it is to be like.
        members.sort_by(|a, b| b.container.started.cmp(&a.container.started));
        for member in &members {
            builder.add(&identity, member);
        }
    }
    if let Some(swarm) = engine.swarm() {
        builder.problems.extend(swarm.problems.iter().cloned());
    }
    if let Some(why) = engine.swarm_unread() {
        builder.problems.insert(Problem {
            subject: "Swarm".into(),
            reason: format!("it cannot be read, its last state stays: {why}"),
        });
    }
    Snapshot {
        pools: builder.pools.into_vec(),
        aliases: builder.aliases,
        problems: builder.problems.into_iter().collect(),
        partial: engine.is_blind() || (engine.swarm_unread().is_some() && engine.swarm().is_none()),
    }
}

struct Builder<'a> {
    engine: &'a Engine,
    config: &'a DockerConfig,
    places: Places<'a>,
    pools: Pools,
    /// Pools whose properties are decided, be it that they have none.
    shaped: BTreeSet<PoolKey>,
    /// The path for which a domain's port was given away first.
    domains: BTreeMap<(String, Port), String>,
    aliases: Vec<Alias>,
    problems: BTreeSet<Problem>,
}

// === impl Builder ===

impl Builder<'_> {
    fn problem(&mut self, container: &Container, reason: String) {
        self.problems.insert(Problem {
            subject: Arc::clone(&container.name),
            reason,
        });
    }

    fn is_served(&self, identity: &Identity, members: &[Member<'_>]) -> bool {
        let named = || {
            let services = &self.config.services;
            services.contains(&identity.service)
                || identity.project.as_ref().is_some_and(|project| {
                    services.contains(&format!("{project}:{}", identity.service))
                })
        };
        self.config.expose_all || members.iter().any(|member| member.wish.asks) || named()
    }

    /// Names services of projects without their project, too, where no other has that name.
    fn name_again<'i>(&mut self, served: impl Iterator<Item = &'i Identity>) {
        let mut by_name = BTreeMap::<&str, Vec<&Identity>>::new();
        for identity in served {
            by_name.entry(&identity.service).or_default().push(identity);
        }
        for (service, same) in by_name {
            if let [only] = same[..] {
                if only.project.is_some() {
                    self.aliases.push(Alias {
                        app: only.app().into(),
                        name: service.into(),
                        of: only.name().into(),
                        framework: Arc::clone(&self.config.framework),
                    });
                }
                continue;
            }
            let (projects, alone): (Vec<&Identity>, Vec<_>) =
                same.iter().partition(|one| one.project.is_some());
            let names: Vec<String> = projects.iter().map(|one| one.name()).collect();
            let leads = match alone.is_empty() {
                true => "is not served",
                false => "is that of the one without a project",
            };
            self.problems.insert(Problem {
                subject: service.into(),
                reason: format!(
                    "services of this name have VIPs as {}: the name {service} alone {leads}",
                    names.join(", ")
                ),
            });
        }
    }

    fn add(&mut self, identity: &Identity, member: &Member<'_>) {
        let Member {
            container, wish, ..
        } = member;
        let app: Arc<str> = identity.app().into();
        let mut vips = member.vips(identity);
        vips.extend(self.domains(member));
        if vips.is_empty() {
            let reason = "it asks for a VIP, and neither exposes a port nor names one (lb.vip, SERVICE_PORTS) that \
                          EXCLUDE_PORTS leaves";
            if container.phase != Phase::Absent {
                self.problem(container, reason.to_owned());
            }
            return;
        }
        for vip in vips {
            let key = PoolKey {
                app: Arc::clone(&app),
                host: match vip.host {
                    VipHost::Named { name, .. } => VipHost::Named {
                        name,
                        framework: Arc::clone(&self.config.framework),
                    },
                    addr @ VipHost::Addr(_) => addr,
                },
                port: vip.port,
                protocol: vip.protocol,
            };
            self.pools.declare(key.clone());
            let mut properties = wish.properties.clone();
            if wish.at_node {
                properties.external.insert(vip.port);
            }
            if container.label("lb.check").is_none() && vip.protocol == Protocol::Tcp {
                properties.check.clone_from(&wish.tcp_check);
            }
            if self.shaped.insert(key.clone()) && properties != Properties::default() {
                self.pools.shape(&key, &Arc::new(properties));
            }
            if container.phase == Phase::Absent {
                continue;
            }
            let places = self.places.of(container, (vip.target, vip.protocol));
            if places.is_empty() {
                self.unreached(identity, container, (vip.target, vip.protocol));
            }
            for addr in places {
                let backend = self.backend(identity, member, addr);
                // An IP VIP takes backends of its own family alone.
                self.pools.add(key.clone(), backend);
            }
        }
    }

    /// The VIPs of its domains.
    fn domains(&mut self, member: &Member<'_>) -> Vec<Vip> {
        let domains = &member.wish.domains;
        if domains.is_empty() {
            return Vec::new();
        }
        let runs = member.container.phase != Phase::Absent;
        let ports = member.web_ports();
        let [target] = ports[..] else {
            let reason = format!(
                "VIRTUAL_HOST needs exactly one port that is routed, and there are {}; SERVICE_PORTS or EXCLUDE_PORTS \
                 chooses",
                ports.len()
            );
            if runs {
                self.problem(member.container, reason);
            }
            return Vec::new();
        };
        let mut vips = Vec::new();
        for domain in domains {
            let key = (domain.name.clone(), domain.port);
            let first = self.domains.get(&key).unwrap_or(&domain.path);
            if *first != domain.path {
                let (name, port) = (&domain.name, domain.port);
                let reason = format!(
                    "{name}:{port} of VIRTUAL_HOST is served for /{first} already: paths cannot be told apart; left out"
                );
                if runs {
                    self.problem(member.container, reason);
                }
                continue;
            }
            // What does not run keeps its names, and takes none from what does.
            if runs {
                self.domains.insert(key, domain.path.clone());
            }
            vips.push(Vip {
                host: named(&domain.name),
                port: domain.port,
                protocol: Protocol::Tcp,
                target,
            });
        }
        vips
    }

    fn backend(&self, identity: &Identity, member: &Member<'_>, addr: SocketAddr) -> Backend {
        let Member {
            container,
            wish,
            draining,
        } = member;
        let draining = match (container.phase, container.health) {
            _ if self.engine.is_stopping(&container.id) => Some(Drain::ending("told to stop")),
            _ if draining.is_some() => *draining,
            (Phase::Paused, _) => Some(Drain::unfit("paused")),
            (_, Some(Health::Unhealthy)) => Some(Drain::unfit("unhealthy")),
            (_, Some(Health::Starting)) => Some(Drain::unfit("no health result yet")),
            _ if wish.weight == Weight::DRAIN => Some(Drain::WEIGHT_0),
            _ => None,
        };
        Backend {
            addr,
            weight: if draining.is_some() {
                Weight::DRAIN
            } else {
                wish.weight
            },
            max_flows: wish.max_flows,
            backup: wish.backup,
            zone: wish.zone.clone(),
            task: Arc::clone(&container.name),
            instance: Some(identity.instance(container).into()),
            host: None,
            healthy: container.health == Some(Health::Healthy),
            draining,
        }
    }

    fn unreached(&mut self, identity: &Identity, container: &Container, target: Target) {
        let (port, protocol) = target;
        let is_task = matches!(container.network, Network::Elsewhere(_));
        let (whose, publish) = match self.engine.node() {
            _ if is_task => (
                "its tasks on other nodes are",
                format!("--publish mode=host,target={port}"),
            ),
            Some(_) => (
                "its containers, on another node, are",
                format!("--publish {port}"),
            ),
            None => {
                let reason = "it has no address on any network that counts; it serves nobody";
                return self.problem(container, reason.to_owned());
            }
        };
        let reason = format!(
            "{whose} not reached at port {port}/{protocol}: publish it at their nodes ({publish}), or say \
             --docker-overlay-reachable if this node has a route to their network"
        );
        self.problems.insert(Problem {
            subject: identity.app().into(),
            reason,
        });
    }
}

// === impl Member ===

impl Member<'_> {
    /// All VIPs that it is behind: those of its choice, and the service's own.
    fn vips(&self, identity: &Identity) -> Vec<Vip> {
        let mut vips = self.wish.vips.clone();
        let own = named(&identity.name());
        let entry = |port: Port, protocol, target| Vip {
            host: own.clone(),
            port,
            protocol,
            target,
        };
        if !vips.is_empty() {
            vips.retain(|vip| !self.wish.excluded.contains(&vip.target));
            // What it chose for itself stands under the service's name as well.
            let same: Vec<Vip> = vips
                .iter()
                .map(|vip| entry(vip.port, vip.protocol, vip.target))
                .collect();
            vips.extend(same);
            return vips;
        }
        let targets = self.targets();
        vips.extend(
            targets
                .iter()
                .map(|&(port, protocol)| entry(port, protocol, port)),
        );
        if let ([only], Some(http)) = (&self.web_ports()[..], Port::new(HTTP))
            && !targets.contains(&(http, Protocol::Tcp))
        {
            vips.push(entry(http, Protocol::Tcp, *only));
        }
        vips
    }

    /// Its ports of TCP that are not meant as they are.
    fn web_ports(&self) -> Vec<Port> {
        let targets = self.targets().into_iter();
        let tcp = targets.filter(|(_, protocol)| *protocol == Protocol::Tcp);
        let ports = tcp.map(|(port, _)| port);
        ports
            .filter(|port| !self.wish.plain.contains(port))
            .collect()
    }

    /// Its ports that are served.
    fn targets(&self) -> BTreeSet<Target> {
        let Wish {
            ports,
            plain,
            excluded,
            ..
        } = &self.wish;
        let tcp = |port: &Port| (*port, Protocol::Tcp);
        let mut targets: BTreeSet<Target> = match ports {
            Some(ports) => ports.iter().map(tcp).collect(),
            None => self.container.exposed.clone(),
        };
        targets.extend(plain.iter().map(tcp));
        targets.retain(|(port, _)| !excluded.contains(port));
        targets
    }
}

// === impl Identity ===

impl Identity {
    /// `None`: it works for no service, as a one-off command of Compose does.
    fn of(container: &Container) -> Option<Self> {
        let text = |name: &str| {
            container
                .label(name)
                .filter(|value| !value.is_empty())
                .map(str::to_owned)
        };
        if container
            .label(ONE_OFF)
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
        {
            return None;
        }
        let service = text("lb.service");
        if let (Some(project), Some(own)) = (text(PROJECT), text(SERVICE)) {
            return Some(Self {
                project: Some(project),
                service: service.unwrap_or(own),
            });
        }
        if let Some(full) = text(SERVICE_NAME) {
            let stack = text(STACK);
            let own = stack
                .as_ref()
                .and_then(|stack| full.strip_prefix(stack)?.strip_prefix('_'));
            let own = own.unwrap_or(&full).to_owned();
            return Some(Self {
                project: stack,
                service: service.unwrap_or(own),
            });
        }
        Some(Self {
            project: None,
            service: service.unwrap_or_else(|| without_number(&container.name).to_owned()),
        })
    }

    /// As an app id: the project is the group that owns it.
    fn app(&self) -> String {
        match &self.project {
            Some(project) => format!("/{project}/{}", self.service),
            None => format!("/{}", self.service),
        }
    }

    /// What one of its containers is called below its name: `web-1`, else as the container.
    fn instance(&self, container: &Container) -> String {
        let slot = |task: &str| task.rsplit('.').nth(1).map(str::to_owned);
        let number = match container.label(NUMBER) {
            Some(number) => Some(number.to_owned()),
            None => container.label(TASK_NAME).and_then(slot),
        };
        match number.filter(|number| !number.is_empty()) {
            Some(number) => format!("{}-{number}", self.service),
            None => container.name.to_string(),
        }
    }

    /// As a VIP's name.
    fn name(&self) -> String {
        match &self.project {
            Some(project) => format!("{}.{project}", self.service),
            None => self.service.clone(),
        }
    }
}

/// `web` of `web-1` and `web_1`.
fn without_number(name: &str) -> &str {
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit());
    match bare.strip_suffix(['-', '_']) {
        Some(stem) if bare.len() < name.len() && !stem.is_empty() => stem,
        _ => name,
    }
}
