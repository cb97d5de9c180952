//! The flow hash: which slot of a Maglev table a client's flow takes.

use crate::{Address, Be16};

/// Odd constants with well-spread bits: the golden ratio and murmur3's 64-bit finaliser.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
const MIX_1: u64 = 0xFF51_AFD7_ED55_8CCD;
const MIX_2: u64 = 0xC4CE_B9FE_1A85_EC53;

/// Hashes the client's side of a flow.
///
/// The VIP's address is left out, so that a flow finds the same backend on every node and by every
/// address of the service. All nodes must agree: the function never changes.
#[inline(always)]
pub fn flow_hash<A: Address>(client: &A, sport: Be16, dport: Be16, proto: u8) -> u32 {
    let ports = (u64::from(sport.0) << 32) | (u64::from(dport.0) << 16) | u64::from(proto);
    let mut h = ports.wrapping_mul(GOLDEN);
    let wide = client.widen();
    h = mix(h ^ ((u64::from(wide.0[0]) << 32) | u64::from(wide.0[1])));
    if A::WORDS > 1 {
        h = mix(h ^ ((u64::from(wide.0[2]) << 32) | u64::from(wide.0[3])));
    }
    (h >> 32) as u32
}

/// Scales a 32-bit hash to `0..slots` by multiplication (Lemire); the verifier can follow the bound,
/// which it cannot for a remainder.
#[inline(always)]
pub const fn scale(hash: u32, slots: u32) -> u32 {
    ((hash as u64 * slots as u64) >> 32) as u32
}

/// The hash for the next try when the slot of this one is of no use (a linear congruential step of
/// full period). All nodes walk alike: the function never changes.
#[inline(always)]
pub const fn next_hash(hash: u32) -> u32 {
    hash.wrapping_mul(0x9E37_79B1).wrapping_add(0x7F4A_7C15)
}

#[inline(always)]
const fn mix(mut h: u64) -> u64 {
    h ^= h >> 33;
    h = h.wrapping_mul(MIX_1);
    h ^= h >> 33;
    h = h.wrapping_mul(MIX_2);
    h ^ (h >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Addr4, SLOTS_SMALL};

    #[test]
    fn sequential_source_ports_spread_over_all_slots_evenly() {
        let mut buckets = [0_u32; 16];
        let client = Addr4::from(core::net::Ipv4Addr::new(192, 0, 2, 7));
        for port in 0..16_000 {
            let hash = flow_hash(&client, Be16::new(40_000 + port), Be16::new(80), 6);
            let slot = scale(hash, SLOTS_SMALL as u32) as usize;
            assert!(slot < SLOTS_SMALL);
            buckets[slot * 16 / SLOTS_SMALL] += 1;
        }
        // Chi-square with 15 degrees of freedom: 37.7 is the 0.1 % point.
        let chi: f64 = buckets
            .iter()
            .map(|&n| (f64::from(n) - 1000.0).powi(2) / 1000.0)
            .sum();
        assert!(chi < 37.7, "chi-square {chi}, buckets {buckets:?}");
    }

    #[test]
    fn the_hash_is_the_one_that_other_nodes_compute() {
        let client = Addr4::from(core::net::Ipv4Addr::new(192, 0, 2, 7));
        let hash = flow_hash(&client, Be16::new(40_000), Be16::new(80), 6);
        assert_eq!(hash, 886_827_730);
    }
}
