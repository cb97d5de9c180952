//! Where a container is reached: on a network of this node, or at the node that it runs on. Pure.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use super::{
    DockerConfig,
    container::{Container, Network, Target},
    engine::Engine,
    swarm::{INGRESS, Reach},
};
use crate::catalog::Port;

/// What is known of the ways to containers.
#[derive(Clone, Copy)]
pub(super) struct Places<'a> {
    pub(super) engine: &'a Engine,
    pub(super) config: &'a DockerConfig,
}

// === impl Places ===

impl Places<'_> {
    /// Where a port of a container is reached: at most one place of each family.
    pub(super) fn of(&self, container: &Container, target: Target) -> Vec<SocketAddr> {
        let Some(home) = self.engine.home_of(container) else {
            return Vec::new();
        };
        let (port, _) = target;
        match (&home.network, self.engine.node()) {
            (Network::Elsewhere(reach), _) => self.of_task(reach, target),
            (Network::Host, _) => at(self.node(), port),
            (Network::Own(networks), None) => at(self.first(networks), port),
            (Network::Own(networks), Some(node)) => match published(home, node, target) {
                none if none.is_empty() && self.config.overlay_reachable => {
                    at(self.first(networks), port)
                }
                published => published,
            },
            (Network::Of(_), _) => Vec::new(),
        }
    }

    /// The node that the engine stands on.
    fn node(&self) -> &[IpAddr] {
        self.engine.node().unwrap_or(&self.config.node)
    }

    fn of_task(&self, reach: &Reach, target: Target) -> Vec<SocketAddr> {
        let node = match reach.here {
            true => self.node(),
            false => reach.node.as_slice(),
        };
        let (port, _) = target;
        match reach.published.get(&target) {
            _ if reach.host => at(node, port),
            Some(published) if !node.is_empty() => at(node, *published),
            _ if self.config.overlay_reachable => at(self.first(&reach.overlays), port),
            _ => Vec::new(),
        }
    }

    /// The addresses on the first network that counts.
    fn first<'n>(&self, networks: &'n BTreeMap<String, Vec<IpAddr>>) -> &'n [IpAddr] {
        let wanted = &self.config.networks;
        let counts = |name: &&String| match wanted.is_empty() {
            true => *name != INGRESS,
            false => wanted.contains(name),
        };
        let mut ranked: Vec<_> = networks
            .keys()
            .filter(counts)
            // The operator's order, else that of the names.
            .map(|name| (wanted.iter().position(|wanted| wanted == name), name))
            .collect();
        ranked.sort();
        let mut found = ranked.into_iter().map(|(_, name)| &networks[name]);
        let first = found.find(|addresses| !addresses.is_empty());
        first.map(Vec::as_slice).unwrap_or_default()
    }
}

/// The ports of its node that lead to a container's, as seen from elsewhere: none on the node's loopback interface.
fn published(container: &Container, node: &[IpAddr], target: Target) -> Vec<SocketAddr> {
    let bound = container.published.get(&target).map(Vec::as_slice);
    let bound = bound.unwrap_or_default();
    let of_family = |v6: bool| {
        let of_node = node.iter().find(|addr| addr.is_ipv6() == v6);
        bound
            .iter()
            .filter(|at| at.is_ipv6() == v6 && !at.ip().is_loopback())
            .find_map(|at| match at.ip().is_unspecified() {
                true => of_node.map(|addr| SocketAddr::new(*addr, at.port())),
                false => Some(*at),
            })
    };
    [false, true].into_iter().filter_map(of_family).collect()
}

fn at(addresses: &[IpAddr], port: Port) -> Vec<SocketAddr> {
    let place = |addr: &IpAddr| SocketAddr::new(*addr, port.get());
    addresses.iter().map(place).collect()
}
