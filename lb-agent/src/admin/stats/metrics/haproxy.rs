//! HAProxy's metrics, by the names of its own exporter, so that dashboards made for it work.

use super::write::{
    Kind::{self, Counter, Gauge},
    Writer,
};
use crate::admin::stats::{
    fields::{Back, Front},
    sample::Sample,
    status,
};

/// What metrics are of.
pub(super) trait Level {
    /// One of them in a sample.
    type At<'a>: Copy;
}

/// Services.
pub(super) struct OfFront;

/// Backends.
pub(super) struct OfBack;

/// A metric with one value for each of its level.
pub(super) struct Family<L: Level> {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    value: Value<L>,
}

/// `None`: not known, so there is no sample.
enum Value<L: Level> {
    Number(fn(L::At<'_>) -> Option<u64>),
    Signed(fn(L::At<'_>) -> Option<i64>),
    /// Of a second.
    Millis(fn(L::At<'_>) -> Option<u64>),
    /// Of a second.
    Micros(fn(L::At<'_>) -> Option<u64>),
    /// 1 for the one that it is, 0 for the others.
    State(fn(L::At<'_>) -> &'static str, &'static [&'static str]),
}
use Value::{Micros, Millis, Number, Signed, State};

const fn front(
    name: &'static str,
    help: &'static str,
    kind: Kind,
    value: Value<OfFront>,
) -> Family<OfFront> {
    Family {
        name,
        help,
        kind,
        value,
    }
}

const fn back(
    name: &'static str,
    help: &'static str,
    kind: Kind,
    value: Value<OfBack>,
) -> Family<OfBack> {
    Family {
        name,
        help,
        kind,
        value,
    }
}

// === impl Level ===

impl Level for OfFront {
    type At<'a> = Front<'a>;
}

impl Level for OfBack {
    type At<'a> = Back<'a>;
}

// === impl Family ===

impl<L: Level> Family<L> {
    fn write(&self, of: L::At<'_>, labels: &[(&str, &str)], out: &mut Writer<'_>) {
        match self.value {
            Number(value) => {
                if let Some(value) = value(of) {
                    out.sample(self.name, labels, value);
                }
            }
            Signed(value) => {
                if let Some(value) = value(of) {
                    out.signed(self.name, labels, value);
                }
            }
            Millis(value) => {
                if let Some(value) = value(of) {
                    out.thousandths(self.name, labels, value);
                }
            }
            Micros(value) => {
                if let Some(value) = value(of) {
                    out.millionths(self.name, labels, value);
                }
            }
            State(value, words) => {
                let is = value(of);
                for word in words {
                    match labels {
                        [proxy] => {
                            let labels = [*proxy, ("state", word)];
                            out.sample(self.name, &labels, (*word == is).into());
                        }
                        [proxy, server, ..] => {
                            let labels = [*proxy, *server, ("state", word)];
                            out.sample(self.name, &labels, (*word == is).into());
                        }
                        [] => {}
                    }
                }
            }
        }
    }
}

impl Family<OfFront> {
    pub(super) fn of_fronts<'a>(
        &self,
        begins: bool,
        fronts: impl Iterator<Item = Front<'a>>,
        out: &mut Writer<'_>,
    ) {
        if begins {
            out.family(self.name, self.kind, self.help);
        }
        for front in fronts {
            self.write(front, &[("proxy", &front.proxy.name)], out);
        }
    }
}

impl Family<OfBack> {
    pub(super) fn of_servers<'a>(
        &self,
        begins: bool,
        fronts: impl Iterator<Item = Front<'a>>,
        out: &mut Writer<'_>,
    ) {
        if begins {
            out.family(self.name, self.kind, self.help);
        }
        for back in fronts.flat_map(Front::servers) {
            let labels = [
                ("proxy", &*back.front.proxy.name),
                ("server", &*back.server.name),
            ];
            self.write(back, &labels, out);
        }
    }
}

/// Of the process.
pub(super) fn process(sample: &Sample, out: &mut Writer<'_>) {
    let agent = &sample.report.agent;
    let mut one = |name: &str, kind, help: &str, value: Option<u64>| {
        if let Some(value) = value {
            out.family(name, kind, help);
            out.sample(name, &[], value);
        }
    };
    let uptime = sample.at.since(agent.started).as_secs();
    one("haproxy_process_nbproc", Gauge, "Processes: one", Some(1));
    one(
        "haproxy_process_uptime_seconds",
        Gauge,
        "Since the agent started",
        Some(uptime),
    );
    one(
        "haproxy_process_current_connections",
        Gauge,
        "Flows at present",
        Some(sample.flows_active),
    );
    one(
        "haproxy_process_max_connections",
        Gauge,
        "TCP flows of one family that there is room for",
        sample.flow_room(),
    );
    one(
        "haproxy_process_connections_total",
        Counter,
        "Flows ever, of the services that are there",
        Some(sample.flows_new),
    );
    let name = "haproxy_process_build_info";
    out.family(name, Gauge, "The agent's version");
    out.sample(name, &[("version", &agent.version)], 1);
}

/// Of every service.
pub(super) const FRONTEND: &[Family<OfFront>] = &[
    front(
        "haproxy_frontend_status",
        "Whether it takes new flows",
        Gauge,
        State(|_| "UP", &status::PROXY),
    ),
    front(
        "haproxy_frontend_current_sessions",
        "Flows at present",
        Gauge,
        Number(|f| Some(f.service.traffic.flows_active)),
    ),
    front(
        "haproxy_frontend_max_sessions",
        "The most flows at a time",
        Gauge,
        Number(|f| Some(f.proxy.load.active_max)),
    ),
    front(
        "haproxy_frontend_limit_sessions",
        "Flows that it may have",
        Gauge,
        Number(|f| f.limit()),
    ),
    front(
        "haproxy_frontend_sessions_total",
        "Flows ever",
        Counter,
        Number(|f| Some(f.service.traffic.flows_new)),
    ),
    front(
        "haproxy_frontend_connections_total",
        "Flows ever",
        Counter,
        Number(|f| Some(f.service.traffic.flows_new)),
    ),
    front(
        "haproxy_frontend_connections_rate_max",
        "The most new flows in a second",
        Gauge,
        Number(|f| Some(f.proxy.load.rate_max)),
    ),
    front(
        "haproxy_frontend_current_session_rate",
        "New flows in the last second",
        Gauge,
        Number(|f| Some(f.proxy.load.rate)),
    ),
    front(
        "haproxy_frontend_max_session_rate",
        "The most new flows in a second",
        Gauge,
        Number(|f| Some(f.proxy.load.rate_max)),
    ),
    front(
        "haproxy_frontend_limit_session_rate",
        "New flows a second that it may have, 0 for no limit",
        Gauge,
        Number(|f| Some(f.service.limits.rate.into())),
    ),
    front(
        "haproxy_frontend_bytes_in_total",
        "Bytes from clients",
        Counter,
        Number(|f| Some(f.service.traffic.bytes_in)),
    ),
    front(
        "haproxy_frontend_bytes_out_total",
        "Bytes to clients; missing where they bypass the node",
        Counter,
        Number(|f| f.service.traffic.bytes_out),
    ),
    front(
        "haproxy_frontend_requests_denied_total",
        "Flows of clients that may not use it",
        Counter,
        Number(|f| Some(f.service.traffic.flows_denied)),
    ),
    front(
        "haproxy_frontend_denied_connections_total",
        "Flows beyond a limit",
        Counter,
        Number(|f| Some(f.service.traffic.flows_limited)),
    ),
    front(
        "haproxy_frontend_internal_errors_total",
        "Flows lost since a table was full or no port was left",
        Counter,
        Number(|f| Some(f.service.traffic.flows_lost)),
    ),
];

/// Of every service's backends together.
pub(super) const BACKEND: &[Family<OfFront>] = &[
    front(
        "haproxy_backend_status",
        "Whether a backend takes new flows",
        Gauge,
        State(|f| f.pool_status(), &status::PROXY),
    ),
    front(
        "haproxy_backend_active_servers",
        "Backends that take new flows, backups apart",
        Gauge,
        Number(|f| Some(f.proxy.pool.active)),
    ),
    front(
        "haproxy_backend_backup_servers",
        "Backups that would take new flows",
        Gauge,
        Number(|f| Some(f.proxy.pool.backup)),
    ),
    front(
        "haproxy_backend_weight",
        "Weights of those together",
        Gauge,
        Number(|f| Some(f.proxy.pool.weight)),
    ),
    front(
        "haproxy_backend_uweight",
        "Their declared weights together",
        Gauge,
        Number(|f| Some(f.proxy.pool.declared_weight)),
    ),
    front(
        "haproxy_backend_current_sessions",
        "Flows at present",
        Gauge,
        Number(|f| Some(f.service.traffic.flows_active)),
    ),
    front(
        "haproxy_backend_max_sessions",
        "The most flows at a time",
        Gauge,
        Number(|f| Some(f.proxy.load.active_max)),
    ),
    front(
        "haproxy_backend_limit_sessions",
        "Flows that it may have",
        Gauge,
        Number(|f| f.limit()),
    ),
    front(
        "haproxy_backend_sessions_total",
        "Flows ever",
        Counter,
        Number(|f| Some(f.service.traffic.flows_new)),
    ),
    front(
        "haproxy_backend_current_session_rate",
        "New flows in the last second",
        Gauge,
        Number(|f| Some(f.proxy.load.rate)),
    ),
    front(
        "haproxy_backend_max_session_rate",
        "The most new flows in a second",
        Gauge,
        Number(|f| Some(f.proxy.load.rate_max)),
    ),
    front(
        "haproxy_backend_loadbalanced_total",
        "Times that a backend was chosen",
        Counter,
        Number(|f| Some(f.chosen())),
    ),
    front(
        "haproxy_backend_connection_attempts_total",
        "Handshakes that came about",
        Counter,
        Number(|f| f.connects()),
    ),
    front(
        "haproxy_backend_connection_errors_total",
        "Flows that no backend took",
        Counter,
        Number(|f| Some(f.failed())),
    ),
    front(
        "haproxy_backend_retry_warnings_total",
        "SYNs sent again",
        Counter,
        Number(|f| Some(f.retries())),
    ),
    front(
        "haproxy_backend_response_errors_total",
        "Flows that backends reset",
        Counter,
        Number(|f| f.backend_resets()),
    ),
    front(
        "haproxy_backend_client_aborts_total",
        "Flows that clients reset",
        Counter,
        Number(|f| Some(f.client_resets())),
    ),
    front(
        "haproxy_backend_server_aborts_total",
        "Flows that backends reset",
        Counter,
        Number(|f| f.backend_resets()),
    ),
    front(
        "haproxy_backend_bytes_in_total",
        "Bytes from clients",
        Counter,
        Number(|f| Some(f.service.traffic.bytes_in)),
    ),
    front(
        "haproxy_backend_bytes_out_total",
        "Bytes to clients; missing where they bypass the node",
        Counter,
        Number(|f| f.service.traffic.bytes_out),
    ),
    front(
        "haproxy_backend_check_up_down_total",
        "How often no backend was left",
        Counter,
        Number(|f| Some(f.proxy.pool.downs)),
    ),
    front(
        "haproxy_backend_check_last_change_seconds",
        "Since the last change of its status",
        Gauge,
        Number(|f| Some(f.last_change())),
    ),
    front(
        "haproxy_backend_downtime_seconds_total",
        "Time without a backend",
        Counter,
        Number(|f| Some(f.downtime())),
    ),
    front(
        "haproxy_backend_last_session_seconds",
        "Since the last new flow, -1 for never",
        Gauge,
        Signed(|f| f.last_new()),
    ),
    front(
        "haproxy_backend_connect_time_average_seconds",
        "Mean time from SYN to SYN-ACK of the latest handshakes",
        Gauge,
        Micros(|f| f.proxy.load.connect_us),
    ),
    front(
        "haproxy_backend_max_connect_time_seconds",
        "The highest of these means",
        Gauge,
        Micros(|f| f.proxy.load.connect_us_max),
    ),
    front(
        "haproxy_backend_current_queue",
        "There is no queue",
        Gauge,
        Number(|_| Some(0)),
    ),
    front(
        "haproxy_backend_max_queue",
        "There is no queue",
        Gauge,
        Number(|_| Some(0)),
    ),
];

/// Of every backend.
pub(super) const SERVER: &[Family<OfBack>] = &[
    back(
        "haproxy_server_status",
        "The state that it is in",
        Gauge,
        State(|b| status::word(b.backend), &status::SERVER),
    ),
    back(
        "haproxy_server_current_sessions",
        "Flows at present",
        Gauge,
        Number(|b| Some(b.backend.traffic.flows_active)),
    ),
    back(
        "haproxy_server_max_sessions",
        "The most flows at a time",
        Gauge,
        Number(|b| Some(b.server.load.active_max)),
    ),
    back(
        "haproxy_server_limit_sessions",
        "Flows that it may have",
        Gauge,
        Number(|b| b.limit()),
    ),
    back(
        "haproxy_server_sessions_total",
        "Flows ever",
        Counter,
        Number(|b| Some(b.backend.traffic.flows_new)),
    ),
    back(
        "haproxy_server_current_session_rate",
        "New flows in the last second",
        Gauge,
        Number(|b| Some(b.server.load.rate)),
    ),
    back(
        "haproxy_server_max_session_rate",
        "The most new flows in a second",
        Gauge,
        Number(|b| Some(b.server.load.rate_max)),
    ),
    back(
        "haproxy_server_bytes_in_total",
        "Bytes to it",
        Counter,
        Number(|b| Some(b.backend.traffic.bytes_in)),
    ),
    back(
        "haproxy_server_bytes_out_total",
        "Bytes from it; missing where they bypass the node",
        Counter,
        Number(|b| b.backend.traffic.bytes_out),
    ),
    back(
        "haproxy_server_connection_errors_total",
        "Connections that it did not accept",
        Counter,
        Number(|b| Some(b.failed())),
    ),
    back(
        "haproxy_server_connection_attempts_total",
        "Handshakes that came about",
        Counter,
        Number(|b| b.backend.traffic.handshakes),
    ),
    back(
        "haproxy_server_response_errors_total",
        "Flows that it reset",
        Counter,
        Number(|b| b.aborted()),
    ),
    back(
        "haproxy_server_server_aborts_total",
        "Flows that it reset",
        Counter,
        Number(|b| b.aborted()),
    ),
    back(
        "haproxy_server_client_aborts_total",
        "Flows that clients reset",
        Counter,
        Number(|b| Some(b.backend.traffic.client_resets)),
    ),
    back(
        "haproxy_server_retry_warnings_total",
        "SYNs sent again",
        Counter,
        Number(|b| Some(b.backend.traffic.syn_retransmits)),
    ),
    back(
        "haproxy_server_weight",
        "Its weight",
        Gauge,
        Number(|b| Some(b.backend.weight.into())),
    ),
    back(
        "haproxy_server_uweight",
        "Its declared weight",
        Gauge,
        Number(|b| Some(b.backend.declared.weight.into())),
    ),
    back(
        "haproxy_server_check_failures_total",
        "Checks that failed",
        Counter,
        Number(|b| Some(b.backend.health.probe.as_ref()?.failed)),
    ),
    back(
        "haproxy_server_check_code",
        "Status code of the last check",
        Gauge,
        Number(|b| Some(b.backend.health.probe.as_ref()?.code?.into())),
    ),
    back(
        "haproxy_server_check_duration_seconds",
        "How long the last check took",
        Gauge,
        Millis(|b| Some(b.backend.health.probe.as_ref()?.took_ms)),
    ),
    back(
        "haproxy_server_check_up_down_total",
        "How often it went down",
        Counter,
        Number(|b| Some(b.backend.health.downs)),
    ),
    back(
        "haproxy_server_check_last_change_seconds",
        "Since the last change of its state",
        Gauge,
        Number(|b| b.last_change()),
    ),
    back(
        "haproxy_server_downtime_seconds_total",
        "Time in which it was down or in maintenance",
        Counter,
        Number(|b| Some(b.downtime())),
    ),
    back(
        "haproxy_server_loadbalanced_total",
        "Times that it was chosen",
        Counter,
        Number(|b| Some(b.backend.traffic.flows_new)),
    ),
    back(
        "haproxy_server_last_session_seconds",
        "Since the last new flow, -1 for never",
        Gauge,
        Signed(|b| b.last_new()),
    ),
    back(
        "haproxy_server_connect_time_average_seconds",
        "Mean time from SYN to SYN-ACK of the latest handshakes",
        Gauge,
        Micros(|b| b.server.load.connect_us),
    ),
];
