//! Names and addresses: mangling, deterministic allocation, persistence.

mod allocator;
mod lease;
mod lease_file;
mod name;
mod phash2;
mod pool;
mod shared;

pub use allocator::{AllocError, Allocator};
pub use lease::{Claim, Lease, Leases, Owner};
pub use lease_file::{LeaseFile, LeaseFileError};
pub use name::{ANY, NameError, OF_DOMAINS, VipName, ZONE, is_in_domains, label};
pub use pool::{AddressPool, Family, PoolError, Pools};
pub use shared::Shared;
