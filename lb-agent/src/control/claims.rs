//! The agreement with other nodes about the addresses of names, as far as there is one.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::{
    catalog::NameAddresses,
    datapath::SENDERS,
    provider::etcd::{Claims, Nodes, OwnDrain},
    vip::{Allocator, Family, VipName},
};

/// How long a start waits for what others agreed on, before it gives addresses of its own.
const AT_START: Duration = Duration::from_secs(1);

/// How it ended in etcd.
pub(super) type Told = oneshot::Receiver<Result<(), String>>;

/// With the other nodes; without etcd there is none.
pub(super) struct Agreement {
    claims: Option<Claims>,
    /// Addresses of others that lie outside this node's pools.
    outside: usize,
    /// The peers that the operator names beside those that enter themselves; `None`: nobody is one by that.
    named: Option<BTreeSet<IpAddr>>,
}

// === impl Agreement ===

impl Agreement {
    /// By `claims`, which a provider serves.
    pub(super) fn new(claims: Option<Claims>) -> Self {
        Self {
            claims,
            outside: 0,
            named: None,
        }
    }

    /// Also about who is a peer, beside those that are `named`; `None`: not about that.
    pub(super) fn with_peers(mut self, named: Option<BTreeSet<IpAddr>>) -> Self {
        self.named = named;
        self
    }

    /// All peers at the start: until etcd was read, those that are `held` since an earlier life stay.
    pub(super) fn peers_at_start(
        &self,
        named: BTreeSet<IpAddr>,
        held: &BTreeSet<IpAddr>,
    ) -> BTreeSet<IpAddr> {
        if self.named.is_none() {
            return named;
        }
        self.peers().unwrap_or_else(|| &named | held)
    }

    /// All peers, as far as the kernel has room for them; `None`: that is not agreed on, or not known yet.
    pub(super) fn peers(&self) -> Option<BTreeSet<IpAddr>> {
        let (named, claims) = (self.named.as_ref()?, self.claims.as_ref()?);
        let view = claims.view.borrow();
        view.shared.as_ref()?;
        let mut peers = named.clone();
        let room = |is_v6: bool| {
            let named = named.iter().filter(|addr| addr.is_ipv6() == is_v6);
            (SENDERS as usize).saturating_sub(named.count())
        };
        let mut room = [room(false), room(true)];
        for addr in view.members.values().flatten() {
            let room = &mut room[usize::from(addr.is_ipv6())];
            if *room > 0 && peers.insert(*addr) {
                *room -= 1;
            }
        }
        Some(peers)
    }

    /// Waits for the first reading, but not long: a store that is away keeps nobody from serving.
    pub(super) async fn begin(&mut self, allocator: &mut Allocator) {
        self.begin_within(AT_START, allocator).await;
    }

    async fn begin_within(&mut self, patience: Duration, allocator: &mut Allocator) {
        let Some(claims) = &mut self.claims else {
            return;
        };
        allocator.share();
        let first = claims.view.wait_for(|view| view.tried);
        if tokio::time::timeout(patience, first).await.is_err() {
            warn!(
                "etcd does not answer yet; new names get their first address if it is free, the others wait"
            );
        }
        self.take(allocator);
    }

    /// Returns when there is something to [`take`](Self::take).
    pub(super) async fn changed(&mut self) {
        let Some(claims) = &mut self.claims else {
            return pending().await;
        };
        if claims.view.changed().await.is_err() {
            // The provider ended.
            pending().await
        }
    }

    /// Takes what is agreed.
    pub(super) fn take(&mut self, allocator: &mut Allocator) {
        let Some(claims) = &mut self.claims else {
            return;
        };
        let Some(shared) = claims.view.borrow_and_update().shared.clone() else {
            return;
        };
        let pools = *allocator.pools();
        self.outside = shared
            .iter()
            .filter(|(addr, _)| !pools.contains(*addr))
            .count();
        for name in allocator.agree(&shared) {
            let addresses = Family::ALL.map(|family| allocator.address(&name, family));
            let addresses: Vec<_> = addresses
                .into_iter()
                .flatten()
                .map(|addr| addr.to_string())
                .collect();
            info!(%name, now = addresses.join(", "), "another address was agreed on by all nodes");
        }
    }

