//! What the kernel tables, the routes and DNS are to say.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use super::{Drain, Port, Properties, Protocol, Weight};
use crate::{provider::ProviderId, vip::VipName};

/// The whole desired state. Equal input gives an equal value, whatever the order it came in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Services with at least one backend, of whatever weight.
    pub services: BTreeMap<ServiceKey, Service>,
    /// Services that are declared and have no backend at any address of their VIP: clients are refused, and whoever
    /// looks must see why. The kernel does not know them.
    pub empty: BTreeMap<ServiceKey, Service>,
    /// What stands at ports of the node's own addresses: the service of [`Desired::services`], of the same family
    /// and protocol. Not the catalog's to fill.
    pub external: BTreeMap<ServiceKey, ServiceKey>,
    /// Names that DNS answers for.
    pub names: BTreeMap<VipName, NameAddresses>,
    /// Further names, each of one of those.
    pub aliases: BTreeMap<VipName, VipName>,
    /// Addresses that are local to every node: every leased one, also of an empty VIP, and the IP VIPs.
    pub addresses: BTreeSet<IpAddr>,
    /// Names in use whose address may differ on another node (*address not agreed across nodes*).
    pub contested: BTreeSet<VipName>,
    /// Providers that have not been read since the start, or not in whole. Services and addresses that are missing here may be
    /// theirs and must then not be removed.
    pub waiting: BTreeSet<ProviderId>,
    /// What was left out and what an operator should know; ascending, each once.
    pub problems: Vec<Notice>,
}

/// What a client connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// The VIP's address.
    pub addr: IpAddr,
    /// The VIP's port.
    pub port: Port,
    /// The VIP's protocol.
    pub protocol: Protocol,
}

/// Who answers there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The VIP's name; `None` for an IP VIP.
    pub name: Option<VipName>,
    /// What it is like.
    pub properties: Arc<Properties>,
    /// Ascending by address; each address once, all of the VIP's family.
    pub backends: Vec<CatalogBackend>,
}

/// One instance behind a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogBackend {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its share of new flows.
    pub weight: Weight,
    /// Flows at a time; 0: no limit.
    pub max_flows: u32,
    /// Used only while no other backend takes flows.
    pub backup: bool,
    /// The zone that it is in, if it is known.
    pub zone: Option<Arc<str>>,
    /// The orchestrator's id of the instance.
    pub task: Arc<str>,
    /// What it is called below the VIP's name in DNS; `None`: by its address.
    pub instance: Option<Arc<str>>,
    /// The host that it runs on, where that is known by another word than `addr`.
    pub host: Option<Arc<str>>,
    /// What HAProxy's tools call it; `None`: by its address.
    pub called: Option<Arc<str>>,
    /// Who declares it.
    pub app: Arc<str>,
    /// Where it was read.
    pub provider: ProviderId,
    /// Its orchestrator checks it, and finds it well.
    pub healthy: bool,
    /// Why the weight is 0.
    pub draining: Option<Drain>,
}

/// The addresses of a name; each is there iff the name has a backend of that family, of whatever weight.
///
/// Without a backend of either family, a name that its provider keeps has all that are leased to it, be it none.
/// While the provider that first claimed the name waits for its first snapshot, they are those of the last
/// run: the kernel still carries them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameAddresses {
    /// For A records.
    pub v4: Option<Ipv4Addr>,
    /// For AAAA records.
    pub v6: Option<Ipv6Addr>,
}

/// Something for the log, `status` and a counter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Notice {
    /// What sort of thing.
    pub kind: NoticeKind,
    /// Where it comes from.
    pub provider: ProviderId,
    /// App id, or whatever names the culprit.
    pub subject: Arc<str>,
    /// One sentence.
    pub reason: String,
}

/// What sort of thing a [`Notice`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoticeKind {
    /// The provider left something out of its snapshot.
    LeftOut,
    /// A declaration or a backend is refused: malformed, or beyond what the operator allows.
    Refused,
    /// A name has no address.
    NoAddress,
    /// Two NAMEs that were not meant to be one VIP share a canonical name.
    Merged,
    /// An app joined the pool of another owner.
    Joined,
}

// === impl Desired ===

impl Desired {
    /// Every service, those without backends included.
    pub fn declared(&self) -> impl Iterator<Item = (&ServiceKey, &Service)> {
        self.services.iter().chain(&self.empty)
    }

    /// Notes what is declared at `addrs`, the addresses of one VIP, and has no backend at any of them.
    pub(super) fn note_empty<'a>(
        &mut self,
        addrs: &[IpAddr],
        name: Option<&VipName>,
        declared: impl Iterator<Item = (Port, Protocol, &'a Arc<Properties>)>,
    ) {
        for (port, protocol, properties) in declared {
            let key = |&addr| ServiceKey {
                addr,
                port,
                protocol,
            };
            let mut keys = addrs.iter().map(key);
            if keys.any(|key| self.services.contains_key(&key)) {
                continue;
            }
            for key in addrs.iter().map(key) {
                self.empty.entry(key).or_insert_with(|| Service {
                    name: name.cloned(),
                    properties: Arc::clone(properties),
                    backends: Vec::new(),
                });
            }
        }
    }

    /// The problems that `before` did not have, so that each is logged once.
    pub fn new_problems<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a Notice> {
        let known = |notice: &&Notice| before.problems.binary_search(*notice).is_err();
        self.problems.iter().filter(known)
    }
}

// === impl ServiceKey ===

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addr = SocketAddr::new(self.addr, self.port.get());
        write!(f, "{addr}/{}", self.protocol)
    }
}

// === impl Service ===

impl Service {
    /// The DNS name without the trailing dot; `None` for an IP VIP.
    pub fn fqdn(&self) -> Option<String> {
        self.name.as_ref().map(VipName::fqdn)
    }
}

// === impl NameAddresses ===

impl NameAddresses {
    /// Sets the address of `addr`'s family.
    pub(crate) fn set(&mut self, addr: IpAddr) {
        match addr {
            IpAddr::V4(addr) => self.v4 = Some(addr),
            IpAddr::V6(addr) => self.v6 = Some(addr),
        }
    }
}

// === impl Notice ===

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}: {}", self.subject, self.provider, self.reason)
    }
}

// === impl NoticeKind ===

impl NoticeKind {
    /// The label of its counter.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LeftOut => "left_out",
            Self::Refused => "refused",
            Self::NoAddress => "no_address",
            Self::Merged => "merged",
            Self::Joined => "joined",
        }
    }
}
