//! A flow as people and machines see it.

use std::{fmt, net::SocketAddr};

use lb_common::{backend_kind, tcp_state};
use serde::{Deserialize, Serialize};

use crate::{admin::report::protocol, catalog::Protocol};

/// The body of `GET /v1/flows` and of `lb-agent flows --json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FlowsReport {
    /// By VIP, then by client; no more than were asked for.
    pub flows: Vec<FlowReport>,
    /// Further ones that match.
    pub more: u64,
}

/// One flow: both of its table entries together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FlowReport {
    /// `tcp` or `udp`.
    #[serde(with = "protocol")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub protocol: Protocol,
    /// Who opened it.
    pub client: SocketAddr,
    /// What the client speaks to.
    pub vip: SocketAddr,
    /// The VIP's canonical name without zone; `None`: an IP VIP, or a service that is gone.
    pub name: Option<String>,
    /// Where it is carried to; `None`: the backend is gone, and under direct server return nothing else tells.
    pub backend: Option<SocketAddr>,
    /// How it is carried there.
    pub how: Way,
    /// How far it is.
    pub state: FlowState,
    /// Since the last packet, s. A time stamp moves seldom, so that it may be 8 s too much for TCP and 1 s for UDP.
    pub idle_s: u64,
    /// Since the first packet, s; of a flow older than 49 days less by so much.
    #[serde(default)]
    pub age_s: u64,
}

/// How packets get to a backend; direct server return is called as the mode of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Elsewhere on the network, both addresses translated.
    Nat,
    /// A socket of this node.
    Host,
    /// A container or VM behind an interface of this node.
    Link,
    /// Inside another IP packet; the reply does not come by here.
    DsrIpip,
    /// In a frame to a neighbour; the reply does not come by here.
    DsrL2,
    /// By Geneve to the agent of its node; the reply does not come by here.
    DsrGeneve,
}

/// How far a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum FlowState {
    /// TCP: the client has not confirmed it yet.
    HalfOpen,
    /// It carries packets; UDP: both ways.
    Established,
    /// UDP: nothing came back so far.
    OneWay,
    /// TCP: one side has closed it, or both.
    Closing,
    /// TCP: one side has reset it.
    Reset,
}

// === impl FlowReport ===

impl FlowReport {
    /// The order in which they are shown.
    pub fn order(&self, other: &Self) -> std::cmp::Ordering {
        let key = |flow: &Self| (flow.vip, flow.protocol, flow.client);
        key(self).cmp(&key(other))
    }
}

// === impl Way ===

impl Way {
    /// Of one of `backend_kind`.
    pub fn of(kind: u8) -> Self {
        match kind {
            backend_kind::HOST => Self::Host,
            backend_kind::LINK => Self::Link,
            backend_kind::IPIP => Self::DsrIpip,
            backend_kind::L2 => Self::DsrL2,
            backend_kind::GENEVE => Self::DsrGeneve,
            _ => Self::Nat,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nat => "nat",
            Self::Host => "host",
            Self::Link => "link",
            Self::DsrIpip => "dsr-ipip",
            Self::DsrL2 => "dsr-l2",
            Self::DsrGeneve => "dsr-geneve",
        })
    }
}

// === impl FlowState ===

impl FlowState {
    /// Of a flow in the table of half-open connections or not, with these bits of `tcp_state`; `two_way`: packets
    /// went both ways.
    pub fn of(protocol: Protocol, half_open: bool, tcp: u8, two_way: bool) -> Self {
        match protocol {
            Protocol::Udp if two_way => Self::Established,
            Protocol::Udp => Self::OneWay,
            Protocol::Tcp if tcp & tcp_state::RST != 0 => Self::Reset,
            Protocol::Tcp if tcp & (tcp_state::FIN | tcp_state::PEER_CLOSED) != 0 => Self::Closing,
            Protocol::Tcp if half_open => Self::HalfOpen,
            Protocol::Tcp => Self::Established,
        }
    }
}

impl fmt::Display for FlowState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::HalfOpen => "half-open",
            Self::Established => "established",
            Self::OneWay => "one-way",
            Self::Closing => "closing",
            Self::Reset => "reset",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_connections_state_is_the_furthest_that_was_seen() {
        use FlowState::*;
        for (half_open, tcp, state) in [
            (true, 0, HalfOpen),
            (false, 0, Established),
            (false, tcp_state::FIN, Closing),
            (false, tcp_state::PEER_CLOSED, Closing),
            (false, tcp_state::FIN | tcp_state::RST, Reset),
            (true, tcp_state::RST | tcp_state::PEER_CLOSED, Reset),
        ] {
            let found = FlowState::of(Protocol::Tcp, half_open, tcp, true);
            assert_eq!(found, state, "{half_open} {tcp}");
        }
        assert_eq!(FlowState::of(Protocol::Udp, false, 0, false), OneWay);
        assert_eq!(FlowState::of(Protocol::Udp, false, 0, true), Established);
    }

    #[test]
    fn a_state_is_called_the_same_in_json_and_in_the_table() {
        for state in [
            FlowState::HalfOpen,
            FlowState::Established,
            FlowState::OneWay,
            FlowState::Closing,
            FlowState::Reset,
        ] {
            let json = serde_json::to_value(state).unwrap();
            assert_eq!(json, state.to_string());
        }
    }

    /// Of `backend_kind`, as its source has them: a new one is not to be forgotten.
    fn kinds() -> Vec<u8> {
        let source = include_str!("../../../lb-common/src/service.rs");
        let (_, kinds) = source.split_once("pub mod backend_kind {").unwrap();
        let (kinds, _) = kinds.split_once("\n}").unwrap();
        kinds
            .lines()
            .filter_map(|line| {
                line.trim()
                    .strip_prefix("pub const ")?
                    .split_once(": u8 = ")
            })
            .map(|(_, number)| number.trim_end_matches(';').parse().unwrap())
            .collect()
    }

    #[test]
    fn every_kind_of_backend_is_a_way_of_its_own() {
        let kinds = kinds();
        assert!(kinds.contains(&backend_kind::NET) && kinds.contains(&backend_kind::GENEVE));
        let ways: BTreeMap<_, _> = kinds
            .iter()
            .map(|kind| (Way::of(*kind).to_string(), *kind))
            .collect();
        assert_eq!(ways.len(), kinds.len(), "{ways:?} of {kinds:?}");
        for (name, kind) in ways {
            assert_eq!(serde_json::to_value(Way::of(kind)).unwrap(), name);
            assert_eq!(name.starts_with("dsr-"), backend_kind::is_dsr(kind));
        }
    }
}
