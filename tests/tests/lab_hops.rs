//! Next hops follow what the network does: backends and routers move, and flows under way go on.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    net::SocketAddr,
    time::Duration,
};

use aya::maps::{Array, HashMap, Map, MapData};
use lb_common::{Neighbour, NextHop, NodeConfig};
use lb_tests::{
    asking::{Download, ask, expect_all},
    fixed::{BOX, Fixed, HOST, WORKER1},
    lab::{Host, exec::ip_batch, programs::agent, wait_until},
    topology::{MASTER, WORKER3, Wishes},
};
use serde_json::Value;

const WORKER2: usize = 2;
/// At a million bytes a second: longer than any of the changes takes.
const BYTES: u64 = 6_000_000;
const SOON: Duration = Duration::from_secs(10);
const NEW_MAC: [u8; 6] = [0x02, 0, 0, 0, 0x77, 0x11];

fn fixed() -> Fixed {
    let wishes = Wishes {
        client_via: MASTER,
        ..Wishes::default()
    };
    Fixed::up(wishes).expect("a topology")
}

fn vips(fixed: &Fixed, service: (&str, u16)) -> Vec<SocketAddr> {
    let both = [false, true].iter();
    both.map(|&ipv6| fixed.vip(service, ipv6).expect("a VIP"))
        .collect()
}

fn family(vip: &SocketAddr) -> &'static [&'static str] {
    if vip.is_ipv6() { &["--ipv6"] } else { &[] }
}

fn downloads(fixed: &Fixed, vips: &[SocketAddr]) -> Vec<Download> {
    let client = &fixed.topology.client;
    vips.iter()
        .map(|vip| Download::start(client, *vip, BYTES).expect("a download"))
        .collect()
}

/// They were under way all the time, and complete; new connections work as well.
fn all_went_on(fixed: &Fixed, vips: &[SocketAddr], under_way: Vec<Download>) {
    for mut download in under_way {
        assert!(download.goes_on(), "it ended too early: make it longer");
        download.finish().expect("the download completes");
    }
    for vip in vips {
        let outcome =
            ask(&fixed.topology.client, &vip.to_string(), 20, family(vip)).expect("probe");
        expect_all(&outcome, *vip, None).expect("new connections work");
    }
}

fn pinned(host: &Host, name: &str) -> MapData {
    MapData::from_pin(host.pins().join("v1").join(name)).expect("a pinned map")
}

/// The entries of the array that lead anywhere.
fn array(host: &Host) -> BTreeMap<u32, NextHop> {
    let map = Map::Array(pinned(host, "LB_NEXT_HOPS"));
    let map = Array::<_, NextHop>::try_from(map).expect("an array");
    (1..map.len())
        .map(|index| (index, map.get(&index, 0).expect("an entry")))
        .filter(|(_, hop)| hop.ifindex != 0)
        .collect()
}

fn leads_to(host: &Host, mac: [u8; 6]) -> bool {
    let bytes = |half: u16| half.to_ne_bytes();
    array(host)
        .values()
        .any(|hop| hop.to.map(bytes).concat() == mac)
}

/// Which neighbour has which index.
fn names(host: &Host) -> HashSet<(Neighbour, u32)> {
    let map = Map::HashMap(pinned(host, "LB_NEIGHBOURS"));
    let map = HashMap::<_, Neighbour, u32>::try_from(map).expect("a map");
    map.iter().map(|entry| entry.expect("an entry")).collect()
}

fn mac(host: &Host) -> [u8; 6] {
    let shown = host
        .run(&["ip", "-o", "link", "show", "eth0"])
        .and_then(lb_tests::lab::Finished::ok)
        .expect("ip link");
    let text = shown.split("link/ether ").nth(1).expect("a MAC address");
    let bytes: Vec<u8> = text[..17]
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).expect("hex"))
        .collect();
    bytes.try_into().expect("six bytes")
}

/// Packets that a host forwarded, of one family.
fn forwarded(host: &Host, ipv6: bool) -> u64 {
    let read = || {
        if ipv6 {
            let text = fs::read_to_string("/proc/thread-self/net/snmp6")?;
            let line = text
                .lines()
                .find(|line| line.starts_with("Ip6OutForwDatagrams"));
            return Ok(line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()));
        }
        let text = fs::read_to_string("/proc/thread-self/net/snmp")?;
        let mut lines = text.lines().filter(|line| line.starts_with("Ip:"));
        let (names, values) = (lines.next(), lines.next());
        let at = names.and_then(|names| names.split(' ').position(|name| name == "ForwDatagrams"));
        let value = values.and_then(|values| values.split(' ').nth(at?));
        std::io::Result::Ok(value.and_then(|value| value.parse().ok()))
    };
    let count: std::io::Result<Option<u64>> = host.enter(read).expect("enter");
    count.expect("/proc").expect("a count")
}

