//! HAProxy's metrics, by the names of its own exporter, so that dashboards made for it work: how they are written.

use super::write::{
    Kind::{self, Counter, Gauge},
    Writer,
};
use crate::admin::stats::{
    fields::{Back, Front},
    sample::Sample,
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
pub(super) enum Value<L: Level> {
    Number(fn(L::At<'_>) -> Option<u64>),
    Signed(fn(L::At<'_>) -> Option<i64>),
    /// Of a second.
    Millis(fn(L::At<'_>) -> Option<u64>),
    /// Of a second.
    Micros(fn(L::At<'_>) -> Option<u64>),
    /// 1 for the one that it is, 0 for the others.
    State(
        fn(L::At<'_>) -> Option<&'static str>,
        &'static [&'static str],
    ),
}
use Value::{Micros, Millis, Number, Signed, State};

/// Of a table of them.
pub(super) const fn family<L: Level>(
    name: &'static str,
    help: &'static str,
    kind: Kind,
    value: Value<L>,
) -> Family<L> {
    Family {
        name,
        help,
        kind,
        value,
    }
}

/// A table that ends with what a service's backends together and each of them have alike; `$level`: the type that knows
/// it.
macro_rules! table {
    ($prefix:literal, $level:ident, [$($family:expr,)*]) => {
        &[
            $($family,)*
            family(
                concat!($prefix, "_connection_attempts_total"),
                "Handshakes that came about",
                Counter,
                Number(|one| $level::outcomes(one).handshakes),
            ),
            family(
                concat!($prefix, "_retry_warnings_total"),
                "SYNs sent again",
                Counter,
                Number(|one| Some($level::outcomes(one).syn_retransmits)),
            ),
            family(
                concat!($prefix, "_redispatch_warnings_total"),
                "Flows taken from a backend that refused, was silent or was gone, and given to another",
                Counter,
                Number(|one| Some($level::outcomes(one).redispatched)),
            ),
            family(
                concat!($prefix, "_client_aborts_total"),
                "Flows that clients reset",
                Counter,
                Number(|one| Some($level::outcomes(one).client_resets)),
            ),
            family(
                concat!($prefix, "_server_aborts_total"),
                "Flows that backends accepted and reset",
                Counter,
                Number(|one| $level::outcomes(one).aborted()),
            ),
            family(
                concat!($prefix, "_response_errors_total"),
                "Flows that backends accepted and reset",
                Counter,
                Number(|one| $level::outcomes(one).aborted()),
            ),
            family(
                concat!($prefix, "_last_session_seconds"),
                "Since the last new flow, -1 for never",
                Gauge,
                Signed(|one| $level::last_new(one)),
            ),
            family(
                concat!($prefix, "_total_time_average_seconds"),
                "Mean life of the latest connections that ended",
                Gauge,
                Millis(|one| $level::load(one).life_ms),
            ),
            family(
                concat!($prefix, "_max_total_time_seconds"),
                "The highest of these means",
                Gauge,
                Millis(|one| $level::load(one).life_ms_max),
            ),
            family(
                concat!($prefix, "_connect_time_average_seconds"),
                "Mean time from SYN to SYN-ACK of the latest handshakes",
                Gauge,
                Micros(|one| $level::load(one).connect_us),
            ),
            family(
                concat!($prefix, "_max_connect_time_seconds"),
                "The highest of these means",
                Gauge,
                Micros(|one| $level::load(one).connect_us_max),
            ),
            family(
                concat!($prefix, "_current_queue"),
                "There is no queue",
                Gauge,
                Number(|_| Some(0)),
            ),
            family(
                concat!($prefix, "_max_queue"),
                "There is no queue",
                Gauge,
                Number(|_| Some(0)),
            ),
        ]
    };
}
pub(super) use table;

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
                let Some(is) = value(of) else {
                    return;
                };
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
