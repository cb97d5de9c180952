//! The walk through a service's table, step by step as the kernel programs take it.

use lb_common::{Backend, WALK_STEPS, backend_state, next_hash, scale};

/// A backend and how many flows it has and may have; 0: no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filled {
    /// As the kernel has it.
    pub backend: Backend,
    /// Flows at present.
    pub flows: u64,
    /// Flows at a time.
    pub max_flows: u32,
    /// It does not answer, and is left alone for a while.
    pub suspect: bool,
}

/// Where a walk went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// The slot that it ended at, and the backend's id; `None`: nobody takes new flows.
    pub end: Option<(u32, u32)>,
    /// Slots, ids and why each was of no use.
    pub passed: Vec<(u32, u32, String)>,
}

/// Goes from a hash to a backend that takes new flows. Where all of them are suspect, none is.
pub fn walk(slots: &[u32], hash: u32, fail_open: bool, of: impl Fn(u32) -> Filled) -> Walk {
    let walked = pass(slots, hash, fail_open, &of);
    if walked.end.is_some() {
        return walked;
    }
    pass(slots, hash, fail_open, |id| Filled {
        suspect: false,
        ..of(id)
    })
}

fn pass(slots: &[u32], hash: u32, fail_open: bool, of: impl Fn(u32) -> Filled) -> Walk {
    let mut walk = Walk::default();
    let mut hash = hash;
    for _ in 0..WALK_STEPS {
        let slot = scale(hash, slots.len() as u32);
        let Some(&id) = slots.get(slot as usize) else {
            return walk;
        };
        match obstacle(&of(id), fail_open) {
            None => {
                walk.end = Some((slot, id));
                return walk;
            }
            Some(why) => walk.passed.push((slot, id, why)),
        }
        hash = next_hash(hash);
    }
    walk
}

/// Why a backend takes no new flow.
pub fn obstacle(filled: &Filled, fail_open: bool) -> Option<String> {
    let Filled {
        backend,
        flows,
        max_flows,
        suspect,
    } = filled;
    let takes = backend.state == backend_state::ACTIVE
        || (fail_open && backend.state == backend_state::DOWN);
    if !takes {
        return Some(state(backend.state).to_owned());
    }
    if *suspect {
        return Some("suspect: it does not answer".to_owned());
    }
    (*max_flows != 0 && *flows >= u64::from(*max_flows))
        .then(|| format!("has all {max_flows} flows that it may have"))
}

/// What one of `backend_state` is called.
pub fn state(state: u8) -> &'static str {
    match state {
        backend_state::ACTIVE => "active",
        backend_state::DRAINING => "draining",
        backend_state::DOWN => "down",
        _ => "gone",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(state: u8, flows: u64, max_flows: u32) -> Filled {
        let backend = Backend {
            state,
            ..Backend::default()
        };
        Filled {
            backend,
            flows,
            max_flows,
            suspect: false,
        }
    }

    #[test]
    fn a_walk_passes_over_whoever_takes_no_flow_and_says_why() {
        let hash = 0x8000_0000;
        let start = scale(hash, 8);
        let second = scale(next_hash(hash), 8);
        let third = scale(next_hash(next_hash(hash)), 8);
        assert!(start != second && second != third && start != third);
        let mut slots = [9; 8];
        (slots[start as usize], slots[second as usize]) = (1, 2);
        let backend = |id| match id {
            1 => of(backend_state::DOWN, 0, 0),
            2 => of(backend_state::ACTIVE, 5, 5),
            _ => of(backend_state::ACTIVE, 4, 5),
        };
        let found = walk(&slots, hash, false, backend);
        assert_eq!(found.end, Some((third, 9)));
        let passed = [
            (start, 1, "down".to_owned()),
            (second, 2, "has all 5 flows that it may have".to_owned()),
        ];
        assert_eq!(found.passed, passed);
        assert_eq!(walk(&slots, hash, true, backend).end, Some((start, 1)));
    }

    #[test]
    fn a_suspect_is_passed_over_unless_all_are() {
        let suspect = |id| Filled {
            suspect: id == 1,
            ..of(backend_state::ACTIVE, 0, 0)
        };
        let found = walk(&[1, 2, 1, 1, 2, 2, 1, 2], 7, false, suspect);
        assert_eq!(found.end.map(|(_, id)| id), Some(2));
        let found = walk(&[1; 8], 7, false, suspect);
        assert_eq!(found.end.map(|(_, id)| id), Some(1));
    }

    #[test]
    fn a_walk_ends_without_a_backend_where_there_is_none() {
        assert_eq!(walk(&[], 7, false, |_| Filled::default()), Walk::default());
        let drained = walk(&[1; 8], 7, false, |_| of(backend_state::DRAINING, 0, 0));
        assert_eq!((drained.end, drained.passed.len()), (None, WALK_STEPS));
    }
}