/// A reason's count as the agent shows it.
fn counted(report: &Value, reason: &str) -> u64 {
    let drops = report["datapath"]["drops"].as_array().expect("drops");
    let entry = drops.iter().find(|drop| drop["reason"] == reason);
    entry.map_or(0, |drop| drop["packets"].as_u64().expect("a count"))
}

/// What `lb-agent status` says once it knows all that happened up to now: a packet that is counted comes
/// last.
fn status(fixed: &Fixed) -> Value {
    let master = fixed.topology.master();
    let run_dir = master.dir().join("run").display().to_string();
    let argv = [
        &agent().expect("an agent"),
        "--run-dir",
        &run_dir,
        "status",
        "--json",
    ];
    let read = || -> Value {
        let text = master
            .run(&argv)
            .and_then(lb_tests::lab::Finished::ok)
            .expect("status");
        serde_json::from_str(&text).expect("JSON")
    };
    let before = counted(&read(), "no_service");
    let vip = fixed.vip(HOST, false).expect("a VIP").ip();
    ask(&fixed.topology.client, &format!("{vip}:9"), 1, &[]).expect("probe");
    let mut report = Value::Null;
    wait_until("the counters are read anew", SOON, || {
        report = read();
        counted(&report, "no_service") > before
    })
    .expect("counted");
    report
}

fn on_master(fixed: &Fixed, commands: &str) {
    ip_batch(fixed.topology.master().netns().name(), commands).expect("ip");
}

#[test]
fn full_nat_goes_on_when_the_backends_mac_address_changes() {
    let fixed = fixed();
    let (master, worker1) = (fixed.topology.master(), &fixed.topology.nodes[WORKER1]);
    // Who changes the address announces it, as a hypervisor or a failover daemon does.
    worker1
        .netns()
        .sysctl(&[
            ("net/ipv4/conf/eth0/arp_notify", "1"),
            ("net/ipv6/conf/eth0/ndisc_notify", "1"),
        ])
        .expect("sysctl");
    let vips = vips(&fixed, HOST);
    let under_way = downloads(&fixed, &vips);
    let old_mac = mac(worker1);
    assert!(leads_to(master, old_mac) && !leads_to(master, NEW_MAC));
    let changed = ["ip", "link", "set", "eth0", "address", "02:00:00:00:77:11"];
    worker1
        .run(&changed)
        .and_then(lb_tests::lab::Finished::ok)
        .expect("ip link");
    wait_until("the array has the new address alone", SOON, || {
        leads_to(master, NEW_MAC) && !leads_to(master, old_mac)
    })
    .expect("followed");
    all_went_on(&fixed, &vips, under_way);
}

#[test]
fn full_nat_goes_on_when_the_router_to_the_backend_changes() {
    let fixed = fixed();
    let vips = vips(&fixed, BOX);
    let under_way = downloads(&fixed, &vips);
    let other = &fixed.topology.nodes[WORKER2];
    let before = [false, true].map(|ipv6| forwarded(other, ipv6));
    on_master(
        &fixed,
        "route replace 172.31.3.0/24 via 10.77.0.12\nroute replace fd78:3::/64 via fd77::12\n",
    );
    wait_until("packets take the other router", SOON, || {
        [false, true].map(|ipv6| forwarded(other, ipv6) > before[usize::from(ipv6)] + 20)
            == [true; 2]
    })
    .expect("they do");
    assert!(leads_to(fixed.topology.master(), mac(other)));
    all_went_on(&fixed, &vips, under_way);
}

#[test]
fn replies_follow_when_the_route_to_the_client_changes() {
    let fixed = fixed();
    let vips = vips(&fixed, HOST);
    let under_way = downloads(&fixed, &vips);
    let other = &fixed.topology.nodes[WORKER2];
    // The VIP is an address of that node as well; a plain router would not mind such a source.
    let accept = [("net/ipv4/conf/eth0/accept_local", "1")];
    other.netns().sysctl(&accept).expect("sysctl");
    let before = [false, true].map(|ipv6| forwarded(other, ipv6));
    on_master(
        &fixed,
        "route add 10.77.0.100/32 via 10.77.0.12\nroute add fd77::100/128 via fd77::12\n",
    );
    wait_until("replies take the detour", SOON, || {
        [false, true].map(|ipv6| forwarded(other, ipv6) > before[usize::from(ipv6)] + 100)
            == [true; 2]
    })
    .expect("they do");
    all_went_on(&fixed, &vips, under_way);
}

