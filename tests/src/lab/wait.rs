//! Waiting for a condition, never for time to pass.

use std::{
    env, thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};

const POLL: Duration = Duration::from_millis(20);

/// How many times slower than others this machine is, if it is said: that of an emulated one.
fn slower() -> u32 {
    let said = env::var("LB_SLOWER").ok();
    said.and_then(|said| said.parse().ok()).unwrap_or(1)
}

/// Calls `probe` until it gives a value and returns that. On a slower machine it waits longer.
///
/// # Errors
///
/// Says what did not happen when `within` has passed.
pub fn wait_for<T>(
    what: &str,
    within: Duration,
    mut probe: impl FnMut() -> Option<T>,
) -> Result<T> {
    let within = within * slower();
    let end = Instant::now() + within;
    loop {
        if let Some(value) = probe() {
            return Ok(value);
        }
        if Instant::now() >= end {
            return Err(anyhow!("not within {within:?}: {what}"));
        }
        thread::sleep(POLL);
    }
}

/// As [`wait_for`], for a condition that is only true or false.
///
/// # Errors
///
/// Says what did not happen when `within` has passed.
pub fn wait_until(what: &str, within: Duration, mut holds: impl FnMut() -> bool) -> Result<()> {
    wait_for(what, within, || holds().then_some(()))
}

/// As [`wait_for`], for an act that fails until it works; the last failure is part of the error.
///
/// # Errors
///
/// Says what did not work, and why, when `within` has passed.
pub fn retry<T>(what: &str, within: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let mut last = None;
    wait_for(what, within, || {
        attempt().map_err(|error| last = Some(error)).ok()
    })
    .map_err(|late| match last {
        Some(error) => anyhow!("{late}; last: {error:#}"),
        None => late,
    })
}
