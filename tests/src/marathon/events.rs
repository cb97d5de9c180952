//! The event stream.

use std::{convert::Infallible, net::SocketAddr, pin::Pin, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, Version, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{Stream, stream};
use serde_json::{Value, json};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::{Instant, sleep, sleep_until},
};

use super::clock;

/// `--event_stream_max_outstanding_messages`: a reader further behind is cut off.
const OUTSTANDING: usize = 1024;

/// Between the two bytes of a heart-beat, so that they leave in two writes.
const BETWEEN_CR_AND_LF: Duration = Duration::from_millis(5);

/// Carries every event to every stream.
#[derive(Clone, Debug)]
pub(super) struct Bus(broadcast::Sender<Value>);

/// One watcher's stream.
struct Watcher {
    inbox: broadcast::Receiver<Value>,
    wanted: Vec<String>,
    heartbeat: Duration,
    next_beat: Instant,
    /// The CR of a heart-beat is out, its LF is not.
    beating: bool,
    // Last: it tells the others that this one is gone.
    _detach: Detach,
}

/// Sends `event_stream_detached` when a watcher's connection ends.
struct Detach(Bus, SocketAddr);

// === impl Bus ===

impl Default for Bus {
    fn default() -> Self {
        Self(broadcast::Sender::new(OUTSTANDING))
    }
}

impl Bus {
    /// Sends an event; `fields` is an object.
    pub(super) fn send(&self, kind: &str, mut fields: Value) {
        fields["eventType"] = json!(kind);
        fields["timestamp"] = json!(clock::now());
        // Nobody listening is no error.
        let _ = self.0.send(fields);
    }

    /// The answer to `GET /v2/events`.
    pub(super) fn stream(
        &self,
        headers: &HeaderMap,
        query: &[(String, String)],
        client: SocketAddr,
        heartbeat: Duration,
    ) -> Response {
        // Jetty's servlet compares the whole value.
        if headers
            .get(header::ACCEPT)
            .is_none_or(|accept| accept != "text/event-stream")
        {
            let reason = "HTTP method GET is not supported by this URL";
            return (StatusCode::METHOD_NOT_ALLOWED, reason).into_response();
        }
        let watcher = Watcher {
            inbox: self.0.subscribe(),
            wanted: query
                .iter()
                .filter(|(key, _)| key == "event_type")
                .map(|(_, kind)| kind.clone())
                .collect(),
            heartbeat,
            next_beat: Instant::now() + heartbeat,
            beating: false,
            _detach: Detach(self.clone(), client),
        };
        self.send(
            "event_stream_attached",
            json!({"remoteAddress": client.ip().to_string()}),
        );
        let headers = [
            (header::CONTENT_TYPE, "text/event-stream;charset=utf-8"),
            (header::CONNECTION, "close"),
            (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
        ];
        let mut answer = (headers, Body::from_stream(watcher.pieces())).into_response();
        // The body runs until the connection closes, neither chunked nor with a length; hyper writes that
        // only below HTTP/1.1.
        *answer.version_mut() = Version::HTTP_10;
        answer
    }
}

// === impl Watcher ===

impl Watcher {
    fn pieces(self) -> Pin<Box<dyn Stream<Item = Result<Bytes, Infallible>> + Send>> {
        Box::pin(stream::unfold(self, |mut watcher| async move {
            let piece = watcher.next().await?;
            Some((Ok(piece), watcher))
        }))
    }

    /// `None` ends the stream: the reader is too slow.
    async fn next(&mut self) -> Option<Bytes> {
        if self.beating {
            sleep(BETWEEN_CR_AND_LF).await;
            self.beating = false;
            return Some(Bytes::from_static(b"\n"));
        }
        loop {
            tokio::select! {
                event = self.inbox.recv() => match event {
                    Ok(event) if self.wants(&event) => return Some(framed(&event)),
                    Ok(_) => {}
                    Err(RecvError::Lagged(_) | RecvError::Closed) => return None,
                },
                () = sleep_until(self.next_beat) => {
                    self.next_beat += self.heartbeat;
                    self.beating = true;
                    return Some(Bytes::from_static(b"\r"));
                }
            }
        }
    }

    fn wants(&self, event: &Value) -> bool {
        self.wanted.is_empty()
            || self
                .wanted
                .iter()
                .any(|kind| event["eventType"] == kind.as_str())
    }
}

impl Drop for Detach {
    fn drop(&mut self) {
        let Self(bus, client) = self;
        bus.send(
            "event_stream_detached",
            json!({"remoteAddress": client.ip().to_string()}),
        );
    }
}

fn framed(event: &Value) -> Bytes {
    let kind = event["eventType"].as_str().unwrap_or_default();
    format!("event: {kind}\r\ndata: {event}\r\n\r\n").into()
}
