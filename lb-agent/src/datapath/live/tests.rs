//! Flows that are put into real maps are shown as lines. They need root.

use std::path::PathBuf;

use aya::maps::{Map, MapData};

use super::*;
use crate::{
    datapath::{Datapath, DatapathConfig, Sizes, TcMode, XdpMode, purge},
    look::FlowState,
    purged::Purged,
};

/// Pinned tables of one test, gone with it.
struct Pins(PathBuf);

impl Pins {
    fn new(test: &str) -> Self {
        let name = format!("lb-live-{}-{test}", std::process::id());
        Self(PathBuf::from("/sys/fs/bpf").join(name))
    }

    fn datapath(&self) -> Datapath {
        Datapath::load(DatapathConfig {
            pin_dir: self.0.clone(),
            cgroup: PathBuf::new(),
            interfaces: Vec::new(),
            xdp_mode: XdpMode::Off,
            tc_mode: TcMode::Tcx,
            tx_by_redirect: true,
            new_flows: 0,
            sizes: Sizes {
                tcp_flows: 8192,
                half_open_flows: 1024,
                udp_flows: 1024,
                backends: 16,
                services: 16,
                addresses: 16,
                sockets: 1024,
            },
        })
        .unwrap()
    }

    fn put<A: Known>(&self, map: &str, key: FlowKey<A>, flow: Flow<A>)
    where
        FlowKey<A>: Pod,
        Flow<A>: Pod,
    {
        let map = MapData::from_pin(self.0.join("v1").join(map)).unwrap();
        let map = aya::maps::HashMap::try_from(Map::LruHashMap(map));
        let mut map: aya::maps::HashMap<_, FlowKey<A>, Flow<A>> = map.unwrap();
        map.insert(key, flow, 0).unwrap();
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        purge(&self.0, &mut Purged::default());
    }
}

fn addr4(text: &str) -> Addr4 {
    Addr4::from(text.parse::<Ipv4Addr>().unwrap())
}

/// A client's half by full NAT from 192.0.2.7:PORT to 11.0.0.1:80, carried to 10.0.0.1:8080.
fn nat(port: u16, age: u64) -> (FlowKey<Addr4>, Flow<Addr4>) {
    let key = FlowKey {
        src: addr4("192.0.2.7"),
        dst: addr4("11.0.0.1"),
        sport: Be16::new(port),
        dport: Be16::new(80),
        proto: 6,
    };
    let flow = Flow {
        new_src: addr4("10.0.0.250"),
        new_dst: addr4("10.0.0.1"),
        new_sport: Be16::new(61_000),
        new_dport: Be16::new(8080),
        idle: 600,
        last_seen: now() - age * 1_000_000_000,
        opened: ((now() / 1_000_000) as u32).wrapping_sub(700_500),
        ..Flow::default()
    };
    (key, flow)
}

fn lines(found: &FlowsReport) -> Vec<String> {
    let line = |flow: &FlowReport| {
        let backend = flow.backend.map_or("gone".to_owned(), |at| at.to_string());
        format!(
            "{} {} {} {backend} {} {} {}",
            flow.protocol, flow.client, flow.vip, flow.how, flow.state, flow.idle_s
        )
    };
    found.flows.iter().map(line).collect()
}

#[test]
fn both_halves_of_a_flow_are_one_line_and_one_half_is_enough() {
    let pins = Pins::new("halves");
    let datapath = pins.datapath();
    let tables = datapath.flow_tables().unwrap();
    let (key, flow) = nat(40_000, 5);
    pins.put("LB_FLOWS_TCP4", key, flow);
    pins.put("LB_FLOWS_TCP4", flow.pair_key(6), flow.pair(&key));
    // The client's half was evicted.
    let (key, flow) = nat(40_001, 70);
    let flow = Flow {
        new_sport: Be16::new(61_001),
        tcp: tcp_state::FIN,
        ..flow
    };
    pins.put("LB_FLOWS_TCP4", flow.pair_key(6), flow.pair(&key));
    // Half-open, to this node itself; and one that is over.
    let (key, flow) = nat(40_002, 1);
    let host = Flow {
        kind: backend_kind::HOST,
        new_src: key.src,
        new_sport: key.sport,
        ..flow
    };
    pins.put("LB_FLOWS_HALF4", key, host);
    let (key, flow) = nat(40_003, 601);
    pins.put("LB_FLOWS_TCP4", key, flow);
    // Direct server return over IPv6 to backend 3, and to one whose id was given away.
    let addr = |text: &str| Addr6::from(text.parse::<Ipv6Addr>().unwrap());
    for (port, generation) in [(50_000, 2), (50_001, 1)] {
        let key = FlowKey {
            src: addr("2001:db8::7"),
            dst: addr("fd01:c::1"),
            sport: Be16::new(port),
            dport: Be16::new(53),
            proto: 17,
        };
        let flow = Flow {
            kind: backend_kind::L2,
            backend: 3,
            generation,
            idle: 60,
            last_seen: now() - 2_000_000_000,
            ..Flow::default()
        };
        pins.put("LB_FLOWS_UDP6", key, flow);
    }
    let backends = MapData::from_pin(pins.0.join("v1/LB_BACKENDS")).unwrap();
    let mut backends = aya::maps::Array::<_, Backend>::try_from(Map::Array(backends)).unwrap();
    let backend = Backend {
        addr: addr("fd00::3"),
        port: Be16::new(53),
        proto: 17,
        family: 6,
        generation: 2,
        ..Backend::default()
    };
    backends.set(3, backend, 0).unwrap();

    let all = tables.list(&Filter::default(), 100).unwrap();
    assert_eq!(
        lines(&all),
        [
            "tcp 192.0.2.7:40000 11.0.0.1:80 10.0.0.1:8080 nat established 5",
            "tcp 192.0.2.7:40001 11.0.0.1:80 10.0.0.1:8080 nat closing 70",
            "tcp 192.0.2.7:40002 11.0.0.1:80 10.0.0.1:8080 host half-open 1",
            "udp [2001:db8::7]:50000 [fd01:c::1]:53 [fd00::3]:53 dsr-l2 one-way 2",
            "udp [2001:db8::7]:50001 [fd01:c::1]:53 gone dsr-l2 one-way 2",
        ]
    );
    assert_eq!(all.more, 0);
    let one = Filter {
        client: Some("192.0.2.7:40001".parse().unwrap()),
        ..Filter::default()
    };
    let found = tables.list(&one, 100).unwrap();
    assert_eq!(found.flows[0].state, FlowState::Closing);
    assert_eq!(found.flows[0].age_s, 700);
    assert_eq!((found.flows.len(), found.more), (1, 0));
}

#[test]
fn no_more_flows_are_shown_than_asked_for_and_the_others_counted() {
    let pins = Pins::new("limit");
    let datapath = pins.datapath();
    let tables = datapath.flow_tables().unwrap();
    for port in 1_000..1_500 {
        let (key, flow) = nat(port, 0);
        pins.put("LB_FLOWS_TCP4", key, flow);
    }
    let found = tables.list(&Filter::default(), 20).unwrap();
    assert_eq!((found.flows.len(), found.more), (20, 480));
}
