//! The maps of each address family behind one trait, so that the packet path is written once.

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::__sk_buff, btf_maps::lpm_trie::Key};
use lb_common::{
    Addr4, Addr6, Address as _, AffinityKey, Flow, FlowKey, NodeConfig, SOURCE_BITS, Service,
    ServiceKey, SourceKey, filter_slot,
    fragment::{FragmentKey, FragmentPorts},
    geneve::Encapsulate,
    headers::TCP,
    icmp::Icmp,
};

use crate::maps::{
    LB_ADDRS4, LB_ADDRS6, LB_DRAFT4, LB_DRAFT6, LB_FILTER4, LB_FILTER6, LB_FLOWS_HALF4,
    LB_FLOWS_HALF6, LB_FLOWS_TCP4, LB_FLOWS_TCP6, LB_FLOWS_UDP4, LB_FLOWS_UDP6, LB_FRAGMENTS4,
    LB_FRAGMENTS6, LB_LISTS4, LB_LISTS6, LB_SENDERS4, LB_SENDERS6, LB_SERVICES4, LB_SERVICES6,
    LB_SOURCES4, LB_SOURCES6,
};
use crate::peer::Given;

/// `BPF_NOEXIST`: insert only a new key. It is the atomic claim of a tuple.
pub const NOEXIST: u64 = 1;
/// `BPF_ANY`.
pub const ANY: u64 = 0;

/// Which flow table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// The table of the key's protocol: established TCP, UDP.
    Main,
    /// TCP before the client's first ACK.
    Half,
    /// None: the flow of the packet at hand alone, as it stands in [`Tables::draft`].
    Draft,
}

/// Beside a table in the argument of a packet path: the packet is the first fragment of a larger one, which
/// has all that the path asks for.
pub const FIRST_FRAGMENT: u32 = 2;
/// The same: the packet came from a peer, and goes to a backend of this node or nowhere.
pub const FROM_PEER: u32 = 4;
/// [`Table::Draft`] as such an argument.
const DRAFT: u32 = 8;

// === impl Table ===

impl Table {
    /// As an argument of a global function.
    #[inline(always)]
    pub fn scalar(self) -> u32 {
        match self {
            Self::Main => 0,
            Self::Half => 1,
            Self::Draft => DRAFT,
        }
    }

    /// The reverse of [`Table::scalar`].
    #[inline(always)]
    pub fn of(scalar: u32) -> Self {
        if scalar & DRAFT != 0 {
            Self::Draft
        } else if scalar & 1 == 0 {
            Self::Main
        } else {
            Self::Half
        }
    }
}

/// Both halves of a flow while they are made, one after the other.
///
/// In a map: the stack holds 512 bytes for all frames of a call, and kernels before 6.2 look up only what is on the
/// stack, in a packet or in a map, which an argument of a function is not.
#[repr(C)]
pub struct Draft<A> {
    // First: kernels before 6.2 refuse to add to a pointer that may be null, as the compiler does before it asks.
    pub flow: Flow<A>,
    pub key: FlowKey<A>,
}

