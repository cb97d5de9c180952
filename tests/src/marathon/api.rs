//! The HTTP API of the leader.

use std::net::SocketAddr;

use axum::{
    Json, Router,
    extract::{ConnectInfo, Path, Query, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use serde_json::{Value, json};

use super::{Marathon, app, guard, view};

type Pairs = Query<Vec<(String, String)>>;

/// Everything the leader answers.
pub(super) fn routes(marathon: Marathon) -> Router {
    let credentials = marathon.config.credentials.clone();
    // `::status` is a literal.
    Router::new()
        .without_v07_checks()
        .route("/ping", get(|| async { "pong\n" }))
        .route("/v2/apps", get(list).post(create))
        .route("/v2/apps/{*rest}", any(one))
        .route("/v2/tasks", get(tasks))
        .route("/v2/tasks/delete", post(delete_tasks))
        // A pod is never there, as the stand-in runs none.
        .route("/v2/pods/::status", get(|| async { Json(json!([])) }))
        .route("/v2/deployments", get(deployments))
        .route("/v2/info", get(info))
        .route("/v2/leader", get(leader))
        .route("/v2/events", get(events))
        .layer(middleware::from_fn_with_state(credentials, guard::check))
        .layer(middleware::from_fn_with_state(marathon.clone(), say_leader))
        .with_state(marathon)
}

async fn say_leader(State(marathon): State<Marathon>, request: Request, next: Next) -> Response {
    let mut answer = next.run(request).await;
    if let Ok(leader) = HeaderValue::from_str(&format!("http://{}", marathon.config.listen)) {
        answer.headers_mut().insert("X-Marathon-Leader", leader);
    }
    answer
}

async fn list(State(marathon): State<Marathon>, Query(query): Pairs) -> Response {
    let inner = marathon.cluster.lock();
    let part_of_id = value(&query, "id").unwrap_or_default();
    let (tasks, readiness) = (embeds(&query, "tasks"), embeds(&query, "readiness"));
    let apps: Vec<Value> = inner
        .apps
        .iter()
        .filter(|(id, _)| id.contains(part_of_id))
        .map(|(_, app)| view::app(&inner, app, tasks, readiness))
        .collect();
    Json(json!({"apps": apps})).into_response()
}

async fn create(
    State(marathon): State<Marathon>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    Json(posted): Json<Value>,
) -> Response {
    let Some(id) = posted["id"].as_str().map(absolute) else {
        return refused(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Object is not valid: /id is missing",
        );
    };
    if marathon.cluster.lock().apps.contains_key(&id) {
        return refused(
            StatusCode::CONFLICT,
            &format!("An app with id [{id}] already exists."),
        );
    }
    match marathon.define(&id, posted, client, "/v2/apps") {
        Ok(mut app) => {
            let deployment = marathon.deploy(&id, "StartApplication");
            app["deployments"] = json!([{"id": deployment["deploymentId"]}]);
            (StatusCode::CREATED, Json(app)).into_response()
        }
        Err(error) => refused(StatusCode::UNPROCESSABLE_ENTITY, &format!("{error:#}")),
    }
}

/// `/v2/apps/{id}`, where the id holds slashes and may be followed by `versions`, a version, or `tasks`.
async fn one(
    State(marathon): State<Marathon>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    method: Method,
    Path(rest): Path<String>,
    body: String,
) -> Response {
    let id = absolute(&rest);
    match method {
        Method::GET => read(&marathon, &id),
        Method::PUT => {
            let Ok(posted) = serde_json::from_str::<Value>(&body) else {
                return refused(StatusCode::BAD_REQUEST, "Invalid JSON");
            };
            change(&marathon, &id, posted, client)
        }
        Method::DELETE => {
            if marathon.cluster.lock().apps.remove(&id).is_none() {
                return missing(&id);
            }
            Json(marathon.deploy(&id, "StopApplication")).into_response()
        }
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

fn read(marathon: &Marathon, path: &str) -> Response {
    let inner = marathon.cluster.lock();
    if let Some((id, version)) = path.rsplit_once("/versions/") {
        let definition = inner.apps.get(id).and_then(|app| app.versions.get(version));
        return definition.map_or_else(
            || missing(id),
            |definition| Json(definition).into_response(),
        );
    }
    if let Some(app) = path
        .strip_suffix("/versions")
        .and_then(|id| inner.apps.get(id))
    {
        let versions: Vec<_> = app.versions.keys().rev().collect();
        return Json(json!({"versions": versions})).into_response();
    }
    if let Some(id) = path
        .strip_suffix("/tasks")
        .filter(|id| inner.apps.contains_key(*id))
    {
        let tasks = inner.tasks.iter().filter(|task| task.app == id);
        let tasks: Vec<_> = tasks.map(|task| view::task(task, &[])).collect();
        return Json(json!({"tasks": tasks})).into_response();
    }
    match inner.apps.get(path) {
        Some(app) => Json(json!({"app": view::app(&inner, app, true, false)})).into_response(),
        None => missing(path),
    }
}

/// PUT changes the keys it names; a new app is made if there is none.
fn change(marathon: &Marathon, id: &str, posted: Value, client: SocketAddr) -> Response {
    if !posted.is_object() {
        return refused(StatusCode::BAD_REQUEST, "Invalid JSON");
    }
    let is_new = !marathon.cluster.lock().apps.contains_key(id);
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    match marathon.change(id, posted, client) {
        Ok(deployed) => (status, Json(deployed)).into_response(),
        Err(error) => refused(StatusCode::UNPROCESSABLE_ENTITY, &format!("{error:#}")),
    }
}

impl Marathon {
    /// Changes the keys that are named, and deploys what comes of it.
    fn change(&self, id: &str, changes: Value, client: SocketAddr) -> anyhow::Result<Value> {
        let current = self
            .cluster
            .lock()
            .apps
            .get(id)
            .map(|app| app.current.clone());
        let action = if current.is_none() {
            "StartApplication"
        } else {
            "ScaleApplication"
        };
        let mut merged = current.unwrap_or_else(|| json!({}));
        if let Value::Object(changes) = changes {
            for (key, value) in changes {
                merged[key] = value;
            }
        }
        self.define(id, merged, client, &format!("/v2/apps/{id}"))?;
        Ok(self.deploy(id, action))
    }

    fn define(
        &self,
        id: &str,
        posted: Value,
        client: SocketAddr,
        uri: &str,
    ) -> anyhow::Result<Value> {
        let app = app::canonical(posted, id)?;
        let defined = self.cluster.lock().define(id, app);
        let client = client.ip().to_string();
        let event = json!({"clientIp": client, "uri": uri, "appDefinition": defined});
        self.bus.send("api_post_event", event);
        Ok(defined)
    }
}

async fn tasks(State(marathon): State<Marathon>, Query(query): Pairs) -> Json<Value> {
    Json(json!({"tasks": view::tasks(&marathon.cluster.lock(), value(&query, "status"))}))
}

/// Kills tasks and scales their apps down by as many.
async fn delete_tasks(
    State(marathon): State<Marathon>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    Query(query): Pairs,
    Json(posted): Json<Value>,
) -> Response {
    if value(&query, "scale") != Some("true") {
        return refused(StatusCode::BAD_REQUEST, "only scale=true is there");
    }
    let ids = posted["ids"].as_array().into_iter().flatten();
    let ids: Vec<&str> = ids.filter_map(Value::as_str).collect();
    let mut deployed = json!({});
    let scaled = marathon.cluster.lock().condemn(&ids);
    for (app, instances) in scaled {
        deployed = match marathon.change(&app, json!({"instances": instances}), client) {
            Ok(deployed) => deployed,
            Err(error) => {
                return refused(StatusCode::UNPROCESSABLE_ENTITY, &format!("{error:#}"));
            }
        };
    }
    Json(deployed).into_response()
}

async fn deployments(State(marathon): State<Marathon>) -> Json<Value> {
    Json(json!(marathon.cluster.lock().deployments))
}

async fn leader(State(marathon): State<Marathon>) -> Json<Value> {
    Json(json!({"leader": marathon.config.listen.to_string()}))
}

async fn info(State(marathon): State<Marathon>) -> Json<Value> {
    let listen = marathon.config.listen;
    Json(json!({
        "name": "marathon", "version": "1.11.24", "buildref": "unknown", "elected": true,
        "leader": listen.to_string(), "frameworkId": "6f1d7c0e-9c0a-4c3e-8d2b-0b8a3a5f2a11-0001",
        "marathon_config": {
            "framework_name": marathon.config.framework, "ha": true, "hostname": listen.ip(),
            "local_port_min": 10000, "local_port_max": 20000, "default_network_name": "dcos",
            "features": ["vips", "task_killing"],
        },
        "zookeeper_config": {"zk": "zk://zk-1.zk:2181/marathon"},
        "http_config": {"http_port": listen.port(), "https_port": 8443},
    }))
}

async fn events(
    State(marathon): State<Marathon>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Query(query): Pairs,
) -> Response {
    marathon
        .bus
        .stream(&headers, &query, client, marathon.config.heartbeat)
}

fn embeds(query: &[(String, String)], what: &str) -> bool {
    query.iter().any(|(key, value)| {
        let bare = ["apps.", "app.", "group.apps."]
            .iter()
            .find_map(|prefix| value.strip_prefix(prefix));
        key == "embed" && bare.unwrap_or(value) == what
    })
}

fn value<'a>(query: &'a [(String, String)], key: &str) -> Option<&'a str> {
    query
        .iter()
        .find(|(found, _)| found == key)
        .map(|(_, value)| value.as_str())
}

fn absolute(id: &str) -> String {
    format!("/{}", id.trim_start_matches('/'))
}

fn missing(id: &str) -> Response {
    refused(StatusCode::NOT_FOUND, &format!("App '{id}' does not exist"))
}

fn refused(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"message": message}))).into_response()
}
