//! Incremental checksum updates (RFC 1624, equation 3).
//!
//! Sums are of 16-bit words as they stand in memory: one's complement addition does not depend on byte
//! order (RFC 1071 section 2(B)), so nothing is swapped.

use crate::Address;

/// A difference between two sets of words, to be applied to any number of checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(u64);

// === impl Delta ===

impl Delta {
    /// No difference.
    pub const ZERO: Self = Self(0);

    /// Adds the replacement of a 16-bit word.
    #[inline(always)]
    #[must_use]
    pub fn word(self, old: u16, new: u16) -> Self {
        Self(self.0 + u64::from(!old) + u64::from(new))
    }

    /// Adds the replacement of an address.
    #[inline(always)]
    #[must_use]
    pub fn address<A: Address>(self, old: &A, new: &A) -> Self {
        let mut sum = self.0;
        let (old, new) = (old.widen(), new.widen());
        sum += u64::from(!old.0[0]) + u64::from(new.0[0]);
        if A::WORDS > 1 {
            sum += u64::from(!old.0[1]) + u64::from(new.0[1]);
            sum += u64::from(!old.0[2]) + u64::from(new.0[2]);
            sum += u64::from(!old.0[3]) + u64::from(new.0[3]);
        }
        Self(sum)
    }

    /// What a router's work on the time to live changes in an IPv4 header.
    pub const HOP: Self = Self(!0x0100_u16.to_be() as u64);

    /// Both differences.
    #[inline(always)]
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The checksum that holds after the replacement.
    #[inline(always)]
    pub fn apply(self, checksum: u16) -> u16 {
        !fold(self.0 + u64::from(!checksum))
    }

    /// As [`Delta::apply`] for UDP: 0 means that the sender made none (RFC 768), so it stays, and a
    /// computed 0 is sent as all ones.
    #[inline(always)]
    pub fn apply_udp(self, checksum: u16) -> u16 {
        if checksum == 0 {
            return 0;
        }
        match self.apply(checksum) {
            0 => 0xffff,
            sum => sum,
        }
    }

    /// The difference in 16 bits, as `bpf_l3_csum_replace` and `bpf_l4_csum_replace` take it with a size
    /// of 0.
    #[inline(always)]
    pub fn folded(self) -> u16 {
        fold(self.0)
    }

    /// The reverse of [`Delta::folded`].
    #[inline(always)]
    pub const fn unfolded(folded: u16) -> Self {
        Self(folded as u64)
    }
}

/// Up to three differences that were folded before, as flows keep them: less work than a [`Delta`] of any
/// size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Folded(u32);

// === impl Folded ===

impl Folded {
    /// What a router's work on the time to live changes in an IPv4 header.
    pub const HOP: Self = Self(!0x0100_u16.to_be() as u32);

    /// One difference.
    #[inline(always)]
    pub const fn of(folded: u16) -> Self {
        Self(folded as u32)
    }

    /// Both differences.
    #[inline(always)]
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// As [`Delta::apply`].
    #[inline(always)]
    pub fn apply(self, checksum: u16) -> u16 {
        let mut sum = self.0 + u32::from(!checksum);
        // At most 4 * 0xffff; twice is enough.
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        !(sum as u16)
    }

    /// As [`Delta::apply_udp`].
    #[inline(always)]
    pub fn apply_udp(self, checksum: u16) -> u16 {
        if checksum == 0 {
            return 0;
        }
        match self.apply(checksum) {
            0 => 0xffff,
            sum => sum,
        }
    }
}

/// The checksum of words in memory order, in memory order (RFC 1071).
#[inline(always)]
pub fn of_words<const N: usize>(words: &[u32; N]) -> u16 {
    let mut sum = 0;
    for word in words {
        sum += u64::from(*word);
    }
    !fold(sum)
}

/// The sum over everything, for a packet of our own making (RFC 1071).
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

// === impl Sum ===

impl Sum {
    /// Of nothing.
    pub const ZERO: Self = Self(0);

