//! HAProxy's stats socket: its commands on a unix socket, for hatop, exporters, checks and scripts made for it.
//!
//! The language is that of HAProxy's management guide, section 9.3, over the same sample and the same orders as the pages.
#![forbid(unsafe_code)]

mod change;
mod commands;
mod servers;
mod session;
mod show;
mod socket;

#[cfg(test)]
mod tests;

pub(super) use self::show::RELEASED;
pub use self::{
    commands::Level,
    session::serve,
    socket::{Place, StatsSocket},
};
