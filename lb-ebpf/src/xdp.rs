//! XDP ingress: DNAT up the stack, full NAT out again without leaving the driver.

use aya_ebpf::{
    EbpfContext as _, Global,
    bindings::{bpf_fib_lookup as FibLookup, xdp_action, xdp_md},
    helpers::generated::bpf_fib_lookup,
    macros::xdp,
    programs::XdpContext,
};
use lb_common::{
    Addr4, Addr6, Flow, Neighbour, NextHop, Reason, backend_kind, direction,
    headers::{
        ETH_IPV4, ETH_IPV6, ETH_LEN, Family as _, Packet, Payload, ethernet, skip_extensions,
    },
};

use crate::{
    counters, dsr,
    extensions::{self, HEADER_MASK},
    ingress::{Action, Translation, decide, opening},
    maps::{LB_BACKENDS, LB_NEIGHBOURS, LB_NEXT_HOPS, LB_NODE, LB_PORTS},
    open::open_for,
    rewrite::{Direct, translate},
    tables::{Table, Tables},
};

/// Not 0: a packet that leaves by the interface it came in by is redirected, not transmitted.
///
/// `XDP_TX` on a veth wakes the other end only if an XDP program is there as well (`veth_xdp_flush` in
/// `drivers/net/veth.c`); a redirect always does.
// Used: the compiler may otherwise let an equal constant share its place, which the agent overwrites.
#[used]
#[unsafe(no_mangle)]
static TX_BY_REDIRECT: Global<u8> = Global::new(0);

/// The packet between `data` and `data_end`.
pub struct Frame {
    ctx: *mut xdp_md,
    data: usize,
    end: usize,
}

/// Not XDP actions: the packet has no flow yet; its next hop must be asked for.
const OPEN: u32 = 1 << 8;
const ASK: u32 = 1 << 9;

#[xdp(frags)]
pub fn lb_xdp(ctx: XdpContext) -> u32 {
    let (ethertype, l3) = match ethernet(&Frame::new(ctx.ctx)) {
        Some((ethertype, l3)) => (ethertype, l3 as u32),
        None => return xdp_action::XDP_PASS,
    };
    let ctx = ctx.ctx;
    match ethertype {
        ETH_IPV4 => staged(
            |table| lb_xdp4(ctx, l3, table),
            |table| lb_xdp_ask4(ctx, l3, table),
            || lb_xdp_open4(ctx, l3),
        ),
        ETH_IPV6 => staged(
            |table| lb_xdp6(ctx, l3, table),
            |table| lb_xdp_ask6(ctx, l3, table),
            || lb_xdp_open6(ctx, l3),
        ),
        _ => xdp_action::XDP_PASS,
    }
}

#[inline(always)]
fn staged(path: impl Fn(u32) -> u32, ask: impl Fn(u32) -> u32, open: impl Fn() -> u32) -> u32 {
    let path = |table: Table| match path(table.scalar()) {
        ASK => ask(table.scalar()),
        action => action,
    };
    opening(path, open, OPEN, xdp_action::XDP_PASS, xdp_action::XDP_DROP)
}

