//! How a service's backends are checked.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use super::Port;

/// What is asked of each backend of a service, how often, and how many answers count.
///
/// Equal checks of one address are one probe, whatever services ask for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Check {
    /// What is asked.
    pub probe: Probe,
    /// Asked there instead of at the backend's port.
    pub port: Option<Port>,
    /// From the beginning of one probe to that of the next.
    pub interval: Duration,
    /// The same while probes speak against the verdict; `None`: the interval then, too.
    pub fast: Option<Duration>,
    /// An answer that takes longer is none.
    pub timeout: Duration,
    /// Probes in a row that a backend which is down must pass.
    pub rise: u32,
    /// Probes in a row that a backend which is up must fail.
    pub fall: u32,
    /// How long failures of a backend that is new, and never passed, do not count.
    pub grace: Duration,
}

/// What is asked of a backend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Probe {
    /// That it accepts a connection.
    Tcp,
    /// That it answers a request.
    Http(Http),
}

/// A request and the answers that are good. Redirects are answers; none is followed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Http {
    /// `GET`, `HEAD` or `OPTIONS`.
    pub method: &'static str,
    /// Path and query, or `*` with `OPTIONS`.
    pub path: String,
    /// The header `Host`; `None`: the address.
    pub host: Option<String>,
    /// Status codes that are good, from and to, ascending.
    pub expect: Vec<(u16, u16)>,
}

// === impl Check ===

impl Check {
    /// A check without anything said of it but what is asked.
    pub fn new(probe: Probe) -> Self {
        Self {
            probe,
            port: None,
            interval: Duration::from_secs(2),
            fast: None,
            timeout: Duration::from_secs(2),
            rise: 2,
            fall: 3,
            grace: Duration::ZERO,
        }
    }

    /// The same at another port, if one is given.
    pub fn asked_at(self: &Arc<Self>, port: Option<Port>) -> Arc<Self> {
        match port {
            Some(_) if port != self.port => Arc::new(Self {
                port,
                ..Self::clone(self)
            }),
            _ => Arc::clone(self),
        }
    }

    /// Where the backend at `addr` is asked.
    pub fn at(&self, addr: SocketAddr) -> SocketAddr {
        let port = self.port.map_or(addr.port(), Port::get);
        SocketAddr::new(addr.ip(), port)
    }
}

// === impl Http ===

impl Http {
    /// Success and redirection.
    pub const EXPECT: (u16, u16) = (200, 399);

    /// Whether a status code is good.
    pub fn expects(&self, status: u16) -> bool {
        self.expect
            .iter()
            .any(|(from, to)| (*from..=*to).contains(&status))
    }

    /// `200-399, 404`.
    pub fn expected(&self) -> String {
        let range = |(from, to): &(u16, u16)| match from == to {
            true => from.to_string(),
            false => format!("{from}-{to}"),
        };
        self.expect.iter().map(range).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.probe {
            Probe::Tcp => f.write_str("tcp")?,
            Probe::Http(http) => write!(f, "http {} {}", http.method, http.path)?,
        }
        match self.port {
            Some(port) => write!(f, " at port {port}"),
            None => Ok(()),
        }
    }
}
