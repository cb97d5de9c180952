//! What the programs saw of backends that do not answer: read, and forgotten where somebody knows better.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use anyhow::Result;
use lb_common::{Backend, Reason, Suspect, backend_state, suspicion};

use super::{Sizes, arrays::ById, layout::schema_dir, percpu::PerCpu};
use crate::plan::Endpoint;

/// Length of the counters' map up to that of suspicions.
const COUNTERS: usize = Reason::BackendSuspect as usize + 1;

/// The maps of it, opened from their pins.
#[derive(Debug)]
pub struct Suspects {
    backends: ById<Backend>,
    suspects: ById<Suspect>,
    reasons: PerCpu<u64>,
}

// === impl Suspects ===

impl Suspects {
    pub(super) fn open(pin_dir: &Path, sizes: &Sizes) -> Result<Self> {
        let dir = &schema_dir(pin_dir);
        Ok(Self {
            backends: ById::open(dir, "LB_BACKENDS", sizes.backends)?,
            suspects: ById::open(dir, "LB_SUSPECTS", sizes.backends)?,
            reasons: PerCpu::open(dir, "LB_COUNTERS")?,
        })
    }

    /// How many times a backend became suspect, or stayed one; cheap.
    ///
    /// # Errors
    ///
    /// If the map cannot be read.
    pub fn times(&self) -> Result<u64> {
        let sums = self.reasons.sums(COUNTERS, |sum, cpu| *sum += cpu)?;
        Ok(sums.last().copied().unwrap_or_default())
    }

    /// Every backend that is suspect now.
    ///
    /// # Errors
    ///
    /// If a map cannot be read.
    pub fn read(&self) -> Result<HashMap<Endpoint, Suspect>> {
        self.read_below(usize::MAX)
    }

    /// Those of the backends with ids below `end`.
    pub(super) fn read_below(&self, end: usize) -> Result<HashMap<Endpoint, Suspect>> {
        let current = self.current(end)?.into_iter();
        Ok(current
            .map(|(_, backend, suspect)| (backend, suspect))
            .collect())
    }

    /// Makes these no suspects any more: new flows come to them at once. What a program notes of one at the same moment
    /// may be lost, and is seen again with the next flow.
    ///
    /// # Errors
    ///
    /// If a map cannot be read or written.
    pub fn clear(&self, backends: &HashSet<Endpoint>) -> Result<()> {
        let current = self.current(usize::MAX)?.into_iter();
        let cleared = |(id, backend, suspect): (u32, Endpoint, Suspect)| {
            let cleared = Suspect {
                times: 0,
                trial: 0,
                ..suspect
            };
            backends.contains(&backend).then_some((id, cleared))
        };
        let (ids, values): (Vec<_>, Vec<_>) = current.filter_map(cleared).unzip();
        if ids.is_empty() {
            return Ok(());
        }
        self.suspects.put(&ids, &values)
    }

    /// Every suspect that is still the backend that it was, with its id.
    fn current(&self, end: usize) -> Result<Vec<(u32, Endpoint, Suspect)>> {
        let mut suspects = self.suspects.read_below(end)?;
        suspects.retain(|_, suspect| suspect.times != 0);
        if suspects.is_empty() {
            return Ok(Vec::new());
        }
        let backends = self.backends.read_below(end)?;
        let current = |(id, suspect): (u32, Suspect)| {
            let backend = backends.get(&id)?;
            let is_it =
                backend.generation == suspect.generation && backend.state != backend_state::FREE;
            let endpoint = Endpoint::of(backend)?;
            is_it.then_some((id, endpoint, suspect))
        };
        Ok(suspects.into_iter().filter_map(current).collect())
    }
}

/// Why a backend is suspect, for people.
pub fn reason(suspect: &Suspect) -> &'static str {
    match suspect.why {
        suspicion::REFUSED => "it refused a connection",
        suspicion::SILENT => "it did not answer a connection",
        _ => "it cannot be reached",
    }
}
