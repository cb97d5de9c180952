//! The receiver's side of Geneve: what a peer sends is for a backend of this node, or goes nowhere.
//!
//! All is asked before anything is taken off. What comes out goes the way of a client's packet, by a flow with the
//! backend that the peer chose.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_ADJ_ROOM_FIXED_GSO, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC},
    helpers::generated::bpf_skb_adjust_room,
};
use lb_common::{
    Addr4, Addr6, Backend, Flow, FlowKey, LocalKey, Reason, addr_flag, backend_kind, backend_state,
    checksum::Delta,
    direction, flow_flag,
    geneve::{Chosen, ECN, Shim, class, shim_at},
    headers::{
        ETH_LEN, IPV4_CHECKSUM, Ip, Packet, PacketMut, TCP, UDP, flow_key, tcp_flag, tcp_flags,
    },
    icmp as lb_icmp,
};

use crate::{
    choose::keeps_flows,
    counters,
    flows::{begins, fails_open, find, forget, gives_way, is_served, opened_by, service_of},
    fragments, guard, icmp,
    ingress::goes_up,
    maps::{LB_BACKENDS, LB_LOCALS},
    open::{HALF_OPEN, NO_FLOW, OPENED, Origin, create, table_of},
    tables::{Table, Tables},
    views::Buffer,
};

/// What became of a packet for the port of Geneve. It is taken out, and its flow stands in the main table.
pub const TAKEN: u32 = 0;
/// As well, and its flow is half-open.
pub const TAKEN_HALF: u32 = 1;
/// The stack has it.
pub const LEFT: u32 = 2;
/// It is dropped, and counted.
pub const SHOT: u32 = 3;
/// It is taken out, and the stack refuses it.
pub const UP: u32 = 4;
/// It is to be taken out; a whole packet with ports or the first part of one, or none.
pub const WITH_PORTS: u32 = 5;
pub const WITHOUT_PORTS: u32 = 6;

/// Not stages of [`crate::open`]: its backend is behind an interface, which XDP leaves to the tc program; its backend
/// is gone.
const LINKED: u32 = u32::MAX - 5;
const GONE: u32 = u32::MAX - 6;

/// Who sent a packet, and for whom.
#[repr(C)]
pub struct Given<A> {
    pub addr: A,
    /// The backend's port, network byte order, and no bits above it.
    pub port: u32,
    /// Index of the peer.
    pub sender: u32,
    /// Those of the TCP segment, or 0.
    pub flags: u32,
    /// The interface that it came in by.
    pub ifindex: u32,
    /// Not 0: backends behind interfaces are not for this program.
    pub hosts_only: u32,
}

/// A peer's packet.
struct Parcel<A> {
    /// Offset of the packet inside.
    at: usize,
    /// Its header.
    ip: Ip<A>,
    chosen: Chosen<A>,
    sender: u32,
}

/// Reads the outer headers at `l3`; else whose the packet is.
#[inline(always)]
fn parcel<A: Tables, P: Packet>(packet: &P, l3: usize) -> Result<Parcel<A>, u32> {
    let Some(outer) = A::parse(packet, l3) else {
        return Err(LEFT);
    };
    let shim = shim_at::<A, _>(packet, outer.l4);
    if outer.fragment
        || outer.proto != UDP
        || shim == Shim::Foreign
        || A::address_flags(&outer.dst) & addr_flag::NODE == 0
    {
        return Err(LEFT);
    }
    let Some(sender) = A::sender(&outer.src) else {
        return Err(shot(Reason::PeerUnknown));
    };
    let Shim::Ours(chosen) = shim else {
        return Err(shot(Reason::PeerMalformed));
    };
    let at = outer.l4 + A::SHIM;
    match A::parse(packet, at) {
        Some(ip) if usize::from(outer.len) == at - l3 + usize::from(ip.len) => Ok(Parcel {
            at,
            ip,
            chosen,
            sender,
        }),
        _ => Err(shot(Reason::PeerMalformed)),
    }
}

#[inline(always)]
pub fn shot(reason: Reason) -> u32 {
    counters::count_only(reason as u32);
    SHOT
}

