//! The lab: network namespaces as hosts.

pub mod packet;
