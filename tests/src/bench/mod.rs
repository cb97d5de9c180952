//! Benchmarks: how figures are taken, compared and shown.

pub mod report;
