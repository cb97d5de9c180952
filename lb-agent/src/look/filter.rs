//! Which flows are asked for.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use super::FlowReport;
use crate::plan::Endpoint;

/// Flows shown when nobody says how many.
pub const LIMIT: usize = 1_000;
/// Flows shown at most: what the agent holds in memory for one answer, some 30 MB.
pub const MOST: usize = 100_000;

/// An address, with or without a port: `10.0.0.1`, `10.0.0.1:80`, `fd00::1`, `[fd00::1]:80`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Never `::ffff:a.b.c.d`: that is `a.b.c.d`.
    pub addr: IpAddr,
    /// Host byte order; `None`: any.
    pub port: Option<u16>,
}

/// Text that is no [`Spot`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither an address nor ADDRESS:PORT; an IPv6 address with a port is [ADDRESS]:PORT")]
pub struct BadSpot;

/// What a flow must have to be shown; whatever is `None` may be anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The address that the client speaks to.
    pub vip: Option<Spot>,
    /// Who opened it.
    pub client: Option<Spot>,
    /// Where it is carried to.
    pub backend: Option<Spot>,
    /// The VIPs of a service.
    pub services: Option<BTreeSet<Endpoint>>,
}

// === impl Spot ===

impl Spot {
    pub(super) fn is(self, at: SocketAddr) -> bool {
        self.addr == at.ip() && self.port.is_none_or(|port| port == at.port())
    }
}

impl FromStr for Spot {
    type Err = BadSpot;

    fn from_str(text: &str) -> Result<Self, BadSpot> {
        if let Ok(at) = text.parse::<SocketAddr>() {
            return Ok(Self {
                addr: at.ip().to_canonical(),
                port: Some(at.port()),
            });
        }
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .filter(|inner| inner.contains(':'))
            .unwrap_or(text);
        let addr: IpAddr = bare.parse().map_err(|_| BadSpot)?;
        Ok(Self {
            addr: addr.to_canonical(),
            port: None,
        })
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.addr, port).fmt(f),
            None => self.addr.fmt(f),
        }
    }
}

// === impl Filter ===

impl Filter {
    /// Whether this flow is one of those asked for.
    pub fn matches(&self, flow: &FlowReport) -> bool {
        let Self {
            vip,
            client,
            backend,
            services,
        } = self;
        vip.is_none_or(|spot| spot.is(flow.vip))
            && client.is_none_or(|spot| spot.is(flow.client))
            && backend.is_none_or(|spot| flow.backend.is_some_and(|at| spot.is(at)))
            && services
                .as_ref()
                .is_none_or(|vips| vips.contains(&Endpoint::new(flow.vip, flow.protocol.number())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        catalog::Protocol,
        look::{FlowState, Way},
    };

    fn flow() -> FlowReport {
        FlowReport {
            protocol: Protocol::Tcp,
            client: "192.0.2.7:40000".parse().unwrap(),
            vip: "11.0.0.1:80".parse().unwrap(),
            name: None,
            backend: Some("10.0.0.1:8080".parse().unwrap()),
            how: Way::Nat,
            state: FlowState::Established,
            idle_s: 0,
            age_s: 0,
        }
    }

    fn spot(text: &str) -> Option<Spot> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn an_address_may_stand_alone_or_with_a_port_in_both_families() {
        for (text, shown) in [
            ("10.0.0.1", "10.0.0.1"),
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("fd00::1", "fd00::1"),
            ("[fd00::1]", "fd00::1"),
            ("[fd00::1]:80", "[fd00::1]:80"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(text.parse::<Spot>().unwrap().to_string(), shown);
        }
        for wrong in [
            "",
            "10.0.0",
            "10.0.0.1:",
            "10.0.0.1:x",
            "10.0.0.1:70000",
            "[10.0.0.1]",
            "host:80",
            "[fd00::1",
            "fd00::1]:80",
            " 10.0.0.1",
        ] {
            assert_eq!(wrong.parse::<Spot>(), Err(BadSpot), "{wrong}");
        }
    }

    #[test]
    fn a_flow_is_shown_if_all_that_is_asked_for_holds() {
        let all = Filter::default();
        assert!(all.matches(&flow()));
        let one = Filter {
            vip: spot("11.0.0.1:80"),
            client: spot("192.0.2.7"),
            backend: spot("10.0.0.1:8080"),
            services: Some([Endpoint::new(flow().vip, 6)].into()),
        };
        assert!(one.matches(&flow()));
        for other in [
            Filter {
                vip: spot("11.0.0.1:81"),
                ..one.clone()
            },
            Filter {
                client: spot("192.0.2.8"),
                ..one.clone()
            },
            Filter {
                backend: spot("10.0.0.1:80"),
                ..one.clone()
            },
            Filter {
                services: Some([Endpoint::new(flow().vip, 17)].into()),
                ..one.clone()
            },
            Filter {
                services: Some(BTreeSet::new()),
                ..one
            },
        ] {
            assert!(!other.matches(&flow()), "{other:?}");
        }
    }

    #[test]
    fn a_flow_whose_backend_is_not_known_is_no_backends() {
        let flow = FlowReport {
            backend: None,
            ..flow()
        };
        let by_backend = Filter {
            backend: spot("10.0.0.1"),
            ..Filter::default()
        };
        assert!(!by_backend.matches(&flow));
        assert!(Filter::default().matches(&flow));
    }
}
