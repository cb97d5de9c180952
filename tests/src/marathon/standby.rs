//! A standby: sends watchers to the leader and hands every other request on.

use std::net::SocketAddr;

use axum::{
    Router,
    body::to_bytes,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use crate::lab::http;

/// How much of a request's body is handed on, in bytes.
const BODY_LIMIT: usize = 1 << 20;

/// Everything a standby of `leader` (`http://host:port`) answers.
pub(super) fn routes(leader: String) -> Router {
    Router::new()
        .route("/v2/events", get(redirect))
        .fallback(hand_on)
        .with_state(leader)
}

async fn redirect(State(leader): State<String>, request: Request) -> Response {
    let path = request
        .uri()
        .path_and_query()
        .map_or("/v2/events", |path| path.as_str());
    (
        StatusCode::FOUND,
        [(header::LOCATION, format!("{leader}{path}"))],
    )
        .into_response()
}

async fn hand_on(State(leader): State<String>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_LIMIT).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let asked = tokio::task::spawn_blocking(move || {
        let at: SocketAddr = leader.trim_start_matches("http://").parse()?;
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let authorization = parts
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let mut headers = vec![("Content-Type", "application/json")];
        headers.extend(authorization.map(|value| ("Authorization", value)));
        let text = String::from_utf8_lossy(&body);
        http::read(http::open(
            at,
            parts.method.as_str(),
            path,
            &headers,
            &text,
        )?)
    });
    match asked.await {
        Ok(Ok(reply)) => {
            let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::BAD_GATEWAY);
            let content = reply
                .header("Content-Type")
                .unwrap_or("application/json")
                .to_owned();
            let headers = [
                ("Content-Type", content),
                ("X-Marathon-Via", "1.1 standby".to_owned()),
            ];
            (status, headers, reply.body).into_response()
        }
        _ => (
            StatusCode::BAD_GATEWAY,
            "Could not determine the current leader",
        )
            .into_response(),
    }
}
