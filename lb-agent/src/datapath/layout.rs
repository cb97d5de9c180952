//! The pinned maps: names, types and sizes, and the check of what is found under their names.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use aya::maps::{MapInfo, MapType};
use lb_common::{
    Addr4, Addr6, Affinity, AffinityKey, Backend, BackendLimit, BackendStats, Bucket,
    ConnectionStats, FILTER_SLOTS, Flow, FlowKey, GUARDS, LocalKey, Neighbour, NextHop, NodeConfig,
    Peer, SNAT_TRIES, Service, ServiceKey, ServiceState, ServiceStats, ServiceTraffic, SockChoice,
    SockKey, SockPeer, SourceKey, Suspect,
    fragment::{FragmentKey, FragmentPorts},
};

/// Grows when a pinned map's layout changes: the new agent then makes its own and hands nothing over.
pub(crate) const SCHEMA: &str = "v1";

/// How much the maps hold; applied when they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Entries of the TCP flow table of each family; a flow takes two.
    pub tcp_flows: u32,
    /// Entries of the table of half-open TCP connections of each family.
    pub half_open_flows: u32,
    /// Entries of the UDP flow table of each family.
    pub udp_flows: u32,
    /// Length of the backend array; id 0 is not used.
    pub backends: u32,
    /// Services of each family.
    pub services: u32,
    /// Addresses of each family in the destination filter.
    pub addresses: u32,
    /// Sockets whose peer is remembered.
    pub sockets: u32,
}

impl Sizes {
    /// Length of the array of service ids: both families', from 1 on.
    pub(super) fn service_ids(&self) -> u32 {
        self.services.saturating_mul(2).saturating_add(1)
    }
}

/// Prefixes of each family among the allowed sources.
pub(crate) const SOURCES: u32 = 4_096;
/// Fragmented packets of each family whose ports are remembered.
pub(super) const FRAGMENTS: u32 = 16_384;
/// Interfaces that XDP may redirect to.
const PORTS: u32 = 256;
/// Length of the array of next hops; index 0 is not used.
pub(crate) const NEXT_HOPS: u32 = 4_096;
/// Port numbers.
pub(crate) const NODE_PORTS: usize = 1 << 16;
/// Clients whose backend is remembered, and sources whose rate is.
pub(super) const CLIENTS: u32 = 1 << 16;
/// Network namespaces of local clients whose address is remembered, once for each family.
pub(super) const NAMESPACES: u32 = 4_096;
/// Prefixes of each family in the lists of all services.
pub(crate) const LISTED: u32 = 1 << 14;
/// Peers of each family.
pub(crate) const SENDERS: u32 = 1_024;
/// Backends of this node, once for each service that names them.
pub(crate) const LOCALS: u32 = 1 << 14;
/// Counters by reason.
const COUNTERS: u32 = 64;

/// A map as this agent makes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    kind: MapType,
    key: usize,
    value: usize,
    pub(crate) entries: u32,
}

