//! The last guard: no socket of the node is found for a VIP, whatever listens on the wildcard address.
//!
//! `SK_DROP` means *no socket* (`bpf_sk_lookup_run_v4` in `include/linux/filter.h`), so the stack
//! answers as for a closed port: TCP reset, ICMP port unreachable. Kernel 5.9 and later.

use aya_ebpf::{
    bindings::sk_action::{SK_DROP, SK_PASS},
    macros::sk_lookup,
    programs::SkLookupContext,
};
use lb_common::{Addr4, Addr6, Reason, addr_flag};

use crate::{counters, tables::Tables};

const AF_INET: u32 = 2;

#[sk_lookup]
pub fn lb_sk_lookup(ctx: SkLookupContext) -> u32 {
    // SAFETY: context fields.
    let vip = unsafe {
        if (*ctx.lookup).family == AF_INET {
            is_vip(Addr4((*ctx.lookup).local_ip4))
        } else {
            let ip = (&raw const (*ctx.lookup).local_ip6).cast::<u32>();
            is_vip(Addr6([
                ip.read_volatile(),
                ip.add(1).read_volatile(),
                ip.add(2).read_volatile(),
                ip.add(3).read_volatile(),
            ]))
        }
    };
    if vip {
        counters::count(Reason::LocalSocketGuarded);
        return SK_DROP;
    }
    SK_PASS
}

#[inline(always)]
fn is_vip<A: Tables>(addr: A) -> bool {
    A::address_flags(&addr) & addr_flag::VIP != 0
}
