//! What may be done now, given what was really done: the plan's promise when operations fail.
//!
//! An operation that rests on one that failed is held back, everything else goes on. So one service that
//! cannot be written does not hold up the others, and nothing is freed that something still names.

use std::collections::BTreeSet;

use lb_common::backend_state;

use super::{KernelState, Op, TableId};

/// The kernel's state as far as we know it.
pub(super) struct Guard {
    state: KernelState,
    /// Whether all since the last change waited for packets under way.
    grace: bool,
    /// Ids that any table names; computed when first asked for.
    named: Option<BTreeSet<u32>>,
}

impl Guard {
    pub(super) fn new(state: KernelState) -> Self {
        Self {
            state,
            grace: false,
            named: None,
        }
    }

    /// Why `op` must not be done now.
    pub(super) fn objection(&mut self, op: &Op) -> Option<String> {
        match op {
            Op::PutBackend { id, value } => {
                let old = self.state.backends.get(id)?;
                let other = old.generation != value.generation;
                (other && old.state != backend_state::FREE)
                    .then(|| format!("backend {id} is still in use"))
            }
            Op::PutTable { slots, .. } => self.missing(slots),
            Op::PutService { value, .. } if value.slots == 0 => None,
            Op::PutService { value, .. } => {
                let table = TableId {
                    service: value.id,
                    slots: value.slots,
                };
                match self.state.tables.get(&table) {
                    Some(slots) => self.missing(slots),
                    None => Some(format!("table {table} is not there")),
                }
            }
            Op::DeleteTable(table) => {
                let names =
                    |s: &lb_common::Service| s.id == table.service && s.slots == table.slots;
                if self.state.services.values().any(names) {
                    return Some(format!("a service still names table {table}"));
                }
                self.too_early()
            }
            Op::FreeBackend { id, .. } => {
                let tables = &self.state.tables;
                let named = self
                    .named
                    .get_or_insert_with(|| tables.values().flatten().copied().collect());
                if named.contains(id) {
                    return Some(format!("a table still names backend {id}"));
                }
                self.too_early()
            }
            _ => None,
        }
    }

    /// Takes note that `op` was done.
    pub(super) fn done(&mut self, op: Op) {
        self.grace = match op {
            Op::Grace => true,
            Op::DeleteTable(_) | Op::FreeBackend { .. } => self.grace,
            _ => false,
        };
        if matches!(op, Op::PutTable { .. } | Op::DeleteTable(_)) {
            self.named = None;
        }
        self.state.record(op);
    }

    fn missing(&self, slots: &[u32]) -> Option<String> {
        let ids: BTreeSet<u32> = slots.iter().copied().collect();
        let missing = ids.into_iter().find(|id| {
            let backend = self.state.backends.get(id);
            backend.is_none_or(|backend| backend.state == backend_state::FREE)
        });
        missing.map(|id| format!("backend {id} is not there"))
    }

    fn too_early(&self) -> Option<String> {
        (!self.grace).then(|| "packets under way may still use it".to_owned())
    }
}

// === impl KernelState ===

impl KernelState {
    /// Takes note of an operation that the kernel has done.
    pub fn record(&mut self, op: Op) {
        let Self {
            services,
            backends,
            tables,
            addresses,
            node,
            sources,
        } = self;
        match op {
            Op::PutBackend { id, value } => {
                backends.insert(id, value);
            }
            Op::PutTable { table, slots } => {
                tables.insert(table, slots);
            }
            Op::PutService { key, value } => {
                services.insert(key, value);
            }
            Op::PutAddress { addr, flags } => {
                addresses.insert(addr, flags);
            }
            Op::PutNode(value) => *node = value,
            Op::PutSource(net) => {
                sources.insert(net);
            }
            Op::DeleteService(key) => {
                services.remove(&key);
            }
            Op::DeleteAddress(addr) => {
                addresses.remove(&addr);
            }
            Op::DeleteSource(net) => {
                sources.remove(&net);
            }
            Op::Grace => {}
            Op::DeleteTable(table) => {
                tables.remove(&table);
            }
            Op::FreeBackend { id, generation } => {
                backends.insert(id, Op::freed(generation));
            }
        }
    }
}
