//! DNS for named VIPs.
