//! Services, backends and the node's own settings as the kernel programs see them.

use crate::{Addr4, Addr6, Address, Be16, Reason, algorithm};

/// Slots of the smallest Maglev table; prime, as all three.
pub const SLOTS_SMALL: usize = 1_021;
/// Slots of the middle Maglev table.
pub const SLOTS_MEDIUM: usize = 16_381;
/// Slots of the largest Maglev table.
pub const SLOTS_LARGE: usize = 65_537;

/// What makes a service: address, port, protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ServiceKey<A> {
    /// The VIP.
    pub addr: A,
    /// The VIP's port.
    pub port: Be16,
    /// IP protocol number.
    pub proto: u8,
    /// Always zero.
    pub pad: u8,
}

/// A service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Service {
    /// Names the service's Maglev table; never 0.
    pub id: u32,
    /// Bits of [`service_flag`].
    pub flags: u32,
    /// Slots of its table: one of the `SLOTS_` constants, or 0 when no backend takes new flows.
    pub slots: u32,
    /// How long a TCP connection may be silent, s.
    pub idle_tcp: u32,
    /// How long a UDP flow that was never answered may be silent, s.
    pub idle_udp: u32,
    /// How long a UDP flow that went both ways may be silent, s.
    pub idle_udp_two_way: u32,
    /// How long a client without new flows is given its backend again, s; 0: no affinity.
    pub affinity: u32,
    /// Flows at a time; 0: no limit.
    pub max_flows: u32,
    /// New flows a second; 0: no limit.
    pub rate: u32,
    /// New flows a second of one client address, or network namespace of local clients; 0: no limit.
    pub source_rate: u32,
    /// One of [`crate::algorithm`].
    pub algorithm: u8,
    /// One of [`service_mode`].
    pub mode: u8,
    /// Always zero.
    pub pad: u16,
}

/// RFC 5382 section 5, REQ-5: at least 2 h 4 min.
pub const IDLE_TCP: u32 = 2 * 3600 + 4 * 60;
/// One-way UDP, s.
pub const IDLE_UDP: u32 = 60;
/// RFC 4787 section 4.3, REQ-5: at least 2 min, 5 min recommended.
pub const IDLE_UDP_TWO_WAY: u32 = 300;

/// A backend; shared by all services that name it. Id 0 is never used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Backend {
    /// Its address; an IPv4 address stands in the first word, the rest is zero.
    pub addr: Addr6,
    /// Its port.
    pub port: Be16,
    /// IP protocol number.
    pub proto: u8,
    /// 4 or 6.
    pub family: u8,
    /// One of [`backend_state`].
    pub state: u8,
    /// One of [`backend_kind`].
    pub kind: u8,
    /// [`backend_kind::NET`]: index of its next hop, 0 while it is not known.
    pub next_hop: u16,
    /// Grows each time the id is given to another backend.
    pub generation: u32,
    /// The interface behind which it is ([`backend_kind::LINK`]) or of the route to it
    /// ([`backend_kind::NET`]); else 0.
    pub ifindex: u32,
}

/// Whether a backend takes flows.
pub mod backend_state {
    /// The id is not in use.
    pub const FREE: u8 = 0;
    /// Takes new flows and keeps old ones.
    pub const ACTIVE: u8 = 1;
    /// Takes no new flows, keeps old ones: draining or maintenance.
    pub const DRAINING: u8 = 2;
    /// Does not answer: no new flows, old ones are chosen afresh or reset.
    pub const DOWN: u8 = 3;
}

/// How a service's packets are brought to backends that are elsewhere. A backend on this node is always
/// reached by DNAT.
pub mod service_mode {
    /// Full NAT.
    pub const NAT: u8 = 0;
    /// Direct server return: the packet as it is, in another IP packet to a host that carries the VIP
    /// (RFC 2003, RFC 2473).
    pub const DSR_IPIP: u8 = 1;
    /// Direct server return: the packet as it is, in a frame to a neighbour that carries the VIP.
    pub const DSR_L2: u8 = 2;
    /// Direct server return by the agent of the backend's host ([`crate::geneve`]), where that is a peer; full NAT
    /// where it is not.
    pub const DSR_GENEVE: u8 = 3;
}

