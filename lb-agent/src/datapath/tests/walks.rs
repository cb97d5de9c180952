//! What is done with the flows of the tables.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use aya::maps::{Array, HashMap, Map};
use lb_common::{
    Addr4, Backend, Be16, Flow, FlowKey, ServiceState, backend_kind, direction, headers::TCP,
    tcp_state,
};

use super::*;
use crate::plan::Endpoint;

impl Node {
    /// A table of flows.
    fn flows(&self, map: &str) -> HashMap<MapData, FlowKey<Addr4>, Flow<Addr4>> {
        let map = MapData::from_pin(self.pins.join("v1").join(map)).unwrap();
        HashMap::try_from(Map::LruHashMap(map)).unwrap()
    }
}

/// The tuple of a client's packets from this port.
fn from(port: u16) -> FlowKey<Addr4> {
    FlowKey {
        sport: Be16::new(port),
        ..FlowKey::default()
    }
}

#[test]
fn flows_of_one_backend_in_one_service_are_told_to_end_and_are_not_counted_any_more() {
    let node = Node::new("reset");
    let datapath = node.load(&[], TcMode::Tcx, XdpMode::Off);
    let mut tables = datapath.flow_tables().unwrap();
    let [loads, states] = ["LB_LOADS", "LB_SERVICE_STATES"]
        .map(|map| MapData::from_pin(node.pins.join("v1").join(map)).unwrap())
        .map(Map::Array);
    let mut loads = Array::<_, u64>::try_from(loads).unwrap();
    let mut states = Array::<_, ServiceState>::try_from(states).unwrap();
    loads.set(3, 9, 0).unwrap();
    let state = ServiceState {
        flows: 4,
        turn: 5,
        ..ServiceState::default()
    };
    states.set(6, state, 0).unwrap();
    let flow = |backend, service| Flow::<Addr4> {
        backend,
        generation: 2,
        service,
        idle: 60,
        last_seen: flows::now(),
        ..Flow::default()
    };
    let reply = Flow {
        direction: direction::REVERSE,
        ..flow(3, 6)
    };
    let closed = Flow {
        tcp: tcp_state::FIN,
        ..flow(3, 6)
    };
    for (map, port, flow) in [
        ("LB_FLOWS_TCP4", 1, flow(3, 6)),
        ("LB_FLOWS_TCP4", 2, reply),
        ("LB_FLOWS_TCP4", 3, closed),
        ("LB_FLOWS_TCP4", 4, flow(3, 7)),
        ("LB_FLOWS_TCP4", 5, flow(4, 6)),
        ("LB_FLOWS_HALF4", 1, flow(3, 6)),
        ("LB_FLOWS_UDP4", 1, flow(3, 6)),
        ("LB_FLOWS_UDP4", 2, flow(3, 7)),
    ] {
        node.flows(map).insert(from(port), flow, 0).unwrap();
    }
    let meant = [flows::Pair {
        service: 6,
        backend: 3,
    }];
    assert_eq!(tables.reset(&meant.into()).unwrap(), 3);
    let generations = |map| {
        let map = node.flows(map);
        let flows = (1..=5).map(|port| map.get(&from(port), 0).ok());
        flows.map(|flow| Some(flow?.generation)).collect::<Vec<_>>()
    };
    let (gone, goes_on) = (Some(0), Some(2));
    assert_eq!(
        generations("LB_FLOWS_TCP4"),
        [gone, gone, gone, goes_on, goes_on]
    );
    assert_eq!(generations("LB_FLOWS_HALF4")[0], gone);
    // The next datagram gets a choice anew.
    assert_eq!(generations("LB_FLOWS_UDP4")[..2], [None, goes_on]);
    assert_eq!(loads.get(&3, 0).unwrap(), 6);
    let state = states.get(&6, 0).unwrap();
    assert_eq!((state.flows, state.turn), (1, 5));
    // Once is enough, and an entry stays for as long as the flow may be silent.
    assert_eq!(tables.reset(&meant.into()).unwrap(), 0);
    assert_eq!(loads.get(&3, 0).unwrap(), 6);
    assert_eq!(tables.collect(Arc::default()).unwrap().removed, 0);
}

