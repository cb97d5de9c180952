//! Gives every name its address: the same one for ever, and the one that DC/OS would give where it is free.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{AddressPool, Claim, Family, Lease, Leases, Pools, Shared, VipName};

/// Leases within pools.
///
/// Every node allocates for itself. That agrees across nodes for a name that has its first candidate to itself;
/// [`Self::contested`] tells the others. Where the nodes share a store, what stands there goes before: see
/// [`Self::agree`]; a new name that must probe then waits in [`Self::pending`] until its address is claimed there.
#[derive(Clone, Debug)]
pub struct Allocator {
    pools: Pools,
    leases: Leases,
    /// On which all nodes agreed.
    shared: Arc<Shared>,
    /// Whether there is a store at all.
    has_store: bool,
    /// Names without an address, and the one to be claimed for each.
    pending: BTreeMap<(VipName, Family), IpAddr>,
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
    /// Nodes that probe by themselves may come to different addresses.
    #[error(
        "its first address is not free, so {addr} is given to it once all nodes agreed on that in etcd"
    )]
    Pending {
        /// What is to be claimed for it.
        addr: IpAddr,
    },
}

// === impl Allocator ===

impl Allocator {
    /// Continues from `leases`. Those outside `pools` get another address at the next [`Self::allocate`].
    pub fn new(pools: Pools, leases: Leases) -> Self {
        let mut allocator = Self {
            pools,
            leases,
            shared: Arc::default(),
            has_store: false,
            pending: BTreeMap::new(),
            contested: BTreeSet::new(),
            unsaved: false,
        };
        allocator.contested = allocator.find_contested();
        allocator
    }

    /// From now on a name that must probe gets an address by [`Self::agree`] alone.
    pub fn share(&mut self) {
        self.has_store = true;
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

    /// Names in use that have no address until all nodes agree on the one that is given here, as of the last
    /// [`Self::allocate`].
    pub fn pending(&self) -> &BTreeMap<(VipName, Family), IpAddr> {
        &self.pending
    }

    /// Whether [`Self::leases`] changed since the last [`Self::mark_saved`].
    pub fn unsaved(&self) -> bool {
        self.unsaved
    }

    /// Takes what all nodes agreed on, which wins over own leases: a name that has another address there moves to it, and
    /// one whose address is another's there loses it. Gives the names that had another address until now.
    ///
    /// What lies outside the pools is not taken.
    pub fn agree(&mut self, shared: &Arc<Shared>) -> BTreeSet<VipName> {
        if self.shared == *shared {
            return BTreeSet::new();
        }
        self.shared = Arc::clone(shared);
        let disagree = |(addr, name): &(IpAddr, &VipName)| match shared.holder(*addr) {
            Some(holder) => holder != *name,
            None => self.agreed(name, Family::of(*addr)).is_some(),
        };
        let wrong: Vec<_> = self.leases.addresses().filter(disagree).collect();
        let wrong: Vec<_> = wrong
            .into_iter()
            .map(|(addr, name)| (name.clone(), Family::of(addr)))
            .collect();
        for (name, family) in &wrong {
            self.leases.withdraw(name, *family);
        }
        // Now nobody is in the way.
        for (name, family) in &wrong {
            if let Some(addr) = self.agreed(name, *family) {
                self.leases.grant(name, addr);
            }
        }
        self.unsaved |= !wrong.is_empty();
        self.contested = self.find_contested();
        wrong.into_iter().map(|(name, _)| name).collect()
    }

    /// The address on which all nodes agreed, if it is inside the pool.
    fn agreed(&self, name: &VipName, family: Family) -> Option<IpAddr> {
        let addr = self.shared.address(name, family)?;
        self.pools.contains(addr).then_some(addr)
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
        let waited = std::mem::take(&mut self.pending);
        let mut blocked = Vec::new();
        for (family, name) in missing {
            match self.find_free(&name, family, reserved) {
                Ok(addr) => {
                    self.leases.grant(&name, addr);
                    granted = true;
                }
                Err(AllocError::Pending { .. }) => blocked.push((family, name)),
                Err(error) => {
                    failed.insert((family, name), error);
                }
            }
        }
        // Whoever has its first address to itself goes before whoever looks for another.
        for (family, name) in blocked {
            let Err(error) = self.find_free(&name, family, reserved) else {
                continue;
            };
            let key = (family, name);
            if let AllocError::Pending { addr } = error
                && wanted.contains(&key)
            {
                self.pending.insert((key.1.clone(), family), addr);
            }
            failed.insert(key, error);
        }
        self.unsaved |= granted;
        if granted || self.pending != waited {
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
        let free = |addr: &IpAddr| {
            self.leases.holder(*addr).is_none()
                && !reserved.contains(addr)
                && !self.pending.values().any(|pending| pending == addr)
        };
        if let Some(agreed) = self.agreed(name, family).filter(free) {
            return Ok(agreed);
        }
        let others = |addr: &IpAddr| self.shared.holder(*addr).is_some_and(|of| of != name);
        let found = pool.probe(name).find(|addr| free(addr) && !others(addr));
        match found {
            None => Err(AllocError::Exhausted { family, pool }),
            Some(addr) if self.has_store && addr != pool.candidate(name) => {
                Err(AllocError::Pending { addr })
            }
            Some(addr) => Ok(addr),
        }
    }

    /// A name off its candidate is contested, and so is every name whose address its probe met, be it for an address
    /// that is pending: where they came in another order, each would have another address.
    fn find_contested(&self) -> BTreeSet<VipName> {
        let mut contested = BTreeSet::new();
        let pending = self.pending.iter();
        let pending = pending.map(|((name, _), addr)| (*addr, name));
        for (addr, name) in self.leases.addresses().chain(pending) {
            let Some(pool) = self.pools.get(Family::of(addr)) else {
                continue;
            };
            if pool.candidate(name) == addr {
                continue;
            }
            if self.leases.holder(addr).is_some() {
                contested.insert(name.clone());
            }
            let met = pool
                .probe(name)
                .take_while(|&tried| tried != addr)
                .map_while(|tried| self.leases.holder(tried));
            contested.extend(met.cloned());
        }
        contested.retain(|name| !self.is_agreed(name));
        contested
    }

    /// Whether all nodes agreed on every address that the name has.
    fn is_agreed(&self, name: &VipName) -> bool {
        let lease = self.leases.get(name);
        let mut addresses = lease.into_iter().flat_map(Lease::addresses);
        addresses.all(|addr| self.shared.holder(addr) == Some(name))
    }
}

#[cfg(test)]
mod tests;
