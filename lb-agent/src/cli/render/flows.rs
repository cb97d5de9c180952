//! The table of `flows`.

use std::{fmt::Write, time::Duration};

use super::{duration, plain, table};
use crate::look::FlowsReport;

/// The whole of `lb-agent flows`.
pub(in crate::cli) fn flows(found: &FlowsReport) -> String {
    if found.flows.is_empty() {
        return "no flow matches\n".to_owned();
    }
    let mut rows = table(&[
        "PROTO", "CLIENT", "VIP", "NAME", "BACKEND", "HOW", "STATE", "IDLE",
    ]);
    for flow in &found.flows {
        let backend = flow.backend;
        rows.add_row([
            flow.protocol.to_string(),
            flow.client.to_string(),
            flow.vip.to_string(),
            flow.name.as_deref().map_or_else(|| "-".to_owned(), plain),
            backend.map_or_else(|| "gone".to_owned(), |backend| backend.to_string()),
            flow.how.to_string(),
            flow.state.to_string(),
            duration(Duration::from_secs(flow.idle_s)),
        ]);
    }
    let mut page = format!("{}\n", rows.trim_fmt());
    if found.more > 0 {
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            "\n{} more match; --limit shows more, and filters fewer",
            found.more
        );
    }
    page
}
