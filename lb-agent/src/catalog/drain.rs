//! Why a backend that is there takes no new flows.

use std::fmt;

/// Why a backend's weight is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Drain {
    cause: Cause,
    why: &'static str,
}

/// What sort of reason that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    Declared,
    Unfit,
    Ending,
}

// === impl Drain ===

impl Drain {
    /// Whoever declares it gives it no share; the operator may give it one.
    pub const WEIGHT_0: Self = Self {
        cause: Cause::Declared,
        why: "weight 0",
    };

    /// It is not fit for new flows, or not yet: `unhealthy`, `no health result yet`.
    pub const fn unfit(why: &'static str) -> Self {
        Self {
            cause: Cause::Unfit,
            why,
        }
    }

    /// It is about to end: `told to stop`, `TASK_KILLING`.
    pub const fn ending(why: &'static str) -> Self {
        Self {
            cause: Cause::Ending,
            why,
        }
    }

    /// In the field's words.
    pub const fn why(self) -> &'static str {
        self.why
    }

    /// Whether nothing but its declared share keeps flows away.
    pub fn is_declared(self) -> bool {
        self.cause == Cause::Declared
    }

    /// Whether it is about to end.
    pub fn is_ending(self) -> bool {
        self.cause == Cause::Ending
    }
}

impl fmt::Display for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why)
    }
}
