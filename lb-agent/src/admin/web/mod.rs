//! HTTP over TCP, for people and tools that know HAProxy or Marathon-LB: the same pages as on the admin socket, and
//! who may use them.
#![forbid(unsafe_code)]

mod access;
mod client;
mod form;
mod guard;
mod listen;
mod local;
mod pages;
mod patience;
mod readers;
mod refused;
mod statistics;
mod tls;

#[cfg(test)]
pub(super) mod tests;

pub(crate) use self::client::COMMAND;
#[cfg(test)]
pub(super) use self::pages::{Events, History, OPENAPI};
pub use self::{
    access::Access,
    listen::{Listening, WebError, serve},
    tls::Certificate,
};
pub(super) use self::{
    client::{By, Place},
    form::{decoded, which, whole},
    local::serve as serve_local,
    pages::routes,
    readers::Readers,
    refused::note,
};
