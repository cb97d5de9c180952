//! The services file: YAML text -> a snapshot. Pure.

mod check;
mod properties;
mod published;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
};

use serde_saphyr::{Location, Spanned};

pub use self::published::JSON_SCHEMA;
use self::{
    check::CheckKeys,
    properties::{IdleKeys, properties, read},
};
use super::node::{self, Faults, FromNode, Node, OneOrMany, Value, Wrong, keys};
use crate::{
    catalog::{Drain, Properties, Protocol, Weight},
    provider::{
        Backend, PoolKey, Pools, Problem, Snapshot, VipHost,
        values::{self, brief, count, flag, said, weight, word},
    },
};

/// The name space of named VIPs that do not say another.
const FRAMEWORK: &str = "file";

keys! {
    struct File {
        services: Vec<Spanned<Service>>,
    }
}

keys! {
    struct Service {
        name: Spanned<String>,
        address: Spanned<String>,
        framework: Spanned<String>,
        port: Spanned<String>,
        protocol: Spanned<OneOrMany>,
        backends: Vec<Spanned<Entry>>,
        mode: Spanned<String>,
        balance: Spanned<String>,
        affinity: Spanned<String>,
        max_flows: Spanned<String>,
        rate: Spanned<String>,
        source_rate: Spanned<String>,
        idle: IdleKeys,
        allow: Spanned<Vec<Spanned<String>>>,
        deny: Vec<Spanned<String>>,
        denied: Spanned<String>,
        external: Spanned<OneOrMany>,
        group: Spanned<OneOrMany>,
        check: Spanned<CheckKeys>,
        fail_open: Spanned<String>,
        slow_start: Spanned<String>,
    }
}

/// A backend: its address alone, or with more.
enum Entry {
    Short(String),
    Long(Box<LongEntry>),
}

keys! {
    struct LongEntry {
        address: Spanned<String>,
        weight: Spanned<String>,
        max_flows: Spanned<String>,
        backup: Spanned<String>,
        zone: Spanned<String>,
        name: Spanned<String>,
    }
}

/// A services file as far as it can be understood.
pub struct Reading {
    /// The services without what is wrong.
    pub snapshot: Snapshot,
    /// Faults of form, by place: with any, nothing of the file can be trusted.
    pub faults: Vec<String>,
    /// Everything that is wrong, wherever, by place.
    pub wrong: Vec<String>,
}

/// Reads a services file; `path` is only for messages.
///
/// A service or backend with a wrong value is left out and named in the snapshot's problems.
///
/// # Errors
/// `file:line:column: what`, where the text is not YAML, has an unknown or repeated key, or a list where a
/// value belongs: then nothing of it can be trusted.
pub fn parse(text: &str, path: &Path) -> Result<Snapshot, String> {
    let Reading {
        snapshot, faults, ..
    } = read_all(text, path);
    match faults.as_slice() {
        [] => Ok(snapshot),
        [only] => Err(only.clone()),
        [first, others @ ..] => Err(format!(
            "{first} (and {} more; `lb-agent check` tells all)",
            others.len()
        )),
    }
}

/// As [`parse`], with all that is wrong; it ends early only where the text is not YAML.
pub fn read_all(text: &str, path: &Path) -> Reading {
    let mut reader = Reader {
        path,
        pools: BTreeMap::new(),
        problems: Vec::new(),
    };
    let mut faults = Faults::default();
    let file = match node::read(text) {
        Ok(Node {
            value: Value::Nothing,
            ..
        }) => None,
        Ok(root) => File::from_node(root, "", &mut faults),
        Err((at, what)) => {
            let fault = format!("{}: {}", place(path, at), brief(&what));
            return Reading {
                snapshot: Snapshot::default(),
                faults: vec![fault.clone()],
                wrong: vec![fault],
            };
        }
    };
    let services = file.and_then(|file| file.services).unwrap_or_default();
    for (index, service) in services.into_iter().enumerate() {
        reader.service(index, service);
    }
    let by_place = |(at, _): &(Location, _)| (at.line(), at.column());
    let mut faults = faults.0;
    faults.sort_by_key(|fault| (fault.0.line(), fault.0.column()));
    let told = |(at, what): &Wrong| format!("{}: {}", place(path, Some(*at)), brief(what));
    let found = faults.iter().map(|fault| (fault.0, told(fault)));
    let left_out = reader.problems.iter();
    let left_out = left_out.map(|(at, problem)| (*at, problem.reason.clone()));
    let mut wrong: Vec<_> = found.chain(left_out).collect();
    wrong.sort_by_key(by_place);
    let mut problems: Vec<_> = reader.problems.into_iter().map(|(_, one)| one).collect();
    problems.sort();
    Reading {
        snapshot: Snapshot {
            pools: reader
                .pools
                .into_values()
                .flat_map(Pools::into_vec)
                .collect(),
            problems,
            ..Snapshot::default()
        },
        faults: faults.iter().map(told).collect(),
        wrong: wrong.into_iter().map(|(_, told)| told).collect(),
    }
}

