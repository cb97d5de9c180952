//! The services file: YAML text -> a snapshot. Pure.

mod check;
mod properties;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use serde_saphyr::{Location, Spanned};

use self::{
    check::CheckKeys,
    properties::{IdleKeys, PortList, properties, read},
};
use crate::{
    catalog::{Properties, Protocol, Weight},
    provider::{
        Backend, PoolKey, Pools, Problem, Snapshot, VipHost,
        values::{self, count, flag, weight, word},
    },
};

/// The name space of named VIPs that do not say another.
const FRAMEWORK: &str = "file";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    services: Option<Vec<Spanned<Service>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Service {
    name: Option<Spanned<String>>,
    address: Option<Spanned<String>>,
    framework: Option<Spanned<String>>,
    port: Option<Spanned<String>>,
    protocol: Option<Spanned<Protocols>>,
    backends: Option<Vec<Spanned<Entry>>>,
    mode: Option<Spanned<String>>,
    balance: Option<Spanned<String>>,
    affinity: Option<Spanned<String>>,
    max_flows: Option<Spanned<String>>,
    rate: Option<Spanned<String>>,
    source_rate: Option<Spanned<String>>,
    idle: Option<IdleKeys>,
    allow: Option<Spanned<Vec<Spanned<String>>>>,
    deny: Option<Vec<Spanned<String>>>,
    external: Option<Spanned<PortList>>,
    check: Option<Spanned<CheckKeys>>,
    fail_open: Option<Spanned<String>>,
}

/// One protocol or a list of them.
struct Protocols(Vec<String>);

/// A backend: its address alone, or with more.
enum Entry {
    Short(String),
    Long(Box<LongEntry>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct LongEntry {
    address: Spanned<String>,
    weight: Option<Spanned<String>>,
    max_flows: Option<Spanned<String>>,
    backup: Option<Spanned<String>>,
    zone: Option<Spanned<String>>,
    name: Option<String>,
}

/// Reads a services file; `path` is only for messages.
///
/// A service or backend with a wrong value is left out and named in the snapshot's problems.
///
/// # Errors
/// `file:line:column: what`, where the text is not YAML, has an unknown or repeated key, or a list where a
/// value belongs: then nothing of it can be trusted.
pub fn parse(text: &str, path: &Path) -> Result<Snapshot, String> {
    let options = serde_saphyr::options! { with_snippet: false };
    let file: Option<File> = serde_saphyr::from_str_with_options(text, options)
        .map_err(|e| format!("{}: {}", place(path, e.location()), message(&e)))?;
    let mut reader = Reader {
        path,
        pools: Pools::default(),
        problems: Vec::new(),
    };
    let services = file.and_then(|file| file.services).unwrap_or_default();
    for (index, service) in services.into_iter().enumerate() {
        reader.service(index, service);
    }
    reader.problems.sort();
    Ok(Snapshot {
        pools: reader.pools.into_vec(),
        problems: reader.problems,
    })
}

struct Reader<'a> {
    path: &'a Path,
    pools: Pools,
    problems: Vec<Problem>,
}

/// Where and what is wrong with one service.
type Wrong = (Location, String);

// === impl Reader ===

impl Reader<'_> {
    fn service(&mut self, index: usize, service: Spanned<Service>) {
        let at = service.referenced;
        let service = service.value;
        let subject: Arc<str> = match service.name.as_ref().or(service.address.as_ref()) {
            Some(name) => name.value.as_str().into(),
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
        if let Some(what) = properties
            .as_ref()
            .and_then(|own| self.contradiction(&keys, own))
        {
            return self.problem(&subject, (at, what), "service left out");
        }
        for key in &keys {
            self.pools.declare(key.clone());
            if let Some(properties) = &properties {
                self.pools.shape(key, properties);
            }
        }
        for entry in service.backends.into_iter().flatten() {
            let at = entry.referenced;
            match entry.value.backend(at) {
                Ok(backend) => self.backend(&subject, &keys, at, &backend),
                Err(wrong) => self.problem(&subject, wrong, "backend left out"),
            }
        }
    }

    /// What an earlier entry for the same VIP says otherwise.
    fn contradiction(&self, keys: &[PoolKey], properties: &Properties) -> Option<String> {
        let held = |key| self.pools.properties(key);
        let differs = |held: &&Arc<Properties>| ***held != *properties;
        let held = keys.iter().filter_map(held).find(differs)?;
        let keys = held.differences(properties).join(", ");
        Some(format!(
            "an entry before has another {keys} for the same VIP"
        ))
    }

    fn backend(&mut self, subject: &Arc<str>, keys: &[PoolKey], at: Location, backend: &Backend) {
        for key in keys {
            if !self.pools.add(key.clone(), backend.clone()) {
                let what = format!("{} is not of the VIP's address family", backend.addr);
                return self.problem(subject, (at, what), "backend left out");
            }
        }
    }

    fn problem(&mut self, subject: &Arc<str>, (at, what): Wrong, consequence: &str) {
        let reason = format!("{}: {what}; {consequence}", place(self.path, Some(at)));
        self.problems.push(Problem {
            subject: Arc::clone(subject),
            reason,
        });
    }
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
            (Some(name), None) => {
                let framework = self.framework.as_ref().map_or(FRAMEWORK, |f| &f.value);
                Ok(VipHost::Named {
                    name: name.value.as_str().into(),
                    framework: framework.into(),
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
            Self::Long(entry) => (
                entry.address.value.clone(),
                entry.address.referenced,
                Some(entry),
            ),
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
        if let Some(name) = name {
            backend.task = name.into();
        }
        if backend.weight == Weight::DRAIN {
            backend.draining = Some("weight 0".into());
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a backend: ADDRESS:PORT, or a map with address and more")
            }

            fn visit_str<E>(self, address: &str) -> Result<Entry, E> {
                Ok(Entry::Short(address.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Entry, A::Error> {
                LongEntry::deserialize(MapAccessDeserializer::new(map))
                    .map(|entry| Entry::Long(Box::new(entry)))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for Protocols {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Protocols;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("tcp, udp or a list of both")
            }

            fn visit_str<E>(self, name: &str) -> Result<Protocols, E> {
                Ok(Protocols(vec![name.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Protocols, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element()? {
                    names.push(name);
                }
                Ok(Protocols(names))
            }
        }
        deserializer.deserialize_any(OneOrMany)
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

/// The parser's sentence, which ends with the place that [`place`] has already said.
fn message(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    text.rsplit_once(" at line ")
        .map_or(text.as_str(), |(sentence, _)| sentence)
        .to_owned()
}

#[cfg(test)]
mod tests;
