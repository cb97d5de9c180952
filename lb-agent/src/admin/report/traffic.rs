//! What was counted of backends and services.

use serde::{Deserialize, Serialize};

/// What was counted since the backend came. A number that cannot be known is missing: where a backend answers
/// clients directly, nothing of what it says comes by; and once a UDP socket of a local process spoke to it, nobody
/// has counted all of its packets and bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Traffic {
    /// Flows at present; those of local UDP sockets until the socket is closed.
    pub flows_active: u64,
    /// Flows that it was given.
    pub flows_new: u64,
    /// TCP connections that ended, and UDP sockets of local processes.
    pub flows_closed: u64,
    /// Packets to it; segments, counted at the end, of local connections.
    pub packets_in: Option<u64>,
    /// Packets from it, as `packets_in`.
    pub packets_out: Option<u64>,
    /// Bytes to it: with IP headers from outside; payload, counted at the end, of local connections.
    pub bytes_in: Option<u64>,
    /// Bytes from it, as `bytes_in`.
    pub bytes_out: Option<u64>,
    /// What became of its connections.
    #[serde(flatten)]
    pub outcomes: Outcomes,
    /// The counters cannot be read: nothing of this is known.
    #[serde(skip)]
    pub unread: bool,
}

/// What was counted of a service since it came, at its VIPs and ports of the node together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ServiceTraffic {
    /// Flows at present, as in [`Traffic`].
    pub flows_active: u64,
    /// Flows that it opened.
    pub flows_new: u64,
    /// First packets and calls that opened none: no backend, not allowed, too many.
    pub flows_refused: u64,
    /// Of those: the client may not use the service.
    #[serde(default)]
    pub flows_denied: u64,
    /// Of those: too many flows, or too many new ones a second.
    #[serde(default)]
    pub flows_limited: u64,
    /// Of those: a table was full, or no port was left.
    #[serde(default)]
    pub flows_lost: u64,
    /// Packets from clients, as in [`Traffic`].
    pub packets_in: Option<u64>,
    /// Packets to clients; `None` also where some backends answer them directly.
    pub packets_out: Option<u64>,
    /// Bytes from clients.
    pub bytes_in: Option<u64>,
    /// Bytes to clients; `None` as above.
    pub bytes_out: Option<u64>,
    /// Handshakes by time: those below 65.536 us, then each next number those of up to twice as long, the last one
    /// all from 1.07 s on.
    pub handshakes: Vec<u64>,
    /// Packets whose TCP header is cut short.
    #[serde(default)]
    pub malformed: u64,
    /// What became of its connections.
    #[serde(default)]
    pub connections: Connections,
    /// As in [`Traffic`].
    #[serde(skip)]
    pub unread: bool,
}

/// What became of a service's connections: of a backend that others share, its own alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Connections {
    /// Those that ended.
    pub closed: u64,
    /// What became of them.
    #[serde(flatten)]
    pub outcomes: Outcomes,
}

/// What became of connections. A number that cannot be known is missing, as in [`Traffic`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Outcomes {
    /// Those that the client reset.
    pub client_resets: u64,
    /// Those that the backend reset, refused ones from outside included.
    pub backend_resets: Option<u64>,
    /// Of those: those from outside that it refused.
    #[serde(default)]
    pub refused: Option<u64>,
    /// Local ones that it did not accept.
    pub failed: u64,
    /// SYNs that were sent again.
    pub syn_retransmits: u64,
    /// Segments that local clients sent again, SYNs included.
    pub retransmits: u64,
    /// Those that it accepted and whose handshake was timed.
    pub handshakes: Option<u64>,
    /// From SYN to SYN-ACK, all of them together, ns.
    pub handshake_ns: Option<u64>,
    /// Flows that were taken from it and given to another, since it refused, was silent or was gone.
    #[serde(default)]
    pub redispatched: u64,
    /// How long those that ended lived, all of them together, ms.
    #[serde(default)]
    pub lived_ms: u64,
}

// === impl Traffic ===

