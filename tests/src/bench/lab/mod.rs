//! The same client and servers through every way that there is, in network namespaces.
//!
//! All ways take turns in every round, so that what the machine does meanwhile hits all alike; a way's figure
//! is the median of its rounds, a ratio the median of the rounds' ratios. What a way costs is the time that
//! all CPUs of the machine were busy ([`super::load::cpu`]), since NAT is done in soft interrupts: it covers
//! client and server too, and the direct way's is taken off.

mod agents;
mod figures;
mod offloads;
mod proof;
mod ways;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    load::{
        client::{Kind, Outcome},
        cpu,
    },
    report::{Case, Report},
    stats::median,
};
pub use offloads::Offloads;
pub use ways::{Site, Way};

/// Connections at a time: enough to keep two CPUs busy.
const SHORT_PLACES: usize = 32;

/// Connections that carry bytes.
const BULK_PLACES: usize = 4;

/// How long everything is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rounds without offloads; those that bounds rest on.
    pub rounds: usize,
    /// Rounds with GSO and GRO on.
    pub offload_rounds: usize,
    /// Rounds of one connection at a time, for latency.
    pub latency_rounds: usize,
    /// Before anything counts.
    pub warm_up: Duration,
    /// What counts of each measurement.
    pub measure: Duration,
}

/// What is measured on a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// Short connections, as many as go.
    Short,
    /// Bytes, as many as go.
    Bulk,
    /// Short connections, one at a time.
    Single,
}

/// All measurements of one setting.
#[derive(Debug, Default)]
pub(super) struct Taken(Vec<(Way, Load, usize, Outcome)>);

// === impl Effort ===

impl Effort {
    /// For figures: three minutes.
    pub const FULL: Self = Self {
        rounds: 15,
        offload_rounds: 5,
        latency_rounds: 3,
        warm_up: Duration::from_millis(80),
        measure: Duration::from_millis(500),
    };

    /// To see that it runs.
    pub const SMOKE: Self = Self {
        rounds: 2,
        offload_rounds: 1,
        latency_rounds: 1,
        warm_up: Duration::from_millis(10),
        measure: Duration::from_millis(40),
    };
}

/// Brings the site up, proves every way, measures, and adds the cases.
///
/// # Errors
///
/// What is missing on this machine, or which way does not carry what it claims.
pub fn run(report: &mut Report, effort: &Effort) -> Result<()> {
    let site = Site::up()?;
    let before = foreign()?;
    for (offloads, rounds) in [
        (Offloads::Off, effort.rounds),
        (Offloads::Segments, effort.offload_rounds),
    ] {
        let settings = site.set(offloads)?;
        eprintln!("lab: every device: {settings}");
        let mut taken = Taken::default();
        taken.rounds(&site, rounds, &[Load::Short, Load::Bulk], effort)?;
        taken.rounds(&site, effort.latency_rounds, &[Load::Single], effort)?;
        figures::add(report, &taken, offloads);
    }
    let after = foreign()?;
    report.push(Case {
        suite: "lab",
        case: "the machine's CPUs, busy with other things (CPU figures hold near 0 only)"
            .to_owned(),
        best: before.min(after),
        median: median(&[before, after]),
        unit: "%",
        ratio: None,
        bound: None,
    });
    Ok(())
}

/// Percent of all CPUs that is used while nothing is measured.
fn foreign() -> Result<f64> {
    let (began, cpu) = (Instant::now(), cpu::Reading::now()?);
    thread::sleep(Duration::from_millis(300));
    let cpus = thread::available_parallelism().map_or(1, usize::from) as f64;
    Ok(100.0 * cpu.busy()? / began.elapsed().as_secs_f64() / cpus)
}

// === impl Load ===

impl Load {
    fn kind(self) -> Kind {
        match self {
            Self::Short | Self::Single => Kind::Short,
            Self::Bulk => Kind::Bulk,
        }
    }

    fn places(self) -> usize {
        match self {
            Self::Short => SHORT_PLACES,
            Self::Bulk => BULK_PLACES,
            Self::Single => 1,
        }
    }
}

// === impl Taken ===

impl Taken {
    /// Every way once a round, each load; the order turns round, so that neighbours stay neighbours (direct
    /// and the socket path are compared pair by pair) and none is always first.
    fn rounds(
        &mut self,
        site: &Site,
        rounds: usize,
        loads: &[Load],
        effort: &Effort,
    ) -> Result<()> {
        for round in 0..rounds {
            for &load in loads {
                let mut ways = Way::ALL;
                if round % 2 == 1 {
                    ways.reverse();
                }
                for way in ways {
                    let outcome = site
                        .measure(way, load, effort)
                        .with_context(|| format!("{}, round {round}", way.name()))?;
                    self.0.push((way, load, round, outcome));
                }
            }
        }
        Ok(())
    }

    /// The outcomes of a way, in the order of rounds.
    fn of(&self, way: Way, load: Load) -> Vec<&Outcome> {
        let of = |taken: &&(Way, Load, usize, Outcome)| taken.0 == way && taken.1 == load;
        self.0.iter().filter(of).map(|taken| &taken.3).collect()
    }
}