/// Whose the packet is: [`LEFT`], [`SHOT`], [`WITH_PORTS`] or [`WITHOUT_PORTS`].
#[inline(always)]
pub fn inspect<A: Tables, P: Packet>(packet: &P) -> u32 {
    match parcel::<A, P>(packet, ETH_LEN) {
        Ok(Parcel { at, ip, .. }) if has_ports(packet, at, &ip) => WITH_PORTS,
        Ok(_) => WITHOUT_PORTS,
        Err(what) => what,
    }
}

/// For [`WITH_PORTS`]: the flow that it goes by, a stage of [`crate::open`] or the number of a [`Reason`].
#[inline(always)]
pub fn join<A: Tables, P: Packet>(packet: &P, ifindex: u32, hosts_only: bool) -> u32 {
    let Ok(Parcel {
        ip, chosen, sender, ..
    }) = parcel::<A, P>(packet, ETH_LEN)
    else {
        return Reason::PeerMalformed as u32;
    };
    let flags = if ip.proto == TCP {
        tcp_flags(packet, ip.l4)
    } else {
        Some(0)
    };
    let (Some(key), Some(flags)) = (flow_key(packet, &ip), flags) else {
        return Reason::PeerMalformed as u32;
    };
    let given = Given {
        addr: chosen.addr,
        port: u32::from(chosen.port.0),
        sender,
        flags: u32::from(flags),
        ifindex,
        hosts_only: u32::from(hosts_only),
    };
    match A::adopt(&key, &given) {
        HALF_OPEN => A::half(&key, given.flags),
        NO_FLOW => A::start(&key, &given),
        stage => stage,
    }
}

/// For [`WITHOUT_PORTS`]: the same; there must be a flow.
#[inline(always)]
pub fn follow<A: Tables, P: Packet>(packet: &P, hosts_only: bool) -> u32 {
    let kind = match parcel::<A, P>(packet, ETH_LEN) {
        Ok(Parcel { at, ip, .. }) => about(packet, at, &ip),
        Err(_) => None,
    };
    match kind {
        Some(backend_kind::LINK) if hosts_only => LINKED,
        Some(backend_kind::HOST | backend_kind::LINK) => OPENED,
        _ => Reason::PeerBackend as u32,
    }
}

/// What is done with a packet of this stage: [`TAKEN`], [`TAKEN_HALF`], [`UP`], or not to be taken out, [`LEFT`] or
/// [`SHOT`].
#[inline(always)]
pub fn outcome(stage: u32) -> u32 {
    match stage {
        OPENED => TAKEN,
        HALF_OPEN => TAKEN_HALF,
        LINKED => {
            counters::count(Reason::ToSlowPath);
            LEFT
        }
        GONE => {
            counters::count(Reason::BackendGone);
            UP
        }
        reason if goes_up(reason) => UP,
        _ => SHOT,
    }
}

/// Brings the outer headers' mark of congestion in; `None` where that cannot be.
#[inline(always)]
pub fn settle_mark<A: Tables, P: PacketMut>(packet: &P) -> Option<()> {
    let outer = A::parse(packet, ETH_LEN)?;
    let at = outer.l4 + A::SHIM;
    if is_marked::<A, P>(packet, ETH_LEN, at) {
        return Some(());
    }
    counters::count(Reason::PeerMalformed);
    None
}

/// Whether the packet inside has ports: a whole one, or the first fragment.
#[inline(always)]
fn has_ports<A: Tables, P: Packet>(packet: &P, at: usize, ip: &Ip<A>) -> bool {
    (ip.proto == TCP || ip.proto == UDP)
        && (!ip.fragment || A::fragment(packet, at, ip).is_some_and(|part| part.is_first()))
}

/// The kind of the flow that an ICMP error or a later fragment is about.
#[inline(always)]
fn about<A: Tables, P: Packet>(packet: &P, at: usize, ip: &Ip<A>) -> Option<u8> {
    if ip.fragment {
        return Some(fragments::flow(packet, at, ip)?.kind);
    }
    let (kind, _) = lb_icmp::kind(packet, ip.l4)?;
    if ip.proto != A::PROTO || !A::is_error(kind) {
        return None;
    }
    Some(icmp::known(packet, at, ip)?.flow.kind)
}

