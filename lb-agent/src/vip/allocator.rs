//! Gives every name its address: the same one for ever, and the one that DC/OS would give where it is free.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{AddressPool, Claim, Family, Leases, Pools, VipName};

/// Leases within pools.
///
/// Without a store shared by the cluster every node allocates for itself. That agrees across nodes for a
/// name that has its first candidate to itself; [`Self::contested`] tells the others.
#[derive(Clone, Debug)]
pub struct Allocator {
    pools: Pools,
    leases: Leases,
    contested: BTreeSet<VipName>,
    unsaved: bool,
}

/// Why a name has no address. Only that name suffers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocError {
    /// Every address of the pool is leased or reserved.
    #[error("the {family} pool {pool} has no free address left; widen it")]
    Exhausted {
        /// The family of the pool.
        family: Family,
        /// Its bounds.
        pool: AddressPool,
    },
    /// The operator configured no pool for this family.
    #[error("there is no {family} pool, so names have no {family} address")]
    NoPool {
        /// The family without a pool.
        family: Family,
    },
}

// === impl Allocator ===

impl Allocator {
    /// Continues from `leases`. Those outside `pools` get another address at the next [`Self::allocate`].
    pub fn new(pools: Pools, leases: Leases) -> Self {
        let mut allocator = Self {
            pools,
            leases,
            contested: BTreeSet::new(),
            unsaved: false,
        };
        allocator.contested = allocator.find_contested();
        allocator
    }

    /// The pools that addresses are drawn from.
    pub fn pools(&self) -> &Pools {
        &self.pools
    }

    /// Every lease, also those outside the pools.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// The address of `name`, if it has one inside the pool.
    pub fn address(&self, name: &VipName, family: Family) -> Option<IpAddr> {
        let addr = self.leases.get(name)?.address(family)?;
        self.pools.contains(addr).then_some(addr)
    }

    /// Who holds `addr`, if it is inside the pools.
    pub fn holder(&self, addr: IpAddr) -> Option<&VipName> {
        self.leases
            .holder(addr)
            .filter(|_| self.pools.contains(addr))
    }

