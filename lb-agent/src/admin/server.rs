//! The routes of the admin socket.

use std::{future::Future, io, sync::Arc};

use arc_swap::ArcSwap;
use axum::{
    Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;

use super::{
    report::{Resolution, StatusReport, Timestamp},
    socket::AdminSocket,
    vips,
};

/// What DNS would answer to a name, from the same snapshot as DNS itself; must not block.
pub type Resolve = Arc<dyn Fn(&str) -> Resolution + Send + Sync>;

/// Fills the kernel's numbers into a report; blocks.
pub type Count = Arc<dyn Fn(&mut StatusReport) + Send + Sync>;

#[derive(Clone)]
struct Admin {
    report: Arc<ArcSwap<StatusReport>>,
    resolve: Resolve,
    count: Count,
}

/// Answers until `shutdown` is ready, then removes the socket.
///
/// # Errors
/// When the socket cannot be handed to the runtime.
pub async fn serve(
    socket: AdminSocket,
    report: Arc<ArcSwap<StatusReport>>,
    resolve: Resolve,
    count: Count,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (listener, _claim) = socket.into_listener()?;
    let admin = Admin {
        report,
        resolve,
        count,
    };
    axum::serve(listener, router(admin))
        .with_graceful_shutdown(shutdown)
        .await
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/v1/status", get(status))
        .route("/v1/resolve", get(resolve))
        .route("/v1/vips", get(list_vips))
        .fallback(|| async {
            (
                StatusCode::NOT_FOUND,
                "no such page; there are /v1/status, /v1/resolve, /v1/vips, /healthz\n",
            )
        })
        .with_state(admin)
}

async fn status(State(admin): State<Admin>) -> Response {
    let counted = tokio::task::spawn_blocking(move || {
        let mut report = StatusReport::clone(&admin.report.load_full());
        (admin.count)(&mut report);
        report.at(Timestamp::now())
    });
    match counted.await {
        Ok(report) => Json(report).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

#[derive(Deserialize)]
struct Question {
    name: Option<String>,
}

async fn resolve(State(admin): State<Admin>, Query(question): Query<Question>) -> Response {
    match question.name.filter(|name| !name.is_empty()) {
        Some(name) => Json((admin.resolve)(&name)).into_response(),
        None => (
            StatusCode::BAD_REQUEST,
            "say which name: /v1/resolve?name=NAME\n",
        )
            .into_response(),
    }
}

async fn list_vips(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    let body = match vips::body(&admin.report.load_full()) {
        Ok(body) => body,
        Err(error) => {
            return (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response();
        }
    };
    let tag = vips::etag(&body);
    if known(&headers, &tag) {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response();
    }
    (
        [
            (header::CONTENT_TYPE, "application/json".to_owned()),
            (header::ETAG, tag),
        ],
        body,
    )
        .into_response()
}

/// Whether the client has this version already, RFC 9110 section 13.1.2.
fn known(headers: &HeaderMap, tag: &str) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|candidate| candidate.trim().trim_start_matches("W/"))
        .any(|candidate| candidate == tag || candidate == "*")
}
