//! What the operator said of backends. It wins over orchestrators and checks, and outlives the agent in a file.

use std::{
    collections::BTreeSet,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::{
    admin::{
        orders::{Act, Named, Obeyed, Order, Which},
        report::{OperatorReport, Timestamp},
    },
    catalog::{CatalogBackend, Desired, Service, ServiceKey, Weight},
};

const FILE: &str = "operator.json";
/// A word about backends that are not there is forgotten after this time.
const FORGOTTEN: Duration = Duration::from_secs(86_400);
/// An answer names no more backends than this.
const NAMED: usize = 20;

/// Every word that holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Operator {
    path: PathBuf,
    words: Vec<Word>,
    /// Addresses of backends that are on this node.
    locals: BTreeSet<IpAddr>,
}

/// What holds for some backends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Word {
    which: Which,
    /// Whether they are taken out.
    out: Option<Out>,
    /// Their share of new flows.
    weight: Option<u16>,
    /// When it was said.
    since: Timestamp,
    /// Since when it is about nobody.
    #[serde(skip)]
    unused: Option<Timestamp>,
}

/// How a backend is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Out {
    /// Shown as maintenance instead of draining.
    pub(super) maintenance: bool,
    /// When connections that are left are reset.
    pub(super) deadline: Option<Timestamp>,
}

/// What the operator says of one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// It is taken out.
    pub(super) out: Option<Out>,
    /// Its share of new flows.
    pub(super) weight: Option<Weight>,
}

// === impl Operator ===

impl Operator {
    /// What was said before.
    ///
    /// # Errors
    ///
    /// The file cannot be read: to go on without it would send traffic to what the operator took out.
    pub(super) fn load(state_dir: &Path) -> Result<Self> {
        let path = state_dir.join(FILE);
        let words = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| {
                format!(
                    "{} is damaged; remove it, and say again what is to drain",
                    path.display()
                )
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        Ok(Self {
            path,
            words,
            locals: BTreeSet::new(),
        })
    }

    /// Says which backends are on this node.
    pub(super) fn know_locals(&mut self, locals: BTreeSet<IpAddr>) {
        self.locals = locals;
    }

    /// What holds for one backend: of several words about it all that take it out, and of weights that of the one
    /// which names it most closely.
    pub(super) fn says(
        &self,
        key: &ServiceKey,
        service: &Service,
        backend: &CatalogBackend,
    ) -> Said {
        let mut said = Said::default();
        let mut closest = None;
        let about = |word: &&Word| concerns(&word.which, &self.locals, key, service, backend);
        for word in self.words.iter().filter(about) {
            if let Some(out) = word.out {
                said.out = Some(said.out.map_or(out, |held| held.and(out)));
            }
            let rank = closeness(&word.which);
            if let Some(weight) = word.weight.and_then(Weight::new)
                && closest.is_none_or(|closest| closest <= rank)
            {
                closest = Some(rank);
                said.weight = Some(weight);
            }
        }
        said
    }

    /// The next moment at which a deadline ends.
    pub(super) fn next_deadline(&self, now: Timestamp) -> Option<Timestamp> {
        let outs = self.words.iter().filter_map(|word| word.out);
        let deadlines = outs.filter_map(|out| out.deadline);
        deadlines.filter(|deadline| *deadline > now).min()
    }

    /// Carries an order out and writes it down; what then holds for whom.
    ///
    /// # Errors
    ///
    /// Why nothing was changed.
    pub(super) fn obey(&mut self, order: &Order, desired: &Desired, now: Timestamp) -> Obeyed {
        let which = &order.which;
        let locals = self.locals.clone();
        let concerned = |which: &Which| {
            let of = |(key, service): (&ServiceKey, &Service)| {
                let about = |one: &&CatalogBackend| concerns(which, &locals, key, service, one);
                let backends = service.backends.iter().filter(about);
                let pair = |backend: &CatalogBackend| (*key, backend.addr);
                backends.map(pair).collect::<Vec<_>>()
            };
            desired
                .services
                .iter()
                .flat_map(of)
                .collect::<BTreeSet<_>>()
        };
        let concerned_now = concerned(which);
        let known = self.words.iter().any(|word| word.which == *which);
        if concerned_now.is_empty()
            && which.backend.is_some()
            && !(order.act == Act::Ready && known)
        {
            return Err(format!(
                "there is no backend {which}; `lb-agent status` lists them"
            ));
        }
        let before = self.words.clone();
        match order.act {
            Act::Ready => self.words.retain(|word| {
                let narrower = which.service.is_none() || word.which.service == which.service;
                let same = word.which == *which;
                let of_node = word.which.backend.is_none();
                let all = concerned(&word.which);
                let within = !all.is_empty() && all.is_subset(&concerned_now);
                !(same || (!of_node && narrower && within))
            }),
            Act::Drain | Act::Maintenance => {
                let deadline = order.deadline;
                let out = Out {
                    maintenance: order.act == Act::Maintenance,
                    deadline: deadline.map(|s| Timestamp(now.0.saturating_add(s * 1_000))),
                };
                self.word(which, now).out = Some(out);
            }
            Act::Weight(weight) => self.word(which, now).weight = Some(weight),
        }
        if let Err(error) = self.save() {
            self.words = before;
            return Err(format!("{error:#}; nothing was changed"));
        }
        Ok(self.told(desired, &concerned_now))
    }

    /// The word about these backends, as if said now.
    fn word(&mut self, which: &Which, now: Timestamp) -> &mut Word {
        let at = self.words.iter().position(|word| word.which == *which);
        let at = at.unwrap_or(self.words.len());
        if at == self.words.len() {
            self.words.push(Word {
                which: which.clone(),
                out: None,
                weight: None,
                since: now,
                unused: None,
            });
        }
        let word = &mut self.words[at];
        word.since = now;
        word
    }

    /// What holds for these backends, a line each.
    fn told(
        &self,
        desired: &Desired,
        of: &BTreeSet<(ServiceKey, std::net::SocketAddr)>,
    ) -> Vec<String> {
        let line = |(key, addr): &(ServiceKey, std::net::SocketAddr)| {
            let service = desired.services.get(key)?;
            let backend = service.backends.iter().find(|one| one.addr == *addr)?;
            let said = self.says(key, service, backend);
            let name = service.name.as_ref().map(ToString::to_string);
            let name = name.map_or_else(
                || key.to_string(),
                |name| format!("{name}:{}/{}", key.port, key.protocol),
            );
            Some(format!("{addr} of {name}: {}", said.in_words()))
        };
        let mut lines: Vec<_> = of.iter().take(NAMED).filter_map(line).collect();
        if of.len() > NAMED {
            lines.push(format!("and {} more", of.len() - NAMED));
        }
        if lines.is_empty() {
            lines.push("no backend is concerned at present".to_owned());
        }
        lines
    }

    /// Notes which words are about nobody, and forgets those that have long been; not to be called before every
    /// provider was read.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(super) fn turn_over(&mut self, desired: &Desired, now: Timestamp) -> Result<()> {
        let Self { words, locals, .. } = self;
        let count = words.len();
        words.retain_mut(|word| {
            let mut all = desired.services.iter();
            let used = word.which.backend.is_none()
                || all.any(|(key, service)| {
                    let mut backends = service.backends.iter();
                    backends.any(|one| concerns(&word.which, locals, key, service, one))
                });
            word.unused = (!used).then(|| word.unused.unwrap_or(now));
            word.unused.is_none_or(|since| now.since(since) < FORGOTTEN)
        });
        if words.len() < count {
            self.save()?;
        }
        Ok(())
    }