/// Brings the mark of congestion in (RFC 6040 section 4.2); `false` where a packet is marked that cannot be.
#[inline(always)]
fn is_marked<A: Tables, P: PacketMut>(packet: &P, l3: usize, at: usize) -> bool {
    let (Some(outer), Some(inner)) = (class::<A, P>(packet, l3), class::<A, P>(packet, at)) else {
        return false;
    };
    if outer & ECN != ECN || inner & ECN == ECN {
        return true;
    }
    if inner & ECN == 0 {
        return false;
    }
    mark::<A, P>(packet, at).is_some()
}

#[inline(always)]
fn mark<A: Tables, P: PacketMut>(packet: &P, at: usize) -> Option<()> {
    let old = packet.half(at)?;
    let new = old | (u16::from(ECN) << A::CLASS_SHIFT).to_be();
    packet.set_half(at, new)?;
    if A::VERSION == 4 {
        let sum = packet.half(at + IPV4_CHECKSUM)?;
        let sum = Delta::ZERO.word(old, new).apply(sum);
        packet.set_half(at + IPV4_CHECKSUM, sum)?;
    }
    Some(())
}

/// Looks for the flow of a peer's packet, and ends one that is another's: [`OPENED`]; [`HALF_OPEN`], where it is to be
/// asked whether it still is; [`NO_FLOW`]; or the number of a [`Reason`].
#[inline(always)]
fn adopt<A: Tables>(key: &FlowKey<A>, given: &Given<A>) -> u32 {
    let flags = given.flags as u8;
    let tcp = key.proto == u32::from(TCP);
    // Whoever begins may have been given another backend than before.
    let strict = !tcp || begins(flags);
    if let Some((table, flow)) = find(key) {
        let right = flow.direction == direction::FORWARD
            && flow.flags & flow_flag::PEER != 0
            && (!strict || is_given(flow, given));
        let over = begins(flags) && gives_way(flow);
        let served = is_served(key, flow);
        if right && !over && served {
            if flow.kind == backend_kind::LINK && given.hosts_only != 0 {
                return LINKED;
            }
            flow.next_hop = given.sender as u16;
            return match table {
                Table::Main => OPENED,
                Table::Half | Table::Draft => HALF_OPEN,
            };
        }
        if flow.direction == direction::REVERSE {
            return Reason::FlowCollision as u32;
        }
        forget(table, key, flow);
        if right && !over && !strict {
            return GONE;
        }
    }
    NO_FLOW
}

#[inline(always)]
fn is_given<A: Tables>(flow: &Flow<A>, given: &Given<A>) -> bool {
    flow.new_dst == given.addr && u32::from(flow.new_dport.0) == given.port
}

/// Opens a flow with the backend that the peer chose; where it stands, or `None` if it is not for this program.
#[inline(always)]
fn start<A: Tables>(key: &FlowKey<A>, given: &Given<A>) -> Result<Option<Table>, Reason> {
    let service = service_of(key).ok_or(Reason::PeerBackend)?;
    let port = lb_common::Be16(given.port as u16);
    let local = LocalKey {
        addr: given.addr.widen(),
        service: service.id,
        port,
        family: u16::from(A::VERSION),
    };
    // SAFETY: the value is copied before any other map call.
    let id = unsafe { LB_LOCALS.get(local) }.copied();
    let id = id.ok_or(Reason::PeerBackend)?;
    let backend: &Backend = LB_BACKENDS.get(id).ok_or(Reason::PeerBackend)?;
    // Read once, so that the compiler leaves all other kinds out.
    let kind = backend.kind;
    let here = kind == backend_kind::HOST || kind == backend_kind::LINK;
    // The id may be another's since the agent wrote this.
    let same = backend.addr == local.addr && backend.port == port;
    if !here || !same || backend.state == backend_state::FREE {
        return Err(Reason::PeerBackend);
    }
    if !keeps_flows(backend, backend.generation, || fails_open(key)) {
        return Err(Reason::NoBackend);
    }
    if kind == backend_kind::LINK && given.hosts_only != 0 {
        return Ok(None);
    }
    if key.proto == u32::from(TCP) && given.flags as u8 & tcp_flag::RST != 0 {
        return Err(Reason::NoFlow);
    }
    if guard::is_spent() {
        return Err(Reason::NewFlowGuard);
    }
    guard::take();
    let origin = Origin {
        ifindex: given.ifindex,
        flags: flow_flag::PEER | opened_by(key, given.flags as u8),
        next_hop: given.sender as u16,
    };
    let table = table_of(key);
    create(key, service, id, backend, kind, table, &origin)?;
    counters::service(service.id, |stats| stats.flows += 1);
    Ok(Some(table))
}

