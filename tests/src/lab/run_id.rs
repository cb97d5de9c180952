//! The mark that everything a run of the lab makes carries in its name.

use std::{fmt, fs, sync::OnceLock};

/// What every name made by the lab starts with.
pub const PREFIX: &str = "lblab";

/// One process that uses the lab: its pid and its start time, so that a recycled pid is not taken for it.
///
/// Written `lblab-PID-START`, with START in clock ticks since boot (`proc_pid_stat(5)`, field 22).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunId {
    pid: u32,
    start: u64,
}

// === impl RunId ===

impl RunId {
    /// The calling process.
    pub fn this() -> Self {
        static THIS: OnceLock<RunId> = OnceLock::new();
        *THIS.get_or_init(|| {
            let pid = std::process::id();
            Self {
                pid,
                start: start_time(pid).unwrap_or(0),
            }
        })
    }

    /// The run that made `name`, or `None` if no run of the lab did.
    pub fn of(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(PREFIX)?.strip_prefix('-')?.split('-');
        let pid = parts.next()?.parse().ok()?;
        let start = parts.next()?.parse().ok()?;
        Some(Self { pid, start })
    }

    /// Whether the process that ran is still there.
    pub fn is_alive(self) -> bool {
        start_time(self.pid) == Some(self.start)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, start } = self;
        write!(f, "{PREFIX}-{pid}-{start}")
    }
}

/// Clock ticks since boot; `None` if there is no such process.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets and may hold blanks and brackets.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_run() {
        let run = RunId::this();
        assert_eq!(RunId::of(&format!("{run}-3-master")), Some(run));
        assert!(run.is_alive());
    }

    #[test]
    fn a_recycled_pid_is_another_run() {
        let run = RunId {
            start: 1,
            ..RunId::this()
        };
        assert!(!run.is_alive());
    }

    #[test]
    fn foreign_names_are_nobodys() {
        for name in [
            "",
            "lblab",
            "lblab-",
            "lblab-x-1",
            "lblabor-1-2",
            "docker0",
            "lblab-12",
        ] {
            assert_eq!(RunId::of(name), None, "{name}");
        }
    }
}
