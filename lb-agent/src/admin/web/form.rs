//! HAProxy's admin form: `s=<server>&action=<word>&b=#<iid>`, answered by a redirection that says what came of it.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{FromRequestParts as _, Request},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tracing::warn;

use super::client::By;
use crate::admin::{
    orders::{Act, Forced, Named, Order, Which},
    server::Admin,
    stats::{Proxy, Sample},
};

/// The longest form, bytes: what HAProxy takes.
const LONGEST: usize = 16 * 1_024;

/// A form must be here within this time.
const READING: Duration = Duration::from_secs(10);

/// What came of a form, in HAProxy's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::admin) enum Outcome {
    /// All servers.
    Done,
    /// Some servers are unknown.
    Part,
    /// No server was chosen.
    None,
    /// An action, a proxy, or every server is unknown.
    Unknown,
    /// The form is too long.
    TooLong,
    /// It may not change anything.
    Denied,
    /// Anything else.
    Failed,
}

/// A form that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wish {
    servers: Vec<String>,
    action: Option<String>,
    proxy: Option<String>,
}

/// Allowed to write, or not: the guard's word about a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct MayWrite(pub(super) bool);

// === impl Outcome ===

impl Outcome {
    fn code(self) -> &'static str {
        match self {
            Self::Done => "DONE",
            Self::Part => "PART",
            Self::None => "NONE",
            Self::Unknown => "ERRP",
            Self::TooLong => "EXCD",
            Self::Denied => "DENY",
            Self::Failed => "UNKN",
        }
    }

    /// What the log says of it.
    fn complaint(self) -> Option<&'static str> {
        match self {
            // Why it failed was said then.
            Self::Done | Self::Failed => None,
            Self::Part => Some("some of its servers are unknown"),
            Self::None => Some("it names no server"),
            Self::Unknown => Some("its action, proxy or servers are unknown"),
            Self::TooLong => Some("it is too long"),
            Self::Denied => Some("nothing can be changed over TCP here"),
        }
    }
}

/// Does what the form says, for who may.
pub(super) async fn act(admin: &Admin, target: &str, request: Request) -> Response {
    let may = request
        .extensions()
        .get::<MayWrite>()
        .is_none_or(|may| may.0);
    let (mut parts, body) = request.into_parts();
    let Ok(By(by)) = By::from_request_parts(&mut parts, &()).await;
    let outcome = match may {
        true => obey(admin, body, &by).await,
        false => Outcome::Denied,
    };
    if let Some(why) = outcome.complaint() {
        warn!(by, "refused: a form, {why}");
    }
    let options = target.split(';').enumerate();
    let kept = options.filter(|(at, option)| *at == 0 || !option.starts_with("st="));
    let kept: Vec<_> = kept.map(|(_, option)| option).collect();
    let location = format!("{};st={}", kept.join(";"), outcome.code());
    (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()
}

async fn obey(admin: &Admin, body: Body, by: &str) -> Outcome {
    let body = Limited::new(body, LONGEST).collect();
    let failed = |why: &dyn std::fmt::Display| {
        warn!(by, "refused: a form, {why}");
        Outcome::Failed
    };
    let body = match tokio::time::timeout(READING, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Outcome::TooLong,
        Ok(Err(error)) => return failed(&error),
        Err(_) => return failed(&"not all of it came in time"),
    };
    let text = match std::str::from_utf8(&body) {
        Ok(text) => text,
        Err(error) => return failed(&error),
    };
    let wish = Wish::read(text);
    if wish.servers.is_empty() {
        return Outcome::None;
    }
    let (Some(action), Some(proxy)) = (&wish.action, &wish.proxy) else {
        return Outcome::Unknown;
    };
    let sample = admin.stats.sample();
    let proxy = match proxy.strip_prefix('#') {
        Some(iid) => sample.proxies.iter().find(|one| one.iid.to_string() == iid),
        None => sample.proxy(proxy),
    };
    let Some(proxy) = proxy else {
        return Outcome::Unknown;
    };
    let act = match action.as_str() {
        "ready" => Some(Act::Ready),
        "drain" => Some(Act::Drain),
        "maint" => Some(Act::Maintenance),
        "shutdown" => Some(Act::Reset),
        "hrunn" => Some(Act::Health(Forced::Up)),
        "hnolb" => Some(Act::Health(Forced::Stopping)),
        "hdown" => Some(Act::Health(Forced::Down)),
        "ehlth" => Some(Act::Checks(true)),
        "dhlth" => Some(Act::Checks(false)),
        // Agent checks: there are none.
        "dagent" | "eagent" | "arunn" | "adown" => None,
        _ => return Outcome::Unknown,
    };
    let (mut done, mut unknown) = (0, 0);
    for name in &wish.servers {
        let Some(which) = which(&sample, proxy, name) else {
            unknown += 1;
            continue;
        };
        if let Some(act) = &act {
            let order = Order {
                act: act.clone(),
                which,
                deadline: None,
            };
            if admin.order(order, by).await.is_err() {
                return Outcome::Failed;
            }
        }
        done += 1;
    }
    admin.stats.fresh().await;
    match (done, unknown) {
        (0, _) => Outcome::Unknown,
        (_, 0) => Outcome::Done,
        _ => Outcome::Part,
    }
}

/// The backend that a server of a proxy is, in that service alone.
pub(in crate::admin) fn which(sample: &Sample, proxy: &Proxy, server: &str) -> Option<Which> {
    let backend = sample.backend(proxy, proxy.server(server)?);
    Some(Which {
        backend: Some(Named::At(backend.addr)),
        ..whole(sample, proxy)?
    })
}

/// The service that a proxy is, without its backends.
pub(in crate::admin) fn whole(sample: &Sample, proxy: &Proxy) -> Option<Which> {
    let service = sample.service(proxy);
    let name = match (&service.name, service.addrs.first()) {
        (Some(name), _) => format!("{name}:{}/{}", service.port, service.protocol),
        (None, Some(addr)) => {
            let at = std::net::SocketAddr::new(*addr, service.port.get());
            format!("{at}/{}", service.protocol)
        }
        (None, None) => return None,
    };
    Some(Which {
        backend: None,
        service: Some(name),
    })
}

// === impl Wish ===

impl Wish {
    fn read(text: &str) -> Self {
        let mut wish = Self::default();
        for pair in text.trim().split('&') {
            let Some((key, value)) = pair.split_once('=') else {
                continue;
            };
            let value = decoded(value);
            match key {
                "s" if !value.is_empty() => wish.servers.push(value),
                "action" => wish.action = Some(value),
                "b" => wish.proxy = Some(value),
                _ => {}
            }
        }
        wish
    }
}

/// `application/x-www-form-urlencoded`, one value.
pub(in crate::admin) fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        let hex = |at: usize| char::from(*more.get(at)?).to_digit(16);
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                // Two digits of 4 bits.
                bytes.push((high * 16 + low) as u8);
                rest = &more[2..];
            }
            (b'+', ..) => bytes.push(b' '),
            (byte, ..) => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_as_browsers_write_it() {
        let wish = Wish::read("s=10_0_0_1_80&s=a+b%2f&action=drain&b=%237&x&y=%zz\r\n");
        assert_eq!(wish.servers, ["10_0_0_1_80", "a b/"]);
        assert_eq!(wish.action.as_deref(), Some("drain"));
        assert_eq!(wish.proxy.as_deref(), Some("#7"));
        assert_eq!(decoded("%e"), "%e");
        assert_eq!(decoded("%"), "%");
        assert_eq!(Wish::read(""), Wish::default());
    }
}
