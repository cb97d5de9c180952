//! Where a socket will speak from, for the lists of services: at its call the kernel has rarely chosen yet.

use aya_ebpf::Global;
use lb_common::{Addr4, Addr6, Address as _, AffinityKey, headers::Family as _};

use crate::{
    maps::{LB_NETNS, LB_NODE},
    tables::{ANY, Tables},
};

/// Cookie of the agent's own network namespace.
// Used: as `NEW_FLOWS`.
#[used]
#[unsafe(no_mangle)]
static NETNS: Global<u64> = Global::new(0);

/// A network namespace as clients' tables name it.
#[inline(always)]
pub fn client_of(netns: u64, service: u32) -> AffinityKey {
    AffinityKey {
        client: Addr6([netns as u32, (netns >> 32) as u32, 0, 0]),
        service,
        family: 0,
    }
}

/// The address of a socket that is bound to `bound`, or to none if that is zero: the node's own in its namespace,
/// elsewhere the one that this namespace spoke from before; zero if nobody knows.
#[inline(always)]
pub(super) fn source<A: Tables + Default>(netns: u64, bound: A) -> A {
    if bound != A::default() {
        return bound;
    }
    if netns == NETNS.load() {
        let node = LB_NODE.get(0).and_then(A::snat_address);
        return node.unwrap_or_default();
    }
    // SAFETY: copied before any other map call.
    let known = unsafe { LB_NETNS.get(spoken_of(netns, A::VERSION)) }.copied();
    known.map_or_else(A::default, |addr| A::narrow(&addr))
}

/// Takes note of where a namespace speaks from; `addr`: as the socket has it.
#[inline(always)]
pub fn learn(netns: u64, addr: Addr6, is_v6: bool) {
    if netns == NETNS.load() {
        return;
    }
    let (addr, version) = match addr.unmap() {
        _ if !is_v6 => (addr, Addr4::VERSION),
        Some(mapped) => (mapped.widen(), Addr4::VERSION),
        None => (addr, Addr6::VERSION),
    };
    let key = spoken_of(netns, version);
    // SAFETY: copied before any other map call.
    let known = unsafe { LB_NETNS.get(key) }.copied();
    if known != Some(addr) {
        // A full table forgets the oldest namespace.
        let _ = LB_NETNS.insert(key, addr, ANY);
    }
}

#[inline(always)]
fn spoken_of(netns: u64, version: u8) -> AffinityKey {
    AffinityKey {
        family: u32::from(version),
        ..client_of(netns, 0)
    }
}
