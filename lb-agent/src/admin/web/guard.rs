//! Stands before every page that is asked for over TCP.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    extract::{Extension, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tracing::warn;

use super::{
    access::{Access, Secret, user},
    client::Client,
    form::MayWrite,
    statistics::form_of,
};
use crate::admin::page::Orders;

/// Who brings a wrong secret waits so long for the answer.
const WRONG: Duration = Duration::from_millis(500);
/// The longest body that an order may have, though it is not read, bytes.
const BODY: u64 = 16 * 1_024;
/// Without a secret for these, too: a balancer before the node asks them.
const OPEN: [&str; 3] = ["/healthz", "/readyz", "/_haproxy_health_check"];
/// They show what clients send, or make the kernel work: as good as a write.
const DEEP: [&str; 4] = ["/v1/flows", "/v1/explain", "/v1/trace", "/v1/capture"];

/// What is asked of whoever comes by TCP.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) access: Access,
    /// The node's host name.
    pub(super) node: String,
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
}

/// Why a request goes no further.
enum Refused {
    /// It needs a secret, and the client may try one.
    Secret,
    /// It is wrong, whatever the client does; a sentence.
    Not(&'static str),
    /// It brings more than anybody reads.
    TooLong,
}

const NO_SECRET: &str = "nothing can be changed over TCP here, and no single flow be seen: lb-agent was started without \
                         --admin-token-file and --admin-users-file. The admin socket and the commands of lb-agent do it\n";
const TOO_LONG: &str = "an order is in the query: nobody reads so long a body\n";
const FOREIGN_HOST: &str = "the request names a host that this node is not known by; if it is, give lb-agent \
                            --admin-hosts with the name\n";
const CROSS_SITE: &str = "a page of another site must not do this\n";

/// Lets a request through, or refuses it.
pub(super) async fn guard(
    State(guard): State<Arc<Guard>>,
    Extension(ends): Extension<Ends>,
    mut request: Request,
    next: Next,
) -> Response {
    if guard.access.health.as_deref() == Some(request.uri().path()) {
        *request.uri_mut() = Uri::from_static(OPEN[0]);
    }
    let path = request.uri().path();
    if OPEN.contains(&path) {
        return dressed(next.run(request).await);
    }
    let secret = guard.secret(request.headers());
    if secret == Secret::Wrong {
        warn!(peer = %ends.peer, path, "refused: a wrong token or password");
        tokio::time::sleep(WRONG).await;
        return dressed(unauthorized());
    }
    let who = match secret {
        Secret::Token => Some("the token".to_owned()),
        Secret::Password => request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| user(value.to_str().ok()?)),
        Secret::Missing | Secret::Wrong => None,
    };
    match guard.judge(&request, secret, ends) {
        Ok(may) => {
            let extensions = request.extensions_mut();
            extensions.insert(Client {
                peer: ends.peer,
                who,
            });
            extensions.insert(MayWrite(may));
            extensions.insert(Orders(guard.access.is_possible()));
            dressed(next.run(request).await)
        }
        Err(Refused::Secret) => {
            warn!(peer = %ends.peer, path, method = %request.method(), "refused: no token or password");
            dressed(unauthorized())
        }
        Err(Refused::TooLong) => {
            warn!(peer = %ends.peer, path, "refused: {}", TOO_LONG.trim_end());
            dressed((StatusCode::PAYLOAD_TOO_LARGE, TOO_LONG).into_response())
        }
        Err(Refused::Not(why)) => {
            warn!(peer = %ends.peer, path, method = %request.method(), "refused: {}", why.trim_end());
            dressed((StatusCode::FORBIDDEN, why).into_response())
        }
    }
}

// === impl Guard ===

impl Guard {
    fn secret(&self, headers: &HeaderMap) -> Secret {
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        match (given.next(), given.next()) {
            (None, _) => Secret::Missing,
            (Some(value), None) => self.access.judge(Some(value.to_str().unwrap_or_default())),
            // Two of them: nobody knows which one others looked at.
            (Some(_), Some(_)) => Secret::Wrong,
        }
    }

    /// Whether the request may go on, and may write.
    fn judge(&self, request: &Request, secret: Secret, ends: Ends) -> Result<bool, Refused> {
        let headers = request.headers();
        let path = request.uri().path();
        let writes = !matches!(*request.method(), Method::GET | Method::HEAD);
        // A browser sends a password along with whatever a page of anybody has it ask for.
        let by_browser = secret != Secret::Token;
        if by_browser && (writes || path.starts_with("/_mlb_signal/")) {
            self.same_site(headers)?;
        }
        // Only a page of another site asks a loopback address by a name that is not its own.
        let host = text(headers, header::HOST);
        let ours = host.is_none_or(|host| self.access.is_ours(host, &self.node));
        if !ours && by_browser && (writes || ends.local.ip().is_loopback()) {
            return Err(Refused::Not(FOREIGN_HOST));
        }
        let is_form = || {
            let target = request.uri().path_and_query();
            target.is_some_and(|target| form_of(target.as_str()).is_some())
        };
        let known = matches!(secret, Secret::Token | Secret::Password);
        if known {
            // A form's body is read, and judged then.
            return match writes && is_long(headers) && !is_form() {
                true => Err(Refused::TooLong),
                false => Ok(true),
            };
        }
        if writes || DEEP.contains(&path) {
            return match self.access.is_possible() {
                true => Err(Refused::Secret),
                // HAProxy's page says it in its own words.
                false if writes && is_form() => Ok(false),
                false => Err(Refused::Not(NO_SECRET)),
            };
        }
        match self.access.closed {
            true => Err(Refused::Secret),
            false => Ok(false),
        }
    }

    /// Browsers say where a write comes from: `Origin` with every POST, `Sec-Fetch-Site` too where they trust the
    /// connection.
    fn same_site(&self, headers: &HeaderMap) -> Result<(), Refused> {
        if text(headers, HeaderName::from_static("sec-fetch-site"))
            .is_some_and(|site| !matches!(site, "same-origin" | "none"))
        {
            return Err(Refused::Not(CROSS_SITE));
        }
        let Some(origin) = text(headers, header::ORIGIN) else {
            return Ok(());
        };
        let from = origin.split_once("://").map(|(_, authority)| authority);
        match (from, text(headers, header::HOST)) {
            (Some(from), Some(host)) if from.eq_ignore_ascii_case(host) => Ok(()),
            _ => Err(Refused::Not(CROSS_SITE)),
        }
    }
}

/// Whether a body comes that is longer than any order, or of an unknown length.
fn is_long(headers: &HeaderMap) -> bool {
    let length = text(headers, header::CONTENT_LENGTH);
    headers.contains_key(header::TRANSFER_ENCODING)
        || length.is_some_and(|text| text.parse().is_ok_and(|length: u64| length > BODY))
}

/// What is not text counts as something that nothing equals.
fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

fn unauthorized() -> Response {
    (
        StatusCode::UNAUTHORIZED,
        [(
            header::WWW_AUTHENTICATE,
            "Basic realm=\"Haproxy Statistics\", charset=\"UTF-8\"",
        )],
        "say who you are: Authorization: Bearer TOKEN, or a user and password\n",
    )
        .into_response()
}

/// What every answer says.
fn dressed(mut response: Response) -> Response {
    let always = [
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
        ),
    ];
    let headers = response.headers_mut();
    for (name, value) in always {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    response
}
