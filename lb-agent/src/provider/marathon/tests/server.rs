//! A Marathon on loopback whose every answer a test decides.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::{sync::broadcast, task::JoinHandle, time::Instant};

/// Where DC/OS logs in.
pub(super) const LOGIN: &str = "/acs/api/v1/auth/login";

/// As many events as Marathon keeps for a reader, unless it is told otherwise: one who is further behind is cut off
/// (`--event_stream_max_outstanding_messages`).
pub(super) const OUTSTANDING: usize = 1024;

/// How one path is answered.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// 200 and this JSON.
    Json(Value),
    /// Any status and text.
    Text(u16, String),
    /// A redirect.
    Redirect(String),
    /// The text, then a broken connection.
    Broken(String),
    /// The piece for ever, after each pause.
    Endless(&'static str, Duration),
    /// 200 and this JSON, so much later.
    Late(Value, Duration),
    /// Nothing at all.
    Silence,
    /// The event stream: what [`Fake::event`] sends.
    Stream,
    /// An event stream that ends at once.
    ClosedStream,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) at: Instant,
}

/// The server; it ends with this value.
pub(super) struct Fake {
    pub(super) addr: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    replies: Mutex<HashMap<String, Reply>>,
    seen: Mutex<Vec<Seen>>,
    headers: Mutex<HeaderMap>,
    /// The only `Authorization` that is not answered with 401.
    wants: Mutex<Option<String>>,
    events: broadcast::Sender<Bytes>,
    /// Requests being answered now, and the most there ever were at once; without event streams.
    busy: Mutex<(usize, usize)>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Fake {
    /// An elected Marathon with these apps, no pods and an open event stream.
    pub(super) async fn start(apps: Value) -> Self {
        let shared = Arc::new(Shared {
            replies: Mutex::default(),
            seen: Mutex::default(),
            headers: Mutex::default(),
            wants: Mutex::default(),
            events: broadcast::Sender::new(OUTSTANDING),
            busy: Mutex::default(),
        });
        let router = axum::Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let fake = Self {
            addr,
            shared,
            server,
        };
        let info = json!({"marathon_config": {"framework_name": "marathon"}});
        fake.set("/v2/info", Reply::Json(info));
        fake.set("/v2/pods/::status", Reply::Json(json!([])));
        fake.set("/v2/events", Reply::Stream);
        fake.apps(apps);
        fake
    }

    pub(super) fn url(&self) -> reqwest::Url {
        format!("http://{}", self.addr).parse().unwrap()
    }

    pub(super) fn set(&self, path: &str, reply: Reply) {
        self.shared
            .replies
            .lock()
            .unwrap()
            .insert(path.to_owned(), reply);
    }

    pub(super) fn apps(&self, apps: Value) {
        self.set("/v2/apps", Reply::Json(json!({ "apps": apps })));
    }

    /// A header on every answer.
    pub(super) fn header(&self, name: &'static str, value: &str) {
        self.shared
            .headers
            .lock()
            .unwrap()
            .insert(name, value.parse().unwrap());
    }

    /// Answers 401 to whoever sends another `Authorization`.
    pub(super) fn wants(&self, authorization: &str) {
        *self.shared.wants.lock().unwrap() = Some(authorization.to_owned());
    }

    /// Sends an event to every open stream.
    pub(super) fn event(&self, name: &str) {
        let event = format!("event: {name}\r\ndata: {{\"eventType\":\"{name}\"}}\r\n\r\n");
        _ = self.shared.events.send(event.into());
    }

    /// Sends an event about an app.
    pub(super) fn event_of(&self, name: &str, app: &str) {
        let data = json!({"eventType": name, "appId": app});
        let event = format!("event: {name}\r\ndata: {data}\r\n\r\n");
        _ = self.shared.events.send(event.into());
    }

    /// What `/v2/apps/{id}` answers.
    pub(super) fn app(&self, app: Value) {
        let path = format!("/v2/apps{}", app["id"].as_str().unwrap());
        self.set(&path, Reply::Json(json!({ "app": app })));
    }

    /// Sends what Marathon sends where there is nothing to say.
    pub(super) fn heart_beat(&self) {
        for byte in ["\r", "\n"] {
            _ = self.shared.events.send(byte.into());
        }
    }

    /// Closes every open stream.
    pub(super) fn close_streams(&self) {
        _ = self.shared.events.send(Bytes::new());
    }

    /// The requests for a path so far.
    pub(super) fn seen(&self, path: &str) -> Vec<Seen> {
        let seen = self.shared.seen.lock().unwrap();
        seen.iter()
            .filter(|seen| seen.path == path)
            .cloned()
            .collect()
    }

    /// The most requests that were ever under way at once.
    pub(super) fn most_at_once(&self) -> usize {
        self.shared.busy.lock().unwrap().1
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let headers = request.headers().clone();
    let sent = headers.get(header::AUTHORIZATION).cloned();
    let at = Instant::now();
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await;
    let seen = Seen {
        path: path.clone(),
        query,
        headers,
        body: body.unwrap(),
        at,
    };
    shared.seen.lock().unwrap().push(seen);
    let wants = shared.wants.lock().unwrap().clone();
    let reply = match wants {
        Some(wants) if path != LOGIN && sent.is_none_or(|sent| sent != *wants) => {
            Some(Reply::Text(401, "who are you?".to_owned()))
        }
        _ => shared.replies.lock().unwrap().get(&path).cloned(),
    };
    let is_counted = path != "/v2/events";
    if is_counted {
        let mut busy = shared.busy.lock().unwrap();
        busy.0 += 1;
        busy.1 = busy.1.max(busy.0);
    }
    // Long enough for an overlapping request to be noticed.
    tokio::task::yield_now().await;
    let mut response = respond(&shared, reply).await;
    if is_counted {
        shared.busy.lock().unwrap().0 -= 1;
    }
    response
        .headers_mut()
        .extend(shared.headers.lock().unwrap().clone());
    response
}

async fn respond(shared: &Shared, reply: Option<Reply>) -> Response {
    let stream = |body: Body| {
        let response = Response::builder();
        let response = response.header(header::CONTENT_TYPE, "text/event-stream;charset=utf-8");
        response.body(body).unwrap()
    };
    match reply.unwrap_or(Reply::Text(404, r#"{"message":"not found"}"#.to_owned())) {
        Reply::Json(value) => Response::new(Body::from(value.to_string())),
        Reply::Text(status, text) => {
            let mut response = Response::new(Body::from(text));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response
        }
        Reply::Redirect(to) => {
            let response = Response::builder().status(302).header(header::LOCATION, to);
            response.body(Body::empty()).unwrap()
        }
        Reply::Broken(text) => {
            let pieces = [Ok(text), Err(std::io::Error::other("the server broke"))];
            Response::new(Body::from_stream(stream::iter(pieces)))
        }
        Reply::Endless(piece, pause) => Response::new(Body::from_stream(stream::unfold(
            (),
            move |()| async move {
                tokio::time::sleep(pause).await;
                Some((Ok::<_, Infallible>(piece), ()))
            },
        ))),
        Reply::Late(value, late) => {
            tokio::time::sleep(late).await;
            Response::new(Body::from(value.to_string()))
        }
        Reply::Silence => std::future::pending().await,
        Reply::ClosedStream => stream(Body::empty()),
        Reply::Stream => {
            let events = shared.events.subscribe();
            stream(Body::from_stream(stream::unfold(
                events,
                |mut events| async {
                    let piece = events.recv().await.ok().filter(|piece| !piece.is_empty())?;
                    Some((Ok::<_, Infallible>(piece), events))
                },
            )))
        }
    }
}