/// How a backend is reached from this node. A flow has the same, where its service's mode does not say
/// otherwise.
pub mod backend_kind {
    /// Its address is elsewhere on the network: full NAT.
    pub const NET: u8 = 0;
    /// Its address is this host's own: DNAT and up the stack.
    pub const HOST: u8 = 1;
    /// A container or VM of this node, behind a bridge or veth: DNAT and out of that interface.
    pub const LINK: u8 = 2;
    /// Of a flow: the packet goes to its address inside another one; the reply does not come by here.
    pub const IPIP: u8 = 3;
    /// Of a flow: the packet goes to its MAC address; the reply does not come by here.
    pub const L2: u8 = 4;
    /// Of a flow: the packet goes to the agent of the backend's host with the backend's name
    /// ([`crate::geneve`]); the reply does not come by here.
    pub const GENEVE: u8 = 5;

    /// Whether replies go to the client directly.
    #[inline(always)]
    pub const fn is_dsr(kind: u8) -> bool {
        kind >= IPIP
    }
}

/// Properties of a service.
pub mod service_flag {
    /// All its backends are down, so *down* counts as *active*.
    pub const FAIL_OPEN: u32 = 1;
    /// Any source may reach it from outside; without it only the node's allowed prefixes.
    pub const EXTERNAL: u32 = 2;
    /// Its list of sources is asked; a source that no entry names may not reach it.
    pub const ALLOW_LISTED: u32 = 4;
    /// Its list of sources is asked; a source that no entry names may reach it.
    pub const DENY_LISTED: u32 = 8;
    /// A source that may not reach it is refused, not dropped.
    pub const REFUSES: u32 = 16;
}

/// A prefix in the list of sources of a service, after its length in bits ([`SOURCE_BITS`] included).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SourceKey<A> {
    /// Service id.
    pub service: u32,
    /// The prefix's address.
    pub addr: A,
}

/// Bits of a [`SourceKey`] before the address.
pub const SOURCE_BITS: u32 = 32;

/// What a service's list says of a source.
pub mod source_rule {
    /// It may reach the service.
    pub const ALLOW: u32 = 1;
    /// It may not.
    pub const DENY: u32 = 2;
}

/// Why an address is in the destination filter.
pub mod addr_flag {
    /// A VIP: everything for it is ours.
    pub const VIP: u32 = 1;
    /// The node's own address: some of its ports are ours, see [`super::port_flag`].
    pub const NODE: u32 = 2;
    /// In the coarse filter alone: somebody wants to hear of its packets, so none takes the shortcut.
    pub const TRACED: u32 = 4;
}

/// Why a port of the node's own addresses is ours.
pub mod port_flag {
    /// In the SNAT range: packets for it may be replies of flows.
    pub const SNAT: u8 = 1;
    /// A service stands at this TCP port.
    pub const TCP: u8 = 2;
    /// A service stands at this UDP port.
    pub const UDP: u8 = 4;
    /// UDP packets for it may be of peers ([`crate::geneve`]).
    pub const PEERS: u8 = 8;
}

/// Slots of the coarse filter of destination addresses.
pub const FILTER_SLOTS: usize = 1 << 16;

/// An address's slot in the coarse filter, which holds the [`addr_flag`]s of all addresses of the slot.
///
/// It lets foreign packets go after one read of an array; what it lets through is looked up.
#[inline(always)]
pub fn filter_slot<A: Address>(addr: &A) -> u16 {
    let w = addr.widen().0;
    let mut h = u64::from(w[0]);
    if A::WORDS > 1 {
        h |= u64::from(w[1]) << 32;
        h = h.wrapping_mul(0xC4CE_B9FE_1A85_EC53) ^ (u64::from(w[2]) | u64::from(w[3]) << 32);
    }
    (h.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48) as u16
}

/// Where to send a frame. Index 0 is never used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct NextHop {
    /// Destination MAC address, in memory order.
    pub to: [u16; 3],
    /// Source MAC address.
    pub from: [u16; 3],
    /// The interface to leave by; 0: not known now.
    pub ifindex: u32,
    /// The longest packet, IP header included, bytes.
    pub mtu: u32,
}

/// What names a next hop: a neighbour on a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Neighbour {
    /// The interface.
    pub ifindex: u32,
    /// 4 or 6.
    pub family: u32,
    /// Its address; IPv4 in the first word.
    pub addr: Addr6,
}

