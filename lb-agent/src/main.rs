//! The agent: flags and start-up order.
fn main() {}
