//! What the operator said of backends. It wins over orchestrators and checks, and outlives the agent in a file.

mod nodes;
mod own;
mod said;
mod word;

use std::{
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};

use self::own::Own;
pub(super) use self::said::{Front, Out, Said};
use self::word::{Word, closeness, concerns, concerns_service};
use super::standing::title;
use crate::{
    admin::{
        orders::{Act, Obeyed, Order, Which},
        report::{OperatorReport, Timestamp},
    },
    catalog::{CatalogBackend, Desired, Service, ServiceKey},
    provider::etcd::Nodes,
};

const FILE: &str = "operator.json";
/// A word about backends that are not there is forgotten after this time.
const FORGOTTEN: Duration = Duration::from_secs(86_400);
/// An answer names no more backends than this.
const NAMED: usize = 20;

/// A backend of a service.
pub(super) type Member = (ServiceKey, SocketAddr);

/// Every word that holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Operator {
    path: PathBuf,
    words: Vec<Word>,
    /// Addresses of backends that are on this node.
    locals: Arc<BTreeSet<IpAddr>>,
    /// Who is down by his checks.
    down: BTreeSet<(String, SocketAddr)>,
    /// Nodes that drain, in their own words.
    drained: Arc<Nodes>,
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
            ..Self::default()
        })
    }

    /// Says which backends are on this node.
    pub(super) fn know_locals(&mut self, locals: BTreeSet<IpAddr>) {
        self.locals = Arc::new(locals);
    }

    /// Addresses of backends that are on this node.
    pub(super) fn locals(&self) -> &Arc<BTreeSet<IpAddr>> {
        &self.locals
    }

    /// Says who is down by his checks: whoever is to be checked no more stays so.
    pub(super) fn know_down(&mut self, down: impl Iterator<Item = Member>) {
        self.down = down.map(|(key, addr)| (key.to_string(), addr)).collect();
    }

    /// What holds for one backend: of several words about it all that take it out, and of others that of the one
    /// which names it most closely.
    pub(super) fn says(
        &self,
        key: &ServiceKey,
        service: &Service,
        backend: &CatalogBackend,
    ) -> Said {
        let mut said = Said::default();
        let about = |word: &&Word| concerns(&word.which, &self.locals, key, service, backend);
        let mut words: Vec<_> = self.words.iter().filter(about).collect();
        words.sort_by_key(|word| closeness(&word.which));
        for word in words {
            word.say(&mut said, key, backend);
        }
        said
    }

    /// What holds for a service itself.
    pub(super) fn says_of_service(&self, key: &ServiceKey, service: &Service) -> Front {
        let mut front = Front::default();
        let about = |word: &&Word| concerns_service(&word.which, key, service);
        for word in self.words.iter().filter(about) {
            word.say_of_service(&mut front);
        }
        front
    }

    /// The next moment at which a deadline ends.
    pub(super) fn next_deadline(&self, now: Timestamp) -> Option<Timestamp> {
        let outs = self.words.iter().filter_map(|word| word.out);
        let deadlines = outs.filter_map(|out| out.deadline);
        let deadlines = deadlines.chain(self.deadlines_of_nodes());
        deadlines.filter(|deadline| *deadline > now).min()
    }

    /// The backends that are meant, in each of their services.
    ///
    /// # Errors
    ///
    /// There is none, although one is named.
    pub(super) fn meant(
        &self,
        which: &Which,
        desired: &Desired,
    ) -> Result<BTreeSet<Member>, String> {
        let meant = self.concerned(which, desired);
        match meant.is_empty() && which.backend.is_some() {
            true => Err(format!(
                "there is no backend {which}; `lb-agent status` lists them"
            )),
            false => Ok(meant),
        }
    }

    fn concerned(&self, which: &Which, desired: &Desired) -> BTreeSet<Member> {
        let of = |(key, service): (&ServiceKey, &Service)| {
            let about = |one: &&CatalogBackend| concerns(which, &self.locals, key, service, one);
            let backends = service.backends.iter().filter(about);
            let pair = |backend: &CatalogBackend| (*key, backend.addr);
            backends.map(pair).collect::<Vec<_>>()
        };
        desired.services.iter().flat_map(of).collect()
    }

    /// Carries an order out and writes it down; what then holds for whom.
    ///
    /// # Errors
    ///
    /// Why nothing was changed.
    pub(super) fn obey(&mut self, order: &Order, desired: &Desired, now: Timestamp) -> Obeyed {
        let which = &order.which;
        if which.is_service() {
            return self.obey_of_service(order, desired, now);
        }
        if order.act.is_about_who_is_there() {
            return self.obey_about_server(order, desired, now);
        }
        let known = self.words.iter().any(|word| word.which == *which);
        let meant = match order.act {
            Act::Ready | Act::Enable if known => self.concerned(which, desired),
            _ => self.meant(which, desired)?,
        };
        let before = self.words.clone();
        match order.act {
            Act::Ready => self.take_back(which, &meant, desired, |word| {
                *word = Word {
                    own: word.own.take(),
                    ..Word::new(word.which.clone(), now)
                };
            }),
            Act::Enable => self.take_back(which, &meant, desired, |word| {
                (word.out, word.health) = (None, None);
            }),
            Act::Checks(true) => self.take_back(which, &meant, desired, |word| {
                word.unchecked = None;
            }),
            Act::Limit(0) => self.take_back(which, &meant, desired, |word| word.limit = None),
            Act::CheckPort(0) => {
                self.take_back(which, &meant, desired, |word| word.check_port = None);
            }
            Act::Drain | Act::Maintenance => {
                let deadline = order.deadline;
                let out = Out {
                    maintenance: order.act == Act::Maintenance,
                    deadline: deadline.map(|s| Timestamp(now.0.saturating_add(s * 1_000))),
                };
                self.word(which, now).out = Some(out);
            }
            Act::Weight(weight) => self.word(which, now).weight = Some(weight),
            Act::Health(forced) => self.word(which, now).health = Some(forced),
            Act::Checks(false) => {
                let down = self.down.iter();
                let of = |(key, addr): &&(String, SocketAddr)| {
                    meant
                        .iter()
                        .any(|(one, at)| at == addr && one.to_string() == *key)
                };
                let down = down.filter(of).cloned().collect();
                self.word(which, now).unchecked = Some(down);
            }
            Act::Limit(flows) => self.word(which, now).limit = Some(flows),
            Act::CheckPort(port) => self.word(which, now).check_port = Some(port),
            Act::Reset
            | Act::Release
            | Act::Open(_)
            | Act::Add(_)
            | Act::Move { .. }
            | Act::Delete { .. } => return Err(not_for(order)),
        }
        self.keep(before)?;
        Ok(self.told(desired, &meant))
    }

    fn obey_of_service(&mut self, order: &Order, desired: &Desired, now: Timestamp) -> Obeyed {
        let which = &order.which;
        let about =
            |(key, service): &(&ServiceKey, &Service)| concerns_service(which, key, service);
        let meant: Vec<_> = desired.declared().filter(about).collect();
        if meant.is_empty() {
            return Err(format!(
                "there is no service {which}; `lb-agent services` lists all"
            ));
        }
        let before = self.words.clone();
        let word = self.word(which, now);
        match order.act {
            Act::Open(open) => word.stopped = !open,
            Act::Limit(flows) => word.limit = Some(flows).filter(|flows| *flows > 0),
            _ => {
                self.words = before;
                return Err(not_for(order));
            }
        }
        self.keep(before)?;
        let line = |(key, service): &(&ServiceKey, &Service)| {
            let front = self.says_of_service(key, service);
            format!("{}: {}", title(key, service), front.in_words())
        };
        Ok(meant.iter().map(line).collect())
    }

    /// Changes the same word and all narrower ones, but for those about the node or a service itself.
    fn take_back(
        &mut self,
        which: &Which,
        meant: &BTreeSet<Member>,
        desired: &Desired,
        change: impl Fn(&mut Word),
    ) {
        let is_within = |word: &Word| {
            let narrower = which.service.is_none() || word.which.service == which.service;
            let all = self.concerned(&word.which, desired);
            let within = !all.is_empty() && all.is_subset(meant);
            word.which == *which || (word.which.backend.is_some() && narrower && within)
        };
        let within: Vec<_> = self.words.iter().map(is_within).collect();
        let words = self.words.iter_mut().zip(within);
        words
            .filter(|(_, within)| *within)
            .for_each(|(word, _)| change(word));
    }

    /// Writes down what was changed; if that fails, `before` holds.
    fn keep(&mut self, before: Vec<Word>) -> Result<(), String> {
        self.words.retain(|word| !word.is_empty());
        self.save().map_err(|error| {
            self.words = before;
            format!("{error:#}; nothing was changed")
        })
    }

    /// The word about these backends, as if said now.
    fn word(&mut self, which: &Which, now: Timestamp) -> &mut Word {
        let at = self.words.iter().position(|word| word.which == *which);
        let at = at.unwrap_or(self.words.len());
        if at == self.words.len() {
            self.words.push(Word::new(which.clone(), now));
        }
        let word = &mut self.words[at];
        word.since = now;
        word
    }

    /// What holds for these backends, a line each.
    fn told(&self, desired: &Desired, of: &BTreeSet<Member>) -> Vec<String> {
        let line = |(key, addr): &Member| {
            let service = desired.services.get(key)?;
            let backend = service.backends.iter().find(|one| one.addr == *addr)?;
            let said = self.says(key, service, backend);
            let name = title(key, service);
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

    /// Notes which words are about nobody, and forgets those that have long been but for servers; not to be called before every
    /// provider was read.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(super) fn turn_over(&mut self, desired: &Desired, now: Timestamp) -> Result<()> {
        let Self { words, locals, .. } = self;
        let count = words.len();
        words.retain_mut(|word| {
            let which = &word.which;
            let mut all = desired.declared();
            let of_node = which.backend.is_none() && which.service.is_none();
            let used = of_node
                || all.any(|(key, service)| {
                    let mut backends = service.backends.iter();
                    concerns_service(which, key, service)
                        || backends.any(|one| concerns(which, locals, key, service, one))
                });
            word.unused = (!used).then(|| word.unused.unwrap_or(now));
            let lasts = |since| now.since(since) < FORGOTTEN;
            word.own.is_some() || word.unused.is_none_or(lasts)
        });
        if words.len() < count {
            self.save()?;
        }
        Ok(())
    }

    /// For `status`.
    pub(super) fn report(&self) -> Vec<OperatorReport> {
        let words = self.words.iter().map(Word::report);
        words.chain(self.report_of_nodes()).collect()
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

fn not_for(order: &Order) -> String {
    format!("{} has no meaning for {}", order.act, order.which)
}

#[cfg(test)]
mod tests;
