//! What the programs tell of single packets and calls while somebody asks ([`TraceConfig`]).

use crate::{Addr6, Be16, Bucket, direction};

/// Whether and how much is told; the single entry of its map, all zero while nobody asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TraceConfig {
    /// Until when, `CLOCK_MONOTONIC_COARSE` in ns: who asks moves it on, so that it ends with them.
    pub until: u64,
    /// Packets a second of which each CPU tells.
    pub rate: u32,
    /// Of packets of a flow that go on as those before, one in so many.
    pub sample: u32,
    /// Bytes of the packet that are told, at most [`SNAP_MAX`]; 0: none.
    pub snap: u32,
    /// Only what one of the first so many [`TraceMatch`]es wants is told; 0: everything.
    pub matches: u32,
}

/// What somebody wants to be told of. It is looked at before the rate is, so that what nobody wants takes nothing of it;
/// it may let through a little more than is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TraceMatch {
    /// Bits of [`TraceEvent::reasons`], of which there must be one; 0: with any or none.
    pub reasons: u64,
    /// The address that the client speaks to, as far as `vip_mask` has bits; IPv4 in the first word.
    pub vip: Addr6,
    /// Zero: any VIP.
    pub vip_mask: Addr6,
    /// The client's address, as far as `client_mask` has bits.
    pub client: Addr6,
    /// Zero: any client.
    pub client_mask: Addr6,
    /// The VIP's port; 0: any. What has no ports, as an ICMP message, is wanted at any.
    pub port: Be16,
    /// IP protocol number of what has ports; 0: any.
    pub proto: u8,
    /// 4 or 6; 0: any.
    pub family: u8,
    /// Always zero.
    pub pad: u32,
}

/// How many [`TraceMatch`]es there may be.
pub const TRACE_MATCHES: usize = 16;

/// A packet or a call, and what became of it. Bytes of the packet follow it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TraceEvent {
    /// `CLOCK_MONOTONIC`, ns.
    pub at: u64,
    /// Every [`crate::Reason`] that was counted meanwhile: the bit of its number.
    pub reasons: u64,
    /// As the packet came; IPv4 in the first word. Of a call: zero.
    pub src: Addr6,
    /// As the packet came. Of a call: the address that was asked for.
    pub dst: Addr6,
    /// What its flow writes into it. Of a call: zero.
    pub new_src: Addr6,
    /// What its flow writes into it, or the backend that it is sent to as it is.
    pub new_dst: Addr6,
    /// As the packet came; 0 where it has none.
    pub sport: Be16,
    /// As the packet came.
    pub dport: Be16,
    /// Goes with `new_src`.
    pub new_sport: Be16,
    /// Goes with `new_dst`.
    pub new_dport: Be16,
    /// Bytes of the frame, as it came or as it went.
    pub len: u32,
    /// The interface that the program runs at.
    pub ifindex: u32,
    /// Service id; 0: none.
    pub service: u32,
    /// Backend id; 0: none.
    pub backend: u32,
    /// The backend's generation.
    pub generation: u32,
    /// Bytes of the frame that follow.
    pub captured: u32,
    /// Bits of [`trace_flag`].
    pub flags: u32,
    /// One of [`trace_hook`].
    pub hook: u8,
    /// One of [`trace_verdict`].
    pub verdict: u8,
    /// 4 or 6.
    pub family: u8,
    /// IP protocol number.
    pub proto: u8,
    /// Flags of the TCP segment, or type of the ICMP message.
    pub kind: u8,
    /// Code of the ICMP message.
    pub code: u8,
    /// One of [`crate::direction`], of its flow.
    pub direction: u8,
    /// One of [`crate::backend_kind`], of its flow.
    pub way: u8,
    /// Always zero.
    pub pad: u32,
}

/// What a CPU may still tell, and what it could not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TraceGuard {
    /// Packets that it may tell of.
    pub bucket: Bucket,
    /// Packets that it did not tell of: above the rate, or nobody read fast enough.
    pub lost: u64,
}

