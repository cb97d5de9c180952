//! The lab: network namespaces as hosts.
//!
//! A [`Lab`] is a switch (a bridge in a namespace of its own) and a place for files, cgroups and pins.
//! [`Host`]s are plugged into it; each has addresses, routes, a resolv.conf and a child cgroup, and
//! everything in it ends when it is dropped. Nothing of the machine's own network is touched, and no host
//! has a route out.
//!
//! Threads of a test can enter a host's network ([`Host::enter`]) but not its cgroup: what cgroup hooks are
//! to see must be a process ([`Host::start`]).

pub mod cgroup;
pub mod exec;
mod host;
pub mod http;
mod inner;
pub mod leftovers;
mod netns;
mod process;
pub mod programs;
pub(crate) mod require;
mod run_id;
pub mod servers;
mod site;
mod sys;
mod wait;

pub use self::{
    host::{Host, HostSpec, UPLINK},
    inner::{Bridge, BridgeSpec},
    netns::{Netns, enter_path},
    process::{Finished, Place, Process},
    require::check,
    run_id::{PREFIX, RunId},
    site::Lab,
    wait::{retry, wait_for, wait_until},
};
