//! The stats page: one page of plain HTML that is readable as it is, and a script that keeps it up to date.
//!
//! Everything a browser loads is in the binary and comes from this agent; the page's policy forbids all else.
#![forbid(unsafe_code)]

mod assets;
mod cells;
mod feed;
mod html;
mod routes;
mod row;
mod wish;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::{haproxy::RELEASED, stats::Sample};

pub(super) use self::{
    assets::{POLICY, asset},
    feed::{Feed, Since},
    routes::{Orders, routes, show},
    wish::Wish,
};

/// What a page says besides the numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Head {
    /// The version is shown.
    pub(super) version: bool,
    /// Orders are taken over this listener, from who may give them.
    pub(super) orders: bool,
}

// === impl Head ===

impl Head {
    /// What stands before the numbers of the process.
    fn line(self, sample: &Sample) -> String {
        let agent = &sample.report.agent;
        let node = &agent.node;
        match self.version {
            true => format!(
                "HAProxy version {}, released {RELEASED}; lb-agent on {node}; ",
                agent.version
            ),
            false => format!("lb-agent on {node}; "),
        }
    }
}

/// The page as HTML. `target`: the raw target of the request, for its options.
pub(super) fn page(sample: &Arc<Sample>, head: Head, target: &str) -> String {
    html::page(sample, head, &Wish::read(target))
}
