//! How long the whole machine's CPUs were busy.
//!
//! NAT is done in soft interrupts, on whichever process's time they come; so no process's own time tells what
//! a way costs. Busy is what is not idle: wall time x CPUs, less `idle`, `iowait` and `steal` of `/proc/stat`.
//! The kernel keeps the idle time exactly (`get_idle_time` in `fs/proc/stat.c`), not by ticks, and ends it
//! before it runs an interrupt.

use std::{fs, time::Instant};

use anyhow::{Context, Result};

/// Ticks of `/proc/stat` and `/proc/PID/stat` in a second.
pub const USER_HZ: f64 = 100.0;

/// The CPUs' idle time up to a moment.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    at: Instant,
    cpus: usize,
    /// Seconds, summed over the CPUs.
    away: f64,
}

// === impl Reading ===

impl Reading {
    /// Reads it now.
    ///
    /// # Errors
    ///
    /// `/proc/stat` is not what it was in 30 years.
    pub fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat")?;
        let at = Instant::now();
        let (cpus, away) = parse(&text).context("cannot read /proc/stat")?;
        Ok(Self { at, cpus, away })
    }

    /// Seconds that CPUs were busy since then, summed over them.
    ///
    /// # Errors
    ///
    /// As [`Reading::now`].
    pub fn busy(&self) -> Result<f64> {
        let Self { at, cpus, away } = *self;
        let now = Self::now()?;
        let passed = (now.at - at).as_secs_f64() * cpus as f64;
        Ok((passed - (now.away - away)).max(0.0))
    }
}

/// The number of CPUs, and the seconds that they were idle or taken away by the host.
fn parse(text: &str) -> Option<(usize, f64)> {
    let all = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<f64> = all
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0.0))
        .collect();
    // user nice system idle iowait irq softirq steal
    let [_, _, _, idle, iowait, _, _, steal, ..] = fields.as_slice() else {
        return None;
    };
    let is_cpu = |line: &&str| line.starts_with("cpu") && !line.starts_with("cpu ");
    let cpus = text.lines().filter(is_cpu).count();
    Some((cpus, (idle + iowait + steal) / USER_HZ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn away_is_idle_and_waiting_and_stolen_time() {
        let text = "cpu  10 1 20 300 40 5 6 70 0 0\ncpu0 1 0 0 0 0 0 0 0 0 0\ncpu1 0 0 0\nintr 1\n";
        let (cpus, away) = parse(text).unwrap();
        assert_eq!(cpus, 2);
        assert!((away - 4.1).abs() < 1e-9, "{away}");
    }
}
