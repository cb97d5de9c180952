//! What the agent would have written into the maps.

use std::net::{IpAddr, SocketAddr};

use aya::maps::{
    Array, HashMap, HashOfMaps, LpmTrie, Map, MapData, PerCpuArray, lpm_trie::Key, xdp::DevMapHash,
};
use lb_common::{
    Addr4, Addr6, Address as _, Backend, BackendStats, Be16, ConnectionStats, FILTER_SLOTS,
    IDLE_TCP, IDLE_UDP, IDLE_UDP_TWO_WAY, Neighbour, NextHop, NodeConfig, Reason, SLOTS_LARGE,
    SLOTS_MEDIUM, SLOTS_SMALL, SNAT_TRIES, Service, ServiceKey, ServiceStats, ServiceTraffic,
    addr_flag, backend_kind, backend_state, filter_slot, port_flag, service_flag,
};

use super::{Rig, Way};

/// Port numbers.
const PORTS: usize = 1 << 16;

/// Id of the service that [`Rig::serving`] makes.
pub const SERVICE: u32 = 7;

/// An active backend of generation 1.
pub fn backend(way: Way, at: SocketAddr, kind: u8) -> Backend {
    Backend {
        addr: match at.ip() {
            IpAddr::V4(addr) => Addr4::from(addr).widen(),
            IpAddr::V6(addr) => addr.into(),
        },
        port: Be16::new(at.port()),
        proto: way.proto(),
        family: if way.v6 { 6 } else { 4 },
        state: backend_state::ACTIVE,
        kind,
        generation: 1,
        ..Backend::default()
    }
}

/// A service with the usual times.
pub(super) fn plain_service(id: u32, flags: u32, slots: usize) -> Service {
    Service {
        id,
        flags,
        slots: slots as u32,
        idle_tcp: IDLE_TCP,
        idle_udp: IDLE_UDP,
        idle_udp_two_way: IDLE_UDP_TWO_WAY,
        ..Service::default()
    }
}

/// A table in which these ids take turns.
pub fn repeated(ids: &[u32], slots: usize) -> Vec<u32> {
    ids.iter().copied().cycle().take(slots).collect()
}

/// Bytes of an LRU map's key and value.
pub(crate) fn entry_bytes(map: &Map) -> (u32, u32) {
    let Map::LruHashMap(map) = map else {
        panic!("{map:?} is no LRU hash map")
    };
    let info = map.info().unwrap();
    (info.key_size(), info.value_size())
}

// === impl Rig ===

impl Rig {
    /// A rig with one service on the first VIP, for the clients' prefix, and backend 1 behind it: the
    /// node's own port 8080 where the kind says so, else the first address of the first network. Full NAT
    /// has ports 30,000 to 30,999.
    pub fn serving(way: Way, kind: u8) -> Self {
        Self::new().with_service(way, kind)
    }

    /// Gives a fresh rig the service of [`Rig::serving`].
    pub fn with_service(self, way: Way, kind: u8) -> Self {
        let mut rig = self;
        let at = if kind == backend_kind::HOST {
            way.host()
        } else {
            way.backend(1)
        };
        rig.backend(1, backend(way, at, kind));
        rig.service(way, way.vip(1), SERVICE, 0, &repeated(&[1], SLOTS_SMALL));
        rig.allow(way.client(0).ip(), if way.v6 { 64 } else { 24 });
        rig.node(way, 30_000, 1_000);
        rig
    }

    /// Puts an address into the destination filter.
    pub fn address(&mut self, addr: IpAddr, flags: u32) {
        match addr {
            IpAddr::V4(addr) => self.hash("LB_ADDRS4").insert(Addr4::from(addr), flags, 0),
            IpAddr::V6(addr) => self.hash("LB_ADDRS6").insert(Addr6::from(addr), flags, 0),
        }
        .unwrap();
        self.slot(addr, flags);
    }

    /// Puts flags into an address's slot of the coarse filter alone, as another address in it would.
    pub fn slot(&mut self, addr: IpAddr, flags: u32) {
        let (map, slot) = match addr {
            IpAddr::V4(addr) => ("LB_FILTER4", filter_slot(&Addr4::from(addr))),
            IpAddr::V6(addr) => ("LB_FILTER6", filter_slot(&Addr6::from(addr))),
        };
        self.change::<FILTER_SLOTS>(map, |slots| slots[usize::from(slot)] |= flags as u8);
    }

