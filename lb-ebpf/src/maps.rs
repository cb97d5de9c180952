//! Every map. Sizes are defaults; the agent sets them at load and pins each map by its name.

use aya_ebpf::{
    btf_maps::{
        Array, DevMapHash, HashMap, HashOfMaps, LpmTrie, LruHashMap, PerCpuArray, ProgramArray,
        RingBuf,
    },
    macros::btf_map,
};
use lb_common::{
    Addr4, Addr6, Affinity, AffinityKey, Backend, BackendLimit, BackendStats, Bucket,
    ConnectionStats, DryRun, FILTER_SLOTS, Flow, FlowKey, GUARDS, LocalKey, Neighbour, NextHop,
    NodeConfig, Peer, SLOTS_LARGE, SLOTS_MEDIUM, SLOTS_SMALL, SNAT_TRIES, Service, ServiceKey,
    ServiceState, ServiceStats, ServiceTraffic, SockChoice, SockKey, SockPeer, SourceKey, Suspect,
    TRACE_MATCHES, TraceConfig, TraceGuard, TraceMatch, TraceNote,
    fragment::{FragmentKey, FragmentPorts},
};

use crate::tables::Draft;

const SERVICES: usize = 16_384;
const ADDRESSES: usize = 32_768;
const SOURCES: usize = 4_096;
const BACKEND_IDS: usize = 65_536;
const FLOWS_TCP: usize = 1 << 20;
const FLOWS_HALF: usize = 1 << 17;
const FLOWS_UDP: usize = 1 << 18;
const SOCKETS: usize = 1 << 18;
const FRAGMENTS: usize = 16_384;
const INTERFACES: usize = 256;
const SERVICE_IDS: usize = 2 * SERVICES + 1;
const CLIENTS: usize = 1 << 16;
const NAMESPACES: usize = 4_096;
const LISTED: usize = 1 << 14;
const NEXT_HOPS: usize = 4_096;
const PEERS: usize = 1_024;
const LOCALS: usize = 16_384;
const TRACE_BYTES: usize = 1 << 20;
/// One for each port number.
const PORTS: usize = 1 << 16;

/// A Maglev table: one entry that is the whole table, so that it is swapped at once.
pub type Maglev<const M: usize> = Array<[u32; M], 1>;

/// Destination filter, coarse: bits of `addr_flag` by `filter_slot`. What it does not know is not ours.
#[btf_map]
pub static LB_FILTER4: Array<[u8; FILTER_SLOTS], 1> = Array::new();
#[btf_map]
pub static LB_FILTER6: Array<[u8; FILTER_SLOTS], 1> = Array::new();
/// Ports of the node's own addresses that are ours: bits of `port_flag`.
#[btf_map]
pub static LB_NODE_PORTS: Array<[u8; PORTS], 1> = Array::new();

/// Destination filter, exact: bits of `addr_flag`.
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

/// Backends that do not answer, by backend id.
#[btf_map]
pub static LB_SUSPECTS: Array<Suspect, BACKEND_IDS> = Array::new();

/// By backend id.
#[btf_map]
pub static LB_CONNECTIONS: PerCpuArray<ConnectionStats, BACKEND_IDS> = PerCpuArray::new();
/// By service id.
#[btf_map]
pub static LB_SERVICE_STATS: PerCpuArray<ServiceStats, SERVICE_IDS> = PerCpuArray::new();
#[btf_map]
pub static LB_SERVICE_TRAFFIC: PerCpuArray<ServiceTraffic, SERVICE_IDS> = PerCpuArray::new();

/// Flows and weight that a backend may have.
#[btf_map]
pub static LB_LIMITS: Array<BackendLimit, BACKEND_IDS> = Array::new();
/// Flows that a backend has.
#[btf_map]
pub static LB_LOADS: Array<u64, BACKEND_IDS> = Array::new();
/// What changes with every flow of a service, by service id.
#[btf_map]
pub static LB_SERVICE_STATES: Array<ServiceState, SERVICE_IDS> = Array::new();
/// The backend that a client of a service with affinity had last.
#[btf_map]
pub static LB_AFFINITY: LruHashMap<AffinityKey, Affinity, CLIENTS> = LruHashMap::new();
/// New flows that a source may still open.
#[btf_map]
pub static LB_SOURCE_RATES: LruHashMap<AffinityKey, Bucket, CLIENTS> = LruHashMap::new();
/// Where the network namespaces of local clients speak from, by cookie and family.
#[btf_map]
pub static LB_NETNS: LruHashMap<AffinityKey, Addr6, NAMESPACES> = LruHashMap::new();
/// Sources that a service names: one of `source_rule`.
#[btf_map]
pub static LB_LISTS4: LpmTrie<SourceKey<Addr4>, u32, LISTED> = LpmTrie::new();
#[btf_map]
pub static LB_LISTS6: LpmTrie<SourceKey<Addr6>, u32, LISTED> = LpmTrie::new();

