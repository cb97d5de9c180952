//! The page over HTTP: itself, its files, and its feed.

use axum::{
    Extension, Router,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use super::{Head, POLICY, Since, asset, page};
use crate::admin::{server::Admin, vips, web::Place};

/// Whether orders are taken over this listener at all; who may give them is asked when they do. Missing on the admin
/// socket, where everybody may.
#[derive(Clone, Copy, Debug)]
pub(in crate::admin) struct Orders(pub(in crate::admin) bool);

/// What is added to the router of the admin socket.
pub(in crate::admin) fn routes() -> Router<Admin> {
    Router::new()
        .route("/v1/live", get(live))
        .route("/assets/{name}", get(file))
}

/// The page; `target`: as it was asked for.
pub(in crate::admin) async fn show(
    admin: Admin,
    orders: Option<Orders>,
    target: String,
) -> Response {
    let sample = admin.stats.latest().await;
    let answer = tokio::task::spawn_blocking(move || page(&sample, head(orders), &target));
    let kind = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    match answer.await {
        Ok(text) => (kind, text).into_response(),
        Err(error) => failed(&error),
    }
}

fn head(orders: Option<Orders>) -> Head {
    Head {
        version: true,
        orders: orders.is_none_or(|orders| orders.0),
    }
}

async fn live(
    State(admin): State<Admin>,
    Query(since): Query<Since>,
    orders: Option<Extension<Orders>>,
    place: Place,
) -> Response {
    // Large ones are few at a time, as of all pages.
    let reader = match admin.readers.enter(place).await {
        Ok(reader) => reader,
        Err(refused) => return *refused,
    };
    let head = head(orders.map(|orders| orders.0));
    let sample = admin.stats.latest().await;
    let answer = tokio::task::spawn_blocking(move || {
        let _reader = reader;
        admin.feed.answer(&sample, head, since)
    });
    match answer.await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::fmt::Display) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
}

/// A file of the page. A browser asks every time whether it has the right one: a new agent may have another.
async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let Some(asset) = asset(&name) else {
        return (StatusCode::NOT_FOUND, "there is no such file\n").into_response();
    };
    let tag = vips::etag(asset.text.as_bytes());
    let known = headers.get(header::IF_NONE_MATCH);
    if known.is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response();
    }
    let kind = [
        (header::CONTENT_TYPE, asset.kind.to_owned()),
        (header::CONTENT_SECURITY_POLICY, POLICY.to_owned()),
        (header::ETAG, tag),
    ];
    (kind, asset.text).into_response()
}
