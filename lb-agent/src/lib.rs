//! `lb-agent`: a kernel-level L4 load balancer for named VIPs.
//!
//! Data goes one way: provider -> catalog -> (vip, health) -> plan -> datapath; `dns` and `admin`
//! read snapshots and never write.

pub mod catalog;
pub mod dns;
pub mod net;
pub mod plan;
pub mod provider;
pub mod vip;
