//! What the kernel programs and the agent must agree on: map keys and values, header parsing and
//! rewriting, checksum updates, flow hash. Pure functions, so that the same code is unit-tested and
//! run in the kernel.
//!
//! Multi-byte fields of packets keep network byte order in memory ([`Be16`], [`Addr4`], [`Addr6`]);
//! everything else is in host order.
#![cfg_attr(not(test), no_std)]

mod addr;
mod balance;
pub mod checksum;
mod dry_run;
mod flow;
pub mod fragment;
pub mod geneve;
mod hash;
pub mod headers;
pub mod icmp;
#[cfg(feature = "user")]
mod pod;
mod reason;
mod service;
mod sock;
mod suspect;
mod trace;
pub mod tunnel;

pub use addr::{Addr4, Addr6, Address, Be16};
pub use balance::{
    Affinity, AffinityKey, BackendLimit, Bucket, ServiceState, WALK_STEPS, algorithm, is_lighter,
    turn_hash,
};
pub use dry_run::{DryRun, opening};
pub use flow::{Flow, FlowKey, NOBODY, direction, flow_flag, tcp_state, touch_interval};
pub use hash::{flow_hash, next_hash, scale};
pub use reason::{Reason, is_refused};
pub use service::{
    Backend, BackendStats, ConnectionStats, FILTER_SLOTS, GUARDS, HANDSHAKE_BUCKETS, IDLE_TCP,
    IDLE_UDP, IDLE_UDP_TWO_WAY, LocalKey, Neighbour, NextHop, NodeConfig, Peer, SLOTS_LARGE,
    SLOTS_MEDIUM, SLOTS_SMALL, SNAT_TRIES, SOURCE_BITS, Service, ServiceKey, ServiceStats,
    ServiceTraffic, SourceKey, addr_flag, backend_kind, backend_state, filter_slot,
    handshake_bucket, port_flag, service_flag, service_mode, source_rule,
};
pub use sock::{SockChoice, SockKey, SockPeer, peer_flag};
pub use suspect::{Suspect, suspicion};
pub use trace::{
    REASONS_MAX, SNAP_MAX, TRACE_MATCHES, TraceConfig, TraceEvent, TraceGuard, TraceMatch,
    TraceNote, trace_flag, trace_hook, trace_verdict,
};
