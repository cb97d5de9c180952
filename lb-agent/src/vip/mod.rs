//! Names and addresses: mangling, deterministic allocation, persistence.

use std::{fmt, sync::Arc};

/// A canonical name without zone: `dcos-101app2.marathon`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VipName(Arc<str>);

impl VipName {
    /// The name without zone or trailing dot, ASCII lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VipName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
