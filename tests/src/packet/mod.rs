//! Packets through the kernel programs, one at a time: what goes in, what must come out, and the rig
//! that runs the one to get the other.
//!
//! The bytes on both sides are etherparse's; nothing of ours builds, parses or sums a packet here.
// A test fails by panicking, and so does what only tests call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod balance;
mod contents;
mod flows;
mod frame;
mod maps;
mod net;
mod peers;
mod pool;
mod raw;
pub mod receiving;
mod rig;
pub(crate) mod sys;
mod trace;
mod trouble;
mod way;

pub use contents::Contents;
pub use flows::Entry;
pub use frame::{Frame, Segment, Transport};
pub(crate) use maps::entry_bytes;
pub use maps::{SERVICE, backend, repeated};
pub use net::{FIRST_MAC, GATEWAY_MAC, Net, SECOND_MAC, neighbour_mac};
pub use peers::Shim;
pub(crate) use rig::words;
pub use rig::{
    Hook, Out, Rig, Sizes, TC_OK, TC_REDIRECT, TC_SHOT, XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX,
};
pub use trouble::{Error, Trouble};
pub use way::Way;

/// Makes four tests of each function: IPv4 and IPv6, TCP and UDP.
#[macro_export]
macro_rules! each_way {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            use $crate::packet::Way;
            #[test]
            fn ipv4_tcp() { super::$name(Way::V4_TCP) }
            #[test]
            fn ipv4_udp() { super::$name(Way::V4_UDP) }
            #[test]
            fn ipv6_tcp() { super::$name(Way::V6_TCP) }
            #[test]
            fn ipv6_udp() { super::$name(Way::V6_UDP) }
        }
    )+};
}

/// Makes two tests of each function, over TCP: IPv4 and IPv6.
#[macro_export]
macro_rules! each_tcp_way {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            use $crate::packet::Way;
            #[test]
            fn ipv4() { super::$name(Way::V4_TCP) }
            #[test]
            fn ipv6() { super::$name(Way::V6_TCP) }
        }
    )+};
}

/// Makes two tests of each function, over UDP: IPv4 and IPv6.
#[macro_export]
macro_rules! each_udp_way {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            use $crate::packet::Way;
            #[test]
            fn ipv4() { super::$name(Way::V4_UDP) }
            #[test]
            fn ipv6() { super::$name(Way::V6_UDP) }
        }
    )+};
}