    /// Changes the single entry of a map that holds bytes.
    fn change<const N: usize>(&mut self, map: &str, change: impl FnOnce(&mut [u8; N])) {
        let mut map: Array<_, [u8; N]> = self.map(map);
        let mut bytes = map.get(&0, 0).unwrap();
        change(&mut bytes);
        map.set(0, bytes, 0).unwrap();
    }

    /// Writes a backend.
    pub fn backend(&mut self, id: u32, value: Backend) {
        let mut map: Array<_, Backend> = self.map("LB_BACKENDS");
        map.set(id, value, 0).unwrap();
    }

    /// Writes a service and its table, and puts its address into the filter; by default small, and from
    /// outside only for the sources that [`Rig::allow`] names.
    pub fn service(&mut self, way: Way, vip: SocketAddr, id: u32, flags: u32, table: &[u32]) {
        self.service_and_table(way, vip, id, flags, table);
        self.address(vip.ip(), addr_flag::VIP);
    }

    /// Has a service of [`Rig::service`] reach its backends in this mode.
    pub fn mode(&mut self, way: Way, vip: SocketAddr, id: u32, flags: u32, mode: u8) {
        let service = plain_service(id, flags, SLOTS_SMALL);
        self.service_value(way, vip, Service { mode, ..service });
    }

    fn service_and_table(&mut self, way: Way, vip: SocketAddr, id: u32, flags: u32, table: &[u32]) {
        self.table(id, table);
        self.service_value(way, vip, plain_service(id, flags, table.len()));
    }

    /// Writes a service at a port of the node's own address, for any source, and its table.
    pub fn external(&mut self, way: Way, at: SocketAddr, id: u32, table: &[u32]) {
        self.service_and_table(way, at, id, service_flag::EXTERNAL, table);
        self.address(at.ip(), addr_flag::NODE);
        let flag = if way.tcp {
            port_flag::TCP
        } else {
            port_flag::UDP
        };
        self.change::<PORTS>("LB_NODE_PORTS", |ports| {
            ports[usize::from(at.port())] |= flag;
        });
    }

    /// Takes the services from a port of the node.
    pub fn free_port(&mut self, port: u16) {
        self.change::<PORTS>("LB_NODE_PORTS", |ports| ports[usize::from(port)] = 0);
    }

    /// Writes a service alone.
    pub fn service_value(&mut self, way: Way, vip: SocketAddr, value: Service) {
        let port = Be16::new(vip.port());
        let proto = way.proto();
        match vip.ip() {
            IpAddr::V4(addr) => {
                let addr = Addr4::from(addr);
                let key = ServiceKey {
                    addr,
                    port,
                    proto,
                    pad: 0,
                };
                self.hash("LB_SERVICES4").insert(key, value, 0)
            }
            IpAddr::V6(addr) => {
                let addr = Addr6::from(addr);
                let key = ServiceKey {
                    addr,
                    port,
                    proto,
                    pad: 0,
                };
                self.hash("LB_SERVICES6").insert(key, value, 0)
            }
        }
        .unwrap();
    }

    /// Writes a Maglev table, in place of the one that is there.
    pub fn table(&mut self, service: u32, slots: &[u32]) {
        match slots.len() {
            SLOTS_SMALL => self.put::<SLOTS_SMALL>("LB_TABLES_S", service, slots),
            SLOTS_MEDIUM => self.put::<SLOTS_MEDIUM>("LB_TABLES_M", service, slots),
            SLOTS_LARGE => self.put::<SLOTS_LARGE>("LB_TABLES_L", service, slots),
            len => panic!("no table has {len} slots"),
        }
    }

    fn put<const M: usize>(&mut self, map: &str, service: u32, slots: &[u32]) {
        let mut inner: Array<MapData, [u32; M]> = Array::create(1, 0).unwrap();
        inner
            .set(0, <[u32; M]>::try_from(slots).unwrap(), 0)
            .unwrap();
        let mut outer: HashOfMaps<_, u32, Array<MapData, [u32; M]>> = self.map(map);
        outer.insert(service, &inner, 0).unwrap();
    }

