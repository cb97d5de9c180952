//! Pure: (what the kernel has, what we want) -> ordered list of map operations.
//!
//! [`plan`] compares a [`KernelState`] with a [`Wanted`] and gives a [`Plan`]; [`reconcile`] reads the
//! state from a [`Kernel`], plans and applies. Nothing here does IO.
#![forbid(unsafe_code)]

mod delta;
mod diff;
mod endpoint;
mod guard;
mod hops;
mod ids;
mod known;
pub mod maglev;
mod names;
mod op;
mod pool;
mod reconcile;
mod room;
mod state;
mod table;
#[cfg(test)]
mod tests;

pub use diff::{plan, plan_with};
pub use endpoint::Endpoint;
pub use hops::{HopOp, Mac, Neighbour, NextHops, Port, RouteMtu};
pub use names::{algorithm_name, mode_name};
pub use op::{Op, Plan};
pub use reconcile::{Kernel, Planner, Report, reconcile};
pub use state::{
    BackendState, KernelState, Limits, Listed, Local, Reach, TableId, Wanted, WantedBackend,
    WantedService,
};
pub use table::Table;
