//! What the maps have room for: additions come before deletions, so beside all that is there now.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use lb_common::{SLOTS_LARGE, SLOTS_MEDIUM, SLOTS_SMALL, Service, addr_flag};

use super::{Endpoint, KernelState, Limits, Listed, Local, Reach, TableId, Wanted, ids::Place};

/// Room in the maps of Maglev tables.
pub(super) struct TableRoom<'a> {
    have: &'a KernelState,
    left: [usize; 3],
}

impl<'a> TableRoom<'a> {
    const SIZES: [usize; 3] = [SLOTS_SMALL, SLOTS_MEDIUM, SLOTS_LARGE];

    pub(super) fn new(have: &'a KernelState, limits: &Limits) -> Self {
        let mut left = limits.tables;
        for table in have.tables.keys() {
            for (size, left) in Self::SIZES.iter().zip(&mut left) {
                if *size == table.slots as usize {
                    *left = left.saturating_sub(1);
                }
            }
        }
        Self { have, left }
    }

    /// The size that the service gets: the wanted one, else the next smaller, else a larger one. A table
    /// that it has already takes no room.
    pub(super) fn take(&mut self, service: u32, wanted: usize) -> Option<usize> {
        let smaller = Self::SIZES.iter().rposition(|size| *size <= wanted);
        let smaller = smaller.map_or(0, |at| at + 1);
        for at in (0..smaller).rev().chain(smaller..Self::SIZES.len()) {
            let table = TableId {
                service,
                slots: Self::SIZES[at] as u32,
            };
            if self.have.tables.contains_key(&table) {
                return Some(Self::SIZES[at]);
            }
            if self.left[at] > 0 {
                self.left[at] -= 1;
                return Some(Self::SIZES[at]);
            }
        }
        None
    }
}

/// Services for which the service maps have no room beside all that are there now.
pub(super) fn crowded_out(
    have: &KernelState,
    want: &Wanted,
    limits: &Limits,
    problems: &mut Vec<String>,
) -> BTreeSet<Endpoint> {
    let mut refused = BTreeSet::new();
    for family in [4, 6] {
        let there = have
            .services
            .keys()
            .filter(|key| key.family() == family)
            .count();
        let fresh = want
            .services
            .keys()
            .filter(|key| key.family() == family && !have.services.contains_key(key));
        for key in fresh.skip(limits.services.saturating_sub(there)) {
            problems.push(format!(
                "service {key} is left out: the map of IPv{family} services is full ({})",
                limits.services
            ));
            refused.insert(*key);
        }
        crowded_lists(have, want, limits, family, &mut refused, problems);
    }
    refused
}

/// Services whose lists do not fit: with a part of its list a service would let in whom it denies.
fn crowded_lists(
    have: &KernelState,
    want: &Wanted,
    limits: &Limits,
    family: u8,
    refused: &mut BTreeSet<Endpoint>,
    problems: &mut Vec<String>,
) {
    let v4 = family == 4;
    let there = have.lists.keys();
    let there = there
        .filter(|listed| listed.net.addr().is_ipv4() == v4)
        .count();
    let mut left = limits.listed.saturating_sub(there);
    for (key, service) in &want.services {
        if key.family() != family || service.lists.is_empty() || refused.contains(key) {
            continue;
        }
        let id = have.services.get(key).map(|service| service.id);
        let has = |net: &&IpNet| {
            let listed = |service| Listed {
                service,
                net: **net,
            };
            id.is_some_and(|id| have.lists.contains_key(&listed(id)))
        };
        let fresh = service.lists.keys().filter(|net| !has(net)).count();
        if fresh > left {
            problems.push(format!(
                "service {key} is left out: the map of its sources is full ({})",
                limits.listed
            ));
            refused.insert(*key);
        } else {
            left -= fresh;
        }
    }
}

/// The destination filter as it shall be.
pub(super) fn addresses(
    have: &KernelState,
    want: &Wanted,
    limits: &Limits,
    problems: &mut Vec<String>,
) -> BTreeMap<IpAddr, u32> {
    let mut addresses = BTreeMap::new();
    for (addr, flag) in (want.vips.iter().map(|addr| (addr, addr_flag::VIP))).chain(
        want.node_addresses
            .iter()
            .map(|addr| (addr, addr_flag::NODE)),
    ) {
        *addresses.entry(*addr).or_default() |= flag;
    }
    for v4 in [true, false] {
        let there = have
            .addresses
            .keys()
            .filter(|addr| addr.is_ipv4() == v4)
            .count();
        let room = limits.addresses.saturating_sub(there);
        let fresh: Vec<IpAddr> = addresses
            .keys()
            .filter(|addr| addr.is_ipv4() == v4 && !have.addresses.contains_key(addr))
            .copied()
            .collect();
        for addr in fresh.into_iter().skip(room) {
            problems.push(format!(
                "address {addr} is left out: the destination filter is full ({})",
                limits.addresses
            ));
            addresses.remove(&addr);
        }
    }
    addresses
}

/// What peers may name: of each VIP the backends that are on this node, if there are peers.
pub(super) fn locals(
    have: &KernelState,
    want: &Wanted,
    services: &BTreeMap<Endpoint, Service>,
    places: &BTreeMap<Endpoint, Place>,
    limits: &Limits,
    problems: &mut Vec<String>,
) -> BTreeMap<Local, u32> {
    let mut locals = BTreeMap::new();
    if want.peers.is_empty() {
        return locals;
    }
    let mut left = limits.locals.saturating_sub(have.locals.len());
    for (key, service) in services
        .iter()
        .filter(|(key, _)| want.vips.contains(&key.addr))
    {
        let backends = want.services.get(key).map(|wanted| &wanted.backends);
        for backend in backends.into_iter().flatten() {
            if matches!(backend.reach, Reach::Net { .. }) {
                continue;
            }
            let endpoint = Endpoint::new(backend.addr, key.proto);
            let Some(place) = places.get(&endpoint) else {
                continue;
            };
            let local = Local {
                service: service.id,
                addr: SocketAddr::new(endpoint.addr, endpoint.port),
            };
            if have.locals.contains_key(&local) || locals.contains_key(&local) {
                locals.insert(local, place.id);
            } else if left > 0 {
                left -= 1;
                locals.insert(local, place.id);
            } else {
                problems.push(format!(
                    "peers cannot send to backend {endpoint} of service {key}: the map of this node's backends is full ({})",
                    limits.locals
                ));
            }
        }
    }
    locals
}

/// The allowed sources as they shall be.
pub(super) fn sources(
    have: &KernelState,
    want: &Wanted,
    limits: &Limits,
    problems: &mut Vec<String>,
) -> BTreeSet<IpNet> {
    let is_v4 = |net: &IpNet| matches!(net, IpNet::V4(_));
    let mut sources = want.sources.clone();
    for v4 in [true, false] {
        let there = have.sources.iter().filter(|net| is_v4(net) == v4).count();
        let fresh = want
            .sources
            .difference(&have.sources)
            .filter(|net| is_v4(net) == v4);
        for net in fresh.skip(limits.sources.saturating_sub(there)) {
            problems.push(format!(
                "source {net} is not permitted: the map of sources is full ({})",
                limits.sources
            ));
            sources.remove(net);
        }
    }
    sources
}
