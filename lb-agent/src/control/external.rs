//! Who stands at which port of the node's own addresses: `external` in a services file.
//!
//! A port goes to the service that had it first, also across restarts: who has it is kept on disk. It is refused, with
//! the reason in `status` and the log, where the operator does not allow it (`--node-ports`, which shares no port with
//! `--snat-ports`), where another service has it, where a socket of this host listens, and where a backend of the
//! service is that port itself. The service's VIP and its other ports go on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use tracing::warn;

use super::wanted::endpoint;
use crate::{
    catalog::{Desired, Notice, NoticeKind, Port, Protocol, Service, ServiceKey},
    config::PortRange,
    net::Listener,
    plan::Endpoint,
};

const FILE: &str = "node-ports.json";

/// A port of the node's own addresses.
type Place = (Port, Protocol);
/// Services by VIP and port as text, each with its families.
type Claimants = BTreeMap<String, Vec<ServiceKey>>;

/// Who has which port.
#[derive(Clone, Debug, Default)]
pub(super) struct Holders {
    path: PathBuf,
    by_place: BTreeMap<Place, String>,
    saved: bool,
}

/// The node that the ports are on.
pub(super) struct Ground<'a> {
    /// Its own addresses.
    pub(super) addresses: &'a BTreeSet<IpAddr>,
    /// The ports that the operator allows.
    pub(super) ports: PortRange,
    /// What the kernel holds: it stays, whoever came to listen there since.
    pub(super) standing: &'a BTreeSet<Endpoint>,
    /// What may be of a provider that was not read yet.
    pub(super) unsettled: &'a BTreeSet<Endpoint>,
    /// Asked once, and only about ports that are new.
    pub(super) listeners: &'a dyn Fn() -> io::Result<Vec<Listener>>,
}

// === impl Holders ===

impl Holders {
    /// Those of the last run. Without a readable file the first by name gets a port that several claim.
    pub(super) fn load(state_dir: &Path) -> Self {
        let path = state_dir.join(FILE);
        let by_place = read(&path).unwrap_or_else(|error| {
            warn!("{error:#}; who had which port of the node is forgotten");
            BTreeMap::new()
        });
        Self {
            path,
            by_place,
            saved: true,
        }
    }

    /// Gives the ports to services, in [`Desired::external`], and refuses the others, in [`Desired::problems`].
    pub(super) fn grant(&mut self, desired: &mut Desired, ground: &Ground<'_>) {
        let mut claims = BTreeMap::<Place, Claimants>::new();
        for (key, service) in &desired.services {
            for port in &service.properties.external {
                let claimants = claims.entry((*port, key.protocol)).or_default();
                claimants.entry(vip(key, service)).or_default().push(*key);
            }
        }
        let mut now = BTreeMap::new();
        for (place, holder) in &self.by_place {
            let claimed = claims
                .get(place)
                .is_some_and(|all| all.contains_key(holder));
            if !claimed && ground.is_at(*place, ground.unsettled) {
                now.insert(*place, holder.clone());
            }
        }
        let mut listeners = None;
        for (place, claimants) in &claims {
            let mut holder = now.get(place).cloned();
            let first = self
                .by_place
                .get(place)
                .and_then(|h| claimants.get_key_value(h));
            let others = claimants
                .iter()
                .filter(|one| Some(one.0) != first.map(|f| f.0));
            for (name, keys) in first.into_iter().chain(others) {
                let obstacle = match &holder {
                    Some(holder) => Some(format!("VIP {holder} has it, which came first")),
                    None => ground.obstacle(*place, keys, desired, &mut listeners),
                };
                if let Some(why) = obstacle {
                    refuse(desired, name, keys, *place, &why);
                    continue;
                }
                holder = Some(name.clone());
                for key in keys {
                    let at = ground
                        .addresses_for(key)
                        .map(|addr| (ground.key(addr, *place), *key));
                    desired.external.extend(at);
                }
            }
            now.extend(holder.map(|holder| (*place, holder)));
        }
        desired.problems.sort();
        desired.problems.dedup();
        if !desired.waiting.is_empty() {
            // Nobody else has it, and he may be back.
            for (place, holder) in &self.by_place {
                now.entry(*place).or_insert_with(|| holder.clone());
            }
        }
        self.saved &= now == self.by_place;
        self.by_place = now;
    }