/// TCP and UDP apart, so that a flood of one cannot evict the other.
#[btf_map]
pub static LB_FLOWS_TCP4: LruHashMap<FlowKey<Addr4>, Flow<Addr4>, FLOWS_TCP> = LruHashMap::new();
#[btf_map]
pub static LB_FLOWS_TCP6: LruHashMap<FlowKey<Addr6>, Flow<Addr6>, FLOWS_TCP> = LruHashMap::new();
/// TCP connections until the client's first ACK, so that a flood of SYNs evicts nothing but its like.
#[btf_map]
pub static LB_FLOWS_HALF4: LruHashMap<FlowKey<Addr4>, Flow<Addr4>, FLOWS_HALF> = LruHashMap::new();
#[btf_map]
pub static LB_FLOWS_HALF6: LruHashMap<FlowKey<Addr6>, Flow<Addr6>, FLOWS_HALF> = LruHashMap::new();
#[btf_map]
pub static LB_FLOWS_UDP4: LruHashMap<FlowKey<Addr4>, Flow<Addr4>, FLOWS_UDP> = LruHashMap::new();
#[btf_map]
pub static LB_FLOWS_UDP6: LruHashMap<FlowKey<Addr6>, Flow<Addr6>, FLOWS_UDP> = LruHashMap::new();

/// New flows while they are made.
#[btf_map]
pub static LB_DRAFT4: PerCpuArray<Draft<Addr4>, 1> = PerCpuArray::new();
#[btf_map]
pub static LB_DRAFT6: PerCpuArray<Draft<Addr6>, 1> = PerCpuArray::new();

/// Ports of packets whose other fragments are still to come.
#[btf_map]
pub static LB_FRAGMENTS4: LruHashMap<FragmentKey<Addr4>, FragmentPorts, FRAGMENTS> =
    LruHashMap::new();
#[btf_map]
pub static LB_FRAGMENTS6: LruHashMap<FragmentKey<Addr6>, FragmentPorts, FRAGMENTS> =
    LruHashMap::new();

/// What a CPU may still do of what is limited, see `guard`.
#[btf_map]
pub static LB_GUARD: PerCpuArray<Bucket, GUARDS> = PerCpuArray::new();

/// (socket, backend) to the VIP that the socket believes it talks to.
#[btf_map]
pub static LB_SOCK_PEERS: LruHashMap<SockKey, SockPeer, SOCKETS> = LruHashMap::new();
/// (UDP socket, VIP) to the backend chosen for it.
#[btf_map]
pub static LB_SOCK_CHOICES: LruHashMap<SockKey, SockChoice, SOCKETS> = LruHashMap::new();

/// Sources that may reach VIPs from outside.
#[btf_map]
pub static LB_SOURCES4: LpmTrie<Addr4, u32, SOURCES> = LpmTrie::new();
#[btf_map]
pub static LB_SOURCES6: LpmTrie<Addr6, u32, SOURCES> = LpmTrie::new();

#[btf_map]
pub static LB_NODE: Array<NodeConfig, 1> = Array::new();

/// Where frames are sent, by index; kept current by the agent.
#[btf_map]
pub static LB_NEXT_HOPS: Array<NextHop, NEXT_HOPS> = Array::new();
/// The index of a neighbour's next hop.
#[btf_map]
pub static LB_NEIGHBOURS: HashMap<Neighbour, u32, NEXT_HOPS> = HashMap::new();

/// Interfaces whose packets XDP sees before tc does, by index.
#[btf_map]
pub static LB_BY_XDP: HashMap<u32, u32, INTERFACES> = HashMap::new();
/// Interfaces that XDP may redirect to, by index.
#[btf_map]
pub static LB_PORTS: DevMapHash<INTERFACES> = DevMapHash::new();

/// The agent of each backend's host, by backend id.
#[btf_map]
pub static LB_PEERS: Array<Peer, BACKEND_IDS> = Array::new();
/// Addresses of agents that may send packets for backends of this node, and the index of each.
#[btf_map]
pub static LB_SENDERS4: HashMap<Addr4, u32, PEERS> = HashMap::new();
#[btf_map]
pub static LB_SENDERS6: HashMap<Addr6, u32, PEERS> = HashMap::new();
/// The same by index; index 0 is never used.
#[btf_map]
pub static LB_SENDERS: Array<Addr6, { 2 * PEERS + 1 }> = Array::new();
/// Backends of this node, as peers name them, to their ids.
#[btf_map]
pub static LB_LOCALS: HashMap<LocalKey, u32, LOCALS> = HashMap::new();

/// `lb_xdp_general`, to which `lb_xdp` leaves what is rare.
#[btf_map]
pub static LB_STAGES: ProgramArray<1> = ProgramArray::new();

/// The question to a dry run, and its answer.
#[btf_map]
pub static LB_DRY_RUN: Array<DryRun, 1> = Array::new();

/// Whether packets are told of, and which.
#[btf_map]
pub static LB_TRACE: Array<TraceConfig, 1> = Array::new();
/// Of which of them, if not of all.
#[btf_map]
pub static LB_TRACE_MATCHES: Array<TraceMatch, TRACE_MATCHES> = Array::new();
/// What is told: `TraceEvent`s, with bytes of packets behind them.
#[btf_map]
pub static LB_TRACE_EVENTS: RingBuf<[u8; 0], TRACE_BYTES> = RingBuf::new();
#[btf_map]
pub static LB_TRACE_GUARD: PerCpuArray<TraceGuard, 1> = PerCpuArray::new();
#[btf_map]
pub static LB_TRACE_NOTE: PerCpuArray<TraceNote, 1> = PerCpuArray::new();

/// New flows of full NAT by the source ports tried in vain.
#[btf_map]
pub static LB_SNAT_TRIES: PerCpuArray<u64, { SNAT_TRIES as usize + 1 }> = PerCpuArray::new();

/// By number of `Reason`.
#[btf_map]
pub static LB_COUNTERS: PerCpuArray<u64, 64> = PerCpuArray::new();
