//! The flow table: which packets are rewritten to what.
//!
//! Orientation: a key is the tuple of a packet *as it arrives*, before translation. Every flow has two
//! entries, one for each direction; the key of the other half is [`Flow::pair_key`].

use crate::{Addr4, Addr6, Address, Be16, backend_kind, checksum::Delta, headers::TCP};

/// A packet's addresses, ports and protocol before translation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
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

/// The generation of backends that never were: a flow with it ends at its client's next packet.
pub const NOBODY: u32 = 0;

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
    /// What the addresses change in a checksum, folded ([`crate::checksum`]).
    pub addr_delta: u16,
    /// What the ports change in a checksum, folded.
    pub port_delta: u16,
    /// Backend id, an index into the backend array.
    pub backend: u32,
    /// The backend's generation when it was chosen; another one means that the id was given away.
    pub generation: u32,
    /// Interface index towards the client: that on which its packets arrive, until tc or XDP asked the routes.
    pub client_ifindex: u32,
    /// How long the flow may be silent before it counts as over, s.
    pub idle: u32,
    /// [`direction::REVERSE`]: index of the client's next hop, 0 while it is not known. [`direction::FORWARD`]
    /// with [`flow_flag::PEER`]: index of the peer whose address was found to be allowed; 0: none.
    pub next_hop: u16,
    /// [`crate::NodeConfig::route_epoch`] when the way to the client was found, by XDP or by tc.
    pub route_epoch: u16,
    /// One of [`direction`].
    pub direction: u8,
    /// One of [`crate::backend_kind`]: how the backend is reached.
    pub kind: u8,
    /// Bits of [`tcp_state`]; zero for other protocols.
    pub tcp: u8,
    /// Bits of [`flow_flag`].
    pub flags: u8,
    /// Service id.
    pub service: u32,
    /// When it was opened, ms of `CLOCK_MONOTONIC_COARSE`: the lower 32 bits, which come round after 49 days.
    pub opened: u32,
    /// `CLOCK_MONOTONIC_COARSE` in ns, moved seldom ([`touch_interval`]).
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
    /// The connection was reset, by whichever side.
    pub const RST: u8 = 2;
    /// A FIN or RST went the other way.
    pub const PEER_CLOSED: u8 = 4;
}

/// A connection that was reset is forgotten after this long, s: stray segments still find it.
const IDLE_RESET: u32 = 10;
/// A connection that both sides closed, s: twice the maximum segment lifetime that Linux assumes
/// (`TCP_TIMEWAIT_LEN`).
const IDLE_CLOSED: u32 = 60;
/// A connection that the client never confirmed, s: the SYNs of `tcp_syn_retries` come within 127 s of
/// each other.
const IDLE_HALF_OPEN: u32 = 130;

/// What else is known of a flow.
pub mod flow_flag {
    /// Packets went both ways, so that the longer time-out of UDP holds.
    pub const TWO_WAY: u8 = 1;
    /// The client's packets come from a peer, which chose the backend.
    pub const PEER: u8 = 2;
    /// Opened by a segment amid a connection: its handshake was with whoever served it before.
    pub const MIDSTREAM: u8 = 4;
}

/// How far the time stamp of a flow may lag, ns: a write per packet would bounce cache lines, and with
/// each write the other half is looked up. Idle times are longer.
#[inline(always)]
pub const fn touch_interval(proto: u32) -> u64 {
    match proto as u8 {
        TCP => 8_000_000_000,
        _ => 1_000_000_000,
    }
}

const _: () = assert!(size_of::<FlowKey<Addr4>>() == 16);
const _: () = assert!(size_of::<FlowKey<Addr6>>() == 40);
const _: () = assert!(size_of::<Flow<Addr4>>() == 8 + 4 + 4 + 8 * 4 + 8);
const _: () = assert!(size_of::<Flow<Addr6>>() == 32 + 4 + 4 + 8 * 4 + 8);

// === impl FlowKey ===

impl FlowKey<Addr4> {
    /// The key as it stands in memory, in whole 64-bit words: the lookup reads words, and a load of what
    /// was stored in parts waits for the stores.
    #[inline(always)]
    pub const fn words(&self) -> [u64; 2] {
        [
            self.src.0 as u64 | (self.dst.0 as u64) << 32,
            self.ports_and_proto(),
        ]
    }
}

impl FlowKey<Addr6> {
    /// As for IPv4.
    #[inline(always)]
    pub const fn words(&self) -> [u64; 5] {
        let ([a, b, c, d], [e, f, g, h]) = (self.src.0, self.dst.0);
        [
            a as u64 | (b as u64) << 32,
            c as u64 | (d as u64) << 32,
            e as u64 | (f as u64) << 32,
            g as u64 | (h as u64) << 32,
            self.ports_and_proto(),
        ]
    }
}

impl<A: Copy> FlowKey<A> {
    /// The key of a packet that answers this one as it is.
    #[inline(always)]
    #[must_use]
    pub fn turned(&self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
            proto: self.proto,
        }
    }
}

