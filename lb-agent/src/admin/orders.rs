//! What the operator orders about backends, as it comes over the admin socket.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::catalog::Port;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// No new connections; those it has go on, until the deadline if there is one.
    Drain,
    /// The same, shown as maintenance.
    Maintenance,
    /// Whatever the operator said of it before does not hold any more.
    Ready,
    /// HAProxy's `ready`: drain, maintenance and forced health do not hold any more; weight, limit and checks stay.
    Enable,
    /// Its share of new connections.
    Weight(u16),
    /// The connections that it has are reset; new ones go on coming.
    Reset,
    /// How it is, whatever its checks and its orchestrator's say.
    Health(Forced),
    /// The agent's own checks of it go on, or stop and leave it as it is.
    Checks(bool),
    /// Flows at a time of a backend or of a service; 0: what its orchestrator says holds again.
    Limit(u32),
    /// Whether a service takes new flows.
    Open(bool),
    /// The address of a name that nobody is behind is given to another one.
    Release,
    /// The port at which its checks ask it; 0: what its service says holds again.
    CheckPort(u16),
    /// A service gets one backend more.
    Add(NewServer),
    /// A backend is at another address.
    Move {
        /// What HAProxy's tools call it.
        server: String,
        /// Where it listens now.
        to: SocketAddr,
    },
    /// A backend that was added goes.
    Delete {
        /// What HAProxy's tools call it.
        server: String,
    },
}

/// A backend that an operator adds to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewServer {
    /// What HAProxy's tools call it: `web_80/new`.
    pub server: String,
    /// Its share of new flows, 0..=256.
    pub weight: u16,
    /// Used only while no other backend takes flows.
    pub backup: bool,
    /// Flows at a time; 0: no limit.
    pub max_flows: u32,
    /// The port at which its checks ask it, if it is another than its service says.
    pub check_port: Option<Port>,
    /// It takes flows at once, instead of being in maintenance.
    pub enabled: bool,
}

/// Health in the operator's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Forced {
    /// It takes new flows.
    Up,
    /// It takes no new flows and keeps those that it has.
    Stopping,
    /// It takes no new flows, and those that it has are reset.
    Down,
}

/// Which backends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Which {
    /// The backends of that name; `None`: all that are on this node, or the service itself where one is named.
    pub backend: Option<Named>,
    /// Of this service alone.
    #[serde(default)]
    pub service: Option<String>,
}

/// How a backend is named.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Named {
    /// Where it listens.
    At(SocketAddr),
    /// All that listen at this address.
    Host(IpAddr),
    /// The orchestrator's id of the instance.
    Task(String),
}

/// One order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What is to be done.
    pub act: Act,
    /// With whom.
    pub which: Which,
    /// When connections that are left are reset, s from now.
    pub deadline: Option<u64>,
}

/// What became of an order: what now holds for which backend, or why nothing was changed.
pub type Obeyed = Result<Vec<String>, String>;

/// An order on its way to the control loop.
pub type Ordered = (Order, oneshot::Sender<Obeyed>);

/// An order as the query of a request.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    backend: Option<String>,
    node: Option<bool>,
    service: Option<String>,
    deadline: Option<u64>,
    weight: Option<u16>,
    state: Option<Forced>,
}

/// The longest name that is taken, bytes.
const LONGEST: usize = 512;
/// The latest deadline, s: 30 days.
const LATEST: u64 = 30 * 86_400;

// === impl Asked ===

impl Asked {
    /// The order; `act`: what the page is for, the weight is in the query.
    pub(super) fn read(self, act: Act) -> Result<Order, String> {
        let Self {
            backend,
            node,
            service,
            deadline,
            weight,
            state,
        } = self;
        let named = match (backend, node.unwrap_or(false)) {
            (Some(backend), false) => Some(backend.parse()?),
            (None, true) => None,
            _ => return Err("say either which backend, or that it is the node".to_owned()),
        };
        if service
            .as_ref()
            .is_some_and(|name| name.is_empty() || name.len() > LONGEST)
        {
            return Err("the service's name is empty or too long".to_owned());
        }
        if named.is_none() && service.is_some() {
            return Err("the node drains for all services: leave the service out".to_owned());
        }
        let act = match (act, state) {
            (Act::Health(_), Some(state)) => Act::Health(state),
            (Act::Health(_), None) => {
                return Err("say which state: up, stopping or down".to_owned());
            }
            (_, Some(_)) => return Err("a state has no meaning here".to_owned()),
            (act, None) => act,
        };
        let act = match (act, weight) {
            (Act::Weight(_), Some(weight)) if weight <= 256 && named.is_some() => {
                Act::Weight(weight)
            }
            (Act::Weight(_), Some(_)) if named.is_none() => {
                return Err("a node has no weight, its backends have".to_owned());
            }
            (Act::Weight(_), _) => return Err("say which weight, 0 to 256".to_owned()),
            (_, Some(_)) => return Err("a weight has no meaning here".to_owned()),
            (act, None) => act,
        };
        if deadline.is_some() && !matches!(act, Act::Drain | Act::Maintenance) {
            return Err("a deadline has a meaning for drain and maintenance only".to_owned());
        }
        if deadline.is_some_and(|seconds| seconds > LATEST) {
            return Err(format!("the deadline is more than {LATEST} s away"));
        }
        Ok(Order {
            act,
            which: Which {
                backend: named,
                service,
            },
            deadline,
        })
    }
}

// === impl Act ===

