//! The flow table, read in the terms of a test, and meddled with as time or eviction would.

use std::net::{IpAddr, SocketAddr};

use aya::maps::HashMap;
use lb_common::{
    Addr4, Addr6, Be16, Flow, FlowKey, direction, flow_flag,
    fragment::{FRAGMENT_LIFE, FragmentKey, FragmentPorts},
};

use super::{Hook, Rig, Segment, Way, sys::empty};

/// One half of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Source and destination of a packet as it arrives.
    pub arrives: (SocketAddr, SocketAddr),
    /// Source and destination after translation.
    pub leaves: (SocketAddr, SocketAddr),
    /// Backend id.
    pub backend: u32,
    /// The backend's generation.
    pub generation: u32,
    /// Where the client's packets come in.
    pub client_ifindex: u32,
    /// Whether this is the half from client to backend.
    pub forward: bool,
    /// One of `lb_common::backend_kind`.
    pub kind: u8,
    /// Bits of `lb_common::tcp_state`.
    pub tcp: u8,
    /// Service id.
    pub service: u32,
}

trait Ip: aya::Pod + Copy {
    fn ip(self) -> IpAddr;
    fn of(addr: IpAddr) -> Self;
}

impl Ip for Addr4 {
    fn ip(self) -> IpAddr {
        IpAddr::V4(self.into())
    }

    fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(addr) => addr.into(),
            IpAddr::V6(_) => panic!("{addr} is not IPv4"),
        }
    }
}

impl Ip for Addr6 {
    fn ip(self) -> IpAddr {
        IpAddr::V6(self.into())
    }

    fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V6(addr) => addr.into(),
            IpAddr::V4(_) => panic!("{addr} is not IPv6"),
        }
    }
}

// === impl Rig ===

impl Rig {
    /// Both halves of every flow of this way, half-open ones too, forward ones first.
    pub fn flows(&self, way: Way) -> Vec<Entry> {
        let mut entries = self.established(way);
        entries.extend(self.half_open(way));
        entries.sort_by_key(|entry| (!entry.forward, entry.arrives));
        entries
    }

    /// Both halves of every flow that is not half-open.
    pub fn established(&self, way: Way) -> Vec<Entry> {
        self.entries(way, main_table(way))
    }

    /// Both halves of every half-open connection.
    pub fn half_open(&self, way: Way) -> Vec<Entry> {
        if way.tcp {
            self.entries(way, half_table(way))
        } else {
            Vec::new()
        }
    }

    /// Opens a connection to a backend on the node, all three segments of it.
    pub fn accepted(&self, way: Way, client: SocketAddr, vip: SocketAddr) {
        self.run(Hook::Xdp, &way.opening(client, vip));
        let answer = way.segment(way.host(), client, Segment::SynAck);
        self.run(Hook::Egress, &answer);
        self.run(Hook::Xdp, &way.later(client, vip));
    }

    /// The half by which a packet would be translated.
    pub fn flow(&self, way: Way, src: SocketAddr, dst: SocketAddr) -> Option<Entry> {
        let flows = self.flows(way);
        flows.into_iter().find(|flow| flow.arrives == (src, dst))
    }

    /// Has every half-open connection over IPv4 look as if its server had accepted it.
    pub fn accept_all(&mut self, way: Way) {
        assert!(way.tcp && !way.v6);
        let mut map = self.hash::<FlowKey<Addr4>, Flow<Addr4>>(half_table(way));
        let entries: Vec<_> = map.iter().map(Result::unwrap).collect();
        for (key, mut flow) in entries {
            flow.flags |= flow_flag::TWO_WAY;
            map.insert(key, flow, 0).unwrap();
        }
    }

    /// Takes one half away, as eviction does.
    pub fn evict(&mut self, way: Way, src: SocketAddr, dst: SocketAddr) {
        let table = self.table_with(way, src, dst);
        if way.v6 {
            let mut map = self.hash::<FlowKey<Addr6>, Flow<Addr6>>(table);
            map.remove(&key(way, src, dst)).unwrap();
        } else {
            let mut map = self.hash::<FlowKey<Addr4>, Flow<Addr4>>(table);
            map.remove(&key(way, src, dst)).unwrap();
        }
    }

    /// Ends all flows of this way at once.
    pub fn forget_flows(&mut self, way: Way) {
        empty(self.object.map(main_table(way)).unwrap()).unwrap();
        if way.tcp {
            empty(self.object.map(half_table(way)).unwrap()).unwrap();
        }
    }

    /// Sets when one half was last in use, ns since the start of the machine.
    pub fn set_last_seen(&mut self, way: Way, src: SocketAddr, dst: SocketAddr, at: u64) {
        let table = self.table_with(way, src, dst);
        if way.v6 {
            self.touch::<Addr6>(table, way, src, dst, at);
        } else {
            self.touch::<Addr4>(table, way, src, dst, at);
        }
    }

