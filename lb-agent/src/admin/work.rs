//! What the control loop's work came to, for its metrics: how long each step takes, and what was found amiss.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use arc_swap::ArcSwap;

use crate::{net::Changes, plan::Report};

/// All steps, in their order.
#[derive(Debug, Default)]
pub struct Work {
    /// What all providers say becomes services.
    pub services: Step,
    /// The kernel's tables of services and backends are brought in line.
    pub tables: Step,
    /// The kernel's filters are: of destinations, sources and peers.
    pub filters: Step,
    /// Routes are.
    pub routes: Step,
    /// Addresses of backends that are on this node.
    pub locals: ArcSwap<BTreeSet<IpAddr>>,
}

/// One step, in numbers that only grow.
#[derive(Debug, Default)]
pub struct Step {
    times: AtomicU64,
    ns: AtomicU64,
    mended: AtomicU64,
}

/// What a step came to so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// How often it was done.
    pub(super) times: u64,
    /// How long that took, all times together.
    pub(super) took: Duration,
    /// What comparisons with the kernel found to be not as it was left, and put right.
    pub(super) mended: u64,
}

// === impl Work ===

impl Work {
    /// The kernel's maps were brought in line. `comparing`: nothing had changed that the agent knows of.
    pub fn planned(&self, took: Duration, report: &Report, comparing: bool) {
        self.tables.note(took.saturating_sub(report.filtering));
        self.filters.note(report.filtering);
        if comparing {
            self.tables.mend(report.applied - report.filters);
            self.filters.mend(report.filters);
        }
    }

    /// Routes were; `comparing` as above.
    pub fn routed(&self, took: Duration, changes: &Changes, comparing: bool) {
        self.routes.note(took);
        if comparing {
            self.routes
                .mend(changes.added.len() + changes.removed.len());
        }
    }
}

// === impl Step ===

impl Step {
    /// It was done once more.
    pub fn note(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.times.fetch_add(1, Ordering::Relaxed);
        self.ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// So much was not as it was left, and is again.
    fn mend(&self, found: usize) {
        self.mended.fetch_add(found as u64, Ordering::Relaxed);
    }

    pub(super) fn done(&self) -> Done {
        Done {
            times: self.times.load(Ordering::Relaxed),
            took: Duration::from_nanos(self.ns.load(Ordering::Relaxed)),
            mended: self.mended.load(Ordering::Relaxed),
        }
    }
}
