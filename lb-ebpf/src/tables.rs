//! The maps of each address family behind one trait, so that the packet path is written once.

use aya_ebpf::btf_maps::lpm_trie::Key;
use lb_common::{
    Addr4, Addr6, Address as _, Flow, FlowKey, NodeConfig, Service, ServiceKey,
    headers::{Family, TCP},
};

use crate::maps::{
    LB_ADDRS4, LB_ADDRS6, LB_FLOWS_TCP4, LB_FLOWS_TCP6, LB_FLOWS_UDP4, LB_FLOWS_UDP6, LB_SERVICES4,
    LB_SERVICES6, LB_SOURCES4, LB_SOURCES6,
};

/// `BPF_NOEXIST`: insert only a new key. It is the atomic claim of a tuple.
pub const NOEXIST: u64 = 1;
/// `BPF_ANY`.
pub const ANY: u64 = 0;

/// A family's maps. Each call site reaches one map, so that the verifier can inline the lookup.
pub trait Tables: Family {
    /// Bits of `addr_flag`, 0 for an address that is not ours.
    fn address_flags(addr: &Self) -> u32;
    fn service(key: &ServiceKey<Self>) -> Option<&'static Service>;
    fn flow(key: &FlowKey<Self>) -> Option<&'static mut Flow<Self>>;
    fn insert_flow(key: &FlowKey<Self>, flow: &Flow<Self>, flags: u64) -> Result<(), i32>;
    fn remove_flow(key: &FlowKey<Self>);
    /// Brings the time stamp and the state of a flow up to date; `ended`: FIN and RST bits.
    fn touch(key: &FlowKey<Self>, ended: u32);
    /// Opens a flow for a first packet: [`crate::open::OPENED`] or the number of a `Reason`.
    fn open(key: &FlowKey<Self>, flags: u32, ifindex: u32) -> u32;
    fn source_allowed(addr: Self) -> bool;
    /// `None` when the node has no address of this family.
    fn snat_address(node: &NodeConfig) -> Option<Self>;
}

macro_rules! tables {
    ($addr:ty, $addrs:ident, $services:ident, $tcp:ident, $udp:ident, $sources:ident, $snat:ident, $open:path, $touch:path) => {
        impl Tables for $addr {
            #[inline(always)]
            fn address_flags(addr: &Self) -> u32 {
                // SAFETY: the value is copied before any other map call.
                unsafe { $addrs.get(addr) }.copied().unwrap_or(0)
            }

            #[inline(always)]
            fn service(key: &ServiceKey<Self>) -> Option<&'static Service> {
                // SAFETY: RCU keeps the element's memory for the whole run; a reused slot shows another
                // service for one packet at worst.
                unsafe { $services.get(key) }
            }

            #[inline(always)]
            fn flow(key: &FlowKey<Self>) -> Option<&'static mut Flow<Self>> {
                let flow = if key.proto == u32::from(TCP) {
                    $tcp.get_ptr_mut(key)
                } else {
                    $udp.get_ptr_mut(key)
                }?;
                // SAFETY: valid for the run of the program; concurrent writers only move time stamps
                // and state bits.
                Some(unsafe { &mut *flow })
            }

            #[inline(always)]
            fn insert_flow(key: &FlowKey<Self>, flow: &Flow<Self>, flags: u64) -> Result<(), i32> {
                if key.proto == u32::from(TCP) {
                    $tcp.insert(key, flow, flags)
                } else {
                    $udp.insert(key, flow, flags)
                }
            }

            #[inline(always)]
            fn remove_flow(key: &FlowKey<Self>) {
                // An entry that is already gone is what the caller wants.
                let _ = if key.proto == u32::from(TCP) {
                    $tcp.remove(key)
                } else {
                    $udp.remove(key)
                };
            }

            #[inline(always)]
            fn open(key: &FlowKey<Self>, flags: u32, ifindex: u32) -> u32 {
                $open(key, flags, ifindex)
            }

            #[inline(always)]
            fn touch(key: &FlowKey<Self>, ended: u32) {
                $touch(key, ended);
            }

            #[inline(always)]
            fn source_allowed(addr: Self) -> bool {
                $sources
                    .get(&Key::new(Self::WORDS as u32 * 32, addr))
                    .is_some()
            }

            #[inline(always)]
            fn snat_address(node: &NodeConfig) -> Option<Self> {
                let addr = node.$snat;
                (addr != Self::default()).then_some(addr)
            }
        }
    };
}

tables!(
    Addr4,
    LB_ADDRS4,
    LB_SERVICES4,
    LB_FLOWS_TCP4,
    LB_FLOWS_UDP4,
    LB_SOURCES4,
    snat4,
    crate::open::lb_open4,
    crate::flows::lb_touch4
);
tables!(
    Addr6,
    LB_ADDRS6,
    LB_SERVICES6,
    LB_FLOWS_TCP6,
    LB_FLOWS_UDP6,
    LB_SOURCES6,
    snat6,
    crate::open::lb_open6,
    crate::flows::lb_touch6
);