    /// Asks for the addresses of the names in use, and for those that names wait for, where nobody did yet.
    pub(super) fn claim(&self, names: &BTreeMap<VipName, NameAddresses>, allocator: &Allocator) {
        let Some(claims) = &self.claims else { return };
        let wanted = names.keys().flat_map(|name| {
            let address = |family| Some(((name.clone(), family), allocator.address(name, family)?));
            Family::ALL.into_iter().filter_map(address)
        });
        let pending = allocator.pending().iter();
        let pending = pending.map(|(key, addr)| (key.clone(), *addr));
        let wanted: BTreeMap<_, _> = wanted.chain(pending).collect();
        claims.wanted.send_if_modified(|before| {
            let news = **before != wanted;
            if news {
                *before = Arc::new(wanted);
            }
            news
        });
    }

    /// Nodes that drain, this one included.
    pub(super) fn drained(&self) -> Arc<Nodes> {
        let claims = self.claims.as_ref();
        claims.map_or_else(Arc::default, |claims| {
            Arc::clone(&claims.view.borrow().drained)
        })
    }

    /// Has the others know whether this node drains.
    pub(super) fn tell_drain(&self, own: OwnDrain) {
        let Some(claims) = &self.claims else { return };
        let own = Some(own);
        claims.own_drain.send_if_modified(|before| {
            let news = *before != own;
            *before = own;
            news
        });
    }

    /// Whether the nodes agreed on an address of the name.
    pub(super) fn holds(&self, name: &VipName) -> bool {
        !self.agreed(name).is_empty()
    }

    fn agreed(&self, name: &VipName) -> Vec<IpAddr> {
        let view = self.claims.as_ref().map(|claims| claims.view.borrow());
        let shared = view.as_ref().and_then(|view| view.shared.as_ref());
        let address = |family| shared?.address(name, family);
        Family::ALL.into_iter().filter_map(address).collect()
    }

    /// Has the addresses on which the nodes agreed given back; how that ended is told later. `None`: there are none.
    ///
    /// # Errors
    ///
    /// Too much is under way, or what is agreed is not known.
    pub(super) fn release(&self, name: &VipName) -> Result<Option<Told>, String> {
        let Some(claims) = &self.claims else {
            return Ok(None);
        };
        if claims.view.borrow().shared.is_none() {
            return Err("etcd was not read yet".to_owned());
        }
        let addrs = self.agreed(name);
        if addrs.is_empty() {
            return Ok(None);
        }
        let (answer, answered) = oneshot::channel();
        match claims.releases.try_send((name.clone(), addrs, answer)) {
            Ok(()) => Ok(Some(answered)),
            Err(_) => Err("other names are given back at this moment".to_owned()),
        }
    }

