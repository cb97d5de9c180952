//! The lines of `trace`.

use std::net::SocketAddr;

use super::plain;
use crate::look::TraceReport;

const DAY_S: u64 = 24 * 3600;

/// One line; the time is UTC.
pub(in crate::cli) fn traced(report: &TraceReport) -> String {
    let second = report.time_ns / 1_000_000_000 % DAY_S;
    let micros = report.time_ns / 1_000 % 1_000_000;
    let time = format!(
        "{:02}:{:02}:{:02}.{micros:06}",
        second / 3600,
        second / 60 % 60,
        second % 60
    );
    let at = |at: &SocketAddr| match at.port() {
        0 => at.ip().to_string(),
        _ => at.to_string(),
    };
    let from = report.from.as_ref().map_or("a process".to_owned(), at);
    let mut words = vec![time, report.hook.to_string()];
    words.extend(report.interface.as_deref().map(plain));
    words.extend([
        report.protocol.clone(),
        from,
        ">".to_owned(),
        at(&report.to),
    ]);
    if !report.detail.is_empty() {
        words.push(format!("[{}]", plain(&report.detail)));
    }
    if report.bytes > 0 {
        words.push(format!("{} bytes", report.bytes));
    }
    let name = report.name.as_deref();
    let name = name.map_or_else(String::new, |name| format!(" {}", plain(name)));
    format!("{}:{name} {}\n", words.join(" "), plain(&report.story()))
}
