//! HAProxy's metrics of services, and of their backends together.

use super::{
    haproxy::{
        Family, OfFront,
        Value::{Micros, Millis, Number, Signed, State},
        family, table,
    },
    write::Kind::{Counter, Gauge},
};
use crate::admin::stats::{fields::Front, status};

/// Of every service.
pub(super) const FRONTEND: &[Family<OfFront>] = &[
    family(
        "haproxy_frontend_status",
        "Whether it takes new flows",
        Gauge,
        State(
            |f| Some(if f.service.stopped { "DOWN" } else { "UP" }),
            &status::PROXY,
        ),
    ),
    family(
        "haproxy_frontend_current_sessions",
        "Flows at present",
        Gauge,
        Number(|f| Some(f.service.traffic.flows_active)),
    ),
    family(
        "haproxy_frontend_max_sessions",
        "The most flows at a time",
        Gauge,
        Number(|f| Some(f.proxy.load.active_max)),
    ),
    family(
        "haproxy_frontend_limit_sessions",
        "Flows that it may have",
        Gauge,
        Number(|f| f.limit()),
    ),
    family(
        "haproxy_frontend_sessions_total",
        "Flows ever",
        Counter,
        Number(|f| Some(f.service.traffic.flows_new)),
    ),
    family(
        "haproxy_frontend_connections_total",
        "Flows ever",
        Counter,
        Number(|f| Some(f.service.traffic.flows_new)),
    ),
    family(
        "haproxy_frontend_connections_rate_max",
        "The most new flows in a second",
        Gauge,
        Number(|f| Some(f.proxy.load.rate_max)),
    ),
    family(
        "haproxy_frontend_current_session_rate",
        "New flows in the last second",
        Gauge,
        Number(|f| Some(f.proxy.load.rate)),
    ),
    family(
        "haproxy_frontend_max_session_rate",
        "The most new flows in a second",
        Gauge,
        Number(|f| Some(f.proxy.load.rate_max)),
    ),
    family(
        "haproxy_frontend_limit_session_rate",
        "New flows a second that it may have, 0 for no limit",
        Gauge,
        Number(|f| Some(f.service.limits.rate.into())),
    ),
    family(
        "haproxy_frontend_bytes_in_total",
        "Bytes from clients; missing once a local UDP socket spoke to it",
        Counter,
        Number(|f| f.service.traffic.bytes_in),
    ),
    family(
        "haproxy_frontend_bytes_out_total",
        "Bytes to clients; missing where they bypass the node",
        Counter,
        Number(|f| f.service.traffic.bytes_out),
    ),
    family(
        "haproxy_frontend_requests_denied_total",
        "Flows of clients that may not use it",
        Counter,
        Number(|f| Some(f.service.traffic.flows_denied)),
    ),
    family(
        "haproxy_frontend_denied_connections_total",
        "Flows beyond a limit",
        Counter,
        Number(|f| Some(f.service.traffic.flows_limited)),
    ),
    family(
        "haproxy_frontend_internal_errors_total",
        "Flows lost since a table was full or no port was left",
        Counter,
        Number(|f| Some(f.service.traffic.flows_lost)),
    ),
    family(
        "haproxy_frontend_request_errors_total",
        "Packets whose TCP header is cut short",
        Counter,
        Number(|f| Some(f.service.traffic.malformed)),
    ),
];

/// Of every service's backends together.
pub(super) const BACKEND: &[Family<OfFront>] = table!(
    "haproxy_backend",
    Front,
    [
        family(
            "haproxy_backend_status",
            "Whether a backend takes new flows",
            Gauge,
            State(|f| Some(f.pool_status()), &status::PROXY),
        ),
        family(
            "haproxy_backend_active_servers",
            "Backends that take new flows, backups apart",
            Gauge,
            Number(|f| Some(f.proxy.pool.active)),
        ),
        family(
            "haproxy_backend_backup_servers",
            "Backups that would take new flows",
            Gauge,
            Number(|f| Some(f.proxy.pool.backup)),
        ),
        family(
            "haproxy_backend_weight",
            "Weights of those together",
            Gauge,
            Number(|f| Some(f.proxy.pool.weight)),
        ),
        family(
            "haproxy_backend_uweight",
            "Their declared weights together",
            Gauge,
            Number(|f| Some(f.proxy.pool.declared_weight)),
        ),
        family(
            "haproxy_backend_current_sessions",
            "Flows at present",
            Gauge,
            Number(|f| Some(f.service.traffic.flows_active)),
        ),
        family(
            "haproxy_backend_max_sessions",
            "The most flows at a time",
            Gauge,
            Number(|f| Some(f.proxy.load.active_max)),
        ),
        family(
            "haproxy_backend_limit_sessions",
            "Flows that it may have",
            Gauge,
            Number(|f| f.limit()),
        ),
        family(
            "haproxy_backend_sessions_total",
            "Flows ever",
            Counter,
            Number(|f| Some(f.service.traffic.flows_new)),
        ),
        family(
            "haproxy_backend_current_session_rate",
            "New flows in the last second",
            Gauge,
            Number(|f| Some(f.proxy.load.rate)),
        ),
        family(
            "haproxy_backend_max_session_rate",
            "The most new flows in a second",
            Gauge,
            Number(|f| Some(f.proxy.load.rate_max)),
        ),
        family(
            "haproxy_backend_loadbalanced_total",
            "Times that a backend was chosen",
            Counter,
            Number(|f| Some(f.service.traffic.flows_new)),
        ),
        family(
            "haproxy_backend_requests_denied_total",
            "Flows of clients that may not use it",
            Counter,
            Number(|f| Some(f.service.traffic.flows_denied)),
        ),
        family(
            "haproxy_backend_internal_errors_total",
            "Flows lost since a table was full or no port was left",
            Counter,
            Number(|f| Some(f.service.traffic.flows_lost)),
        ),
        family(
            "haproxy_backend_connection_errors_total",
            "Flows that no backend took",
            Counter,
            Number(|f| Some(f.failed())),
        ),
        family(
            "haproxy_backend_bytes_in_total",
            "Bytes from clients; missing once a local UDP socket spoke to it",
            Counter,
            Number(|f| f.service.traffic.bytes_in),
        ),
        family(
            "haproxy_backend_bytes_out_total",
            "Bytes to clients; missing where they bypass the node",
            Counter,
            Number(|f| f.service.traffic.bytes_out),
        ),
        family(
            "haproxy_backend_check_up_down_total",
            "How often no backend was left",
            Counter,
            Number(|f| Some(f.proxy.pool.downs)),
        ),
        family(
            "haproxy_backend_check_last_change_seconds",
            "Since the last change of its status",
            Gauge,
            Number(|f| Some(f.last_change())),
        ),
        family(
            "haproxy_backend_downtime_seconds_total",
            "Time without a backend",
            Counter,
            Number(|f| Some(f.downtime())),
        ),
    ]
);