/// A family's maps. Each call site reaches one map, so that the verifier can inline the lookup.
pub trait Tables: Icmp + Encapsulate {
    /// Bits of `addr_flag` of the addresses that share this one's slot: 0 is certain, others are not.
    fn filter(addr: &Self) -> u8;
    /// Bits of `addr_flag`, 0 for an address that is not ours.
    fn address_flags(addr: &Self) -> u32;
    fn service(key: &ServiceKey<Self>) -> Option<&'static Service>;
    /// As [`Tables::flow`], for the packet path: the key goes to memory in whole words.
    fn fast_flow(table: Table, key: &FlowKey<Self>) -> Option<&'static mut Flow<Self>>;
    fn flow(table: Table, key: &FlowKey<Self>) -> Option<&'static mut Flow<Self>>;
    fn insert_flow(
        table: Table,
        key: &FlowKey<Self>,
        flow: &Flow<Self>,
        flags: u64,
    ) -> Result<(), i32>;
    fn remove_flow(table: Table, key: &FlowKey<Self>);
    /// This CPU's: what runs on it until a flow is made is not interrupted by another that makes one.
    fn draft() -> Option<&'static mut Draft<Self>>;
    /// Brings the time stamp and the state of a flow up to date; `flags`: those of the
    /// TCP segment, or 0.
    fn touch(table: Table, key: &FlowKey<Self>, flags: u8);
    /// Finds a half-open flow: see [`crate::half::lb_half4`].
    fn half(key: &FlowKey<Self>, flags: u32) -> u32;
    /// Opens a flow for a first packet: a [`crate::open`] stage or the number of a `Reason`.
    fn open(key: &FlowKey<Self>, flags: u32, ifindex: u32) -> u32;
    /// What the first fragment of a packet said.
    fn fragment_ports(key: &FragmentKey<Self>) -> Option<FragmentPorts>;
    /// Remembers it.
    fn remember_fragment(key: &FragmentKey<Self>, ports: &FragmentPorts);
    fn source_allowed(addr: Self) -> bool;
    /// What a service's list says of a source: one of `source_rule`.
    fn source_rule(service: u32, addr: Self) -> Option<u32>;
    /// The interface of the route to a flow's client: see [`crate::way::lb_tc_way4`].
    fn way(skb: *mut __sk_buff, flow: &Flow<Self>) -> u32;
    /// The index of a peer that may send packets for this node's backends.
    fn sender(addr: &Self) -> Option<u32>;
    /// Looks for the flow of a peer's packet: see [`crate::peer::lb_adopt4`].
    fn adopt(key: &FlowKey<Self>, given: &Given<Self>) -> u32;
    /// Opens one: see [`crate::peer::lb_start4`].
    fn start(key: &FlowKey<Self>, given: &Given<Self>) -> u32;
    /// Whether the service takes a flow: see [`crate::admit::lb_admit4`].
    fn admit(service: &Service, key: &FlowKey<Self>) -> u32;
    /// Whether it takes a socket's flow: see [`crate::admit::lb_admit_local4`].
    fn admit_local(service: &Service, client: &AffinityKey, source: &Self) -> u32;
    /// A backend did not take a flow: see [`crate::suspect::lb_refused4`].
    fn refused(key: &FlowKey<Self>, why: u8) -> bool;
    /// `None` when the node has no address of this family.
    fn snat_address(node: &NodeConfig) -> Option<Self>;
}

/// Writes a key to memory as whole words: the compiler would store the parts where it can.
///
/// # Safety
///
/// The words must be a `K`.
#[inline(always)]
unsafe fn stored<K, const N: usize>(memory: &mut MaybeUninit<K>, words: [u64; N]) -> &K {
    const { assert!(size_of::<[u64; N]>() == size_of::<K>() && align_of::<K>() == 8) };
    for (i, word) in words.into_iter().enumerate() {
        // SAFETY: as large as the key, and as aligned. One by one: an array would be copied.
        unsafe {
            memory
                .as_mut_ptr()
                .cast::<u64>()
                .add(i)
                .write_volatile(word)
        };
    }
    // SAFETY: all of it is written.
    unsafe { memory.assume_init_ref() }
}

