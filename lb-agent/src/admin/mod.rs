//! The agent's admin socket: status, DNS answers, single flows and DC/OS's list of VIPs, as JSON over HTTP/1 on a
//! unix socket.
//!
//! It reads from a snapshot that the control loop replaces, so that no reader ever holds the loop up, and from
//! the kernel's maps. What the operator orders about backends it hands to the loop.
//! Who may connect is decided by the socket's mode, 0600.

mod accept;
mod flows;
pub mod haproxy;
pub mod orders;
mod page;
pub mod report;
mod server;
mod socket;
pub mod stats;
mod syslog;
mod trace;
mod vips;
pub mod web;
mod work;

#[cfg(test)]
pub(crate) mod tests;

pub use self::{
    report::StatusReport,
    server::{Admin, Alive, Count, Look, Resolve, Sources, serve},
    socket::{AdminSocket, ClaimError, RunDir, SOCKET_NAME},
    syslog::Syslog,
    vips::ZONE,
    work::Work,
};
