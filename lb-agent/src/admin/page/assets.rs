//! The files of the page, and what a browser may do with them.

/// What a browser may load: nothing but this agent's own files. No script or style stands in the page itself.
pub(in crate::admin) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// A file of the page.
#[derive(Clone, Copy, Debug)]
pub(in crate::admin) struct Asset {
    /// Behind `/assets/`.
    pub(in crate::admin) name: &'static str,
    /// Its `content-type`.
    pub(in crate::admin) kind: &'static str,
    /// What is in it.
    pub(in crate::admin) text: &'static str,
}

macro_rules! assets {
    ($($name:literal: $kind:expr),* $(,)?) => {
        &[$(Asset {
            name: $name,
            kind: $kind,
            text: include_str!(concat!("assets/", $name)),
        }),*]
    };
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

const ALL: &[Asset] = assets! {
    "page.css": "text/css; charset=utf-8",
    "mark.svg": "image/svg+xml",
    "chart.js": SCRIPT,
    "columns.js": SCRIPT,
    "feed.js": SCRIPT,
    "leaf.js": SCRIPT,
    "list.js": SCRIPT,
    "model.js": SCRIPT,
    "orders.js": SCRIPT,
    "page.js": SCRIPT,
    "show.js": SCRIPT,
    "sources.js": SCRIPT,
    "table.js": SCRIPT,
};

/// The page around the numbers.
pub(super) const PAGE: &str = include_str!("assets/page.html");
/// Search, filters and links.
pub(super) const TOOLS: &str = include_str!("assets/tools.html");

/// Every file.
#[cfg(test)]
pub(super) fn assets() -> &'static [Asset] {
    ALL
}

/// The file of this name.
pub(in crate::admin) fn asset(name: &str) -> Option<&'static Asset> {
    ALL.iter().find(|asset| asset.name == name)
}
