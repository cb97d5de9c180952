//! XDP ingress: DNAT up the stack, full NAT out again without leaving the driver.

use aya_ebpf::{
    EbpfContext as _, Global,
    bindings::{bpf_fib_lookup as FibLookup, xdp_action, xdp_md},
    helpers::generated::bpf_fib_lookup,
    macros::xdp,
    programs::XdpContext,
};
use lb_common::{
    Addr4, Addr6, Flow, Reason, backend_kind,
    headers::{ETH_IPV4, ETH_IPV6, ETH_LEN, Packet, Payload, ethernet, skip_extensions},
};

use crate::{
    counters,
    extensions::{self, HEADER_MASK},
    ingress::{Action, Layout, decide, goes_up},
    maps::LB_PORTS,
    open::{OPENED, open_for},
    rewrite::{Direct, translate},
    tables::Tables,
};

/// Not 0: a packet that leaves by the interface it came in by is redirected, not transmitted.
///
/// `XDP_TX` on a veth wakes the other end only if an XDP program is there as well (`veth_xdp_flush` in
/// `drivers/net/veth.c`); a redirect always does.
#[unsafe(no_mangle)]
static TX_BY_REDIRECT: Global<u8> = Global::new(0);

/// The packet between `data` and `data_end`.
pub struct Frame {
    ctx: *mut xdp_md,
    data: usize,
    end: usize,
}

/// Not an XDP action: the packet has no flow yet.
const OPEN: u32 = 1 << 8;

#[xdp(frags)]
pub fn lb_xdp(ctx: XdpContext) -> u32 {
    let (ethertype, l3) = match ethernet(&Frame::new(ctx.ctx)) {
        Some((ethertype, l3)) => (ethertype, l3 as u32),
        None => return xdp_action::XDP_PASS,
    };
    match ethertype {
        ETH_IPV4 => opening(|| lb_xdp4(ctx.ctx, l3), || lb_xdp_open4(ctx.ctx, l3)),
        ETH_IPV6 => opening(|| lb_xdp6(ctx.ctx, l3), || lb_xdp_open6(ctx.ctx, l3)),
        _ => xdp_action::XDP_PASS,
    }
}

/// Runs the packet path, opening a flow first where there is none.
#[inline(always)]
fn opening(path: impl Fn() -> u32, open: impl Fn() -> u32) -> u32 {
    let action = path();
    if action != OPEN {
        return action;
    }
    match open() {
        OPENED => match path() {
            // Evicted at once: the table is far too small.
            OPEN => refused(Reason::FlowTableFull as u32),
            action => action,
        },
        reason => refused(reason),
    }
}

#[inline(always)]
fn refused(reason: u32) -> u32 {
    if goes_up(reason) {
        xdp_action::XDP_PASS
    } else {
        xdp_action::XDP_DROP
    }
}

macro_rules! stages {
    ($addr:ty, $path:ident, $open:ident) => {
        /// The packet path of one family. Global, so that its frame is its own and the verifier walks it
        /// once.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $path(ctx: *mut xdp_md, l3: u32) -> u32 {
            if ctx.is_null() {
                return xdp_action::XDP_PASS;
            }
            ingress::<$addr>(
                &XdpContext::new(ctx),
                &Frame::new(ctx),
                (l3 & HEADER_MASK) as usize,
            )
        }

        /// Opens a flow for the packet.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $open(ctx: *mut xdp_md, l3: u32) -> u32 {
            if ctx.is_null() {
                return Reason::Malformed as u32;
            }
            let ifindex = XdpContext::new(ctx).ingress_ifindex() as u32;
            open_for::<$addr, _>(&Frame::new(ctx), (l3 & HEADER_MASK) as usize, ifindex)
        }
    };
}

stages!(Addr4, lb_xdp4, lb_xdp_open4);
stages!(Addr6, lb_xdp6, lb_xdp_open6);

#[inline(always)]
fn ingress<A: Tables>(ctx: &XdpContext, frame: &Frame, l3: usize) -> u32 {
    let ifindex = ctx.ingress_ifindex() as u32;
    let (at, key, flow) = match decide::<A, _>(frame, l3) {
        Action::Pass => return xdp_action::XDP_PASS,
        Action::Drop => return xdp_action::XDP_DROP,
        Action::Open => return OPEN,
        Action::Translate(at, key, flow) => (at, key, flow),
    };
    match flow.kind {
        backend_kind::HOST => match translate(frame, l3, &at, &key, flow) {
            Some(()) => xdp_action::XDP_PASS,
            None => malformed(),
        },
        // A tag would go along to wherever the untagged network leads. Opaque to the compiler, which would
        // otherwise know `l3` from here on and leave out a bounds check that the verifier needs.
        backend_kind::NET if core::hint::black_box(l3) == ETH_LEN => {
            match next_hop(ctx, &at, key.proto as u8, flow) {
                Some(hop) if hop.ifindex == ifindex && TX_BY_REDIRECT.load() == 0 => {
                    match send(frame, l3, &at, &key, flow, &hop) {
                        Some(()) => xdp_action::XDP_TX,
                        None => malformed(),
                    }
                }
                Some(hop) if LB_PORTS.get(hop.ifindex).is_some() => {
                    match send(frame, l3, &at, &key, flow, &hop) {
                        Some(()) => LB_PORTS
                            .redirect(hop.ifindex, 0)
                            .unwrap_or(xdp_action::XDP_DROP),
                        None => malformed(),
                    }
                }
                _ => slow_path(),
            }
        }
        // Tagged, or out of a bridge or veth, where the kernel must find the neighbour and the port.
        _ => slow_path(),
    }
}

