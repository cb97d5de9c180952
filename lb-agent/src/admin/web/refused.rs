//! Has the log say what a page could not answer, on whatever way it was asked.

use axum::{
    body::{Body, to_bytes},
    extract::Request,
    http::StatusCode,
    middleware::Next,
    response::Response,
};
use tracing::{debug, info, warn};

use super::client::By;

/// No refusal is longer, bytes: it may repeat the query, whose bound is that of a request's head.
const LONGEST: usize = 256 * 1_024;
/// So many letters of a path or a reason are logged.
const SHOWN: usize = 200;
/// What browsers and crawlers ask every site for; the beginnings of paths.
const BY_ITSELF: [&str; 4] = [
    "/favicon",
    "/apple-touch-icon",
    "/robots.txt",
    "/.well-known/",
];

/// Logs an answer that says that the request was wrong, or that it could not be met. What the guard refuses never comes
/// here, and what an order came to is said where it is given.
pub(in crate::admin) async fn note(By(by): By, request: Request, next: Next) -> Response {
    let (method, target) = (request.method().clone(), request.uri().clone());
    let response = next.run(request).await;
    let code = response.status();
    let failed = code == StatusCode::INTERNAL_SERVER_ERROR;
    if !failed && (!code.is_client_error() || code == StatusCode::CONFLICT) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = to_bytes(body, LONGEST).await.unwrap_or_default();
    let why = String::from_utf8_lossy(&text);
    // What follows is for who asked: what to ask instead.
    let why = match why.split([';', '\n']).next() {
        None | Some("") => code.canonical_reason().unwrap_or_default(),
        Some(why) => why,
    };
    let (path, why) = (shown(target.path()), shown(why));
    match code {
        StatusCode::NOT_FOUND if is_by_itself(&path) => {
            debug!(by, %method, path, "refused: {why}");
        }
        // Nothing is wrong where it was there a moment ago.
        StatusCode::NOT_FOUND => info!(by, %method, path, "refused: {why}"),
        StatusCode::INTERNAL_SERVER_ERROR => warn!(by, %method, path, "failed: {why}"),
        _ => warn!(by, %method, path, "refused: {why}"),
    }
    Response::from_parts(parts, Body::from(text))
}

fn is_by_itself(path: &str) -> bool {
    BY_ITSELF.iter().any(|start| path.starts_with(start))
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}
