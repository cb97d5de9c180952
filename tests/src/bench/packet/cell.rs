//! One case, and how a sample of it is taken.

use std::time::Duration;

use anyhow::Result;
use aya::programs::ProgramFd;
use rustix::time::{ClockId, clock_gettime};

use crate::bench::{
    floors::{Floors, Setup},
    ours::Ours,
    rounds::Figures,
};

/// What is done, untimed, before a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// Nothing.
    Nothing,
    /// The same packets: no flow has been silent for a second, and each table is as it is in use.
    Visit,
    /// All flows are forgotten, so that each packet is a first one.
    Forget,
    /// As well, and the one new flow of this second has been opened.
    Spend,
}

/// One case.
pub(super) struct Cell {
    pub(super) name: String,
    pub(super) program: ProgramFd,
    pub(super) setup: Setup,
    pub(super) packet: Vec<u8>,
    pub(super) runs: u32,
    pub(super) before: Before,
    /// What the program must say to the last packet of a sample.
    pub(super) verdict: u32,
    /// The same wrapper around a program that does nothing; none for that one itself.
    pub(super) no_op: Option<&'static str>,
}

/// Tables of one size, the programs that use them, and the cases on them.
pub(super) struct Stage {
    pub(super) floors: Floors,
    pub(super) ours: Ours,
    pub(super) cells: Vec<Cell>,
    /// Runs in a sample.
    pub(super) runs: u32,
    /// First packets in a sample.
    pub(super) new_flows: u32,
}

// === impl Stage ===

impl Stage {
    /// One sample of every case.
    pub(super) fn sample(&mut self, round: usize, figures: &mut Figures) -> Result<()> {
        let Self {
            floors,
            ours,
            cells,
            ..
        } = self;
        let first = round % cells.len();
        let mut gross = vec![0.0; cells.len()];
        for i in (first..cells.len()).chain(0..first) {
            gross[i] = cells[i].sample(floors, ours)?;
        }
        for (cell, figure) in cells.iter().zip(&gross) {
            let no_op = cell.no_op.map_or(0.0, |name| {
                let at = cells.iter().position(|other| other.name == name);
                gross[at.expect("each stage has the no-ops that it needs")]
            });
            figures.push(&cell.name, *figure, no_op);
        }
        Ok(())
    }
}

// === impl Cell ===

impl Cell {
    /// ns for one run, wrapper and all.
    fn sample(&self, floors: &mut Floors, ours: &mut Ours) -> Result<f64> {
        match self.before {
            Before::Nothing => {}
            Before::Visit => {
                floors.aim(&self.program, &self.setup)?;
                floors.go(&self.packet, self.runs, None)?;
            }
            Before::Forget => {
                floors.forget_flows();
                ours.forget_flows();
            }
            Before::Spend => {
                ours.spend_new_flow(floors, &self.program, &self.setup, &self.packet)?;
                ours.forget_flows();
            }
        }
        floors.aim(&self.program, &self.setup)?;
        let start = cpu_time();
        let (verdict, _) = floors.go(&self.packet, self.runs, None)?;
        let took = cpu_time() - start;
        assert_eq!(verdict, self.verdict, "{}: the verdict", self.name);
        Ok(took.as_nanos() as f64 / f64::from(self.runs))
    }
}

/// Of this thread: what others do meanwhile is not in it.
pub(super) fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
