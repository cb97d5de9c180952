//! What the latest probe of each backend came to, for statistics.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use super::{Asked, Outcome, Target};
use crate::catalog::Check;

/// The latest probe of one backend, and those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latest {
    /// When it ended.
    pub at: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// What came of it.
    pub asked: Asked,
    /// Probes that failed so far.
    pub failed: u64,
    /// Probes in a row that speak against the verdict.
    pub against: u32,
    /// The verdict is *up*.
    pub up: bool,
}

/// Of all backends that are probed.
#[derive(Debug, Default)]
pub struct Latests(Mutex<HashMap<Arc<Target>, Latest>>);

// === impl Latests ===

impl Latests {
    /// Of a backend, as a service with this check has it probed; `None`: it was not probed yet.
    pub fn of(&self, addr: SocketAddr, check: &Arc<Check>) -> Option<Latest> {
        let target = Target {
            addr,
            check: Arc::clone(check),
        };
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&target).cloned()
    }

    /// Whether checks have these backends as up; of whom none asks at its own port, nothing is known.
    pub fn up(&self, backends: &HashSet<SocketAddr>) -> HashMap<SocketAddr, bool> {
        let mut up = HashMap::new();
        if backends.is_empty() {
            return up;
        }
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (target, latest) in known.iter() {
            let addr = target.addr;
            if backends.contains(&addr) && target.check.at(addr) == addr {
                *up.entry(addr).or_insert(true) &= latest.up;
            }
        }
        up
    }

    /// Takes note of a probe that is done.
    pub(super) fn note(&self, target: &Arc<Target>, mut latest: Latest) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        latest.failed = known.get(target).map_or(0, |before| before.failed)
            + u64::from(matches!(latest.asked.outcome, Outcome::Failed(_)));
        known.insert(Arc::clone(target), latest);
    }

    /// Forgets all others.
    pub(super) fn keep(&self, wanted: &BTreeSet<Arc<Target>>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|target, _| wanted.contains(target));
    }
}
