//! What is known of every backend at one moment.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use super::{Target, Verdict, state::KNOWN_DOWN};
use crate::catalog::Check;

/// What is known of a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Whether it answers.
    pub verdict: Verdict,
    /// Why it is not known to be up.
    pub reason: Option<Arc<str>>,
}

/// What is known of all backends that are checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    judged: HashMap<SocketAddr, Vec<(Arc<Target>, Judged)>>,
    /// Down as the last agent left them.
    known_down: BTreeSet<SocketAddr>,
}

// === impl Verdicts ===

impl Verdicts {
    /// Collects what is known; `known_down`: what is presumed to be down until more is known.
    pub fn new(
        judged: impl IntoIterator<Item = (Arc<Target>, Judged)>,
        known_down: BTreeSet<SocketAddr>,
    ) -> Self {
        let mut by_address = HashMap::<_, Vec<_>>::new();
        for (target, judged) in judged {
            let of = by_address.entry(target.addr).or_default();
            of.push((target, judged));
        }
        Self {
            judged: by_address,
            known_down,
        }
    }

    /// What a service with this check knows of its backend.
    pub fn of(&self, addr: SocketAddr, check: &Check) -> Judged {
        let mut judged = self.judged.get(&addr).into_iter().flatten();
        match judged.find(|(target, _)| *target.check == *check) {
            Some((_, judged)) => judged.clone(),
            None if self.known_down.contains(&addr) => Judged {
                verdict: Verdict::Down,
                reason: Some(KNOWN_DOWN.into()),
            },
            None => Judged::default(),
        }
    }
}
