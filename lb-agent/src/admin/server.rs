//! The pages of the admin socket, and what all pages need.

use std::{
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::{
    Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use super::{
    flows::{self, Doubt, Wish},
    orders::{Act, Asked, Forced, Order, Ordered, Which},
    page::{self, Feed},
    report::{Resolution, StatusReport, Timestamp},
    socket::AdminSocket,
    stats::{Events, Stats},
    trace, vips,
    web::{self, By},
    work::Work,
};
use crate::{
    look::{Explanation, Filter, FlowsReport, Question, Told, TraceWish},
    provider::Again,
};

/// What DNS would answer to a name, from the same snapshot as DNS itself; must not block.
pub type Resolve = Arc<dyn Fn(&str) -> Resolution + Send + Sync>;

/// Fills the kernel's numbers into a report; blocks. An error: they cannot be read, and what stands in the report is not
/// to be taken for them.
pub type Count = Arc<dyn Fn(&mut StatusReport) -> anyhow::Result<()> + Send + Sync>;

/// Looks into the kernel's flow tables; changes nothing.
pub trait Look: Send + Sync + 'static {
    /// The flows that match, up to `limit`, without names; blocks.
    ///
    /// # Errors
    ///
    /// If the tables cannot be read.
    fn flows(&self, filter: &Filter, limit: usize) -> anyhow::Result<FlowsReport>;

    /// What becomes of a flow, without names; blocks.
    ///
    /// # Errors
    ///
    /// If the maps cannot be read or the programs not asked.
    fn explain(&self, question: &Question) -> anyhow::Result<Explanation>;

    /// Lets the programs tell of packets and calls until the receiver is dropped. The first thing it gets is a
    /// [`Told::Beat`], when that is so; must not block.
    ///
    /// # Errors
    ///
    /// If too many listen already.
    fn trace(&self, wish: TraceWish) -> anyhow::Result<mpsc::Receiver<Told>>;
}

/// What every page needs.
#[derive(Clone)]
pub struct Admin {
    pub(super) report: Arc<ArcSwap<StatusReport>>,
    resolve: Resolve,
    count: Count,
    look: Arc<dyn Look>,
    orders: mpsc::Sender<Ordered>,
    pub(super) stats: Stats,
    pub(super) alive: Arc<Alive>,
    /// Long pages that may be under way.
    pub(super) readers: Arc<web::Readers>,
    /// What the stats page is told.
    pub(super) feed: Arc<Feed>,
}

/// Where pages get what they show, and where orders go.
pub struct Sources {
    /// Replaced by the control loop.
    pub report: Arc<ArcSwap<StatusReport>>,
    /// As DNS.
    pub resolve: Resolve,
    /// Of the kernel.
    pub count: Count,
    /// Into the flow tables.
    pub look: Arc<dyn Look>,
    /// To the control loop.
    pub orders: mpsc::Sender<Ordered>,
    /// What changed of late.
    pub events: Events,
    /// Of the control loop.
    pub alive: Arc<Alive>,
}

/// A sign of life of the control loop, and how to wake it.
#[derive(Debug)]
pub struct Alive {
    /// When it last turned, as a [`Timestamp`].
    pub turned: AtomicU64,
    /// It turns at least so often, ms.
    pub resync_ms: u64,
    /// Has it compare everything, and every provider read anew.
    pub again: Again,
    /// What its work came to.
    pub work: Work,
}

// === impl Alive ===

impl Alive {
    /// Of a loop that turns now.
    pub fn new(resync: Duration) -> Self {
        Self {
            turned: AtomicU64::new(Timestamp::now().0),
            resync_ms: u64::try_from(resync.as_millis()).unwrap_or(u64::MAX / 4),
            again: Again::default(),
            work: Work::default(),
        }
    }

    /// It turns.
    pub fn turn(&self) {
        self.turned.store(Timestamp::now().0, Ordering::Relaxed);
    }
}

// === impl Admin ===

impl Admin {
    /// Begins to count, on the present runtime.
    pub fn start(sources: Sources) -> Self {
        let Sources {
            report,
            resolve,
            count,
            look,
            orders,
            events,
            alive,
        } = sources;
        Self {
            stats: Stats::start(Arc::clone(&report), Arc::clone(&count), events),
            report,
            resolve,
            count,
            look,
            orders,
            alive,
            readers: Arc::default(),
            feed: Arc::default(),
        }
    }

    /// Waits until there is something to tell.
    pub async fn has_begun(&self) {
        self.stats.begun().await;
    }

    /// Into the flow tables.
    pub(super) fn look(&self) -> Arc<dyn Look> {
        Arc::clone(&self.look)
    }

    /// Every page.
    pub fn router(self) -> Router {
        router(self)
    }

    /// Has the control loop carry an order out; comes back when the kernel's maps are as ordered. `by`: who gives it.
    pub(super) async fn order(
        &self,
        order: Order,
        by: &str,
    ) -> Result<Vec<String>, (StatusCode, String)> {
        let (which, act, deadline) = (
            order.which.to_string(),
            order.act.to_string(),
            order.deadline,
        );
        let obeyed = self.pass_on(order).await;
        match &obeyed {
            Ok(_) => info!(by, which, act, deadline, "the operator's order"),
            Err((_, why)) => warn!(by, which, act, why, "the operator's order was refused"),
        }
        obeyed
    }

    async fn pass_on(&self, order: Order) -> Result<Vec<String>, (StatusCode, String)> {
        let gone = || {
            let why = "the agent is about to stop".to_owned();
            (StatusCode::SERVICE_UNAVAILABLE, why)
        };
        let (answer, answered) = oneshot::channel();
        if self.orders.send((order, answer)).await.is_err() {
            return Err(gone());
        }
        match answered.await {
            Ok(Ok(lines)) => Ok(lines),
            Ok(Err(why)) => Err((StatusCode::CONFLICT, why)),
            Err(_) => Err(gone()),
        }
    }
}

/// Answers until `shutdown` is ready, then removes the socket.
///
/// # Errors
/// When the socket cannot be handed to the runtime.
pub async fn serve(
    socket: AdminSocket,
    admin: Admin,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (listener, _claim) = socket.into_listener()?;
    web::serve_local(listener, router(admin), shutdown).await;
    Ok(())
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/_haproxy_getconfig", get(status))
        .route("/v1/resolve", get(resolve))
        .route("/v1/flows", get(list_flows))
        .route("/v1/explain", get(explain))
        .route("/v1/trace", get(follow))
        .route("/v1/capture", get(capture))
        .route("/v1/vips", get(list_vips))
        .route(
            "/v1/drain",
            post(async |s, by, q| order(s, by, q, Act::Drain).await),
        )
        .route(
            "/v1/maintenance",
            post(async |s, by, q| order(s, by, q, Act::Maintenance).await),
        )
        .route(
            "/v1/ready",
            post(async |s, by, q| order(s, by, q, Act::Ready).await),
        )
        .route(
            "/v1/weight",
            post(async |s, by, q| order(s, by, q, Act::Weight(0)).await),
        )
        .route(
            "/v1/health",
            post(async |s, by, q| order(s, by, q, Act::Health(Forced::Up)).await),
        )
        .route(
            "/v1/reset",
            post(async |s, by, q| order(s, by, q, Act::Reset).await),
        )
        .route("/v1/release", post(release))
        .merge(page::routes())
        .merge(web::routes())
        .layer(middleware::from_fn(web::note))
        .with_state(admin)
}

async fn status(State(admin): State<Admin>) -> Response {
    let counted = tokio::task::spawn_blocking(move || {
        let mut report = StatusReport::clone(&admin.report.load_full());
        if let Err(error) = (admin.count)(&mut report) {
            report.uncounted(&error);
        }
        report.at(Timestamp::now())
    });
    match counted.await {
        Ok(report) => Json(report).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

#[derive(Deserialize)]
struct Sought {
    name: Option<String>,
}

async fn resolve(State(admin): State<Admin>, Query(sought): Query<Sought>) -> Response {
    match sought.name.filter(|name| !name.is_empty()) {
        Some(name) => Json((admin.resolve)(&name)).into_response(),
        None => (
            StatusCode::BAD_REQUEST,
            "say which name: /v1/resolve?name=NAME\n",
        )
            .into_response(),
    }
}

/// Comes back when the kernel's maps are as ordered.
async fn order(
    State(admin): State<Admin>,
    By(by): By,
    Query(asked): Query<Asked>,
    act: Act,
) -> Response {
    let order = match asked.read(act) {
        Ok(order) => order,
        Err(why) => return obeyed(Err((StatusCode::BAD_REQUEST, why))),
    };
    obeyed(admin.order(order, &by).await)
}

async fn release(State(admin): State<Admin>, By(by): By, Query(sought): Query<Sought>) -> Response {
    let Some(name) = sought.name.filter(|name| !name.is_empty()) else {
        let how = "say which name: /v1/release?name=NAME\n";
        return (StatusCode::BAD_REQUEST, how).into_response();
    };
    let order = Order {
        act: Act::Release,
        which: Which {
            backend: None,
            service: Some(name),
        },
        deadline: None,
    };
    obeyed(admin.order(order, &by).await)
}

fn obeyed(outcome: Result<Vec<String>, (StatusCode, String)>) -> Response {
    match outcome {
        Ok(lines) => Json(lines).into_response(),
        Err((code, why)) => (code, format!("{why}\n")).into_response(),
    }
}

async fn list_flows(State(admin): State<Admin>, Query(wish): Query<Wish>) -> Response {
    let report = admin.report.load_full();
    let (filter, limit) = match wish.read(&report) {
        Ok(read) => read,
        Err(reason) => return (StatusCode::BAD_REQUEST, format!("{reason}\n")).into_response(),
    };
    asked(move || {
        let mut found = admin.look.flows(&filter, limit)?;
        flows::name(&mut found, &flows::names(&report));
        Ok(found)
    })
    .await
}

async fn explain(State(admin): State<Admin>, Query(doubt): Query<Doubt>) -> Response {
    let question = match doubt.read() {
        Ok(question) => question,
        Err(reason) => return (StatusCode::BAD_REQUEST, format!("{reason}\n")).into_response(),
    };
    let report = admin.report.load_full();
    asked(move || {
        let mut told = admin.look.explain(&question)?;
        flows::name_service(&mut told, &flows::names(&report));
        Ok(told)
    })
    .await
}

/// The answer to a question that takes its time.
async fn asked<T: Serialize + Send + 'static>(
    question: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> Response {
    let failed = |reason: String| {
        let reason = format!("{reason}\n");
        (StatusCode::INTERNAL_SERVER_ERROR, reason).into_response()
    };
    match tokio::task::spawn_blocking(question).await {
        Ok(Ok(answer)) => Json(answer).into_response(),
        Ok(Err(error)) => failed(format!("{error:#}")),
        Err(error) => failed(error.to_string()),
    }
}

async fn follow(State(admin): State<Admin>, Query(ask): Query<trace::Ask>) -> Response {
    match listen(&admin, &ask, false) {
        Ok((_, told)) => trace::lines(told, admin.report),
        Err(refused) => *refused,
    }
}

async fn capture(State(admin): State<Admin>, Query(ask): Query<trace::Ask>) -> Response {
    match listen(&admin, &ask, true) {
        Ok((snap, told)) => trace::packets(told, admin.report, snap),
        Err(refused) => *refused,
    }
}

/// Bytes of each packet, and what is told.
fn listen(
    admin: &Admin,
    ask: &trace::Ask,
    bytes: bool,
) -> Result<(u32, mpsc::Receiver<Told>), Box<Response>> {
    let refuse =
        |code: StatusCode, reason: String| Box::new((code, format!("{reason}\n")).into_response());
    let wish = ask
        .read(&admin.report.load(), bytes)
        .map_err(|reason| refuse(StatusCode::BAD_REQUEST, reason))?;
    let snap = wish.snap;
    let told = admin.look.trace(wish);
    let told =
        told.map_err(|error| refuse(StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}")))?;
    Ok((snap, told))
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
