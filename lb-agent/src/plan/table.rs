//! A Maglev table as far as plans need it: whose slots they are, and whether it is the same as another.
//!
//! The slots themselves are only made to be written: at 5,000 services they would be 300 MB.

use std::sync::Arc;

/// What a Maglev table holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    shares: Arc<[(u32, u32)]>,
    digest: u64,
}

// === impl Table ===

impl Table {
    /// Of slots that hold backend ids.
    pub fn of(slots: &[u32]) -> Self {
        let mut sorted = slots.to_vec();
        sorted.sort_unstable();
        let shares = sorted
            .chunk_by(|one, next| one == next)
            .filter_map(|same| Some((*same.first()?, same.len() as u32)))
            .collect();
        Self {
            shares,
            digest: digest(slots),
        }
    }

    /// The backend ids in it, ascending, each with its number of slots.
    pub fn shares(&self) -> &[(u32, u32)] {
        &self.shares
    }

    /// The backend ids in it, ascending.
    pub fn ids(&self) -> impl Iterator<Item = u32> {
        self.shares.iter().map(|(id, _)| *id)
    }
}

/// Which id is in which slot, in 64 bits: a multiply and a rotation a slot. Not against an adversary, who
/// would have to choose backends' addresses for their ids.
fn digest(slots: &[u32]) -> u64 {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    let fold = |hash: u64, slot: &u32| (hash ^ u64::from(*slot)).wrapping_mul(ODD).rotate_left(29);
    slots.iter().fold(slots.len() as u64, fold)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_with_the_same_shares_in_other_slots_differ() {
        let (one, other) = (Table::of(&[7, 3, 7]), Table::of(&[3, 7, 7]));
        assert_eq!(one.shares(), [(3, 1), (7, 2)]);
        assert_eq!(one.shares(), other.shares());
        assert_ne!(one, other);
        assert_eq!(one, Table::of(&[7, 3, 7]));
        assert_eq!(one.ids().collect::<Vec<_>>(), [3, 7]);
    }
}
