//! One word of the operator: whom it is about, what it says, and how it is kept on disk.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

use crate::{
    admin::{
        orders::{Forced, Named, Which},
        report::{OperatorReport, Timestamp},
    },
    catalog::{CatalogBackend, Port, Service, ServiceKey, Weight},
};

use super::{Front, Out, Own, Said};

/// What holds for some backends, or for a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Word {
    pub(super) which: Which,
    /// Whether they are taken out.
    pub(super) out: Option<Out>,
    /// Their share of new flows.
    pub(super) weight: Option<u16>,
    /// How they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) health: Option<Forced>,
    /// Their checks are stopped; in it is who was down then, with the service whose check said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unchecked: Option<BTreeSet<(String, SocketAddr)>>,
    /// Flows at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) limit: Option<u32>,
    /// Of a service: it takes no new flows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) stopped: bool,
    /// Their checks ask them at this port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) check_port: Option<u16>,
    /// One that is there, or where it is, by this word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) own: Option<Own>,
    /// When it was said.
    pub(super) since: Timestamp,
    /// Since when it is about nobody.
    #[serde(skip)]
    pub(super) unused: Option<Timestamp>,
}

// === impl Word ===

impl Word {
    /// One that says nothing yet.
    pub(super) fn new(which: Which, since: Timestamp) -> Self {
        Self {
            which,
            out: None,
            weight: None,
            health: None,
            unchecked: None,
            limit: None,
            stopped: false,
            check_port: None,
            own: None,
            since,
            unused: None,
        }
    }

    /// Whether it says nothing any more.
    pub(super) fn is_empty(&self) -> bool {
        let Self {
            which: _,
            out,
            weight,
            health,
            unchecked,
            limit,
            stopped,
            check_port,
            own,
            since: _,
            unused: _,
        } = self;
        out.is_none()
            && weight.is_none()
            && health.is_none()
            && unchecked.is_none()
            && limit.is_none()
            && !stopped
            && check_port.is_none()
            && own.is_none()
    }

    /// Adds to what was said of this backend by words that name it less closely.
    pub(super) fn say(&self, said: &mut Said, key: &ServiceKey, backend: &CatalogBackend) {
        if let Some(out) = self.out {
            said.out = Some(said.out.map_or(out, |held| held.and(out)));
        }
        said.weight = self.weight.and_then(Weight::new).or(said.weight);
        said.health = self.health.or(said.health);
        said.limit = self.limit.or(said.limit);
        said.check_port = self.check_port.and_then(Port::new).or(said.check_port);
        if let Some(down) = &self.unchecked {
            said.unchecked = Some(down.contains(&(key.to_string(), backend.addr)));
        }
    }

    /// The same of a service.
    pub(super) fn say_of_service(&self, front: &mut Front) {
        front.stopped |= self.stopped;
        front.limit = self.limit.or(front.limit);
    }

    /// For `status`.
    pub(super) fn report(&self) -> OperatorReport {
        let said = Said {
            out: self.out,
            weight: self.weight.and_then(Weight::new),
            health: self.health,
            unchecked: self.unchecked.as_ref().map(|_| false),
            limit: self.limit,
            check_port: self.check_port.and_then(Port::new),
        };
        let front = Front {
            stopped: self.stopped,
            limit: self.limit,
        };
        OperatorReport {
            which: self.which.to_string(),
            says: match &self.own {
                Some(own) if said == Said::default() => own.to_string(),
                Some(own) => format!("{own}, {}", said.in_words()),
                None if self.which.is_service() => front.in_words(),
                None => said.in_words(),
            },
            server: self.own.as_ref().map(|own| own.server.clone()),
            since: self.since,
            deadline: self.out.and_then(|out| out.deadline),
            unused_since: self.unused,
        }
    }
}

/// Whether a word is about this backend.
pub(super) fn concerns(
    which: &Which,
    locals: &BTreeSet<IpAddr>,
    key: &ServiceKey,
    service: &Service,
    backend: &CatalogBackend,
) -> bool {
    let named = match &which.backend {
        None => which.service.is_none() && locals.contains(&backend.addr.ip()),
        Some(Named::At(at)) => backend.addr == *at,
        Some(Named::Host(addr)) => backend.addr.ip() == *addr,
        Some(Named::Task(id)) => *backend.task == **id,
    };
    named && of_service(which, key, service)
}

/// Whether a word is about this service itself.
pub(super) fn concerns_service(which: &Which, key: &ServiceKey, service: &Service) -> bool {
    which.is_service() && of_service(which, key, service)
}

fn of_service(which: &Which, key: &ServiceKey, service: &Service) -> bool {
    let fits = |text: &str| names(key, service).any(|name| name == text);
    which.service.as_deref().is_none_or(fits)
}

/// Everything that a service is called: by name or address, without or with its port and protocol.
fn names(key: &ServiceKey, service: &Service) -> impl Iterator<Item = String> {
    let canonical = service.name.as_ref().map(ToString::to_string);
    let bare = [canonical, service.fqdn(), Some(key.addr.to_string())];
    let at = SocketAddr::new(key.addr, key.port.get());
    let (port, protocol) = (key.port, key.protocol);
    let with_port = bare
        .clone()
        .into_iter()
        .take(2)
        .flatten()
        .map(move |name| format!("{name}:{port}"))
        .chain([at.to_string()]);
    let with_port: Vec<_> = with_port.collect();
    let full: Vec<_> = with_port
        .iter()
        .map(|name| format!("{name}/{protocol}"))
        .collect();
    bare.into_iter().flatten().chain(with_port).chain(full)
}

/// How closely a word names a backend.
pub(super) fn closeness(which: &Which) -> (bool, u8) {
    let named = match &which.backend {
        None => 0,
        Some(Named::Host(_)) => 1,
        Some(Named::At(_)) => 2,
        Some(Named::Task(_)) => 3,
    };
    (which.service.is_some(), named)
}