    /// Adds words as they stand in memory.
    #[inline(always)]
    #[must_use]
    pub fn words<const N: usize>(self, words: [u32; N]) -> Self {
        let mut sum = self.0;
        for word in words {
            sum += u64::from(word);
        }
        Self(sum)
    }

    /// The sum in 16 bits.
    #[inline(always)]
    pub fn folded(self) -> u16 {
        fold(self.0)
    }

    /// What goes into the header.
    #[inline(always)]
    pub fn checksum(self) -> u16 {
        !fold(self.0)
    }
}

#[inline(always)]
fn fold(mut sum: u64) -> u16 {
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Addr4, Addr6};
    use proptest::prelude::*;

    /// The checksum of RFC 1071 computed over everything.
    fn whole(words: &[u16]) -> u16 {
        !fold(words.iter().map(|&w| u64::from(w)).sum())
    }

    /// One's complement has two zeros; both verify.
    fn same(a: u16, b: u16) -> bool {
        a == b || (a == 0 && b == 0xffff) || (a == 0xffff && b == 0)
    }

    fn halves(word: u32) -> [u16; 2] {
        [word as u16, (word >> 16) as u16]
    }

    proptest! {
        #[test]
        fn an_update_equals_the_sum_over_everything(
            rest in proptest::collection::vec(any::<u16>(), 1..40),
            old4: u32, new4: u32, old6: [u32; 4], new6: [u32; 4], old_port: u16, new_port: u16,
        ) {
            let packet = |a4: u32, a6: [u32; 4], port: u16| {
                let mut words = rest.clone();
                words.extend(halves(a4));
                words.extend(a6.into_iter().flat_map(halves));
                words.push(port);
                whole(&words)
            };
            let delta = Delta::ZERO
                .address(&Addr4(old4), &Addr4(new4))
                .address(&Addr6(old6), &Addr6(new6))
                .word(old_port, new_port);
            let updated = delta.apply(packet(old4, old6, old_port));
            prop_assert!(same(updated, packet(new4, new6, new_port)));
        }
    }

    proptest! {
        #[test]
        fn folded_differences_do_what_they_did_before(one: u16, other: u16, checksum: u16) {
            let delta = Delta::unfolded(one).and(Delta::unfolded(other)).and(Delta::HOP);
            let folded = Folded::of(one).and(Folded::of(other)).and(Folded::HOP);
            prop_assert_eq!(folded.apply(checksum), delta.apply(checksum));
            prop_assert_eq!(folded.apply_udp(checksum), delta.apply_udp(checksum));
        }
    }

    #[test]
    fn a_udp_checksum_of_zero_stays_and_a_computed_zero_becomes_ones() {
        assert_eq!(Delta::ZERO.word(1, 2).apply_udp(0), 0);
        let checksum = 1;
        let delta = (0..=u16::MAX)
            .map(|new| Delta::ZERO.word(7, new))
            .find(|d| d.apply(checksum) == 0)
            .unwrap();
        assert_eq!(delta.apply_udp(checksum), 0xffff);
    }

    #[test]
    fn a_hop_is_a_time_to_live_that_is_one_less() {
        let header =
            |ttl: u8| [0x4500_u16, 0x0054, 0xbeef, u16::from(ttl) << 8 | 6].map(u16::to_be);
        for ttl in 2..=255 {
            let updated = Delta::HOP.apply(whole(&header(ttl)));
            assert!(same(updated, whole(&header(ttl - 1))), "{ttl}");
        }
    }

    #[test]
    fn the_sum_over_words_is_that_over_their_halves() {
        let words = [0x1234_5678, 0xffff_ffff, 0x9abc_def0];
        let all: Vec<u16> = words.into_iter().flat_map(halves).collect();
        assert_eq!(Sum::ZERO.words(words).checksum(), whole(&all));
        assert_eq!(Sum::ZERO.words(words).folded(), !whole(&all));
    }

    #[test]
    fn the_example_of_rfc_1624_holds() {
        // Section 4: a header word changes from 0x5555 to 0x3285, checksum from 0xDD2F to 0x0000.
        assert_eq!(Delta::ZERO.word(0x5555, 0x3285).apply(0xDD2F), 0x0000);
    }
}
