//! The agent's side: every shared struct is plain old data for aya.
#![allow(unsafe_code)]

use crate::{
    Addr4, Addr6, Affinity, AffinityKey, Backend, BackendLimit, BackendStats, Bucket,
    ConnectionStats, DryRun, Flow, FlowKey, LocalKey, Neighbour, NextHop, NodeConfig, Peer,
    Service, ServiceKey, ServiceState, ServiceStats, ServiceTraffic, SockChoice, SockKey, SockPeer,
    SourceKey, Suspect, TraceConfig, TraceEvent, TraceGuard, TraceMatch,
    fragment::{FragmentKey, FragmentPorts},
};

macro_rules! pod {
    ($($ty:ty),+ $(,)?) => {
        $(
            // SAFETY: `#[repr(C)]` or transparent, integers only, no padding (the size asserts beside
            // the types), so any bytes are a value.
            unsafe impl aya::Pod for $ty {}
        )+
    };
}

pod!(
    Addr4,
    Addr6,
    Affinity,
    AffinityKey,
    Backend,
    BackendLimit,
    BackendStats,
    ConnectionStats,
    Bucket,
    DryRun,
    Flow<Addr4>,
    Flow<Addr6>,
    FlowKey<Addr4>,
    FlowKey<Addr6>,
    FragmentKey<Addr4>,
    FragmentKey<Addr6>,
    FragmentPorts,
    LocalKey,
    Neighbour,
    NextHop,
    NodeConfig,
    Peer,
    Service,
    ServiceKey<Addr4>,
    ServiceKey<Addr6>,
    ServiceState,
    ServiceStats,
    ServiceTraffic,
    SourceKey<Addr4>,
    SourceKey<Addr6>,
    SockChoice,
    SockKey,
    SockPeer,
    Suspect,
    TraceConfig,
    TraceEvent,
    TraceGuard,
    TraceMatch,
);
