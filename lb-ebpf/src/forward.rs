//! XDP: out of an interface, past the stack.

use aya_ebpf::{
    Global,
    bindings::{BPF_FIB_LKUP_RET_FRAG_NEEDED, bpf_fib_lookup as FibLookup, xdp_action, xdp_md},
    helpers::generated::{bpf_check_mtu, bpf_fib_lookup},
};
use lb_common::{
    NextHop, Reason,
    headers::{PacketMut as _, join},
};

use crate::{counters, maps::LB_PORTS, tables::Tables, views::Bytes};

/// Not 0: a packet that leaves by the interface it came in by is redirected, not transmitted.
///
/// `XDP_TX` on a veth wakes the other end only if an XDP program is there as well (`veth_xdp_flush` in
/// `drivers/net/veth.c`); a redirect always does. Nor may generic XDP transmit, for which no interface is in
/// [`LB_PORTS`]: it sees segments that were joined and checksums that are unfinished, and would give both to the driver as
/// they are (`generic_xdp_tx` in `net/core/dev.c`).
// Used: the compiler may otherwise let an equal constant share its place, which the agent overwrites.
#[used]
#[unsafe(no_mangle)]
static TX_BY_REDIRECT: Global<u8> = Global::new(0);

/// The interface that a packet came in by.
#[inline(always)]
pub fn came_by(ctx: *mut xdp_md) -> u32 {
    // SAFETY: a context field.
    unsafe { (*ctx).ingress_ifindex }
}

/// Asks the kernel's route and neighbour tables for the way of a packet of this length.
///
/// # Errors
///
/// The MTU of the way if the packet is longer; 0 where the tables cannot say.
#[inline(always)]
pub fn route<A: Tables>(
    ctx: *mut xdp_md,
    len: u16,
    proto: u8,
    src: A,
    dst: A,
) -> Result<FibLookup, u32> {
    // SAFETY: all-zero bytes are a value of this C struct.
    let mut fib: FibLookup = unsafe { core::mem::zeroed() };
    fib.family = A::AF;
    fib.l4_protocol = proto;
    fib.ifindex = came_by(ctx);
    fib.__bindgen_anon_1.tot_len = len;
    fib.__bindgen_anon_3.ipv6_src = src.widen().0;
    fib.__bindgen_anon_4.ipv6_dst = dst.widen().0;
    // SAFETY: `fib` is as long as told.
    let ret = unsafe { bpf_fib_lookup(ctx.cast(), &mut fib, size_of::<FibLookup>() as i32, 0) };
    if ret == 0 {
        Ok(fib)
    } else if ret == i64::from(BPF_FIB_LKUP_RET_FRAG_NEEDED) {
        // SAFETY: the helper wrote the MTU in place of the length (kernel 5.12).
        Err(u32::from(unsafe { fib.__bindgen_anon_1.mtu_result }))
    } else {
        Err(0)
    }
}

/// Whether a packet is longer than its own interface takes: segments that were joined, or are yet to be
/// cut, which generic XDP sees in one piece.
#[inline(always)]
pub fn is_joined(ctx: *mut xdp_md) -> bool {
    let mut mtu = 0;
    // SAFETY: the context of this program, and a word that outlives the call. 0 is its own interface.
    unsafe { bpf_check_mtu(ctx.cast(), 0, &mut mtu, 0, 0) > 0 }
}

/// The next hop on the way that was found.
#[inline(always)]
pub fn next_hop(fib: &FibLookup) -> NextHop {
    // SAFETY: six bytes each, at even offsets of a C struct aligned to 4.
    unsafe {
        NextHop {
            to: fib.dmac.as_ptr().cast::<[u16; 3]>().read(),
            from: fib.smac.as_ptr().cast::<[u16; 3]>().read(),
            ifindex: fib.ifindex,
            mtu: 0,
        }
    }
}

/// Whether XDP may send a packet back by the interface that it came in by without a redirect.
#[inline(always)]
pub fn transmits() -> bool {
    TX_BY_REDIRECT.load() == 0
}

/// Whether a packet for this interface goes back where it came from.
#[inline(always)]
fn is_transmitted(ctx: *mut xdp_md, ifindex: u32) -> bool {
    ifindex == came_by(ctx) && transmits()
}

/// Whether XDP may send by this interface.
#[inline(always)]
pub fn may_send(ctx: *mut xdp_md, ifindex: u32) -> bool {
    is_transmitted(ctx, ifindex) || LB_PORTS.get(ifindex).is_some()
}

/// Sends a packet whose Ethernet header is written.
#[inline(always)]
pub fn send(ctx: *mut xdp_md, ifindex: u32) -> u32 {
    if is_transmitted(ctx, ifindex) {
        return xdp_action::XDP_TX;
    }
    LB_PORTS.redirect(ifindex, 0).unwrap_or_else(|_| {
        counters::count(Reason::NotSent);
        xdp_action::XDP_DROP
    })
}

/// Writes the Ethernet header for the way that was found.
#[inline(always)]
pub fn address(packet: Bytes, fib: &FibLookup) -> Option<()> {
    let NextHop {
        to: [a, b, c],
        from: [d, e, f],
        ..
    } = next_hop(fib);
    packet.set_words(0, [join(a, b), join(c, d), join(e, f)])
}

/// The tc twin sees the packet next, untouched, finds the same flow and can wait for a neighbour.
#[inline(always)]
pub fn slow_path() -> u32 {
    counters::count(Reason::ToSlowPath);
    xdp_action::XDP_PASS
}

/// A packet that could not be rewritten to its end is no packet any more.
#[inline(always)]
pub fn malformed() -> u32 {
    counters::count(Reason::Malformed);
    xdp_action::XDP_DROP
}