    /// Every leased address inside the pools, those of empty VIPs too.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, &VipName)> {
        self.leases
            .addresses()
            .filter(|&(addr, _)| self.pools.contains(addr))
    }

    /// Names whose address may differ on another node: it was probed for, another's probe met it, or it
    /// stems from other pool bounds.
    pub fn contested(&self) -> &BTreeSet<VipName> {
        &self.contested
    }

    /// Whether [`Self::leases`] changed since the last [`Self::mark_saved`].
    pub fn unsaved(&self) -> bool {
        self.unsaved
    }

    /// Call when [`Self::leases`] is on disk.
    pub fn mark_saved(&mut self) {
        self.unsaved = false;
    }

    /// Sees to it that every name of `wanted` has an address, in ascending order of the names; gives those
    /// for which there is none.
    ///
    /// A lease inside the pool never moves. No name gets an address of `reserved`.
    pub fn allocate(
        &mut self,
        wanted: &BTreeSet<(Family, VipName)>,
        reserved: &BTreeSet<IpAddr>,
    ) -> BTreeMap<(Family, VipName), AllocError> {
        let mut missing = self.withdraw_outside();
        missing.extend(
            wanted
                .iter()
                .filter(|(family, name)| self.address(name, *family).is_none())
                .cloned(),
        );
        let mut failed = BTreeMap::new();
        let mut granted = false;
        for (family, name) in missing {
            match self.find_free(&name, family, reserved) {
                Ok(addr) => {
                    self.leases.grant(&name, addr);
                    granted = true;
                }
                Err(error) => {
                    failed.insert((family, name), error);
                }
            }
        }
        if granted {
            self.unsaved = true;
            self.contested = self.find_contested();
        }
        failed
    }

    /// Records who declared `name` first; does nothing if somebody did before.
    pub fn claim(&mut self, name: &VipName, claim: Claim) {
        self.unsaved |= self.leases.claim(name, claim);
    }

    /// Forgets a name, its address and its owner, by the operator's wish; false if it was not known.
    pub fn release(&mut self, name: &VipName) -> bool {
        let known = self.leases.remove(name);
        if known {
            self.unsaved = true;
            self.contested = self.find_contested();
        }
        known
    }

    /// Takes away what changed bounds left outside. A family that lost its pool keeps its leases, in case
    /// the pool comes back.
    fn withdraw_outside(&mut self) -> BTreeSet<(Family, VipName)> {
        let outside: BTreeSet<_> = self
            .leases
            .addresses()
            .map(|(addr, name)| (Family::of(addr), addr, name))
            .filter(|&(family, addr, _)| {
                let pool = self.pools.get(family);
                pool.is_some_and(|pool| !pool.contains(addr))
            })
            .map(|(family, _, name)| (family, name.clone()))
            .collect();
        for (family, name) in &outside {
            self.leases.withdraw(name, *family);
            self.unsaved = true;
        }
        outside
    }

    fn find_free(
        &self,
        name: &VipName,
        family: Family,
        reserved: &BTreeSet<IpAddr>,
    ) -> Result<IpAddr, AllocError> {
        let pool = self
            .pools
            .get(family)
            .ok_or(AllocError::NoPool { family })?;
        pool.probe(name)
            .find(|addr| self.leases.holder(*addr).is_none() && !reserved.contains(addr))
            .ok_or(AllocError::Exhausted { family, pool })
    }

    /// A name off its candidate is contested, and so is every name whose address its probe met: where they
    /// came in another order, each would have another address.
    fn find_contested(&self) -> BTreeSet<VipName> {
        let mut contested = BTreeSet::new();
        for (addr, name) in self.leases.addresses() {
            let Some(pool) = self.pools.get(Family::of(addr)) else {
                continue;
            };
            if pool.candidate(name) == addr {
                continue;
            }
            contested.insert(name.clone());
            let met = pool
                .probe(name)
                .take_while(|&tried| tried != addr)
                .map_while(|tried| self.leases.holder(tried));
            contested.extend(met.cloned());
        }
        contested
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(canonical: &str) -> VipName {
        VipName::from_canonical(canonical).expect("a canonical name")
    }

    fn wanted(names: &[&str]) -> BTreeSet<(Family, VipName)> {
        names.iter().map(|n| (Family::V4, name(n))).collect()
    }

    fn pool(min: &str, max: &str) -> Pools {
        let bound = |text: &str| text.parse().expect("an address");
        Pools {
            v4: Some(AddressPool::new(bound(min), bound(max)).expect("a pool")),
            v6: Some(AddressPool::DEFAULT_V6),
        }
    }

    fn fresh(pools: Pools) -> Allocator {
        Allocator::new(pools, Leases::default())
    }

    fn address(allocator: &Allocator, canonical: &str) -> String {
        match allocator.address(&name(canonical), Family::V4) {
            Some(addr) => addr.to_string(),
            None => "none".to_owned(),
        }
    }

    const NONE: BTreeSet<IpAddr> = BTreeSet::new();

    #[test]
    fn names_allocated_together_collide_in_ascending_order() {
        let mut allocator = fresh(Pools::default());
        allocator.allocate(&wanted(&["svc4703.marathon", "svc1265.marathon"]), &NONE);
        assert_eq!(address(&allocator, "svc1265.marathon"), "11.29.210.66");
        assert_eq!(address(&allocator, "svc4703.marathon"), "11.29.210.67");
    }

    #[test]
    fn the_name_allocated_first_keeps_its_address() {
        let mut allocator = fresh(Pools::default());
        allocator.allocate(&wanted(&["svc4703.marathon"]), &NONE);
        allocator.allocate(&wanted(&["svc1265.marathon"]), &NONE);
        assert_eq!(address(&allocator, "svc4703.marathon"), "11.29.210.66");
        assert_eq!(address(&allocator, "svc1265.marathon"), "11.29.210.67");
    }

    #[test]
    fn both_sides_of_a_collision_are_not_agreed_across_nodes() {
        let mut allocator = fresh(Pools::default());
        allocator.allocate(
            &wanted(&["redis.marathon", "svc1265.marathon", "svc4703.marathon"]),
            &NONE,
        );
        let expected = BTreeSet::from([name("svc1265.marathon"), name("svc4703.marathon")]);
        assert_eq!(*allocator.contested(), expected);
        let restarted = Allocator::new(Pools::default(), allocator.leases().clone());
        assert_eq!(*restarted.contested(), expected);
    }

    #[test]
    fn a_reserved_address_is_skipped() {
        let mut allocator = fresh(Pools::default());
        let reserved = BTreeSet::from(["11.202.66.36".parse().expect("an address")]);
        allocator.allocate(&wanted(&["redis.marathon"]), &reserved);
        assert_eq!(address(&allocator, "redis.marathon"), "11.202.66.37");
    }

    #[test]
    fn an_exhausted_pool_fails_only_the_names_that_came_too_late() {
        let mut allocator = fresh(pool("11.0.0.0", "11.0.0.1"));
        let failed = allocator.allocate(&wanted(&["a.m", "b.m", "c.m"]), &NONE);
        let late: Vec<_> = failed.keys().map(|(_, name)| name.as_str()).collect();
        assert_eq!(late, ["c.m"]);
        assert_ne!(address(&allocator, "a.m"), "none");
        assert_ne!(address(&allocator, "b.m"), "none");
        assert!(allocator.release(&name("a.m")));
        assert_eq!(
            allocator.allocate(&wanted(&["b.m", "c.m"]), &NONE),
            BTreeMap::new()
        );
    }

    #[test]
    fn a_family_without_a_pool_says_so() {
        let mut allocator = fresh(Pools {
            v6: None,
            ..Pools::default()
        });
        let failed = allocator.allocate(&BTreeSet::from([(Family::V6, name("a.m"))]), &NONE);
        let errors: Vec<_> = failed.values().map(AllocError::to_string).collect();
        assert_eq!(
            errors,
            ["there is no IPv6 pool, so names have no IPv6 address"]
        );
    }

    #[test]
    fn changed_bounds_move_only_the_leases_outside() {
        let mut allocator = fresh(pool("11.0.0.0", "11.0.0.254"));
        allocator.allocate(&wanted(&["foo.bar", "baz.qux"]), &NONE);
        let leases = allocator.leases().clone();
        let mut narrower = Allocator::new(pool("11.0.0.38", "11.0.0.254"), leases);
        assert_eq!(address(&narrower, "foo.bar"), "none");
        narrower.allocate(&NONE_WANTED, &NONE);
        assert_eq!(address(&narrower, "baz.qux"), "11.0.0.39");
        let moved = narrower
            .address(&name("foo.bar"), Family::V4)
            .expect("an address");
        let v4 = narrower.pools().v4.expect("a pool");
        assert_eq!(moved, v4.candidate(&name("foo.bar")));
        assert!(narrower.unsaved());
        assert!(
            narrower.contested().contains(&name("baz.qux")),
            "its candidate moved with Q"
        );
    }

    const NONE_WANTED: BTreeSet<(Family, VipName)> = BTreeSet::new();

    #[test]
    fn a_pool_that_is_away_for_a_while_keeps_its_leases() {
        let mut allocator = fresh(Pools::default());
        allocator.allocate(&wanted(&["svc4703.marathon"]), &NONE);
        let without = Pools {
            v4: None,
            ..Pools::default()
        };
        let mut allocator = Allocator::new(without, allocator.leases().clone());
        allocator.allocate(&wanted(&["svc1265.marathon"]), &NONE);
        assert_eq!(address(&allocator, "svc4703.marathon"), "none");
        assert_eq!(allocator.addresses().count(), 0);
        let back = Allocator::new(Pools::default(), allocator.leases().clone());
        assert_eq!(address(&back, "svc4703.marathon"), "11.29.210.66");
    }

    #[test]
    fn only_a_change_asks_to_be_saved() {
        let mut allocator = fresh(Pools::default());
        allocator.allocate(&wanted(&["redis.marathon"]), &NONE);
        assert!(allocator.unsaved());
        allocator.mark_saved();
        allocator.allocate(&wanted(&["redis.marathon"]), &NONE);
        allocator.allocate(&NONE_WANTED, &NONE);
        assert!(!allocator.unsaved());
        assert_eq!(address(&allocator, "redis.marathon"), "11.202.66.36");
    }

    fn batches() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 0..8)
    }

    fn batch(numbers: &[u8]) -> BTreeSet<(Family, VipName)> {
        let names: Vec<String> = numbers.iter().map(|n| format!("svc{n}.m")).collect();
        wanted(&names.iter().map(String::as_str).collect::<Vec<_>>())
    }

    proptest! {
        #[test]
        fn a_lease_never_moves_and_no_two_names_share_one(batches in batches()) {
            let mut allocator = fresh(pool("11.0.0.0", "11.0.0.63"));
            let mut seen: BTreeMap<VipName, IpAddr> = BTreeMap::new();
            for numbers in &batches {
                let wanted = batch(numbers);
                let failed = allocator.allocate(&wanted, &NONE);
                prop_assert!(failed.is_empty() || seen.len() + wanted.len() > 64);
                for (addr, name) in allocator.addresses() {
                    let first = *seen.entry(name.clone()).or_insert(addr);
                    prop_assert_eq!(first, addr);
                }
            }
            let distinct: BTreeSet<_> = seen.values().collect();
            prop_assert_eq!(distinct.len(), seen.len());
        }

        #[test]
        fn a_name_that_is_not_contested_has_one_address_in_any_order(batches in batches()) {
            let mut one = fresh(pool("11.0.0.0", "11.0.3.255"));
            let mut other = one.clone();
            for numbers in &batches {
                one.allocate(&batch(numbers), &NONE);
            }
            for numbers in batches.iter().rev() {
                other.allocate(&batch(numbers), &NONE);
            }
            for (addr, name) in one.addresses() {
                if !one.contested().contains(name) {
                    prop_assert_eq!(other.address(name, Family::V4), Some(addr));
                }
            }
        }
    }
}