macro_rules! stages {
    ($addr:ty, $path:ident, $ask:ident, $open:ident) => {
        /// The packet path of one family. Global, so that its frame is its own and the verifier walks it
        /// once.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $path(ctx: *mut xdp_md, l3: u32, table: u32) -> u32 {
            if ctx.is_null() {
                return xdp_action::XDP_PASS;
            }
            let l3 = (l3 & HEADER_MASK) as usize;
            ingress::<$addr>(&XdpContext::new(ctx), l3, Table::of(table))
        }

        /// As the packet path, for a packet whose next hop only the kernel may know.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $ask(ctx: *mut xdp_md, l3: u32, table: u32) -> u32 {
            if ctx.is_null() {
                return xdp_action::XDP_PASS;
            }
            let l3 = (l3 & HEADER_MASK) as usize;
            by_kernel::<$addr>(&XdpContext::new(ctx), l3, Table::of(table))
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

stages!(Addr4, lb_xdp4, lb_xdp_ask4, lb_xdp_open4);
stages!(Addr6, lb_xdp6, lb_xdp_ask6, lb_xdp_open6);

#[inline(always)]
fn ingress<A: Tables>(ctx: &XdpContext, l3: usize, table: Table) -> u32 {
    let frame = &Frame::new(ctx.ctx);
    let Translation { at, key, flow, hop } = match decide::<A, _>(frame, l3, table) {
        Action::Pass => return xdp_action::XDP_PASS,
        Action::Drop => return xdp_action::XDP_DROP,
        Action::Open => return OPEN,
        Action::Translate(translation) => translation,
    };
    match flow.kind {
        backend_kind::HOST => match translate(frame, l3, &at, &key, flow) {
            Some(()) => xdp_action::XDP_PASS,
            None => malformed(),
        },
        // A tag would go along to wherever the untagged network leads. Opaque to the compiler, which would
        // otherwise know `l3` from here on and leave out a bounds check that the verifier needs.
        backend_kind::NET if core::hint::black_box(l3) == ETH_LEN => {
            match LB_NEXT_HOPS.get(u32::from(hop)) {
                Some(hop) if hop.ifindex != 0 && u32::from(at.len) <= hop.mtu => {
                    match translate(frame, l3, &at, &key, flow) {
                        Some(()) => send(ctx, hop),
                        None => malformed(),
                    }
                }
                _ => ASK,
            }
        }
        kind if backend_kind::is_dsr(kind) && core::hint::black_box(l3) == ETH_LEN => {
            let len = u32::from(at.len) + dsr::overhead::<A>(kind);
            let id = flow.backend;
            match (LB_NEXT_HOPS.get(u32::from(hop)), LB_BACKENDS.get(id)) {
                (Some(hop), Some(backend)) if hop.ifindex != 0 && len <= hop.mtu => {
                    match dsr::wrap::<A>(ctx.ctx, &at, kind, id, backend) {
                        Some(()) => send(ctx, hop),
                        None => malformed(),
                    }
                }
                _ => ASK,
            }
        }
        // Tagged, or out of a bridge or veth, where the kernel must find the neighbour and the port.
        _ => slow_path(),
    }
}

/// As [`ingress`] for full NAT, with the next hop of the kernel's route and neighbour tables. A client's
/// is kept in its flow.
#[inline(always)]
fn by_kernel<A: Tables>(ctx: &XdpContext, l3: usize, table: Table) -> u32 {
    let frame = &Frame::new(ctx.ctx);
    let Action::Translate(Translation { at, key, flow, .. }) = decide::<A, _>(frame, l3, table)
    else {
        return slow_path();
    };
    let kind = flow.kind;
    let dsr = backend_kind::is_dsr(kind);
    let (src, dst) = if dsr {
        match (
            LB_NODE.get(0).and_then(A::snat_address),
            LB_BACKENDS.get(flow.backend),
        ) {
            (Some(src), Some(backend)) => (src, A::narrow(&backend.addr)),
            _ => return slow_path(),
        }
    } else {
        (flow.new_src, flow.new_dst)
    };
    let len = at.len.saturating_add(dsr::overhead::<A>(kind) as u16);
    let Some(fib) = route(ctx, len, key.proto as u8, src, dst) else {
        return slow_path();
    };
    if !is_transmitted(ctx, fib.ifindex) && LB_PORTS.get(fib.ifindex).is_none() {
        return slow_path();
    }
    // SAFETY: six bytes each, at even offsets of a C struct aligned to 4.
    let hop = unsafe {
        NextHop {
            to: fib.dmac.as_ptr().cast::<[u16; 3]>().read(),
            from: fib.smac.as_ptr().cast::<[u16; 3]>().read(),
            ifindex: fib.ifindex,
            mtu: 0,
        }
    };
    if dsr {
        let id = flow.backend;
        let Some(backend) = LB_BACKENDS.get(id) else {
            return slow_path();
        };
        return match dsr::wrap::<A>(ctx.ctx, &at, kind, id, backend) {
            Some(()) => send(ctx, &hop),
            None => malformed(),
        };
    }
    if flow.direction == direction::REVERSE {
        remember(flow, &fib);
    }
    match translate(frame, l3, &at, &key, flow) {
        Some(()) => send(ctx, &hop),
        None => malformed(),
    }
}

/// Notes the client's next hop in its flow, if the agent keeps one for it.
#[inline(always)]
fn remember<A: Tables>(flow: &mut Flow<A>, fib: &FibLookup) {
    let v4 = fib.family == Addr4::AF;
    // SAFETY: a union of plain words, zero where the lookup wrote nothing.
    let (addr4, addr6) = unsafe {
        let words = &fib.__bindgen_anon_4;
        (words.ipv4_dst, words.ipv6_dst)
    };
    let neighbour = Neighbour {
        ifindex: fib.ifindex,
        family: if v4 { 4 } else { 6 },
        addr: Addr6(if v4 { [addr4, 0, 0, 0] } else { addr6 }),
    };
    // SAFETY: the value is copied before any other map call.
    let hop = unsafe { LB_NEIGHBOURS.get(neighbour) }.copied();
    if let (Some(hop), Some(node)) = (hop, LB_NODE.get(0)) {
        flow.route_epoch = node.route_epoch;
        flow.next_hop = hop as u16;
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
fn route<A: Tables>(ctx: &XdpContext, len: u16, proto: u8, src: A, dst: A) -> Option<FibLookup> {
    // SAFETY: all-zero bytes are a value of this C struct.
    let mut fib: FibLookup = unsafe { core::mem::zeroed() };
    fib.family = A::AF;
    fib.l4_protocol = proto;
    fib.ifindex = ctx.ingress_ifindex() as u32;
    fib.__bindgen_anon_1.tot_len = len;
    fib.__bindgen_anon_3.ipv6_src = src.widen().0;
    fib.__bindgen_anon_4.ipv6_dst = dst.widen().0;
    // SAFETY: `fib` is as long as told.
    let ret = unsafe { bpf_fib_lookup(ctx.as_ptr(), &mut fib, size_of::<FibLookup>() as i32, 0) };
    (ret == 0).then_some(fib)
}

/// Whether a packet for this interface goes back where it came from.
#[inline(always)]
fn is_transmitted(ctx: &XdpContext, ifindex: u32) -> bool {
    ifindex == ctx.ingress_ifindex() as u32 && TX_BY_REDIRECT.load() == 0
}

/// Writes the Ethernet header of a translated packet and sends it.
#[inline(always)]
fn send(ctx: &XdpContext, hop: &NextHop) -> u32 {
    // The packet's bounds are read again: to the compiler the check behind the network header covers the
    // Ethernet header as well, to the verifier it does not.
    let Some(ethernet) = Frame::new(ctx.ctx).at::<[[u16; 3]; 2]>(0) else {
        return malformed();
    };
    // SAFETY: inside the packet.
    unsafe { *ethernet = [hop.to, hop.from] };
    if is_transmitted(ctx, hop.ifindex) {
        return xdp_action::XDP_TX;
    }
    LB_PORTS.redirect(hop.ifindex, 0).unwrap_or_else(|_| {
        counters::count(Reason::NotSent);
        xdp_action::XDP_DROP
    })
}

// === impl Frame ===

impl Frame {
    #[inline(always)]
    pub fn new(ctx: *mut xdp_md) -> Self {
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
    pub fn at<T>(&self, offset: usize) -> Option<*mut T> {
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
