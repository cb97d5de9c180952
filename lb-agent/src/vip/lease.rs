//! Who holds which address, and who claimed a name first.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use super::{Family, VipName};

/// Everything known about names, whether or not anybody is behind them now.
///
/// No two names hold one address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leases {
    by_name: BTreeMap<VipName, Lease>,
    holders: BTreeMap<IpAddr, VipName>,
}

/// What one name holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// Its address in A records.
    pub v4: Option<Ipv4Addr>,
    /// Its address in AAAA records.
    pub v6: Option<Ipv6Addr>,
    /// Who declared it first.
    pub claim: Option<Claim>,
}

/// The first declaration of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Whose it is.
    pub owner: Owner,
    /// The NAME as declared, without leading slashes and in lower case: what mangling may confuse.
    pub declared: Arc<str>,
}

/// A tenant: a provider and the top-level group of an app in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// [`ProviderId`](crate::provider::ProviderId) as shown to people.
    pub provider: Arc<str>,
    /// `dcos-101` of the app `/dcos-101/app2`.
    pub group: Arc<str>,
}

// === impl Leases ===

impl Leases {
    /// What `name` holds.
    pub fn get(&self, name: &VipName) -> Option<&Lease> {
        self.by_name.get(name)
    }

    /// The name that holds `addr`.
    pub fn holder(&self, addr: IpAddr) -> Option<&VipName> {
        self.holders.get(&addr)
    }

    /// Every name, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (&VipName, &Lease)> {
        self.by_name.iter()
    }

    /// Every held address with its name, ascending.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, &VipName)> {
        self.holders.iter().map(|(&addr, name)| (addr, name))
    }

    /// Adds a name. Gives the culprit back if it is known already or another holds one of its addresses.
    pub(super) fn insert(&mut self, name: VipName, lease: Lease) -> Result<(), VipName> {
        let taken = |addr: IpAddr| self.holders.contains_key(&addr);
        if self.by_name.contains_key(&name) || lease.addresses().any(taken) {
            return Err(name);
        }
        for addr in lease.addresses() {
            self.holders.insert(addr, name.clone());
        }
        self.by_name.insert(name, lease);
        Ok(())
    }

    /// Gives `addr` to `name`, which must hold none in that family; nobody may hold `addr`.
    pub(super) fn grant(&mut self, name: &VipName, addr: IpAddr) {
        let lease = self.by_name.entry(name.clone()).or_default();
        match addr {
            IpAddr::V4(addr) => lease.v4 = Some(addr),
            IpAddr::V6(addr) => lease.v6 = Some(addr),
        }
        self.holders.insert(addr, name.clone());
    }

    /// Takes the address of one family from `name`.
    pub(super) fn withdraw(&mut self, name: &VipName, family: Family) {
        let Some(lease) = self.by_name.get_mut(name) else {
            return;
        };
        let addr: Option<IpAddr> = match family {
            Family::V4 => lease.v4.take().map(IpAddr::from),
            Family::V6 => lease.v6.take().map(IpAddr::from),
        };
        if let Some(addr) = addr {
            self.holders.remove(&addr);
        }
    }

    /// Records the first claim of `name`; false if there is one already.
    pub(super) fn claim(&mut self, name: &VipName, claim: Claim) -> bool {
        let lease = self.by_name.entry(name.clone()).or_default();
        if lease.claim.is_some() {
            return false;
        }
        lease.claim = Some(claim);
        true
    }

    /// Forgets `name` altogether; false if it was not known.
    pub(super) fn remove(&mut self, name: &VipName) -> bool {
        let Some(lease) = self.by_name.remove(name) else {
            return false;
        };
        for addr in lease.addresses() {
            self.holders.remove(&addr);
        }
        true
    }
}

// === impl Lease ===

impl Lease {
    /// The address of one family.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4.map(IpAddr::from),
            Family::V6 => self.v6.map(IpAddr::from),
        }
    }

    /// Both addresses, as far as there are any.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let v4 = self.v4.map(IpAddr::from);
        v4.into_iter().chain(self.v6.map(IpAddr::from))
    }
}

// === impl Owner ===

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.group, self.provider)
    }
}
