//! The floors: the least code that does a thing. They are frozen: a change here moves what every figure
//! is compared to, and needs a reason of its own.
//!
//! Nothing of `lb-common` is in use, so that a change there is measured, not hidden. Sizes of keys, values
//! and tables are those of our maps; how many entries they hold is set when they are loaded.
// By value, keys and values would be copied on the stack once more.
#![allow(clippy::needless_borrows_for_generic_args)]

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
    btf_maps::{Array, HashMap, HashOfMaps, LpmTrie, LruHashMap, PerCpuArray, lpm_trie::Key},
    helpers::generated::{bpf_redirect, bpf_xdp_adjust_head},
    macros::{btf_map, xdp},
    programs::XdpContext,
};

use crate::wrapper::BENCH;

/// A flow key of IPv4: addresses; ports and protocol.
type Key4 = [u64; 2];
/// A flow key of IPv6: source; destination; ports and protocol.
type Key6 = [u64; 5];

const TCP: u64 = 6;
const NOEXIST: u64 = 1;
const ANY: u64 = 0;

/// What full NAT writes into a packet.
#[repr(C)]
pub struct Nat4 {
    /// Source and destination address.
    addresses: u64,
    /// Source and destination port.
    ports: u32,
    /// What is added to the IP header's and the transport header's inverted checksum.
    ip_delta: u16,
    tcp_delta: u16,
    /// Destination MAC address and the first two bytes of the source MAC address.
    macs: u64,
    /// The rest of the source MAC address.
    mac_rest: u32,
    ifindex: u32,
}

#[btf_map]
pub static BENCH_NAT4: LruHashMap<Key4, Nat4, 1024> = LruHashMap::new();
#[btf_map]
pub static BENCH_FLOWS4: LruHashMap<Key4, [u64; 7], 1024> = LruHashMap::new();
#[btf_map]
pub static BENCH_FLOWS6: LruHashMap<Key6, [u64; 10], 1024> = LruHashMap::new();
/// Destination filter.
#[btf_map]
pub static BENCH_ADDRS4: HashMap<u32, u32, 32768> = HashMap::new();
/// Address, port and protocol to a service.
#[btf_map]
pub static BENCH_SERVICES4: HashMap<u64, [u32; 4], 16384> = HashMap::new();
#[btf_map]
pub static BENCH_SOURCES4: LpmTrie<u32, u32, 4096> = LpmTrie::new();
/// Service id to table.
#[btf_map]
pub static BENCH_TABLES: HashOfMaps<u32, Array<[u32; 1021], 1>, 16384> = HashOfMaps::new();
#[btf_map]
pub static BENCH_BACKENDS: Array<[u32; 8], 65536> = Array::new();
#[btf_map]
pub static BENCH_STATS: PerCpuArray<[u64; 7], 65536> = PerCpuArray::new();
/// Packets that arrived at `bench_sink`.
#[btf_map]
pub static BENCH_ARRIVED: PerCpuArray<u64, 1> = PerCpuArray::new();

/// A packet whose first `N` bytes are there.
struct Bytes<const N: usize>(usize);

// === impl Bytes ===

impl<const N: usize> Bytes<N> {
    #[inline(always)]
    fn of(ctx: &XdpContext) -> Option<Self> {
        let data = ctx.data();
        (data + N <= ctx.data_end()).then_some(Self(data))
    }

    #[inline(always)]
    fn get<T: Copy>(&self, at: usize) -> T {
        const { assert!(size_of::<T>() <= N) };
        // SAFETY: the kernel's verifier checks every offset against N; unaligned access is what it allows
        // on x86-64 and arm64.
        unsafe { *((self.0 + at) as *const T) }
    }

    #[inline(always)]
    fn set<T: Copy>(&self, at: usize, value: T) {
        // SAFETY: as above.
        unsafe { *((self.0 + at) as *mut T) = value };
    }
}

/// Headers of Ethernet, IPv4 and TCP, without options.
type Tcp4 = Bytes<54>;
/// Headers of Ethernet and IPv6, and the transport header's ports.
type Ports6 = Bytes<62>;

/// The key of an unfragmented TCP packet without IP options.
#[inline(always)]
fn key4(packet: &Tcp4) -> Option<Key4> {
    let proto = u64::from(packet.get::<u8>(23));
    let plain = packet.get::<u16>(12) == 0x0800_u16.to_be()
        && packet.get::<u8>(14) == 0x45
        && packet.get::<u16>(20) & 0x3fff_u16.to_be() == 0
        && proto == TCP;
    plain.then(|| {
        let ports = u64::from(packet.get::<u32>(34));
        [packet.get(26), ports | proto << 32]
    })
}

/// The key of a TCP packet without extension headers.
#[inline(always)]
fn key6(packet: &Ports6) -> Option<Key6> {
    let proto = u64::from(packet.get::<u8>(20));
    let plain = packet.get::<u16>(12) == 0x86dd_u16.to_be()
        && packet.get::<u8>(14) >> 4 == 6
        && proto == TCP;
    plain.then(|| {
        let ports = u64::from(packet.get::<u32>(54));
        let word = |at| packet.get(at);
        [word(22), word(30), word(38), word(46), ports | proto << 32]
    })
}

