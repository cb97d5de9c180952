//! Longest prefix match over dumped routes.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use super::{Route, Via};

/// A routing table: of several routes to one prefix the best.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table(BTreeMap<IpNet, Route>);

// === impl Table ===

impl Table {
    /// The most specific route to `addr`.
    pub(super) fn lookup(&self, addr: IpAddr) -> Option<&Route> {
        let longest = IpNet::from(addr).prefix_len();
        (0..=longest)
            .rev()
            .filter_map(|len| IpNet::new(addr, len).ok())
            .find_map(|net| self.0.get(&net.trunc()))
    }

    /// Its routes, by destination.
    pub(super) fn routes(&self) -> impl Iterator<Item = &Route> {
        self.0.values()
    }
}

impl Route {
    /// Who gets the frames if `other` is as good: the kernel goes by more than the destination then.
    fn or_else(&self, other: &Self) -> Via {
        match (self.via, other.via) {
            (Via::Link, Via::Link) => Via::Link,
            (one, same) if one == same && self.ifindex == other.ifindex => one,
            _ => Via::Complex,
        }
    }
}

impl FromIterator<Route> for Table {
    fn from_iter<T: IntoIterator<Item = Route>>(routes: T) -> Self {
        let mut table = BTreeMap::<IpNet, Route>::new();
        for route in routes {
            let dst = route.dst.trunc();
            match table.get_mut(&dst) {
                Some(known) if known.metric < route.metric => {}
                Some(known) if known.metric == route.metric => known.via = known.or_else(&route),
                _ => {
                    table.insert(dst, route);
                }
            }
        }
        Self(table)
    }
}
