//! Routes that keep what is for a VIP on the node: `local` for each leased address, `unreachable` for the
//! pools.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::{Context, Result};
use ipnet::IpNet;

use super::{
    Netlink, Route,
    netlink::is_gone,
    route::{TABLE_LOCAL, TABLE_MAIN},
};
use crate::purged::Purged;

/// The agent's routes.
#[derive(Clone, Debug)]
pub struct Routes {
    netlink: Netlink,
}

/// What a [`Routes::sync`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Routes that were added.
    pub added: Vec<String>,
    /// Routes that were removed.
    pub removed: Vec<String>,
    /// VIPs and pools that have no route as they should, and why.
    pub failed: Vec<(IpNet, String)>,
}

/// What a sync has to do.
#[derive(Debug, Default, PartialEq, Eq)]
struct Difference {
    add: Vec<Route>,
    remove: Vec<Route>,
    conflicts: Vec<(IpNet, String)>,
}

// === impl Routes ===

impl Routes {
    /// Routes of the namespace that `netlink` is in.
    pub fn new(netlink: Netlink) -> Self {
        Self { netlink }
    }

    /// Adds what is missing and removes what is ours and not wanted any more. To be called after the plan
    /// was applied: from then on packets for a VIP come in. Routes of an earlier life are kept as they are.
    ///
    /// A route of somebody else is never touched. A VIP whose address somebody else has is reported as failed;
    /// a pool that somebody else routes gets our route behind theirs, which is taken.
    ///
    /// # Errors
    ///
    /// If the routes cannot be read. A route that cannot be written is reported in [`Changes::failed`].
    pub async fn sync(&self, vips: &BTreeSet<IpAddr>, pools: &[IpNet]) -> Result<Changes> {
        let have = self.netlink.routes().await?;
        let addresses = self.netlink.addresses().await?;
        let taken: BTreeSet<IpAddr> = addresses.iter().map(|own| own.net.addr()).collect();
        let Difference {
            add,
            remove,
            conflicts,
        } = difference(&have, &taken, vips, pools);
        let mut changes = Changes {
            failed: conflicts,
            ..Changes::default()
        };
        for route in add {
            let request = self.netlink.handle()?.route().add(route.message());
            match request.execute().await {
                Ok(()) => changes.added.push(route.to_string()),
                Err(error) => changes
                    .failed
                    .push((route.dst, format!("cannot add route {route}: {error}"))),
            }
        }
        for route in remove {
            match self.delete(&route).await {
                Ok(_) => changes.removed.push(route.to_string()),
                Err(error) => changes.failed.push((route.dst, format!("{error:#}"))),
            }
        }
        Ok(changes)
    }

    /// Removes every route that the agent ever made, in whatever table, and says which; goes on where one cannot
    /// be removed.
    pub async fn purge(&self, purged: &mut Purged) {
        let routes = purged.expect(self.netlink.routes().await);
        for route in routes.iter().flatten().filter(|route| route.is_ours()) {
            purged.note(format!("route {route}"), self.delete(route).await);
        }
    }

    /// False if it is gone already.
    async fn delete(&self, route: &Route) -> Result<bool> {
        let request = self.netlink.handle()?.route().del(route.message());
        match request.execute().await {
            Ok(()) => Ok(true),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot remove route {route}")),
        }
    }
}

