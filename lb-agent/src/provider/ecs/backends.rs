//! Where a task's container is reached.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use super::model::{Asked, Binding, Known, Task};
use crate::catalog::{Port, Protocol};

// === impl Task ===

impl Task {
    /// Whether it has an address that is not its host's.
    pub(super) fn has_own_address(&self) -> bool {
        !self.addresses.is_empty()
            || self
                .containers
                .values()
                .any(|container| !container.addresses.is_empty())
    }

    /// Where this port of this container is reached; empty: nowhere yet.
    ///
    /// # Errors
    /// Why its host's address is not known.
    pub(super) fn reached(
        &self,
        known: &Known,
        container: &str,
        port: Port,
        protocol: Protocol,
    ) -> Result<BTreeSet<SocketAddr>, String> {
        let at = |addresses: &BTreeSet<IpAddr>| {
            let addresses = addresses.iter();
            addresses
                .map(|addr| SocketAddr::new(*addr, port.get()))
                .collect()
        };
        let found = self.containers.get(container);
        // awsvpc: all containers share the task's addresses.
        if let Some(found) = found.filter(|found| !found.addresses.is_empty()) {
            return Ok(at(&found.addresses));
        }
        if self.has_own_address() {
            let shared = self.containers.values().map(|other| &other.addresses);
            let shared = shared.chain([&self.addresses]).flatten().copied().collect();
            return Ok(at(&shared));
        }
        let ports = self.host_ports(known, container, port, protocol);
        let Some(instance) = self.instance.as_ref().filter(|_| !ports.is_empty()) else {
            return Ok(BTreeSet::new());
        };
        let host = match known.hosts.get(instance) {
            Some(Asked::Is(host)) => host,
            Some(Asked::Refused(why)) => return Err(why.clone()),
            None => return Err("EC2 has not told the address of its host yet".to_owned()),
        };
        let everywhere = |port: &Port| {
            let port = port.get();
            host.iter().map(move |addr| SocketAddr::new(*addr, port))
        };
        Ok(ports.iter().flat_map(everywhere).collect())
    }

    /// Ports of the host that lead to this port of this container.
    fn host_ports(
        &self,
        known: &Known,
        container: &str,
        port: Port,
        protocol: Protocol,
    ) -> BTreeSet<Port> {
        let bindings = self.containers.get(container).map(|found| &found.bindings);
        let fits = |binding: &&Binding| binding.container == port && binding.protocol == protocol;
        let bound: BTreeSet<Port> = bindings
            .into_iter()
            .flatten()
            .filter(fits)
            .map(|binding| binding.host)
            .collect();
        let definition = known.definitions.get(&self.definition);
        let in_host = definition.is_some_and(|definition| definition.host_network);
        if bound.is_empty() && in_host && self.containers.contains_key(container) {
            return BTreeSet::from([port]);
        }
        bound
    }
}
