//! The pages that tools for HAProxy, Marathon-LB and Prometheus ask for, besides those of the statistics.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, RawQuery, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::stream;
use serde::{Deserialize, Serialize};

use super::{client::Place, statistics};
use crate::admin::{
    report::Timestamp,
    server::Admin,
    stats::{
        Event, Point, Sample,
        fields::Front,
        history::BACKENDS,
        json,
        metrics::{Pieces, Scope, l4lb},
    },
    vips::ZONE,
};

/// The control loop turns at least so often besides its resync, ms.
const TURN: u64 = 60_000;
/// A sample that is older means that nobody samples, ms.
const STALE: u64 = 60_000;
/// Its text format.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
/// A page is handed on in pieces of this size, bytes.
const PIECE: usize = 64 * 1_024;
/// A page up to this size is sent with its length, bytes.
const WHOLE: usize = 256 * 1_024;
/// Whoever takes longer to read a page is cut off, s.
const READING: std::time::Duration = std::time::Duration::from_secs(120);

/// What the pages are, for programs.
pub(in crate::admin) const OPENAPI: &str = include_str!("../../../../docs/openapi.json");

/// What is added to the router of the admin socket.
pub(in crate::admin) fn routes() -> Router<Admin> {
    Router::new()
        .route("/healthz", get(healthy))
        .route("/_haproxy_health_check", get(healthy))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/v1/metrics/{registry}", get(registry))
        .route("/v1/stats", get(stats))
        .route("/v1/events", get(events))
        .route("/v1/history", get(history))
        .route("/v1/openapi.json", get(openapi))
        .route("/_haproxy_getpids", get(pids))
        .route("/_haproxy_getappmap", get(apps))
        .route("/_haproxy_getvhostmap", get(|| async { "" }))
        .route("/_mlb_signal/hup", get(hup))
        .route("/v1/resync", post(resync))
        .route(
            "/_mlb_signal/usr1",
            get(|| async { "there is nothing to reload\n" }),
        )
        .fallback(statistics::page)
}

/// Whether the data path is loaded and the agent's loops run.
async fn healthy(State(admin): State<Admin>) -> Response {
    let now = Timestamp::now();
    let sampled = admin.stats.sample().at;
    let begun = admin.report.load().agent.started;
    let last = sampled.max(begun);
    if !loop_runs(&admin, now) {
        return (StatusCode::SERVICE_UNAVAILABLE, STANDS_STILL).into_response();
    }
    if now.since(last).as_millis() > u128::from(STALE) && last > Timestamp(0) {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "the counters are not read any more\n",
        )
            .into_response();
    }
    "ok\n".into_response()
}

const STANDS_STILL: &str = "the control loop stands still\n";

fn loop_runs(admin: &Admin, now: Timestamp) -> bool {
    let turned = Timestamp(admin.alive.turned.load(Ordering::Relaxed));
    let limit = admin.alive.resync_ms * 2 + TURN;
    now.since(turned).as_millis() < u128::from(limit)
}

