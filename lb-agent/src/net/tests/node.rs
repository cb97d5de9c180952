//! The topology of a real namespace, and the ticks when it changes.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::{Instant, timeout, timeout_at};

use super::{in_a_namespace, ip};
use crate::{
    net::{Change, LinkKind, Netlink, Routes, Topology, Watch},
    plan::Reach,
};

/// A node: uplink `eth0`, a bridge with a container's veth, a container on a veth of its own, a tunnel.
fn furnish() {
    for words in [
        "link add eth0 type veth peer name far",
        "link set far up",
        "link set eth0 address 02:00:00:00:00:01 up",
        "addr add 10.0.0.1/24 dev eth0",
        "addr add 10.0.0.9/24 dev eth0",
        "addr add fd00::1/64 dev eth0 nodad",
        "link add docker0 type bridge",
        "link set docker0 up",
        "addr add 172.17.0.1/16 dev docker0",
        "link add port type veth peer name inner",
        "link set port master docker0 up",
        "link set inner up",
        "link add cali type veth peer name cont",
        "link set cali up",
        "link set cont up",
        "route add 192.168.7.7/32 dev cali",
        "link add vx type vxlan id 5 dev eth0 dstport 4789",
        "link set vx up",
        "route add 10.244.0.0/16 dev vx",
        "route add default via 10.0.0.254",
    ] {
        ip(words);
    }
}

async fn topology() -> Topology {
    Netlink::open().unwrap().topology().await.unwrap()
}

#[test]
fn the_snapshot_tells_how_backends_of_a_real_node_are_reached() {
    in_a_namespace(|| async {
        furnish();
        let node = topology().await;
        let ifaces = ["eth0".to_owned()];
        let reach = |addr: &str| node.reach(addr.parse().unwrap(), &ifaces);
        let link = |name: &str| Reach::Link {
            ifindex: node.link(name).unwrap().index,
        };
        for own in [
            "10.0.0.1",
            "127.0.0.5",
            "172.17.0.1",
            "fd00::1",
            "::1",
            "::ffff:10.0.0.1",
        ] {
            assert_eq!(reach(own), Reach::Host, "{own}");
        }
        assert_eq!(reach("172.17.0.2"), link("docker0"));
        assert_eq!(reach("192.168.7.7"), link("cali"));
        for away in [
            "10.0.0.2",
            "fd00::2",
            "8.8.8.8",
            "10.244.1.1",
            "2001:db8::1",
        ] {
            assert!(matches!(reach(away), Reach::Net { .. }), "{away}");
        }
    });
}

#[test]
fn the_snapshot_knows_links_snat_addresses_and_connected_prefixes() {
    in_a_namespace(|| async {
        furnish();
        let node = topology().await;
        let eth0 = node.link("eth0").unwrap();
        assert_eq!((eth0.mac, eth0.up), (Some([2, 0, 0, 0, 0, 1]), true));
        assert_eq!(node.link("lo").unwrap().kind, LinkKind::Loopback);
        let docker0 = node.link("docker0").unwrap();
        assert_eq!(docker0.kind, LinkKind::Bridge);
        assert_eq!(node.link("port").unwrap().master, Some(docker0.index));
        assert_eq!(node.link("vx").unwrap().kind, LinkKind::Other);
        let first = (Some([10, 0, 0, 1].into()), Some("fd00::1".parse().unwrap()));
        assert_eq!(node.snat("eth0"), first);
        assert_eq!(node.snat("nowhere"), (None, None));
        let connected: Vec<String> = node.connected().iter().map(ToString::to_string).collect();
        for net in [
            "10.0.0.0/24",
            "172.17.0.0/16",
            "192.168.7.7/32",
            "fd00::/64",
        ] {
            assert!(
                connected.iter().any(|known| known == net),
                "{net} in {connected:?}"
            );
        }
        assert!(
            !connected
                .iter()
                .any(|net| net == "0.0.0.0/0" || net.starts_with("ff"))
        );
    });
}

#[test]
fn routes_that_we_add_neither_tick_nor_change_the_snapshot() {
    in_a_namespace(|| async {
        let before = topology().await;
        let mut watch = Watch::open().unwrap();
        let routes = Routes::new(Netlink::open().unwrap());
        let vips = BTreeSet::from(["11.0.0.1".parse().unwrap(), "fd01:c::1".parse().unwrap()]);
        routes
            .sync(&vips, &["11.0.0.0/8".parse().unwrap()])
            .await
            .unwrap();
        assert_eq!(topology().await, before);
        let tick = timeout(Duration::from_millis(300), watch.changed()).await;
        assert!(tick.is_err(), "ticked for our own routes");
    });
}