    /// Lets a prefix reach services from outside.
    pub fn allow(&mut self, addr: IpAddr, len: u32) {
        match addr {
            IpAddr::V4(addr) => {
                let mut map: LpmTrie<_, Addr4, u32> = self.map("LB_SOURCES4");
                map.insert(&Key::new(len, addr.into()), 1, 0)
            }
            IpAddr::V6(addr) => {
                let mut map: LpmTrie<_, Addr6, u32> = self.map("LB_SOURCES6");
                map.insert(&Key::new(len, addr.into()), 1, 0)
            }
        }
        .unwrap();
    }

    /// Writes the node's settings: full NAT from its address of this family, and these ports.
    pub fn node(&mut self, way: Way, first_port: u16, ports: u16) {
        let mut node = NodeConfig {
            snat_port_min: first_port,
            snat_ports: ports,
            ..NodeConfig::default()
        };
        match way.node() {
            IpAddr::V4(addr) => node.snat4 = addr.into(),
            IpAddr::V6(addr) => node.snat6 = addr.into(),
        }
        self.node_value(node);
        self.address(way.node(), addr_flag::NODE);
    }

    /// Writes the node's settings alone.
    pub fn node_value(&mut self, node: NodeConfig) {
        let mut map: Array<_, NodeConfig> = self.map("LB_NODE");
        map.set(0, node, 0).unwrap();
        self.change::<PORTS>("LB_NODE_PORTS", |ports| {
            ports.fill(0);
            let first = usize::from(node.snat_port_min);
            ports[first..first + usize::from(node.snat_ports)].fill(port_flag::SNAT);
        });
    }

    /// Makes a port of the node's own addresses one of a service.
    pub fn node_port(&mut self, port: u16, flags: u8) {
        self.change::<PORTS>("LB_NODE_PORTS", |ports| ports[usize::from(port)] |= flags);
    }

    /// Writes an entry of the array of next hops.
    pub fn next_hop(&mut self, index: u16, value: NextHop) {
        let mut map: Array<_, NextHop> = self.map("LB_NEXT_HOPS");
        map.set(index.into(), value, 0).unwrap();
    }

    /// Gives a neighbour its index in that array.
    pub fn neighbour(&mut self, ifindex: u32, addr: IpAddr, index: u16) {
        let (family, addr) = match addr {
            IpAddr::V4(addr) => (4, Addr4::from(addr).widen()),
            IpAddr::V6(addr) => (6, addr.into()),
        };
        let neighbour = Neighbour {
            ifindex,
            family,
            addr,
        };
        self.hash("LB_NEIGHBOURS")
            .insert(neighbour, u32::from(index), 0)
            .unwrap();
    }

    /// Says that routes have changed.
    pub fn route_epoch(&mut self, route_epoch: u16) {
        let mut map: Array<_, NodeConfig> = self.map("LB_NODE");
        let node = map.get(&0, 0).unwrap();
        map.set(
            0,
            NodeConfig {
                route_epoch,
                ..node
            },
            0,
        )
        .unwrap();
    }

    /// Bytes of a map's key and value.
    pub fn entry_bytes(&self, map: &str) -> (u32, u32) {
        entry_bytes(self.object.map(map).unwrap())
    }

    /// Lets XDP redirect to an interface.
    pub fn port(&mut self, ifindex: u32) {
        let mut map: DevMapHash<_> = self.map("LB_PORTS");
        map.insert(ifindex, ifindex, None, 0).unwrap();
    }

    /// Says that XDP is attached to this interface, and sees its packets before tc does.
    pub fn has_xdp(&mut self, ifindex: u32) {
        self.hash("LB_BY_XDP").insert(ifindex, ifindex, 0).unwrap();
    }

    /// How often a reason was counted, on all CPUs.
    pub fn counter(&self, reason: Reason) -> u64 {
        let map = PerCpuArray::<_, u64>::try_from(self.object.map("LB_COUNTERS").unwrap()).unwrap();
        map.get(&(reason as u32), 0).unwrap().iter().sum()
    }

    /// New flows by the source ports that full NAT tried in vain; the last number: none was free.
    pub fn tries(&self) -> Vec<u64> {
        let map = self.object.map("LB_SNAT_TRIES").unwrap();
        let map = PerCpuArray::<_, u64>::try_from(map).unwrap();
        (0..=SNAT_TRIES)
            .map(|before| map.get(&before, 0).unwrap().iter().sum())
            .collect()
    }

