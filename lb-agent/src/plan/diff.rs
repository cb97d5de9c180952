//! The difference between what the maps hold and what they shall hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use lb_common::{
    Backend, BackendLimit, Be16, Peer, Service, addr_flag, backend_kind, backend_state,
    service_flag,
};

use super::{
    Endpoint, KernelState, Limits, Listed, Local, Op, Plan, Reach, Table, TableId, Wanted, ids,
    ids::Place,
    maglev::{self, Memo},
    pool::{Member, Pool, Pools},
    room::{self, TableRoom},
};

/// Compares and gives the operations that lead from one to the other; none if nothing differs.
///
/// The order, each step safe by what the steps before it did:
///
/// 1. services that begin to fail open, before the backends that make them: the last one to go down must
///    not have its flows reset;
/// 2. backends: a state change takes effect here, at once; then what they may take on;
/// 3. sources, the services' lists of them, peers and what they may name, the node's own addresses, the node's settings;
/// 4. tables, each swapped in whole; then the services that name them;
/// 5. VIPs, last of all additions (the routes to them come after the whole plan);
/// 6. removal of services, then of addresses, sources, what lists no longer say, peers and what they may name;
/// 7. a grace period, unless a swap of a table has just been one, then what services counted, tables and backends
///    that nothing names any more.
///
/// What a map has no room for is left out and named in [`Plan::problems`].
pub fn plan(have: &KernelState, want: &Wanted, limits: &Limits) -> Plan {
    plan_with(have, want, limits, &mut Memo::default())
}

/// As [`plan`]; computes only the Maglev tables whose backends changed since the last plan with `memo`.
pub fn plan_with(have: &KernelState, want: &Wanted, limits: &Limits, memo: &mut Memo) -> Plan {
    let mut problems = Vec::new();
    let refused = room::crowded_out(have, want, limits, &mut problems);
    let pools = Pools::new(want, |key| !refused.contains(key), &mut problems);
    let places = ids::backends(have, pools.backends.keys(), limits.backends);
    for endpoint in pools.backends.keys().filter(|e| !places.contains_key(e)) {
        problems.push(format!(
            "backend {endpoint} is left out: all {} ids are in use",
            limits.backends.saturating_sub(1)
        ));
    }
    let (services, tables) = services(have, &pools, &places, limits, memo, &mut problems);
    memo.turn_over();
    let addresses = room::addresses(have, want, limits, &mut problems);
    let sources = room::sources(have, want, limits, &mut problems);
    let lists = lists(want, &services);
    let locals = room::locals(have, want, &services, &places, limits, &mut problems);

    let mut ops = Vec::new();
    let failing = fail_open_first(have, &services);
    ops.extend(failing.iter().map(|(key, value)| Op::PutService {
        key: *key,
        value: *value,
    }));
    put_backends(have, &pools, &places, &mut ops);
    ops.extend(
        sources
            .difference(&have.sources)
            .copied()
            .map(Op::PutSource),
    );
    ops.extend(
        lists
            .iter()
            .filter(|(listed, rule)| have.lists.get(listed) != Some(rule))
            .map(|(listed, rule)| Op::PutListed {
                listed: *listed,
                rule: *rule,
            }),
    );
    ops.extend(
        locals
            .iter()
            .filter(|(local, id)| have.locals.get(local) != Some(id))
            .map(|(local, id)| Op::PutLocal {
                local: *local,
                id: *id,
            }),
    );
    ops.extend(want.peers.difference(&have.peers).copied().map(Op::PutPeer));
    put_addresses(
        have,
        &addresses,
        |flags| flags & addr_flag::VIP == 0,
        &mut ops,
    );
    if have.node != want.node {
        ops.push(Op::PutNode(want.node));
    }
    let kept: BTreeSet<TableId> = tables.keys().copied().collect();
    for (table, made) in tables {
        ops.extend(made.put(table, have));
    }
    for (key, value) in &services {
        if failing.get(key).or(have.services.get(key)) != Some(value) {
            ops.push(Op::PutService {
                key: *key,
                value: *value,
            });
        }
    }
    put_addresses(
        have,
        &addresses,
        |flags| flags & addr_flag::VIP != 0,
        &mut ops,
    );

    let gone = |key: &&Endpoint| !services.contains_key(*key);
    ops.extend(
        have.services
            .keys()
            .filter(gone)
            .copied()
            .map(Op::DeleteService),
    );
    let gone = |addr: &&IpAddr| !addresses.contains_key(*addr);
    ops.extend(
        have.addresses
            .keys()
            .filter(gone)
            .copied()
            .map(Op::DeleteAddress),
    );
    ops.extend(
        have.sources
            .difference(&want.sources)
            .copied()
            .map(Op::DeleteSource),
    );
    let gone = |listed: &&Listed| !lists.contains_key(*listed);
    ops.extend(
        have.lists
            .keys()
            .filter(gone)
            .copied()
            .map(Op::DeleteListed),
    );
    ops.extend(
        have.peers
            .difference(&want.peers)
            .copied()
            .map(Op::DeletePeer),
    );
    let gone = |local: &&Local| !locals.contains_key(*local);
    ops.extend(
        have.locals
            .keys()
            .filter(gone)
            .copied()
            .map(Op::DeleteLocal),
    );
    let mut unnamed = unnamed(have, want, &kept, &places);
    unnamed.splice(0..0, forgotten(have, &services));
    remove(unnamed, &mut ops);
    Plan { ops, problems }
}

