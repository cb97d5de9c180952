//! Who asks: for the log, and for bounds that each client has for itself.

use std::{
    convert::Infallible,
    fmt,
    net::{IpAddr, SocketAddr},
};

use axum::{
    extract::FromRequestParts,
    http::{header, request::Parts},
};

/// What the commands of lb-agent say of themselves over the admin socket.
pub(crate) const COMMAND: &str = "lb-agent";

/// A client over TCP, as the guard knows it.
#[derive(Clone, Debug)]
pub(in crate::admin) struct Client {
    pub(super) peer: SocketAddr,
    /// `user ann`, `the token`; `None`: it showed no secret.
    pub(super) who: Option<String>,
}

/// Who gives an order, in words.
#[derive(Clone, Debug)]
pub(in crate::admin) struct By(pub(in crate::admin) String);

/// Where a client counts; `None`: on the admin socket, where nobody is counted.
#[derive(Clone, Copy, Debug)]
pub(in crate::admin) struct Place(pub(in crate::admin) Option<IpAddr>);

// === impl Client ===

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.who {
            Some(who) => write!(f, "{who} at {}", self.peer),
            None => self.peer.fmt(f),
        }
    }
}

// === impl By ===

impl<S: Sync> FromRequestParts<S> for By {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let program = parts.headers.get(header::USER_AGENT);
        Ok(Self(match parts.extensions.get::<Client>() {
            Some(client) => client.to_string(),
            None if program.is_some_and(|name| name == COMMAND) => "the command line".to_owned(),
            None => "the admin socket".to_owned(),
        }))
    }
}

// === impl Place ===

impl<S: Sync> FromRequestParts<S> for Place {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let client = parts.extensions.get::<Client>();
        Ok(Self(client.map(|client| client.peer.ip().to_canonical())))
    }
}
