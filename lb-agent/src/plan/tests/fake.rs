//! A kernel that fails when told to and panics when a promise is broken.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use lb_common::backend_state;

use crate::plan::{Endpoint, Kernel, KernelState, Op, TableId};

/// How an operation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Done,
    Failed,
    /// An error is reported, but it was done.
    DoneWithError,
}

#[derive(Default)]
pub(super) struct Fake {
    pub(super) state: KernelState,
    /// The fates of the next operations; [`Fate::Done`] after that.
    pub(super) fates: Vec<Fate>,
    pub(super) log: Vec<String>,
    /// Who had which id in which generation.
    owners: BTreeMap<(u32, u32), Endpoint>,
    /// What a packet under way may hold: all that services named since the last grace period.
    seen_tables: BTreeSet<TableId>,
    seen_backends: BTreeSet<u32>,
}

impl Kernel for Fake {
    fn state(&mut self) -> Result<KernelState> {
        Ok(self.state.clone())
    }

    fn apply(&mut self, op: &Op) -> Result<()> {
        let fate = self.fates.pop().unwrap_or(Fate::Done);
        if fate != Fate::Failed {
            self.log.push(op.to_string());
            self.check_removal(op);
            self.state.record(op.clone());
            // A swap waits as well.
            if matches!(op, Op::Grace | Op::PutTable { .. }) {
                self.seen_tables.clear();
                self.seen_backends.clear();
            }
            self.check_reachable();
            self.check_owner(op);
        }
        if fate != Fate::Done {
            bail!("out of luck");
        }
        Ok(())
    }
}

impl Fake {
    fn check_removal(&self, op: &Op) {
        match op {
            Op::DeleteTable(table) => {
                assert!(!self.seen_tables.contains(table), "too early: {op}");
            }
            Op::FreeBackend { id, generation } => {
                assert!(!self.seen_backends.contains(id), "too early: {op}");
                assert_eq!(self.state.backends[id].generation, *generation, "{op}");
            }
            _ => {}
        }
    }

    /// No service names a table that is missing or that names a missing backend.
    fn check_reachable(&mut self) {
        for (key, service) in &self.state.services {
            assert_ne!(service.id, 0, "{key}");
            if service.slots == 0 {
                continue;
            }
            let table = TableId {
                service: service.id,
                slots: service.slots,
            };
            let content = self.state.tables.get(&table);
            let content = content.unwrap_or_else(|| panic!("{key} names no table: {:?}", self.log));
            let slots: u32 = content.shares().iter().map(|(_, slots)| slots).sum();
            assert_eq!(slots, service.slots);
            self.seen_tables.insert(table);
            for id in content.ids() {
                let free = self.state.backends[&id].state == backend_state::FREE;
                assert!(!free, "{key} names free backend {id}: {:?}", self.log);
                self.seen_backends.insert(id);
            }
        }
    }

    /// An id never goes to another backend in the same generation.
    fn check_owner(&mut self, op: &Op) {
        if let Op::PutBackend { id, value } = op {
            let endpoint = Endpoint::of(value).unwrap();
            let owner = *self
                .owners
                .entry((*id, value.generation))
                .or_insert(endpoint);
            assert_eq!(
                owner, endpoint,
                "backend {id} was given away: {:?}",
                self.log
            );
        }
    }
}
