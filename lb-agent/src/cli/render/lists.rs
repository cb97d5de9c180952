//! The tables of `services` and `backends`.

use super::{duration, plain, table, title, up, vips};
use crate::admin::report::{ServiceReport, Timestamp};

/// The whole of `lb-agent services`.
pub(in crate::cli) fn services(services: &[ServiceReport]) -> String {
    let mut table = table(&[
        "SERVICE",
        "VIP",
        "MODE",
        "ALGORITHM",
        "CHECK",
        "UP",
        "FLOWS",
        "NEW",
        "REFUSED",
    ]);
    for service in services {
        let traffic = &service.traffic;
        table.add_row([
            title(service),
            vips(service),
            plain(&service.mode),
            plain(&service.algorithm),
            or_dash(service.check.as_deref()),
            up(service),
            read(traffic.unread, traffic.flows_active),
            read(traffic.unread, traffic.flows_new),
            read(traffic.unread, traffic.flows_refused),
        ]);
    }
    format!("{}\n", table.trim_fmt())
}

/// The whole of `lb-agent backends`.
pub(in crate::cli) fn backends(services: &[ServiceReport], now: Timestamp) -> String {
    let mut table = table(&[
        "SERVICE",
        "BACKEND",
        "STATE",
        "WEIGHT",
        "SINCE",
        "FLOWS",
        "NEW",
        "FAILED",
        "HANDSHAKE",
        "WHY",
    ]);
    for service in services {
        for backend in &service.backends {
            let traffic = &backend.traffic;
            let since = backend.since;
            table.add_row([
                title(service),
                backend.addr.to_string(),
                backend.state.to_string(),
                backend.weight.to_string(),
                since.map_or_else(|| "-".to_owned(), |since| duration(now.since(since))),
                read(traffic.unread, traffic.flows_active),
                read(traffic.unread, traffic.flows_new),
                read(traffic.unread, traffic.outcomes.failed),
                super::traffic::handshake(&traffic.outcomes),
                or_dash(backend.why.as_deref()),
            ]);
        }
    }
    format!("{}\n", table.trim_fmt())
}

/// A number of the counters, if they could be read.
fn read(unread: bool, number: u64) -> String {
    match unread {
        true => "?".to_owned(),
        false => number.to_string(),
    }
}

fn or_dash(text: Option<&str>) -> String {
    text.map_or_else(|| "-".to_owned(), plain)
}
