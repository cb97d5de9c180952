//! `lb-agent`: a kernel-level L4 load balancer for named VIPs.
//!
//! Data goes one way: provider -> catalog -> (vip, health) -> plan -> datapath; `dns` and `admin`
//! read snapshots and never write.

pub mod admin;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod control;
pub mod datapath;
pub mod dns;
pub mod health;
pub mod log;
pub mod look;
pub mod net;
pub mod plan;
pub mod preflight;
pub mod privileges;
pub mod provider;
pub mod purged;
pub mod vip;