/// Where a program notes a packet until it knows what becomes of it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct TraceNote {
    /// The counters by reason when the packet came.
    pub counted: [u64; REASONS_MAX],
    /// What is known so far.
    pub event: TraceEvent,
    /// The packet's first bytes, right behind the event.
    pub bytes: [u8; SNAP_MAX + 1],
}

/// Length of the map of counters by reason, and bits of [`TraceEvent::reasons`].
pub const REASONS_MAX: usize = 64;
/// The most bytes of a packet that are told: a mask, for the verifier.
pub const SNAP_MAX: usize = 0x7ff;

/// Where in the kernel it happened.
pub mod trace_hook {
    /// XDP.
    pub const XDP: u8 = 0;
    /// The ingress twin of XDP.
    pub const INGRESS: u8 = 1;
    /// The ingress of an interface behind which backends are.
    pub const LINK: u8 = 2;
    /// The egress of replies of this host.
    pub const EGRESS: u8 = 3;
    /// A socket's `connect`.
    pub const CONNECT: u8 = 4;
    /// A socket's `sendmsg`.
    pub const SENDMSG: u8 = 5;
    /// A socket's `bind`.
    pub const BIND: u8 = 6;
}

/// What became of it.
pub mod trace_verdict {
    /// The stack has the packet; the call goes on.
    pub const PASSED: u8 = 0;
    /// The packet is dropped.
    pub const DROPPED: u8 = 1;
    /// The packet leaves by an interface at once.
    pub const SENT: u8 = 2;
    /// The call fails.
    pub const REFUSED: u8 = 3;
}

/// More about an event.
pub mod trace_flag {
    /// There is a flow.
    pub const FLOW: u32 = 1;
    /// It was there before.
    pub const KNOWN: u32 = 2;
    /// It is a fragment.
    pub const FRAGMENT: u32 = 4;
    /// Length and bytes are those of the packet as it went, not as it came.
    pub const AFTER: u32 = 8;
    /// It is told only if something was done about it: it may be none of ours.
    pub const QUIET: u32 = 16;
}

const _: () = assert!(size_of::<TraceConfig>() == 8 + 4 * 4);
const _: () = assert!(size_of::<TraceEvent>() == 2 * 8 + 4 * 16 + 4 * 2 + 7 * 4 + 8 + 4);
const _: () = assert!(size_of::<TraceMatch>() == 8 + 4 * 16 + 2 + 1 + 1 + 4);
const _: () = assert!(size_of::<TraceGuard>() == 16 + 8);
const _: () =
    assert!(size_of::<TraceNote>() == REASONS_MAX * 8 + size_of::<TraceEvent>() + SNAP_MAX + 1);

// === impl TraceMatch ===

impl TraceMatch {
    /// Whether this event is wanted.
    #[inline(always)]
    pub fn wants(&self, event: &TraceEvent) -> bool {
        let is_reply = event.flags & trace_flag::FLOW != 0 && event.direction == direction::REVERSE;
        let (client, vip, port) = if is_reply {
            (&event.new_dst, &event.new_src, event.new_sport)
        } else {
            (&event.src, &event.dst, event.dport)
        };
        if self.family != 0 && self.family != event.family {
            return false;
        }
        if port.0 != 0
            && ((self.port.0 != 0 && self.port.0 != port.0)
                || (self.proto != 0 && self.proto != event.proto))
        {
            return false;
        }
        if self.reasons != 0 && self.reasons & event.reasons == 0 {
            return false;
        }
        are_alike(vip, &self.vip, &self.vip_mask)
            && are_alike(client, &self.client, &self.client_mask)
    }
}

/// Whether two addresses have the same bits where the mask has some.
#[inline(always)]
const fn are_alike(one: &Addr6, other: &Addr6, mask: &Addr6) -> bool {
    let (a, b, m) = (&one.0, &other.0, &mask.0);
    let differs =
        (a[0] ^ b[0]) & m[0] | (a[1] ^ b[1]) & m[1] | (a[2] ^ b[2]) & m[2] | (a[3] ^ b[3]) & m[3];
    differs == 0
}
