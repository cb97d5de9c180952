//! What the maps hold, as their only writer knows it, and what a small plan must find in it at once.

use std::collections::{BTreeSet, HashMap};

use lb_common::backend_state;

use super::{Endpoint, KernelState, Limits, Op, Table, Wanted, delta::Delta, ids::Place};

/// The maps' content with its indices.
#[derive(Debug)]
pub(super) struct Known {
    state: KernelState,
    /// How many tables name a backend id.
    named: HashMap<u32, u32>,
    /// Ids that were in use and are free again.
    free: BTreeSet<u32>,
    settled: Option<Settled>,
}

/// That the maps hold what was wanted, and nothing else.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) want: Wanted,
    pub(super) limits: Limits,
    /// Which services name a backend, ascending.
    users: HashMap<Endpoint, Vec<Endpoint>>,
    /// The backends' ids.
    ids: HashMap<Endpoint, u32>,
}

// === impl Known ===

impl Known {
    pub(super) fn new(state: KernelState) -> Self {
        let mut known = Self {
            named: HashMap::new(),
            free: BTreeSet::new(),
            settled: None,
            state: KernelState::default(),
        };
        for table in state.tables.values() {
            known.name(table);
        }
        let is_free = |backend: &lb_common::Backend| backend.state == backend_state::FREE;
        let free = state.backends.iter().filter(|(_, value)| is_free(value));
        known.free = free.map(|(id, _)| *id).collect();
        known.state = state;
        known
    }

    pub(super) fn state(&self) -> &KernelState {
        &self.state
    }

    /// Whether any table names a backend.
    pub(super) fn is_named(&self, id: u32) -> bool {
        self.named.contains_key(&id)
    }

    pub(super) fn settled(&self) -> Option<&Settled> {
        self.settled.as_ref()
    }

    /// Places that no backend has, in the order in which they are given away (see [`super::ids`]).
    pub(super) fn vacant(&self, limit: u32) -> impl Iterator<Item = Place> {
        let used = &self.state.backends;
        // Ids are given from 1 on and stay known when they are freed, so mostly there is no gap.
        let first = match used.last_key_value() {
            Some((last, _)) if used.len() == *last as usize => last.saturating_add(1),
            _ => 1,
        };
        let unused = (first..limit).filter(|id| !used.contains_key(id));
        let unused = unused.map(|id| Place { id, generation: 1 });
        let freed = self.free.range(1..limit.max(1)).filter_map(|id| {
            let generation = used.get(id)?.generation.checked_add(1)?;
            Some(Place {
                id: *id,
                generation,
            })
        });
        unused.chain(freed)
    }

    /// Takes note of an operation that was done.
    pub(super) fn record(&mut self, op: Op) {
        match &op {
            Op::PutBackend { id, .. } => {
                self.free.remove(id);
            }
            Op::FreeBackend { id, .. } => {
                self.free.insert(*id);
            }
            Op::PutTable { table, content, .. } => {
                let old = self.state.tables.get(table).cloned();
                self.name(content);
                self.unname(old);
            }
            Op::DeleteTable(table) => {
                let old = self.state.tables.get(table).cloned();
                self.unname(old);
            }
            _ => {}
        }
        self.state.record(op);
    }

    fn name(&mut self, table: &Table) {
        for id in table.ids() {
            *self.named.entry(id).or_default() += 1;
        }
    }

    fn unname(&mut self, table: Option<Table>) {
        for id in table.iter().flat_map(Table::ids) {
            match self.named.get_mut(&id) {
                Some(count @ 2..) => *count -= 1,
                _ => drop(self.named.remove(&id)),
            }
        }
    }

    /// Something is being changed, or nothing is sure any more.
    pub(super) fn unsettle(&mut self) -> Option<Settled> {
        self.settled.take()
    }

    /// The maps hold all of `want` and nothing else.
    pub(super) fn settle(&mut self, want: &Wanted, limits: &Limits) {
        let mut users = HashMap::<Endpoint, Vec<Endpoint>>::new();
        for (key, service) in &want.services {
            for backend in &service.backends {
                let users = users
                    .entry(Endpoint::new(backend.addr, key.proto))
                    .or_default();
                if users.last() != Some(key) {
                    users.push(*key);
                }
            }
        }
        let in_use = |value: &&lb_common::Backend| value.state != backend_state::FREE;
        let ids = self
            .state
            .backends
            .iter()
            .filter(|(_, value)| in_use(value));
        self.settled = Some(Settled {
            want: want.clone(),
            limits: *limits,
            users,
            ids: ids
                .filter_map(|(id, value)| Some((Endpoint::of(value)?, *id)))
                .collect(),
        });
    }

    /// As [`Known::settle`], after a plan that changed the backends of some services only.
    pub(super) fn settle_again(&mut self, before: Settled, want: &Wanted, delta: &Delta) {
        let mut settled = before;
        for key in &delta.changed {
            let Some(service) = want.services.get(key) else {
                continue;
            };
            if let Some(old) = settled.want.services.insert(*key, service.clone()) {
                for backend in &old.backends {
                    settled.leave(Endpoint::new(backend.addr, key.proto), key);
                }
            }
            for backend in &service.backends {
                settled.join(Endpoint::new(backend.addr, key.proto), key);
            }
        }
        for (endpoint, id) in &delta.moved {
            match id {
                Some(id) => settled.ids.insert(*endpoint, *id),
                None => settled.ids.remove(endpoint),
            };
        }
        self.settled = Some(settled);
    }
}

// === impl Settled ===

impl Settled {
    /// The services that name a backend, ascending.
    pub(super) fn users(&self, backend: &Endpoint) -> &[Endpoint] {
        self.users.get(backend).map_or(&[], Vec::as_slice)
    }

    /// A backend's id.
    pub(super) fn id(&self, backend: &Endpoint) -> Option<u32> {
        self.ids.get(backend).copied()
    }

    fn leave(&mut self, backend: Endpoint, service: &Endpoint) {
        if let Some(users) = self.users.get_mut(&backend) {
            users.retain(|user| user != service);
            if users.is_empty() {
                self.users.remove(&backend);
            }
        }
    }

    fn join(&mut self, backend: Endpoint, service: &Endpoint) {
        let users = self.users.entry(backend).or_default();
        if let Err(at) = users.binary_search(service) {
            users.insert(at, *service);
        }
    }
}