/// Pools come before VIPs and go after them, so that no packet for a VIP ever leaves by the default route.
///
/// `taken` are the addresses of the node's interfaces: the route that belongs to an IPv6 address comes some
/// time after the address.
///
/// Routes to one place differ by metric, so that ours of another metric is another route.
fn difference(
    have: &[Route],
    taken: &BTreeSet<IpAddr>,
    vips: &BTreeSet<IpAddr>,
    pools: &[IpNet],
) -> Difference {
    let pools: BTreeSet<IpNet> = pools.iter().map(IpNet::trunc).collect();
    let wanted: Vec<Route> = pools
        .into_iter()
        .map(Route::unreachable)
        .chain(vips.iter().copied().map(Route::local))
        .collect();
    let place = |route: &Route| (route.dst, route.table, route.metric);
    let (ours, theirs): (Vec<&Route>, Vec<&Route>) = have
        .iter()
        .filter(|route| [TABLE_LOCAL, TABLE_MAIN].contains(&route.table))
        .partition(|route| route.is_ours());
    let held: BTreeSet<IpNet> = theirs
        .iter()
        .filter(|route| route.table == TABLE_LOCAL)
        .map(|route| route.dst)
        .collect();
    let theirs: BTreeMap<_, _> = theirs
        .into_iter()
        .map(|route| (place(route), route))
        .collect();
    let known: BTreeMap<_, _> = ours.iter().map(|route| (place(route), *route)).collect();
    let mut difference = Difference::default();
    for route in &wanted {
        let local = route.table == TABLE_LOCAL;
        if local && (held.contains(&route.dst) || taken.contains(&route.dst.addr())) {
            let reason = "the address is in use on this node".to_owned();
            difference.conflicts.push((route.dst, reason));
        } else if let Some(other) = theirs.get(&place(route)) {
            let reason = format!(
                "somebody else has a route there with our metric {}: {other}, protocol {}",
                other.metric, other.protocol
            );
            difference.conflicts.push((route.dst, reason));
        } else if !known
            .get(&place(route))
            .is_some_and(|own| own.kind == route.kind)
        {
            difference.add.push(route.clone());
        }
    }
    let wanted: BTreeMap<_, _> = wanted
        .iter()
        .map(|route| (place(route), route.kind))
        .collect();
    let (pools, vips): (Vec<&Route>, Vec<&Route>) = ours
        .into_iter()
        .filter(|own| wanted.get(&place(own)) != Some(&own.kind))
        .partition(|own| own.table == TABLE_MAIN);
    difference.remove = vips.into_iter().chain(pools).cloned().collect();
    difference
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::RouteType;

    use super::*;

    fn vips(addrs: &[&str]) -> BTreeSet<IpAddr> {
        addrs.iter().map(|addr| addr.parse().unwrap()).collect()
    }

    fn text(routes: &[Route]) -> Vec<String> {
        routes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn pools_come_before_vips_and_go_after_them() {
        let pool: IpNet = "11.0.0.0/8".parse().unwrap();
        let up = difference(&[], &vips(&[]), &vips(&["11.0.0.1"]), &[pool]);
        let routes = ["unreachable 11.0.0.0/8", "local 11.0.0.1/32 table local"];
        assert_eq!(text(&up.add), routes);
        let down = difference(&up.add, &vips(&[]), &vips(&[]), &[]);
        assert_eq!(text(&down.remove), [routes[1], routes[0]]);
        assert_eq!(
            difference(&up.add, &vips(&[]), &vips(&["11.0.0.1"]), &[pool]),
            Difference::default()
        );
    }

    #[test]
    fn a_vip_that_somebody_else_has_is_reported_and_the_others_are_routed() {
        let theirs = Route {
            protocol: 2,
            ..Route::local("11.0.0.1".parse().unwrap())
        };
        let wanted = vips(&["11.0.0.1", "11.0.0.2", "11.0.0.3"]);
        let found = difference(&[theirs], &vips(&["11.0.0.3"]), &wanted, &[]);
        assert_eq!(text(&found.add), ["local 11.0.0.2/32 table local"]);
        let reason = "the address is in use on this node".to_owned();
        let conflict = |net: &str| (net.parse().unwrap(), reason.clone());
        assert_eq!(
            found.conflicts,
            [conflict("11.0.0.1/32"), conflict("11.0.0.3/32")]
        );
    }

    #[test]
    fn a_pool_that_the_operator_routes_is_no_conflict() {
        let pool: IpNet = "11.0.0.0/8".parse().unwrap();
        let theirs = Route {
            protocol: 4,
            kind: RouteType::Unicast,
            metric: 0,
            ..Route::unreachable(pool)
        };
        let found = difference(&[theirs], &vips(&[]), &vips(&[]), &[pool]);
        assert_eq!(found.add, [Route::unreachable(pool)]);
        assert_eq!((found.remove.len(), found.conflicts.len()), (0, 0));
    }

    #[test]
    fn our_route_with_another_metric_is_replaced() {
        let pool: IpNet = "11.0.0.0/8".parse().unwrap();
        let other = Route {
            metric: 5,
            ..Route::unreachable(pool)
        };
        let have = std::slice::from_ref(&other);
        let found = difference(have, &vips(&[]), &vips(&[]), &[pool]);
        assert_eq!(found.add, [Route::unreachable(pool)]);
        assert_eq!(found.remove, [other]);
    }

    #[test]
    fn a_route_of_somebody_else_is_never_removed() {
        let theirs = Route {
            protocol: 4,
            kind: RouteType::Unicast,
            ..Route::unreachable("11.0.0.0/8".parse().unwrap())
        };
        let found = difference(
            &[theirs],
            &vips(&[]),
            &vips(&[]),
            &["11.0.0.0/8".parse().unwrap()],
        );
        assert_eq!(
            (found.add.len(), found.remove.len(), found.conflicts.len()),
            (0, 0, 1)
        );
    }
}
