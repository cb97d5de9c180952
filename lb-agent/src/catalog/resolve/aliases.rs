//! Further names of VIPs that have one.

use super::{ByName, Resolution};
use crate::{
    catalog::{Catalog, policy::owner},
    vip::VipName,
};

impl Resolution<'_> {
    /// Gives the VIPs that are served the further names that providers have for them. A name that somebody declares for
    /// a VIP of its own, or may not have, is none of these.
    pub(super) fn name_again(&mut self, catalog: &Catalog, named: &ByName<'_>) {
        for (provider, reading) in catalog.readings() {
            let aliases = reading.snapshot.iter().flat_map(|read| &read.aliases);
            for alias in aliases {
                let canonical = |name| VipName::mangle(name, &alias.framework).ok();
                // What is wrong with a name was told of its VIP.
                let (Some(name), Some(of)) = (canonical(&alias.name), canonical(&alias.of)) else {
                    continue;
                };
                let lease = self.allocator.leases().get(&name);
                let claim = lease.and_then(|lease| lease.claim.as_ref());
                let owner = owner(provider, &alias.app);
                let refused = self.policy.refuse_name(&alias.app, &alias.name);
                let refused = refused.or_else(|| {
                    let claim = claim?;
                    self.policy.refuse_against(claim, &owner, &alias.name)
                });
                if refused.is_none() && named.contains_key(&of) && !named.contains_key(&name) {
                    self.desired.aliases.entry(name).or_insert(of);
                }
            }
        }
    }
}
