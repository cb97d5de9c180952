//! tc: the Ethernet header, which the kernel leaves out behind generic XDP.
//!
//! Generic XDP hands a copy on of what is shared or in pages, if the program takes packets in pages
//! (`netif_skb_check_for_xdp` in `net/core/dev.c`, kernel 6.9). The copy does not say how long its Ethernet header is
//! (`mac_len`), by so many bytes tc has the packet begin earlier: it begins with the IP header.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_hdr_start_off::BPF_HDR_START_MAC},
    helpers::generated::{bpf_skb_change_head, bpf_skb_load_bytes_relative, bpf_skb_store_bytes},
};
use lb_common::headers::{ETH_LEN, Packet as _};

use crate::{forward::transmits, views::Buffer};

/// As it stands in the packet.
#[repr(C)]
struct Ethernet {
    stations: [u32; 3],
    kind: u16,
}

/// Has the packet begin with its Ethernet header.
#[inline(always)]
pub fn begin(skb: *mut __sk_buff) {
    // Generic XDP does not.
    if !transmits() {
        lb_tc_begin(skb);
    }
}

/// [`begin`] as a function of its own; 0 if the packet is left as it is.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_tc_begin(ctx: *mut __sk_buff) -> u32 {
    if ctx.is_null() {
        return 0;
    }
    u32::from(put_back(ctx).is_some())
}

#[inline(always)]
fn put_back(skb: *mut __sk_buff) -> Option<()> {
    let mut header = Ethernet {
        stations: [0; 3],
        kind: 0,
    };
    let (at, len) = ((&raw mut header).cast(), ETH_LEN as u32);
    // SAFETY: the helper fills exactly the bytes told, or fails.
    if unsafe { bpf_skb_load_bytes_relative(skb.cast(), 0, at, len, BPF_HDR_START_MAC) } != 0 {
        return None;
    }
    let [a, b, c] = Buffer(skb).words(0)?;
    let Ethernet { stations, .. } = header;
    if a == stations[0] && b == stations[1] && c == stations[2] {
        return None;
    }
    // SAFETY: the helpers take the context, and read exactly the bytes told.
    let done = unsafe {
        bpf_skb_change_head(skb, len, 0) == 0 && bpf_skb_store_bytes(skb, 0, at, len, 0) == 0
    };
    done.then_some(())
}
