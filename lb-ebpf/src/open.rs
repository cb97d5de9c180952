//! Opening a flow: the first packet's way from service to backend to a pair of entries.
//!
//! Global functions: the verifier walks them once, and their stack is not the caller's.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use lb_common::{
    Addr4, Addr6, AffinityKey, Backend, Be16, Flow, FlowKey, Reason, SNAT_TRIES, Service,
    addr_flag, algorithm, backend_kind, direction, flow_hash,
    headers::{Packet, TCP, flow_key, tcp_flag, tcp_flags},
    next_hash, scale, service_flag, service_mode,
};

use crate::{
    admit::{self, ADMITTED},
    choose::choose,
    clock::{millis, precisely},
    counters, dry_run,
    flows::{begins, opened_by, service_key},
    geneve, guard,
    ingress::is_for_peers,
    load,
    maps::LB_NODE,
    tables::{ANY, Draft, NOEXIST, Table, Tables},
    words,
};

pub use lb_common::opening::{HALF_OPEN, NOT_OURS, OPENED};

/// The packet goes by [`Table::Draft`].
pub const WITHOUT_STATE: u32 = u32::MAX - 6;
/// There is no half-open flow.
pub const NO_FLOW: u32 = u32::MAX - 3;
/// The packet is for the node at the port of Geneve.
pub const OF_PEERS: u32 = u32::MAX - 4;
/// The backend of a half-open flow answers with a reset.
pub const REFUSAL: u32 = u32::MAX - 5;

/// An entry that has been silent this long may be overwritten by another flow's claim, ns.
const CLAIM_IDLE: u64 = 60_000_000_000;
/// A half-open connection that has been silent this long may lose its source port to a new one, ns: longer than a
/// network takes that answers at all, and far less than the entry lives. Else a few dozen SYNs a second that nobody
/// means would hold all ports to a backend.
const HALF_CLAIM_IDLE: u64 = 5_000_000_000;

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

/// With the number of an interface, of which there are fewer: XDP counted that no flow was opened, and has the stack refuse.
const COUNTED: u32 = 1 << 31;

