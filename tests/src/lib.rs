//! The lab, stand-in orchestrators, and what end-to-end tests share.

pub mod admin;
pub mod answers;
pub mod apps;
pub mod asking;
pub mod bench;
pub mod browser;
pub mod described;
pub mod docker;
pub mod ecs;
pub mod emulated;
pub mod etcd;
pub mod fixed;
pub mod lab;
pub mod marathon;
pub mod packet;
pub mod probe;
pub mod stage;
pub mod steady;
pub mod surfaces;
pub mod task;
pub mod topology;
pub mod upstream;
pub mod yard;
