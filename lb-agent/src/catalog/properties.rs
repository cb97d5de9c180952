//! How a service spreads its flows, how many it takes and from whom, and how they get to its backends.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use ipnet::IpNet;
use lb_common::{IDLE_TCP, IDLE_UDP, IDLE_UDP_TWO_WAY};

use super::{Check, Port};

/// What one service is to be like. Every default is what a service without any of this gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// How packets from outside get to backends that are elsewhere.
    pub mode: Mode,
    /// How a backend is chosen for a new flow.
    pub balance: Balance,
    /// How long a client without new flows is given its backend again, s; 0: no affinity.
    pub affinity: u32,
    /// Flows at a time; 0: no limit. Packet path.
    pub max_flows: u32,
    /// New flows a second; 0: no limit. Packet path.
    pub rate: u32,
    /// New flows a second of one client address; 0: no limit. Packet path.
    pub source_rate: u32,
    /// When a silent flow is over.
    pub idle: Idle,
    /// Clients by prefix; of several that hold a client the longest counts. With any [`Source::Allow`] in it, a
    /// client that no prefix holds is kept out. Packet path.
    pub sources: BTreeMap<IpNet, Source>,
    /// Whether clients that may not use the service are refused, instead of left without an answer. Packet path.
    pub refuses: bool,
    /// Ports of the node's own addresses at which the service is to stand, too.
    pub external: BTreeSet<Port>,
    /// What HAProxy's tools call it, without its port; `None`: by its name or address.
    pub called: Option<Arc<str>>,
    /// Groups of agents that serve it; empty: all agents do.
    pub groups: BTreeSet<Arc<str>>,
    /// How its backends are checked; `None`: what their orchestrator says is all that counts.
    pub check: Option<Arc<Check>>,
    /// Whether new flows are refused while every backend is down, instead of going to them all the same.
    pub fail_closed: bool,
    /// How long the share of a backend that comes up grows until it is whole, s; 0: it is at once.
    pub slow_start: u32,
    /// How long a backend that is about to end keeps the flows that it has, s; `None`: until they are over.
    pub drain: Option<u32>,
}

/// How packets from outside get to backends that are elsewhere. A backend on this node is always reached by
/// DNAT, and local clients by the socket path, whatever the mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// What is best without a change to the backends: as [`Mode::DsrGeneve`] for backends on peers where the operator
    /// turned that on, else as [`Mode::Nat`].
    #[default]
    Auto,
    /// Full NAT: replies come back through this node.
    Nat,
    /// Direct server return by the agent on the backend's host, a peer, which translates.
    DsrGeneve,
    /// Direct server return: the packet as it is inside another one, to a host that takes it out and carries the
    /// VIP (RFC 2003, RFC 2473).
    DsrIpip,
    /// Direct server return: the packet as it is, in a frame to a neighbour that carries the VIP.
    DsrL2,
}

/// How a backend is chosen for a new flow, in shares by weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// By the flow's hash, on every node alike.
    #[default]
    Maglev,
    /// The one of two drawn at random that has fewer flows for its weight.
    LeastConn,
    /// One after the other.
    RoundRobin,
    /// By the hash of the client's address: all flows of a client go to one backend.
    Source,
}

/// When a silent flow is over, s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// A TCP connection.
    pub tcp: u32,
    /// A UDP flow that was never answered.
    pub udp: u32,
    /// A UDP flow that went both ways.
    pub udp_two_way: u32,
}

/// What a service says of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// It may reach the service.
    Allow,
    /// It may not.
    Deny,
}

// === impl Properties ===

impl Properties {
    /// The names, as in a services file, of what differs.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let Self {
            mode,
            balance,
            affinity,
            max_flows,
            rate,
            source_rate,
            idle,
            sources,
            refuses,
            external,
            // Two that are the same under two names are the same.
            called: _,
            // Each is served where it says.
            groups: _,
            check,
            fail_closed,
            slow_start,
            drain,
        } = self;
        let of = |rule| {
            let mine = sources.iter().filter(move |(_, held)| **held == rule);
            let theirs = other.sources.iter().filter(move |(_, held)| **held == rule);
            mine.ne(theirs)
        };
        [
            ("mode", *mode != other.mode),
            ("balance", *balance != other.balance),
            ("affinity", *affinity != other.affinity),
            ("max-flows", *max_flows != other.max_flows),
            ("rate", *rate != other.rate),
            ("source-rate", *source_rate != other.source_rate),
            ("idle", *idle != other.idle),
            ("allow", of(Source::Allow)),
            ("deny", of(Source::Deny)),
            ("denied", *refuses != other.refuses),
            ("external", *external != other.external),
            ("check", *check != other.check),
            ("fail-open", *fail_closed != other.fail_closed),
            ("slow-start", *slow_start != other.slow_start),
            ("drain", *drain != other.drain),
        ]
        .into_iter()
        .filter_map(|(name, differs)| differs.then_some(name))
        .collect()
    }
}

/// What becomes of clients that may not use the service: [`Properties::refuses`] by its names.
pub const DENIED: [(&str, bool); 2] = [("drop", false), ("refuse", true)];

// === impl Mode ===

impl Mode {
    /// Every mode with its name.
    pub const NAMES: [(&str, Self); 5] = [
        ("auto", Self::Auto),
        ("nat", Self::Nat),
        ("dsr-geneve", Self::DsrGeneve),
        ("dsr-ipip", Self::DsrIpip),
        ("dsr-l2", Self::DsrL2),
    ];

    /// Whether backends that are elsewhere answer the client directly.
    pub fn is_dsr(self) -> bool {
        matches!(self, Self::DsrGeneve | Self::DsrIpip | Self::DsrL2)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_in(&Self::NAMES, *self))
    }
}

// === impl Balance ===

impl Balance {
    /// Every way with its name.
    pub const NAMES: [(&str, Self); 4] = [
        ("maglev", Self::Maglev),
        ("least-conn", Self::LeastConn),
        ("round-robin", Self::RoundRobin),
        ("source", Self::Source),
    ];
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_in(&Self::NAMES, *self))
    }
}

fn name_in<T: PartialEq>(names: &[(&'static str, T)], value: T) -> &'static str {
    let found = names.iter().find(|(_, named)| *named == value);
    found.map_or("", |(name, _)| name)
}

// === impl Idle ===

impl Default for Idle {
    fn default() -> Self {
        Self {
            tcp: IDLE_TCP,
            udp: IDLE_UDP,
            udp_two_way: IDLE_UDP_TWO_WAY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named_as_it_is_written() {
        let net = |text: &str| text.parse().expect("a prefix");
        let one = Properties {
            balance: Balance::LeastConn,
            sources: [(net("10.0.0.0/8"), Source::Allow)].into(),
            ..Properties::default()
        };
        assert_eq!(one.differences(&one), [""; 0]);
        assert_eq!(
            one.differences(&Properties::default()),
            ["balance", "allow"]
        );
        let turned = Properties {
            sources: [(net("10.0.0.0/8"), Source::Deny)].into(),
            ..one.clone()
        };
        assert_eq!(one.differences(&turned), ["allow", "deny"]);
        let refusing = Properties {
            refuses: true,
            ..one.clone()
        };
        assert_eq!(one.differences(&refusing), ["denied"]);
    }

    #[test]
    fn each_name_is_that_of_its_value() {
        for (name, mode) in Mode::NAMES {
            assert_eq!(mode.to_string(), name);
        }
        for (name, balance) in Balance::NAMES {
            assert_eq!(balance.to_string(), name);
        }
    }
}
