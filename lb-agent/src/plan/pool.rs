//! Who is behind which service: the services' views of a backend become one state for the kernel.
//!
//! The kernel's backend is shared by all services that name it and has one state, so:
//! - it is *active* if any service would use it; a service that would not keeps it out of its table;
//! - else *down* if any service says so, and stays in that service's table, so that a state change is one
//!   write, as long as those that are active have half of it: a search that ends after so many steps must find
//!   one of them;
//! - else *draining*.
//!
//! Weight 0 is draining, whatever the checks say: its flows are kept and it is never failed open. Who is *off* is down
//! without being in a table or failed open: all the others decide about that.
//!
//! Of a service's tiers only the lowest in which a backend takes flows is in its table. The backends of the others
//! are *draining*, not *active*, so that a client with affinity comes back from a backup, too.

use std::collections::BTreeMap;

use lb_common::{BackendLimit, Peer, Service, algorithm, backend_state, service_flag};

use super::{BackendState, Endpoint, Reach, Wanted, WantedBackend, WantedService};

/// Services and backends with all doubts settled.
pub(super) struct Pools {
    /// Every backend that a service names.
    pub(super) backends: BTreeMap<Endpoint, Member>,
    /// Every service.
    pub(super) services: BTreeMap<Endpoint, Pool>,
}

/// A backend as the kernel shall see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// One of [`backend_state`].
    pub(super) state: u8,
    pub(super) reach: Reach,
    pub(super) host: Peer,
    pub(super) limit: BackendLimit,
}

/// The backends of one service.
pub(super) struct Pool {
    /// Its value, but for id and slots.
    pub(super) shape: Service,
    /// Who is in the Maglev table, with weights above 0.
    pub(super) table: Vec<(Endpoint, u16)>,
    /// Number of backends, those of weight 0 included, so that draining does not change the table's size.
    pub(super) size: usize,
}

pub(super) type Views = BTreeMap<Endpoint, WantedBackend>;

impl Pools {
    /// Settles the services that `keep` accepts.
    pub(super) fn new(
        want: &Wanted,
        keep: impl Fn(&Endpoint) -> bool,
        problems: &mut Vec<String>,
    ) -> Self {
        let services: Vec<_> = want
            .services
            .iter()
            .filter(|(key, _)| keep(key))
            .map(|(key, service)| (*key, &**service, views(key, service, problems)))
            .collect();
        let mut backends = BTreeMap::<Endpoint, Member>::new();
        for (_, service, views) in &services {
            for (endpoint, view) in views {
                let one = Member::new(service, view);
                backends
                    .entry(*endpoint)
                    .and_modify(|member| member.join(&one))
                    .or_insert(one);
            }
        }
        let services = services
            .into_iter()
            .map(|(key, service, views)| (key, Pool::new(service, &views, &backends)))
            .collect();
        Self { backends, services }
    }
}

impl Member {
    /// As one service sees it.
    pub(super) fn new(service: &WantedService, view: &WantedBackend) -> Self {
        // Nobody else asks for the weight, and what is not written costs nothing.
        let by_load = service.shape.algorithm == algorithm::LEAST_CONN;
        Self {
            state: state(view),
            reach: view.reach,
            host: view.peer,
            limit: BackendLimit {
                max_flows: view.max_flows,
                weight: if by_load { view.weight.get().into() } else { 0 },
            },
        }
    }

    /// Takes another service's view into account.
    pub(super) fn join(&mut self, other: &Self) {
        self.state = agree(self.state, other.state);
        self.limit.max_flows = strictest(self.limit.max_flows, other.limit.max_flows);
        self.limit.weight = self.limit.weight.max(other.limit.weight);
    }
}

impl Pool {
    pub(super) fn new(
        service: &WantedService,
        views: &Views,
        backends: &BTreeMap<Endpoint, Member>,
    ) -> Self {
        let willing = || {
            views
                .values()
                .filter(|view| view.state != BackendState::Off)
                .map(state)
                .filter(|s| *s != backend_state::DRAINING)
        };
        let all_down = willing().count() > 0 && willing().all(|s| s == backend_state::DOWN);
        let fail_open = service.fail_open && all_down;
        let serving = serving_tier(views);
        let share = |of: u8| -> u32 {
            let weights = views.values().filter(|view| state(view) == of);
            let weights = weights.filter(|view| view.state != BackendState::Off);
            weights.map(|view| u32::from(view.weight.get())).sum()
        };
        let few = share(backend_state::ACTIVE) < share(backend_state::DOWN);
        let in_table = |endpoint: &Endpoint, view: &WantedBackend| {
            let here = state(view);
            view.weight.get() > 0
                && view.state != BackendState::Off
                && serving.is_none_or(|tier| view.tier == tier)
                && (here == backend_state::ACTIVE
                    || (here == backend_state::DOWN && fail_open)
                    || (!few || all_down)
                        && backends
                            .get(endpoint)
                            .is_some_and(|member| member.state == here))
        };
        let mut shape = service.shape;
        shape.flags &= !service_flag::FAIL_OPEN;
        if fail_open {
            shape.flags |= service_flag::FAIL_OPEN;
        }
        Self {
            shape,
            table: views
                .iter()
                .filter(|(endpoint, view)| in_table(endpoint, view))
                .map(|(endpoint, view)| (*endpoint, view.weight.get()))
                .collect(),
            size: views.len(),
        }
    }
}

/// A service's backends by identity, without those it cannot have.
pub(super) fn views(key: &Endpoint, service: &WantedService, problems: &mut Vec<String>) -> Views {
    let mut views = Views::new();
    for backend in &service.backends {
        let endpoint = Endpoint::new(backend.addr, key.proto);
        if endpoint.family() != key.family() {
            problems.push(format!(
                "service {key}: backend {endpoint} is of the other address family; left out"
            ));
            continue;
        }
        views
            .entry(endpoint)
            .and_modify(|view| {
                view.weight = view.weight.max(backend.weight);
                view.state = view.state.max(backend.state);
                view.tier = view.tier.min(backend.tier);
                view.max_flows = strictest(view.max_flows, backend.max_flows);
            })
            .or_insert(*backend);
    }
    if let Some(serving) = serving_tier(&views) {
        let idle =
            |view: &&mut WantedBackend| view.tier != serving && view.state == BackendState::Up;
        for view in views.values_mut().filter(idle) {
            view.state = BackendState::Standby;
        }
    }
    views
}

/// The lowest tier in which a backend takes flows.
fn serving_tier(views: &Views) -> Option<u8> {
    let up = views
        .values()
        .filter(|view| state(view) == backend_state::ACTIVE);
    up.map(|view| view.tier).min()
}

/// The smaller of two limits, of which 0 is none.
fn strictest(one: u32, other: u32) -> u32 {
    match (one, other) {
        (0, limit) | (limit, 0) => limit,
        (one, other) => one.min(other),
    }
}

/// One of [`backend_state`].
pub(super) fn state(view: &WantedBackend) -> u8 {
    match view.state {
        BackendState::Off => backend_state::DOWN,
        _ if view.weight.get() == 0 => backend_state::DRAINING,
        BackendState::Draining | BackendState::Standby => backend_state::DRAINING,
        BackendState::Down => backend_state::DOWN,
        BackendState::Up => backend_state::ACTIVE,
    }
}

fn agree(one: u8, other: u8) -> u8 {
    [backend_state::ACTIVE, backend_state::DOWN]
        .into_iter()
        .find(|state| one == *state || other == *state)
        .unwrap_or(backend_state::DRAINING)
}