/// Adds the removal of what nothing names any more, once no packet under way can still use it. Right after a
/// table was swapped that is so already.
pub(super) fn remove(unnamed: Vec<Op>, ops: &mut Vec<Op>) {
    if unnamed.is_empty() {
        return;
    }
    if !matches!(ops.last(), Some(Op::PutTable { .. })) {
        ops.push(Op::Grace);
    }
    ops.extend(unnamed);
}

pub(super) type Services = BTreeMap<Endpoint, Service>;
type Tables = BTreeMap<TableId, Made>;

/// A table as it shall be.
pub(super) struct Made {
    pub(super) pool: maglev::Pool,
    pub(super) content: Table,
    /// Its slots, if they were computed already.
    pub(super) slots: Option<Arc<[u32]>>,
}

/// The services' values and tables.
fn services(
    have: &KernelState,
    pools: &Pools,
    places: &BTreeMap<Endpoint, Place>,
    limits: &Limits,
    memo: &mut Memo,
    problems: &mut Vec<String>,
) -> (Services, Tables) {
    let mut room = TableRoom::new(have, limits);
    let mut services = Services::new();
    let mut tables = Tables::new();
    for (key, id) in ids::services(have, pools.services.keys()) {
        let Some(pool) = pools.services.get(&key) else {
            continue;
        };
        let mut service = value(id, pool);
        let (members, ids): (Vec<_>, Vec<u32>) = pool
            .table
            .iter()
            .filter_map(|member| Some((*member, places.get(&member.0)?.id)))
            .unzip();
        if !members.is_empty() {
            let wanted = maglev::slots_for(pool.size);
            match room.take(id, wanted) {
                Some(slots) => {
                    service.slots = slots as u32;
                    if slots != wanted {
                        problems.push(format!(
                            "service {key} has a table of {slots} slots instead of {wanted}: the map is full"
                        ));
                    }
                    let pool = maglev::Pool {
                        members,
                        ids,
                        slots,
                    };
                    let (content, filled) = memo.content(&pool);
                    let table = TableId {
                        service: id,
                        slots: service.slots,
                    };
                    let made = Made {
                        pool,
                        content,
                        slots: filled,
                    };
                    tables.insert(table, made);
                }
                None => problems.push(format!(
                    "service {key} takes no new flows: all maps of Maglev tables are full"
                )),
            }
        }
        services.insert(key, service);
    }
    (services, tables)
}

/// A service's value, but for the size of its table.
pub(super) fn value(id: u32, pool: &Pool) -> Service {
    Service {
        id,
        slots: 0,
        ..pool.shape
    }
}

/// What the services' lists shall say.
fn lists(want: &Wanted, services: &Services) -> BTreeMap<Listed, u32> {
    let of = |(key, value): (&Endpoint, &Service)| {
        let service = value.id;
        let lists = want.services.get(key).map(|wanted| &*wanted.lists);
        let entries = lists.into_iter().flatten();
        entries.map(move |(net, rule)| (Listed { service, net: *net }, *rule))
    };
    services.iter().flat_map(of).collect()
}

/// The ids of services that go, and of those of which an earlier plan left a table.
fn forgotten(have: &KernelState, services: &Services) -> Vec<Op> {
    let mut ids: BTreeSet<u32> = have.tables.keys().map(|table| table.service).collect();
    ids.extend(have.services.values().map(|service| service.id));
    for service in services.values() {
        ids.remove(&service.id);
    }
    ids.into_iter().map(Op::ForgetService).collect()
}

// === impl Made ===

impl Made {
    /// The operation that puts it there, unless it is.
    pub(super) fn put(self, table: TableId, have: &KernelState) -> Option<Op> {
        let Self {
            pool,
            content,
            slots,
        } = self;
        if have.tables.get(&table) == Some(&content) {
            return None;
        }
        Some(Op::PutTable {
            table,
            slots: slots.unwrap_or_else(|| pool.fill()),
            content,
        })
    }
}