struct Reader<'a> {
    path: &'a Path,
    /// By the groups of agents that serve them: what is for one group is not for another.
    pools: BTreeMap<BTreeSet<Arc<str>>, Pools>,
    problems: Vec<(Location, Problem)>,
}

// === impl Reader ===

impl Reader<'_> {
    fn service(&mut self, index: usize, service: Spanned<Service>) {
        let at = service.referenced;
        let service = service.value;
        let subject: Arc<str> = match service.name.as_ref().or(service.address.as_ref()) {
            Some(name) => {
                let name = &name.value;
                values::name(name).unwrap_or_else(|_| said(name).into())
            }
            None => format!("services[{index}]").into(),
        };
        let keys = match service.keys(at, &subject) {
            Ok(keys) => keys,
            Err(wrong) => return self.problem(&subject, wrong, "service left out"),
        };
        let properties = match properties(&service) {
            Ok(properties) => properties.map(Arc::new),
            Err(wrong) => return self.problem(&subject, wrong, "service left out"),
        };
        let groups = properties.as_ref().map(|own| own.groups.clone());
        let pools = self.pools.entry(groups.unwrap_or_default()).or_default();
        if let Some(what) = properties
            .as_ref()
            .and_then(|own| contradiction(pools, &keys, own))
        {
            return self.problem(&subject, (at, what), "service left out");
        }
        for key in &keys {
            pools.declare(key.clone());
            if let Some(properties) = &properties {
                pools.shape(key, properties);
            }
        }
        let mut left_out = Vec::new();
        for entry in service.backends.into_iter().flatten() {
            let at = entry.referenced;
            let added = entry.value.backend(at);
            let added = added.and_then(|backend| add(pools, &keys, at, &backend));
            left_out.extend(added.err());
        }
        for wrong in left_out {
            self.problem(&subject, wrong, "backend left out");
        }
    }

    fn problem(&mut self, subject: &Arc<str>, (at, what): Wrong, consequence: &str) {
        let reason = format!(
            "{}: {}; {consequence}",
            place(self.path, Some(at)),
            brief(&what)
        );
        let problem = Problem {
            subject: Arc::clone(subject),
            reason,
        };
        self.problems.push((at, problem));
    }
}

/// What an earlier entry for the same VIP says otherwise.
fn contradiction(pools: &Pools, keys: &[PoolKey], properties: &Properties) -> Option<String> {
    let held = |key| pools.properties(key);
    let differs = |held: &&Arc<Properties>| ***held != *properties;
    let held = keys.iter().filter_map(held).find(differs)?;
    let keys = held.differences(properties).join(", ");
    Some(format!(
        "an entry before has another {keys} for the same VIP"
    ))
}

/// Puts a backend behind each VIP.
fn add(pools: &mut Pools, keys: &[PoolKey], at: Location, backend: &Backend) -> Result<(), Wrong> {
    for key in keys {
        if !pools.add(key.clone(), backend.clone()) {
            let what = format!("{} is not of the VIP's address family", backend.addr);
            return Err((at, what));
        }
    }
    Ok(())
}

// === impl Service ===

