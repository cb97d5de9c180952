//! Neighbours of a real namespace, and news of them.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::timeout;

use super::{in_a_namespace, ip};
use crate::{
    net::{NeighbourWatch, Netlink, News},
    plan::{Neighbour, Reach},
};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x11];
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x12];

/// `eth0` and `eth1`, each one end of a veth.
fn furnish() -> [u32; 2] {
    for n in 0..2 {
        ip(&format!("link add eth{n} type veth peer name far{n}"));
        ip(&format!("link set far{n} up"));
        ip(&format!("link set eth{n} address 02:00:00:00:01:0{n} up"));
        ip(&format!("addr add 10.0.{n}.1/24 dev eth{n}"));
        ip(&format!("addr add fd00:{n}::1/64 dev eth{n} nodad"));
    }
    ["eth0", "eth1"].map(|name| {
        let shown = ip(&format!("-o link show {name}"));
        shown.split(':').next().unwrap().trim().parse().unwrap()
    })
}

fn at(ifindex: u32, addr: &str) -> Neighbour {
    Neighbour {
        ifindex,
        addr: addr.parse().unwrap(),
    }
}

async fn news(watch: &mut NeighbourWatch) -> News {
    timeout(Duration::from_secs(5), watch.news())
        .await
        .expect("news")
}

/// News until a neighbour is seen; others may come meanwhile, of addresses that the kernel made.
async fn mac_in_news(watch: &mut NeighbourWatch, neighbour: Neighbour) -> Option<[u8; 6]> {
    loop {
        if let Some(station) = news(watch).await.neighbours.get(&neighbour) {
            return station.mac;
        }
    }
}

#[test]
fn neighbours_are_told_as_they_come_change_and_go() {
    in_a_namespace(|| async {
        let [eth0, _] = furnish();
        let mut watch = NeighbourWatch::open([eth0]).unwrap();
        for addr in ["10.0.0.2", "fd00::2"] {
            let neighbour = at(eth0, addr);
            ip(&format!(
                "neigh add {addr} lladdr 02:00:00:00:00:11 dev eth0 nud reachable"
            ));
            assert_eq!(mac_in_news(&mut watch, neighbour).await, Some(MAC));
            ip(&format!(
                "neigh change {addr} lladdr 02:00:00:00:00:12 dev eth0 nud stale"
            ));
            assert_eq!(mac_in_news(&mut watch, neighbour).await, Some(OTHER_MAC));
            ip(&format!("neigh change {addr} dev eth0 nud failed"));
            assert_eq!(mac_in_news(&mut watch, neighbour).await, None);
            ip(&format!(
                "neigh change {addr} lladdr 02:00:00:00:00:11 dev eth0 nud permanent"
            ));
            assert_eq!(mac_in_news(&mut watch, neighbour).await, Some(MAC));
            ip(&format!("neigh del {addr} dev eth0"));
            assert_eq!(mac_in_news(&mut watch, neighbour).await, None);
        }
    });
}

#[test]
fn a_dump_tells_who_is_known_on_which_interface() {
    in_a_namespace(|| async {
        let [eth0, eth1] = furnish();
        ip("neigh add 10.0.0.2 lladdr 02:00:00:00:00:11 dev eth0 nud stale");
        ip("neigh add 10.0.0.2 lladdr 02:00:00:00:00:12 dev eth1 nud noarp");
        ip("neigh add fd00::2 lladdr 02:00:00:00:00:11 dev eth0 nud permanent");
        ip("neigh add proxy 10.0.0.7 dev eth0");
        let known = Netlink::open().unwrap().neighbours().await.unwrap();
        let mac = |neighbour| known.get(&neighbour).and_then(|station| station.mac);
        assert_eq!(mac(at(eth0, "10.0.0.2")), Some(MAC));
        assert_eq!(mac(at(eth1, "10.0.0.2")), Some(OTHER_MAC));
        assert_eq!(mac(at(eth0, "fd00::2")), Some(MAC));
        assert!(known[&at(eth0, "10.0.0.2")].stale && !known[&at(eth0, "fd00::2")].stale);
        assert!(!known.contains_key(&at(eth0, "10.0.0.7")));
    });
}

#[test]
fn interfaces_that_nobody_asked_about_make_no_news() {
    in_a_namespace(|| async {
        let [eth0, eth1] = furnish();
        let mut watch = NeighbourWatch::open([eth0]).unwrap();
        ip("neigh add 10.0.1.2 lladdr 02:00:00:00:00:11 dev eth1 nud permanent");
        ip("link set eth1 mtu 1400");
        ip("neigh add 10.0.0.2 lladdr 02:00:00:00:00:11 dev eth0 nud permanent");
        loop {
            let News {
                neighbours, links, ..
            } = news(&mut watch).await;
            assert!(neighbours.keys().all(|neighbour| neighbour.ifindex == eth0));
            assert!(!links.contains_key(&eth1));
            if neighbours.contains_key(&at(eth0, "10.0.0.2")) {
                break;
            }
        }
    });
}

