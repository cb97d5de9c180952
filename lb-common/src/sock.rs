//! The socket path's memory: which VIP a socket's peer stands for.

use crate::{Addr6, Be16};

/// A socket and the peer it really talks to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SockKey {
    /// The kernel's socket cookie.
    pub cookie: u64,
    /// The backend's address, or the VIP's in the forward table; IPv4 in the first word.
    pub addr: Addr6,
    /// The backend's port.
    pub port: Be16,
    /// 4 or 6: the family of `addr`.
    pub family: u8,
    /// IP protocol number.
    pub proto: u8,
    /// Always zero.
    pub pad: u32,
}

/// What the socket believes it talks to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SockPeer {
    /// The VIP; IPv4 in the first word.
    pub vip: Addr6,
    /// The VIP's port.
    pub port: Be16,
    /// Bits of [`peer_flag`].
    pub flags: u16,
    /// Backend id.
    pub backend: u32,
    /// The backend's generation when it was chosen.
    pub generation: u32,
    /// Service id.
    pub service: u32,
    /// When its SYN was sent, as [`crate::Flow::opened`].
    pub opened: u32,
}

/// The backend of a UDP socket's datagrams to a VIP. What a socket has chosen is a list, so that the end of the socket
/// is the end of all of it: the first entry stands under the cookie alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SockChoice {
    /// The VIP that the socket chose a backend for before this one; IPv4 in the first word.
    pub older: Addr6,
    /// Its port.
    pub older_port: Be16,
    /// Its family, 4 or 6; 0: there was none before.
    pub older_family: u8,
    /// Always zero.
    pub pad: u8,
    /// Backend id.
    pub backend: u32,
    /// The backend's generation when it was chosen.
    pub generation: u32,
    /// Service id.
    pub service: u32,
    /// When it was chosen, as [`crate::Flow::opened`].
    pub opened: u32,
}

/// What is known of a TCP socket.
pub mod peer_flag {
    /// Its SYN was sent: it counts among the backend's flows until its state is CLOSE.
    pub const OPEN: u16 = 1;
    /// The process has let go of it: a reset comes from this side.
    pub const RELEASED: u16 = 2;
}

const _: () = assert!(size_of::<SockKey>() == 8 + 16 + 2 + 1 + 1 + 4);
const _: () = assert!(size_of::<SockPeer>() == 16 + 2 + 2 + 4 + 4 + 4 + 4);
const _: () = assert!(size_of::<SockChoice>() == 16 + 2 + 1 + 1 + 4 + 4 + 4 + 4);

// === impl SockKey ===

impl SockKey {
    /// Where the list of what a UDP socket has chosen begins.
    #[inline(always)]
    pub const fn head(cookie: u64, proto: u8) -> Self {
        Self {
            cookie,
            addr: Addr6([0; 4]),
            port: Be16(0),
            family: 0,
            proto,
            pad: 0,
        }
    }

    /// Whether a list begins here; else it is a choice.
    #[inline(always)]
    pub const fn is_head(&self) -> bool {
        self.family == 0
    }

    /// The choice that the socket made before this one.
    #[inline(always)]
    pub const fn older(&self, choice: &SockChoice) -> Option<Self> {
        if choice.older_family == 0 {
            return None;
        }
        Some(Self {
            cookie: self.cookie,
            addr: choice.older,
            port: choice.older_port,
            family: choice.older_family,
            proto: self.proto,
            pad: 0,
        })
    }
}
