//! Metrics in Prometheus' text format 0.0.4: HAProxy's names where they mean the same, and our own for the rest.
//!
//! Written by hand and not by a metrics library: what is counted lives in the kernel, a page at 100,000 backends has
//! millions of lines, and so it is made and sent in pieces, of which none is kept.

mod haproxy;
pub(crate) mod l4lb;
mod own;
mod proxies;
mod servers;
mod write;

use super::{fields::Front, sample::Sample};
use write::Writer;

/// Which metrics are wanted; all, if none is named. As the `scope` of HAProxy's own exporter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    /// Of the process.
    pub(crate) global: bool,
    /// Of every service.
    pub(crate) frontend: bool,
    /// Of every service's backends together.
    pub(crate) backend: bool,
    /// Of every backend.
    pub(crate) server: bool,
}

/// One piece after the other.
pub(crate) struct Pieces {
    scope: Scope,
    /// The family that is next.
    family: usize,
    /// The proxy that is next in it.
    proxy: usize,
}

/// Backends that are told of unasked.
pub(crate) const MOST: usize = 20_000;
/// Proxies in a piece.
const STRIDE: usize = 64;

// === impl Scope ===

impl Scope {
    /// Everything.
    pub(crate) const ALL: Self = Self {
        global: true,
        frontend: true,
        backend: true,
        server: true,
    };

    /// Those of a query: `scope=frontend&scope=backend`. Words that nobody knows are ignored. Of more backends than
    /// [`MOST`] nothing is told unless it is asked for: who scrapes millions of series means to.
    pub(crate) fn read(query: &str, sample: &Sample) -> Self {
        let mut scope = Self {
            global: false,
            frontend: false,
            backend: false,
            server: false,
        };
        let mut named = false;
        for word in query
            .split('&')
            .filter_map(|pair| pair.strip_prefix("scope="))
        {
            named = true;
            match word {
                "global" => scope.global = true,
                "frontend" => scope.frontend = true,
                "backend" => scope.backend = true,
                "server" => scope.server = true,
                "*" => return Self::ALL,
                _ => {}
            }
        }
        if named {
            return scope;
        }
        Self {
            server: sample.servers() <= MOST,
            ..Self::ALL
        }
    }
}

// === impl Pieces ===

impl Pieces {
    /// From the beginning.
    pub(crate) fn new(scope: Scope) -> Self {
        Self {
            scope,
            family: 0,
            proxy: 0,
        }
    }

    /// Appends the next piece; false: there is none.
    pub(crate) fn next(&mut self, sample: &Sample, out: &mut String) -> bool {
        let mut out = Writer::new(out);
        if self.family == 0 {
            if self.scope.global {
                own::process(sample, self.scope, &mut out);
                haproxy::process(sample, &mut out);
            }
            self.family = 1;
            return true;
        }
        let families = proxies::FRONTEND.len() + proxies::BACKEND.len() + servers::SERVER.len();
        let index = self.family - 1;
        if index >= families + own::SERVICE.len() {
            return false;
        }
        let proxies = sample.proxies.iter().skip(self.proxy).take(STRIDE);
        let fronts = proxies.map(|proxy| Front::of(sample, proxy));
        let begins = self.proxy == 0;
        let wanted = self.write(index, begins, fronts, &mut out);
        self.proxy += STRIDE;
        if !wanted || self.proxy >= sample.proxies.len() {
            self.family += 1;
            self.proxy = 0;
        }
        true
    }

    /// False: the family is not wanted.
    fn write<'a>(
        &self,
        index: usize,
        begins: bool,
        fronts: impl Iterator<Item = Front<'a>>,
        out: &mut Writer<'_>,
    ) -> bool {
        let mut index = index;
        if let Some(family) = proxies::FRONTEND.get(index) {
            if self.scope.frontend {
                family.of_fronts(begins, fronts, out);
            }
            return self.scope.frontend;
        }
        index -= proxies::FRONTEND.len();
        if let Some(family) = proxies::BACKEND.get(index) {
            if self.scope.backend {
                family.of_fronts(begins, fronts, out);
            }
            return self.scope.backend;
        }
        index -= proxies::BACKEND.len();
        if let Some(family) = servers::SERVER.get(index) {
            if self.scope.server {
                family.of_servers(begins, fronts, out);
            }
            return self.scope.server;
        }
        index -= servers::SERVER.len();
        if let Some(family) = own::SERVICE.get(index)
            && self.scope.frontend
        {
            if begins {
                out.family(family.name, family.kind, family.help);
            }
            fronts.for_each(|front| (family.write)(front, out));
        }
        self.scope.frontend
    }
}

/// All of it, for tests.
#[cfg(test)]
pub(crate) fn whole(sample: &Sample, scope: Scope) -> String {
    let mut out = String::new();
    let mut pieces = Pieces::new(scope);
    while pieces.next(sample, &mut out) {}
    out
}
