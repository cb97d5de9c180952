//! Servers that are there by the operator's word, and those of a services file that he has elsewhere.

use std::{collections::BTreeMap, fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use super::{Operator, Out, not_for, word::Word};
use crate::{
    admin::{
        orders::{Act, Named, NewServer, Obeyed, Order, Which},
        report::Timestamp,
    },
    catalog::{CatalogBackend, Desired, Service, ServiceKey, Weight, unfit},
    control::standing::title,
    provider::ProviderId,
};

/// What HAProxy answers to a name that there is.
const TAKEN: &str = "Already exists a server with the same name in backend.";

/// One of them; where it listens, and of which service, is what its word is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Own {
    /// What HAProxy's tools call it: `web_80/new`.
    pub(super) server: String,
    origin: Origin,
}

/// Where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Origin {
    /// The operator added it.
    Added {
        weight: u16,
        backup: bool,
        max_flows: u32,
    },
    /// A services file has it there.
    Moved { from: SocketAddr },
}

// === impl Own ===

impl Own {
    /// What it is called within its proxy.
    fn name(&self) -> &str {
        let split = self.server.rsplit_once('/');
        split.map_or(&self.server, |(_, name)| name)
    }

    /// Puts it into its service, unless somebody else has a backend there: who declares one knows more of it.
    fn place(&self, at: SocketAddr, service: &mut Service) {
        let backends = &mut service.backends;
        if backends.iter().any(|one| one.addr == at) {
            return;
        }
        let name = || self.name().into();
        match self.origin {
            Origin::Added {
                weight,
                backup,
                max_flows,
            } => backends.push(CatalogBackend {
                addr: at,
                weight: Weight::new(weight).unwrap_or(Weight::MAX),
                max_flows,
                backup,
                zone: None,
                task: name(),
                instance: None,
                host: None,
                called: Some(name()),
                app: "operator".into(),
                provider: ProviderId::operator(),
                draining: None,
                healthy: false,
            }),
            Origin::Moved { from } => {
                let mut backends = backends.iter_mut();
                let moved = backends.find(|one| one.addr == from && one.provider.is_file());
                let Some(moved) = moved else { return };
                (moved.addr, moved.called) = (at, Some(name()));
            }
        }
        service.backends.sort_by_key(|one| one.addr);
    }
}

impl fmt::Display for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin {
            Origin::Added { .. } => write!(f, "server {} added", self.server),
            Origin::Moved { from } => write!(f, "server {} moved from {from}", self.server),
        }
    }
}

// === impl Operator ===

impl Operator {
    /// Puts the operator's own servers into the services that they are of. Those of a service that is not there wait.
    pub(in crate::control) fn place_servers(&self, desired: &mut Desired) {
        let mut own: Vec<_> = self.words.iter().filter_map(own).collect();
        if own.is_empty() {
            return;
        }
        // An address that one leaves is free for another.
        own.sort_by_key(|(_, own, _)| matches!(own.origin, Origin::Added { .. }));
        let mut titles = BTreeMap::<String, Vec<ServiceKey>>::new();
        for (key, service) in &desired.services {
            titles.entry(title(key, service)).or_default().push(*key);
        }
        for (of, own, at) in own {
            for key in titles.get(of).into_iter().flatten() {
                if key.addr.is_ipv4() == at.is_ipv4()
                    && let Some(service) = desired.services.get_mut(key)
                {
                    own.place(at, service);
                }
            }
        }
    }

    /// Adds, moves or removes a server; the backends are others at the next look.
    pub(super) fn obey_about_server(
        &mut self,
        order: &Order,
        desired: &Desired,
        now: Timestamp,
    ) -> Obeyed {
        let before = self.words.clone();
        let done = match &order.act {
            Act::Add(new) => self.add(&order.which, new, desired, now),
            Act::Move { server, to } => self.shift(&order.which, server, *to, desired, now),
            Act::Delete { server } => self.delete(server),
            _ => Err(not_for(order)),
        };
        if let Err(why) = done {
            self.words = before;
            return Err(why);
        }
        self.keep(before)?;
        Ok(vec![format!("{}: {}", order.which, order.act)])
    }