/// Bytes that came to the client by its second interface: packets of one flow may come joined.
fn received(client: &Host) -> u64 {
    let read = || fs::read_to_string("/proc/thread-self/net/dev");
    let links = client.enter(read).expect("its namespace").expect("links");
    let line = links
        .lines()
        .find_map(|line| line.trim().strip_prefix("eth1:"));
    let bytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    bytes.expect("bytes")
}

#[test]
fn replies_leave_by_another_interface_than_the_client_came_by_where_the_route_says_so() {
    let wishes = Wishes {
        client_via: WORKER3,
        ..Wishes::default()
    };
    let fixed = Fixed::up(wishes).expect("a topology");
    let (node, client) = (&fixed.topology.nodes[WORKER3], &fixed.topology.client);
    // To a host elsewhere by full NAT, and to a container of the node.
    let vips: Vec<SocketAddr> = [vips(&fixed, HOST), vips(&fixed, BOX)].concat();
    let under_way = downloads(&fixed, &vips);
    let other_end = client.netns().name();
    ip_batch(
        node.netns().name(),
        &format!(
            "link add eth1 type veth peer name eth1 netns {other_end}\nlink set eth1 up\n\
             addr add 10.78.0.1/24 dev eth1\naddr add fd78::1/64 dev eth1 nodad\n"
        ),
    )
    .expect("ip");
    ip_batch(
        other_end,
        "link set eth1 up\naddr add 10.78.0.2/24 dev eth1\naddr add fd78::2/64 dev eth1 nodad\n",
    )
    .expect("ip");
    let before = received(client);
    ip_batch(
        node.netns().name(),
        "route add 10.77.0.100/32 via 10.78.0.2\nroute add fd77::100/128 via fd78::2\n",
    )
    .expect("ip");
    wait_until("replies come by the other link", SOON, || {
        received(client) > before + 1_000_000
    })
    .expect("they do");
    all_went_on(&fixed, &vips, under_way);
    for vip in &vips {
        let before = received(client);
        let outcome = ask(client, &vip.to_string(), 20, family(vip)).expect("probe");
        expect_all(&outcome, *vip, None).expect("answers");
        // SYN-ACK, answer and FIN of each.
        let came = received(client) - before;
        assert!(came >= 20 * 3 * 54, "{came} bytes from {vip}");
    }
}

#[test]
fn in_steady_state_no_packet_of_full_nat_takes_the_slow_path() {
    let fixed = fixed();
    let vips: Vec<SocketAddr> = [vips(&fixed, HOST), vips(&fixed, BOX)].concat();
    let ask_all = |count| {
        for vip in &vips {
            for mode in ["tcp", "udp"] {
                let flags = [family(vip), &["--mode", mode]].concat();
                let outcome =
                    ask(&fixed.topology.client, &vip.to_string(), count, &flags).expect("probe");
                expect_all(&outcome, *vip, None).expect("answers");
            }
        }
    };
    ask_all(5);
    let before = counted(&status(&fixed), "to_slow_path");
    ask_all(200);
    assert_eq!(counted(&status(&fixed), "to_slow_path"), before);
}

#[test]
fn a_restarted_agent_keeps_every_index_and_flows_find_their_clients_anew() {
    let mut fixed = fixed();
    let vips = vips(&fixed, HOST);
    let under_way = downloads(&fixed, &vips);
    let epoch = |fixed: &Fixed| {
        let map = Map::Array(pinned(fixed.topology.master(), "LB_NODE"));
        let map = Array::<_, NodeConfig>::try_from(map).expect("an array");
        map.get(&0, 0).expect("settings").route_epoch
    };
    let (old_names, old_epoch) = (names(fixed.topology.master()), epoch(&fixed));
    let old_array = array(fixed.topology.master());
    assert!(!old_names.is_empty() && !old_array.is_empty());
    fixed.topology.kill_agent(MASTER).expect("killed");
    fixed.topology.start_agent(MASTER).expect("started");
    fixed.topology.agent_answers(MASTER).expect("it is back");
    let new_names = names(fixed.topology.master());
    assert!(
        new_names.is_superset(&old_names),
        "{old_names:?} {new_names:?}"
    );
    assert_ne!(epoch(&fixed), old_epoch);
    let new_array = array(fixed.topology.master());
    for (index, hop) in old_array {
        assert_eq!(new_array.get(&index), Some(&hop));
    }
    all_went_on(&fixed, &vips, under_way);
}
