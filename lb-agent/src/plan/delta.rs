//! A change of some services' backends, planned without a look at all the others.
//!
//! The operations are exactly those of [`super::plan`] (a property test says so). That is possible only where
//! the last plan was carried out to the end, so that the maps are known to hold what was wanted then, and where
//! nothing but backends of services that stay has changed; for all else there is the whole plan.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::Service;

use super::{
    Endpoint, Limits, Op, Plan, Reach, TableId, Wanted, WantedBackend,
    diff::{BackendOps, Made, Services, fail_open_first, remove, unhost, unlimit, value},
    ids::Place,
    known::{Known, Settled},
    maglev::{self, Memo},
    pool::{self, Member, Pool, Views},
};

/// With more changed services than this, the whole plan is as quick.
const FEW: usize = 100;

/// A small plan.
pub(super) struct Delta {
    pub(super) plan: Plan,
    /// The services whose backends changed.
    pub(super) changed: Vec<Endpoint>,
    /// Backends with a new id, or with none any more.
    pub(super) moved: Vec<(Endpoint, Option<u32>)>,
}

/// The change under way.
struct Change<'a> {
    known: &'a Known,
    settled: &'a Settled,
    want: &'a Wanted,
    /// The changed services' backends as they shall be.
    views: BTreeMap<Endpoint, Views>,
}

/// Plans; `None`: the whole must be looked at.
pub(super) fn delta(
    known: &Known,
    want: &Wanted,
    limits: &Limits,
    memo: &mut Memo,
) -> Option<Delta> {
    let settled = known.settled()?;
    if settled.limits != *limits || !same_frame(&settled.want, want) {
        return None;
    }
    let changed = changed(&settled.want, want)?;
    if !want.peers.is_empty()
        && changed
            .iter()
            .any(|key| has_locals(&settled.want, key) || has_locals(want, key))
    {
        // What peers may name is left to the whole plan.
        return None;
    }
    let mut views = BTreeMap::new();
    let mut touched = BTreeSet::new();
    for key in &changed {
        let old = views_of(&settled.want, key)?;
        let new = views_of(want, key)?;
        let differs = |endpoint: &&Endpoint| old.get(*endpoint) != new.get(*endpoint);
        touched.extend(old.keys().chain(new.keys()).filter(differs).copied());
        views.insert(*key, new);
    }
    let change = Change {
        known,
        settled,
        want,
        views,
    };
    change.plan(changed, &touched, limits, memo)
}

/// Whether all is the same but the services' backends, and nothing is kept that no service names.
fn same_frame(old: &Wanted, new: &Wanted) -> bool {
    let Wanted {
        services,
        vips,
        node_addresses,
        node,
        sources,
        peers,
        kept,
    } = new;
    kept.is_empty()
        && old.kept.is_empty()
        && old.services.len() == services.len()
        && old.vips == *vips
        && old.node_addresses == *node_addresses
        && old.node == *node
        && old.sources == *sources
        && old.peers == *peers
}

/// The services that differ; `None` if some came or went, if they are many, or differ in more than a few writes.
fn changed(old: &Wanted, new: &Wanted) -> Option<Vec<Endpoint>> {
    let mut changed = Vec::new();
    for ((old_key, old), (key, new)) in old.services.iter().zip(&new.services) {
        if old_key != key {
            return None;
        }
        if !std::sync::Arc::ptr_eq(old, new) && old != new {
            // Those concern more than the service and the backends that changed.
            if old.shape.algorithm != new.shape.algorithm || old.lists != new.lists {
                return None;
            }
            changed.push(*key);
            if changed.len() > FEW {
                return None;
            }
        }
    }
    Some(changed)
}

/// Whether a service has a backend on this node.
fn has_locals(want: &Wanted, key: &Endpoint) -> bool {
    let backends = want.services.get(key).map(|service| &service.backends);
    let mut all = backends.into_iter().flatten();
    all.any(|backend| !matches!(backend.reach, Reach::Net { .. }))
}

/// A service's backends; `None` if one of them is a problem.
fn views_of(want: &Wanted, key: &Endpoint) -> Option<Views> {
    let mut problems = Vec::new();
    let views = pool::views(key, want.services.get(key)?, &mut problems);
    problems.is_empty().then_some(views)
}

// === impl Change ===