macro_rules! stages {
    ($addr:ty, $adopt:ident, $start:ident, $inspect:ident, $join:ident, $follow:ident, $take:ident) => {
        /// [`adopt`] as a function of its own.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $adopt(key: *const FlowKey<$addr>, given: *const Given<$addr>) -> u32 {
            // SAFETY: null or a whole value, which is what the verifier grants for arguments of these types.
            match unsafe { (key.as_ref(), given.as_ref()) } {
                (Some(&key), Some(given)) => adopt(&key, given),
                _ => Reason::PeerMalformed as u32,
            }
        }

        /// [`start`] as a function of its own.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $start(key: *const FlowKey<$addr>, given: *const Given<$addr>) -> u32 {
            // SAFETY: as above.
            match unsafe { (key.as_ref(), given.as_ref()) } {
                (Some(key), Some(given)) => match start(key, given) {
                    Ok(Some(Table::Main)) => OPENED,
                    Ok(Some(Table::Half | Table::Draft)) => HALF_OPEN,
                    Ok(None) => LINKED,
                    Err(reason) => reason as u32,
                },
                _ => Reason::PeerMalformed as u32,
            }
        }

        /// [`inspect`] for the tc program.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $inspect(ctx: *mut __sk_buff) -> u32 {
            if ctx.is_null() {
                return LEFT;
            }
            inspect::<$addr, _>(&Buffer(ctx))
        }

        /// [`join`] for the tc program.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $join(ctx: *mut __sk_buff) -> u32 {
            if ctx.is_null() {
                return LINKED;
            }
            // SAFETY: a plain read of the context.
            let ifindex = unsafe { (*ctx).ingress_ifindex };
            join::<$addr, _>(&Buffer(ctx), ifindex, false)
        }

        /// [`follow`] for the tc program.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $follow(ctx: *mut __sk_buff) -> u32 {
            if ctx.is_null() {
                return LINKED;
            }
            follow::<$addr, _>(&Buffer(ctx), false)
        }

        /// Strips the outer headers off; 0 if that cannot be, and it is counted.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $take(ctx: *mut __sk_buff) -> u32 {
            if ctx.is_null() {
                return 0;
            }
            u32::from(settle_mark::<$addr, _>(&Buffer(ctx)).is_some() && take::<$addr>(ctx))
        }
    };
}

stages!(
    Addr4,
    lb_adopt4,
    lb_start4,
    lb_tc_inspect4,
    lb_tc_join4,
    lb_tc_follow4,
    lb_tc_take4
);
stages!(
    Addr6,
    lb_adopt6,
    lb_start6,
    lb_tc_inspect6,
    lb_tc_join6,
    lb_tc_follow6,
    lb_tc_take6
);

#[inline(always)]
fn take<A: Tables>(skb: *mut __sk_buff) -> bool {
    let (by, flags) = (-(A::OVERHEAD as i32), u64::from(BPF_F_ADJ_ROOM_FIXED_GSO));
    // SAFETY: the helper takes the context.
    let taken = unsafe { bpf_skb_adjust_room(skb, by, BPF_ADJ_ROOM_MAC, flags) };
    if taken != 0 {
        counters::count(Reason::Malformed);
    }
    taken == 0
}
