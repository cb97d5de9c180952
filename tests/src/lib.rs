//! The lab: network namespaces as hosts.
