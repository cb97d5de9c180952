//! Desired state: named services, ports, backends with state and weight.

mod service;

pub use service::{Port, Protocol, Weight};