impl Change<'_> {
    fn plan(
        &self,
        changed: Vec<Endpoint>,
        touched: &BTreeSet<Endpoint>,
        limits: &Limits,
        memo: &mut Memo,
    ) -> Option<Delta> {
        let have = self.known.state();
        let mut vacant = self.known.vacant(limits.backends);
        let mut members = BTreeMap::new();
        let mut places = BTreeMap::new();
        let mut moved = Vec::new();
        let mut dirty: BTreeSet<Endpoint> = changed.iter().copied().collect();
        let mut ops = BackendOps::default();
        let mut unnamed = BTreeMap::new();
        // By id, as the whole plan has them.
        let mut unlimited = BTreeSet::new();
        let mut unhosted = BTreeSet::new();
        for endpoint in touched {
            let old = self.settled.id(endpoint);
            let users = self.users(endpoint);
            let Some(member) = self.member(endpoint, &users) else {
                let id = old?;
                let generation = have.backends.get(&id)?.generation;
                unnamed.insert(id, Op::FreeBackend { id, generation });
                unlimited.extend(have.limits.contains_key(&id).then_some(id));
                unhosted.extend(have.hosts.contains_key(&id).then_some(id));
                moved.push((*endpoint, None));
                continue;
            };
            let place = match old {
                Some(id) => {
                    let value = have.backends.get(&id)?;
                    if value.state != member.state {
                        // What a service has in its table rests on what others make of the backend.
                        dirty.extend(users);
                    }
                    Place {
                        id,
                        generation: value.generation,
                    }
                }
                None => {
                    let place = vacant.next()?;
                    moved.push((*endpoint, Some(place.id)));
                    place
                }
            };
            ops.put(have, endpoint, place, &member);
            members.insert(*endpoint, member);
            places.insert(*endpoint, place.id);
        }
        let (services, tables) = self.services(&dirty, &mut members, &mut places, memo)?;
        let failing = fail_open_first(have, &services);
        let put = |(key, value): (&Endpoint, &Service)| Op::PutService {
            key: *key,
            value: *value,
        };
        let mut plan: Vec<Op> = failing.iter().map(put).collect();
        plan.extend(ops.in_order());
        plan.extend(
            tables
                .into_iter()
                .filter_map(|(table, made)| made.put(table, have)),
        );
        let differs = |(key, value): &(&Endpoint, &Service)| {
            failing.get(key).or(have.services.get(key)) != Some(value)
        };
        plan.extend(services.iter().filter(differs).map(put));
        let unlimited = unlimited.into_iter().map(unlimit);
        let unhosted = unhosted.into_iter().map(unhost);
        let unnamed = unnamed.into_values().chain(unlimited).chain(unhosted);
        remove(unnamed.collect(), &mut plan);
        Some(Delta {
            plan: Plan {
                ops: plan,
                problems: Vec::new(),
            },
            changed,
            moved,
        })
    }

    /// The services that shall name a backend.
    fn users(&self, backend: &Endpoint) -> BTreeSet<Endpoint> {
        let mut users: BTreeSet<Endpoint> = self.settled.users(backend).iter().copied().collect();
        for (key, views) in &self.views {
            if views.contains_key(backend) {
                users.insert(*key);
            } else {
                users.remove(key);
            }
        }
        users
    }

    /// A backend as all its services together see it; `None` when none names it.
    fn member(&self, backend: &Endpoint, users: &BTreeSet<Endpoint>) -> Option<Member> {
        let mut member: Option<Member> = None;
        for key in users {
            let view = match self.views.get(key) {
                Some(views) => *views.get(backend)?,
                None => *views_of(self.want, key)?.get(backend)?,
            };
            let one = Member::new(self.want.services.get(key)?, &view);
            match &mut member {
                Some(member) => member.join(&one),
                None => member = Some(one),
            }
        }
        member
    }

    /// The values and tables of services.
    fn services(
        &self,
        dirty: &BTreeSet<Endpoint>,
        members: &mut BTreeMap<Endpoint, Member>,
        places: &mut BTreeMap<Endpoint, u32>,
        memo: &mut Memo,
    ) -> Option<(Services, BTreeMap<TableId, Made>)> {
        let (mut services, mut tables) = (Services::new(), BTreeMap::new());
        for key in dirty {
            let views = match self.views.get(key) {
                Some(views) => views.clone(),
                None => views_of(self.want, key)?,
            };
            for (endpoint, view) in &views {
                self.place(endpoint, view, members, places)?;
            }
            let pool = Pool::new(self.want.services.get(key)?, &views, members);
            let old = self.known.state().services.get(key)?;
            let slots = maglev::slots_for(pool.size);
            if pool.table.is_empty() || old.slots as usize != slots {
                return None;
            }
            let service = Service {
                slots: old.slots,
                ..value(old.id, &pool)
            };
            services.insert(*key, service);
            let ids = pool
                .table
                .iter()
                .map(|(endpoint, _)| places.get(endpoint).copied());
            let pool_of_table = maglev::Pool {
                ids: ids.collect::<Option<_>>()?,
                members: pool.table,
                slots,
            };
            let (content, filled) = memo.content_of_one(&pool_of_table);
            let table = TableId {
                service: old.id,
                slots: old.slots,
            };
            let made = Made {
                pool: pool_of_table,
                content,
                slots: filled,
            };
            tables.insert(table, made);
        }
        Some((services, tables))
    }

    /// Looks a backend up that is not itself changed.
    fn place(
        &self,
        endpoint: &Endpoint,
        view: &WantedBackend,
        members: &mut BTreeMap<Endpoint, Member>,
        places: &mut BTreeMap<Endpoint, u32>,
    ) -> Option<()> {
        if !places.contains_key(endpoint) {
            let id = self.settled.id(endpoint)?;
            let state = self.known.state().backends.get(&id)?.state;
            places.insert(*endpoint, id);
            let member = Member {
                state,
                reach: view.reach,
                host: view.peer,
                limit: self
                    .known
                    .state()
                    .limits
                    .get(&id)
                    .copied()
                    .unwrap_or_default(),
            };
            members.insert(*endpoint, member);
        }
        Some(())
    }
}