/// The agent of a backend's host, by backend id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Peer {
    /// Its address; IPv4 in the first word.
    pub addr: Addr6,
    /// The interface of the route to it.
    pub ifindex: u32,
    /// Index of the next hop to it, 0 while it is not known.
    pub next_hop: u16,
    /// Its address's and its backend's family, 4 or 6; 0: the backend's host is no peer.
    pub family: u8,
    /// Always zero.
    pub pad: u8,
}

/// A backend of this node as peers name it. The value is its id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct LocalKey {
    /// Its address; IPv4 in the first word.
    pub addr: Addr6,
    /// Id of the service that has it.
    pub service: u32,
    /// Its port.
    pub port: Be16,
    /// 4 or 6.
    pub family: u16,
}

/// How many things each CPU limits by a [`crate::Bucket`] of their own: new flows, ICMP errors, refusals.
pub const GUARDS: usize = 3;

/// Source ports that full NAT tries before a new flow is dropped. New flows are counted by the number of ports tried, less
/// one; those that found none come last.
pub const SNAT_TRIES: u32 = 16;

/// The node's settings, the single entry of its map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct NodeConfig {
    /// Source of full NAT over IPv4; zero: none, so full NAT is refused.
    pub snat4: Addr4,
    /// Source of full NAT over IPv6; zero: none.
    pub snat6: Addr6,
    /// First port of the SNAT range, host order.
    pub snat_port_min: u16,
    /// Number of ports in the range, at most 65,535.
    pub snat_ports: u16,
    /// Grows when a route changes: a flow's next hop is then found anew.
    pub route_epoch: u16,
    /// The longest IP packet, outer headers included, that gets here from any peer, bytes; 0: there are no peers.
    pub peer_mtu: u16,
}

/// What went to and came from one backend; one copy per CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct BackendStats {
    /// Flows given to it, packet and socket path.
    pub flows: u64,
    /// Packets to it; of local TCP connections segments, counted at the end.
    pub packets_to: u64,
    /// Bytes to it, IP headers included on the packet path.
    pub bytes_to: u64,
    /// Packets from it, as `packets_to`.
    pub packets_from: u64,
    /// Bytes from it.
    pub bytes_from: u64,
    /// Connections that it did not accept, socket path.
    pub failed: u64,
    /// Retransmitted segments, socket path.
    pub retransmits: u64,
    /// Flows of local UDP sockets: nothing counts their packets and bytes, which are known of no flow then.
    pub unseen: u64,
}

/// What went to and came from the backends of one service; one copy per CPU. A backend that several services share has
/// this counted for each, and together in its [`BackendStats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ServiceTraffic {
    /// Packets from clients; of local TCP connections segments, counted at the end.
    pub packets_to: u64,
    /// Bytes from clients, IP headers included on the packet path.
    pub bytes_to: u64,
    /// Packets to clients, as `packets_to`.
    pub packets_from: u64,
    /// Bytes to clients.
    pub bytes_from: u64,
}

/// What became of the TCP connections to one backend, or of one service; one copy per CPU.
///
/// Under direct server return nothing of the backend's side comes by: what only that side tells stays 0, which
/// means unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ConnectionStats {
    /// Flows that ended by FIN or RST, or gave way to another of the same tuple.
    pub closed: u64,
    /// Connections that the client reset.
    pub client_resets: u64,
    /// Connections that the backend reset, refused ones included.
    pub backend_resets: u64,
    /// Of those: the ones that it reset before it accepted them.
    pub refused: u64,
    /// SYNs that the client sent again.
    pub syn_retransmits: u64,
    /// Connections that the backend accepted: its SYN-ACK came by.
    pub handshakes: u64,
    /// From the client's first SYN to the SYN-ACK, all of them together, ns.
    pub handshake_ns: u64,
    /// Flows that were taken from the backend and given to another, since it refused, was silent or was gone.
    pub redispatched: u64,
    /// How long those that are closed lived, all of them together, ms.
    pub lived_ms: u64,
}

/// What became of the new flows of one service; one copy per CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ServiceStats {
    /// Flows opened.
    pub flows: u64,
    /// First packets and calls that opened none.
    pub refused: u64,
    /// Of those: the source may not use the service.
    pub denied: u64,
    /// Of those: the service or the source has as many flows, or as many new ones a second, as it may.
    pub limited: u64,
    /// Of those: a table was full, or no port was left.
    pub lost: u64,
    /// Packets whose TCP header is cut short.
    pub malformed: u64,
    /// Connections that no backend accepted, socket path.
    pub failed: u64,
    /// Retransmitted segments, socket path.
    pub retransmits: u64,
    /// As [`BackendStats::unseen`].
    pub unseen: u64,
    /// What became of its connections: of a backend that several services share each has its own.
    pub connections: ConnectionStats,
    /// Handshakes by time, see [`handshake_bucket`].
    pub handshakes: [u64; HANDSHAKE_BUCKETS],
}

