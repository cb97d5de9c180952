//! What a container asks for: our own labels, over what [`compat`] reads from its environment.
//!
//! | label | value | without it |
//! |---|---|---|
//! | `lb.vip` | `name:port[/udp][=container port]`, several by commas or blanks; an IP address instead of a name is an IP VIP | no name of its own choice |
//! | `VIP_0`, `VIP_1`, ... | `name:port`, as with DC/OS; to the container's port if it has one alone | |
//! | `lb.port` | the container's port for entries without `=` | the VIP's port |
//! | `lb.address` | an address for all entries (an IP VIP), or `node`: the ports stand at the node's own addresses, too | leased by name |
//! | `lb.mode` | `auto`, `nat`, `dsr-geneve`, `dsr-ipip`, `dsr-l2` | `auto` |
//! | `lb.balance` | `maglev`, `least-conn`, `round-robin`, `source` | `maglev` |
//! | `lb.affinity` | seconds, or a duration such as `10m` | off |
//! | `lb.weight` | 0-256, this container's | 1 |
//! | `lb.backup` | `true`: used while no other takes connections | `false` |
//! | `lb.zone` | the zone that it is in: nodes of that `--zone` prefer it | that of its node in a Swarm |
//! | `lb.maxflows`, `lb.maxflows-backend` | flows at a time, of the VIP and of this container | no limit |
//! | `lb.rate`, `lb.source-rate` | new flows a second, of the VIP and of one client | no limit |
//! | `lb.idle` | when a silent flow is over, such as `10m` | 2 h 4 min, UDP 60 s and 5 min |
//! | `lb.allow`, `lb.deny` | prefixes of clients, by blanks | all allowed |
//! | `lb.denied` | `refuse`: clients that may not connect are told so | `drop` |
//! | `lb.check` | `tcp` or `http:/path`, then `interval=2s`, `rise=2`, ...: see `docs/health.md`; `none` | no check of our own |
//! | `lb.fail-open` | `no`: refused, not tried all the same, while every container is down | `yes` |
//! | `lb.slow-start` | how long a container's share grows, such as `30s` | at once |
//! | `lb.drain` | how long a container that is told to stop keeps its connections: `-1` not at all, `0` as long as they last, or seconds | the operator's word |
//! | `lb.group` | groups of agents (`--group`) that serve it | all agents |
//! | `lb.service` | the service's name | Compose's, Swarm's, or the container's |
//! | `lb.enable` | `false`: left out | `true` |

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::{
    FRAMEWORK,
    compat::{self, Balancer},
    container::Container,
    domains::Domain,
};
use crate::{
    catalog::{Check, Port, Properties, Protocol, Weight},
    provider::{
        VipHost,
        shape::{self, parts},
        values::{MOST_BYTES, count, flag, port, said, weight, word},
    },
};

/// Of a container, and of a Swarm's node.
pub(super) const ZONE: &str = "lb.zone";
/// Every label of ours.
pub(super) const NAMES: [&str; 24] = [
    "lb.vip",
    "lb.port",
    "lb.address",
    "lb.mode",
    "lb.balance",
    "lb.affinity",
    "lb.weight",
    "lb.backup",
    ZONE,
    "lb.maxflows",
    "lb.maxflows-backend",
    "lb.rate",
    "lb.source-rate",
    "lb.idle",
    "lb.allow",
    "lb.deny",
    "lb.denied",
    "lb.check",
    "lb.fail-open",
    "lb.slow-start",
    "lb.drain",
    "lb.group",
    "lb.service",
    "lb.enable",
];
/// What the users of dockercloud/haproxy turn a service off with.
const DEACTIVATE: &str = "com.docker.dockercloud.haproxy.deactivate";

/// What a container asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::provider) struct Wish {
    /// `false`: it is left out, whatever else it says.
    pub(in crate::provider) enabled: bool,
    /// Whether it asks for a VIP.
    pub(in crate::provider) asks: bool,
    /// Names of its own choice.
    pub(in crate::provider) vips: Vec<Vip>,
    /// Its ports that are served under the service's name; `None`: those that it exposes.
    pub(in crate::provider) ports: Option<BTreeSet<Port>>,
    /// Of those, the ones that are meant as they are: they do not stand at port 80, too.
    pub(in crate::provider) plain: BTreeSet<Port>,
    /// Its ports that are not served.
    pub(in crate::provider) excluded: BTreeSet<Port>,
    /// Its share of new flows.
    pub(in crate::provider) weight: Weight,
    /// Used only while no other takes flows.
    pub(in crate::provider) backup: bool,
    /// The zone that it is in.
    pub(in crate::provider) zone: Option<Arc<str>>,
    /// Flows at a time; 0: no limit.
    pub(in crate::provider) max_flows: u32,
    /// Domains that lead to its one port.
    pub(in crate::provider) domains: Vec<Domain>,
    /// Whether the VIPs' ports stand at the node's own addresses, too.
    pub(in crate::provider) at_node: bool,
    /// How those of TCP are checked if `properties` does not say.
    pub(in crate::provider) tcp_check: Option<Arc<Check>>,
    /// What the VIPs are to be like.
    pub(in crate::provider) properties: Properties,
}

/// One entry of `lb.vip`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::provider) struct Vip {
    /// Its name or address.
    pub(in crate::provider) host: VipHost,
    /// Its port.
    pub(in crate::provider) port: Port,
    /// Its protocol.
    pub(in crate::provider) protocol: Protocol,
    /// The container's port.
    pub(in crate::provider) target: Port,
}

