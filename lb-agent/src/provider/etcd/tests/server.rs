//! A gateway that does as it is told, also what a real one seldom does.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use reqwest::Url;
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle};

/// What it holds, and how it behaves.
#[derive(Default)]
pub(super) struct Store {
    pub(super) revision: i64,
    held: BTreeMap<String, (i64, String)>,
    watches: Vec<mpsc::UnboundedSender<Result<Bytes, Infallible>>>,
    /// The token that is good; without one nobody needs any.
    pub(super) token: Option<String>,
    /// Watches that start at this revision or before it are too late.
    pub(super) compacted: i64,
    /// Watches tell nothing.
    pub(super) silent: bool,
    /// Nothing is answered.
    pub(super) hanging: bool,
    /// Every answer is this.
    pub(super) nonsense: Option<String>,
    /// Nobody may write.
    pub(super) read_only: bool,
    /// Seconds of the leases that were granted, in order of their ids.
    pub(super) leases: Vec<String>,
    /// The lease of each key that has one.
    pub(super) leased: BTreeMap<String, String>,
    /// Paths that were asked for.
    pub(super) asked: Vec<String>,
}

/// A running gateway.
pub(super) struct Server {
    pub(super) url: Url,
    store: Arc<Mutex<Store>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(super) async fn start() -> Self {
        let store = Arc::new(Mutex::new(Store {
            revision: 1,
            ..Store::default()
        }));
        let app = Router::new()
            .route("/v3/{*path}", post(answer))
            .with_state(Arc::clone(&store));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            url: url.parse().unwrap(),
            store,
            task,
        }
    }

    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    pub(super) fn put(&self, key: &str, value: &str) {
        self.store().put(key, value);
    }

    pub(super) fn delete(&self, key: &str) {
        self.store().delete(key);
    }

    pub(super) fn get(&self, key: &str) -> Option<String> {
        self.store().held.get(key).map(|(_, value)| value.clone())
    }

    /// Ends every watch.
    pub(super) fn cut(&self) {
        self.store().watches.clear();
    }
}

impl Store {
    fn put(&mut self, key: &str, value: &str) {
        self.revision += 1;
        let revision = self.revision;
        self.held
            .insert(key.to_owned(), (revision, value.to_owned()));
        let event = json!({"kv": kv(key, revision, value)});
        self.tell(&event);
    }

    fn delete(&mut self, key: &str) {
        self.revision += 1;
        self.held.remove(key);
        let event = json!({"type": "DELETE", "kv": {"key": STANDARD.encode(key),
            "mod_revision": self.revision.to_string()}});
        self.tell(&event);
    }

    fn tell(&mut self, event: &Value) {
        if self.silent {
            return;
        }
        let result = json!({"result": {"header": {"revision": self.revision.to_string()}, "events": [event]}});
        let line = format!("{result}\n");
        // In pieces, as a network may.
        let (one, other) = line.split_at(line.len() / 2);
        self.watches.retain(|watch| {
            let mut pieces = [one, other].into_iter();
            pieces.all(|piece| watch.send(Ok(piece.to_owned().into())).is_ok())
        });
    }

    fn range(&self, request: &Value) -> Value {
        let (from, to) = (text(&request["key"]), text(&request["range_end"]));
        let limit: usize = request["limit"].as_str().unwrap().parse().unwrap();
        let keys_only = request["keys_only"] == true;
        let mut found = self.held.range(from..to);
        let page: Vec<Value> = found
            .by_ref()
            .take(limit)
            .map(|(key, (revision, value))| kv(key, *revision, if keys_only { "" } else { value }))
            .collect();
        let more = found.next().is_some();
        json!({"header": {"revision": self.revision.to_string()}, "kvs": page, "more": more})
    }

