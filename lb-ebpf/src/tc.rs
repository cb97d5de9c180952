//! The tc programs: the ingress twin of XDP, the ingress of interfaces behind which backends live, and
//! the egress that gives replies the VIP's address back.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, TC_ACT_OK, TC_ACT_SHOT},
    helpers::generated::{bpf_csum_update, bpf_redirect_neigh, bpf_skb_load_bytes},
    macros::classifier,
    programs::TcContext,
};
use lb_common::{
    Addr4, Addr6, Flow, FlowKey, Reason, backend_kind, direction,
    headers::{
        ETH_IPV4, ETH_IPV6, ETH_LEN, Packet, Payload, TCP, UDP, checksum_offset, flow_key,
        skip_extensions, tcp_flags,
    },
};

use crate::{
    counters, dsr,
    extensions::{self, HEADER_MASK},
    flows::{self, Known},
    ingress::{Action, Layout, Translation, decide, opening},
    maps::LB_BACKENDS,
    open::open_for,
    rewrite::{IPV4_CHECKSUM, count},
    tables::{Table, Tables},
};

/// A socket buffer, read and written by helper: it may be paged, shared, and its checksum unfinished.
struct Buffer(*mut __sk_buff);

/// Takes what XDP left: next hops that the kernel must resolve, containers behind a bridge, bridges
/// themselves (which have no native XDP), and everything where XDP is off.
#[classifier]
pub fn lb_tc_ingress(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    match network_header(&ctx) {
        Some(ETH_IPV4) => staged(|table| lb_tc4(skb, table), || lb_tc_open4(skb)),
        Some(ETH_IPV6) => staged(|table| lb_tc6(skb, table), || lb_tc_open6(skb)),
        _ => TC_ACT_OK,
    }
}

/// Not a tc action: the packet has no flow yet.
const OPEN: i32 = 1 << 8;

#[inline(always)]
fn staged(path: impl Fn(u32) -> i32, open: impl Fn() -> u32) -> i32 {
    opening(
        |table| path(table.scalar()),
        open,
        OPEN,
        TC_ACT_OK,
        TC_ACT_SHOT,
    )
}

macro_rules! stages {
    ($addr:ty, $path:ident, $open:ident) => {
        /// The packet path of one family. Global, so that its frame is its own and the verifier walks it
        /// once.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $path(ctx: *mut __sk_buff, table: u32) -> i32 {
            if ctx.is_null() {
                return TC_ACT_OK;
            }
            ingress::<$addr>(&TcContext::new(ctx), Table::of(table))
        }

        /// Opens a flow for the packet.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $open(ctx: *mut __sk_buff) -> u32 {
            if ctx.is_null() {
                return Reason::Malformed as u32;
            }
            // SAFETY: a plain read of the context.
            let ifindex = unsafe { (*ctx).ingress_ifindex };
            open_for::<$addr, _>(&Buffer(ctx), ETH_LEN, ifindex)
        }
    };
}

stages!(Addr4, lb_tc4, lb_tc_open4);
stages!(Addr6, lb_tc6, lb_tc_open6);

/// On an interface behind which backends of this node live: their replies to outside clients leave by
/// the client's interface at once, past the host's FORWARD rules and masquerading.
#[classifier]
pub fn lb_tc_link(ctx: TcContext) -> i32 {
    let reply = match network_header(&ctx) {
        Some(ETH_IPV4) => link_reply::<Addr4>(&ctx),
        Some(ETH_IPV6) => link_reply::<Addr6>(&ctx),
        _ => None,
    };
    reply.unwrap_or(TC_ACT_OK)
}

/// Replies of this host's own sockets on their way out.
#[classifier]
pub fn lb_tc_egress(ctx: TcContext) -> i32 {
    let reply = match network_header(&ctx) {
        Some(ETH_IPV4) => host_reply::<Addr4>(&ctx),
        Some(ETH_IPV6) => host_reply::<Addr6>(&ctx),
        _ => None,
    };
    reply.unwrap_or(TC_ACT_OK)
}

/// The EtherType, host order. VLAN tags are outside the buffer here (`skb->vlan_tci`).
#[inline(always)]
fn network_header(ctx: &TcContext) -> Option<u16> {
    Some(u16::from_be(Buffer(ctx.skb.skb).half(ETH_LEN - 2)?))
}

#[inline(always)]
fn ingress<A: Tables>(ctx: &TcContext, table: Table) -> i32 {
    let Translation { at, key, flow, .. } =
        match decide::<A, _>(&Buffer(ctx.skb.skb), ETH_LEN, table) {
            Action::Pass => return TC_ACT_OK,
            Action::Drop => return TC_ACT_SHOT,
            Action::Open => return OPEN,
            Action::Translate(translation) => translation,
        };
    if backend_kind::is_dsr(flow.kind) {
        return dsr::send::<A>(ctx, &at, flow.kind, flow.backend).unwrap_or_else(|| {
            counters::count(Reason::NotSent);
            TC_ACT_SHOT
        });
    }
    let out = match (flow.kind, flow.direction) {
        (backend_kind::HOST, _) => 0,
        (_, direction::REVERSE) => flow.client_ifindex,
        _ => LB_BACKENDS
            .get(flow.backend)
            .map_or(0, |backend| backend.ifindex),
    };
    if translate(ctx, &at, &key, flow).is_none() {
        counters::count(Reason::Malformed);
        return TC_ACT_SHOT;
    }
    if out == 0 { TC_ACT_OK } else { send(out) }
}

