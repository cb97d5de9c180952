//! What is known of an engine's containers, and what its events change about it at once. Pure: the clock is passed in.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use crate::provider::instant::instant;

use super::{
    container::{Container, Network, Phase},
    event::{Event, What},
    signal,
    swarm::{Candidate, Swarm},
};

/// A container that still runs so long after it was told to stop ignores that signal; `docker stop` with a time-out
/// does not say how long it waits.
const STOPPING: Duration = Duration::from_secs(600);

/// The containers of one engine, and the Swarm that it manages.
#[derive(Debug, Default)]
pub(super) struct Engine {
    containers: BTreeMap<Arc<str>, Container>,
    /// Those that were told to stop, and when.
    stopping: BTreeMap<Arc<str>, Instant>,
    /// Signals to containers that were not looked at yet, and when.
    early: BTreeMap<Arc<str>, (u8, Instant)>,
    /// Those that are there and could never be looked at.
    unseen: BTreeSet<Arc<str>>,
    /// The Swarm that it manages, as it was when it was read last.
    swarm: Option<Swarm>,
    /// Why that could not be read now.
    swarm_unread: Option<String>,
    /// Whether it is a worker of one, which was said.
    is_worker: bool,
    /// The addresses of the node that the engine stands on; `None`: this node.
    node: Option<Vec<IpAddr>>,
}

/// What an engine is in a Swarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seat {
    /// It is in none.
    Nowhere,
    /// It runs tasks, and tells nothing of services, nor of the tasks of others.
    Worker,
    /// It tells of all.
    Manager(Swarm),
}

/// What an event asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Effect {
    /// What is known is another now: tell at once.
    pub(super) tell: bool,
    /// The container must be looked at.
    pub(super) look: bool,
}

// === impl Engine ===

impl Engine {
    /// Takes note of an event.
    pub(super) fn saw(&mut self, event: &Event, now: Instant) -> Effect {
        let Event { id, what, at } = event;
        let nothing = Effect {
            tell: false,
            look: false,
        };
        let look = Effect {
            tell: false,
            look: true,
        };
        let tell = Effect {
            tell: true,
            look: true,
        };
        let Some(container) = self.containers.get_mut(id) else {
            match *what {
                What::Killed(signal) => _ = self.early.insert(Arc::clone(id), (signal, now)),
                What::Ended | What::Removed => _ = self.early.remove(id),
                _ => return look,
            }
            return nothing;
        };
        // What was told before the connection is told again; a start since then has overtaken it.
        let is_old = |at: &i128| instant(&container.started).is_some_and(|start| *at < start);
        if at.as_ref().is_some_and(is_old) {
            return look;
        }
        match *what {
            // No look: until the engine tells of its end, it would show that it runs.
            What::Killed(signal) if signal == container.stop_signal || signal == signal::KILL => {
                // Nothing survives this one, and its end may be told later.
                if signal == signal::KILL {
                    container.phase = Phase::Absent;
                }
                self.stopping.entry(Arc::clone(id)).or_insert(now);
                Effect {
                    tell: true,
                    look: false,
                }
            }
            What::Ended => {
                container.phase = Phase::Absent;
                self.stopping.remove(id);
                tell
            }
            What::Removed => {
                self.looked(id, None);
                tell
            }
            What::Killed(_) => nothing,
            What::Paused => {
                container.phase = Phase::Paused;
                tell
            }
            What::Health(health) => {
                container.health = Some(health);
                tell
            }
            What::Started => {
                self.stopping.remove(id);
                look
            }
            What::Changed => look,
        }
    }

    /// Takes what a look at one container showed; `None`: there is none with this id.
    pub(super) fn looked(&mut self, id: &Arc<str>, found: Option<Container>) {
        self.unseen.remove(id);
        match found {
            Some(container) => {
                let early = self.early.remove(id);
                if container.phase == Phase::Absent
                    || self
                        .containers
                        .get(id)
                        .is_some_and(|before| before.started != container.started)
                {
                    self.stopping.remove(id);
                } else if let Some((signal, since)) = early
                    && (signal == container.stop_signal || signal == signal::KILL)
                {
                    self.stopping.entry(Arc::clone(id)).or_insert(since);
                }
                self.containers.insert(Arc::clone(id), container);
            }
            None => {
                self.containers.remove(id);
                self.stopping.remove(id);
            }
        }
    }