    /// Why nodes may not agree.
    pub(super) fn trouble(&self) -> Vec<String> {
        let claims = self.claims.iter();
        let mut all: Vec<String> = claims
            .flat_map(|claims| {
                let view = claims.view.borrow();
                [
                    view.trouble.clone(),
                    view.untold.clone(),
                    view.unlisted.clone(),
                ]
            })
            .flatten()
            .collect();
        if self.outside > 0 {
            all.push(format!(
                "{} addresses that other nodes agreed on in etcd lie outside this node's pools: --vip-pool-v4 and \
                 --vip-pool-v6 must be the same on every node",
                self.outside
            ));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        provider::etcd,
        vip::{Leases, Pools, Shared},
    };

    fn name(text: &str) -> VipName {
        VipName::from_canonical(text).unwrap()
    }

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn a_start_waits_for_the_first_reading_but_not_long() {
        let (claims, etcd::Ends { view, .. }) = etcd::channels();
        let mut agreement = Agreement::new(Some(claims));
        let mut allocator = Allocator::new(Pools::default(), Leases::default());
        let patience = Duration::from_millis(20);
        let before = tokio::time::Instant::now();
        agreement.begin_within(patience, &mut allocator).await;
        assert!(before.elapsed() >= patience);
        view.send_modify(|view| view.tried = true);
        let long = Duration::from_secs(600);
        let begun = agreement.begin_within(long, &mut allocator);
        let begun = tokio::time::timeout(Duration::from_secs(20), begun).await;
        begun.expect("etcd was asked in vain, so there is no wait");
    }

    #[tokio::test]
    async fn what_is_agreed_is_taken_and_what_is_in_use_is_claimed() {
        let (claims, etcd::Ends { view, wanted, .. }) = etcd::channels();
        let mut agreement = Agreement::new(Some(claims));
        let mut allocator = Allocator::new(Pools::default(), Leases::default());
        let asked: BTreeSet<_> = [(Family::V4, name("redis.marathon"))].into();
        allocator.allocate(&asked, &BTreeSet::new());
        let names = BTreeMap::from([(name("redis.marathon"), NameAddresses::default())]);
        agreement.claim(&names, &allocator);
        let key = (name("redis.marathon"), Family::V4);
        assert_eq!(wanted.borrow().get(&key), Some(&addr("11.202.66.36")));

        let mut shared = Shared::default();
        shared.add(name("redis.marathon"), addr("11.0.0.9"));
        shared.add(name("x.y"), addr("10.0.0.9"));
        view.send_modify(|view| view.shared = Some(Arc::new(shared)));
        agreement.changed().await;
        agreement.take(&mut allocator);
        assert_eq!(allocator.address(&key.0, key.1), Some(addr("11.0.0.9")));
        let trouble = agreement.trouble();
        assert!(trouble[0].starts_with("1 addresses that"), "{trouble:?}");
    }

    #[test]
    fn peers_are_those_that_are_named_and_those_that_have_entered_themselves() {
        let (claims, etcd::Ends { view, .. }) = etcd::channels();
        let of = |addrs: &[&str]| {
            let addrs = addrs.iter().map(|text| addr(text));
            addrs.collect::<BTreeSet<_>>()
        };
        let named = of(&["10.0.0.9"]);
        let agreement = Agreement::new(Some(claims)).with_peers(Some(named.clone()));
        assert_eq!(agreement.peers(), None, "etcd was not read yet");
        let held = of(&["10.0.0.7"]);
        let both = of(&["10.0.0.7", "10.0.0.9"]);
        assert_eq!(agreement.peers_at_start(named.clone(), &held), both);
        view.send_modify(|view| view.shared = Some(Arc::default()));
        assert_eq!(agreement.peers(), Some(named.clone()));
        assert_eq!(agreement.peers_at_start(named.clone(), &held), named);
        let entered = of(&["10.0.0.2", "10.0.0.9", "fd00::2"]);
        let mut members = BTreeMap::from([("10.0.0.2".to_owned(), entered.clone())]);
        view.send_modify(|view| view.members = Arc::new(members.clone()));
        assert_eq!(agreement.peers(), Some(entered));
        let many = (0..2_000_u32).map(|n| IpAddr::from((0x0a01_0000 + n).to_be_bytes()));
        members.insert("many".to_owned(), many.collect());
        view.send_modify(|view| view.members = Arc::new(members));
        let peers = agreement.peers().unwrap();
        assert_eq!(peers.len(), SENDERS as usize + 1);
        assert!(peers.is_superset(&named) && peers.contains(&addr("fd00::2")));

        let (claims, etcd::Ends { view, .. }) = etcd::channels();
        view.send_modify(|view| view.shared = Some(Arc::default()));
        let alone = Agreement::new(Some(claims));
        assert_eq!(alone.peers(), None, "not asked for");
        assert_eq!(alone.peers_at_start(named.clone(), &held), named);
    }

    #[tokio::test]
    async fn a_name_that_must_probe_has_its_address_claimed_before_it_gets_it() {
        let (claims, etcd::Ends { view, wanted, .. }) = etcd::channels();
        let mut agreement = Agreement::new(Some(claims));
        let mut allocator = Allocator::new(Pools::default(), Leases::default());
        view.send_modify(|view| view.tried = true);
        agreement.begin(&mut allocator).await;
        let asked = ["svc1265.marathon", "svc4703.marathon"].map(|of| (Family::V4, name(of)));
        let asked = BTreeSet::from(asked);
        allocator.allocate(&asked, &BTreeSet::new());
        agreement.claim(&BTreeMap::new(), &allocator);
        let key = (name("svc4703.marathon"), Family::V4);
        let second = addr("11.29.210.67");
        assert_eq!(allocator.address(&key.0, key.1), None);
        assert_eq!(wanted.borrow().get(&key), Some(&second));

        let mut shared = Shared::default();
        shared.add(key.0.clone(), second);
        view.send_modify(|view| view.shared = Some(Arc::new(shared)));
        agreement.changed().await;
        agreement.take(&mut allocator);
        allocator.allocate(&asked, &BTreeSet::new());
        assert_eq!(allocator.address(&key.0, key.1), Some(second));
    }
}
