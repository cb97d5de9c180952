//! A packet from outside: whose is it, and where does it go. The same for XDP and for its tc twin.

use lb_common::{
    Backend, Flow, FlowKey, Reason, addr_flag,
    headers::{Ip, Packet, TCP, UDP, flow_key, tcp_flags},
    is_refused, port_flag,
};

use crate::{
    counters,
    flows::{self, Known, begins},
    guard,
    maps::LB_NODE_PORTS,
    open::{HALF_OPEN, NOT_OURS, OF_PEERS, OPENED, REFUSAL, WITHOUT_STATE},
    peer,
    tables::{FIRST_FRAGMENT, FROM_PEER, Table, Tables},
};

/// Where things are in a packet.
#[derive(Clone, Copy)]
pub struct Layout {
    /// Offset of the transport header, bytes.
    pub l4: usize,
    /// Bytes from the IP header on.
    pub len: u16,
    /// Routers that the packet may still pass.
    pub ttl: u8,
}

/// What to do with a packet.
pub enum Action<A: 'static> {
    /// Leave it as it is and let the stack have it.
    Pass,
    /// Drop it; the reason is counted.
    Drop,
    /// It has no flow: open one, outside the stack frame of the packet path, and come again.
    Open,
    /// It is no TCP segment, UDP datagram or whole packet, or not even that is certain.
    Odd,
    /// The shortcut does not lead there: go the whole path.
    Elsewhere,
    /// It is for the node at the port of Geneve.
    Peer,
    /// Rewrite it after this flow.
    Translate(Translation<A>),
}

/// A packet and what becomes of it.
pub struct Translation<A: 'static> {
    /// Where its parts are.
    pub at: Layout,
    /// Its tuple.
    pub key: FlowKey<A>,
    /// What is written into it.
    pub flow: &'static mut Flow<A>,
    /// Index of its next hop, 0 where it is not known.
    pub hop: u16,
    /// The flow's backend, where the packet is for it.
    pub backend: Option<&'static Backend>,
}

/// Decides about a packet with the network header at `l3`, by the flows of one table; `table`: also whether
/// it is known to be a first fragment.
#[inline(always)]
pub fn decide<A: Tables, P: Packet>(packet: &P, l3: usize, table: u32) -> Action<A> {
    let Some(ip) = A::parse(packet, l3) else {
        malformed(packet);
        return Action::Pass;
    };
    let known = A::filter(&ip.dst);
    if known == 0 {
        return Action::Pass;
    }
    if P::SHORTCUT && u32::from(known) & addr_flag::TRACED != 0 {
        return Action::Elsewhere;
    }
    let whole = !ip.fragment || table & FIRST_FRAGMENT != 0;
    if !whole || (ip.proto != TCP && ip.proto != UDP) {
        return Action::Odd;
    }
    let Some(key) = flow_key(packet, &ip) else {
        malformed(packet);
        return Action::Pass;
    };
    if u32::from(known) & addr_flag::VIP == 0 {
        let port = node_port(&key);
        if !is_ours(port, &key) {
            return if is_of_peers(port, &key) {
                Action::Peer
            } else {
                Action::Pass
            };
        }
    }
    by_flow(packet, &ip, key, table)
}

/// Counts what nobody can read; whether nobody had before.
#[inline(always)]
fn malformed<P: Packet>(packet: &P) -> bool {
    let first = !packet.is_counted();
    if first {
        counters::count(Reason::Malformed);
    }
    first
}

