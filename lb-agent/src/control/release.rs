//! Takes the address of a name back, by the operator's wish.

use tokio::sync::oneshot;
use tracing::info;

use super::{Answer, Control, claims::Agreement};
use crate::{
    admin::{
        orders::{Act, Obeyed},
        stats::Event,
    },
    catalog::Desired,
    vip::{Allocator, Lease, VipName, ZONE},
};

// === impl Control ===

impl Control {
    /// Forgets a name that nobody is behind, here and in etcd. What is to be answered when the report is out; nothing
    /// if etcd is still to answer.
    pub(super) async fn release(
        &mut self,
        wish: &str,
        answer: oneshot::Sender<Obeyed>,
    ) -> Option<Answer> {
        let found = releasable(wish, &self.desired, &self.allocator, &self.agreement);
        let asked = found.and_then(|name| {
            let told = self.agreement.release(&name);
            let told = told.map_err(|why| format!("{why}; nothing was changed"))?;
            Ok((name, told))
        });
        let (name, told) = match asked {
            Ok(asked) => asked,
            Err(why) => return Some((answer, Err(why))),
        };
        let lease = self.allocator.leases().get(&name);
        let addrs: Vec<_> = lease.into_iter().flat_map(Lease::addresses).collect();
        let addrs: Vec<_> = addrs.iter().map(ToString::to_string).collect();
        info!(%name, addrs = addrs.join(", "), "the operator releases a name");
        self.published.events.push(Event {
            what: "the operator's order".to_owned(),
            to: Some(Act::Release.to_string()),
            reason: name.to_string(),
            ..Event::default()
        });
        if self.allocator.release(&name) {
            self.reconcile().await;
        }
        let mut lines = vec![format!("{name} is released")];
        lines.extend(addrs.iter().map(|addr| format!("{addr} is free")));
        let Some(told) = told else {
            return Some((answer, Ok(lines)));
        };
        tokio::spawn(async move {
            let obeyed = match told.await {
                Ok(Ok(())) => Ok(lines),
                Ok(Err(why)) => Err(format!(
                    "{name} is released on this node, but not in etcd: {why}; say it again when that is put right"
                )),
                Err(_) => Err("the agent is about to stop".to_owned()),
            };
            // Who ordered may have gone meanwhile.
            let _ = answer.send(obeyed);
        });
        None
    }
}

/// The name that is meant, if nobody is behind it; its zone may be left out.
fn releasable(
    wish: &str,
    desired: &Desired,
    allocator: &Allocator,
    agreement: &Agreement,
) -> Result<VipName, String> {
    let lower = wish.to_ascii_lowercase();
    let bare = lower.trim_end_matches('.').trim_end_matches(ZONE);
    let Some(name) = VipName::from_canonical(bare.trim_end_matches('.')) else {
        return Err(format!(
            "{wish:?} is not the name of a VIP as `lb-agent status` shows it, such as redis.marathon"
        ));
    };
    let mut services = desired.services.values();
    if let Some(service) = services.find(|service| service.name.as_ref() == Some(&name)) {
        let first = service.backends.first();
        let whose = first.map(|one| format!(" by {} of {}", one.app, one.provider));
        return Err(format!(
            "{name} is in use{}; remove it there first",
            whose.unwrap_or_default()
        ));
    }
    if allocator.pending().keys().any(|(waits, _)| *waits == name) {
        return Err(format!("{name} is in use, and waits for an address"));
    }
    if desired.names.contains_key(&name) {
        let why = match desired.waiting.is_empty() {
            true => "is that of a service that is stopped; remove it there first",
            false => {
                "may be in use: not every orchestrator and file was read yet; `lb-agent status` tells which"
            }
        };
        return Err(format!("{name} {why}"));
    }
    if allocator.leases().get(&name).is_none() && !agreement.holds(&name) {
        return Err(format!("no address is kept for {name}"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        sync::Arc,
    };

    use super::*;
    use crate::{
        catalog::{CatalogBackend, NameAddresses, Service, ServiceKey},
        provider::{ProviderId, etcd},
        vip::{Family, Leases, Pools, Shared},
    };

    fn name(text: &str) -> VipName {
        VipName::from_canonical(text).unwrap()
    }

    fn leased(names: &[&str]) -> Allocator {
        let mut allocator = Allocator::new(Pools::default(), Leases::default());
        let wanted: BTreeSet<_> = names.iter().map(|of| (Family::V4, name(of))).collect();
        allocator.allocate(&wanted, &BTreeSet::new());
        allocator
    }

    #[test]
    fn only_a_name_that_nobody_is_behind_is_released() {
        let allocator = leased(&["used.m", "held.m", "free.m"]);
        let service = Service {
            name: Some(name("used.m")),
            properties: Arc::default(),
            backends: vec![CatalogBackend::plain("10.0.0.1:80")],
        };
        let mut desired = Desired {
            services: BTreeMap::from([(ServiceKey::tcp("11.0.0.1:80"), service)]),
            names: BTreeMap::from([(name("held.m"), NameAddresses::default())]),
            waiting: BTreeSet::from([ProviderId::new("test", "a")]),
            ..Desired::default()
        };
        let alone = Agreement::new(None);
        let wish = |wish| releasable(wish, &desired, &allocator, &alone);
        assert_eq!(wish("free.m"), Ok(name("free.m")));
        assert_eq!(wish("Free.M.l4lb.thisdcos.directory."), Ok(name("free.m")));
        for (refused, why) in [
            ("used.m", "is in use by"),
            ("held.m", "may be in use"),
            ("no.m", "no address is kept"),
            ("free", "is not the name of a VIP"),
            ("/free.m", "is not the name of a VIP"),
        ] {
            let said = wish(refused).unwrap_err();
            assert!(said.contains(why), "{refused}: {said}");
        }
        desired.waiting.clear();
        let said = releasable("held.m", &desired, &allocator, &alone).unwrap_err();
        assert!(said.contains("a service that is stopped"), "{said}");
    }

    #[test]
    fn a_name_that_etcd_alone_knows_is_released_there() {
        let (claims, etcd::Ends { view, .. }) = etcd::channels();
        let mut shared = Shared::default();
        shared.add(name("old.m"), "11.0.0.9".parse().unwrap());
        view.send_modify(|view| view.shared = Some(Arc::new(shared)));
        let agreement = Agreement::new(Some(claims));
        let (desired, allocator) = (Desired::default(), leased(&[]));
        let found = releasable("old.m", &desired, &allocator, &agreement);
        assert_eq!(found, Ok(name("old.m")));
        assert!(releasable("new.m", &desired, &allocator, &agreement).is_err());
    }
}