    /// Every reason that was counted, and how often.
    pub fn counters(&self) -> Vec<(Reason, u64)> {
        Reason::ALL
            .iter()
            .map(|&reason| (reason, self.counter(reason)))
            .filter(|&(_, count)| count > 0)
            .collect()
    }

    /// A backend's counters: flows, packets and bytes to it, packets and bytes from it.
    pub fn stats(&self, id: u32) -> [u64; 5] {
        let map =
            PerCpuArray::<_, BackendStats>::try_from(self.object.map("LB_STATS").unwrap()).unwrap();
        let values = map.get(&id, 0).unwrap();
        let sum = |field: fn(&BackendStats) -> u64| values.iter().map(field).sum();
        [
            sum(|s| s.flows),
            sum(|s| s.packets_to),
            sum(|s| s.bytes_to),
            sum(|s| s.packets_from),
            sum(|s| s.bytes_from),
        ]
    }

    /// What became of a backend's connections.
    pub fn connections(&self, id: u32) -> ConnectionStats {
        let values = self.per_cpu::<ConnectionStats>("LB_CONNECTIONS", id);
        values.iter().fold(ConnectionStats::default(), added)
    }

    /// What became of a service's connections.
    pub fn service_connections(&self, id: u32) -> ConnectionStats {
        let values = self.per_cpu::<ServiceStats>("LB_SERVICE_STATS", id);
        let connections = values.iter().map(|cpu| &cpu.connections);
        connections.fold(ConnectionStats::default(), added)
    }

    /// Packets for a service that were cut short.
    pub fn malformed(&self, service: u32) -> u64 {
        let values = self.per_cpu::<ServiceStats>("LB_SERVICE_STATS", service);
        values.iter().map(|cpu| cpu.malformed).sum()
    }

    /// What became of a service's new flows: opened, refused, and its handshakes.
    pub fn service_stats(&self, id: u32) -> (u64, u64, u64) {
        let values = self.per_cpu::<ServiceStats>("LB_SERVICE_STATS", id);
        values.iter().fold((0, 0, 0), |sum, cpu| {
            let handshakes = cpu.handshakes.iter().sum::<u64>();
            (sum.0 + cpu.flows, sum.1 + cpu.refused, sum.2 + handshakes)
        })
    }

    /// What a service carried: packets and bytes from clients, packets and bytes to them.
    pub fn carried(&self, service: u32) -> [u64; 4] {
        let values = self.per_cpu::<ServiceTraffic>("LB_SERVICE_TRAFFIC", service);
        let sum = |field: fn(&ServiceTraffic) -> u64| values.iter().map(field).sum();
        [
            sum(|s| s.packets_to),
            sum(|s| s.bytes_to),
            sum(|s| s.packets_from),
            sum(|s| s.bytes_from),
        ]
    }

    fn per_cpu<T: aya::Pod>(&self, name: &str, id: u32) -> aya::maps::PerCpuValues<T> {
        let map = PerCpuArray::<_, T>::try_from(self.object.map(name).unwrap()).unwrap();
        map.get(&id, 0).unwrap()
    }

    pub(super) fn hash<K: aya::Pod, V: aya::Pod>(
        &mut self,
        name: &str,
    ) -> HashMap<&mut MapData, K, V> {
        self.map(name)
    }

    pub(super) fn map<'a, T>(&'a mut self, name: &str) -> T
    where
        T: TryFrom<&'a mut aya::maps::Map>,
        T::Error: std::fmt::Debug,
    {
        T::try_from(self.object.map_mut(name).unwrap()).unwrap()
    }
}

fn added(sum: ConnectionStats, cpu: &ConnectionStats) -> ConnectionStats {
    ConnectionStats {
        closed: sum.closed + cpu.closed,
        client_resets: sum.client_resets + cpu.client_resets,
        backend_resets: sum.backend_resets + cpu.backend_resets,
        refused: sum.refused + cpu.refused,
        syn_retransmits: sum.syn_retransmits + cpu.syn_retransmits,
        handshakes: sum.handshakes + cpu.handshakes,
        handshake_ns: sum.handshake_ns + cpu.handshake_ns,
        redispatched: sum.redispatched + cpu.redispatched,
        lived_ms: sum.lived_ms + cpu.lived_ms,
    }
}