#[test]
fn an_interfaces_own_address_mtu_and_end_are_news() {
    in_a_namespace(|| async {
        let [eth0, _] = furnish();
        let mut watch = NeighbourWatch::open([eth0]).unwrap();
        let mut port_when = async |words: &str, holds: fn(Option<crate::plan::Port>) -> bool| {
            ip(words);
            loop {
                if let Some(link) = news(&mut watch).await.links.get(&eth0)
                    && holds(link.as_ref().and_then(crate::net::Link::port))
                {
                    return;
                }
            }
        };
        port_when("link set eth0 address 02:00:00:00:00:12", |port| {
            port.is_some_and(|port| port.mac == OTHER_MAC)
        })
        .await;
        port_when("link set eth0 mtu 1400", |port| {
            port.is_some_and(|port| port.mtu == 1400)
        })
        .await;
        port_when("link set eth0 down", |port| port.is_none()).await;
        port_when("link set eth0 up", |port| port.is_some()).await;
        port_when("link del eth0", |port| port.is_none()).await;
    });
}

#[test]
fn after_an_overflow_of_the_socket_news_say_so_and_go_on() {
    in_a_namespace(|| async {
        let [eth0, _] = furnish();
        let mut watch = NeighbourWatch::open([eth0]).unwrap();
        ip("addr add 10.9.0.1/16 dev eth0");
        let add = |n: u32| {
            let (high, low) = (n / 250, n % 250);
            format!("neigh add 10.9.{high}.{low} lladdr 02:00:00:00:00:11 dev eth0 nud permanent\n")
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), (250..6_000).map(add).collect::<String>()).unwrap();
        // Blocks the only thread, so nobody reads the socket meanwhile.
        ip(&format!("-batch {}", file.path().display()));
        while !news(&mut watch).await.lost {}
        ip("neigh add 10.0.0.2 lladdr 02:00:00:00:00:11 dev eth0 nud permanent");
        assert_eq!(
            mac_in_news(&mut watch, at(eth0, "10.0.0.2")).await,
            Some(MAC)
        );
    });
}

#[test]
fn the_kernel_is_asked_for_a_neighbour_and_leaves_nothing_permanent() {
    in_a_namespace(|| async {
        let [eth0, _] = furnish();
        let netlink = Netlink::open().unwrap();
        let wanted = vec![at(eth0, "10.0.0.2"), at(eth0, "fd00::2")];
        netlink.use_neighbours(wanted).await.unwrap();
        for addr in ["10.0.0.2", "fd00::2"] {
            let shown = ip(&format!("neigh show {addr} dev eth0 nud all"));
            assert!(shown.contains("INCOMPLETE"), "{addr}: {shown}");
        }
    });
}

#[test]
fn the_next_hop_is_the_router_or_the_backend_itself() {
    in_a_namespace(|| async {
        let [eth0, eth1] = furnish();
        for words in [
            "route add 192.0.2.0/24 via 10.0.0.254",
            "-6 route add 2001:db8:1::/64 via fe80::fe dev eth1",
            "route add 198.51.100.0/24 via inet6 fe80::fe dev eth1",
            "route add 203.0.113.0/24 nexthop via 10.0.0.254 nexthop via 10.0.1.254",
            "-6 route add 2001:db8:2::/64 nexthop via fd00::fe nexthop via fd00:1::fe",
            "route add blackhole 100.64.0.0/24",
            "route add 100.64.1.0/24 via 10.0.0.253 mtu 1400",
        ] {
            ip(words);
        }
        let netlink = Netlink::open().unwrap();
        let node = netlink.topology().await.unwrap();
        let next = |node: &crate::net::Topology, addr: &str| {
            let mut asked = None;
            let ifaces = ["eth0".to_owned(), "eth1".to_owned()];
            let reach = node.reach_by(addr.parse().unwrap(), &ifaces, |neighbour| {
                asked = Some(neighbour);
                7
            });
            let known = matches!(reach, Reach::Net { next_hop: 7, .. });
            assert_eq!(known, asked.is_some(), "{addr}: {reach:?}");
            asked
        };
        let table: BTreeMap<&str, Option<Neighbour>> = [
            ("10.0.0.2", Some(at(eth0, "10.0.0.2"))),
            ("fd00:1::2", Some(at(eth1, "fd00:1::2"))),
            ("192.0.2.1", Some(at(eth0, "10.0.0.254"))),
            ("2001:db8:1::1", Some(at(eth1, "fe80::fe"))),
            ("198.51.100.1", Some(at(eth1, "fe80::fe"))),
            ("203.0.113.1", None),
            ("2001:db8:2::1", None),
            ("100.64.0.1", None),
            ("9.9.9.9", None),
        ]
        .into();
        for (addr, wanted) in table {
            assert_eq!(next(&node, addr), wanted, "{addr}");
        }
        let routers = node.routers();
        assert!(routers.contains(&at(eth0, "10.0.0.254")), "{routers:?}");
        let [mtu] = node.route_mtus()[..] else {
            panic!("{:?}", node.route_mtus())
        };
        assert_eq!(
            (mtu.neighbours.to_string(), mtu.mtu),
            ("10.0.0.253/32".to_owned(), 1400)
        );

        // A rule may send some of it elsewhere: only the kernel can say.
        ip("rule add from 10.0.0.1 lookup 100");
        let ruled = netlink.topology().await.unwrap();
        assert_ne!(ruled, node);
        assert_eq!(next(&ruled, "192.0.2.1"), None);
        assert_eq!(next(&ruled, "2001:db8:1::1"), Some(at(eth1, "fe80::fe")));
        ip("rule del from 10.0.0.1 lookup 100");
        assert_eq!(netlink.topology().await.unwrap(), node);
    });
}
