//! HAProxy's metrics of every backend.

use super::{
    haproxy::{
        Family, OfBack,
        Value::{Micros, Millis, Number, Signed, State},
        back,
    },
    write::Kind::{Counter, Gauge},
};
use crate::admin::stats::status;

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