macro_rules! tables {
    ($addr:ty, $filter:ident, $addrs:ident, $services:ident, $tcp:ident, $half_open:ident, $udp:ident, $draft:ident, $sources:ident, $lists:ident, $fragments:ident, $senders:ident, $snat:ident, $way:path, $adopt:path, $start:path, $admit:path, $admit_local:path, $half:path, $open:path, $touch:path, $refused:path) => {
        impl Tables for $addr {
            #[inline(always)]
            fn filter(addr: &Self) -> u8 {
                match $filter.get(0) {
                    Some(slots) => slots[usize::from(filter_slot(addr))],
                    None => 0,
                }
            }

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
            fn fast_flow(table: Table, key: &FlowKey<Self>) -> Option<&'static mut Flow<Self>> {
                if table == Table::Draft {
                    return Self::draft().map(|draft| &mut draft.flow);
                }
                let mut memory = MaybeUninit::uninit();
                // SAFETY: the words are those of the key.
                let in_memory: &FlowKey<Self> = unsafe { stored(&mut memory, key.words()) };
                let flow = if table == Table::Half {
                    $half_open.get_ptr_mut(in_memory)
                } else if key.proto == u32::from(TCP) {
                    $tcp.get_ptr_mut(in_memory)
                } else {
                    $udp.get_ptr_mut(in_memory)
                }?;
                // SAFETY: as in [`Tables::flow`].
                Some(unsafe { &mut *flow })
            }

            #[inline(always)]
            fn flow(table: Table, key: &FlowKey<Self>) -> Option<&'static mut Flow<Self>> {
                let flow = if table == Table::Half {
                    $half_open.get_ptr_mut(key)
                } else if key.proto == u32::from(TCP) {
                    $tcp.get_ptr_mut(key)
                } else {
                    $udp.get_ptr_mut(key)
                }?;
                // SAFETY: valid for the run of the program; concurrent writers only move time stamps
                // and state bits.
                Some(unsafe { &mut *flow })
            }

            #[inline(always)]
            fn insert_flow(
                table: Table,
                key: &FlowKey<Self>,
                flow: &Flow<Self>,
                flags: u64,
            ) -> Result<(), i32> {
                if table == Table::Half {
                    $half_open.insert(key, flow, flags)
                } else if key.proto == u32::from(TCP) {
                    $tcp.insert(key, flow, flags)
                } else {
                    $udp.insert(key, flow, flags)
                }
            }

            #[inline(always)]
            fn remove_flow(table: Table, key: &FlowKey<Self>) {
                // An entry that is already gone is what the caller wants.
                let _ = if table == Table::Half {
                    $half_open.remove(key)
                } else if key.proto == u32::from(TCP) {
                    $tcp.remove(key)
                } else {
                    $udp.remove(key)
                };
            }

            #[inline(always)]
            fn half(key: &FlowKey<Self>, flags: u32) -> u32 {
                $half(key, flags)
            }

            #[inline(always)]
            fn open(key: &FlowKey<Self>, flags: u32, ifindex: u32) -> u32 {
                $open(key, flags, ifindex)
            }

            #[inline(always)]
            fn draft() -> Option<&'static mut Draft<Self>> {
                // SAFETY: one value for each CPU, see above.
                $draft.get_ptr_mut(0).map(|draft| unsafe { &mut *draft })
            }

            #[inline(always)]
            fn touch(table: Table, key: &FlowKey<Self>, flags: u8) {
                $touch(key, u32::from(flags), table.scalar());
            }

            #[inline(always)]
            fn fragment_ports(key: &FragmentKey<Self>) -> Option<FragmentPorts> {
                // SAFETY: the value is copied before any other map call.
                unsafe { $fragments.get(key) }.copied()
            }

            #[inline(always)]
            fn remember_fragment(key: &FragmentKey<Self>, ports: &FragmentPorts) {
                // Without it the others are dropped, and counted then.
                let _ = $fragments.insert(key, ports, ANY);
            }

            #[inline(always)]
            fn source_allowed(addr: Self) -> bool {
                $sources
                    .get(&Key::new(Self::WORDS as u32 * 32, addr))
                    .is_some()
            }

            #[inline(always)]
            fn source_rule(service: u32, addr: Self) -> Option<u32> {
                let bits = SOURCE_BITS + Self::WORDS as u32 * 32;
                let key = Key::new(bits, SourceKey { service, addr });
                $lists.get(&key).copied()
            }

            #[inline(always)]
            fn way(skb: *mut __sk_buff, flow: &Flow<Self>) -> u32 {
                $way(skb, flow)
            }

            #[inline(always)]
            fn sender(addr: &Self) -> Option<u32> {
                // SAFETY: the value is copied before any other map call.
                unsafe { $senders.get(addr) }.copied()
            }

            #[inline(always)]
            fn adopt(key: &FlowKey<Self>, given: &Given<Self>) -> u32 {
                $adopt(key, given)
            }

            #[inline(always)]
            fn start(key: &FlowKey<Self>, given: &Given<Self>) -> u32 {
                $start(key, given)
            }

            #[inline(always)]
            fn admit(service: &Service, key: &FlowKey<Self>) -> u32 {
                $admit(service, key)
            }

            #[inline(always)]
            fn admit_local(service: &Service, client: &AffinityKey, source: &Self) -> u32 {
                $admit_local(service, client, source)
            }

            #[inline(always)]
            fn refused(key: &FlowKey<Self>, why: u8) -> bool {
                $refused(key, u32::from(why)) != 0
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
    LB_FILTER4,
    LB_ADDRS4,
    LB_SERVICES4,
    LB_FLOWS_TCP4,
    LB_FLOWS_HALF4,
    LB_FLOWS_UDP4,
    LB_DRAFT4,
    LB_SOURCES4,
    LB_LISTS4,
    LB_FRAGMENTS4,
    LB_SENDERS4,
    snat4,
    crate::way::lb_tc_way4,
    crate::peer::lb_adopt4,
    crate::peer::lb_start4,
    crate::admit::lb_admit4,
    crate::admit::local4,
    crate::half::lb_half4,
    crate::open::lb_open4,
    crate::flows::lb_touch4,
    crate::suspect::lb_refused4
);
tables!(
    Addr6,
    LB_FILTER6,
    LB_ADDRS6,
    LB_SERVICES6,
    LB_FLOWS_TCP6,
    LB_FLOWS_HALF6,
    LB_FLOWS_UDP6,
    LB_DRAFT6,
    LB_SOURCES6,
    LB_LISTS6,
    LB_FRAGMENTS6,
    LB_SENDERS6,
    snat6,
    crate::way::lb_tc_way6,
    crate::peer::lb_adopt6,
    crate::peer::lb_start6,
    crate::admit::lb_admit6,
    crate::admit::local6,
    crate::half::lb_half6,
    crate::open::lb_open6,
    crate::flows::lb_touch6,
    crate::suspect::lb_refused6
);
