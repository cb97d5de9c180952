//! Pure: HAProxy's columns and what stands in them, in plain words.

use super::row::Row;
use crate::admin::report::Timestamp;

/// Which line of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Frontend,
    Server,
    Backend,
}

/// The groups of columns, and the columns of each.
pub(super) const GROUPS: &[(&str, &[&str])] = &[
    ("Queue", &["Cur", "Max", "Limit"]),
    ("Session rate", &["Cur", "Max", "Limit"]),
    (
        "Sessions",
        &["Cur", "Max", "Limit", "Total", "LbTot", "Last"],
    ),
    ("Bytes", &["In", "Out"]),
    ("Denied", &["Req", "Resp"]),
    ("Errors", &["Req", "Conn", "Resp"]),
    ("Warnings", &["Retr", "Redis"]),
    (
        "Server",
        &[
            "Status", "LastChk", "Wght", "Act", "Bck", "Chk", "Dwn", "Dwntme", "Thrtle",
        ],
    ),
];

/// The cells of one line, in the order of [`GROUPS`].
pub(super) fn cells(row: &Row<'_>, kind: Kind, now: Timestamp) -> Vec<String> {
    let known = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
    let queue = if kind == Kind::Frontend { "" } else { "0" };
    let since = |then: Option<Timestamp>| then.map(|then| ago(now.since(then).as_secs()));
    let status = match since(row.since) {
        Some(since) => format!("{since} {}", row.status),
        None => row.status.to_string(),
    };
    let weight = match (row.weight, row.uweight) {
        (Some(weight), Some(configured)) => format!("{weight}/{configured}"),
        _ => String::new(),
    };
    let role = |value: Option<u64>| match (kind, value) {
        (Kind::Server, Some(0)) => "-".to_owned(),
        (Kind::Server, Some(_)) => "Y".to_owned(),
        (_, value) => known(value),
    };
    vec![
        queue.to_owned(),
        queue.to_owned(),
        String::new(),
        row.rate.to_string(),
        row.rate_max.to_string(),
        known(row.rate_lim),
        row.scur.to_string(),
        row.smax.to_string(),
        known(row.slim),
        row.stot.to_string(),
        known(row.lbtot),
        since(row.last).unwrap_or_default(),
        known(row.bin),
        known(row.bout),
        known(row.dreq),
        "0".to_owned(),
        known(row.ereq),
        known(row.econ),
        known(row.eresp),
        known(row.wretr),
        known(row.wredis),
        status,
        row.check.clone().unwrap_or_default(),
        weight,
        role(row.act),
        role(row.bck),
        known(row.chkfail),
        known(row.chkdown),
        row.downtime.map(ago).unwrap_or_default(),
        row.throttle
            .map(|percent| format!("{percent}%"))
            .unwrap_or_default(),
    ]
}

/// Seconds in HAProxy's way: `32s`, `5m3s`, `2h7m`, `3d4h`.
pub(super) fn ago(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// `0d 0h00m16s`.
pub(super) fn uptime(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    format!(
        "{days}d {}h{:02}m{:02}s",
        rest / 3_600,
        rest % 3_600 / 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_haproxy_writes_them() {
        for (seconds, short, long) in [
            (16, "16s", "0d 0h00m16s"),
            (303, "5m3s", "0d 0h05m03s"),
            (7_620, "2h7m", "0d 2h07m00s"),
            (274_999, "3d4h", "3d 4h23m19s"),
        ] {
            assert_eq!(
                (ago(seconds), uptime(seconds)),
                (short.to_owned(), long.to_owned())
            );
        }
    }

    #[test]
    fn every_line_has_a_cell_for_every_column() {
        let columns: usize = GROUPS.iter().map(|(_, columns)| columns.len()).sum();
        for kind in [Kind::Frontend, Kind::Server, Kind::Backend] {
            assert_eq!(cells(&Row::default(), kind, Timestamp(0)).len(), columns);
        }
    }
}
