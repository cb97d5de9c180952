//! What somebody else takes away from under the agent is put back, and open connections do not notice.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
};

use aya::{
    Pod,
    maps::{HashMap, Map, MapData},
};
use lb_common::{Addr4, Service, ServiceKey};
use lb_tests::{
    admin::page,
    lab::{Finished, Host, wait_until},
    stage::{PATIENCE, Stage, connect},
};

const SERVICES: &str = "services:
- {address: 10.99.0.1, port: 80, backends: [10.77.0.11:80]}
";
const VIP: &str = "10.99.0.1:80";

fn map<K: Pod, V: Pod>(host: &Host, name: &str) -> HashMap<MapData, K, V> {
    let pinned = MapData::from_pin(host.pins().join("v1").join(name)).expect("a pinned map");
    HashMap::try_from(Map::HashMap(pinned)).expect("a hash map")
}

fn keys<K: Pod, V: Pod>(map: &HashMap<MapData, K, V>) -> Vec<K> {
    map.keys().collect::<Result<_, _>>().expect("its keys")
}

/// Takes everything out of a map; how much that was.
fn empty<K: Pod, V: Pod>(host: &Host, name: &str) -> usize {
    let mut map = map::<K, V>(host, name);
    let keys = keys(&map);
    for key in &keys {
        map.remove(key).expect("removed");
    }
    keys.len()
}

/// How many entries the agent found missing and put back.
fn mended(stage: &Stage) -> u64 {
    let metrics = page(stage, "/v1/metrics/l4lb");
    let of_tables = |line: &str| {
        let number = line
            .strip_prefix("reconciled_ipvs_rules_total ")
            .or_else(|| line.strip_prefix("reconciled_ipset_entries_total "));
        number.and_then(|number| number.parse::<u64>().ok())
    };
    metrics.lines().filter_map(of_tables).sum()
}

fn compare(stage: &Stage) {
    let done = stage.run(&["resync"]);
    assert!(done.status.success(), "{}", done.stderr);
}

fn echoes(mut stream: &TcpStream) -> bool {
    let mut echoed = [0; 4];
    stream.write_all(b"ping").is_ok() && stream.read_exact(&mut echoed).is_ok()
}

/// Runs `ip route` with these words about the route that makes the VIP the node's own.
fn route(stage: &Stage, words: &[&str]) -> String {
    let argv = [&["ip", "route"], words, &["10.99.0.1", "table", "local"]].concat();
    let ip = stage.node.run(&argv).and_then(Finished::ok);
    ip.expect("ip")
}

#[test]
fn what_somebody_takes_away_is_put_back_and_connections_go_on() {
    let stage = Stage::up(SERVICES, &[]);
    let client = &stage.clients[0];
    let (open, _) = connect(client, VIP).expect("a connection");

    let before = mended(&stage);
    assert_eq!(
        empty::<ServiceKey<Addr4>, Service>(&stage.node, "LB_SERVICES4"),
        1
    );
    let refused = connect(client, VIP).expect_err("no service is known");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(echoes(&open), "a flow that is open needs none");
    compare(&stage);
    let back = || connect(client, VIP).is_ok();
    wait_until("the service is back", PATIENCE, back).expect("it is");
    let counted = || mended(&stage) > before;
    wait_until("it is counted", PATIENCE, counted).expect("it is");

    let before = mended(&stage);
    let addresses = || keys(&map::<Addr4, u32>(&stage.node, "LB_ADDRS4")).len();
    let all = addresses();
    assert_eq!(empty::<Addr4, u32>(&stage.node, "LB_ADDRS4"), all);
    compare(&stage);
    wait_until("the addresses are back", PATIENCE, || addresses() == all).expect("they are");
    let counted = || mended(&stage) > before;
    wait_until("they are counted", PATIENCE, counted).expect("they are");

    assert!(route(&stage, &["show"]).contains("10.99.0.1"));
    route(&stage, &["del", "local"]);
    compare(&stage);
    let back = || route(&stage, &["show"]).contains("10.99.0.1");
    wait_until("the route is back", PATIENCE, back).expect("it is");

    assert!(echoes(&open));
    connect(client, VIP).expect("a new one");
}