impl<A> FlowKey<A> {
    #[inline(always)]
    const fn ports_and_proto(&self) -> u64 {
        self.sport.0 as u64 | (self.dport.0 as u64) << 16 | (self.proto as u64) << 32
    }
}

// === impl Flow ===

impl<A: Address> Flow<A> {
    /// Sets the checksum differences for packets that arrive as `key`.
    #[inline(always)]
    pub fn set_deltas(&mut self, key: &FlowKey<A>) {
        let addresses = Delta::ZERO
            .address(&key.src, &self.new_src)
            .address(&key.dst, &self.new_dst);
        let ports = Delta::ZERO
            .word(key.sport.0, self.new_sport.0)
            .word(key.dport.0, self.new_dport.0);
        self.addr_delta = addresses.folded();
        self.port_delta = ports.folded();
    }
}

impl<A> Flow<A> {
    /// Whether the flow has been silent for so long that it is to be removed; `now`: as its time stamp,
    /// ns. `half_open`: it stands in the table of half-open connections.
    pub fn is_expired(&self, half_open: bool, now: u64) -> bool {
        // Under direct server return only the client's FIN comes by.
        let both = if backend_kind::is_dsr(self.kind) {
            tcp_state::FIN
        } else {
            tcp_state::FIN | tcp_state::PEER_CLOSED
        };
        let idle = if self.tcp & tcp_state::RST != 0 {
            IDLE_RESET
        } else if self.tcp & both == both {
            IDLE_CLOSED
        } else if half_open {
            IDLE_HALF_OPEN
        } else {
            self.idle
        };
        now.saturating_sub(self.last_seen) > u64::from(idle) * 1_000_000_000
    }
}

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

    /// The other half of a flow whose packets arrive as `key`. One's complement sums are turned round by
    /// complementing them.
    #[inline(always)]
    pub fn pair(&self, key: &FlowKey<A>) -> Self {
        Self {
            new_src: key.dst,
            new_dst: key.src,
            new_sport: key.dport,
            new_dport: key.sport,
            addr_delta: !self.addr_delta,
            port_delta: !self.port_delta,
            direction: self.direction ^ direction::REVERSE,
            next_hop: 0,
            ..*self
        }
    }

    /// Makes the flow its [`Flow::pair`] where it stands: a kernel program's stack has no room for another.
    #[inline(always)]
    pub fn turn(&mut self, key: &FlowKey<A>) {
        self.new_src = key.dst;
        self.new_dst = key.src;
        self.new_sport = key.dport;
        self.new_dport = key.sport;
        self.addr_delta = !self.addr_delta;
        self.port_delta = !self.port_delta;
        self.direction ^= direction::REVERSE;
        self.next_hop = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_key_are_its_memory() {
        let bytes = |words: &[u64]| -> Vec<u8> {
            words.iter().flat_map(|word| word.to_ne_bytes()).collect()
        };
        let key = FlowKey {
            src: Addr4(0x0102_0304),
            dst: Addr4(0x0506_0708),
            sport: Be16(0x090a),
            dport: Be16(0x0b0c),
            proto: 6,
        };
        let fields: Vec<u8> = [key.src.0.to_ne_bytes(), key.dst.0.to_ne_bytes()]
            .concat()
            .into_iter()
            .chain(key.sport.0.to_ne_bytes())
            .chain(key.dport.0.to_ne_bytes())
            .chain(key.proto.to_ne_bytes())
            .collect();
        assert_eq!(bytes(&key.words()), fields);
        let key = FlowKey {
            src: Addr6([1, 2, 3, 4]),
            dst: Addr6([5, 6, 7, 8]),
            sport: Be16(9),
            dport: Be16(10),
            proto: 17,
        };
        let fields: Vec<u8> = (1..=8_u32)
            .flat_map(u32::to_ne_bytes)
            .chain(9_u16.to_ne_bytes())
            .chain(10_u16.to_ne_bytes())
            .chain(17_u32.to_ne_bytes())
            .collect();
        assert_eq!(bytes(&key.words()), fields);
    }

    #[test]
    fn a_flow_lives_as_long_as_its_state_lets_it() {
        const SECOND: u64 = 1_000_000_000;
        let flow = |tcp| Flow::<Addr4> {
            tcp,
            idle: 300,
            last_seen: 1_000 * SECOND,
            ..Flow::default()
        };
        let lives = |flow: &Flow<Addr4>, half_open, seconds: u64| {
            let end = (1_000 + seconds) * SECOND;
            !flow.is_expired(half_open, end) && flow.is_expired(half_open, end + 1)
        };
        assert!(lives(&flow(0), false, 300));
        assert!(lives(&flow(0), true, 130));
        assert!(lives(&flow(tcp_state::FIN), false, 300));
        assert!(lives(&flow(tcp_state::PEER_CLOSED), false, 300));
        assert!(lives(
            &flow(tcp_state::FIN | tcp_state::PEER_CLOSED),
            false,
            60
        ));
        assert!(lives(&flow(tcp_state::RST), false, 10));
        assert!(!flow(0).is_expired(false, 0), "a clock that lags");
    }

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
        let mut turned = pair;
        turned.turn(&pair_key);
        assert_eq!(turned, flow);
    }
}