    /// Takes that a look at one container failed: it stays as it was.
    pub(super) fn missed(&mut self, id: &Arc<str>) {
        if !self.containers.contains_key(id) {
            self.unseen.insert(Arc::clone(id));
        }
    }

    /// Whether there are containers of which nothing is known.
    pub(super) fn is_blind(&self) -> bool {
        !self.unseen.is_empty()
    }

    /// Forgets every container that a complete list does not have.
    pub(super) fn keep_only(&mut self, listed: &BTreeSet<Arc<str>>) {
        self.containers.retain(|id, _| listed.contains(id));
        self.stopping.retain(|id, _| listed.contains(id));
        self.early.retain(|id, _| listed.contains(id));
        self.unseen.retain(|id| listed.contains(id));
    }

    /// Drops the marks of containers that run on although they were told to stop long ago.
    pub(super) fn lose_patience(&mut self, now: Instant) {
        let containers = &self.containers;
        self.stopping.retain(|id, since| {
            let patient = now.saturating_duration_since(*since) < STOPPING;
            if !patient {
                let name = containers.get(id).map_or("", |container| &*container.name);
                tracing::warn!(
                    container = name,
                    "it was told to stop {} s ago and still runs; it takes new connections again",
                    STOPPING.as_secs()
                );
            }
            patient
        });
    }

    /// Takes what was read of the Swarm; what could not be read stays as it was.
    pub(super) fn saw_swarm(&mut self, read: Result<Seat, String>) {
        match read {
            Ok(seat) => {
                let was_worker = std::mem::replace(&mut self.is_worker, seat == Seat::Worker);
                if self.is_worker && !was_worker {
                    tracing::info!(
                        "this engine is a worker of a Swarm, and knows neither its services nor their labels: of them the \
                         containers of this node are served, by their own labels (--container-label); managers know all"
                    );
                }
                let swarm = match seat {
                    Seat::Manager(swarm) => Some(swarm),
                    Seat::Worker | Seat::Nowhere => None,
                };
                let before = std::mem::replace(&mut self.swarm, swarm);
                if let (Some(before), Some(now)) = (before, &mut self.swarm) {
                    now.remember(&before);
                }
                self.swarm_unread = None;
            }
            Err(why) => {
                if self.swarm_unread.is_none() {
                    tracing::warn!(why, "the Swarm cannot be read; its last state stays");
                }
                self.swarm_unread = Some(why);
            }
        }
    }

    /// The Swarm that it manages, as far as it was read.
    pub(super) fn swarm(&self) -> Option<&Swarm> {
        self.swarm.as_ref()
    }

    /// Why the Swarm could not be read now.
    pub(super) fn swarm_unread(&self) -> Option<&str> {
        self.swarm_unread.as_deref()
    }

    /// All that may be served.
    pub(super) fn candidates(&self) -> Vec<Candidate<'_>> {
        let own = self.containers.values();
        match &self.swarm {
            Some(swarm) => swarm.candidates(own),
            None => own.map(Candidate::from).collect(),
        }
    }

    /// Whether it was told to stop.
    pub(super) fn is_stopping(&self, id: &str) -> bool {
        self.stopping.contains_key(id)
    }

    /// Takes note of where the engine stands; `None`: on this node.
    pub(super) fn stands_at(&mut self, node: Option<Vec<IpAddr>>) {
        self.node = node;
    }

    /// The addresses of the node that it stands on; `None`: this node.
    pub(super) fn node(&self) -> Option<&[IpAddr]> {
        self.node.as_deref()
    }

    /// The one whose network a container is in: itself, or the one that it names by id or name.
    pub(super) fn home_of<'a>(&'a self, container: &'a Container) -> Option<&'a Container> {
        match &container.network {
            Network::Of(other) => {
                let is_meant = |known: &&Container| *known.id == **other || *known.name == **other;
                let found = self.containers.values().find(is_meant)?;
                // One step only: the engine resolves a chain itself.
                (!matches!(found.network, Network::Of(_))).then_some(found)
            }
            _ => Some(container),
        }
    }
}
