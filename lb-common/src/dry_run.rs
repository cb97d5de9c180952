//! Asking the programs which backend a flow would get, without opening it.

use crate::{Addr6, Be16};

/// The question to a dry run, and its answer; the single entry of its map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DryRun {
    /// The client; IPv4 in the first word.
    pub src: Addr6,
    /// The address that it speaks to.
    pub dst: Addr6,
    /// The client's port.
    pub sport: Be16,
    /// The port that it speaks to.
    pub dport: Be16,
    /// IP protocol number.
    pub proto: u8,
    /// 4 or 6.
    pub family: u8,
    /// Answer: one of [`crate::backend_kind`], of the flow.
    pub kind: u8,
    /// Answer: 1 if the client is given the backend that it had last.
    pub again: u8,
    /// Answer: the backend's id; 0: none.
    pub backend: u32,
    /// Answer: its generation.
    pub generation: u32,
    /// Answer: the hash with which the last walk through the service's table began.
    pub hash: u32,
}

const _: () = assert!(size_of::<DryRun>() == 16 + 16 + 2 + 2 + 4 + 4 + 4 + 4);

/// How opening a flow ended. Any other number is that of a [`crate::Reason`].
pub mod opening {
    /// The flow stands in the main table.
    pub const OPENED: u32 = u32::MAX;
    /// The flow stands in the table of half-open connections.
    pub const HALF_OPEN: u32 = u32::MAX - 1;
    /// The packet is none of ours.
    pub const NOT_OURS: u32 = u32::MAX - 2;
}