impl Act {
    /// Whether there are other backends after it.
    pub(crate) fn is_about_who_is_there(&self) -> bool {
        matches!(self, Self::Add(_) | Self::Move { .. } | Self::Delete { .. })
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drain => f.write_str("drain"),
            Self::Maintenance => f.write_str("maintenance"),
            Self::Ready => f.write_str("ready"),
            Self::Enable => f.write_str("enable"),
            Self::Weight(weight) => write!(f, "weight {weight}"),
            Self::Reset => f.write_str("reset"),
            Self::Health(forced) => write!(f, "health {forced}"),
            Self::Checks(true) => f.write_str("checks on"),
            Self::Checks(false) => f.write_str("checks off"),
            Self::Limit(flows) => write!(f, "limit {flows}"),
            Self::Open(true) => f.write_str("open"),
            Self::Open(false) => f.write_str("stop"),
            Self::CheckPort(port) => write!(f, "check port {port}"),
            Self::Add(new) => write!(f, "add {new}"),
            Self::Move { server, to } => write!(f, "move {server} to {to}"),
            Self::Delete { server } => write!(f, "delete {server}"),
            Self::Release => f.write_str("release"),
        }
    }
}

// === impl NewServer ===

impl fmt::Display for NewServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} weight {}", self.server, self.weight)?;
        if self.max_flows > 0 {
            write!(f, " limit {}", self.max_flows)?;
        }
        if let Some(port) = self.check_port {
            write!(f, " check port {port}")?;
        }
        f.write_str(if self.backup { " backup" } else { "" })?;
        f.write_str(if self.enabled { " enabled" } else { "" })
    }
}

// === impl Forced ===

impl fmt::Display for Forced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Stopping => "stopping",
            Self::Down => "down",
        })
    }
}

// === impl Which ===

impl Which {
    /// Whether the service itself is meant, and none of its backends.
    pub fn is_service(&self) -> bool {
        self.backend.is_none() && self.service.is_some()
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.backend, &self.service) {
            (Some(named), None) => named.fmt(f),
            (Some(named), Some(service)) => write!(f, "{named} of {service}"),
            (None, Some(service)) => f.write_str(service),
            (None, None) => f.write_str("this node"),
        }
    }
}

// === impl Named ===

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(at) = text.parse::<SocketAddr>() {
            return Ok(Self::At(SocketAddr::new(at.ip().to_canonical(), at.port())));
        }
        if let Ok(addr) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(Self::Host(addr.to_canonical()));
        }
        if text.is_empty() || text.len() > LONGEST {
            return Err(format!("{text:?} is neither an address nor a task's id"));
        }
        Ok(Self::Task(text.to_owned()))
    }
}

impl TryFrom<String> for Named {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Named> for String {
    fn from(named: Named) -> Self {
        named.to_string()
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(at) => at.fmt(f),
            Self::Host(addr) => addr.fmt(f),
            Self::Task(id) => f.write_str(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(backend: Option<&str>) -> Asked {
        Asked {
            backend: backend.map(str::to_owned),
            ..Asked::default()
        }
    }

    #[test]
    fn a_backend_is_named_by_address_host_or_task() {
        for (text, expected) in [
            ("10.0.0.1:80", Named::At("10.0.0.1:80".parse().unwrap())),
            (
                "[::ffff:10.0.0.1]:80",
                Named::At("10.0.0.1:80".parse().unwrap()),
            ),
            ("[fd00::1]:80", Named::At("[fd00::1]:80".parse().unwrap())),
            ("fd00::1", Named::Host("fd00::1".parse().unwrap())),
            ("[fd00::1]", Named::Host("fd00::1".parse().unwrap())),
            ("10.0.0.1", Named::Host("10.0.0.1".parse().unwrap())),
            ("web.1", Named::Task("web.1".to_owned())),
        ] {
            let named: Named = text.parse().unwrap();
            assert_eq!(named, expected);
            assert_eq!(String::from(named.clone()).parse(), Ok(named));
        }
        assert!("".parse::<Named>().is_err());
    }

    #[test]
    fn an_order_that_makes_no_sense_is_refused_with_what_would() {
        let node = || Asked {
            node: Some(true),
            ..Asked::default()
        };
        let weight = |asked, weight| Asked {
            weight: Some(weight),
            ..asked
        };
        let deadline = |seconds| Asked {
            deadline: Some(seconds),
            ..asked(Some("a"))
        };
        for (asked, act, expected) in [
            (asked(None), Act::Drain, "say either which backend"),
            (
                Asked {
                    node: Some(true),
                    ..asked(Some("a"))
                },
                Act::Drain,
                "say either which backend",
            ),
            (
                Asked {
                    service: Some("a".to_owned()),
                    ..node()
                },
                Act::Drain,
                "leave the service out",
            ),
            (asked(Some("a")), Act::Weight(0), "say which weight"),
            (
                weight(asked(Some("a")), 257),
                Act::Weight(0),
                "say which weight",
            ),
            (weight(node(), 1), Act::Weight(0), "a node has no weight"),
            (
                weight(asked(Some("a")), 1),
                Act::Drain,
                "a weight has no meaning",
            ),
            (deadline(1), Act::Ready, "drain and maintenance only"),
            (deadline(1), Act::Reset, "drain and maintenance only"),
            (asked(Some("a")), Act::Health(Forced::Up), "say which state"),
            (
                Asked {
                    state: Some(Forced::Down),
                    ..asked(Some("a"))
                },
                Act::Drain,
                "a state has no meaning",
            ),
            (deadline(LATEST + 1), Act::Drain, "s away"),
        ] {
            let refused = asked.read(act).unwrap_err();
            assert!(refused.contains(expected), "{expected}: {refused}");
        }
        assert_eq!(
            node().read(Act::Ready).unwrap().which.to_string(),
            "this node"
        );
        let order = weight(asked(Some("10.0.0.1:80")), 256)
            .read(Act::Weight(0))
            .unwrap();
        assert_eq!(order.act, Act::Weight(256));
    }
}
