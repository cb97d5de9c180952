//! Maglev tables: which backend takes which slot (Eisenbud et al., NSDI 2016, section 3.4).
//!
//! Every node must build the same table from the same backends, or a flow that moves to another node
//! loses its backend. So hash, order and turns are fixed for good: a change here is a change of
//! protocol between nodes.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, HashMap},
    mem,
    sync::Arc,
};

use lb_common::{SLOTS_LARGE, SLOTS_MEDIUM, SLOTS_SMALL};

use super::{Endpoint, Table};

/// Slots wanted for each backend. The paper's figure for shares that differ by less than 1 %.
pub const SLOTS_PER_BACKEND: usize = 100;

/// What the tables of the last plan hold, so that a plan computes only those whose backends changed.
#[derive(Debug, Default)]
pub struct Memo {
    last: HashMap<Pool, Table>,
    next: HashMap<Pool, Table>,
}

/// What a table is computed from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pool {
    /// Backends with their weights.
    pub(super) members: Vec<(Endpoint, u16)>,
    /// Their ids, in the same order.
    pub(super) ids: Vec<u32>,
    /// Number of slots.
    pub(super) slots: usize,
}

/// A backend's next turn to take a slot: due at `(taken + 1/2) / weight`, which spreads the turns of a
/// heavy backend evenly between those of light ones.
#[derive(PartialEq, Eq)]
struct Turn {
    taken: u32,
    weight: u16,
    backend: usize,
}

/// A backend's walk over the slots, its *permutation* in the paper.
struct Walk {
    next: usize,
    skip: usize,
    share: u32,
    index: u32,
}

/// Which slots are taken, a bit each: the walks look at a slot ten times before it is theirs, and this stays in
/// the CPU's first cache.
struct Taken(Vec<u64>);

/// The smallest table with [`SLOTS_PER_BACKEND`] slots for each backend, else the largest table.
pub fn slots_for(backends: usize) -> usize {
    [SLOTS_SMALL, SLOTS_MEDIUM]
        .into_iter()
        .find(|slots| *slots >= backends.saturating_mul(SLOTS_PER_BACKEND))
        .unwrap_or(SLOTS_LARGE)
}

/// Fills a table of `slots` slots, a prime number, with indices into `backends`.
///
/// Backends of weight 0 get no slot; if there are no others, the table is empty (length 0). A backend
/// has `weight / sum of weights` of the slots, rounded up or down, and at least one. The order of
/// `backends` does not matter; no backend may be given twice.
pub fn fill(backends: &[(Endpoint, u16)], slots: usize) -> Vec<u32> {
    const EMPTY: u32 = u32::MAX;

    let mut order: Vec<(String, u32, u16)> = (0..)
        .zip(backends)
        .filter(|(_, (_, weight))| *weight > 0)
        .map(|(index, (endpoint, weight))| (endpoint.to_string(), index, *weight))
        .collect();
    if order.is_empty() || slots < 2 {
        return Vec::new();
    }
    order.sort_unstable();
    let weights: Vec<u16> = order.iter().map(|(_, _, weight)| *weight).collect();
    let mut walks: Vec<Walk> = order
        .iter()
        .zip(shares(&weights, slots))
        .map(|((name, index, _), share)| Walk::new(name, *index, share, slots))
        .collect();
    let mut table = vec![EMPTY; slots];
    let mut taken = Taken::new(slots);
    let mut take = |walk: &mut Walk| {
        while !taken.take(walk.next) {
            walk.step(slots);
        }
        table[walk.next] = walk.index;
    };
    if weights.windows(2).all(|two| two[0] == two[1]) {
        // Turns of equal backends simply go round.
        for turn in 0.. {
            let mut any = false;
            for walk in walks.iter_mut().filter(|walk| turn < walk.share) {
                take(walk);
                any = true;
            }
            if !any {
                return table;
            }
        }
    }
    let mut turns: BinaryHeap<Reverse<Turn>> = (0..)
        .zip(&weights)
        .filter(|(backend, _)| walks.get(*backend).is_some_and(|walk| walk.share > 0))
        .map(|(backend, &weight)| {
            Reverse(Turn {
                taken: 0,
                weight,
                backend,
            })
        })
        .collect();
    while let Some(Reverse(turn)) = turns.pop() {
        let walk = &mut walks[turn.backend];
        take(walk);
        if turn.taken + 1 < walk.share {
            turns.push(Reverse(Turn {
                taken: turn.taken + 1,
                ..turn
            }));
        }
    }
    table
}

