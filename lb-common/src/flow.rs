//! The flow table: which packets are rewritten to what.
//!
//! Orientation: a key is the tuple of a packet *as it arrives*, before translation. Every flow has two
//! entries, one for each direction; the key of the other half is [`Flow::pair_key`].

use crate::{Addr4, Addr6, Be16};

/// A packet's addresses, ports and protocol before translation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FlowKey<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source port.
    pub sport: Be16,
    /// Destination port.
    pub dport: Be16,
    /// IP protocol number; a whole word, so that the key has no padding and is written in words.
    pub proto: u32,
}

/// What is written into a packet of the flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Flow<A> {
    /// Source address after translation.
    pub new_src: A,
    /// Destination address after translation.
    pub new_dst: A,
    /// Source port after translation.
    pub new_sport: Be16,
    /// Destination port after translation.
    pub new_dport: Be16,
    /// Backend id, an index into the backend array.
    pub backend: u32,
    /// The backend's generation when it was chosen; another one means that the id was given away.
    pub generation: u32,
    /// Interface index on which the client's packets arrive.
    pub client_ifindex: u32,
    /// One of [`direction`].
    pub direction: u8,
    /// One of [`crate::backend_kind`]: how the backend is reached.
    pub kind: u8,
    /// Bits of [`tcp_state`]; zero for other protocols.
    pub tcp: u8,
    /// Always zero.
    pub pad: u8,
    /// Service id.
    pub service: u32,
    /// `CLOCK_MONOTONIC_COARSE` in ns, moved at most once a second.
    pub last_seen: u64,
}

/// Which way a flow entry translates.
pub mod direction {
    /// From client to backend.
    pub const FORWARD: u8 = 0;
    /// From backend to client.
    pub const REVERSE: u8 = 1;
}

/// What has been seen of a TCP connection in one direction.
pub mod tcp_state {
    /// A FIN went this way.
    pub const FIN: u8 = 1;
    /// A RST went this way.
    pub const RST: u8 = 2;
    /// A FIN or RST went the other way.
    pub const PEER_CLOSED: u8 = 4;
}

const _: () = assert!(size_of::<FlowKey<Addr4>>() == 16);
const _: () = assert!(size_of::<FlowKey<Addr6>>() == 40);
const _: () = assert!(size_of::<Flow<Addr4>>() == 8 + 4 + 4 + 4 + 4 + 4 + 4 + 8);
const _: () = assert!(size_of::<Flow<Addr6>>() == 32 + 4 + 4 + 4 + 4 + 4 + 4 + 8);

// === impl Flow ===

impl<A: Copy> Flow<A> {
    /// The key of the entry that translates the other direction.
    #[inline(always)]
    pub fn pair_key(&self, proto: u32) -> FlowKey<A> {
        FlowKey {
            src: self.new_dst,
            dst: self.new_src,
            sport: self.new_dport,
            dport: self.new_sport,
            proto,
        }
    }

    /// Whether this is the other half of the flow whose packets arrive as `key`. The tuple of a DNAT
    /// flow's reverse half may have been given to another flow since.
    #[inline(always)]
    pub fn is_pair_of(&self, key: &FlowKey<A>) -> bool
    where
        A: Eq,
    {
        self.new_src == key.dst
            && self.new_dst == key.src
            && self.new_sport == key.dport
            && self.new_dport == key.sport
    }

    /// The other half of a flow whose packets arrive as `key`.
    #[inline(always)]
    pub fn pair(&self, key: &FlowKey<A>) -> Self {
        Self {
            new_src: key.dst,
            new_dst: key.src,
            new_sport: key.dport,
            new_dport: key.sport,
            direction: self.direction ^ direction::REVERSE,
            ..*self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pair_of_a_pair_is_the_flow_itself() {
        let key = FlowKey {
            src: Addr4(1),
            dst: Addr4(2),
            sport: Be16(3),
            dport: Be16(4),
            proto: 6,
        };
        let flow = Flow {
            new_src: Addr4(5),
            new_dst: Addr4(6),
            new_sport: Be16(7),
            new_dport: Be16(8),
            backend: 9,
            ..Flow::default()
        };
        let pair_key = flow.pair_key(6);
        let pair = flow.pair(&key);
        assert_eq!(pair_key.src, Addr4(6));
        assert_eq!(pair_key.dport, Be16(7));
        assert_eq!(pair.direction, direction::REVERSE);
        assert_eq!(pair.pair_key(6), key);
        assert!(pair.is_pair_of(&key) && flow.is_pair_of(&pair_key));
        assert!(!pair.is_pair_of(&FlowKey {
            dst: Addr4(7),
            ..key
        }));
        assert_eq!(pair.pair(&pair_key), flow);
    }
}
