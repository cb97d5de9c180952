//! Benchmarks: how figures are taken, compared and shown.

pub mod control;
pub mod lab;
pub mod load;
pub mod report;
pub mod stats;