impl Service {
    /// One pool for each protocol.
    fn keys(&self, at: Location, app: &Arc<str>) -> Result<Vec<PoolKey>, Wrong> {
        let host = self.host(at)?;
        let port = self
            .port
            .as_ref()
            .ok_or_else(|| (at, "key port is missing".to_owned()))?;
        let number = values::port(&port.value)
            .map_err(|why| (port.referenced, format!("key port: {why}")))?;
        let key = |protocol| PoolKey {
            app: Arc::clone(app),
            host: host.clone(),
            port: number,
            protocol,
        };
        let Some(protocols) = &self.protocol else {
            return Ok(vec![key(Protocol::Tcp)]);
        };
        let parsed = protocols.value.0.iter().map(|name| match name.as_str() {
            "tcp" => Ok(key(Protocol::Tcp)),
            "udp" => Ok(key(Protocol::Udp)),
            other => Err((
                protocols.referenced,
                format!("key protocol: {other:?} is neither tcp nor udp"),
            )),
        });
        let keys = parsed.collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err((
                protocols.referenced,
                "key protocol: the list is empty".to_owned(),
            ));
        }
        Ok(keys)
    }

    fn host(&self, at: Location) -> Result<VipHost, Wrong> {
        let wrong = |at, what: &str| Err((at, what.to_owned()));
        match (&self.name, &self.address) {
            (Some(_), Some(address)) => wrong(
                address.referenced,
                "keys name and address exclude each other",
            ),
            (None, None) => wrong(at, "key name (or address) is missing"),
            (None, Some(address)) => match address.value.parse() {
                Ok(_) if self.framework.is_some() => {
                    wrong(at, "key framework has no meaning for an address")
                }
                Ok(addr) => Ok(VipHost::Addr(addr)),
                Err(_) => {
                    let what = format!("key address: {:?} is not an IP address", address.value);
                    wrong(address.referenced, &what)
                }
            },
            (Some(name), None) if name.value.is_empty() => {
                wrong(name.referenced, "key name is empty")
            }
            (Some(_), None) => {
                let framework = read("framework", &self.framework, values::name)?;
                Ok(VipHost::Named {
                    name: read("name", &self.name, values::name)?.unwrap_or_default(),
                    framework: framework.unwrap_or_else(|| FRAMEWORK.into()),
                })
            }
        }
    }
}

// === impl Entry ===

impl Entry {
    fn backend(self, at: Location) -> Result<Backend, Wrong> {
        let (address, at, keys) = match self {
            Self::Short(address) => (address, at, None),
            Self::Long(entry) => {
                let Some(address) = &entry.address else {
                    let what = "a backend without key address: give it as ADDRESS:PORT";
                    return Err((at, what.to_owned()));
                };
                (address.value.clone(), address.referenced, Some(entry))
            }
        };
        let addr: SocketAddr = address.parse().map_err(|_| {
            (
                at,
                format!("backend {address:?} is not IPV4:PORT or [IPV6]:PORT"),
            )
        })?;
        if addr.port() == 0 {
            return Err((at, format!("backend {address:?} has port 0")));
        }
        if addr.ip().is_unspecified() || addr.ip().is_multicast() || is_broadcast(addr.ip()) {
            return Err((
                at,
                format!("backend {address:?} is not the address of one host"),
            ));
        }
        let mut backend = Backend {
            addr,
            weight: Weight::ONE,
            max_flows: 0,
            backup: false,
            zone: None,
            task: address.into(),
            instance: None,
            host: None,
            healthy: false,
            draining: None,
        };
        if let Some(keys) = keys {
            keys.apply(&mut backend)?;
        }
        Ok(backend)
    }
}

// === impl LongEntry ===

impl LongEntry {
    /// Sets what is said besides the address.
    fn apply(self, backend: &mut Backend) -> Result<(), Wrong> {
        let Self {
            address: _,
            weight: weight_key,
            max_flows,
            backup,
            zone,
            name,
        } = self;
        backend.weight = read("weight", &weight_key, weight)?.unwrap_or(Weight::ONE);
        backend.max_flows = read("max-flows", &max_flows, count)?.unwrap_or(0);
        backend.backup = read("backup", &backup, flag)?.unwrap_or(false);
        backend.zone = read("zone", &zone, |text| Ok(word(text)?.into()))?;
        if let Some(name) = read("name", &name, values::name)? {
            backend.task = name;
        }
        if backend.weight == Weight::DRAIN {
            backend.draining = Some(Drain::WEIGHT_0);
        }
        Ok(())
    }
}

impl FromNode for Entry {
    fn from_node(node: Node, key: &str, faults: &mut Faults) -> Option<Self> {
        match node.value {
            Value::Map(_) => {
                let long = LongEntry::from_node(node, key, faults)?;
                Some(Self::Long(Box::new(long)))
            }
            Value::Text(address) => Some(Self::Short(address)),
            other => {
                let what = format!(
                    "key {key}: a backend is ADDRESS:PORT, or a map with address and more, not {other}"
                );
                faults.add(node.at, what);
                None
            }
        }
    }
}

fn is_broadcast(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V4(v4) if v4.is_broadcast())
}

fn place(path: &Path, at: Option<Location>) -> String {
    match at {
        Some(at) => format!("{}:{}:{}", path.display(), at.line(), at.column()),
        None => path.display().to_string(),
    }
}

#[cfg(test)]
mod tests;
