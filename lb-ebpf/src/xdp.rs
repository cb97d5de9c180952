//! XDP ingress: DNAT up the stack, full NAT out again without leaving the driver.

use aya_ebpf::{
    bindings::{bpf_fib_lookup as FibLookup, xdp_action, xdp_md},
    macros::xdp,
    programs::XdpContext,
};
use lb_common::{
    Addr4, Addr6, Flow, Neighbour, NextHop, Reason, backend_kind, direction,
    headers::{
        ETH_IPV4, ETH_IPV6, ETH_LEN, Family as _, Packet, PacketMut, Payload, ethernet,
        skip_extensions,
    },
};

use crate::{
    answer::{ANSWER, TIME_EXCEEDED, lb_xdp_answer4, lb_xdp_answer6, too_big},
    dsr,
    extensions::{self, HEADER_MASK, L4_MASK},
    forward::{self, came_by, is_joined, malformed, may_send, next_hop, route, slow_path},
    ingress::{Action, Translation, decide, opening},
    maps::{LB_BACKENDS, LB_NEIGHBOURS, LB_NEXT_HOPS, LB_NODE},
    open::open_for,
    rewrite::translate,
    tables::{FIRST_FRAGMENT, Table, Tables},
    xdp_odd::{FIRST, lb_xdp_odd4, lb_xdp_odd6},
};

/// The packet between `data` and `data_end`.
pub struct Frame {
    ctx: *mut xdp_md,
    data: usize,
    end: usize,
}

/// Not XDP actions: the packet has no flow yet; its next hop must be asked for; it is none of the plain
/// kind.
const OPEN: u32 = 1 << 8;
const ASK: u32 = 1 << 9;
const ODD: u32 = 1 << 10;

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
            || lb_xdp_odd4(ctx, l3),
            |what| lb_xdp_answer4(ctx, l3, what),
        ),
        ETH_IPV6 => staged(
            |table| lb_xdp6(ctx, l3, table),
            |table| lb_xdp_ask6(ctx, l3, table),
            || lb_xdp_open6(ctx, l3),
            || lb_xdp_odd6(ctx, l3),
            |what| lb_xdp_answer6(ctx, l3, what),
        ),
        _ => xdp_action::XDP_PASS,
    }
}

#[inline(always)]
fn staged(
    path: impl Fn(u32) -> u32,
    ask: impl Fn(u32) -> u32,
    open: impl Fn() -> u32,
    odd: impl Fn() -> u32,
    answer: impl Fn(u32) -> u32,
) -> u32 {
    let path = |table: u32| match path(table) {
        ASK => match ask(table) {
            what if what & ANSWER != 0 => answer(what),
            action => action,
        },
        ODD => odd(),
        action => action,
    };
    let whole = |mark: u32| {
        opening(
            |table: Table| path(table.scalar() | mark),
            &open,
            OPEN,
            xdp_action::XDP_PASS,
            xdp_action::XDP_DROP,
        )
    };
    match whole(0) {
        FIRST => match whole(FIRST_FRAGMENT) {
            FIRST => xdp_action::XDP_PASS,
            action => action,
        },
        action => action,
    }
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
            ingress::<$addr>(&XdpContext::new(ctx), l3, table)
        }

        /// As the packet path, for a packet whose next hop only the kernel may know.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $ask(ctx: *mut xdp_md, l3: u32, table: u32) -> u32 {
            if ctx.is_null() {
                return xdp_action::XDP_PASS;
            }
            let l3 = (l3 & HEADER_MASK) as usize;
            by_kernel::<$addr>(&XdpContext::new(ctx), l3, table)
        }

        /// Opens a flow for the packet.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $open(ctx: *mut xdp_md, l3: u32) -> u32 {
            if ctx.is_null() {
                return Reason::Malformed as u32;
            }
            let ifindex = came_by(ctx);
            open_for::<$addr, _>(&Frame::new(ctx), (l3 & HEADER_MASK) as usize, ifindex)
        }
    };
}

stages!(Addr4, lb_xdp4, lb_xdp_ask4, lb_xdp_open4);
stages!(Addr6, lb_xdp6, lb_xdp_ask6, lb_xdp_open6);

#[inline(always)]
fn ingress<A: Tables>(ctx: &XdpContext, l3: usize, table: u32) -> u32 {
    let frame = &Frame::new(ctx.ctx);
    let Translation { at, key, flow, hop } = match decide::<A, _>(frame, l3, table) {
        Action::Pass => return xdp_action::XDP_PASS,
        Action::Open => return OPEN,
        Action::Odd => return ODD,
        Action::Translate(translation) => translation,
    };
    match flow.kind {
        backend_kind::HOST => match translate(frame, l3, &at, &key, flow, false) {
            Some(()) => xdp_action::XDP_PASS,
            None => malformed(),
        },
        // A tag would go along to wherever the untagged network leads. Opaque to the compiler, which would
        // otherwise know `l3` from here on and leave out a bounds check that the verifier needs.
        backend_kind::NET if core::hint::black_box(l3) == ETH_LEN => {
            match LB_NEXT_HOPS.get(u32::from(hop)) {
                Some(hop) if hop.ifindex != 0 && u32::from(at.len) <= hop.mtu && at.ttl > 1 => {
                    match translate(frame, l3, &at, &key, flow, true) {
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
        _ if at.ttl <= 1 => ASK,
        // Tagged, or out of a bridge or veth, where the kernel must find the neighbour and the port.
        _ => slow_path(),
    }
}

/// As [`ingress`] for what goes to another host, with the next hop of the kernel's route and neighbour
/// tables. A client's is kept in its flow. What cannot go on gives an [`ANSWER`].
#[inline(always)]
fn by_kernel<A: Tables>(ctx: &XdpContext, l3: usize, table: u32) -> u32 {
    let frame = &Frame::new(ctx.ctx);
    let Action::Translate(Translation { at, key, flow, hop }) = decide::<A, _>(frame, l3, table)
    else {
        return slow_path();
    };
    let kind = flow.kind;
    let dsr = backend_kind::is_dsr(kind);
    if at.ttl <= 1 && !dsr {
        return TIME_EXCEEDED;
    }
    // Opaque as in [`ingress`].
    if kind == backend_kind::LINK || core::hint::black_box(l3) != ETH_LEN {
        return slow_path();
    }
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
    let known = LB_NEXT_HOPS.get(u32::from(hop));
    let found = match known {
        Some(hop) if hop.ifindex != 0 && u32::from(len) > hop.mtu => Err(hop.mtu),
        _ => route(ctx.ctx, len, key.proto as u8, src, dst),
    };
    let fib = match found {
        Ok(fib) => fib,
        Err(mtu) if mtu != 0 && !is_joined(ctx.ctx) => {
            return too_big(mtu.saturating_sub(dsr::overhead::<A>(kind)));
        }
        Err(_) => return slow_path(),
    };
    if !may_send(ctx.ctx, fib.ifindex) {
        return slow_path();
    }
    let hop = next_hop(&fib);
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
    match translate(frame, l3, &at, &key, flow, true) {
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
    forward::send(ctx.ctx, hop.ifindex)
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
        extensions::unpack(
            lb_xdp_extensions(self.ctx, u32::from(proto), l4 as u32),
            L4_MASK,
        )
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

impl PacketMut for Frame {
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
