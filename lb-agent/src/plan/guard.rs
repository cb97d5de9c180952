//! What may be done now, given what was really done: the plan's promise when operations fail.
//!
//! An operation that rests on one that failed is held back, everything else goes on. So one service that
//! cannot be written does not hold up the others, and nothing is freed that something still names.

use lb_common::backend_state;

use super::{Op, Table, TableId, known::Known};

/// Keeps what is known about the maps in line with what was done.
pub(super) struct Guard<'a> {
    known: &'a mut Known,
    /// Whether all since the last change waited for packets under way.
    grace: bool,
}

impl<'a> Guard<'a> {
    pub(super) fn new(known: &'a mut Known) -> Self {
        Self {
            known,
            grace: false,
        }
    }

    /// Why `op` must not be done now.
    pub(super) fn objection(&self, op: &Op) -> Option<String> {
        let state = self.known.state();
        match op {
            Op::PutBackend { id, value } => {
                let old = state.backends.get(id)?;
                let other = old.generation != value.generation;
                (other && old.state != backend_state::FREE)
                    .then(|| format!("backend {id} is still in use"))
            }
            Op::PutTable { content, .. } => self.missing(content),
            Op::PutService { value, .. } if value.slots == 0 => None,
            Op::PutService { value, .. } => {
                let table = TableId {
                    service: value.id,
                    slots: value.slots,
                };
                match state.tables.get(&table) {
                    Some(content) => self.missing(content),
                    None => Some(format!("table {table} is not there")),
                }
            }
            Op::DeleteTable(table) => {
                let names =
                    |s: &lb_common::Service| s.id == table.service && s.slots == table.slots;
                if state.services.values().any(names) {
                    return Some(format!("a service still names table {table}"));
                }
                self.too_early()
            }
            Op::FreeBackend { id, .. } => {
                if self.known.is_named(*id) {
                    return Some(format!("a table still names backend {id}"));
                }
                self.too_early()
            }
            Op::ForgetService(_) => self.too_early(),
            _ => None,
        }
    }

    /// Takes note that `op` was done.
    pub(super) fn done(&mut self, op: Op) {
        self.grace = match op {
            Op::Grace | Op::PutTable { .. } => true,
            Op::ForgetService(_)
            | Op::DeleteTable(_)
            | Op::FreeBackend { .. }
            | Op::PutLimit { .. }
            | Op::PutHost { .. } => self.grace,
            _ => false,
        };
        self.known.record(op);
    }

    fn missing(&self, content: &Table) -> Option<String> {
        let backends = &self.known.state().backends;
        let missing = content.ids().find(|id| {
            let backend = backends.get(id);
            backend.is_none_or(|backend| backend.state == backend_state::FREE)
        });
        missing.map(|id| format!("backend {id} is not there"))
    }

    fn too_early(&self) -> Option<String> {
        (!self.grace).then(|| "packets under way may still use it".to_owned())
    }
}
