//! Names that stay although nothing is behind them.

use std::{collections::btree_map::Entry, net::IpAddr};

use super::{Declaration, Resolution};
use crate::vip::VipName;

impl Resolution<'_> {
    /// Has a name that nothing is behind stay, at the addresses that it has, if whoever declares it keeps such names.
    pub(super) fn keep_name(
        &mut self,
        name: &VipName,
        at: &[IpAddr],
        declarations: &[Declaration<'_>],
    ) {
        let kept = declarations.iter().any(|one| one.provider.keeps_names());
        if kept && let Entry::Vacant(entry) = self.desired.names.entry(name.clone()) {
            let addresses = entry.insert(Default::default());
            for addr in at {
                addresses.set(*addr);
            }
        }
    }

    /// A provider that was not read yet may still have what it had: the kernel carries it, so DNS answers.
    pub(super) fn keep_names_of_the_waiting(&mut self) {
        let waiting = &self.desired.waiting;
        for (addr, name) in self.allocator.addresses() {
            let lease = self.allocator.leases().get(name);
            let claim = lease.and_then(|lease| lease.claim.as_ref());
            let unread = claim.is_some_and(|claim| {
                let provider = &*claim.owner.provider;
                waiting.iter().any(|waiting| waiting.as_str() == provider)
            });
            if !unread || self.policy.forbidden.contains(&addr) {
                continue;
            }
            match self.desired.names.entry(name.clone()) {
                Entry::Vacant(entry) => entry.insert(Default::default()).set(addr),
                Entry::Occupied(mut entry) => entry.get_mut().set(addr),
            }
        }
    }
}