impl Traffic {
    /// What came since the counters stood at `zero`.
    pub(crate) fn since(&self, zero: &Self) -> Self {
        let Self {
            flows_active,
            flows_new,
            flows_closed,
            packets_in,
            packets_out,
            bytes_in,
            bytes_out,
            outcomes,
            unread,
        } = self;
        Self {
            flows_active: *flows_active,
            flows_new: since(*flows_new, zero.flows_new),
            flows_closed: since(*flows_closed, zero.flows_closed),
            packets_in: known_since(*packets_in, zero.packets_in),
            packets_out: known_since(*packets_out, zero.packets_out),
            bytes_in: known_since(*bytes_in, zero.bytes_in),
            bytes_out: known_since(*bytes_out, zero.bytes_out),
            outcomes: outcomes.since(&zero.outcomes),
            unread: *unread,
        }
    }

    pub(super) fn unread() -> Self {
        Self {
            unread: true,
            ..Self::default()
        }
    }

    pub(super) fn is_unread(&self) -> bool {
        self.unread
    }
}

// === impl ServiceTraffic ===

impl ServiceTraffic {
    /// What came since the counters stood at `zero`.
    pub(crate) fn since(&self, zero: &Self) -> Self {
        let Self {
            flows_active,
            flows_new,
            flows_refused,
            flows_denied,
            flows_limited,
            flows_lost,
            packets_in,
            packets_out,
            bytes_in,
            bytes_out,
            handshakes,
            malformed,
            connections,
            unread,
        } = self;
        let before = |bucket| zero.handshakes.get(bucket).copied().unwrap_or(0);
        let handshakes = handshakes.iter().enumerate();
        Self {
            flows_active: *flows_active,
            flows_new: since(*flows_new, zero.flows_new),
            flows_refused: since(*flows_refused, zero.flows_refused),
            flows_denied: since(*flows_denied, zero.flows_denied),
            flows_limited: since(*flows_limited, zero.flows_limited),
            flows_lost: since(*flows_lost, zero.flows_lost),
            packets_in: known_since(*packets_in, zero.packets_in),
            packets_out: known_since(*packets_out, zero.packets_out),
            bytes_in: known_since(*bytes_in, zero.bytes_in),
            bytes_out: known_since(*bytes_out, zero.bytes_out),
            handshakes: handshakes
                .map(|(bucket, count)| since(*count, before(bucket)))
                .collect(),
            malformed: since(*malformed, zero.malformed),
            connections: Connections {
                closed: since(connections.closed, zero.connections.closed),
                outcomes: connections.outcomes.since(&zero.connections.outcomes),
            },
            unread: *unread,
        }
    }

    /// First packets and calls that opened no flow since no backend took it.
    pub fn flows_unserved(&self) -> u64 {
        let known = self.flows_denied + self.flows_limited + self.flows_lost;
        self.flows_refused.saturating_sub(known)
    }

    pub(super) fn unread() -> Self {
        Self {
            unread: true,
            ..Self::default()
        }
    }

    pub(super) fn is_unread(&self) -> bool {
        self.unread
    }
}

// === impl Outcomes ===

impl Outcomes {
    /// Connections that were not accepted.
    pub(crate) fn failed(&self) -> u64 {
        self.failed + self.refused.unwrap_or(0)
    }

    /// Connections that were accepted and then reset by the backend.
    pub(crate) fn aborted(&self) -> Option<u64> {
        let refused = self.refused.unwrap_or(0);
        Some(self.backend_resets?.saturating_sub(refused))
    }

    fn since(&self, zero: &Self) -> Self {
        let Self {
            client_resets,
            backend_resets,
            refused,
            failed,
            syn_retransmits,
            retransmits,
            handshakes,
            handshake_ns,
            redispatched,
            lived_ms,
        } = self;
        Self {
            client_resets: since(*client_resets, zero.client_resets),
            backend_resets: known_since(*backend_resets, zero.backend_resets),
            refused: known_since(*refused, zero.refused),
            failed: since(*failed, zero.failed),
            syn_retransmits: since(*syn_retransmits, zero.syn_retransmits),
            retransmits: since(*retransmits, zero.retransmits),
            handshakes: known_since(*handshakes, zero.handshakes),
            handshake_ns: known_since(*handshake_ns, zero.handshake_ns),
            redispatched: since(*redispatched, zero.redispatched),
            lived_ms: since(*lived_ms, zero.lived_ms),
        }
    }
}

/// A counter that went down began anew.
pub(crate) fn since(now: u64, zero: u64) -> u64 {
    now.checked_sub(zero).unwrap_or(now)
}

fn known_since(now: Option<u64>, zero: Option<u64>) -> Option<u64> {
    now.map(|now| since(now, zero.unwrap_or(0)))
}
