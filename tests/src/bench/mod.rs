//! Benchmarks: how figures are taken, compared and shown.
//!
//! One suite, one module: `run` takes the report and adds its cases.

pub mod control;
pub mod floors;
pub mod lab;
pub mod live;
pub mod load;
pub mod ours;
pub mod packet;
pub mod report;
mod rounds;
pub mod stats;

use std::thread;

use anyhow::{Context as _, Result, anyhow};
use clap::ValueEnum;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::packet::sys::new_network;
use report::Report;

/// A set of benchmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// The kernel programs, packet by packet: ns.
    Packet,
    /// Frames on veth pairs: packets per second.
    Live,
    /// Connections between network namespaces, through us and through others.
    Lab,
    /// The agent's own work.
    Control,
}

// === impl Suite ===

impl Suite {
    /// Adds this suite's cases to the report.
    ///
    /// # Errors
    ///
    /// What kept a case from being measured.
    pub fn run(self, report: &mut Report) -> Result<()> {
        match self {
            Self::Packet => packet::run(&packet::Scale::WHOLE, report),
            Self::Live => live::run(&live::Scale::WHOLE, report),
            Self::Lab => lab::run(report, &lab::Effort::FULL),
            Self::Control => control::run(report, &control::Effort::FULL),
        }
    }
}

/// Runs on a thread in a network namespace of its own, on one CPU: the last, since the first one has most
/// of the interrupts.
fn alone(suite: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    let inside = || {
        new_network().context("cannot make a network namespace; benchmarks need root")?;
        let allowed = sched_getaffinity(None)?;
        let last = (0..CpuSet::MAX_CPU).rfind(|&cpu| allowed.is_set(cpu));
        let mut one = CpuSet::new();
        one.set(last.context("no CPU to run on")?);
        sched_setaffinity(None, &one).context("cannot stay on one CPU")?;
        suite()
    };
    thread::scope(|scope| scope.spawn(inside).join())
        .unwrap_or_else(|_| Err(anyhow!("the suite broke off, see above")))
}
