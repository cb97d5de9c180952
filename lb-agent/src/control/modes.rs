//! Which services ask for a way to their backends that one of these cannot have: they are left out, and `status`
//! and the log say why.
//!
//! What a mode asks of every backend of its service:
//!
//! | mode | the VIP's port | on a connected network | an address of this node for the outer header |
//! |---|---|---|---|
//! | `auto`, `nat` | any | no | no |
//! | `dsr-ipip` | the same | no | yes |
//! | `dsr-l2` | the same | yes | no |
//! | `dsr-geneve` | any | no | yes |
//!
//! Under `dsr-geneve` each backend is on this node or at the address of a peer, whose agent translates. Under the other
//! kinds of direct server return the backend gets the client's packet as it is, for the VIP and its port: nothing could
//! translate the port, nor the reply, which does not come by. A backend on this node is reached by DNAT in every
//! mode, which could; but it is another node's backend elsewhere, and a service that works on some nodes only is none.
//! That a backend carries the VIP, and takes packets out of IPIP, cannot be seen from here. VIP and backends are of
//! one family: the catalog makes a service of each.

use std::net::{IpAddr, SocketAddr};

use super::{
    standing::title,
    wanted::{Node, snat},
};
use crate::{
    admin::orders::{Act, Named, Order},
    catalog::{Desired, Mode, Notice, NoticeKind, Service, ServiceKey},
    net::Topology,
    plan::Reach,
};

/// Takes out the services whose mode one of their backends cannot have, with a notice for each. What the operator added
/// is taken out alone.
pub(super) fn refuse_impossible(desired: &mut Desired, topology: &Topology, node: &Node) {
    let Desired {
        services, problems, ..
    } = desired;
    let known = problems.len();
    for (key, service) in services.iter_mut() {
        let mode = service.properties.mode;
        service.backends.retain(|backend| {
            !backend.provider.is_operator()
                || obstacle(mode, key, backend.addr, topology, node).is_none()
        });
    }
    services.retain(
        |key, service| match objection(key, service, topology, node) {
            None => true,
            Some(notice) => {
                problems.push(notice);
                false
            }
        },
    );
    if problems.len() > known {
        problems.sort();
        problems.dedup();
    }
}

fn objection(
    key: &ServiceKey,
    service: &Service,
    topology: &Topology,
    node: &Node,
) -> Option<Notice> {
    let mode = service.properties.mode;
    service.backends.iter().find_map(|backend| {
        let why = obstacle(mode, key, backend.addr, topology, node)?;
        let name = service.fqdn().unwrap_or_else(|| key.addr.to_string());
        Some(Notice {
            kind: NoticeKind::Refused,
            provider: backend.provider.clone(),
            subject: backend.app.clone(),
            reason: format!(
                "VIP {name}:{}/{} cannot have mode {mode}: {why}; service left out",
                key.port, key.protocol
            ),
        })
    })
}

/// Why an order cannot bring a server there: it would take the service out.
pub(super) fn forbids(
    order: &Order,
    desired: &Desired,
    topology: &Topology,
    node: &Node,
) -> Option<String> {
    let at = match (&order.act, &order.which.backend) {
        (Act::Move { to, .. }, _) => *to,
        (Act::Add(_), Some(Named::At(at))) => *at,
        _ => return None,
    };
    let of = order.which.service.as_deref()?;
    let mut services = desired.services.iter();
    services.find_map(|(key, service)| {
        let is_meant = key.addr.is_ipv4() == at.is_ipv4() && title(key, service) == of;
        let mode = service.properties.mode;
        let why = is_meant.then(|| obstacle(mode, key, at, topology, node))??;
        Some(format!("{of} has mode {mode}: {why}"))
    })
}

/// Why a backend cannot be reached in this mode.
fn obstacle(
    mode: Mode,
    key: &ServiceKey,
    backend: SocketAddr,
    topology: &Topology,
    node: &Node,
) -> Option<String> {
    if !mode.is_dsr() {
        return None;
    }
    if mode != Mode::DsrGeneve && backend.port() != key.port.get() {
        return Some(format!(
            "backend {backend} is at another port, and packets reach it with the VIP's"
        ));
    }
    if !matches!(
        topology.reach(backend.ip(), &node.ifaces),
        Reach::Net { .. }
    ) {
        return None;
    }
    match mode {
        Mode::DsrL2 if !topology.is_neighbour(backend.ip()) => Some(format!(
            "backend {backend} is on no network that this node is connected to"
        )),
        Mode::DsrGeneve if !node.peers.contains(&backend.ip().to_canonical()) => Some(format!(
            "backend {backend} is neither on this node nor at the address of a peer (--peers)"
        )),
        Mode::DsrIpip | Mode::DsrGeneve if !has_outer_address(backend.ip(), topology, node) => {
            let family = if backend.is_ipv4() { "IPv4" } else { "IPv6" };
            Some(format!(
                "this node has no {family} address on {} to send from",
                node.ifaces.join(", ")
            ))
        }
        _ => None,
    }
}

/// Without interfaces there are no packets from outside, and nothing is missing.
fn has_outer_address(backend: IpAddr, topology: &Topology, node: &Node) -> bool {
    let (v4, v6) = snat(topology, node);
    let has = if backend.is_ipv4() {
        v4.is_some()
    } else {
        v6.is_some()
    };
    has || node.ifaces.is_empty()
}

#[cfg(test)]
mod tests;
