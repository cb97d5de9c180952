//! Pure: rates, maxima and means of counters that only go up.

use crate::admin::report::Timestamp;

use super::sample::{Last, Load};

/// A mean is one of so many of the latest, or up to twice as many.
const WINDOW: u64 = 1_024;

/// What one service or backend has counted at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reading {
    /// Flows ever.
    pub(super) flows: u64,
    /// Flows at present.
    pub(super) active: u64,
    /// Handshakes ever, and all their time together, ns.
    pub(super) handshakes: (u64, u64),
    /// Connections that ended, and all their lives together, ms.
    pub(super) lives: (u64, u64),
}

/// What is known of it over time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    load: Load,
    last: Option<Reading>,
    handshakes: Mean,
    lives: Mean,
    /// Mean handshake of the last tick, us.
    tick_us: Option<u64>,
}

/// What was at the last tick.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tick {
    /// New flows a second.
    pub(super) rate: u64,
    /// Flows at that moment.
    pub(super) active: u64,
    /// Mean handshake since the tick before, us.
    pub(super) connect_us: Option<u64>,
}

/// A mean over the latest of many.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    base: (u64, u64),
    next: (u64, u64),
}

// === impl Meter ===

impl Meter {
    /// Takes note of a reading. `elapsed`: since the last tick, ms; `None`: this is no tick, and rates stay.
    pub(super) fn note(&mut self, reading: Reading, now: Timestamp, elapsed: Option<u64>) -> Load {
        let load = &mut self.load;
        load.active_max = load.active_max.max(reading.active);
        let Some(last) = self.last else {
            load.last_new = match reading.flows {
                0 => Last::Never,
                _ => Last::Unknown,
            };
            self.handshakes = Mean::up_to(reading.handshakes);
            self.lives = Mean::up_to(reading.lives);
            self.last = Some(reading);
            return *self.means(reading);
        };
        // A counter that went down began anew.
        let new = reading.flows.checked_sub(last.flows);
        if new.unwrap_or(reading.flows) > 0 {
            load.last_new = Last::At(now);
        }
        if let Some(elapsed) = elapsed {
            load.rate = rate(new.unwrap_or(0), elapsed);
            load.rate_max = load.rate_max.max(load.rate);
            self.tick_us = mean(last.handshakes, reading.handshakes).map(us);
            self.last = Some(reading);
        }
        *self.means(reading)
    }

    fn means(&mut self, reading: Reading) -> &Load {
        let load = &mut self.load;
        load.connect_us = self.handshakes.of(reading.handshakes).map(us);
        load.connect_us_max = load.connect_us_max.max(load.connect_us);
        load.life_ms = self.lives.of(reading.lives);
        load.life_ms_max = load.life_ms_max.max(load.life_ms);
        load
    }

    pub(super) fn tick(&self) -> Tick {
        Tick {
            rate: self.load.rate,
            active: self.last.map_or(0, |last| last.active),
            connect_us: self.tick_us,
        }
    }

    /// Has the maxima begin anew.
    pub(super) fn forget(&mut self) {
        self.load.active_max = 0;
        self.load.rate_max = self.load.rate;
        self.load.connect_us_max = None;
        self.load.life_ms_max = None;
    }
}

/// A second's share of what came in so many ms, rounded.
fn rate(new: u64, elapsed: u64) -> u64 {
    let elapsed = elapsed.max(1);
    (new.saturating_mul(1_000) + elapsed / 2) / elapsed
}

/// How long one took, between two readings.
fn mean(from: (u64, u64), to: (u64, u64)) -> Option<u64> {
    let (count, time) = (to.0.checked_sub(from.0)?, to.1.checked_sub(from.1)?);
    time.checked_div(count)
}

fn us(ns: u64) -> u64 {
    ns / 1_000
}

// === impl Mean ===

impl Mean {
    /// Of all that there were up to the first reading.
    fn up_to(next: (u64, u64)) -> Self {
        Self { base: (0, 0), next }
    }

    fn of(&mut self, now: (u64, u64)) -> Option<u64> {
        if now.0 < self.next.0 {
            *self = Self::default();
        }
        if now.0 - self.next.0 >= WINDOW {
            self.base = self.next;
            self.next = now;
        }
        mean(self.base, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(flows: u64, active: u64) -> Reading {
        Reading {
            flows,
            active,
            handshakes: (flows, flows * 2_000_000),
            lives: (flows / 2, flows / 2 * 70),
        }
    }

    #[test]
    fn rates_are_those_of_the_last_second_and_maxima_stay() {
        let mut meter = Meter::default();
        let first = meter.note(reading(100, 5), Timestamp(0), None);
        assert_eq!(first.last_new, Last::Unknown);
        assert_eq!((first.rate, first.active_max), (0, 5));
        let load = meter.note(reading(150, 9), Timestamp(1_000), Some(1_000));
        assert_eq!((load.rate, load.rate_max, load.active_max), (50, 50, 9));
        assert_eq!(load.last_new, Last::At(Timestamp(1_000)));
        assert_eq!(load.connect_us, Some(2_000));
        // Between two ticks rates stay, and what came is counted by the next one.
        let load = meter.note(reading(160, 1), Timestamp(1_500), None);
        assert_eq!((load.rate, load.active_max), (50, 9));
        let load = meter.note(reading(170, 1), Timestamp(3_000), Some(2_000));
        assert_eq!((load.rate, load.rate_max), (10, 50));
        meter.forget();
        let load = meter.note(reading(170, 2), Timestamp(4_000), Some(1_000));
        assert_eq!((load.rate, load.rate_max, load.active_max), (0, 10, 2));
        assert_eq!(load.last_new, Last::At(Timestamp(3_000)));
    }

    #[test]
    fn counters_that_begin_anew_give_no_rate() {
        let mut meter = Meter::default();
        assert_eq!(
            meter.note(reading(0, 0), Timestamp(0), None).last_new,
            Last::Never
        );
        meter.note(reading(5_000, 0), Timestamp(1_000), Some(1_000));
        let load = meter.note(reading(10, 0), Timestamp(2_000), Some(1_000));
        assert_eq!(load.rate, 0);
        assert_eq!(load.connect_us, Some(2_000));
        assert_eq!(load.life_ms, Some(70));
    }

    #[test]
    fn a_mean_forgets_what_was_long_ago() {
        let mut mean = Mean::default();
        assert_eq!(mean.of((0, 0)), None);
        assert_eq!(mean.of((1_024, 1_024 * 8)), Some(8));
        assert_eq!(mean.of((1_025, 1_024 * 8 + 2)), Some(7));
        assert_eq!(mean.of((2_048, 1_024 * 10)), Some(2));
        assert_eq!(mean.of((2_048, 1_024 * 10)), Some(2));
    }
}
