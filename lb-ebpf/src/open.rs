//! Opening a flow: the first packet's way from service to backend to a pair of entries.
//!
//! Global functions: the verifier walks them once, and their stack is not the caller's.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use lb_common::{
    Addr4, Addr6, Backend, Be16, Flow, FlowKey, Reason, Service, ServiceKey, backend_kind,
    direction, flow_hash,
    headers::{Packet, TCP, flow_key, tcp_flag, tcp_flags},
    next_hash, scale, service_flag,
};

use crate::{
    choose::choose,
    counters,
    flows::now,
    maps::LB_NODE,
    tables::{ANY, NOEXIST, Tables},
};

/// The flow stands; any other number is that of a [`Reason`].
pub const OPENED: u32 = u32::MAX;

/// An entry that has been silent this long may be overwritten by another flow's claim, ns.
const CLAIM_IDLE: u64 = 60_000_000_000;
/// Source ports tried before a new flow is dropped.
const SNAT_TRIES: u32 = 16;

/// [`open`] for IPv4.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_open4(key: *const FlowKey<Addr4>, flags: u32, ifindex: u32) -> u32 {
    // SAFETY: null or a whole key, which is what the verifier grants for an argument of this type.
    unsafe { key.as_ref() }.map_or(Reason::Malformed as u32, |key| {
        open(key, flags as u8, ifindex)
    })
}

/// [`open`] for IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_open6(key: *const FlowKey<Addr6>, flags: u32, ifindex: u32) -> u32 {
    // SAFETY: as above.
    unsafe { key.as_ref() }.map_or(Reason::Malformed as u32, |key| {
        open(key, flags as u8, ifindex)
    })
}

/// Parses a packet that [`crate::ingress::decide`] found without a flow, and opens one.
#[inline(always)]
pub fn open_for<A: Tables, P: Packet>(packet: &P, l3: usize, ifindex: u32) -> u32 {
    match first_packet::<A, P>(packet, l3) {
        Some((key, flags)) => A::open(&key, flags, ifindex),
        None => Reason::Malformed as u32,
    }
}

#[inline(always)]
fn first_packet<A: Tables, P: Packet>(packet: &P, l3: usize) -> Option<(FlowKey<A>, u32)> {
    let ip = A::parse(packet, l3)?;
    let flags = if ip.proto == TCP {
        tcp_flags(packet, ip.l4)?
    } else {
        0
    };
    Some((flow_key(packet, &ip)?, u32::from(flags)))
}

#[inline(always)]
fn open<A: Tables>(key: &FlowKey<A>, flags: u8, ifindex: u32) -> u32 {
    match try_open(key, flags, ifindex) {
        Ok(()) => OPENED,
        Err(reason) => reason as u32,
    }
}

#[inline(always)]
fn try_open<A: Tables>(key: &FlowKey<A>, flags: u8, ifindex: u32) -> Result<(), Reason> {
    let service = ServiceKey {
        addr: key.dst,
        port: key.dport,
        proto: key.proto as u8,
        pad: 0,
    };
    let service = A::service(&service).ok_or(Reason::NoService)?;
    if service.flags & service_flag::EXTERNAL == 0 && !A::source_allowed(key.src) {
        return Err(Reason::SourceNotAllowed);
    }
    let hash = flow_hash(&key.src, key.sport, key.dport, key.proto as u8);
    let (id, backend) = choose(service, hash).ok_or(Reason::NoBackend)?;
    let starts = flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN;
    if key.proto == u32::from(TCP)
        && !starts
        && (backend.kind == backend_kind::NET || flags & tcp_flag::RST != 0)
    {
        // Under full NAT the source port is lost with the flow. Under DNAT the same backend is found
        // again by hash, and a wrong one resets the connection itself.
        return Err(Reason::NoFlow);
    }
    create(key, service, id, backend, ifindex)
}

/// Makes both halves of a flow from the client's packet `key` to `backend`.
#[inline(always)]
fn create<A: Tables>(
    key: &FlowKey<A>,
    service: &Service,
    id: u32,
    backend: &Backend,
    ifindex: u32,
) -> Result<(), Reason> {
    // The reverse half first: inserting it is the claim of the tuple.
    let mut pair = Flow {
        new_src: key.dst,
        new_dst: key.src,
        new_sport: key.dport,
        new_dport: key.sport,
        backend: id,
        generation: backend.generation,
        client_ifindex: ifindex,
        direction: direction::REVERSE,
        kind: backend.kind,
        tcp: 0,
        pad: 0,
        service: service.id,
        last_seen: now(),
    };
    let mut pair_key = FlowKey {
        src: A::narrow(&backend.addr),
        dst: key.src,
        sport: backend.port,
        dport: key.sport,
        proto: key.proto,
    };
    if backend.kind == backend_kind::NET {
        pair_key.dst = snat_address()?;
        claim_source_port(&mut pair_key, &pair)?;
    } else {
        claim_client_tuple(&pair_key, &pair)?;
    }
    // The forward half in the same memory: the stack holds 512 bytes for all frames of a call.
    pair = pair.pair(&pair_key);
    if A::insert_flow(key, &pair, ANY).is_err() {
        A::remove_flow(&pair_key);
        return Err(Reason::FlowTableFull);
    }
    counters::backend(id, |stats| stats.flows += 1);
    Ok(())
}

#[inline(always)]
fn snat_address<A: Tables>() -> Result<A, Reason> {
    LB_NODE
        .get(0)
        .and_then(A::snat_address)
        .ok_or(Reason::NoSnatAddress)
}

/// Full NAT: inserting the reverse entry as new is the claim of the port. A random start and an odd
/// stride below the length of the range spread the tries over it; a range of few ports is tried whole.
#[inline(always)]
fn claim_source_port<A: Tables>(pair_key: &mut FlowKey<A>, pair: &Flow<A>) -> Result<(), Reason> {
    let node = LB_NODE.get(0).ok_or(Reason::NoSnatAddress)?;
    let ports = u32::from(node.snat_ports);
    if ports == 0 {
        return Err(Reason::NoSnatPort);
    }
    // SAFETY: no arguments, no side effects.
    let random = unsafe { bpf_get_prandom_u32() };
    let mut offset = scale(random, ports);
    let stride = if ports <= SNAT_TRIES {
        1
    } else {
        scale(next_hash(random), ports - 1) | 1
    };
    for _ in 0..SNAT_TRIES {
        pair_key.dport = Be16::new(node.snat_port_min.wrapping_add(offset as u16));
        if A::insert_flow(pair_key, pair, NOEXIST).is_ok() {
            return Ok(());
        }
        offset += stride;
        if offset >= ports {
            offset -= ports;
        }
    }
    Err(Reason::NoSnatPort)
}

/// DNAT: the client keeps its address and port, so the reverse tuple is given; another flow may hold it
/// when one client uses one port for two VIPs of one backend.
#[inline(always)]
fn claim_client_tuple<A: Tables>(pair_key: &FlowKey<A>, pair: &Flow<A>) -> Result<(), Reason> {
    if A::insert_flow(pair_key, pair, NOEXIST).is_ok() {
        return Ok(());
    }
    let held = A::flow(pair_key).ok_or(Reason::FlowTableFull)?;
    let same = held.new_src == pair.new_src && held.new_sport == pair.new_sport;
    // Another CPU's stamp may be younger than ours.
    let over = held.tcp != 0 || pair.last_seen.saturating_sub(held.last_seen) > CLAIM_IDLE;
    if !(same || over) {
        return Err(Reason::FlowCollision);
    }
    A::insert_flow(pair_key, pair, ANY).map_err(|_| Reason::FlowTableFull)
}