    /// Makes one half older by so much, ns.
    pub fn age_flow(&mut self, way: Way, src: SocketAddr, dst: SocketAddr, ns: u64) {
        let seen = self.last_seen(way, src, dst);
        self.set_last_seen(way, src, dst, seen.saturating_sub(ns));
    }

    /// When one half was last in use, ns since the start of the machine.
    pub fn last_seen(&mut self, way: Way, src: SocketAddr, dst: SocketAddr) -> u64 {
        let table = self.table_with(way, src, dst);
        if way.v6 {
            let map = self.hash::<FlowKey<Addr6>, Flow<Addr6>>(table);
            map.get(&key(way, src, dst), 0).unwrap().last_seen
        } else {
            let map = self.hash::<FlowKey<Addr4>, Flow<Addr4>>(table);
            map.get(&key(way, src, dst), 0).unwrap().last_seen
        }
    }

    /// Lets the time pass after which no further fragment is waited for.
    pub fn forget_fragments(&mut self, way: Way) {
        if way.v6 {
            self.age_fragments::<Addr6>("LB_FRAGMENTS6");
        } else {
            self.age_fragments::<Addr4>("LB_FRAGMENTS4");
        }
    }

    fn age_fragments<A: Ip>(&mut self, table: &str)
    where
        FragmentKey<A>: aya::Pod,
    {
        let mut map = self.hash::<FragmentKey<A>, FragmentPorts>(table);
        let entries: Vec<_> = map.iter().map(Result::unwrap).collect();
        assert!(!entries.is_empty());
        for (key, ports) in entries {
            let seen = ports.seen.checked_sub(FRAGMENT_LIFE + 1_000_000_000);
            let seen = seen.expect("the machine runs for longer than that");
            map.insert(key, FragmentPorts { seen, ..ports }, 0).unwrap();
        }
    }

    fn table_with(&self, way: Way, src: SocketAddr, dst: SocketAddr) -> &'static str {
        let half_open = self.half_open(way);
        if half_open.iter().any(|flow| flow.arrives == (src, dst)) {
            half_table(way)
        } else {
            main_table(way)
        }
    }

    fn touch<A: Ip>(&mut self, table: &str, way: Way, src: SocketAddr, dst: SocketAddr, at: u64)
    where
        FlowKey<A>: aya::Pod,
        Flow<A>: aya::Pod,
    {
        let mut map = self.hash::<FlowKey<A>, Flow<A>>(table);
        let key = key(way, src, dst);
        let flow = map.get(&key, 0).unwrap();
        map.insert(
            key,
            Flow {
                last_seen: at,
                ..flow
            },
            0,
        )
        .unwrap();
    }

    fn entries(&self, way: Way, table: &str) -> Vec<Entry> {
        let mut entries = if way.v6 {
            self.read::<Addr6>(way, table)
        } else {
            self.read::<Addr4>(way, table)
        };
        entries.sort_by_key(|entry| (!entry.forward, entry.arrives));
        entries
    }

    fn read<A: Ip>(&self, way: Way, table: &str) -> Vec<Entry>
    where
        FlowKey<A>: aya::Pod,
        Flow<A>: aya::Pod,
    {
        let map = self.object.map(table).unwrap();
        let map = HashMap::<_, FlowKey<A>, Flow<A>>::try_from(map).unwrap();
        map.iter()
            .map(|entry| {
                let (key, flow) = entry.unwrap();
                assert_eq!(key.proto, u32::from(way.proto()));
                assert!(flow.last_seen > 0, "a flow has a time stamp");
                let at = |addr: A, port: Be16| SocketAddr::new(addr.ip(), port.get());
                Entry {
                    arrives: (at(key.src, key.sport), at(key.dst, key.dport)),
                    leaves: (
                        at(flow.new_src, flow.new_sport),
                        at(flow.new_dst, flow.new_dport),
                    ),
                    backend: flow.backend,
                    generation: flow.generation,
                    client_ifindex: flow.client_ifindex,
                    forward: flow.direction == direction::FORWARD,
                    kind: flow.kind,
                    tcp: flow.tcp,
                    service: flow.service,
                }
            })
            .collect()
    }
}

fn main_table(way: Way) -> &'static str {
    match (way.tcp, way.v6) {
        (true, false) => "LB_FLOWS_TCP4",
        (true, true) => "LB_FLOWS_TCP6",
        (false, false) => "LB_FLOWS_UDP4",
        (false, true) => "LB_FLOWS_UDP6",
    }
}

fn half_table(way: Way) -> &'static str {
    if way.v6 {
        "LB_FLOWS_HALF6"
    } else {
        "LB_FLOWS_HALF4"
    }
}

fn key<A: Ip>(way: Way, src: SocketAddr, dst: SocketAddr) -> FlowKey<A> {
    FlowKey {
        src: A::of(src.ip()),
        dst: A::of(dst.ip()),
        sport: Be16::new(src.port()),
        dport: Be16::new(dst.port()),
        proto: u32::from(way.proto()),
    }
}