    /// Writes what changed. A crash at any point leaves the old file or the new one.
    pub(super) fn save(&mut self) -> Result<()> {
        if self.saved {
            return Ok(());
        }
        let text = |((port, protocol), holder): (&Place, &String)| {
            (format!("{port}/{protocol}"), holder.clone())
        };
        let document: BTreeMap<String, String> = self.by_place.iter().map(text).collect();
        let temporary = self.path.with_extension("json.new");
        let write = || -> io::Result<()> {
            if let Some(dir) = self.path.parent() {
                fs::create_dir_all(dir)?;
            }
            fs::write(&temporary, serde_json::to_vec(&document)?)?;
            fs::rename(&temporary, &self.path)
        };
        write().with_context(|| format!("cannot write {}", self.path.display()))?;
        self.saved = true;
        Ok(())
    }
}

// === impl Ground ===

impl Ground<'_> {
    fn key(&self, addr: IpAddr, (port, protocol): Place) -> ServiceKey {
        ServiceKey {
            addr,
            port,
            protocol,
        }
    }

    /// The addresses at which a service can stand. One of a link alone is not the node's.
    fn addresses_for(&self, service: &ServiceKey) -> impl Iterator<Item = IpAddr> {
        let ipv4 = service.addr.is_ipv4();
        let of_family = move |addr: &IpAddr| match addr {
            IpAddr::V4(addr) => ipv4 && !addr.is_link_local(),
            IpAddr::V6(addr) => !ipv4 && !addr.is_unicast_link_local(),
        };
        self.addresses.iter().copied().filter(of_family)
    }

    fn is_at(&self, place: Place, endpoints: &BTreeSet<Endpoint>) -> bool {
        let mut addresses = self.addresses.iter();
        addresses.any(|addr| endpoints.contains(&endpoint(&self.key(*addr, place))))
    }

    /// Why nobody, or not this service, can stand there.
    fn obstacle(
        &self,
        place: Place,
        keys: &[ServiceKey],
        desired: &Desired,
        listeners: &mut Option<Vec<Listener>>,
    ) -> Option<String> {
        let (port, protocol) = (place.0.get(), place.1);
        if !self.ports.contains(port) {
            return Some(format!("it is outside --node-ports {}", self.ports));
        }
        let services = keys.iter().filter_map(|key| desired.services.get(key));
        let mut backends = services.flat_map(|service| &service.backends);
        let looping = backends.find(|backend| {
            backend.addr.port() == port && self.addresses.contains(&backend.addr.ip())
        });
        if let Some(backend) = looping {
            return Some(format!("the backend {} is there itself", backend.addr));
        }
        if self.is_at(place, self.standing) {
            return None;
        }
        let listeners = listeners.get_or_insert_with(|| {
            (self.listeners)().unwrap_or_else(|error| {
                warn!("cannot tell which ports of this node are in use: {error}");
                Vec::new()
            })
        });
        let takes = |one: &&Listener| one.takes(protocol, port, self.addresses.iter().copied());
        let listener = listeners.iter().find(takes)?;
        Some(format!("a socket of this host listens at {}", listener.at))
    }
}

fn refuse(desired: &mut Desired, name: &str, keys: &[ServiceKey], place: Place, why: &str) {
    let (port, protocol) = place;
    let services = keys.iter().filter_map(|key| desired.services.get(key));
    let apps = services.flat_map(|service| &service.backends);
    let apps: BTreeSet<_> = apps
        .map(|backend| (backend.provider.clone(), backend.app.clone()))
        .collect();
    let notices = apps.into_iter().map(|(provider, subject)| Notice {
        kind: NoticeKind::Refused,
        provider,
        subject,
        reason: format!("VIP {name} cannot have port {port}/{protocol} of this node: {why}"),
    });
    desired.problems.extend(notices);
}

/// What tells a service from others, whatever its families.
fn vip(key: &ServiceKey, service: &Service) -> String {
    match service.fqdn() {
        Some(name) => format!("{name}:{}", key.port),
        None => SocketAddr::new(key.addr, key.port.get()).to_string(),
    }
}

fn read(path: &Path) -> Result<BTreeMap<Place, String>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        read => read.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let damaged = || format!("{} is damaged", path.display());
    let document: BTreeMap<String, String> =
        serde_json::from_slice(&bytes).with_context(damaged)?;
    let place = |text: &str| {
        let (port, protocol) = text.split_once('/')?;
        let protocols = [Protocol::Tcp, Protocol::Udp].into_iter();
        let protocol = protocols.into_iter().find(|p| p.as_str() == protocol)?;
        Some((Port::new(port.parse().ok()?)?, protocol))
    };
    document
        .into_iter()
        .map(|(text, holder)| Some((place(&text)?, holder)))
        .collect::<Option<_>>()
        .with_context(damaged)
}

#[cfg(test)]
mod tests;
