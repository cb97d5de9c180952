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

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    #[tokio::test]
    async fn who_orders_is_named_by_what_is_known_of_him() {
        let by = async |program: &str, client: Option<Client>| {
            let request = Request::builder().header(header::USER_AGENT, program);
            let (mut parts, ()) = request.body(()).unwrap().into_parts();
            if let Some(client) = client {
                parts.extensions.insert(client);
            }
            let Ok(By(by)) = By::from_request_parts(&mut parts, &()).await;
            let Ok(Place(place)) = Place::from_request_parts(&mut parts, &()).await;
            (by, place)
        };
        let peer = "[::ffff:192.0.2.7]:4000".parse().unwrap();
        let ann = Client {
            peer,
            who: Some("user ann".to_owned()),
        };
        let addr = "192.0.2.7".parse().ok();
        // Over TCP everybody can call himself by that name.
        let told = "user ann at [::ffff:192.0.2.7]:4000".to_owned();
        assert_eq!(by(COMMAND, Some(ann)).await, (told, addr));
        let nobody = Client { peer, who: None };
        let told = "[::ffff:192.0.2.7]:4000".to_owned();
        assert_eq!(by("curl", Some(nobody)).await, (told, addr));
        assert_eq!(
            by(COMMAND, None).await,
            ("the command line".to_owned(), None)
        );
        assert_eq!(
            by("curl", None).await,
            ("the admin socket".to_owned(), None)
        );
    }
}