/// Decides about a packet that is for one of our addresses and ports, and has ports; `table`: as for [`decide`].
#[inline(always)]
pub fn by_flow<A: Tables, P: Packet>(
    packet: &P,
    ip: &Ip<A>,
    key: FlowKey<A>,
    table: u32,
) -> Action<A> {
    let at = Layout {
        l4: ip.l4,
        len: ip.len,
        ttl: ip.ttl,
    };
    let flags = if key.proto == u32::from(TCP) {
        let Some(flags) = tcp_flags(packet, at.l4) else {
            if malformed(packet)
                && let Some(service) = flows::service_of(&key)
            {
                counters::service(service.id, |stats| stats.malformed += 1);
            }
            return Action::Pass;
        };
        flags
    } else {
        0
    };
    let table = Table::of(table);
    if P::SHORTCUT && begins(flags) {
        return if is_above_guard(&key) {
            Action::Drop
        } else {
            Action::Elsewhere
        };
    }
    let Some(flow) = A::fast_flow(table, &key) else {
        return Action::Open;
    };
    let fails_open = || !P::SHORTCUT && flows::fails_open(&key);
    let gone = match flows::follow(&key, flow, flags, fails_open) {
        Known::Go(hop, backend) => {
            return Action::Translate(Translation {
                at,
                key,
                flow,
                hop,
                backend,
            });
        }
        _ if P::SHORTCUT => return Action::Elsewhere,
        Known::Touch(hop, backend) => {
            if table != Table::Draft {
                A::touch(table, &key, flags);
            }
            return Action::Translate(Translation {
                at,
                key,
                flow,
                hop,
                backend,
            });
        }
        // Its backend went this very moment.
        _ if table == Table::Draft => return Action::Drop,
        Known::Stale => false,
        Known::Gone => true,
    };
    // Whose connection it is must hear of it: the stack has no such connection, and resets it.
    let told = gone && key.proto == u32::from(TCP) && !begins(flags);
    if gone && !told {
        counters::redispatched(flow.backend, flow.generation, flow.service);
    }
    flows::forget(table, &key, flow);
    if gone {
        counters::count(Reason::BackendGone);
    }
    if told { Action::Pass } else { Action::Open }
}

/// The stages of one hook and one family. Each is a function of its own to the verifier; a trait, since the
/// compiler would make more functions of closures, and pay for each with a call.
pub trait Stages {
    /// A verdict of the hook, or one of the marks below.
    type Verdict: Copy + PartialEq;
    /// The stack has it.
    const PASS: Self::Verdict;
    /// It is dropped.
    const DROP: Self::Verdict;
    /// Not a verdict: it has no flow.
    const OPEN: Self::Verdict;
    /// Not a verdict: it is a first fragment, and may be treated as a whole packet.
    const FIRST: Self::Verdict;
    /// Not a verdict: it is for the node at the port of Geneve.
    const PEER: Self::Verdict;
    /// The packet path; `table`: as for [`decide`].
    fn path(&self, table: u32) -> Self::Verdict;
    /// What becomes of the packets that the path leaves to other functions.
    fn settle(&self, verdict: Self::Verdict, table: u32) -> Self::Verdict;
    /// Finds or makes a flow for the packet.
    fn open(&self) -> u32;
    /// Whether a refusal is settled by dropping it, see [`crate::suspect::settled`].
    fn settled(&self) -> bool;
    /// See [`Packet::is_counted`].
    fn is_counted(&self) -> bool;
    /// Whose a packet for the port of Geneve is, see [`peer::inspect`].
    fn inspect(&self) -> u32;
    /// The flow of a peer's packet, see [`peer::join`].
    fn join(&self) -> u32;
    /// The same of one without ports, see [`peer::follow`].
    fn follow(&self) -> u32;
    /// Strips the outer headers off; 0: it is dropped, and counted.
    fn take(&self) -> u32;
}

/// Goes on from the verdict that the packet path came to over the main table.
#[inline(always)]
pub fn staged<S: Stages>(stages: &S, first: S::Verdict) -> S::Verdict {
    let verdict = opened(stages, first, 0);
    if verdict != S::FIRST {
        return verdict;
    }
    match opened(stages, stages.path(FIRST_FRAGMENT), FIRST_FRAGMENT) {
        verdict if verdict == S::FIRST => S::PASS,
        verdict => verdict,
    }
}

/// Where the packet has no flow, the path runs again over what was found or made.
#[inline(always)]
fn opened<S: Stages>(stages: &S, first: S::Verdict, mark: u32) -> S::Verdict {
    let verdict = stages.settle(first, mark);
    if verdict == S::PEER {
        return received(stages);
    }
    if verdict != S::OPEN {
        return verdict;
    }
    let table = match stages.open() {
        OPENED => Table::Main,
        REFUSAL if stages.settled() => return S::DROP,
        HALF_OPEN | REFUSAL => Table::Half,
        WITHOUT_STATE => Table::Draft,
        OF_PEERS => return received(stages),
        NOT_OURS => return S::PASS,
        reason if is_refused(reason) && stages.is_counted() => return S::PASS,
        reason if goes_up(reason) => return S::PASS,
        _ => return S::DROP,
    };
    let table = table.scalar() | mark;
    let verdict = stages.settle(stages.path(table), table);
    if verdict != S::OPEN {
        return verdict;
    }
    // Evicted at once: the table is far too small.
    counters::count(Reason::FlowTableFull);
    S::DROP
}

