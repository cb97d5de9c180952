//! A load generator and its server: as little work of their own as a client and a server can do.
//!
//! A question is 8 bytes, the number of bytes wanted (little-endian). The answer begins with the address that
//! the server has the question from (16 bytes, IPv4 as `::ffff:a.b.c.d`), then come the bytes. So a client
//! knows which way it was carried.

pub mod client;
pub mod cpu;
mod poll;
pub mod server;

/// Bytes of a question.
const QUESTION: usize = 8;

/// Bytes before those that were asked for.
const HEADER: usize = 16;

/// Printed to stdout by a server that listens.
pub const READY: &str = "ready";

#[cfg(test)]
mod tests;
