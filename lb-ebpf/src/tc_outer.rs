//! tc: what routers say of the packets that hold clients' packets, to peers and to backends.
//!
//! Their sender is this node, but it is the client that must hear of it (RFC 2003 section 4, RFC 2473 section 8).

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_OK, TC_ACT_SHOT, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC},
    helpers::generated::bpf_skb_adjust_room,
};
use lb_common::{
    Addr4, Addr6, Reason, backend_kind,
    geneve::{self, is_plain},
    headers::{ETH_LEN, Packet as _, TCP, UDP, flow_key},
    icmp::{ICMP_LEN, kind},
};

use crate::{
    answer::{RELAYED, UNREACHABLE, too_big},
    counters,
    flows::find,
    maps::{LB_BACKENDS, LB_NODE, LB_PEERS},
    tables::Tables,
    views::Buffer,
};

/// The error is about no such packet.
const FOREIGN: u64 = 0;

macro_rules! stages {
    ($addr:ty, $outer:ident, $relay:ident) => {
        /// What the client is to be told, if an ICMP error may be about an outer packet; else [`FOREIGN`]. The lower
        /// half is an answer; above it is where the client's packet begins, and how many bytes were put before that.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $outer(ctx: *mut __sk_buff) -> u64 {
            if ctx.is_null() {
                return FOREIGN;
            }
            outer::<$addr>(Buffer(ctx)).unwrap_or(FOREIGN)
        }

        /// Leaves the client's packet alone of the error, and gives the answer to it; a tc action where it has no flow.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $relay(ctx: *mut __sk_buff, told: u64) -> i32 {
            if ctx.is_null() || told == FOREIGN {
                return TC_ACT_OK;
            }
            relay::<$addr>(Buffer(ctx), told)
        }
    };
}

stages!(Addr4, lb_tc_outer4, lb_tc_relay4);
stages!(Addr6, lb_tc_outer6, lb_tc_relay6);

#[inline(always)]
fn outer<A: Tables>(packet: Buffer) -> Option<u64> {
    let ip = A::parse(&packet, ETH_LEN)?;
    if ip.proto != A::PROTO || ip.fragment {
        return None;
    }
    let (kind, code) = kind(&packet, ip.l4)?;
    let [rest] = packet.words(ip.l4 + 4)?;
    let l3 = ip.l4 + ICMP_LEN;
    let quoted = A::parse(&packet, l3)?;
    // RFC 5927 section 4: else it is forged, or not ours. Ours have no options.
    let header = A::OVERHEAD - A::SHIM;
    if quoted.src != ip.dst
        || quoted.src != A::snat_address(LB_NODE.get(0)?)?
        || quoted.fragment
        || quoted.l4 != l3 + header
    {
        return None;
    }
    let before = if quoted.proto == A::INSIDE {
        header
    } else if quoted.proto == UDP
        && packet.half(quoted.l4 + 2)? == geneve::PORT.to_be()
        && is_plain::<A, _>(&packet, quoted.l4)?
    {
        A::OVERHEAD
    } else {
        return None;
    };
    let answer = if (kind, code) == A::TOO_BIG {
        // Section 7.2: nor is it one of ours if the packet was not too long. RFC 4884 has put something into the
        // upper half for IPv4.
        let mtu = u32::from_be(rest) & if A::VERSION == 4 { 0xffff } else { u32::MAX };
        if mtu < A::LEAST_MTU || mtu >= u32::from(quoted.len) {
            return None;
        }
        too_big(mtu - before as u32)
    } else if A::is_unreachable(kind, code) || kind == A::TIME_EXCEEDED.0 {
        UNREACHABLE
    } else {
        return None;
    };
    let at = l3 + before;
    Some(u64::from(answer | RELAYED) | (at as u64) << 32 | (before as u64) << 48)
}

#[inline(always)]
fn relay<A: Tables>(packet: Buffer, told: u64) -> i32 {
    let at = (told >> 32) as usize & 0xffff;
    let before = (told >> 48) as usize;
    if is_ours::<A>(packet, at, before).is_none() {
        counters::count(Reason::IcmpUnknown);
        return TC_ACT_OK;
    }
    let by = ETH_LEN as i32 - at as i32;
    // SAFETY: the helper takes the context.
    if unsafe { bpf_skb_adjust_room(packet.0, by, BPF_ADJ_ROOM_MAC, 0) } != 0 {
        counters::count(Reason::Malformed);
        return TC_ACT_SHOT;
    }
    told as i32
}

/// Whether the packet at `at` is of a flow to the host that the header `before` bytes ahead of it names.
#[inline(always)]
fn is_ours<A: Tables>(packet: Buffer, at: usize, before: usize) -> Option<()> {
    let ip = A::parse(&packet, at)?;
    if ip.fragment || (ip.proto != TCP && ip.proto != UDP) {
        return None;
    }
    let (_, flow) = find(&flow_key(&packet, &ip)?)?;
    let host = match flow.kind {
        backend_kind::GENEVE if before == A::OVERHEAD => {
            let peer = LB_PEERS.get(flow.backend)?;
            A::narrow(&(peer.family != 0).then_some(peer.addr)?)
        }
        backend_kind::IPIP if before != A::OVERHEAD => {
            A::narrow(&LB_BACKENDS.get(flow.backend)?.addr)
        }
        _ => return None,
    };
    let dst = at - before + A::ADDRESSES.1;
    let words = if A::VERSION == 4 {
        let [word] = packet.words(dst)?;
        [word, 0, 0, 0]
    } else {
        packet.words(dst)?
    };
    (A::narrow(&Addr6(words)) == host).then_some(())
}