/// How many slots each backend gets: shares by weight, rounded by largest remainder (ties go to the
/// first), at least one slot each. With more backends than slots the last ones get none.
fn shares(weights: &[u16], slots: usize) -> Vec<u32> {
    if weights.len() >= slots {
        return (0..weights.len()).map(|i| u32::from(i < slots)).collect();
    }
    // A backend due less than one slot gets one; the others share what is left.
    let mut single = vec![false; weights.len()];
    let (left, total) = loop {
        let left = (slots - single.iter().filter(|one| **one).count()) as u64;
        let rest = weights.iter().zip(&single).filter(|(_, one)| !**one);
        let total: u64 = rest.map(|(weight, _)| u64::from(*weight)).sum();
        let mut changed = false;
        for (weight, one) in weights.iter().zip(&mut single) {
            if !*one && u64::from(*weight) * left < total {
                (*one, changed) = (true, true);
            }
        }
        if !changed {
            break (left, total);
        }
    };
    let exact = |i: usize| u64::from(weights[i]) * left;
    let mut shares: Vec<u32> = (0..weights.len())
        .map(|i| {
            if single[i] {
                1
            } else {
                (exact(i) / total) as u32
            }
        })
        .collect();
    let mut by_remainder: Vec<usize> = (0..weights.len()).filter(|i| !single[*i]).collect();
    by_remainder.sort_by_key(|i| Reverse(exact(*i) % total));
    let given: u32 = shares.iter().sum();
    for i in by_remainder.into_iter().take(slots - given as usize) {
        shares[i] += 1;
    }
    shares
}

/// The hash of a backend string: FNV-1a, 64 bits, through murmur3's finaliser.
pub fn hash(name: &str) -> u64 {
    const OFFSET: u64 = 0xCBF2_9CE4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01B3;
    mix(name.bytes().fold(OFFSET, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    }))
}

fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    hash ^ (hash >> 33)
}

// === impl Pool ===

impl Pool {
    /// The backends' ids in the slots that [`fill`] gives them.
    pub(super) fn fill(&self) -> Arc<[u32]> {
        let filled = fill(&self.members, self.slots);
        let id = |index: &u32| self.ids.get(*index as usize).copied();
        filled.iter().filter_map(id).collect()
    }
}

// === impl Memo ===

impl Memo {
    /// What the pool's table holds; also the slots, if they had to be computed.
    pub(super) fn content(&mut self, pool: &Pool) -> (Table, Option<Arc<[u32]>>) {
        if let Some(content) = self.next.get(pool) {
            return (content.clone(), None);
        }
        if let Some((pool, content)) = self.last.remove_entry(pool) {
            self.next.insert(pool, content.clone());
            return (content, None);
        }
        let (content, slots) = compute(pool);
        self.next.insert(pool.clone(), content.clone());
        (content, Some(slots))
    }

    /// As [`Memo::content`] for a plan that asks for few tables; the others are not forgotten.
    pub(super) fn content_of_one(&mut self, pool: &Pool) -> (Table, Option<Arc<[u32]>>) {
        if let Some(content) = self.last.get(pool) {
            return (content.clone(), None);
        }
        let (content, slots) = compute(pool);
        self.last.insert(pool.clone(), content.clone());
        (content, Some(slots))
    }

    /// Ends a plan that asked for every table: what it did not use is forgotten.
    pub(super) fn turn_over(&mut self) {
        self.last = mem::take(&mut self.next);
    }
}

fn compute(pool: &Pool) -> (Table, Arc<[u32]>) {
    let slots = pool.fill();
    (Table::of(&slots), slots)
}

// === impl Taken ===

impl Taken {
    fn new(slots: usize) -> Self {
        Self(vec![0; slots.div_ceil(64)])
    }

    /// Takes a slot; false if it is not free.
    #[inline]
    fn take(&mut self, slot: usize) -> bool {
        let (word, bit) = (&mut self.0[slot / 64], 1 << (slot % 64));
        let free = *word & bit == 0;
        *word |= bit;
        free
    }
}

// === impl Turn ===

impl Ord for Turn {
    fn cmp(&self, other: &Self) -> Ordering {
        let due = |turn: &Self, by: &Self| u64::from(2 * turn.taken + 1) * u64::from(by.weight);
        due(self, other)
            .cmp(&due(other, self))
            .then(self.backend.cmp(&other.backend))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

// === impl Walk ===

impl Walk {
    fn new(name: &str, index: u32, share: u32, slots: usize) -> Self {
        let offset = hash(name);
        // The second hash of the paper: the first one, mixed once more from another start.
        let skip = mix(offset ^ 0x9E37_79B9_7F4A_7C15);
        let slots = slots as u64;
        Self {
            next: (offset % slots) as usize,
            skip: (skip % (slots - 1) + 1) as usize,
            share,
            index,
        }
    }

    fn step(&mut self, slots: usize) {
        self.next += self.skip;
        if self.next >= slots {
            self.next -= slots;
        }
    }
}
