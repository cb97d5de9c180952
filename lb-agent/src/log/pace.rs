//! A flood of lines of one kind is cut: a cluster that restarts, or a backend that flaps, must not fill a disk.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{Event, Level, Subscriber, callsite::Identifier};
use tracing_subscriber::{Layer, layer::Context};

/// So many lines of one place in the program are logged within [`PERIOD`]; debugging is not limited.
pub(super) const MOST: u32 = 500;
const PERIOD: Duration = Duration::from_secs(10);

/// Decides which lines are logged.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<HashMap<Identifier, Period>>);

#[derive(Debug)]
struct Period {
    began: Instant,
    lines: u32,
}

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Logged,
    /// The first that is not.
    Enough,
    LeftOut,
}

// === impl Pace ===

impl Pace {
    fn judge(&self, kind: Identifier, now: Instant) -> Verdict {
        // What is held is whole after every step.
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let period = kinds.entry(kind).or_insert(Period {
            began: now,
            lines: 0,
        });
        if now.saturating_duration_since(period.began) >= PERIOD {
            *period = Period {
                began: now,
                lines: 0,
            };
        }
        period.lines = period.lines.saturating_add(1);
        match period.lines {
            ..=MOST => Verdict::Logged,
            lines if lines == MOST + 1 => Verdict::Enough,
            _ => Verdict::LeftOut,
        }
    }
}

impl<S: Subscriber> Layer<S> for Pace {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let of = event.metadata();
        if *of.level() > Level::INFO {
            return true;
        }
        let verdict = self.judge(of.callsite(), Instant::now());
        if verdict == Verdict::Enough {
            tracing::warn!(
                of = of.target(),
                "more than {MOST} lines like the last one within {} s; further ones are left out until those are over",
                PERIOD.as_secs()
            );
        }
        verdict == Verdict::Logged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_period_begins_anew() {
        let pace = Pace::default();
        let kind = || tracing::callsite!(name: "test", kind: tracing::metadata::Kind::EVENT, fields: message);
        let kind = tracing::callsite::Callsite::metadata(kind()).callsite();
        let begin = Instant::now();
        for _ in 0..MOST {
            assert_eq!(pace.judge(kind.clone(), begin), Verdict::Logged);
        }
        assert_eq!(pace.judge(kind.clone(), begin), Verdict::Enough);
        assert_eq!(pace.judge(kind.clone(), begin), Verdict::LeftOut);
        assert_eq!(pace.judge(kind, begin + PERIOD), Verdict::Logged);
    }
}