impl Service {
    /// Whether the backend of each packet follows from the packet alone, so that one that only has to be sent there
    /// needs no flow.
    #[inline(always)]
    pub const fn is_hashed(&self) -> bool {
        (self.algorithm == algorithm::MAGLEV || self.algorithm == algorithm::SOURCE)
            && self.mode != service_mode::NAT
            && self.affinity == 0
            && self.max_flows == 0
    }
}

impl ServiceStats {
    /// Counts a first packet that opened no flow, by the number of the reason.
    #[inline(always)]
    pub fn refuse(&mut self, reason: u32) {
        self.refused += 1;
        if reason == Reason::SourceNotAllowed as u32 || reason == Reason::SourceRefused as u32 {
            self.denied += 1;
        } else if reason == Reason::ServiceFull as u32
            || reason == Reason::ServiceRate as u32
            || reason == Reason::SourceRate as u32
            || reason == Reason::NewFlowGuard as u32
        {
            self.limited += 1;
        } else if reason == Reason::FlowTableFull as u32
            || reason == Reason::FlowCollision as u32
            || reason == Reason::NoSnatAddress as u32
            || reason == Reason::NoSnatPort as u32
            || reason == Reason::SockTableFull as u32
        {
            self.lost += 1;
        }
    }
}

/// Buckets of the handshake histogram.
pub const HANDSHAKE_BUCKETS: usize = 16;

/// The bucket of a handshake that took so many ns: bucket 0 is below 64 us, each next one reaches twice as far,
/// the last one has all from about 1 s on.
#[inline(always)]
pub const fn handshake_bucket(ns: u64) -> usize {
    let mut bucket = 0;
    let mut rest = ns >> 16;
    // Unrolled by hand, as it were: the kernel's verifier walks every round.
    if rest >= 1 << 8 {
        bucket += 8;
        rest >>= 8;
    }
    if rest >= 1 << 4 {
        bucket += 4;
        rest >>= 4;
    }
    if rest >= 1 << 2 {
        bucket += 2;
        rest >>= 2;
    }
    if rest >= 1 << 1 {
        bucket += 1;
        rest >>= 1;
    }
    if rest >= 1 {
        bucket += 1;
    }
    if bucket < HANDSHAKE_BUCKETS {
        bucket
    } else {
        HANDSHAKE_BUCKETS - 1
    }
}

const _: () = assert!(size_of::<ConnectionStats>() == 9 * 8);
const _: () = assert!(size_of::<ServiceTraffic>() == 4 * 8);
const _: () = assert!(size_of::<ServiceStats>() == (9 + 9 + HANDSHAKE_BUCKETS) * 8);
const _: () = assert!(size_of::<ServiceKey<Addr4>>() == 8);
const _: () = assert!(size_of::<ServiceKey<Addr6>>() == 20);
const _: () = assert!(size_of::<Service>() == 11 * 4);
const _: () = assert!(size_of::<Backend>() == 16 + 2 + 1 + 1 + 1 + 1 + 2 + 4 + 4);
const _: () = assert!(size_of::<NodeConfig>() == 4 + 16 + 4 * 2);
const _: () = assert!(size_of::<Peer>() == 16 + 4 + 2 + 1 + 1);
const _: () = assert!(size_of::<LocalKey>() == 16 + 4 + 2 + 2);
const _: () = assert!(size_of::<NextHop>() == 6 + 6 + 4 + 4);
const _: () = assert!(size_of::<Neighbour>() == 4 + 4 + 16);
const _: () = assert!(size_of::<BackendStats>() == 8 * 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_falls_into_the_bucket_that_is_named_by_its_time() {
        let ends = |bucket: u32| 1_u64 << (16 + bucket);
        assert_eq!(handshake_bucket(0), 0);
        for bucket in 0..15 {
            assert_eq!(handshake_bucket(ends(bucket) - 1), bucket as usize);
            assert_eq!(handshake_bucket(ends(bucket)), bucket as usize + 1);
        }
        assert_eq!(handshake_bucket(u64::MAX), HANDSHAKE_BUCKETS - 1);
    }
}