    /// For `status`.
    pub(super) fn report(&self) -> Vec<OperatorReport> {
        let of = |word: &Word| OperatorReport {
            which: word.which.to_string(),
            says: Said {
                out: word.out,
                weight: word.weight.and_then(Weight::new),
            }
            .in_words(),
            since: word.since,
            deadline: word.out.and_then(|out| out.deadline),
            unused_since: word.unused,
        };
        self.words.iter().map(of).collect()
    }

    /// A crash at any point leaves the old file or the new one.
    fn save(&self) -> Result<()> {
        let temporary = self.path.with_extension("json.new");
        let write = || -> io::Result<()> {
            if let Some(dir) = self.path.parent() {
                fs::create_dir_all(dir)?;
            }
            fs::write(&temporary, serde_json::to_vec(&self.words)?)?;
            fs::File::open(&temporary)?.sync_all()?;
            fs::rename(&temporary, &self.path)
        };
        write().with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// Whether a word is about this backend.
fn concerns(
    which: &Which,
    locals: &BTreeSet<IpAddr>,
    key: &ServiceKey,
    service: &Service,
    backend: &CatalogBackend,
) -> bool {
    let named = match &which.backend {
        None => locals.contains(&backend.addr.ip()),
        Some(Named::At(at)) => backend.addr == *at,
        Some(Named::Host(addr)) => backend.addr.ip() == *addr,
        Some(Named::Task(id)) => *backend.task == **id,
    };
    let service_fits = |text: &str| names(key, service).any(|name| name == text);
    named && which.service.as_deref().is_none_or(service_fits)
}

/// Everything that a service is called: by name or address, without or with its port and protocol.
fn names(key: &ServiceKey, service: &Service) -> impl Iterator<Item = String> {
    let canonical = service.name.as_ref().map(ToString::to_string);
    let bare = [canonical, service.fqdn(), Some(key.addr.to_string())];
    let at = std::net::SocketAddr::new(key.addr, key.port.get());
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
fn closeness(which: &Which) -> (bool, u8) {
    let named = match &which.backend {
        None => 0,
        Some(Named::Host(_)) => 1,
        Some(Named::At(_)) => 2,
        Some(Named::Task(_)) => 3,
    };
    (which.service.is_some(), named)
}

// === impl Out ===

impl Out {
    /// Both hold: maintenance is the stronger word, and the earlier deadline comes first.
    fn and(self, other: Self) -> Self {
        let deadlines = [self.deadline, other.deadline].into_iter().flatten();
        Self {
            maintenance: self.maintenance || other.maintenance,
            deadline: deadlines.min(),
        }
    }

    /// Whether what is left is reset.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }
}

// === impl Said ===

impl Said {
    fn in_words(self) -> String {
        let out = self.out.map(|out| match out.maintenance {
            true => "maintenance".to_owned(),
            false => "draining".to_owned(),
        });
        let weight = self.weight.map(|weight| format!("weight {weight}"));
        let words: Vec<_> = out.into_iter().chain(weight).collect();
        if words.is_empty() {
            return "as its orchestrator says".to_owned();
        }
        words.join(", ")
    }
}

#[cfg(test)]
mod tests;