/// The tc twin sees the packet next, untouched, finds the same flow and can wait for a neighbour.
#[inline(always)]
fn slow_path() -> u32 {
    counters::count(Reason::ToSlowPath);
    xdp_action::XDP_PASS
}

#[inline(always)]
fn malformed() -> u32 {
    counters::count(Reason::Malformed);
    xdp_action::XDP_DROP
}

/// Asks the kernel's route and neighbour tables; `None` where they cannot say.
#[inline(always)]
fn next_hop<A: Tables>(
    ctx: &XdpContext,
    at: &Layout,
    proto: u8,
    flow: &Flow<A>,
) -> Option<FibLookup> {
    // SAFETY: all-zero bytes are a value of this C struct.
    let mut fib: FibLookup = unsafe { core::mem::zeroed() };
    fib.family = A::AF;
    fib.l4_protocol = proto;
    fib.ifindex = ctx.ingress_ifindex() as u32;
    fib.__bindgen_anon_1.tot_len = at.len;
    fib.__bindgen_anon_3.ipv6_src = flow.new_src.widen().0;
    fib.__bindgen_anon_4.ipv6_dst = flow.new_dst.widen().0;
    // SAFETY: `fib` is as long as told.
    let ret = unsafe { bpf_fib_lookup(ctx.as_ptr(), &mut fib, size_of::<FibLookup>() as i32, 0) };
    (ret == 0).then_some(fib)
}

/// Rewrites addresses, ports, checksums and the Ethernet header.
#[inline(always)]
fn send<A: Tables>(
    frame: &Frame,
    l3: usize,
    at: &Layout,
    key: &lb_common::FlowKey<A>,
    flow: &Flow<A>,
    hop: &FibLookup,
) -> Option<()> {
    translate(frame, l3, at, key, flow)?;
    // The packet's bounds are read again: to the compiler the check behind `l3` covers the Ethernet
    // header as well, to the verifier it does not.
    let ethernet = Frame::new(frame.ctx).at::<[[u16; 3]; 2]>(0)?;
    // SAFETY: inside the packet; both addresses stand at even offsets of a C struct aligned to 4.
    unsafe {
        (*ethernet)[0] = *hop.dmac.as_ptr().cast();
        (*ethernet)[1] = *hop.smac.as_ptr().cast();
    }
    Some(())
}

// === impl Frame ===

impl Frame {
    #[inline(always)]
    fn new(ctx: *mut xdp_md) -> Self {
        // SAFETY: context fields; the verifier knows them as packet pointers.
        let (data, end) = unsafe {
            (
                (&raw const (*ctx).data).read_volatile(),
                (&raw const (*ctx).data_end).read_volatile(),
            )
        };
        Self {
            ctx,
            data: data as usize,
            end: end as usize,
        }
    }

    /// A pointer to `T` at `offset`, if all of it is inside the packet.
    #[inline(always)]
    fn at<T>(&self, offset: usize) -> Option<*mut T> {
        let start = self.data + offset;
        if start + size_of::<T>() > self.end {
            return None;
        }
        Some(start as *mut T)
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn half(&self, offset: usize) -> Option<u16> {
        let p = self.at::<u16>(offset)?;
        // SAFETY: checked against the packet's end; unaligned access is what the kernel allows on the
        // architectures with eBPF JITs that we run on.
        Some(unsafe { *p })
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let p = self.at::<[u32; N]>(offset)?;
        // SAFETY: as above.
        Some(unsafe { *p })
    }

    #[inline(always)]
    fn extensions(&self, proto: u8, l4: usize) -> Option<Payload> {
        extensions::unpack(lb_xdp_extensions(self.ctx, u32::from(proto), l4 as u32))
    }
}

/// [`skip_extensions`] as a function of its own.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_xdp_extensions(ctx: *mut xdp_md, proto: u32, l4: u32) -> u64 {
    if ctx.is_null() {
        return extensions::NONE;
    }
    extensions::pack(skip_extensions(
        &Frame::new(ctx),
        proto as u8,
        (l4 & HEADER_MASK) as usize,
    ))
}

impl Direct for Frame {
    #[inline(always)]
    fn set_half(&self, offset: usize, value: u16) -> Option<()> {
        let p = self.at::<u16>(offset)?;
        // SAFETY: as above; the program owns the packet while it runs.
        unsafe { *p = value };
        Some(())
    }

    #[inline(always)]
    fn set_words<const N: usize>(&self, offset: usize, value: [u32; N]) -> Option<()> {
        let p = self.at::<[u32; N]>(offset)?;
        // SAFETY: as above.
        unsafe { *p = value };
        Some(())
    }
}
