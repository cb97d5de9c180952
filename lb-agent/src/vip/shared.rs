//! The addresses on which all nodes agreed.

use std::{collections::BTreeMap, net::IpAddr};

use super::{Family, VipName};

/// Names and addresses, one to one in each family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shared {
    by_name: BTreeMap<(VipName, Family), IpAddr>,
    holders: BTreeMap<IpAddr, VipName>,
}

// === impl Shared ===

impl Shared {
    /// Adds an address; false if the name has another one of this family already, or the address another name.
    pub fn add(&mut self, name: VipName, addr: IpAddr) -> bool {
        let key = (name, Family::of(addr));
        if self.by_name.contains_key(&key) || self.holders.contains_key(&addr) {
            return false;
        }
        self.holders.insert(addr, key.0.clone());
        self.by_name.insert(key, addr);
        true
    }

    /// The address of a name.
    pub fn address(&self, name: &VipName, family: Family) -> Option<IpAddr> {
        self.by_name.get(&(name.clone(), family)).copied()
    }

    /// The name that has an address.
    pub fn holder(&self, addr: IpAddr) -> Option<&VipName> {
        self.holders.get(&addr)
    }

    /// Every address with its name, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, &VipName)> {
        self.holders.iter().map(|(addr, name)| (*addr, name))
    }
}
