//! The lab, stand-in orchestrators, and what end-to-end tests share.

pub mod lab;
