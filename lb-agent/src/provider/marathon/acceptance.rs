//! Whether a good-looking snapshot is believed. Pure: the clock is passed in.
//!
//! A Marathon that has just become leader, or sits behind a broken proxy, can answer *no apps* with
//! status 200. After any disturbance an empty answer must therefore be given twice.

use std::time::Duration;

use tokio::time::Instant;

/// What to do with a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It replaces the last state.
    Apply,
    /// It counts only if another one, taken at this time or later, agrees.
    Confirm(Instant),
}

/// The memory that the rule needs.
#[derive(Debug)]
pub(super) struct Acceptance {
    patience: Duration,
    /// Something went wrong, or may have, since the last applied snapshot.
    disturbed: bool,
    /// When the first of a row of empty snapshots was taken.
    empty_since: Option<Instant>,
}

// === impl Acceptance ===

impl Acceptance {
    /// A start counts as a disturbance: the kernel may hold the state of an earlier run.
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            patience,
            disturbed: true,
            empty_since: None,
        }
    }

    /// An error, a reconnect or a change of leader.
    pub(super) fn disturb(&mut self) {
        self.disturbed = true;
        self.empty_since = None;
    }

    /// Judges a complete snapshot. `empty`: no app and no pod; `had_vips`: whether the last state
    /// had any, or is unknown.
    pub(super) fn judge(&mut self, empty: bool, had_vips: bool, now: Instant) -> Verdict {
        if empty && had_vips && self.disturbed {
            let confirmed_at = *self.empty_since.get_or_insert(now) + self.patience;
            if now < confirmed_at {
                return Verdict::Confirm(confirmed_at);
            }
        }
        self.disturbed = false;
        self.empty_since = None;
        Verdict::Apply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn calm() -> (Acceptance, Instant) {
        let mut acceptance = Acceptance::new(PATIENCE);
        let now = Instant::now();
        assert_eq!(acceptance.judge(false, false, now), Verdict::Apply);
        (acceptance, now)
    }

    #[test]
    fn an_empty_snapshot_in_quiet_times_is_believed() {
        let (mut acceptance, now) = calm();
        assert_eq!(acceptance.judge(true, true, now), Verdict::Apply);
    }

    #[test]
    fn an_empty_snapshot_after_a_disturbance_needs_a_second_one_later() {
        let (mut acceptance, now) = calm();
        acceptance.disturb();
        let due = now + PATIENCE;
        assert_eq!(acceptance.judge(true, true, now), Verdict::Confirm(due));
        let soon = now + PATIENCE / 2;
        assert_eq!(
            acceptance.judge(true, true, soon),
            Verdict::Confirm(due),
            "too early"
        );
        assert_eq!(acceptance.judge(true, true, due), Verdict::Apply);
    }

    #[test]
    fn a_disturbance_in_between_starts_the_wait_again() {
        let (mut acceptance, now) = calm();
        acceptance.disturb();
        acceptance.judge(true, true, now);
        acceptance.disturb();
        let later = now + PATIENCE;
        assert_eq!(
            acceptance.judge(true, true, later),
            Verdict::Confirm(later + PATIENCE)
        );
    }

    #[test]
    fn a_full_snapshot_after_a_disturbance_is_believed_and_calms() {
        let (mut acceptance, now) = calm();
        acceptance.disturb();
        assert_eq!(acceptance.judge(false, true, now), Verdict::Apply);
        assert_eq!(acceptance.judge(true, true, now), Verdict::Apply);
    }

    #[test]
    fn a_start_counts_as_a_disturbance() {
        let now = Instant::now();
        let verdict = Acceptance::new(PATIENCE).judge(true, true, now);
        assert_eq!(verdict, Verdict::Confirm(now + PATIENCE));
    }
}
