//! Services of an earlier life: what the kernel carries stays until it is known whose it is.

use std::collections::BTreeSet;

use tracing::info;

use super::{
    Control,
    external::Ground,
    wanted::{endpoint, node_addresses},
};
use crate::{catalog::Desired, net::listeners, plan::Endpoint, vip::VipName};

// === impl Control ===

impl Control {
    /// The services of an earlier life that may be of a provider which was not read yet: they stay.
    pub(super) fn held(&self, desired: &Desired) -> BTreeSet<Endpoint> {
        if desired.waiting.is_empty() {
            return BTreeSet::new();
        }
        let readings = self.catalog.readings();
        let read = readings
            .map(|(id, _)| id)
            .filter(|id| !desired.waiting.contains(id));
        self.owners.unsettled(&read.cloned().collect())
    }

    /// Says which services stand at ports of the node's own addresses.
    pub(super) fn grant_ports(
        &mut self,
        held: &BTreeSet<Endpoint>,
        before: &Desired,
        desired: &mut Desired,
    ) {
        let mut standing: BTreeSet<Endpoint> = before.external.keys().map(endpoint).collect();
        standing.extend(&self.adopted);
        let ground = Ground {
            addresses: &node_addresses(desired, &self.topology),
            ports: self.node.node_ports,
            standing: &standing,
            unsettled: held,
            listeners: &listeners,
        };
        self.holders.grant(desired, &ground);
    }

    /// What the kernel goes on carrying can also be found by name.
    pub(super) fn keep_names(&self, held: &BTreeSet<Endpoint>, desired: &mut Desired) {
        for Endpoint { addr, .. } in held {
            if self.policy.forbidden.contains(addr) {
                continue;
            }
            if let Some(name) = self.allocator.holder(*addr) {
                desired.names.entry(name.clone()).or_default().set(*addr);
            }
        }
    }

    /// An adopted service is declared again, or goes.
    pub(super) fn forget_adopted(&mut self, held: &BTreeSet<Endpoint>, desired: &Desired) {
        let declared = desired.services.keys().chain(desired.external.keys());
        let declared: BTreeSet<Endpoint> = declared.map(endpoint).collect();
        let mut gone = std::mem::take(&mut self.adopted);
        gone.retain(|service| !declared.contains(service));
        (self.adopted, gone) = gone.into_iter().partition(|service| held.contains(service));
        for service in gone {
            let name = self.allocator.holder(service.addr).map(VipName::fqdn);
            info!(%service, name = name.unwrap_or_default(), "service removed");
        }
    }
}