    fn txn(&mut self, request: &Value) -> Value {
        let compared = request["compare"].as_array().unwrap();
        let holds = |one: &Value| {
            let held = self.held.get(&text(&one["key"]));
            match one["target"].as_str().unwrap() {
                "CREATE" => held.is_none(),
                _ => held.is_some_and(|(_, value)| *value == text(&one["value"])),
            }
        };
        let succeeded = compared.iter().all(holds);
        let done = request["success"].as_array().unwrap().iter();
        for one in done.filter(|_| succeeded) {
            let (put, delete) = (&one["request_put"], &one["request_delete_range"]);
            match put.is_null() {
                true => self.delete(&text(&delete["key"])),
                false => {
                    let key = text(&put["key"]);
                    self.put(&key, &text(&put["value"]));
                    if let Some(lease) = put["lease"].as_str() {
                        self.leased.insert(key, lease.to_owned());
                    }
                }
            }
        }
        json!({"header": {}, "succeeded": succeeded})
    }

    fn watch(&mut self, request: &Value) -> Response {
        let (tx, rx) = mpsc::unbounded_channel();
        let start: i64 = request["create_request"]["start_revision"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        let first = if start <= self.compacted {
            let compacted = self.compacted.to_string();
            json!({"result": {"created": true, "canceled": true, "compact_revision": compacted}})
        } else {
            self.watches.push(tx.clone());
            json!({"result": {"header": {}, "created": true}})
        };
        tx.send(Ok(format!("{first}\n").into())).unwrap();
        let stream = futures_util::stream::unfold(rx, async |mut rx| Some((rx.recv().await?, rx)));
        Body::from_stream(stream).into_response()
    }
}

fn kv(key: &str, revision: i64, value: &str) -> Value {
    json!({"key": STANDARD.encode(key), "mod_revision": revision.to_string(), "value": STANDARD.encode(value)})
}

fn text(value: &Value) -> String {
    String::from_utf8(STANDARD.decode(value.as_str().unwrap()).unwrap()).unwrap()
}

fn refusal(status: StatusCode, code: u32, message: &str) -> Response {
    (
        status,
        Json(json!({"error": message, "message": message, "code": code})),
    )
        .into_response()
}

async fn answer(
    State(store): State<Arc<Mutex<Store>>>,
    axum::extract::Path(path): axum::extract::Path<String>,
    headers: HeaderMap,
    body: String,
) -> Response {
    if store.lock().unwrap().hanging {
        return std::future::pending().await;
    }
    let mut store = store.lock().unwrap();
    store.asked.push(path.clone());
    if let Some(nonsense) = &store.nonsense {
        return nonsense.clone().into_response();
    }
    let request: Value = serde_json::from_str(&body).unwrap();
    if path == "auth/authenticate" {
        let right = request == json!({"name": "lb", "password": "geheim"});
        return match &store.token {
            Some(token) if right => Json(json!({"header": {}, "token": token})).into_response(),
            _ => refusal(
                StatusCode::BAD_REQUEST,
                3,
                "etcdserver: authentication failed",
            ),
        };
    }
    let shown = headers
        .get("authorization")
        .map(|token| token.to_str().unwrap().to_owned());
    if store.token.is_some() && shown != store.token {
        return refusal(
            StatusCode::UNAUTHORIZED,
            16,
            "etcdserver: invalid auth token",
        );
    }
    match path.as_str() {
        "kv/range" => Json(store.range(&request)).into_response(),
        "lease/grant" => {
            store
                .leases
                .push(request["TTL"].as_str().unwrap().to_owned());
            let id = store.leases.len().to_string();
            Json(json!({"header": {}, "ID": id, "TTL": request["TTL"]})).into_response()
        }
        "kv/txn" if store.read_only => {
            refusal(StatusCode::FORBIDDEN, 7, "etcdserver: permission denied")
        }
        "kv/txn" => Json(store.txn(&request)).into_response(),
        "watch" => store.watch(&request),
        _ => refusal(StatusCode::NOT_FOUND, 5, "Not Found"),
    }
}
