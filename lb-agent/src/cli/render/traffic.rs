//! What services and backends carried, as a table.

use comfy_table::Table;

use super::{plain, table, title};
use crate::admin::report::{BackendReport, Outcomes, ServiceReport, Traffic};

/// A service's line, then its backends'; those that nothing came to are left out.
pub(super) fn traffic(services: &[ServiceReport]) -> Table {
    let mut table = table(&[
        "SERVICE",
        "BACKEND",
        "FLOWS",
        "NEW",
        "ENDED",
        "REFUSED",
        "PACKETS IN",
        "PACKETS OUT",
        "BYTES IN",
        "BYTES OUT",
        "RESETS BY CLIENTS",
        "BY BACKEND",
        "SYNS AGAIN",
        "HANDSHAKE",
    ]);
    for service in services {
        let whole = &service.traffic;
        if whole.flows_new + whole.flows_refused == 0 {
            continue;
        }
        let mut line = vec![
            title(service),
            "all".to_owned(),
            whole.flows_active.to_string(),
            whole.flows_new.to_string(),
            "-".to_owned(),
            whole.flows_refused.to_string(),
            known(&whole.packets_in),
            known(&whole.packets_out),
            known_size(whole.bytes_in),
            known_size(whole.bytes_out),
        ];
        line.resize(13, "-".to_owned());
        line.push(middle(&whole.handshakes));
        table.add_row(line);
        let used = service.backends.iter();
        for backend in used.filter(|backend| backend.traffic.flows_new > 0) {
            table.add_row(line_of(service, backend));
        }
    }
    table
}

fn line_of(service: &ServiceReport, backend: &BackendReport) -> Vec<String> {
    let Traffic {
        flows_active,
        flows_new,
        flows_closed,
        packets_in,
        packets_out,
        bytes_in,
        bytes_out,
        outcomes,
        unread: _,
    } = &backend.traffic;
    let Outcomes {
        client_resets,
        backend_resets,
        refused: _,
        failed,
        syn_retransmits,
        retransmits: _,
        handshakes: _,
        handshake_ns: _,
        redispatched: _,
        lived_ms: _,
    } = outcomes;
    vec![
        title(service),
        plain(&backend.addr.to_string()),
        flows_active.to_string(),
        flows_new.to_string(),
        flows_closed.to_string(),
        failed.to_string(),
        known(packets_in),
        known(packets_out),
        known_size(*bytes_in),
        known_size(*bytes_out),
        client_resets.to_string(),
        known(backend_resets),
        syn_retransmits.to_string(),
        handshake(outcomes),
    ]
}

/// The mean time from SYN to SYN-ACK.
pub(super) fn handshake(outcomes: &Outcomes) -> String {
    match (outcomes.handshakes, outcomes.handshake_ns) {
        (Some(0), _) => "-".to_owned(),
        (Some(count), Some(ns)) => time(ns / count),
        _ => "?".to_owned(),
    }
}

/// `?`: nobody knows.
fn known(number: &Option<u64>) -> String {
    number.map_or_else(|| "?".to_owned(), |number| number.to_string())
}

fn known_size(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "?".to_owned(), size)
}

/// The bucket in which the middle one of the handshakes is.
fn middle(buckets: &[u64]) -> String {
    let all: u64 = buckets.iter().sum();
    let mut seen = 0;
    for (bucket, count) in buckets.iter().enumerate() {
        seen += count;
        if seen * 2 > all {
            // Each bucket reaches twice as far as the one before it, the first one to 2^16 ns.
            return format!("< {}", time(1 << (16 + bucket)));
        }
    }
    "-".to_owned()
}

/// `850 ns`, `1.2 ms`.
fn time(ns: u64) -> String {
    scaled(ns as f64, 1000.0, &["ns", "us", "ms", "s"])
}

/// `512 B`, `1.5 MiB`.
fn size(bytes: u64) -> String {
    scaled(
        bytes as f64,
        1024.0,
        &["B", "KiB", "MiB", "GiB", "TiB", "PiB"],
    )
}

fn scaled(mut number: f64, step: f64, units: &[&str]) -> String {
    let mut units = units.iter();
    let mut unit = units.next();
    while number >= step {
        let Some(next) = units.next() else { break };
        unit = Some(next);
        number /= step;
    }
    let digits = usize::from(number < 10.0 && number.fract() != 0.0);
    format!("{number:.digits$} {}", unit.unwrap_or(&""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_unit_that_people_read() {
        assert_eq!(time(850), "850 ns");
        assert_eq!(time(1_250), "1.2 us");
        assert_eq!(time(3_000_000_000_000), "3000 s");
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(20 << 20), "20 MiB");
    }

    #[test]
    fn the_middle_handshake_is_below_the_end_of_its_bucket() {
        assert_eq!(middle(&[]), "-");
        assert_eq!(middle(&[0; 16]), "-");
        assert_eq!(middle(&[1, 0, 0]), "< 66 us");
        assert_eq!(middle(&[1, 1, 3]), "< 262 us");
    }
}