#[test]
fn flows_that_are_over_are_collected_and_live_ones_counted() {
    let node = Node::new("collect");
    let datapath = node.load(&[], TcMode::Tcx, XdpMode::Off);
    let mut tables = datapath.flow_tables().unwrap();
    let now = flows::now();
    let put = |map: &str, port: u16, flow: Flow<Addr4>| {
        node.flows(map).insert(from(port), flow, 0).unwrap();
    };
    let loads = ["LB_LOADS", "LB_SERVICE_STATES", "LB_BACKENDS"]
        .map(|map| MapData::from_pin(node.pins.join("v1").join(map)).unwrap())
        .map(Map::Array);
    let [loads, states, backends] = loads;
    let mut loads = Array::<_, u64>::try_from(loads).unwrap();
    let mut states = Array::<_, ServiceState>::try_from(states).unwrap();
    let mut backends = Array::<_, Backend>::try_from(backends).unwrap();
    let backend = Backend {
        generation: 2,
        ..Backend::default()
    };
    backends.set(3, backend, 0).unwrap();
    // Somebody who is gone, and one whose flows were evicted.
    loads.set(3, 500, 0).unwrap();
    loads.set(4, 7, 0).unwrap();
    let state = ServiceState {
        flows: 9,
        turn: 5,
        ..ServiceState::default()
    };
    states.set(6, state, 0).unwrap();
    let flow = |idle, age: u64| Flow::<Addr4> {
        backend: 3,
        generation: 2,
        service: 6,
        idle,
        last_seen: now - age * 1_000_000_000,
        ..Flow::default()
    };
    for port in 0..200 {
        put("LB_FLOWS_TCP4", port, flow(60, 0));
        put("LB_FLOWS_TCP4", 1_000 + port, flow(1, 5));
    }
    put("LB_FLOWS_UDP4", 1, flow(60, 59));
    put("LB_FLOWS_UDP4", 2, flow(60, 61));
    put("LB_FLOWS_HALF4", 1, flow(7_440, 200));
    let closed = Flow {
        tcp: tcp_state::FIN,
        ..flow(60, 0)
    };
    put("LB_FLOWS_TCP4", 5_000, closed);
    let of_another = Flow {
        generation: 1,
        ..flow(60, 0)
    };
    put("LB_FLOWS_TCP4", 5_001, of_another);
    // The source ports of full NAT, also where nobody can send any more.
    let port = |flow| Flow {
        direction: direction::REVERSE,
        kind: backend_kind::NET,
        ..flow
    };
    put("LB_FLOWS_TCP4", 6_000, port(closed));
    put("LB_FLOWS_TCP4", 6_001, port(of_another));
    put("LB_FLOWS_HALF4", 6_000, port(flow(7_440, 1)));
    put("LB_FLOWS_HALF4", 6_001, port(flow(7_440, 200)));

    let census = tables.collect(Arc::default()).unwrap();
    assert_eq!(census.removed, 203);
    assert_eq!(census.ports, [(3, 3)].into());
    assert_eq!(census.active, [(3, 201)].into());
    assert_eq!(census.services, [(6, 201)].into());
    let counted = (loads.get(&3, 0).unwrap(), loads.get(&4, 0).unwrap());
    assert_eq!(counted, (201, 0));
    let state = states.get(&6, 0).unwrap();
    assert_eq!((state.flows, state.turn), (201, 5));
    let used: Vec<_> = census.tables.iter().map(|fill| fill.used).collect();
    let (flows, others) = used.split_at(6);
    assert_eq!(flows, [204, 1, 1, 0, 0, 0]);
    assert!(others.iter().all(|used| *used == 0), "{others:?}");
    assert_eq!(census.tables[0].room, 1024);
    assert_eq!(tables.collect(Arc::default()).unwrap().removed, 0);
}

#[test]
fn a_walk_finds_which_places_have_flows_and_asks_only_after_clients() {
    let node = Node::new("vips");
    let datapath = node.load(&[], TcMode::Tcx, XdpMode::Off);
    let mut tables = datapath.flow_tables().unwrap();
    let at = |vip: &str| FlowKey {
        dst: Addr4::from(vip.parse::<Ipv4Addr>().unwrap()),
        dport: Be16::new(80),
        proto: u32::from(TCP),
        ..from(1)
    };
    // The backend of each is gone: its client's next packet must still come here.
    let flow = Flow::<Addr4> {
        idle: 60,
        last_seen: flows::now(),
        ..Flow::default()
    };
    let over = Flow {
        last_seen: flows::now() - 61_000_000_000,
        ..flow
    };
    let reply = Flow {
        direction: direction::REVERSE,
        ..flow
    };
    for (map, vip, flow) in [
        ("LB_FLOWS_TCP4", "10.1.0.1", flow),
        ("LB_FLOWS_UDP4", "10.1.0.2", flow),
        ("LB_FLOWS_HALF4", "10.1.0.3", flow),
        ("LB_FLOWS_TCP4", "10.1.0.4", over),
        ("LB_FLOWS_TCP4", "10.1.0.5", reply),
        ("LB_FLOWS_TCP4", "10.1.0.6", flow),
    ] {
        node.flows(map).insert(at(vip), flow, 0).unwrap();
    }
    let vip = |number: &u8| IpAddr::from([10, 1, 0, *number]);
    let port = |(number, port): &(u8, u16)| Endpoint {
        addr: vip(number),
        port: *port,
        proto: TCP,
    };
    let places = |vips: &[u8], ports: &[(u8, u16)]| flows::Places {
        vips: vips.iter().map(vip).collect(),
        at_node: ports.iter().map(port).collect(),
    };
    let asked = Arc::new(places(&[1, 2, 3, 4, 5], &[(6, 80), (6, 81), (7, 80)]));
    let census = tables.collect(Arc::clone(&asked)).unwrap();
    assert_eq!(census.with_flows, places(&[1, 2, 3], &[(6, 80)]));
    assert!(Arc::ptr_eq(&census.asked, &asked));
}
