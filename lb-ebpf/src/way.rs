//! tc: by which interface a reply leaves.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_FIB_LKUP_RET_NO_NEIGH, bpf_fib_lookup as FibLookup},
    helpers::generated::bpf_fib_lookup,
};
use lb_common::{Addr4, Addr6, Flow};

use crate::{maps::LB_NODE, tables::Tables};

/// The interface to the client of a flow: that of the route, asked for once as long as no route changes. The client's
/// packets may come by another one, or from a peer, or with the tag of a VLAN; where the tables cannot say it is the one
/// that they came by.
#[inline(always)]
pub fn way_back<A: Tables>(skb: *mut __sk_buff, flow: &mut Flow<A>) -> u32 {
    if let Some(node) = LB_NODE.get(0)
        && node.route_epoch != flow.route_epoch
    {
        let ifindex = A::way(skb, flow);
        if ifindex != 0 {
            flow.client_ifindex = ifindex;
        }
        flow.next_hop = 0;
        flow.route_epoch = node.route_epoch;
    }
    flow.client_ifindex
}

/// The interface of the route; 0 where there is none.
#[inline(always)]
fn way<A: Tables>(skb: *mut __sk_buff, flow: &Flow<A>) -> u32 {
    // SAFETY: all-zero bytes are a value of this C struct.
    let mut fib: FibLookup = unsafe { core::mem::zeroed() };
    fib.family = A::AF;
    // SAFETY: a plain read of the context.
    fib.ifindex = unsafe { (*skb).ifindex };
    fib.__bindgen_anon_3.ipv6_src = flow.new_src.widen().0;
    fib.__bindgen_anon_4.ipv6_dst = flow.new_dst.widen().0;
    // SAFETY: `fib` is as long as told.
    let ret = unsafe { bpf_fib_lookup(skb.cast(), &mut fib, size_of::<FibLookup>() as i32, 0) };
    if ret == 0 || ret == i64::from(BPF_FIB_LKUP_RET_NO_NEIGH) {
        fib.ifindex
    } else {
        0
    }
}

macro_rules! stages {
    ($addr:ty, $way:ident) => {
        /// [`way`] as a function of its own.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $way(ctx: *mut __sk_buff, flow: *const Flow<$addr>) -> u32 {
            // SAFETY: null or a whole value, which is what the verifier grants for an argument of this type.
            match unsafe { flow.as_ref() } {
                Some(flow) if !ctx.is_null() => way(ctx, flow),
                _ => 0,
            }
        }
    };
}

stages!(Addr4, lb_tc_way4);
stages!(Addr6, lb_tc_way6);