#[inline(always)]
fn link_reply<A: Tables>(ctx: &TcContext) -> Option<i32> {
    let (at, key, flow) = reply::<A>(ctx)?;
    let out = flow.client_ifindex;
    Some(match translate(ctx, &at, &key, flow) {
        Some(()) => send(out),
        None => TC_ACT_SHOT,
    })
}

#[inline(always)]
fn host_reply<A: Tables>(ctx: &TcContext) -> Option<i32> {
    let (at, key, flow) = reply::<A>(ctx)?;
    Some(match translate(ctx, &at, &key, flow) {
        Some(()) => TC_ACT_OK,
        None => TC_ACT_SHOT,
    })
}

/// A packet from a backend of this node to an outside client.
#[inline(always)]
fn reply<A: Tables>(ctx: &TcContext) -> Option<(Layout, FlowKey<A>, &'static Flow<A>)> {
    let packet = Buffer(ctx.skb.skb);
    let ip = A::parse(&packet, ETH_LEN)?;
    if ip.fragment || (ip.proto != TCP && ip.proto != UDP) {
        return None;
    }
    let key = flow_key(&packet, &ip)?;
    let at = Layout {
        l4: ip.l4,
        len: ip.len,
    };
    let (table, flow) = match A::flow(Table::Main, &key) {
        Some(flow) => (Table::Main, flow),
        None if key.proto == u32::from(TCP) => (Table::Half, A::flow(Table::Half, &key)?),
        None => return None,
    };
    if flow.direction != direction::REVERSE || flow.kind == backend_kind::NET {
        return None;
    }
    let flags = if key.proto == u32::from(TCP) {
        tcp_flags(&packet, at.l4)?
    } else {
        0
    };
    match flows::follow(table, &key, flow, flags) {
        Known::Go(_) => Some((at, key, flow)),
        Known::Stale | Known::Reset => None,
    }
}

/// Out of `ifindex`, with the next hop resolved by the kernel.
#[inline(always)]
fn send(ifindex: u32) -> i32 {
    // SAFETY: no parameters: the kernel looks the route up by the packet's addresses.
    unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) as i32 }
}

/// Rewrites addresses, ports and checksums. A checksum that the device is to finish holds the pseudo
/// header alone, so the addresses' difference goes in with `BPF_F_PSEUDO_HDR` and the ports' without.
#[inline(always)]
fn translate<A: Tables>(
    ctx: &TcContext,
    at: &Layout,
    key: &FlowKey<A>,
    flow: &Flow<A>,
) -> Option<()> {
    let (addresses, ports) = (u64::from(flow.addr_delta), u64::from(flow.port_delta));
    let (src, dst) = (flow.new_src, flow.new_dst);
    let new_ports = [flow.new_sport.0, flow.new_dport.0];
    count(at, flow);
    let mangled = if key.proto == u32::from(UDP) {
        u64::from(BPF_F_MARK_MANGLED_0)
    } else {
        0
    };
    let checksum = checksum_offset(key.proto, at.l4);
    let pseudo = u64::from(BPF_F_PSEUDO_HDR) | mangled;
    ctx.l4_csum_replace(checksum, 0, addresses, pseudo).ok()?;
    ctx.l4_csum_replace(checksum, 0, ports, mangled).ok()?;
    ctx.store(at.l4, &new_ports, 0).ok()?;
    if A::VERSION == 4 {
        ctx.l3_csum_replace(ETH_LEN + IPV4_CHECKSUM, 0, addresses, 0)
            .ok()?;
    }
    ctx.store(ETH_LEN + A::ADDRESSES.0, &src, 0).ok()?;
    ctx.store(ETH_LEN + A::ADDRESSES.1, &dst, 0).ok()?;
    if A::VERSION == 6 {
        // Where the device has summed the packet, `BPF_F_PSEUDO_HDR` takes the addresses' difference from
        // its sum: right for IPv4, whose header checksum makes up for the addresses. IPv6 has none, so it
        // goes back in. (Kernel 6.16 has `BPF_F_IPV6` for this.) Without such a sum the helper refuses,
        // and nothing is to be done.
        // SAFETY: the context of this program; no pointers.
        unsafe { bpf_csum_update(ctx.skb.skb, addresses as u32) };
    }
    Some(())
}

// === impl Buffer ===

impl Packet for Buffer {
    #[inline(always)]
    fn half(&self, offset: usize) -> Option<u16> {
        self.load(offset)
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        self.load(offset)
    }

    #[inline(always)]
    fn extensions(&self, proto: u8, l4: usize) -> Option<Payload> {
        extensions::unpack(lb_tc_extensions(self.0, u32::from(proto), l4 as u32))
    }
}

/// [`skip_extensions`] as a function of its own.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_tc_extensions(ctx: *mut __sk_buff, proto: u32, l4: u32) -> u64 {
    if ctx.is_null() {
        return extensions::NONE;
    }
    extensions::pack(skip_extensions(
        &Buffer(ctx),
        proto as u8,
        (l4 & HEADER_MASK) as usize,
    ))
}

impl Buffer {
    #[inline(always)]
    fn load<T: Copy>(&self, offset: usize) -> Option<T> {
        let mut value = core::mem::MaybeUninit::<T>::uninit();
        // SAFETY: the helper fills exactly the bytes told, or fails.
        let ret = unsafe {
            bpf_skb_load_bytes(
                self.0.cast(),
                offset as u32,
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
            )
        };
        // SAFETY: filled when the helper says 0; integers have no invalid bytes.
        (ret == 0).then(|| unsafe { value.assume_init() })
    }
}
