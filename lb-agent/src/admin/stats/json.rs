//! Statistics as JSON: our own form, and HAProxy's of `show stat json`.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::{
    csv::{Cell, FIELDS, Wish},
    fields::{Back, Front},
    sample::{Last, Load, Sample},
    status,
};
use crate::admin::report::{
    AgentReport, BackendState, DeclaredReport, HealthReport, LimitsReport, ServiceTraffic,
    Timestamp, Traffic,
};

/// The beginning of our own form: what holds for all services.
#[derive(Serialize)]
struct Head<'a> {
    agent: &'a AgentReport,
    at: Timestamp,
    flows_active: u64,
    flows_new: u64,
    #[serde(flatten)]
    load: Shown,
    /// Room for TCP flows of one family.
    flow_room: Option<u64>,
    /// How long the sample took, ms.
    cost_ms: u64,
    warnings: &'a [String],
}

/// A service.
#[derive(Serialize)]
struct Service<'a> {
    iid: u32,
    pxname: &'a str,
    name: Option<&'a str>,
    addrs: &'a [IpAddr],
    port: u16,
    protocol: &'static str,
    algorithm: &'a str,
    mode: &'a str,
    external: &'a [u16],
    check: Option<&'a str>,
    fail_open: bool,
    address_not_agreed: bool,
    status: &'static str,
    up: bool,
    changed_s: u64,
    downs: u64,
    downtime_s: u64,
    weight: u64,
    limits: LimitsReport,
    #[serde(flatten)]
    load: Shown,
    failed: u64,
    client_resets: u64,
    backend_resets: Option<u64>,
    retries: u64,
    flows_unserved: u64,
    traffic: &'a ServiceTraffic,
    backends: Vec<Backend<'a>>,
}

/// A backend.
#[derive(Serialize)]
struct Backend<'a> {
    sid: u16,
    svname: &'a str,
    addr: SocketAddr,
    status: String,
    state: BackendState,
    why: Option<&'a str>,
    since: Option<Timestamp>,
    changed_s: Option<u64>,
    downtime_s: u64,
    weight: u16,
    /// Its part of all weights that take new flows, 0 to 1.
    share: f64,
    /// Its part of all flows that backends of the service were given, 0 to 1; `None`: there were none.
    observed_share: Option<f64>,
    #[serde(flatten)]
    load: Shown,
    failed: u64,
    backend_aborts: Option<u64>,
    app: &'a str,
    task: &'a str,
    provider: &'a str,
    declared: DeclaredReport,
    health: &'a HealthReport,
    traffic: &'a Traffic,
}

#[derive(Serialize)]
struct Shown {
    rate: u64,
    rate_max: u64,
    flows_max: u64,
    last_new: Option<Timestamp>,
    connect_us: Option<u64>,
    connect_us_max: Option<u64>,
}

// === impl Shown ===

impl From<Load> for Shown {
    fn from(load: Load) -> Self {
        Self {
            rate: load.rate,
            rate_max: load.rate_max,
            flows_max: load.active_max,
            last_new: match load.last_new {
                Last::At(then) => Some(then),
                Last::Never | Last::Unknown => None,
            },
            connect_us: load.connect_us,
            connect_us_max: load.connect_us_max,
        }
    }
}

/// What comes before the services.
pub(crate) fn head(sample: &Sample, out: &mut String) {
    let head = Head {
        agent: &sample.report.agent,
        at: sample.at,
        flows_active: sample.flows_active,
        flows_new: sample.flows_new,
        load: sample.total.into(),
        flow_room: sample.flow_room(),
        cost_ms: sample.cost.as_millis() as u64,
        warnings: &sample.report.warnings,
    };
    let text = write(&head);
    // The services go before the brace that ends it.
    out.push_str(text.strip_suffix('}').unwrap_or(&text));
    out.push_str(",\"services\":[");
}

/// One service.
pub(crate) fn service(front: Front<'_>, out: &mut String) {
    let Front {
        sample: _,
        proxy,
        service,
    } = front;
    let (pool, traffic) = (&proxy.pool, &service.traffic);
    let given: u64 = front
        .servers()
        .map(|back| back.backend.traffic.flows_new)
        .sum();
    let backends = front
        .servers()
        .map(|back| backend(back, pool.weight, given));
    let shown = Service {
        iid: proxy.iid,
        pxname: &proxy.name,
        name: service.name.as_deref(),
        addrs: &service.addrs,
        port: service.port.get(),
        protocol: service.protocol.as_str(),
        algorithm: &service.algorithm,
        mode: &service.mode,
        external: &service.external,
        check: service.check.as_deref(),
        fail_open: service.fail_open,
        address_not_agreed: service.address_not_agreed,
        status: front.pool_status(),
        up: pool.up,
        changed_s: front.last_change(),
        downs: pool.downs,
        downtime_s: front.downtime(),
        weight: pool.weight,
        limits: service.limits,
        load: proxy.load.into(),
        failed: front.failed(),
        client_resets: front.client_resets(),
        backend_resets: front.backend_resets(),
        retries: front.retries(),
        flows_unserved: traffic.flows_unserved(),
        traffic,
        backends: backends.collect(),
    };
    out.push_str(&write(&shown));
}

/// What comes after them.
pub(crate) const TAIL: &str = "]}\n";

fn backend(back: Back<'_>, weights: u64, given: u64) -> Backend<'_> {
    let (one, server) = (back.backend, back.server);
    let share = match one.takes_flows() && weights > 0 {
        true => f64::from(one.weight) / weights as f64,
        false => 0.0,
    };
    Backend {
        sid: server.sid,
        svname: &server.name,
        addr: one.addr,
        status: status::text(one).into_owned(),
        state: one.state,
        why: one.why.as_deref(),
        since: one.since,
        changed_s: back.last_change(),
        downtime_s: back.downtime(),
        weight: one.weight,
        share,
        observed_share: (given > 0).then(|| one.traffic.flows_new as f64 / given as f64),
        load: server.load.into(),
        failed: back.failed(),
        backend_aborts: back.aborted(),
        app: &one.app,
        task: &one.task,
        provider: &one.provider,
        declared: one.declared,
        health: &one.health,
        traffic: &one.traffic,
    }
}

/// These types have no map keys that are not text, so it cannot fail.
fn write(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// The lines of one proxy in HAProxy's form, each followed by a comma.
pub(crate) fn haproxy(front: Front<'_>, wish: &Wish, out: &mut String) {
    wish.rows(front, |row| {
        let number = |place: usize| match &row[place] {
            Cell::Number(number) => *number,
            _ => 0,
        };
        let object = match number(32) {
            0 => "Frontend",
            1 => "Backend",
            _ => "Server",
        };
        let (proxy, id) = (number(27), number(28));
        let cells = row.iter().enumerate().filter_map(|(place, cell)| {
            let value = match cell {
                Cell::Empty => return None,
                Cell::Number(number) => serde_json::json!({"type": "u64", "value": number}),
                Cell::Signed(number) => serde_json::json!({"type": "s32", "value": number}),
                Cell::Text(text) => serde_json::json!({"type": "str", "value": text}),
            };
            let nature = match cell {
                Cell::Text(_) => "Name",
                _ => "Metric",
            };
            Some(serde_json::json!({
                "objType": object, "proxyId": proxy, "id": id,
                "field": {"pos": place, "name": FIELDS[place]},
                "processNum": 1,
                "tags": {"origin": "Metric", "nature": nature, "scope": "Process"},
                "value": value,
            }))
        });
        let cells: Vec<_> = cells.collect();
        out.push_str(&write(&cells));
        out.push(',');
    });
}
