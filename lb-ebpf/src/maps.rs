//! Every map. Sizes are defaults; the agent sets them at load and pins each map by its name.

use aya_ebpf::{
    btf_maps::{Array, DevMapHash, HashMap, HashOfMaps, LpmTrie, LruHashMap, PerCpuArray},
    macros::btf_map,
};
use lb_common::{
    Addr4, Addr6, Backend, BackendStats, Flow, FlowKey, NodeConfig, SLOTS_LARGE, SLOTS_MEDIUM,
    SLOTS_SMALL, Service, ServiceKey, SockKey, SockPeer,
};

const SERVICES: usize = 16_384;
const ADDRESSES: usize = 32_768;
const SOURCES: usize = 4_096;
const BACKEND_IDS: usize = 65_536;
const FLOWS_TCP: usize = 1 << 20;
const FLOWS_UDP: usize = 1 << 18;
const SOCKETS: usize = 1 << 18;
const INTERFACES: usize = 256;

/// A Maglev table: one entry that is the whole table, so that it is swapped at once.
pub type Maglev<const M: usize> = Array<[u32; M], 1>;

/// Destination filter: bits of `addr_flag`.
#[btf_map]
pub static LB_ADDRS4: HashMap<Addr4, u32, ADDRESSES> = HashMap::new();
#[btf_map]
pub static LB_ADDRS6: HashMap<Addr6, u32, ADDRESSES> = HashMap::new();

#[btf_map]
pub static LB_SERVICES4: HashMap<ServiceKey<Addr4>, Service, SERVICES> = HashMap::new();
#[btf_map]
pub static LB_SERVICES6: HashMap<ServiceKey<Addr6>, Service, SERVICES> = HashMap::new();

/// Service id to Maglev table. Inner maps of one outer map have one value size, hence three.
#[btf_map]
pub static LB_TABLES_S: HashOfMaps<u32, Maglev<SLOTS_SMALL>, SERVICES> = HashOfMaps::new();
#[btf_map]
pub static LB_TABLES_M: HashOfMaps<u32, Maglev<SLOTS_MEDIUM>, SERVICES> = HashOfMaps::new();
#[btf_map]
pub static LB_TABLES_L: HashOfMaps<u32, Maglev<SLOTS_LARGE>, SERVICES> = HashOfMaps::new();

#[btf_map]
pub static LB_BACKENDS: Array<Backend, BACKEND_IDS> = Array::new();
#[btf_map]
pub static LB_STATS: PerCpuArray<BackendStats, BACKEND_IDS> = PerCpuArray::new();

/// TCP and UDP apart, so that a flood of one cannot evict the other.
#[btf_map]
pub static LB_FLOWS_TCP4: LruHashMap<FlowKey<Addr4>, Flow<Addr4>, FLOWS_TCP> = LruHashMap::new();
#[btf_map]
pub static LB_FLOWS_TCP6: LruHashMap<FlowKey<Addr6>, Flow<Addr6>, FLOWS_TCP> = LruHashMap::new();
#[btf_map]
pub static LB_FLOWS_UDP4: LruHashMap<FlowKey<Addr4>, Flow<Addr4>, FLOWS_UDP> = LruHashMap::new();
#[btf_map]
pub static LB_FLOWS_UDP6: LruHashMap<FlowKey<Addr6>, Flow<Addr6>, FLOWS_UDP> = LruHashMap::new();

/// (socket, backend) to the VIP that the socket believes it talks to.
#[btf_map]
pub static LB_SOCK_PEERS: LruHashMap<SockKey, SockPeer, SOCKETS> = LruHashMap::new();
/// (unconnected UDP socket, VIP) to the backend chosen for it.
#[btf_map]
pub static LB_SOCK_CHOICES: LruHashMap<SockKey, SockPeer, SOCKETS> = LruHashMap::new();

/// Sources that may reach VIPs from outside.
#[btf_map]
pub static LB_SOURCES4: LpmTrie<Addr4, u32, SOURCES> = LpmTrie::new();
#[btf_map]
pub static LB_SOURCES6: LpmTrie<Addr6, u32, SOURCES> = LpmTrie::new();

#[btf_map]
pub static LB_NODE: Array<NodeConfig, 1> = Array::new();

/// Interfaces that XDP may redirect to, by index.
#[btf_map]
pub static LB_PORTS: DevMapHash<INTERFACES> = DevMapHash::new();

/// By number of `Reason`.
#[btf_map]
pub static LB_COUNTERS: PerCpuArray<u64, 64> = PerCpuArray::new();
