//! When to read next, and whether all or what events were about. Pure: the clock is passed in.

use std::time::Duration;

use tokio::time::Instant;

/// Decides when to read Marathon.
#[derive(Debug)]
pub(super) struct Schedule {
    debounce: Duration,
    at_most: Duration,
    /// First and latest event since the last snapshot began.
    burst: Option<(Instant, Instant)>,
    /// The next snapshot whatever happens.
    next: Instant,
    /// A failure's wait: events do not cut it short, a new stream does.
    resting: bool,
}

// === impl Schedule ===

impl Schedule {
    /// The first snapshot is due at `first`; a burst of events waits for `debounce` of silence, but
    /// no longer than `at_most` after its first event.
    pub(super) fn new(debounce: Duration, at_most: Duration, first: Instant) -> Self {
        Self {
            debounce,
            at_most,
            burst: None,
            next: first,
            resting: false,
        }
    }

    /// An event with news.
    pub(super) fn event(&mut self, now: Instant) {
        let first = self.burst.map_or(now, |(first, _)| first);
        self.burst = Some((first, now));
    }

    /// A new stream: whatever happened before it was missed.
    pub(super) fn at_once(&mut self, now: Instant) {
        self.next = now;
        self.resting = false;
    }

    /// Whether everything is to be read at `now`, not only what events were about.
    pub(super) fn is_whole_due(&self, now: Instant) -> bool {
        now >= self.next
    }

    /// A reading begins; it covers every event so far.
    pub(super) fn begins(&mut self) {
        self.burst = None;
    }

    /// A snapshot was taken; without events the next is due at `next`.
    pub(super) fn done(&mut self, next: Instant) {
        self.next = next;
        self.resting = false;
    }

    /// A snapshot failed; not again before `next`.
    pub(super) fn failed(&mut self, next: Instant) {
        self.next = next;
        self.resting = true;
    }

    /// When the next snapshot is due.
    pub(super) fn due(&self) -> Instant {
        match self.burst {
            Some((first, latest)) if !self.resting => self
                .next
                .min(latest + self.debounce)
                .min(first + self.at_most),
            _ => self.next,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn schedule() -> (Schedule, Instant) {
        let start = Instant::now();
        let mut schedule = Schedule::new(ms(200), ms(1000), start);
        schedule.begins();
        schedule.done(start + ms(30_000));
        (schedule, start)
    }

    #[test]
    fn a_burst_waits_for_silence_but_not_for_ever() {
        let (mut schedule, start) = schedule();
        schedule.event(start);
        assert_eq!(schedule.due(), start + ms(200));
        for at in (100..=2000).step_by(100) {
            schedule.event(start + ms(at));
        }
        assert_eq!(schedule.due(), start + ms(1000));
    }

    #[test]
    fn without_events_the_periodic_snapshot_comes() {
        let (mut schedule, start) = schedule();
        assert_eq!(schedule.due(), start + ms(30_000));
        assert!(schedule.is_whole_due(start + ms(30_000)));
        schedule.event(start);
        assert!(!schedule.is_whole_due(schedule.due()));
        schedule.begins();
        assert_eq!(
            schedule.due(),
            start + ms(30_000),
            "events do not put it off"
        );
    }

    #[test]
    fn an_event_during_a_snapshot_schedules_another_one() {
        let (mut schedule, start) = schedule();
        schedule.event(start);
        schedule.begins();
        schedule.event(start + ms(50));
        schedule.done(start + ms(30_000));
        assert_eq!(schedule.due(), start + ms(250));
    }

    #[test]
    fn events_do_not_cut_a_failures_wait_short_but_a_new_stream_does() {
        let (mut schedule, start) = schedule();
        schedule.begins();
        schedule.failed(start + ms(5_000));
        schedule.event(start);
        assert_eq!(schedule.due(), start + ms(5_000));
        schedule.at_once(start + ms(10));
        assert_eq!(schedule.due(), start + ms(10));
    }
}
