//! A server's SYN-ACK tells the client how long its segments may be. Where those reach this node inside others, there
//! is less room than the server knows of.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use lb_common::headers::{Packet as _, TCP, checksum_offset, halves};

use crate::{maps::LB_NODE, tables::Tables, views::Buffer};

/// TCP options (RFC 9293 section 3.1).
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;
const MSS_LEN: u8 = 4;
/// Bytes of a TCP header without options.
const TCP_LEN: usize = 20;
/// At most so many options in the 40 bytes that there are, where each one has a length, and some padding.
const MAX_OPTIONS: usize = 20;

/// Makes the segment size in a SYN-ACK what peers can bring here.
#[inline(always)]
pub fn clamp<A: Tables>(skb: *mut __sk_buff, l4: usize) {
    let ip = if A::VERSION == 4 { 20 } else { 40 };
    let taken = (A::OVERHEAD + ip + TCP_LEN) as u32;
    let mtu = LB_NODE.get(0).map_or(0, |node| u32::from(node.peer_mtu));
    if mtu > taken {
        lb_tc_clamp(skb, l4 as u32, mtu - taken);
    }
}

/// [`clamp`] to `most` bytes.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_tc_clamp(ctx: *mut __sk_buff, l4: u32, most: u32) -> u32 {
    if ctx.is_null() {
        return 0;
    }
    u32::from(clamp_to(ctx, l4 as usize, most).is_some())
}

#[inline(always)]
fn clamp_to(skb: *mut __sk_buff, l4: usize, most: u32) -> Option<()> {
    let packet = Buffer(skb);
    let offset = packet.half(l4 + 12)?.to_ne_bytes()[0] >> 4;
    let end = l4 + usize::from(offset) * 4;
    let mut at = l4 + TCP_LEN;
    for _ in 0..MAX_OPTIONS {
        if at + usize::from(MSS_LEN) > end {
            return None;
        }
        let [word] = packet.words::<1>(at)?;
        let [kind, len, ..] = word.to_ne_bytes();
        match (kind, len) {
            (END, _) => return None,
            (NO_OPERATION, _) => at += 1,
            (MSS, MSS_LEN) => {
                let old = halves(word).1;
                if u32::from(u16::from_be(old)) <= most {
                    return None;
                }
                return write(skb, l4, at + 2, old, (most as u16).to_be());
            }
            (_, 0 | 1) => return None,
            (_, len) => at += usize::from(len),
        }
    }
    None
}

#[inline(always)]
fn write(skb: *mut __sk_buff, l4: usize, at: usize, old: u16, new: u16) -> Option<()> {
    let ctx = TcContext::new(skb);
    // A checksum is of words at even offsets; at an odd one both bytes are other words' halves.
    let odd = (at - l4) & 1 != 0;
    let (from, to) = if odd {
        (old.swap_bytes(), new.swap_bytes())
    } else {
        (old, new)
    };
    let checksum = checksum_offset(u32::from(TCP), l4);
    ctx.l4_csum_replace(checksum, u64::from(from), u64::from(to), 2)
        .ok()?;
    ctx.store(at, &new, 0).ok()
}
