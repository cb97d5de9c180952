//! Puts right how many flows backends and services are thought to have: an evicted flow ends unseen.

use std::{collections::BTreeMap, path::Path};

use anyhow::Result;
use lb_common::{Backend, ServiceState};

use super::{Sizes, arrays::ById, flows::Census};

/// The kernel's counts.
#[derive(Debug)]
pub(super) struct Loads {
    backends: ById<Backend>,
    flows: ById<u64>,
    services: ById<ServiceState>,
}

/// What was counted when a walk through the flow tables began.
#[derive(Debug)]
pub(super) struct Before {
    generations: BTreeMap<u32, u32>,
    flows: BTreeMap<u32, u64>,
    services: BTreeMap<u32, u64>,
}

// === impl Loads ===

impl Loads {
    pub(super) fn open(dir: &Path, sizes: &Sizes) -> Result<Self> {
        Ok(Self {
            backends: ById::open(dir, "LB_BACKENDS", sizes.backends)?,
            flows: ById::open(dir, "LB_LOADS", sizes.backends)?,
            services: ById::open(dir, "LB_SERVICE_STATES", sizes.service_ids())?,
        })
    }

    pub(super) fn read(&self) -> Result<Before> {
        let backends = self.backends.read()?;
        let services = self.services.read()?;
        Ok(Before {
            generations: backends
                .into_iter()
                .map(|(id, backend)| (id, backend.generation))
                .collect(),
            flows: self.flows.read()?,
            services: services
                .into_iter()
                .map(|(id, state)| (id, state.flows))
                .collect(),
        })
    }

    /// Every backend by its id.
    pub(super) fn backends(&self) -> Result<BTreeMap<u32, Backend>> {
        self.backends.read()
    }

    /// Compares with what the walk found and writes what differs. The programs go on counting meanwhile; a count
    /// that is lost between reading and writing is found by the next walk.
    pub(super) fn correct(&self, before: &Before, census: &Census) -> Result<()> {
        let found = |counts: &BTreeMap<u32, u32>, id| counts.get(&id).copied().unwrap_or(0).into();
        let counted = either(&before.flows, &census.active).into_iter();
        for (id, was) in counted.filter(|(id, _)| self.flows.has(*id)) {
            let now = self.flows.get(id)?;
            if let Some(right) = put_right(was, found(&census.active, id), now) {
                self.flows.put(&[id], &[right])?;
            }
        }
        let counted = either(&before.services, &census.services).into_iter();
        for (id, was) in counted.filter(|(id, _)| self.services.has(*id)) {
            let state = self.services.get(id)?;
            if let Some(flows) = put_right(was, found(&census.services, id), state.flows) {
                self.services
                    .put(&[id], &[ServiceState { flows, ..state }])?;
            }
        }
        Ok(())
    }

    /// Takes away flows that the programs will not see end.
    pub(super) fn subtract(&self, ended: &Census) -> Result<()> {
        for (id, count) in &ended.active {
            let left = self.flows.get(*id)?.saturating_sub((*count).into());
            self.flows.put(&[*id], &[left])?;
        }
        for (id, count) in &ended.services {
            let state = self.services.get(*id)?;
            let flows = state.flows.saturating_sub((*count).into());
            self.services
                .put(&[*id], &[ServiceState { flows, ..state }])?;
        }
        Ok(())
    }
}

// === impl Before ===

impl Before {
    /// Whether the id is still the backend's that the flow was given.
    pub(super) fn is_current(&self, backend: u32, generation: u32) -> bool {
        self.generations.get(&backend) == Some(&generation)
    }
}

/// Every id that either names, with what was counted.
fn either(counted: &BTreeMap<u32, u64>, found: &BTreeMap<u32, u32>) -> BTreeMap<u32, u64> {
    let found = found.keys().map(|id| (*id, 0));
    found
        .chain(counted.iter().map(|(id, count)| (*id, *count)))
        .collect()
}

/// What a count that `was` this when a walk began and is that `now` should be, if the walk `found` something that
/// flows which came and went meanwhile do not explain.
fn put_right(was: u64, found: u64, now: u64) -> Option<u64> {
    let (least, most) = (was.min(now), was.max(now));
    match found {
        _ if found < least => Some(now - (least - found)),
        _ if found > most => Some(now + (found - most)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_put_right_by_no_more_than_what_the_walk_proves() {
        for (was, found, now, right) in [
            (7, 7, 7, None),
            // Evicted flows, and those that nobody ended.
            (7, 2, 7, Some(2)),
            (7, 0, 7, Some(0)),
            // Two flows that the counts had lost.
            (5, 7, 5, Some(7)),
            // Flows came while the walk went on, before or behind it.
            (5, 7, 9, None),
            (5, 5, 9, None),
            // Three of those counted at first are not there.
            (5, 2, 9, Some(6)),
            // Flows ended meanwhile.
            (9, 7, 5, None),
            (9, 10, 5, Some(6)),
        ] {
            assert_eq!(put_right(was, found, now), right, "{was} {found} {now}");
        }
    }
}
