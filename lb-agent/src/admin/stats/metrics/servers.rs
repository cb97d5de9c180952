//! HAProxy's metrics of every backend.

use super::{
    haproxy::{
        Family, OfBack,
        Value::{Micros, Millis, Number, Signed, State},
        family, table,
    },
    write::Kind::{Counter, Gauge},
};
use crate::admin::stats::{fields::Back, status};

/// Of every backend.
pub(super) const SERVER: &[Family<OfBack>] = table!(
    "haproxy_server",
    Back,
    [
        family(
            "haproxy_server_status",
            "The state that it is in",
            Gauge,
            State(|b| Some(status::word(b.backend)), &status::SERVER),
        ),
        family(
            "haproxy_server_current_sessions",
            "Flows at present",
            Gauge,
            Number(|b| Some(b.backend.traffic.flows_active)),
        ),
        family(
            "haproxy_server_max_sessions",
            "The most flows at a time",
            Gauge,
            Number(|b| Some(b.server.load.active_max)),
        ),
        family(
            "haproxy_server_limit_sessions",
            "Flows that it may have",
            Gauge,
            Number(|b| b.limit()),
        ),
        family(
            "haproxy_server_sessions_total",
            "Flows ever",
            Counter,
            Number(|b| Some(b.backend.traffic.flows_new)),
        ),
        family(
            "haproxy_server_current_session_rate",
            "New flows in the last second",
            Gauge,
            Number(|b| Some(b.server.load.rate)),
        ),
        family(
            "haproxy_server_max_session_rate",
            "The most new flows in a second",
            Gauge,
            Number(|b| Some(b.server.load.rate_max)),
        ),
        family(
            "haproxy_server_bytes_in_total",
            "Bytes to it; missing once a local UDP socket spoke to it",
            Counter,
            Number(|b| b.backend.traffic.bytes_in),
        ),
        family(
            "haproxy_server_bytes_out_total",
            "Bytes from it; missing where they bypass the node",
            Counter,
            Number(|b| b.backend.traffic.bytes_out),
        ),
        family(
            "haproxy_server_connection_errors_total",
            "Connections that it did not accept",
            Counter,
            Number(|b| Some(b.outcomes().failed())),
        ),
        family(
            "haproxy_server_weight",
            "Its weight",
            Gauge,
            Number(|b| Some(b.backend.weight.into())),
        ),
        family(
            "haproxy_server_uweight",
            "Its declared weight",
            Gauge,
            Number(|b| Some(b.backend.declared.weight.into())),
        ),
        family(
            "haproxy_server_check_status",
            "Result of the last check; missing where nothing says how it is",
            Gauge,
            State(|b| b.check(), &status::CHECK),
        ),
        family(
            "haproxy_server_check_failures_total",
            "Checks that failed",
            Counter,
            Number(|b| b.checks_failed()),
        ),
        family(
            "haproxy_server_check_code",
            "Status code of the last check",
            Gauge,
            Number(|b| Some(b.backend.health.probe.as_ref()?.code?.into())),
        ),
        family(
            "haproxy_server_check_duration_seconds",
            "How long the last check took",
            Gauge,
            Millis(|b| Some(b.backend.health.probe.as_ref()?.took_ms)),
        ),
        family(
            "haproxy_server_check_up_down_total",
            "How often it went down",
            Counter,
            Number(|b| Some(b.backend.health.downs)),
        ),
        family(
            "haproxy_server_check_last_change_seconds",
            "Since the last change of its state",
            Gauge,
            Number(|b| b.last_change()),
        ),
        family(
            "haproxy_server_downtime_seconds_total",
            "Time in which it was down or in maintenance",
            Counter,
            Number(|b| Some(b.downtime())),
        ),
        family(
            "haproxy_server_loadbalanced_total",
            "Times that it was chosen",
            Counter,
            Number(|b| Some(b.backend.traffic.flows_new)),
        ),
    ]
);
