//! What the kernel's numbers for the properties of a service are called: as in a services file.

use lb_common::{algorithm, service_mode};

/// Of one of [`algorithm`].
pub fn algorithm_name(number: u8) -> &'static str {
    match number {
        algorithm::LEAST_CONN => "least-conn",
        algorithm::ROUND_ROBIN => "round-robin",
        algorithm::SOURCE => "source",
        _ => "maglev",
    }
}

/// Of one of [`service_mode`].
pub fn mode_name(number: u8) -> &'static str {
    match number {
        service_mode::DSR_IPIP => "dsr-ipip",
        service_mode::DSR_L2 => "dsr-l2",
        service_mode::DSR_GENEVE => "dsr-geneve",
        _ => "nat",
    }
}
