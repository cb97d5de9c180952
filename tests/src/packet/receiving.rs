//! A node that a peer sends to.

use std::net::{IpAddr, SocketAddr};

use lb_common::{SLOTS_SMALL, backend_kind};

use super::*;

/// The index of the peer that sends.
pub const SENDER: u32 = 5;

/// The node that sends, on the first network.
pub fn sender(way: Way) -> IpAddr {
    way.backend(9).ip()
}

/// A service with backend 1 on this node, and backend 2 for the node's own choice, elsewhere; a peer may name the first.
pub fn receiving(way: Way, kind: u8) -> Rig {
    let mut rig = Rig::serving(way, kind);
    let at = local(way, kind);
    rig.backend(2, backend(way, way.far_backend(1), backend_kind::NET));
    rig.table(SERVICE, &repeated(&[2], SLOTS_SMALL));
    rig.sender(sender(way), SENDER);
    rig.local(SERVICE, at, 1);
    rig
}

/// Backend 1's address.
pub fn local(way: Way, kind: u8) -> SocketAddr {
    if kind == backend_kind::HOST {
        way.host()
    } else {
        way.backend(1)
    }
}

/// What stands before a packet of that peer for backend 1 as a socket of this node.
pub fn shim(way: Way) -> Shim {
    Shim::new(sender(way), way.node(), way.host())
}
