//! How DNS is set up, and what it counts.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
};

use arc_swap::ArcSwap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The node itself.
pub const LOOPBACK: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
];

/// How queries are taken and passed on.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// Where to listen, UDP and TCP. Each address by itself: a reply from a wildcard socket may leave from
    /// another address than the one that was asked.
    pub listen: Vec<SocketAddr>,
    /// Who answers what is not ours, in this order; empty for the name servers of `resolv_conf`.
    pub upstreams: Vec<SocketAddr>,
    /// Written while DNS runs: who is asked at present.
    pub asked: Arc<ArcSwap<Vec<SocketAddr>>>,
    /// The system's list of name servers, read again whenever it changes.
    pub resolv_conf: PathBuf,
    /// Clients that get answers; all others are refused. May be swapped while DNS runs: the prefixes of a
    /// node change with its interfaces.
    pub allow: Arc<ArcSwap<Vec<IpNet>>>,
    /// Counters, for the caller to read.
    pub stats: Arc<Stats>,
}

/// Counts since the start.
#[derive(Debug, Default)]
pub struct Stats {
    /// Queries answered from the table.
    pub answered: AtomicU64,
    /// Queries that an upstream answered, well or badly.
    pub forwarded: AtomicU64,
    /// Queries that went to upstreams of which none answered in time.
    pub forward_failed: AtomicU64,
    /// Queries not forwarded because too many were on their way.
    pub forward_shed: AtomicU64,
    /// Queries and connections of clients outside the allowed prefixes.
    pub refused: AtomicU64,
    /// TCP connections closed at once because too many were open.
    pub tcp_shed: AtomicU64,
}

// === impl DnsConfig ===

impl Default for DnsConfig {
    /// Listens nowhere, serves the node itself, forwards to the system's name servers.
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            upstreams: Vec::new(),
            asked: Arc::default(),
            resolv_conf: "/etc/resolv.conf".into(),
            allow: Arc::new(ArcSwap::from_pointee(LOOPBACK.to_vec())),
            stats: Arc::default(),
        }
    }
}
