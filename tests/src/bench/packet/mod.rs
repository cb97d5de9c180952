//! The kernel programs, packet by packet: ns net of a program that does nothing, next to floors.
//!
//! Method: `lb-ebpf/src/bench/wrapper.rs` gives each run the same packet, or that of one flow after the
//! other, and jumps to the program under test; a sample is thousands of runs in one `BPF_PROG_TEST_RUN`,
//! in CPU time of this thread; every case has a sample in every round; from each the same round's sample
//! of `XDP_DROP` is taken away. What a case must do to its packet is checked before anything is timed.
// What measures may panic, as what tests: a wrong set-up must not give a figure.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cases;
mod cell;
mod flood;
mod name;
mod table;

use anyhow::Result;

use super::{alone, report::Report, rounds::Figures};
use crate::packet::Net;
use cell::Stage;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Samples of each case.
    pub rounds: usize,
    /// Runs in a sample, at least.
    pub runs: u32,
    /// First packets in a sample.
    pub new_flows: u32,
    /// Number of flows, and room for so many entries: two a flow, and as much again.
    pub few: (u32, u32),
    /// As `few`.
    pub many: (u32, u32),
    /// Entries of the main table where there is one flow.
    pub room: u32,
    /// Entries of the table of half-open connections.
    pub half: u32,
}

// === impl Scale ===

impl Scale {
    /// As figures are published: a few minutes and 2 GB.
    pub const WHOLE: Self = Self {
        rounds: 31,
        runs: 200_000,
        new_flows: 1 << 14,
        few: (1 << 14, 1 << 16),
        many: (1 << 20, 1 << 22),
        room: 1 << 20,
        half: 1 << 17,
    };

    /// Shows that every case works, not what it costs.
    pub const SMALL: Self = Self {
        rounds: 3,
        runs: 5_000,
        new_flows: 64,
        few: (64, 512),
        many: (256, 1_024),
        room: 4_096,
        half: 4_096,
    };
}

/// Measures every case and adds it to the report.
///
/// # Errors
///
/// The kernel's refusals, and what is missing to run this.
///
/// # Panics
///
/// A packet that is not translated as it should be.
pub fn run(scale: &Scale, report: &mut Report) -> Result<()> {
    alone(|| {
        let net = Net::new();
        let mut stages = cases::stages(net, scale)?;
        let mut figures = measure(&mut stages, scale.rounds)?;
        drop(stages);
        flood::measure(net, scale, scale.rounds, &mut figures)?;
        table::fill(&figures, report);
        Ok(())
    })
}

/// Each round begins with another case, so that none has the same predecessor's cache every time.
fn measure(stages: &mut [Stage], rounds: usize) -> Result<Figures> {
    let mut figures = Figures::default();
    for round in 0..rounds {
        for stage in &mut *stages {
            stage.sample(round, &mut figures)?;
        }
    }
    Ok(figures)
}