/// Reads a container's labels and environment, over what was set on the balancer. `notes`: what has no effect.
///
/// # Errors
/// The first label whose value cannot be used: then the container is left out, since to serve it in another way than it
/// asks for may be to serve whom it keeps out.
pub(in crate::provider) fn wish(
    container: &Container,
    balancer: &Balancer,
    notes: &mut Vec<String>,
) -> Result<Wish, String> {
    let mut wish = compat::read(&container.env, balancer, notes)?;
    for (name, value) in &container.labels {
        if name.len() + value.len() > MOST_BYTES {
            let name = said(name);
            return Err(format!("label {name} has more than {MOST_BYTES} bytes"));
        }
        if name.starts_with("lb.") && !NAMES.contains(&name.as_str()) {
            notes.push(format!(
                "label {name} is none of lb-agent's and has no effect"
            ));
        }
    }
    if container
        .label(DEACTIVATE)
        .is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || !read(container, "lb.enable", flag)?.unwrap_or(true)
    {
        wish.enabled = false;
        return Ok(wish);
    }
    let to = read(container, "lb.port", port)?;
    wish.vips = read(container, "lb.vip", |text| entries(text, to))?.unwrap_or_default();
    let only = |protocol| to.or_else(|| only_port(container, &wish, protocol));
    let mut dcos = Vec::new();
    for (name, value) in &container.labels {
        if is_dcos_label(name) {
            let vip = entry(value, only).map_err(|why| format!("label {name}: {why}"))?;
            dcos.push(vip);
        }
    }
    wish.vips.extend(dcos);
    wish.asks |= !wish.vips.is_empty();
    match container.label("lb.address") {
        Some("node") => wish.at_node = true,
        Some(text) => {
            let addr: IpAddr = text.parse().map_err(|_| {
                format!("label lb.address: {text:?} is neither an IP address nor `node`")
            })?;
            for vip in &mut wish.vips {
                vip.host = VipHost::Addr(addr);
            }
        }
        None => {}
    }
    if let Some(weight) = read(container, "lb.weight", weight)? {
        wish.weight = weight;
    }
    if let Some(backup) = read(container, "lb.backup", flag)? {
        wish.backup = backup;
    }
    wish.zone = read(container, ZONE, |text| Ok(word(text)?.into()))?;
    if let Some(most) = read(container, "lb.maxflows-backend", count)? {
        wish.max_flows = most;
    }
    shape::properties(|name| container.label(name), &mut wish.properties)?;
    Ok(wish)
}

fn read<T>(
    container: &Container,
    name: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    shape::read(|name| container.label(name), name, parse)
}

/// Whether a label is read at all.
pub(in crate::provider) fn concerns_us(name: &str) -> bool {
    name.starts_with("lb.") || name.starts_with("com.docker.") || is_dcos_label(name)
}

/// As with DC/OS: `VIP_` and anything behind it.
fn is_dcos_label(name: &str) -> bool {
    name.starts_with("VIP_") || name.starts_with("vip_")
}

fn entries(text: &str, to: Option<Port>) -> Result<Vec<Vip>, String> {
    let vips: Vec<Vip> = parts(text)
        .map(|part| entry(part, |_| to))
        .collect::<Result<_, _>>()?;
    if vips.is_empty() {
        return Err("it is empty; NAME:PORT is wanted".to_owned());
    }
    Ok(vips)
}

/// The one port that a container serves by a protocol; `None`: there is none, or there are several.
fn only_port(container: &Container, wish: &Wish, protocol: Protocol) -> Option<Port> {
    let exposed = container.exposed.iter();
    let exposed = exposed.filter_map(|(port, by)| (*by == protocol).then_some(*port));
    let ports: BTreeSet<Port> = match &wish.ports {
        Some(ports) if protocol == Protocol::Tcp => ports.clone(),
        _ => exposed.collect(),
    };
    let mut served = ports.difference(&wish.excluded);
    served.next().filter(|_| served.next().is_none()).copied()
}

/// `name:port[/udp][=container port]`; `to`: the container's port where none is said, else the VIP's.
fn entry(text: &str, to: impl Fn(Protocol) -> Option<Port>) -> Result<Vip, String> {
    let (vip, target) = match text.rsplit_once('=') {
        Some((vip, target)) => (vip, Some(port(target)?)),
        None => (text, None),
    };
    let (host, port_and_protocol) = vip
        .rsplit_once(':')
        .ok_or_else(|| format!("{text:?} has no port (NAME:PORT)"))?;
    let (number, protocol) = match port_and_protocol.split_once('/') {
        None => (port_and_protocol, Protocol::Tcp),
        Some((number, "tcp")) => (number, Protocol::Tcp),
        Some((number, "udp")) => (number, Protocol::Udp),
        Some((_, other)) => return Err(format!("{other:?} in {text:?} is neither tcp nor udp")),
    };
    let port = port(number)?;
    if host.trim_matches('/').is_empty() {
        return Err(format!("{text:?} has no name before the port"));
    }
    Ok(Vip {
        host: match host.parse() {
            Ok(addr) => VipHost::Addr(addr),
            Err(_) => named(host),
        },
        port,
        protocol,
        target: target.or_else(|| to(protocol)).unwrap_or(port),
    })
}

/// A name of ours, in the usual name space.
pub(super) fn named(name: &str) -> VipHost {
    VipHost::Named {
        name: name.into(),
        framework: FRAMEWORK.into(),
    }
}

// === impl Wish ===

impl Default for Wish {
    fn default() -> Self {
        Self {
            enabled: true,
            asks: false,
            vips: Vec::new(),
            ports: None,
            plain: BTreeSet::new(),
            excluded: BTreeSet::new(),
            weight: Weight::ONE,
            backup: false,
            zone: None,
            max_flows: 0,
            domains: Vec::new(),
            at_node: false,
            tcp_check: None,
            properties: Properties::default(),
        }
    }
}
