//! From the outcomes of probes to a verdict about one backend. Pure.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::catalog::Check;

/// What came of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The backend answered as it should.
    Passed,
    /// It did not, in a few words.
    Failed(Arc<str>),
    /// It was not asked, in a few words: the answer would not be its own.
    NotAsked(Arc<str>),
}

/// What is known of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet, so what its orchestrator says is all that counts.
    #[default]
    Unknown,
    /// It answers.
    Up,
    /// It does not.
    Down,
}

/// How long a backend's going down is held against it.
const MEMORY: Duration = Duration::from_secs(600);
/// It may go down so often within that time before it has to pass more probes to come back.
const FORGIVEN: usize = 2;
/// How often that number is doubled at most.
const MOST_DOUBLED: usize = 4;

/// Why a backend is down that was never probed.
pub(super) const KNOWN_DOWN: &str = "it was down before the agent started";

/// A backend's verdict and how it came about.
#[derive(Clone, Debug)]
pub struct Health {
    verdict: Verdict,
    /// Why it is not up; of a backend that is up: none.
    reason: Option<Arc<str>>,
    /// Probes in a row that speak against the verdict.
    against: u32,
    /// Whether it ever passed.
    passed: bool,
    began: Instant,
    /// When it went down, the oldest first.
    falls: VecDeque<Instant>,
}

// === impl Health ===

impl Health {
    /// A backend that is new.
    pub fn new(now: Instant) -> Self {
        Self {
            verdict: Verdict::Unknown,
            reason: None,
            against: 0,
            passed: false,
            began: now,
            falls: VecDeque::new(),
        }
    }

    /// A backend that the kernel still has as down, from an agent before this one.
    pub fn known_down(now: Instant) -> Self {
        Self {
            verdict: Verdict::Down,
            reason: Some(KNOWN_DOWN.into()),
            ..Self::new(now)
        }
    }

    /// What is known.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Probes in a row that speak against the verdict.
    pub fn against(&self) -> u32 {
        self.against
    }

    /// Why it is not up.
    pub fn reason(&self) -> Option<&Arc<str>> {
        self.reason.as_ref()
    }

    /// Takes note of a probe; true if the verdict or its reason is another one.
    ///
    /// - The first probe that a new backend passes makes it *up*; the first `fall` in a row that it fails, those within
    ///   `grace` not counted, make it *down*.
    /// - *Up* becomes *down* by `fall` failures in a row, *down* becomes *up* by `rise` passes in a row.
    /// - A backend that goes down again and again must pass more: from the third time within ten minutes on twice as
    ///   many each time, up to 16 times as many. So one that flaps does not take every other connection with it.
    pub fn observe(&mut self, check: &Check, outcome: Outcome, now: Instant) -> bool {
        let before = (self.verdict, self.reason.clone());
        match outcome {
            Outcome::NotAsked(why) => {
                self.verdict = Verdict::Unknown;
                self.reason = Some(why);
                self.against = 0;
            }
            Outcome::Passed => self.pass(check, now),
            Outcome::Failed(why) => self.fail(check, why, now),
        }
        before != (self.verdict, self.reason.clone())
    }

    fn pass(&mut self, check: &Check, now: Instant) {
        self.passed = true;
        match self.verdict {
            Verdict::Up => self.against = 0,
            Verdict::Unknown => self.rise(),
            Verdict::Down => {
                self.against += 1;
                if self.against >= self.passes_wanted(check, now) {
                    self.rise();
                }
            }
        }
    }

    fn rise(&mut self) {
        self.verdict = Verdict::Up;
        self.reason = None;
        self.against = 0;
    }

    fn fail(&mut self, check: &Check, why: Arc<str>, now: Instant) {
        match self.verdict {
            // The latest reason is the one to look at.
            Verdict::Down => {
                self.against = 0;
                self.reason = Some(self.told(check, why, now));
            }
            Verdict::Unknown if !self.passed && now < self.began + check.grace => {}
            Verdict::Unknown | Verdict::Up => {
                self.against += 1;
                if self.against >= check.fall {
                    self.verdict = Verdict::Down;
                    self.against = 0;
                    self.falls.push_back(now);
                    self.reason = Some(self.told(check, why, now));
                }
            }
        }
    }

    /// Probes in a row that bring it back.
    fn passes_wanted(&mut self, check: &Check, now: Instant) -> u32 {
        self.falls.retain(|fall| now < *fall + MEMORY);
        let doubled = self.falls.len().saturating_sub(FORGIVEN).min(MOST_DOUBLED);
        check.rise.saturating_mul(1 << doubled)
    }

    /// The reason, and that it flaps.
    fn told(&mut self, check: &Check, why: Arc<str>, now: Instant) -> Arc<str> {
        let wanted = self.passes_wanted(check, now);
        if wanted <= check.rise {
            return why;
        }
        let times = self.falls.len();
        format!("{why}; down {times} times in 10 minutes, comes back after {wanted} checks passed")
            .into()
    }
}