/// A peer's packet, taken out, goes by the flow that stands, and opens none: it never leaves this node again.
#[inline(always)]
fn received<S: Stages>(stages: &S) -> S::Verdict {
    let what = match stages.inspect() {
        peer::WITH_PORTS => peer::outcome(stages.join()),
        peer::WITHOUT_PORTS => peer::outcome(stages.follow()),
        what => what,
    };
    let table = match what {
        peer::TAKEN | peer::UP => Table::Main,
        peer::TAKEN_HALF => Table::Half,
        peer::SHOT => return S::DROP,
        _ => return S::PASS,
    };
    if stages.take() == 0 {
        return S::DROP;
    }
    if what == peer::UP {
        return S::PASS;
    }
    let mark = table.scalar() | FROM_PEER;
    let mut verdict = stages.settle(stages.path(mark), mark);
    if verdict == S::FIRST {
        verdict = stages.path(mark | FIRST_FRAGMENT);
    }
    if verdict == S::OPEN || verdict == S::FIRST || verdict == S::PEER {
        // Evicted at once, or another's by now.
        counters::count(Reason::FlowTableFull);
        return S::DROP;
    }
    verdict
}

/// Whether a SYN is one too many, and none sent again. Asked before all else: this is what most of a flood comes to.
/// That to a hashed service may go on without a flow.
#[inline(always)]
fn is_above_guard<A: Tables>(key: &FlowKey<A>) -> bool {
    let above = guard::is_spent()
        && A::flow(Table::Half, key).is_none()
        && flows::service_of(key).is_some_and(|service| !service.is_hashed());
    if above {
        counters::count(Reason::NewFlowGuard);
    }
    above
}

/// Counts a packet that gets no translation; whether the stack is to have it. What is refused goes up
/// untouched: the VIP is a local address that no socket can be reached at (`sk_lookup`), so the stack
/// answers with a TCP reset or a port unreachable, rate-limited as the host is set.
#[inline(always)]
pub fn goes_up(reason: u32) -> bool {
    counters::count_number(reason);
    if !is_refused(reason) {
        return false;
    }
    // The stack limits port unreachables, but not resets.
    let answered = guard::may_refuse();
    if !answered {
        counters::count(Reason::RefusalGuard);
    }
    answered
}

/// Whether a port of the node's own addresses is one of ours.
#[inline(always)]
pub fn is_our_port<A>(key: &FlowKey<A>) -> bool {
    is_ours(node_port(key), key)
}

/// Whether the packet is for the node at the port of Geneve.
#[inline(always)]
pub fn is_for_peers<A>(key: &FlowKey<A>) -> bool {
    is_of_peers(node_port(key), key)
}

/// What is known of a port of the node's own addresses: bits of `port_flag`.
#[inline(always)]
fn node_port<A>(key: &FlowKey<A>) -> u8 {
    match LB_NODE_PORTS.get(0) {
        Some(ports) => {
            // Opaque to the compiler, which knows the bound and would leave it out: kernels before 6.6 do not know what
            // the swap of two bytes comes to.
            let port = core::hint::black_box(u32::from(key.dport.get()));
            ports[port as usize % ports.len()]
        }
        None => 0,
    }
}

#[inline(always)]
fn is_ours<A>(port: u8, key: &FlowKey<A>) -> bool {
    let wanted = port_flag::SNAT
        | if key.proto == u32::from(TCP) {
            port_flag::TCP
        } else {
            port_flag::UDP
        };
    port & wanted != 0
}

#[inline(always)]
fn is_of_peers<A>(port: u8, key: &FlowKey<A>) -> bool {
    port & port_flag::PEERS != 0 && key.proto == u32::from(UDP)
}