/// Services as they are, but failing open, where they are about to.
pub(super) fn fail_open_first(have: &KernelState, services: &Services) -> Services {
    let begins = |(key, value): (&Endpoint, &Service)| {
        let old = have.services.get(key)?;
        let flags = old.flags | service_flag::FAIL_OPEN;
        let begins = flags != old.flags && value.flags & service_flag::FAIL_OPEN != 0;
        begins.then_some((*key, Service { flags, ..*old }))
    };
    services.iter().filter_map(begins).collect()
}

/// Known backends first: their changes are states, and those are urgent.
fn put_backends(
    have: &KernelState,
    pools: &Pools,
    places: &BTreeMap<Endpoint, Place>,
    ops: &mut Vec<Op>,
) {
    let mut puts = BackendOps::default();
    for (endpoint, place) in places {
        if let Some(member) = pools.backends.get(endpoint) {
            puts.put(have, endpoint, *place, member);
        }
    }
    ops.extend(puts.in_order());
}

/// What is written of backends.
#[derive(Default)]
pub(super) struct BackendOps {
    /// Changes of those that are known.
    known: Vec<Op>,
    fresh: Vec<Op>,
    limits: Vec<Op>,
    hosts: Vec<Op>,
}

// === impl BackendOps ===

impl BackendOps {
    /// Adds what differs of one backend.
    pub(super) fn put(
        &mut self,
        have: &KernelState,
        endpoint: &Endpoint,
        place: Place,
        member: &Member,
    ) {
        let (id, value) = (place.id, backend(endpoint, place, member));
        let put = Op::PutBackend { id, value };
        match have.backends.get(&id) {
            Some(old) if *old == value => {}
            Some(old) if old.generation == value.generation => self.known.push(put),
            _ => self.fresh.push(put),
        }
        if have.limits.get(&id).copied().unwrap_or_default() != member.limit {
            let value = member.limit;
            self.limits.push(Op::PutLimit { id, value });
        }
        if have.hosts.get(&id).copied().unwrap_or_default() != member.host {
            let value = member.host;
            self.hosts.push(Op::PutHost { id, value });
        }
    }

    /// A table names a new backend only after its limit and its host are there.
    pub(super) fn in_order(self) -> impl Iterator<Item = Op> {
        let Self {
            known,
            fresh,
            limits,
            hosts,
        } = self;
        known.into_iter().chain(fresh).chain(limits).chain(hosts)
    }
}

/// Takes the limits of a backend away.
pub(super) fn unlimit(id: u32) -> Op {
    let value = BackendLimit::default();
    Op::PutLimit { id, value }
}

/// Takes a backend from its host's agent.
pub(super) fn unhost(id: u32) -> Op {
    let value = Peer::default();
    Op::PutHost { id, value }
}

fn backend(endpoint: &Endpoint, place: Place, member: &Member) -> Backend {
    let (kind, ifindex, next_hop) = match member.reach {
        Reach::Net { ifindex, next_hop } => (backend_kind::NET, ifindex, next_hop),
        Reach::Host => (backend_kind::HOST, 0, 0),
        Reach::Link { ifindex } => (backend_kind::LINK, ifindex, 0),
    };
    Backend {
        addr: endpoint.wide_addr(),
        port: Be16::new(endpoint.port),
        proto: endpoint.proto,
        family: endpoint.family(),
        state: member.state,
        kind,
        next_hop,
        generation: place.generation,
        ifindex,
    }
}

fn put_addresses(
    have: &KernelState,
    addresses: &BTreeMap<IpAddr, u32>,
    now: impl Fn(u32) -> bool,
    ops: &mut Vec<Op>,
) {
    for (addr, flags) in addresses {
        if now(*flags) && have.addresses.get(addr) != Some(flags) {
            ops.push(Op::PutAddress {
                addr: *addr,
                flags: *flags,
            });
        }
    }
}

/// Tables and backends that nothing names once all else is done.
fn unnamed(
    have: &KernelState,
    want: &Wanted,
    kept: &BTreeSet<TableId>,
    places: &BTreeMap<Endpoint, Place>,
) -> Vec<Op> {
    let mut in_use: BTreeSet<u32> = places.values().map(|place| place.id).collect();
    in_use.extend(&want.kept);
    let tables = have.tables.keys().filter(|table| !kept.contains(table));
    let backends = have
        .backends
        .iter()
        .filter(|(id, backend)| backend.state != backend_state::FREE && !in_use.contains(id));
    let limits = have.limits.keys().filter(|id| !in_use.contains(id));
    let hosts = have.hosts.keys().filter(|id| !in_use.contains(id));
    tables
        .copied()
        .map(Op::DeleteTable)
        .chain(backends.map(|(id, backend)| Op::FreeBackend {
            id: *id,
            generation: backend.generation,
        }))
        .chain(limits.map(|id| unlimit(*id)))
        .chain(hosts.map(|id| unhost(*id)))
        .collect()
}
