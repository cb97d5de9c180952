//! Our routes and the link address: made, kept, removed; nobody else's touched.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use super::{in_a_namespace, ip};
use crate::{
    net::{Netlink, Routes},
    purged::Purged,
};

fn vips(addrs: &[&str]) -> BTreeSet<IpAddr> {
    addrs.iter().map(|addr| addr.parse().unwrap()).collect()
}

fn pools() -> Vec<IpNet> {
    ["11.0.0.0/8", "fd01:c::/64"]
        .map(|pool| pool.parse().unwrap())
        .to_vec()
}

fn open() -> Routes {
    Routes::new(Netlink::open().unwrap())
}

async fn purge(routes: &Routes) -> Vec<String> {
    let mut purged = Purged::default();
    routes.purge(&mut purged).await;
    assert_eq!(purged.failed, [""; 0]);
    purged.removed
}

async fn purge_addresses(netlink: &Netlink) -> Vec<String> {
    let mut purged = Purged::default();
    netlink.purge_addresses(&mut purged).await;
    assert_eq!(purged.failed, [""; 0]);
    purged.removed
}

#[test]
fn a_leased_vip_is_local_and_the_rest_of_its_pool_unreachable() {
    in_a_namespace(|| async {
        let leased = vips(&["11.0.0.1", "fd01:c::1"]);
        let changes = open().sync(&leased, &pools()).await.unwrap();
        assert_eq!(changes.failed, []);
        assert_eq!(
            changes.added,
            [
                "unreachable 11.0.0.0/8",
                "unreachable fd01:c::/64",
                "local 11.0.0.1/32 table local",
                "local fd01:c::1/128 table local",
            ]
        );
        let local = ip("route show table local proto 176");
        assert_eq!(local.trim(), "local 11.0.0.1 dev lo scope host");
        assert!(ip("-6 route show table local proto 176").starts_with("local fd01:c::1 dev lo"));
        assert_eq!(
            ip("route show proto 176").trim(),
            "unreachable 11.0.0.0/8 metric 2147483647"
        );
        assert!(ip("-6 route show proto 176").starts_with("unreachable fd01:c::/64"));
        assert!(ip("route get 11.0.0.1").starts_with("local 11.0.0.1 dev lo"));
        assert!(ip("-6 route get fd01:c::1").starts_with("local fd01:c::1"));
    });
}

#[test]
fn an_operators_route_to_a_pool_is_taken_before_ours() {
    in_a_namespace(|| async {
        ip("link add far type veth peer name near");
        ip("link set near up");
        ip("link set far up");
        let lookup = || {
            [
                ip("route get 11.0.0.9"),
                ip("-6 route get fd01:c::9 oif near"),
            ]
        };
        let theirs = [
            "route add 11.0.0.0/8 dev near",
            "-6 route add fd01:c::/64 dev near",
        ];
        for route in theirs {
            ip(route);
        }
        let changes = open().sync(&vips(&[]), &pools()).await.unwrap();
        assert_eq!(changes.failed, []);
        assert_eq!(changes.added.len(), 2, "{changes:?}");
        for found in lookup() {
            assert!(found.contains("dev near"), "{found}");
        }
        // The other way round it is no different: theirs comes while ours is there.
        for route in theirs {
            ip(&route.replace(" add ", " del "));
        }
        for route in theirs {
            ip(route);
        }
        for found in lookup() {
            assert!(found.contains("dev near"), "{found}");
        }
        let removed = purge(&open()).await;
        assert_eq!(removed.len(), 2, "{removed:?}");
        assert!(ip("route").contains("11.0.0.0/8 dev near"));
        assert!(ip("-6 route").contains("fd01:c::/64 dev near"));
    });
}

#[test]
fn a_second_life_finds_its_routes_and_changes_nothing() {
    in_a_namespace(|| async {
        let leased = vips(&["11.0.0.1", "fd01:c::1"]);
        open().sync(&leased, &pools()).await.unwrap();
        let again = open().sync(&leased, &pools()).await.unwrap();
        assert_eq!(again, Default::default());
    });
}

