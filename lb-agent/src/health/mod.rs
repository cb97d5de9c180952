//! Active checks: whether a backend answers. They only ever change its state, never its weight.
//!
//! [`Checks`] decides, with the clock passed in; [`Monitor`] sends the probes and tells the control loop when a
//! [`Verdict`] changed. A service with a [`Check`](crate::catalog::Check) has each of its backends probed; services that
//! ask the same of the same address share the probe and its verdict. Each node checks for itself, since it is its own
//! way to the backend that counts.
#![forbid(unsafe_code)]

mod checks;
mod latest;
mod monitor;
mod probe;
mod state;
mod verdicts;

pub use self::{
    checks::{Checks, Followed, Target},
    latest::{Latest, Latests},
    monitor::Monitor,
    probe::{Asked, Fate, Ours},
    state::{Health, Outcome, Verdict},
    verdicts::{Judged, Verdicts},
};

#[cfg(test)]
mod tests;