/// Both of a pair: source and destination change places.
#[inline(always)]
fn reverse4(key: &Key4) -> Key4 {
    let ports = key[1] as u32;
    let proto = key[1] >> 32 << 32;
    [
        key[0].rotate_left(32),
        u64::from(ports.rotate_left(16)) | proto,
    ]
}

/// Adds to a checksum, RFC 1624, equation 3.
#[inline(always)]
fn patched(checksum: u16, delta: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(delta);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// A verdict that tells a test what was found, and keeps the compiler from leaving the search out.
#[inline(always)]
fn verdict(found: bool) -> u32 {
    if found { XDP_TX } else { XDP_PASS }
}

#[xdp(frags)]
pub fn bench_drop(_ctx: XdpContext) -> u32 {
    XDP_DROP
}

#[xdp(frags)]
pub fn bench_pass(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

/// Back to where it came from.
#[xdp(frags)]
pub fn bench_tx(ctx: XdpContext) -> u32 {
    let Some(packet) = Bytes::<14>::of(&ctx) else {
        return XDP_DROP;
    };
    swap_macs(&packet);
    XDP_TX
}

/// Out of another interface.
#[xdp(frags)]
pub fn bench_redirect(ctx: XdpContext) -> u32 {
    let (Some(packet), Some(setup)) = (Bytes::<14>::of(&ctx), BENCH.get(0)) else {
        return XDP_DROP;
    };
    swap_macs(&packet);
    // SAFETY: no pointers.
    unsafe { bpf_redirect(setup.onward, 0) as u32 }
}

#[inline(always)]
fn swap_macs(packet: &Bytes<14>) {
    let to: (u32, u16) = (packet.get(0), packet.get(4));
    let from: (u32, u16) = (packet.get(6), packet.get(10));
    packet.set(0, from.0);
    packet.set(4, from.1);
    packet.set(6, to.0);
    packet.set(10, to.1);
}

#[xdp(frags)]
pub fn bench_parse4(ctx: XdpContext) -> u32 {
    let key = Bytes::of(&ctx).and_then(|packet| key4(&packet));
    verdict(key.is_some_and(|key| key[0] ^ key[1] != 0))
}

#[xdp(frags)]
pub fn bench_parse6(ctx: XdpContext) -> u32 {
    let key = Bytes::of(&ctx).and_then(|packet| key6(&packet));
    verdict(key.is_some_and(|k| k[0] ^ k[1] ^ k[2] ^ k[3] ^ k[4] != 0))
}

/// Full NAT with one lookup: nothing else is left to save.
#[xdp(frags)]
pub fn bench_nat4(ctx: XdpContext) -> u32 {
    let Some(packet) = Tcp4::of(&ctx) else {
        return XDP_PASS;
    };
    let Some(nat) = key4(&packet).and_then(|key| BENCH_NAT4.get_ptr(&key)) else {
        return XDP_PASS;
    };
    // SAFETY: valid for the run; nobody writes while a benchmark runs.
    let nat = unsafe { &*nat };
    packet.set(0, nat.macs);
    packet.set(8, nat.mac_rest);
    packet.set(24, patched(packet.get(24), nat.ip_delta));
    packet.set(26, nat.addresses);
    packet.set(34, nat.ports);
    packet.set(50, patched(packet.get(50), nat.tcp_delta));
    if nat.ifindex == ctx.ingress_ifindex() as u32 {
        return XDP_TX;
    }
    // SAFETY: no pointers.
    unsafe { bpf_redirect(nat.ifindex, 0) as u32 }
}

/// Destination filter: a word as key.
#[xdp(frags)]
pub fn bench_filter4(ctx: XdpContext) -> u32 {
    let Some(packet) = Bytes::<54>::of(&ctx) else {
        return XDP_PASS;
    };
    verdict(BENCH_ADDRS4.get_ptr(packet.get::<u32>(30)).is_some())
}

#[xdp(frags)]
pub fn bench_service4(ctx: XdpContext) -> u32 {
    let Some(packet) = Bytes::<54>::of(&ctx) else {
        return XDP_PASS;
    };
    let port = u64::from(packet.get::<u16>(36));
    let key = u64::from(packet.get::<u32>(30)) | port << 32 | TCP << 48;
    // SAFETY: valid for the run; nobody writes while a benchmark runs.
    let service = unsafe { BENCH_SERVICES4.get(key) };
    verdict(service.is_some_and(|service| service[0] != 0))
}

#[xdp(frags)]
pub fn bench_source4(ctx: XdpContext) -> u32 {
    let Some(packet) = Bytes::<54>::of(&ctx) else {
        return XDP_PASS;
    };
    verdict(
        BENCH_SOURCES4
            .get(&Key::new(32, packet.get::<u32>(26)))
            .is_some(),
    )
}

/// Map in map: a service's table, and a slot of it.
#[xdp(frags)]
pub fn bench_table(ctx: XdpContext) -> u32 {
    let Some(packet) = Bytes::<54>::of(&ctx) else {
        return XDP_PASS;
    };
    let slot = usize::from(packet.get::<u8>(35));
    // SAFETY: the single element of an array lives as long as the program runs.
    let table = unsafe { BENCH_TABLES.get_value(&u32::from(packet.get::<u8>(36)), &0) };
    verdict(
        table
            .and_then(|table| table.get(slot))
            .is_some_and(|id| *id != 0),
    )
}

#[xdp(frags)]
pub fn bench_backend(ctx: XdpContext) -> u32 {
    let Some(packet) = Bytes::<54>::of(&ctx) else {
        return XDP_PASS;
    };
    let backend = BENCH_BACKENDS.get(u32::from(packet.get::<u8>(36)));
    verdict(backend.is_some_and(|backend| backend[5] != 0))
}

/// Two counters of one backend, per CPU.
#[xdp(frags)]
pub fn bench_count(ctx: XdpContext) -> u32 {
    let Some(packet) = Bytes::<54>::of(&ctx) else {
        return XDP_PASS;
    };
    let Some(stats) = BENCH_STATS.get_ptr_mut(u32::from(packet.get::<u8>(36))) else {
        return XDP_PASS;
    };
    // SAFETY: this CPU's own value.
    unsafe {
        (*stats)[1] += 1;
        (*stats)[2] += u64::from(u16::from_be(packet.get(16)));
    }
    XDP_TX
}

/// A flow's entry, first and last word of it read.
#[xdp(frags)]
pub fn bench_flow4(ctx: XdpContext) -> u32 {
    let Some(key) = Bytes::of(&ctx).and_then(|packet| key4(&packet)) else {
        return XDP_DROP;
    };
    // SAFETY: valid for the run; nobody writes while a benchmark runs.
    let flow = unsafe { BENCH_FLOWS4.get(&key) };
    verdict(flow.is_some_and(|flow| flow[0] | flow[6] != 0))
}

#[xdp(frags)]
pub fn bench_flow6(ctx: XdpContext) -> u32 {
    let Some(key) = Bytes::of(&ctx).and_then(|packet| key6(&packet)) else {
        return XDP_DROP;
    };
    // SAFETY: valid for the run; nobody writes while a benchmark runs.
    let flow = unsafe { BENCH_FLOWS6.get(&key) };
    verdict(flow.is_some_and(|flow| flow[0] | flow[9] != 0))
}

/// A new key.
#[xdp(frags)]
pub fn bench_insert4(ctx: XdpContext) -> u32 {
    let Some(key) = Bytes::of(&ctx).and_then(|packet| key4(&packet)) else {
        return XDP_DROP;
    };
    verdict(BENCH_FLOWS4.insert(&key, &[1; 7], NOEXIST).is_ok())
}

/// Two new keys, one for each direction.
#[xdp(frags)]
pub fn bench_pair4(ctx: XdpContext) -> u32 {
    let Some(key) = Bytes::of(&ctx).and_then(|packet| key4(&packet)) else {
        return XDP_DROP;
    };
    let flow = [1; 7];
    let reverse = BENCH_FLOWS4.insert(&reverse4(&key), &flow, NOEXIST);
    let forward = BENCH_FLOWS4.insert(&key, &flow, ANY);
    verdict(reverse.is_ok() && forward.is_ok())
}

#[xdp(frags)]
pub fn bench_insert6(ctx: XdpContext) -> u32 {
    let Some(key) = Bytes::of(&ctx).and_then(|packet| key6(&packet)) else {
        return XDP_DROP;
    };
    verdict(BENCH_FLOWS6.insert(&key, &[1; 10], NOEXIST).is_ok())
}

/// Room for headers before the packet, as encapsulation needs it.
#[xdp(frags)]
pub fn bench_grow(ctx: XdpContext) -> u32 {
    let Some(setup) = BENCH.get(0) else {
        return XDP_DROP;
    };
    // SAFETY: the context is the kernel's own.
    let grown = unsafe { bpf_xdp_adjust_head(ctx.as_ptr().cast(), -(setup.grows as i32)) };
    verdict(grown == 0)
}

/// Sends what it is given: the source of live frames.
#[xdp(frags)]
pub fn bench_send(_ctx: XdpContext) -> u32 {
    let Some(setup) = BENCH.get(0) else {
        return XDP_DROP;
    };
    // SAFETY: no pointers.
    unsafe { bpf_redirect(setup.ifindex, 0) as u32 }
}

/// Counts what arrives, and ends it: the sink of live frames.
#[xdp(frags)]
pub fn bench_sink(_ctx: XdpContext) -> u32 {
    if let Some(arrived) = BENCH_ARRIVED.get_ptr_mut(0) {
        // SAFETY: this CPU's own value.
        unsafe { *arrived += 1 };
    }
    XDP_DROP
}
