//! Who has which id: what is in the kernel keeps its own, new ones take what was never used first.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::backend_state;

use super::{Endpoint, KernelState};

/// A backend's place in the array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) id: u32,
    pub(super) generation: u32,
}

/// Gives every backend of `wanted` a place in `1..limit`; those for which there is none are missing.
///
/// New ones take the smallest id that was never used, else the smallest free one, one generation on. An
/// id that this plan will free is not given away in it: packets under way may still hold it. A generation
/// never wraps: an id that has used them all up is given up.
pub(super) fn backends<'a>(
    have: &KernelState,
    wanted: impl Iterator<Item = &'a Endpoint>,
    limit: u32,
) -> BTreeMap<Endpoint, Place> {
    let mut known = BTreeMap::new();
    for (id, backend) in &have.backends {
        let place = Place {
            id: *id,
            generation: backend.generation,
        };
        if backend.state != backend_state::FREE
            && let Some(endpoint) = Endpoint::of(backend)
        {
            known.entry(endpoint).or_insert(place);
        }
    }
    let unused = (1..limit)
        .filter(|id| !have.backends.contains_key(id))
        .map(|id| Place { id, generation: 1 });
    let freed = have
        .backends
        .range(1..limit.max(1))
        .filter(|(_, backend)| backend.state == backend_state::FREE)
        .filter_map(|(id, backend)| {
            let generation = backend.generation.checked_add(1)?;
            Some(Place {
                id: *id,
                generation,
            })
        });
    let mut places = unused.chain(freed);
    wanted
        .filter_map(|endpoint| {
            let place = known.get(endpoint).copied().or_else(|| places.next())?;
            Some((*endpoint, place))
        })
        .collect()
}

/// Gives every service of `wanted` an id: its own, or the smallest that no service or table has.
pub(super) fn services<'a>(
    have: &KernelState,
    wanted: impl Iterator<Item = &'a Endpoint>,
) -> BTreeMap<Endpoint, u32> {
    let mut known = BTreeMap::new();
    let mut used: BTreeSet<u32> = BTreeSet::from([0]);
    for (key, service) in &have.services {
        // An id of 0 or another service's id is nobody's: the service gets a new one.
        if used.insert(service.id) {
            known.insert(*key, service.id);
        }
    }
    used.extend(have.tables.keys().map(|table| table.service));
    used.extend(have.lists.keys().map(|listed| listed.service));
    used.extend(have.locals.keys().map(|local| local.service));
    let mut unused = (1..=u32::MAX).filter(|id| !used.contains(id));
    wanted
        .filter_map(|key| {
            let id = known.get(key).copied().or_else(|| unused.next())?;
            Some((*key, id))
        })
        .collect()
}