async fn tick(watch: &mut Watch) -> Change {
    timeout(Duration::from_secs(10), watch.changed())
        .await
        .expect("a tick")
}

#[test]
fn a_route_of_ours_that_somebody_removes_ticks() {
    in_a_namespace(|| async {
        let routes = Routes::new(Netlink::open().unwrap());
        let (vips, pools) = (
            BTreeSet::from(["11.0.0.1".parse().unwrap()]),
            ["11.0.0.0/8".parse().unwrap()],
        );
        routes.sync(&vips, &pools).await.unwrap();
        let mut watch = Watch::open().unwrap();
        ip("route del unreachable 11.0.0.0/8 metric 2147483647");
        assert_eq!(tick(&mut watch).await, Change::Anything);
        ip("addr add 10.3.0.1/24 dev lo");
        assert_eq!(tick(&mut watch).await, Change::Theirs);
        ip("route del local 11.0.0.1/32 table local");
        assert_eq!(tick(&mut watch).await, Change::Anything);
        let changes = routes.sync(&vips, &pools).await.unwrap();
        assert_eq!(changes.added.len(), 2, "{changes:?}");
    });
}

#[test]
fn a_watch_whose_socket_fails_ticks_and_goes_on_with_another() {
    in_a_namespace(|| async {
        let mut watch = Watch::open().unwrap();
        watch.carrier.abort();
        assert_eq!(tick(&mut watch).await, Change::Anything);
        ip("addr add 10.3.0.1/24 dev lo");
        assert_eq!(tick(&mut watch).await, Change::Theirs);
    });
}

#[test]
fn a_burst_of_changes_is_one_tick() {
    in_a_namespace(|| async {
        let mut watch = Watch::open().unwrap();
        for n in 1..20 {
            ip(&format!("addr add 10.3.0.{n}/24 dev lo"));
        }
        timeout(Duration::from_secs(5), watch.changed())
            .await
            .expect("a tick");
        let more = timeout(Duration::from_millis(200), watch.changed()).await;
        assert!(more.is_err(), "a second tick");
    });
}

#[test]
fn a_tick_is_not_lost_when_the_wait_is_cut_short() {
    in_a_namespace(|| async {
        let mut watch = Watch::open().unwrap();
        ip("link set lo down");
        // Long enough to read the message, too short for quiet.
        let cut = timeout(Duration::from_millis(10), watch.changed()).await;
        assert!(cut.is_err());
        timeout(Duration::from_secs(5), watch.changed())
            .await
            .expect("the tick");
    });
}

#[test]
fn after_an_overflow_of_the_socket_it_ticks_and_goes_on_watching() {
    in_a_namespace(|| async {
        let mut watch = Watch::open().unwrap();
        let batch: String = (0..6000)
            .map(|n| format!("route add unreachable 10.{}.{}.0/24\n", n / 250, n % 250))
            .collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), batch).unwrap();
        // Blocks the only thread, so nobody reads the socket meanwhile.
        ip(&format!("-batch {}", file.path().display()));
        assert!(lost_messages() > 0, "the socket did not overflow");
        assert_eq!(tick(&mut watch).await, Change::Anything);
        while timeout(Duration::from_millis(200), watch.changed())
            .await
            .is_ok()
        {}
        ip("addr add 10.200.0.1/24 dev lo");
        let deadline = Instant::now() + Duration::from_secs(5);
        timeout_at(deadline, watch.changed())
            .await
            .expect("a tick after the overflow");
        assert!(
            topology()
                .await
                .own_addresses()
                .contains(&"10.200.0.1".parse().unwrap())
        );
    });
}

/// Messages that the kernel had to drop for the namespace's netlink sockets.
fn lost_messages() -> u64 {
    let sockets = std::fs::read_to_string("/proc/thread-self/net/netlink").unwrap();
    let drops = |line: &str| {
        line.split_whitespace()
            .nth(8)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    assert!(sockets.lines().next().unwrap().contains("Locks"));
    sockets.lines().skip(1).map(drops).sum()
}
