//! Which backends are probed and when, and what is known of them. Pure: clock and chance are passed in.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Health, Judged, Outcome, Verdict, Verdicts};
use crate::catalog::Check;

/// A new backend is first probed within this time.
const FIRST: Duration = Duration::from_secs(1);
/// Whoever was down under an agent before this one, and is declared within this time, begins as down.
const REMEMBERED: Duration = Duration::from_secs(600);
/// The part of an interval by which it varies, so that probes of many nodes and backends spread.
const JITTER: f64 = 0.2;

/// One probe: a backend and what it is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Where the backend listens.
    pub addr: SocketAddr,
    /// What it is asked.
    pub check: Arc<Check>,
}

/// What is to be probed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// Every target.
    pub targets: BTreeSet<Arc<Target>>,
    /// Those of them that are not probed for now: what is known of them stays.
    pub paused: BTreeSet<Arc<Target>>,
}

/// Every backend that is probed.
#[derive(Debug, Default)]
pub struct Checks {
    healths: BTreeMap<Arc<Target>, Health>,
    /// When each is next probed; those under way are not in it.
    queue: BTreeSet<(Instant, Arc<Target>)>,
    /// Probes under way, also of backends that are not wanted any more, and when each began.
    under_way: BTreeMap<Arc<Target>, Instant>,
    /// Not probed for now.
    paused: BTreeSet<Arc<Target>>,
    /// Down as the last agent left them, for a while.
    known_down: BTreeSet<SocketAddr>,
    forget_at: Option<Instant>,
}

// === impl Checks ===

impl Checks {
    /// `known_down`: what the kernel has as down from an agent before this one.
    pub fn new(known_down: BTreeSet<SocketAddr>, now: Instant) -> Self {
        Self {
            known_down,
            forget_at: Some(now + REMEMBERED),
            ..Self::default()
        }
    }

    /// Probes these from now on, and no others. `chance`: numbers from 0 to 1.
    pub fn follow(
        &mut self,
        wanted: &BTreeSet<Arc<Target>>,
        now: Instant,
        mut chance: impl FnMut() -> f64,
    ) {
        if self.forget_at.is_some_and(|at| now >= at) {
            self.known_down.clear();
        }
        self.healths.retain(|target, _| wanted.contains(target));
        self.queue.retain(|(_, target)| wanted.contains(target));
        for target in wanted {
            if self.healths.contains_key(target) {
                continue;
            }
            let health = match self.known_down.contains(&target.addr) {
                true => Health::known_down(now),
                false => Health::new(now),
            };
            self.healths.insert(Arc::clone(target), health);
            if !self.under_way.contains_key(target) {
                let first = FIRST.min(target.check.interval).mul_f64(chance());
                self.queue.insert((now + first, Arc::clone(target)));
            }
        }
    }

    /// Has no others wait than these, of those that are followed.
    pub fn pause(&mut self, paused: &BTreeSet<Arc<Target>>, now: Instant) {
        self.queue.retain(|(_, target)| !paused.contains(target));
        let before = std::mem::replace(&mut self.paused, paused.clone());
        for target in before.difference(paused) {
            let is_queued = self.queue.iter().any(|(_, queued)| queued == target);
            let is_known = self.healths.contains_key(target);
            if is_known && !is_queued && !self.under_way.contains_key(target) {
                self.queue.insert((now, Arc::clone(target)));
            }
        }
    }

    /// When the next probe is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.queue.first().map(|(due, _)| *due)
    }

    /// Begins the next probe that is due; there is at most one of a target at a time.
    pub fn begin(&mut self, now: Instant) -> Option<Arc<Target>> {
        self.queue.first().filter(|(due, _)| *due <= now)?;
        let (_, target) = self.queue.pop_first()?;
        self.under_way.insert(Arc::clone(&target), now);
        Some(target)
    }

    /// Takes note of what came of a probe; true if what is known of the backend is something else now. `chance`: from 0
    /// to 1.
    pub fn observe(
        &mut self,
        target: &Arc<Target>,
        outcome: Outcome,
        now: Instant,
        chance: f64,
    ) -> bool {
        let began = self.under_way.remove(target).unwrap_or(now);
        let Some(health) = self.healths.get_mut(target) else {
            return false;
        };
        if self.paused.contains(target) {
            return false;
        }
        let check = &target.check;
        let changed = health.observe(check, outcome, now);
        let interval = match check.fast {
            Some(fast) if health.against() > 0 => fast,
            _ => check.interval,
        };
        let pause = interval.mul_f64(1.0 + JITTER * (chance - 0.5));
        let due = (began + pause).max(now);
        self.queue.insert((due, Arc::clone(target)));
        changed
    }

    /// Probes in a row that speak against the verdict of one, and whether it is *up*.
    pub fn tendency(&self, target: &Target) -> Option<(u32, bool)> {
        let health = self.healths.get(target)?;
        Some((health.against(), health.verdict() == Verdict::Up))
    }

    /// What is known of all of them.
    pub fn verdicts(&self) -> Verdicts {
        let judged = self.healths.iter().map(|(target, health)| {
            let judged = Judged {
                verdict: health.verdict(),
                reason: health.reason().cloned(),
            };
            (Arc::clone(target), judged)
        });
        Verdicts::new(judged, self.known_down.clone())
    }
}