#[test]
fn a_released_vip_loses_its_route() {
    in_a_namespace(|| async {
        let routes = open();
        let leased = vips(&["11.0.0.1", "11.0.0.2", "fd01:c::1"]);
        routes.sync(&leased, &pools()).await.unwrap();
        let changes = routes.sync(&vips(&["11.0.0.2"]), &pools()).await.unwrap();
        assert_eq!(changes.failed, []);
        assert_eq!(
            changes.removed,
            [
                "local 11.0.0.1/32 table local",
                "local fd01:c::1/128 table local"
            ]
        );
        let local = ip("route show table local proto 176");
        assert_eq!(local.trim(), "local 11.0.0.2 dev lo scope host");
    });
}

#[test]
fn an_address_that_somebody_else_has_is_an_error_for_that_vip_only() {
    in_a_namespace(|| async {
        ip("addr add 11.0.0.1/32 dev lo");
        ip("addr add fd01:c::1/128 dev lo");
        let leased = vips(&["11.0.0.1", "11.0.0.2", "fd01:c::1"]);
        let changes = open().sync(&leased, &[]).await.unwrap();
        assert_eq!(changes.added, ["local 11.0.0.2/32 table local"]);
        let failed: Vec<String> = changes
            .failed
            .iter()
            .map(|(net, _)| net.to_string())
            .collect();
        assert_eq!(failed, ["11.0.0.1/32", "fd01:c::1/128"]);
    });
}

#[test]
fn purge_removes_all_that_is_ours_in_any_table_and_nothing_else() {
    in_a_namespace(|| async {
        ip("route add unreachable 10.9.0.0/16 proto static");
        ip("-6 route add unreachable fd09::/64 proto static");
        ip("route add unreachable 10.8.0.0/16 table 1000 metric 7 proto 176");
        ip("addr add 10.1.0.1/24 dev lo");
        let before: Vec<String> = [4, 6]
            .map(|v| ip(&format!("-{v} route show table all")))
            .to_vec();
        let routes = open();
        routes
            .sync(&vips(&["11.0.0.1", "fd01:c::1"]), &pools())
            .await
            .unwrap();
        let removed = purge(&routes).await;
        assert_eq!(removed.len(), 5, "{removed:?}");
        assert!(removed.contains(&"route unreachable 10.8.0.0/16 table 1000".to_owned()));
        let after: Vec<String> = [4, 6]
            .map(|v| ip(&format!("-{v} route show table all")))
            .to_vec();
        let gone = "unreachable 10.8.0.0/16 table 1000 proto 176 metric 7 \n";
        assert_eq!(after, [before[0].replace(gone, ""), before[1].clone()]);
        assert_eq!(purge(&routes).await, [""; 0]);
    });
}

#[test]
fn the_link_address_is_added_once_and_purged() {
    in_a_namespace(|| async {
        let netlink = Netlink::open().unwrap();
        let addr = "169.254.53.53".parse().unwrap();
        assert!(netlink.ensure_address(addr).await.unwrap());
        assert!(!netlink.ensure_address(addr).await.unwrap());
        let shown = ip("-4 -o addr show dev lo");
        assert!(
            shown.contains("inet 169.254.53.53/32 scope host lo:lb-agent"),
            "{shown}"
        );
        assert_eq!(
            purge_addresses(&netlink).await,
            ["address 169.254.53.53 on lo"]
        );
        assert!(!ip("-4 -o addr show").contains("169.254.53.53"));
    });
}

#[test]
fn a_link_address_that_somebody_else_made_is_used_and_left_alone() {
    in_a_namespace(|| async {
        ip("addr add 169.254.53.53/32 dev lo");
        let netlink = Netlink::open().unwrap();
        assert!(
            !netlink
                .ensure_address("169.254.53.53".parse().unwrap())
                .await
                .unwrap()
        );
        assert_eq!(purge_addresses(&netlink).await, [""; 0]);
        assert!(ip("-4 -o addr show").contains("169.254.53.53"));
    });
}

#[test]
fn a_connection_that_broke_off_is_opened_again() {
    in_a_namespace(|| async {
        let netlink = Netlink::open().unwrap();
        let routes = Routes::new(netlink.clone());
        netlink.break_off().await;
        let changes = routes.sync(&vips(&["11.0.0.1"]), &pools()).await.unwrap();
        assert_eq!((changes.added.len(), changes.failed.len()), (3, 0));
        netlink.break_off().await;
        assert!(!netlink.topology().await.unwrap().links.is_empty());
    });
}
