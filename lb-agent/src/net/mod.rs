//! The node's network by netlink: our routes, the link address, and what the node looks like.
//!
//! Decisions (which routes to change, how a backend is reached) are functions of dumped data; the rest is
//! a thin shell around rtnetlink. Whatever is ours can be told by the kernel's own marks, so that nothing
//! must be remembered between two lives of the agent: routes have the protocol [`PROTOCOL`], the link
//! address has the label [`LABEL`].

mod address;
mod listeners;
mod lookup;
mod neighbours;
mod netlink;
mod route;
mod routes;
mod rules;
pub mod sockets;
mod sysctl;
#[cfg(test)]
mod tests;
mod topology;
mod watch;

pub use address::LABEL;
pub use listeners::{Listener, listeners};
pub use neighbours::{NeighbourWatch, News, Station};
pub use netlink::Netlink;
pub use route::{PROTOCOL, Route, Via};
pub use routes::{Changes, Routes};
pub use sysctl::{forwards, local_port_range, reserve_ports, restore_reserved_ports};
pub use topology::{Address, Link, LinkKind, Topology};
pub use watch::{Change, Watch};