/// Whether every orchestrator and file was read at least once.
async fn ready(State(admin): State<Admin>) -> Response {
    let report = admin.report.load();
    let mut waiting = report
        .providers
        .iter()
        .filter(|one| one.last_sync.is_none());
    match waiting.next() {
        None => "ready\n".into_response(),
        Some(provider) => {
            let text = format!("{} was not read yet\n", provider.id);
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

async fn pids(State(admin): State<Admin>) -> String {
    format!("{}\n", admin.report.load().agent.pid)
}

/// App -> its VIPs.
async fn apps(State(admin): State<Admin>) -> Response {
    let report = admin.report.load_full();
    let mut apps = BTreeMap::<&str, Vec<String>>::new();
    for service in report.services.iter() {
        let mut vips = match &service.name {
            Some(name) => vec![format!("{name}.{ZONE}:{}", service.port)],
            None => Vec::new(),
        };
        let addrs = service.addrs.iter();
        vips.extend(
            addrs.map(|addr| std::net::SocketAddr::new(*addr, service.port.get()).to_string()),
        );
        let mut names: Vec<&str> = service.backends.iter().map(|one| &*one.app).collect();
        names.sort_unstable();
        names.dedup();
        for app in names {
            let known = apps.entry(app).or_default();
            known.extend(vips.iter().cloned());
        }
    }
    for vips in apps.values_mut() {
        vips.sort();
        vips.dedup();
    }
    Json(&apps).into_response()
}

/// As Marathon-LB, 500 where nobody would hear it.
async fn hup(State(admin): State<Admin>) -> Response {
    if !loop_runs(&admin, Timestamp::now()) {
        return (StatusCode::INTERNAL_SERVER_ERROR, STANDS_STILL).into_response();
    }
    admin.alive.again.ask();
    "everything is read and compared again\n".into_response()
}

/// The same for `lb-agent resync`, which says who is read.
async fn resync(State(admin): State<Admin>) -> Json<Vec<String>> {
    admin.alive.again.ask();
    let report = admin.report.load();
    let ids = report.providers.iter().map(|provider| &provider.id);
    Json(ids.map(|id| format!("{id} is read again")).collect())
}

#[derive(Deserialize)]
struct After {
    #[serde(default)]
    after: u64,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::admin) struct Events {
    events: Vec<Event>,
}

async fn events(State(admin): State<Admin>, Query(ask): Query<After>) -> Json<Events> {
    Json(Events {
        events: admin.stats.events().after(ask.after),
    })
}

#[derive(Deserialize)]
struct Of {
    service: Option<String>,
    backend: Option<String>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::admin) struct History {
    iid: u32,
    pxname: String,
    /// `null`: of the whole service.
    svname: Option<String>,
    points: Vec<Point>,
}

/// By `pxname`, `iid`, or a service's name or address with its port; a backend by `svname`, `sid` or address.
async fn history(State(admin): State<Admin>, Query(of): Query<Of>) -> Response {
    let refuse = |code: StatusCode, why: String| (code, why + "\n").into_response();
    let Some(wanted) = of.service.filter(|name| !name.is_empty()) else {
        let how = "say which service: /v1/history?service=NAME";
        return refuse(StatusCode::BAD_REQUEST, how.to_owned());
    };
    let sample = admin.stats.latest().await;
    let is_it = |front: &Front<'_>| {
        *front.proxy.name == *wanted
            || front.proxy.iid.to_string() == wanted
            || front.service.is_called(&wanted)
    };
    let Some(front) = Front::all(&sample).find(is_it) else {
        return refuse(StatusCode::NOT_FOUND, "there is no such service".to_owned());
    };
    let backend = match of.backend {
        None => None,
        Some(_) if sample.servers() > BACKENDS => {
            let why = format!("of more than {BACKENDS} backends no history is kept");
            return refuse(StatusCode::NOT_FOUND, why);
        }
        Some(wanted) => {
            let found = front.servers().find(|back| back.is_called(&wanted));
            let Some(found) = found else {
                let why = "the service has no such backend";
                return refuse(StatusCode::NOT_FOUND, why.to_owned());
            };
            Some(found)
        }
    };
    let iid = front.proxy.iid;
    let addr = backend.map(|back| back.backend.addr);
    Json(History {
        iid,
        pxname: front.proxy.name.to_string(),
        svname: backend.map(|back| back.server.name.to_string()),
        // Who is new has none yet.
        points: admin.stats.history(iid, addr).unwrap_or_default(),
    })
    .into_response()
}

async fn stats(State(admin): State<Admin>, place: Place) -> Response {
    let mut next = 0;
    let piece = move |sample: &Sample, out: &mut String| {
        if next == 0 {
            json::head(sample, out);
        }
        match sample.proxies.get(next) {
            Some(proxy) => {
                if next > 0 {
                    out.push(',');
                }
                json::service(Front::of(sample, proxy), out);
                next += 1;
                true
            }
            None => {
                out.push_str(json::TAIL);
                false
            }
        }
    };
    send(&admin, place, "application/json", piece).await
}

/// As dcos-net answers at `/v1/metrics/l4lb`; of its registries this is the one that there is here.
async fn registry(State(admin): State<Admin>, Path(name): Path<String>) -> Response {
    if name != "l4lb" {
        return (StatusCode::NOT_FOUND, "Unknown Registry").into_response();
    }
    let sample = admin.stats.latest().await;
    let text = l4lb::page(&sample, &admin.alive.work);
    ([(header::CONTENT_TYPE, PROMETHEUS)], text).into_response()
}

async fn metrics(State(admin): State<Admin>, place: Place, RawQuery(query): RawQuery) -> Response {
    let sample = admin.stats.latest().await;
    let scope = Scope::read(query.as_deref().unwrap_or_default(), &sample);
    let mut pieces = Pieces::new(scope);
    let piece = move |sample: &Sample, out: &mut String| pieces.next(sample, out);
    send(&admin, place, PROMETHEUS, piece).await
}

/// Sends the latest sample in pieces; `piece` appends the next one, and says whether more may come. `place`: of whoever
/// reads it.
pub(super) async fn send(
    admin: &Admin,
    place: Place,
    kind: &'static str,
    mut piece: impl FnMut(&Sample, &mut String) -> bool + Send + 'static,
) -> Response {
    let kind = [(header::CONTENT_TYPE, kind)];
    let reader = match admin.readers.enter(place).await {
        Ok(reader) => reader,
        Err(refused) => return *refused,
    };
    let sample = admin.stats.latest().await;
    let mut first = String::new();
    let mut more = true;
    while more && first.len() < WHOLE {
        more = piece(&sample, &mut first);
        tokio::task::consume_budget().await;
    }
    if !more {
        return (kind, first).into_response();
    }
    let deadline = std::time::Instant::now() + READING;
    let rest = stream::unfold(
        (first, true, piece, sample, reader),
        move |(mut text, more, mut piece, sample, reader)| async move {
            if text.is_empty() && !more {
                return None;
            }
            if std::time::Instant::now() > deadline {
                let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
                return Some((Err(late), (String::new(), false, piece, sample, reader)));
            }
            let mut more = more;
            while more && text.len() < PIECE {
                more = piece(&sample, &mut text);
            }
            tokio::task::consume_budget().await;
            let next = String::with_capacity(2 * PIECE);
            let bytes = bytes::Bytes::from(std::mem::replace(&mut text, next));
            Some((Ok(bytes), (text, more, piece, sample, reader)))
        },
    );
    (kind, Body::from_stream(rest)).into_response()
}
