//! Desired state: named services, ports, backends with state and weight.

mod backends;
mod check;
mod desired;
mod drain;
mod policy;
mod properties;
mod readings;
mod resolve;
mod service;

pub(crate) use backends::unfit;
pub use check::{Check, Http, Probe};
pub use desired::{
    CatalogBackend, Desired, NameAddresses, Notice, NoticeKind, Service, ServiceKey,
};
pub use drain::Drain;
pub use policy::{NamePolicy, Policy};
pub use properties::{Balance, DENIED, Idle, Mode, Properties, Source};
pub use readings::{Catalog, Failure, Reading};
pub use service::{Port, Protocol, Weight};

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;
