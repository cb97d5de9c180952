//! Following and ending flows.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use lb_common::{
    Addr4, Addr6, Flow, FlowKey, Reason, ServiceKey, direction,
    headers::{TCP, tcp_flag},
    service_flag, tcp_state,
};

use crate::{
    choose::keeps_flows,
    counters,
    maps::LB_BACKENDS,
    tables::{NOEXIST, Tables},
};

/// Time stamps move at most this often, ns: a write per packet would bounce cache lines.
const TOUCH_INTERVAL: u64 = 1_000_000_000;

/// Coarse monotonic time, ns.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: no arguments, no side effects.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// What is to be done with a packet whose flow is known.
pub enum Known {
    /// Translate it.
    Go,
    /// The flow is over; choose afresh.
    Stale,
    /// The backend is gone: the client must hear of it.
    Reset,
}

/// Checks a flow and notes what the packet says about it.
#[inline(always)]
pub fn follow<A: Tables>(key: &FlowKey<A>, flow: &Flow<A>, flags: u8) -> Known {
    let closed = tcp_state::FIN | tcp_state::RST | tcp_state::PEER_CLOSED;
    let syn = flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN;
    if syn && flow.tcp & closed != 0 {
        return Known::Stale;
    }
    if flow.direction == direction::FORWARD {
        let alive = LB_BACKENDS
            .get(flow.backend)
            .is_some_and(|backend| keeps_flows(backend, flow.generation, || fails_open(key)));
        if !alive {
            counters::count(Reason::BackendGone);
            return if key.proto == u32::from(TCP) && !syn {
                Known::Reset
            } else {
                Known::Stale
            };
        }
    }
    let ended = flags & (tcp_flag::FIN | tcp_flag::RST);
    if ended != 0 || now().saturating_sub(flow.last_seen) > TOUCH_INTERVAL {
        A::touch(key, u32::from(ended));
    }
    Known::Go
}

/// Notes a connection's end in both halves, moves the time stamp, and puts the other half back if it
/// was evicted while this one was in use.
#[inline(always)]
fn touch<A: Tables>(key: &FlowKey<A>, ended: u8) {
    let Some(flow) = A::flow(key) else { return };
    flow.last_seen = now();
    if ended != 0 {
        flow.tcp |= if ended & tcp_flag::RST != 0 {
            tcp_state::RST
        } else {
            tcp_state::FIN
        };
    }
    let pair_key = flow.pair_key(key.proto);
    match A::flow(&pair_key) {
        Some(pair) if ended != 0 && pair.is_pair_of(key) => pair.tcp |= tcp_state::PEER_CLOSED,
        Some(_) => {}
        None => {
            // Another CPU may be as quick.
            let _ = A::insert_flow(&pair_key, &flow.pair(key), NOEXIST);
        }
    }
}

/// [`touch`] for IPv4: a function of its own, off the stack of the packet path.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_touch4(key: *const FlowKey<Addr4>, ended: u32) -> u32 {
    // SAFETY: null or a whole key, which is what the verifier grants for an argument of this type.
    if let Some(key) = unsafe { key.as_ref() } {
        touch(key, ended as u8);
    }
    0
}

/// [`touch`] for IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_touch6(key: *const FlowKey<Addr6>, ended: u32) -> u32 {
    // SAFETY: as above.
    if let Some(key) = unsafe { key.as_ref() } {
        touch(key, ended as u8);
    }
    0
}

/// Removes both halves; the other one only where another flow has not taken its tuple.
#[inline(always)]
pub fn forget<A: Tables>(key: &FlowKey<A>, flow: &Flow<A>) {
    let pair = flow.pair_key(key.proto);
    if A::flow(&pair).is_some_and(|other| other.is_pair_of(key)) {
        A::remove_flow(&pair);
    }
    A::remove_flow(key);
}

/// Whether the service of this packet counts *down* as *active*. Looked up only for a backend that is
/// down.
#[inline(always)]
fn fails_open<A: Tables>(key: &FlowKey<A>) -> bool {
    let service = ServiceKey {
        addr: key.dst,
        port: key.dport,
        proto: key.proto as u8,
        pad: 0,
    };
    A::service(&service).is_some_and(|s| s.flags & service_flag::FAIL_OPEN != 0)
}
