//! Statistics as JSON: our own form, and HAProxy's of `show stat json`; beside it that of `show stat typed`.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::{
    csv::{self, Cell, FIELDS, Row, Wish},
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
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Statistics"))]
pub(in crate::admin) struct Head<'a> {
    agent: &'a AgentReport,
    /// When the counters were read.
    at: Timestamp,
    /// Flows at present, of all services.
    flows_active: u64,
    /// Flows ever, of all services.
    flows_new: u64,
    #[serde(flatten)]
    load: Shown,
    /// Room for TCP flows of one family.
    flow_room: Option<u64>,
    /// How long the sample took, ms.
    cost_ms: u64,
    /// What an operator should look at, a sentence each.
    warnings: &'a [String],
}

/// A service.
#[derive(Serialize)]
#[cfg_attr(
    test,
    derive(schemars::JsonSchema),
    schemars(rename = "ServiceStatistics")
)]
pub(in crate::admin) struct Service<'a> {
    /// HAProxy's number of the proxy, as in the CSV.
    iid: u32,
    /// HAProxy's name of the proxy, as in the CSV.
    pxname: &'a str,
    /// Canonical name without zone; `null`: an IP VIP.
    name: Option<&'a str>,
    /// IPv4 first.
    addrs: &'a [IpAddr],
    port: u16,
    /// `tcp` or `udp`.
    protocol: &'static str,
    /// `maglev`, `least-conn`, `round-robin` or `source`.
    algorithm: &'a str,
    /// How packets from outside get to backends.
    mode: &'a str,
    /// Ports of the node's own addresses at which it stands.
    external: &'a [u16],
    /// What its backends are asked; `null`: nothing.
    check: Option<&'a str>,
    /// All its backends are down, so new flows go to them all the same.
    fail_open: bool,
    /// By the operator: it takes no new flows.
    stopped: bool,
    /// Another node may give the name another address.
    address_not_agreed: bool,
    /// `UP` or `DOWN`, as HAProxy's BACKEND line has it.
    status: &'static str,
    /// Whether a backend takes new flows.
    up: bool,
    /// Since the last change of that, s.
    changed_s: u64,
    /// How often no backend was left.
    downs: u64,
    /// Time without a backend, s.
    downtime_s: u64,
    /// Weights of the backends that take new flows, together.
    weight: u64,
    limits: LimitsReport,
    #[serde(flatten)]
    load: Shown,
    /// Flows that no backend took.
    failed: u64,
    /// Flows that clients reset.
    client_resets: u64,
    /// Flows that backends reset; `null`: not known, as answers do not come by here.
    backend_resets: Option<u64>,
    /// SYNs sent again.
    retries: u64,
    /// First packets that opened no flow since no backend took them.
    flows_unserved: u64,
    traffic: &'a ServiceTraffic,
    backends: Vec<Backend<'a>>,
}

/// A backend.
#[derive(Serialize)]
#[cfg_attr(
    test,
    derive(schemars::JsonSchema),
    schemars(rename = "BackendStatistics")
)]
struct Backend<'a> {
    /// HAProxy's number of the server, as in the CSV.
    sid: u16,
    /// HAProxy's name of the server, as in the CSV.
    svname: &'a str,
    addr: SocketAddr,
    /// In HAProxy's words: `UP`, `DOWN`, `DRAIN`, `MAINT`, ...
    status: String,
    state: BackendState,
    /// Why it is in that state.
    why: Option<&'a str>,
    /// Since when, as far as this agent knows.
    since: Option<Timestamp>,
    /// Since the last change of its state, s.
    changed_s: Option<u64>,
    /// Time in which it was down or in maintenance, s.
    downtime_s: u64,
    /// 0 to 256.
    weight: u16,
    /// Its share of the new flows of this moment by weight, 0 to 1; 0 of a backup or another zone's backend that waits.
    share: f64,
    /// Its part of all flows that backends of the service were given, 0 to 1; `None`: there were none.
    observed_share: Option<f64>,
    #[serde(flatten)]
    load: Shown,
    /// Connections that it did not accept.
    failed: u64,
    /// Flows that it reset; `null`: not known.
    backend_aborts: Option<u64>,
    app: &'a str,
    /// The orchestrator's id of the instance.
    task: &'a str,
    /// Where it was read.
    provider: &'a str,
    declared: DeclaredReport,
    health: &'a HealthReport,
    traffic: &'a Traffic,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Rates"))]
struct Shown {
    /// New flows in the last second.
    rate: u64,
    /// The most of that.
    rate_max: u64,
    /// The most flows at a time.
    flows_max: u64,
    /// When the last flow came; `null`: none did, or not known.
    last_new: Option<Timestamp>,
    /// Mean time from SYN to SYN-ACK of the latest handshakes, us.
    connect_us: Option<u64>,
    /// The highest of these means, us.
    connect_us_max: Option<u64>,
    /// Mean life of the latest connections that ended, ms.
    life_ms: Option<u64>,
    /// The highest of these means, ms.
    life_ms_max: Option<u64>,
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
            life_ms: load.life_ms,
            life_ms_max: load.life_ms_max,
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
    let (proxy, service, outcomes) = (front.proxy, front.service, front.outcomes());
    let (pool, traffic) = (&proxy.pool, &service.traffic);
    let given: u64 = front
        .servers()
        .map(|back| back.backend.traffic.flows_new)
        .sum();
    let parts = front.parts();
    let backends = front.servers().map(|back| backend(back, parts, given));
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
        stopped: service.stopped,
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
        client_resets: outcomes.client_resets,
        backend_resets: outcomes.aborted(),
        retries: outcomes.syn_retransmits,
        flows_unserved: traffic.flows_unserved(),
        traffic,
        backends: backends.collect(),
    };
    out.push_str(&write(&shown));
}

/// What comes after them.
pub(crate) const TAIL: &str = "]}\n";

fn backend(back: Back<'_>, parts: f64, given: u64) -> Backend<'_> {
    let (one, server) = (back.backend, back.server);
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
        share: back.share(parts),
        observed_share: (given > 0).then(|| one.traffic.flows_new as f64 / given as f64),
        load: server.load.into(),
        failed: back.outcomes().failed(),
        backend_aborts: back.outcomes().aborted(),
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
        let (object, proxy, id) = object(&row);
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

/// The lines of one proxy in HAProxy's typed form, a value each: `F.7.0.8.bin.1:MGP:u64:1000`.
pub(crate) fn typed(front: Front<'_>, wish: &Wish, out: &mut String) {
    wish.rows(front, |row| {
        let (object, proxy, id) = object(&row);
        let letter = &object[..1];
        for (place, (cell, name)) in row.iter().zip(FIELDS).enumerate() {
            // HAProxy's letters: a metric's gauge, or an output that tells a state, of the process.
            let kind = match cell {
                Cell::Empty => continue,
                Cell::Number(_) => "MGP:u64",
                Cell::Signed(_) => "MGP:s32",
                Cell::Text(_) => "SOP:str",
            };
            out.push_str(&format!("{letter}.{proxy}.{id}.{place}.{name}.1:{kind}:"));
            csv::write(cell, out);
            out.push('\n');
        }
    });
}

/// What HAProxy calls the kind of a row, and the numbers of its proxy and of itself.
fn object(row: &Row<'_>) -> (&'static str, u64, u64) {
    let number = |place: usize| match &row[place] {
        Cell::Number(number) => *number,
        _ => 0,
    };
    let object = match number(32) {
        0 => "Frontend",
        1 => "Backend",
        _ => "Server",
    };
    (object, number(27), number(28))
}