/// Finds a half-open flow for a packet that [`crate::ingress::decide`] found without a flow, or opens one.
#[inline(always)]
pub fn open_for<A: Tables, P: Packet>(packet: &P, l3: usize, ifindex: u32) -> u32 {
    let Some((key, flags)) = first_packet::<A, P>(packet, l3) else {
        return Reason::Malformed as u32;
    };
    match A::half(&key, flags) {
        NO_FLOW if packet.is_counted() => A::open(&key, flags, ifindex | COUNTED),
        NO_FLOW => A::open(&key, flags, ifindex),
        stage => stage,
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
    let wanted = service_key(key);
    let Some(service) = A::service(&wanted) else {
        return if A::address_flags(&wanted.addr) & addr_flag::VIP != 0 {
            Reason::NoService as u32
        } else if is_for_peers(key) {
            // The node's address shares its slot of the coarse filter with a VIP.
            OF_PEERS
        } else {
            NOT_OURS
        };
    };
    let opened = match reaches(key, service) {
        // What a service keeps count of is not spent on those who do not come so far.
        Err(reason) => Err(reason as u32),
        Ok(()) => match admitted(key, service) {
            Ok(()) => {
                try_open(key, service, flags, ifindex & !COUNTED).map_err(|reason| reason as u32)
            }
            Err(refused) => Err(refused),
        },
    }
    .map_err(|reason| told(service, reason));
    if !dry_run::is_on() {
        counters::service(service.id, |stats| match opened {
            Ok(Table::Draft) => {}
            Ok(_) => stats.flows += 1,
            Err(_) if ifindex & COUNTED != 0 => {}
            Err(reason) => stats.refuse(reason),
        });
    }
    match opened {
        Ok(Table::Main) => OPENED,
        Ok(Table::Half) => HALF_OPEN,
        Ok(Table::Draft) => WITHOUT_STATE,
        Err(reason) => reason,
    }
}

/// The number of the reason, as it is for the service's clients: they are kept waiting, or told that they may not.
#[inline(always)]
fn told(service: &Service, reason: u32) -> u32 {
    if reason == Reason::SourceNotAllowed as u32 && service.flags & service_flag::REFUSES != 0 {
        return Reason::SourceRefused as u32;
    }
    reason
}

/// Whether a flow from this source may be opened at all, and now.
#[inline(always)]
fn reaches<A: Tables>(key: &FlowKey<A>, service: &Service) -> Result<(), Reason> {
    if !service.is_hashed() && guard::is_spent() {
        return Err(Reason::NewFlowGuard);
    }
    if service.flags & service_flag::EXTERNAL == 0 && !A::source_allowed(key.src) {
        return Err(Reason::SourceNotAllowed);
    }
    Ok(())
}

/// The number of the reason why the service does not take this client's flow.
#[inline(always)]
fn admitted<A: Tables>(key: &FlowKey<A>, service: &Service) -> Result<(), u32> {
    if admit::is_open_to_all(service) {
        return Ok(());
    }
    match A::admit(service, key) {
        ADMITTED => Ok(()),
        reason => Err(reason),
    }
}

/// Where a new flow of this protocol is kept.
#[inline(always)]
pub fn table_of<A>(key: &FlowKey<A>) -> Table {
    if key.proto == u32::from(TCP) {
        Table::Half
    } else {
        Table::Main
    }
}

#[inline(always)]
fn try_open<A: Tables>(
    key: &FlowKey<A>,
    service: &Service,
    flags: u8,
    ifindex: u32,
) -> Result<Table, Reason> {
    let client = AffinityKey {
        client: key.src.widen(),
        service: service.id,
        family: u32::from(A::VERSION),
    };
    let (id, backend) = choose(service, &client, hash_of(key, service)).ok_or(Reason::NoBackend)?;
    let kind = kind_of(service, id, backend);
    if key.proto == u32::from(TCP)
        && !begins(flags)
        && (kind == backend_kind::NET || flags & tcp_flag::RST != 0)
    {
        // Under full NAT the source port is lost with the flow. Else the same backend is found
        // again by hash, and a wrong one resets the connection itself.
        return Err(Reason::NoFlow);
    }
    if dry_run::is_on() {
        return explain::<A>(id, backend, kind).map(|()| table_of(key));
    }
    let table = if service.is_hashed() && guard::is_spent() {
        if !backend_kind::is_dsr(kind) {
            return Err(Reason::NewFlowGuard);
        }
        counters::count(Reason::WithoutState);
        Table::Draft
    } else {
        guard::take();
        table_of(key)
    };
    words::chosen(service.id, id);
    let origin = Origin {
        ifindex,
        flags: opened_by(key, flags),
        next_hop: 0,
    };
    create(key, service, id, backend, kind, table, &origin)?;
    Ok(table)
}

/// What [`create`] would make, in a dry run.
#[inline(always)]
fn explain<A: Tables>(id: u32, backend: &Backend, kind: u8) -> Result<(), Reason> {
    dry_run::note(|run| {
        run.backend = id;
        run.generation = backend.generation;
        run.kind = kind;
    });
    if kind == backend_kind::NET {
        snat_address::<A>()?;
    }
    Ok(())
}

/// How the flow's packets are brought to its backend.
#[inline(always)]
fn kind_of(service: &Service, id: u32, backend: &Backend) -> u8 {
    match service.mode {
        _ if backend.kind != backend_kind::NET => backend.kind,
        service_mode::DSR_IPIP => backend_kind::IPIP,
        service_mode::DSR_L2 => backend_kind::L2,
        service_mode::DSR_GENEVE if geneve::is_at_peer(id) => backend_kind::GENEVE,
        _ => backend_kind::NET,
    }
}

/// What the service's algorithm goes by.
#[inline(always)]
fn hash_of<A: Tables>(key: &FlowKey<A>, service: &Service) -> u32 {
    if service.algorithm == algorithm::SOURCE {
        flow_hash(&key.src, Be16(0), Be16(0), 0)
    } else {
        flow_hash(&key.src, key.sport, key.dport, key.proto as u8)
    }
}

/// How the packets of a flow's client get here.
#[derive(Clone, Copy)]
pub struct Origin {
    /// The interface they arrive on.
    pub ifindex: u32,
    /// Bits of [`flow_flag`].
    pub flags: u8,
    /// [`Flow::next_hop`] of the forward half.
    pub next_hop: u16,
}

/// Makes both halves of a flow from the client's packet `key` to `backend`; `table`: where it is kept.
#[inline(always)]
pub fn create<A: Tables>(
    key: &FlowKey<A>,
    service: &Service,
    id: u32,
    backend: &Backend,
    kind: u8,
    table: Table,
    origin: &Origin,
) -> Result<(), Reason> {
    let idle = if key.proto == u32::from(TCP) {
        service.idle_tcp
    } else {
        service.idle_udp
    };
    let Draft {
        key: at,
        flow: pair,
    } = A::draft().ok_or(Reason::FlowTableFull)?;
    // The reverse half first: inserting it is the claim of the tuple.
    *pair = Flow {
        new_src: key.dst,
        new_dst: key.src,
        new_sport: key.dport,
        new_dport: key.sport,
        addr_delta: 0,
        port_delta: 0,
        backend: id,
        generation: backend.generation,
        client_ifindex: origin.ifindex,
        idle,
        next_hop: 0,
        route_epoch: 0,
        direction: direction::REVERSE,
        kind,
        tcp: 0,
        flags: origin.flags,
        service: service.id,
        opened: millis(),
        // The handshake is measured from here.
        last_seen: precisely(),
    };
    if backend_kind::is_dsr(kind) {
        // The packet keeps its addresses, and no reply comes by: one half is all.
        pair.turn(&key.turned());
        if table == Table::Draft {
            return Ok(());
        }
        *at = *key;
        A::insert_flow(table, at, pair, ANY).map_err(|_| Reason::FlowTableFull)?;
        load::add(id, service.id);
        counters::backend(id, |stats| stats.flows += 1);
        return Ok(());
    }
    *at = FlowKey {
        src: A::narrow(&backend.addr),
        dst: key.src,
        sport: backend.port,
        dport: key.sport,
        proto: key.proto,
    };
    if kind == backend_kind::NET {
        at.dst = snat_address()?;
        claim_source_port(at, pair)?;
    } else {
        pair.set_deltas(at);
        claim_client_tuple(at, pair)?;
    }
    pair.turn(at);
    pair.next_hop = origin.next_hop;
    *at = *key;
    if A::insert_flow(table, at, pair, ANY).is_err() {
        *at = pair.pair_key(key.proto);
        A::remove_flow(table, at);
        return Err(Reason::FlowTableFull);
    }
    load::add(id, service.id);
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
fn claim_source_port<A: Tables>(
    pair_key: &mut FlowKey<A>,
    pair: &mut Flow<A>,
) -> Result<(), Reason> {
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
    for before in 0..SNAT_TRIES {
        pair_key.dport = Be16::new(node.snat_port_min.wrapping_add(offset as u16));
        pair.set_deltas(pair_key);
        if claim(pair_key, pair) || takes_over(pair_key, pair) {
            counters::lb_count_tries(before);
            return Ok(());
        }
        offset += stride;
        if offset >= ports {
            offset -= ports;
        }
    }
    counters::lb_count_tries(SNAT_TRIES);
    Err(Reason::NoSnatPort)
}

/// Inserts the reverse half of a new flow; `false` if its tuple is another's.
#[inline(always)]
fn claim<A: Tables>(pair_key: &FlowKey<A>, pair: &Flow<A>) -> bool {
    let table = table_of(pair_key);
    if A::insert_flow(table, pair_key, pair, NOEXIST).is_err() {
        return false;
    }
    // A connection stands in the main table before it leaves that of the half-open.
    if table == Table::Half && A::flow(Table::Main, pair_key).is_some() {
        A::remove_flow(Table::Half, pair_key);
        return false;
    }
    true
}

/// Takes the tuple of a half-open connection that came to nothing, which finds out when it goes on
/// ([`crate::half`]).
#[inline(always)]
fn takes_over<A: Tables>(pair_key: &FlowKey<A>, pair: &Flow<A>) -> bool {
    table_of(pair_key) == Table::Half
        && A::flow(Table::Half, pair_key)
            .is_some_and(|held| pair.last_seen.saturating_sub(held.last_seen) > HALF_CLAIM_IDLE)
        && A::flow(Table::Main, pair_key).is_none()
        && A::insert_flow(Table::Half, pair_key, pair, ANY).is_ok()
}

/// DNAT: the client keeps its address and port, so the reverse tuple is given; another flow may hold it
/// when one client uses one port for two VIPs of one backend.
#[inline(always)]
fn claim_client_tuple<A: Tables>(pair_key: &FlowKey<A>, pair: &Flow<A>) -> Result<(), Reason> {
    if claim(pair_key, pair) {
        return Ok(());
    }
    if let Some(held) = A::flow(Table::Main, pair_key) {
        if !may_replace(held, pair) {
            return Err(Reason::FlowCollision);
        }
        A::remove_flow(Table::Main, pair_key);
    }
    let table = table_of(pair_key);
    if table == Table::Half
        && A::flow(Table::Half, pair_key).is_some_and(|held| !may_replace(held, pair))
    {
        return Err(Reason::FlowCollision);
    }
    A::insert_flow(table, pair_key, pair, ANY).map_err(|_| Reason::FlowTableFull)
}

/// Whether a flow's reverse half may give way to another's with the same tuple.
#[inline(always)]
fn may_replace<A: Tables>(held: &Flow<A>, pair: &Flow<A>) -> bool {
    let same = held.new_src == pair.new_src && held.new_sport == pair.new_sport;
    // Another CPU's stamp may be younger than ours.
    let over = held.tcp != 0 || pair.last_seen.saturating_sub(held.last_seen) > CLAIM_IDLE;
    same || over
}
