//! What a purge removed, and what it could not: it goes on after a failure.

use anyhow::Result;
use serde::Serialize;

/// What `lb-agent purge` did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Purged {
    /// One item for each thing that is gone now.
    pub removed: Vec<String>,
    /// One sentence for each thing that may still be there.
    pub failed: Vec<String>,
}

// === impl Purged ===

impl Purged {
    /// Takes down the end of one thing; `false`: somebody else removed it meanwhile.
    pub fn note(&mut self, what: impl Into<String>, outcome: Result<bool>) {
        let what = what.into();
        match outcome {
            Ok(true) => self.removed.push(what),
            Ok(false) => {}
            Err(error) => self.failed.push(format!("{what}: {error:#}")),
        }
    }

    /// What is needed to find further things; a failure is taken down.
    pub fn expect<T>(&mut self, found: Result<T>) -> Option<T> {
        found
            .inspect_err(|error| self.failed.push(format!("{error:#}")))
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_failure_is_told_and_what_is_gone_already_is_not() {
        let mut purged = Purged::default();
        purged.note("pin a", Ok(true));
        purged.note("pin b", Ok(false));
        purged.note("pin c", Err(anyhow!("busy")));
        assert_eq!(purged.expect::<()>(Err(anyhow!("cannot list d"))), None);
        assert_eq!(purged.expect(Ok(1)), Some(1));
        assert_eq!(purged.removed, ["pin a"]);
        assert_eq!(purged.failed, ["pin c: busy", "cannot list d"]);
    }
}
