//! The settings of health checks.

use super::{Key, TUNING, one};

pub(crate) const CHECKS: Key = one(
    TUNING,
    "checks",
    "N",
    "Health checks of backends that are under way at a time; 0 turns checks off, and what the orchestrators say is all \
     that counts",
)
.preset("64");