    fn add(
        &mut self,
        which: &Which,
        new: &NewServer,
        desired: &Desired,
        now: Timestamp,
    ) -> Result<(), String> {
        let (Some(Named::At(at)), Some(of)) = (&which.backend, &which.service) else {
            return Err("say where the server listens, and of which service it is".to_owned());
        };
        let mut taken = self.words.iter().filter_map(own);
        if taken.any(|(_, own, _)| own.server == new.server) {
            return Err(TAKEN.to_owned());
        }
        let mut taken = self.words.iter().filter_map(own);
        if let Some((_, own, _)) = taken.find(|(title, _, addr)| *title == of && addr == at) {
            return Err(format!("{at} is the server {} already", own.server));
        }
        let (key, service) = service_of(of, *at, desired)?;
        free(*at, key, service)?;
        // A word that is left of an earlier backend there says nothing of this one.
        let word = self.word(which, now);
        *word = Word::new(which.clone(), now);
        word.own = Some(Own {
            server: new.server.clone(),
            origin: Origin::Added {
                weight: new.weight,
                backup: new.backup,
                max_flows: new.max_flows,
            },
        });
        word.check_port = new.check_port.map(crate::catalog::Port::get);
        word.out = (!new.enabled).then_some(Out {
            maintenance: true,
            deadline: None,
        });
        Ok(())
    }

    fn shift(
        &mut self,
        which: &Which,
        server: &str,
        to: SocketAddr,
        desired: &Desired,
        now: Timestamp,
    ) -> Result<(), String> {
        let (Some(Named::At(from)), Some(of)) = (&which.backend, &which.service) else {
            return Err("say where the server listens, and of which service it is".to_owned());
        };
        let (key, service) = service_of(of, *from, desired)?;
        let backend = service.backends.iter().find(|one| one.addr == *from);
        let backend = backend.ok_or_else(|| format!("there is no backend {which}"))?;
        let provider = &backend.provider;
        if !provider.is_file() && !provider.is_operator() {
            return Err(format!(
                "{server} is where {provider} says that it is: change it there; only servers of a services file and \
                 those of 'add server' can be moved"
            ));
        }
        if to.is_ipv4() != key.addr.is_ipv4() {
            return Err(format!("{to} is not of the family of {key}"));
        }
        free(to, key, service)?;
        let new = Which {
            backend: Some(Named::At(to)),
            service: which.service.clone(),
        };
        // A word that is left of an earlier backend there says nothing of this one.
        self.words.retain(|word| word.which != new);
        let word = self.word(which, now);
        word.which = new;
        word.own = match word.own.take() {
            Some(Own {
                origin: Origin::Moved { from: home },
                ..
            }) if home == to => None,
            Some(own) => Some(own),
            None => Some(Own {
                server: server.to_owned(),
                origin: Origin::Moved { from: *from },
            }),
        };
        Ok(())
    }

    fn delete(&mut self, server: &str) -> Result<(), String> {
        let count = self.words.len();
        let is_it = |word: &Word| word.own.as_ref().is_some_and(|own| own.server == server);
        self.words.retain(|word| !is_it(word));
        match self.words.len() < count {
            true => Ok(()),
            false => Err("No such server.".to_owned()),
        }
    }
}

/// The service that a word's own server is of, the server, and where it listens.
fn own(word: &Word) -> Option<(&String, &Own, SocketAddr)> {
    match &word.which {
        Which {
            backend: Some(Named::At(at)),
            service: Some(of),
        } => Some((of, word.own.as_ref()?, *at)),
        _ => None,
    }
}

/// The service of this title and of the address's family.
fn service_of<'d>(
    of: &str,
    at: SocketAddr,
    desired: &'d Desired,
) -> Result<(&'d ServiceKey, &'d Service), String> {
    let mut services = desired.services.iter();
    let is_it = |(key, service): &(&ServiceKey, &Service)| {
        key.addr.is_ipv4() == at.is_ipv4() && title(key, service) == of
    };
    services.find(is_it).ok_or_else(|| {
        let family = if at.is_ipv4() { "IPv4" } else { "IPv6" };
        format!("{of} has no {family} address, and backends are of the family of their VIP")
    })
}

/// Whether a backend of the service can listen there.
fn free(at: SocketAddr, key: &ServiceKey, service: &Service) -> Result<(), String> {
    let is_there = service.backends.iter().find(|one| one.addr == at);
    match (unfit(at), is_there) {
        (Some(why), _) => Err(format!("{at} cannot be a server: {why}")),
        (None, _) if at.ip() == key.addr => Err(format!(
            "{at} cannot be a server: it is the VIP itself, which would call itself"
        )),
        (None, Some(one)) => Err(format!(
            "{at} is a server of this backend already, of {}",
            one.provider
        )),
        (None, None) => Ok(()),
    }
}
