//! How a service spreads its new flows, and how many it lets in.

use crate::Addr6;

/// How a service chooses. Numbers are part of the pinned maps' meaning.
pub mod algorithm {
    /// By the flow's hash: every node chooses alike.
    pub const MAGLEV: u8 = 0;
    /// The one of two drawn at random that has fewer flows for its weight.
    pub const LEAST_CONN: u8 = 1;
    /// One after the other.
    pub const ROUND_ROBIN: u8 = 2;
    /// By the hash of the client's address: all flows of a client go to one backend.
    pub const SOURCE: u8 = 3;
}

/// How many slots are tried for a backend that takes new flows. With 9 of 10 backends out of service the walk misses
/// once in 1,000 tries; the agent rebuilds the table soon after.
pub const WALK_STEPS: usize = 64;

/// What one backend takes on, by backend id; written by the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct BackendLimit {
    /// Flows at a time; 0: no limit.
    pub max_flows: u32,
    /// The largest weight that a service gives it, 0 to 256.
    pub weight: u32,
}

/// A client of a service with affinity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct AffinityKey {
    /// The client; IPv4 in the first word. A local client: its network namespace's cookie.
    pub client: Addr6,
    /// Service id.
    pub service: u32,
    /// 4, 6, or 0 for a local client.
    pub family: u32,
}

/// The backend that a client is given again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Affinity {
    /// Coarse time of the client's last new flow, ns.
    pub last_used: u64,
    /// Backend id.
    pub backend: u32,
    /// Its generation.
    pub generation: u32,
}

/// What changes with every flow of a service, by service id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ServiceState {
    /// Flows at present.
    pub flows: u64,
    /// Whose turn it is, [`algorithm::ROUND_ROBIN`].
    pub turn: u64,
    /// New flows that it may still be given.
    pub bucket: Bucket,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Bucket {
    /// Coarse time of the last refill, ns.
    pub refilled: u64,
    /// What is left.
    pub tokens: u64,
}

const _: () = assert!(size_of::<BackendLimit>() == 4 + 4);
const _: () = assert!(size_of::<AffinityKey>() == 16 + 4 + 4);
const _: () = assert!(size_of::<Affinity>() == 8 + 4 + 4);
const _: () = assert!(size_of::<Bucket>() == 8 + 8);
const _: () = assert!(size_of::<ServiceState>() == 8 + 8 + 16);

const SECOND: u64 = 1_000_000_000;
/// Refills are at least this far apart, ns: the coarse clock ticks every 1 to 10 ms.
const REFILL: u64 = SECOND / 64;
/// The most that is saved up, in parts of a second's tokens.
const BURST: u64 = 8;

// === impl Bucket ===

impl Bucket {
    /// Adds what has come in since the last refill at `rate` tokens a second; `now`: ns.
    ///
    /// A new bucket is full. Two CPUs that refill at once may add twice: a limit is a guard, not a
    /// measure.
    #[inline(always)]
    pub fn refill(&mut self, rate: u32, now: u64) {
        let rate = rate as u64;
        let passed = now.saturating_sub(self.refilled);
        if passed < REFILL {
            return;
        }
        let passed = if passed > SECOND { SECOND } else { passed };
        let fresh = rate * passed / SECOND;
        // A low rate gathers for longer.
        if fresh != 0 {
            let most = rate / BURST + 1;
            let tokens = self.tokens + fresh;
            self.refilled = now;
            self.tokens = if tokens > most { most } else { tokens };
        }
    }

    /// Takes one token; `false` if there is none.
    #[inline(always)]
    pub fn take(&mut self) -> bool {
        if self.tokens == 0 {
            return false;
        }
        self.tokens -= 1;
        true
    }
}

/// The hash whose slot, by [`crate::scale`], is `turn` modulo `slots`.
#[inline(always)]
pub const fn turn_hash(turn: u32, slots: u32) -> u32 {
    if slots == 0 {
        return 0;
    }
    ((((turn % slots) as u64) << 32) / slots as u64 + 1) as u32
}

/// Whether the first of two backends has fewer flows for its weight, or as many. Weights are 0 to 256,
/// flows far below 2^55.
#[inline(always)]
pub const fn is_lighter(flows: u64, weight: u32, other_flows: u64, other_weight: u32) -> bool {
    flows.wrapping_mul(other_weight as u64) <= other_flows.wrapping_mul(weight as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SLOTS_LARGE, SLOTS_MEDIUM, SLOTS_SMALL, scale};

    #[test]
    fn turns_take_every_slot_once_and_in_order() {
        for slots in [SLOTS_SMALL, SLOTS_MEDIUM, SLOTS_LARGE] {
            let slots = slots as u32;
            for turn in 0..2 * slots {
                assert_eq!(scale(turn_hash(turn, slots), slots), turn % slots);
            }
        }
        assert_eq!(turn_hash(7, 0), 0);
    }

    #[test]
    fn flows_count_by_weight() {
        assert!(is_lighter(10, 2, 5, 1));
        assert!(!is_lighter(11, 2, 5, 1));
        assert!(is_lighter(0, 1, 0, 1));
        assert!(is_lighter(1 << 40, 256, 1 << 40, 1));
    }

    #[test]
    fn a_bucket_lets_through_its_rate_and_a_burst_no_more() {
        for rate in [1, 3, 10, 64, 1_000, 100_000] {
            let mut bucket = Bucket::default();
            let start = 5_000 * SECOND;
            let mut taken = 0_u64;
            // Ten seconds in steps of a coarse clock's tick, always as many tries as it has tokens.
            for tick in 0..2_500 {
                bucket.refill(rate, start + tick * 4_000_000);
                while bucket.take() {
                    taken += 1;
                }
            }
            let (rate, most) = (u64::from(rate), u64::from(rate) / BURST + 1);
            assert!(taken >= 9 * rate, "{taken} at {rate}");
            assert!(taken <= 10 * rate + most, "{taken} at {rate}");
        }
    }
}