/// Every pinned map.
pub(crate) fn specs(sizes: &Sizes) -> Vec<Spec> {
    const U32: usize = size_of::<u32>();
    let spec = |name, kind, key, value, entries| Spec {
        name,
        kind,
        key,
        value,
        entries,
    };
    let hash = |name, key, value, entries| spec(name, MapType::Hash, key, value, entries);
    let lru = |name, key, value, entries| spec(name, MapType::LruHash, key, value, entries);
    let (flow4, flow6) = (size_of::<Flow<Addr4>>(), size_of::<Flow<Addr6>>());
    let (key4, key6) = (size_of::<FlowKey<Addr4>>(), size_of::<FlowKey<Addr6>>());
    let service = size_of::<Service>();
    let (sock, peer) = (size_of::<SockKey>(), size_of::<SockPeer>());
    let client = size_of::<AffinityKey>();
    let tables = |name| {
        spec(
            name,
            MapType::HashOfMaps,
            U32,
            U32,
            sizes.services.saturating_mul(2),
        )
    };
    let single = |name, value| spec(name, MapType::Array, U32, value, 1);
    vec![
        single("LB_FILTER4", FILTER_SLOTS),
        single("LB_FILTER6", FILTER_SLOTS),
        single("LB_NODE_PORTS", NODE_PORTS),
        hash("LB_ADDRS4", size_of::<Addr4>(), U32, sizes.addresses),
        hash("LB_ADDRS6", size_of::<Addr6>(), U32, sizes.addresses),
        hash(
            "LB_SERVICES4",
            size_of::<ServiceKey<Addr4>>(),
            service,
            sizes.services,
        ),
        hash(
            "LB_SERVICES6",
            size_of::<ServiceKey<Addr6>>(),
            service,
            sizes.services,
        ),
        tables("LB_TABLES_S"),
        tables("LB_TABLES_M"),
        tables("LB_TABLES_L"),
        spec(
            "LB_BACKENDS",
            MapType::Array,
            U32,
            size_of::<Backend>(),
            sizes.backends,
        ),
        spec(
            "LB_STATS",
            MapType::PerCpuArray,
            U32,
            size_of::<BackendStats>(),
            sizes.backends,
        ),
        spec(
            "LB_SUSPECTS",
            MapType::Array,
            U32,
            size_of::<Suspect>(),
            sizes.backends,
        ),
        spec(
            "LB_CONNECTIONS",
            MapType::PerCpuArray,
            U32,
            size_of::<ConnectionStats>(),
            sizes.backends,
        ),
        spec(
            "LB_SERVICE_STATS",
            MapType::PerCpuArray,
            U32,
            size_of::<ServiceStats>(),
            sizes.service_ids(),
        ),
        spec(
            "LB_SERVICE_TRAFFIC",
            MapType::PerCpuArray,
            U32,
            size_of::<ServiceTraffic>(),
            sizes.service_ids(),
        ),
        spec(
            "LB_LIMITS",
            MapType::Array,
            U32,
            size_of::<BackendLimit>(),
            sizes.backends,
        ),
        spec(
            "LB_LOADS",
            MapType::Array,
            U32,
            size_of::<u64>(),
            sizes.backends,
        ),
        spec(
            "LB_SERVICE_STATES",
            MapType::Array,
            U32,
            size_of::<ServiceState>(),
            sizes.service_ids(),
        ),
        lru("LB_AFFINITY", client, size_of::<Affinity>(), CLIENTS),
        lru("LB_SOURCE_RATES", client, size_of::<Bucket>(), CLIENTS),
        lru("LB_NETNS", client, size_of::<Addr6>(), NAMESPACES),
        spec(
            "LB_LISTS4",
            MapType::LpmTrie,
            4 + size_of::<SourceKey<Addr4>>(),
            U32,
            LISTED,
        ),
        spec(
            "LB_LISTS6",
            MapType::LpmTrie,
            4 + size_of::<SourceKey<Addr6>>(),
            U32,
            LISTED,
        ),
        lru("LB_FLOWS_TCP4", key4, flow4, sizes.tcp_flows),
        lru("LB_FLOWS_TCP6", key6, flow6, sizes.tcp_flows),
        lru("LB_FLOWS_HALF4", key4, flow4, sizes.half_open_flows),
        lru("LB_FLOWS_HALF6", key6, flow6, sizes.half_open_flows),
        lru("LB_FLOWS_UDP4", key4, flow4, sizes.udp_flows),
        lru("LB_FLOWS_UDP6", key6, flow6, sizes.udp_flows),
        lru(
            "LB_FRAGMENTS4",
            size_of::<FragmentKey<Addr4>>(),
            size_of::<FragmentPorts>(),
            FRAGMENTS,
        ),
        lru(
            "LB_FRAGMENTS6",
            size_of::<FragmentKey<Addr6>>(),
            size_of::<FragmentPorts>(),
            FRAGMENTS,
        ),
        lru("LB_SOCK_PEERS", sock, peer, sizes.sockets),
        lru(
            "LB_SOCK_CHOICES",
            sock,
            size_of::<SockChoice>(),
            sizes.sockets,
        ),
        spec(
            "LB_SOURCES4",
            MapType::LpmTrie,
            4 + size_of::<Addr4>(),
            U32,
            SOURCES,
        ),
        spec(
            "LB_SOURCES6",
            MapType::LpmTrie,
            4 + size_of::<Addr6>(),
            U32,
            SOURCES,
        ),
        single("LB_NODE", size_of::<NodeConfig>()),
        spec(
            "LB_GUARD",
            MapType::PerCpuArray,
            U32,
            size_of::<Bucket>(),
            GUARDS as u32,
        ),
        spec(
            "LB_NEXT_HOPS",
            MapType::Array,
            U32,
            size_of::<NextHop>(),
            NEXT_HOPS,
        ),
        hash("LB_NEIGHBOURS", size_of::<Neighbour>(), U32, NEXT_HOPS),
        hash("LB_BY_XDP", U32, U32, PORTS),
        spec("LB_PORTS", MapType::DevMapHash, U32, 8, PORTS),
        spec("LB_STAGES", MapType::ProgramArray, U32, U32, 1),
        spec(
            "LB_PEERS",
            MapType::Array,
            U32,
            size_of::<Peer>(),
            sizes.backends,
        ),
        hash("LB_SENDERS4", size_of::<Addr4>(), U32, SENDERS),
        hash("LB_SENDERS6", size_of::<Addr6>(), U32, SENDERS),
        spec(
            "LB_SENDERS",
            MapType::Array,
            U32,
            size_of::<Addr6>(),
            2 * SENDERS + 1,
        ),
        hash("LB_LOCALS", size_of::<LocalKey>(), U32, LOCALS),
        spec(
            "LB_SNAT_TRIES",
            MapType::PerCpuArray,
            U32,
            size_of::<u64>(),
            SNAT_TRIES + 1,
        ),
        spec(
            "LB_COUNTERS",
            MapType::PerCpuArray,
            U32,
            size_of::<u64>(),
            COUNTERS,
        ),
    ]
}

/// Where this schema's pins are.
pub(crate) fn schema_dir(pin_dir: &Path) -> PathBuf {
    pin_dir.join(SCHEMA)
}

/// Checks a map that is already pinned. aya 0.14 would take it as it is.
///
/// # Errors
///
/// If it is of another type or size than this agent's: using it would read one struct as another.
pub(crate) fn check(spec: &Spec, path: &Path) -> Result<()> {
    let found = MapInfo::from_pin(path)
        .with_context(|| format!("cannot open the pinned map {}", path.display()))?;
    let (kind, key, value, entries) = (
        found.map_type()?,
        found.key_size(),
        found.value_size(),
        found.max_entries(),
    );
    let same = kind == spec.kind
        && key as usize == spec.key
        && value as usize == spec.value
        && entries == spec.entries;
    if !same {
        bail!(
            "the pinned map {} does not fit: it is {kind:?} with key {key}, value {value} bytes and \
             {entries} entries, this agent needs {:?} with key {}, value {} and {}. Give the sizes that \
             it was made with, or run `lb-agent purge`, which ends the flows in it",
            path.display(),
            spec.kind,
            spec.key,
            spec.value,
            spec.entries,
        );
    }
    Ok(())
}
