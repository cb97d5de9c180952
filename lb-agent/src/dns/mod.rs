//! DNS for named VIPs.
//!
//! A query is answered from a [`Table`], an immutable snapshot that is swapped whole, or forwarded to the
//! resolvers that the node had before. Both only for clients in the allowed prefixes.

mod activation;
mod config;
mod forward;
mod handler;
mod instances;
mod reply;
mod server;
mod sockets;
mod table;
mod tcp;
mod upstreams;
mod zones;

pub use activation::Inherited;
pub use config::{DnsConfig, LOOPBACK, Stats};
pub use instances::Instance;
pub use server::serve;
pub use sockets::Sockets;
pub use table::{Answer, Found, Lookup, Table, answer, lookup};
pub use zones::{NEGATIVE_TTL, TTL, Zones};

#[cfg(test)]
mod tests;
