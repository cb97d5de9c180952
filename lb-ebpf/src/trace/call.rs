//! Telling of sockets' calls. A process may be interrupted, so that nothing of a call is noted anywhere but on
//! its own stack.

use lb_common::{SockPeer, TraceEvent, trace_flag, trace_verdict};

use super::{asked, is_sampled, lb_trace_wants, may_tell, put, tell_bytes};
use crate::{
    clock::precisely,
    maps::{LB_BACKENDS, LB_TRACE},
    tables::Tables,
    words,
};

/// What a call came to, for [`call`]: hook, verdict, protocol and family, a byte each.
#[inline(always)]
const fn call_word(hook: u8, verdict: u8, proto: u8, family: u8) -> u32 {
    u32::from_ne_bytes([hook, verdict, proto, family])
}

/// Tells of a socket's call for the VIP in `peer`; `reason`: the number of why it is refused, if it is; `known`: its
/// backend was chosen before.
#[inline(always)]
pub fn call<A: Tables>(hook: u8, proto: u8, peer: &SockPeer, reason: Option<u32>, known: bool) {
    words::call(peer, reason, known);
    if asked().is_none() {
        return;
    }
    let verdict = if reason.is_some() {
        trace_verdict::REFUSED
    } else {
        trace_verdict::PASSED
    };
    let reason = reason.unwrap_or(u32::MAX);
    let word = call_word(hook, verdict, proto, A::VERSION);
    lb_trace_call(peer, word, reason, u32::from(known));
}

/// [`call`] as a function of its own: the event takes a quarter of the stack.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_trace_call(peer: *const SockPeer, word: u32, reason: u32, known: u32) -> u32 {
    // SAFETY: null or a whole value, which is what the verifier grants for an argument of this type.
    let (Some(peer), Some(config)) = (unsafe { peer.as_ref() }, LB_TRACE.get(0)) else {
        return 0;
    };
    let [hook, verdict, proto, family] = word.to_ne_bytes();
    if known != 0 && !is_sampled(config) {
        return 0;
    }
    let mut event = TraceEvent {
        at: precisely(),
        dst: peer.vip,
        dport: peer.port,
        service: peer.service,
        backend: peer.backend,
        generation: peer.generation,
        hook,
        verdict,
        family,
        proto,
        ..TraceEvent::default()
    };
    if reason < u64::BITS {
        event.reasons = 1 << reason;
    }
    if known != 0 {
        event.flags = trace_flag::KNOWN;
    }
    if peer.backend != 0
        && let Some(backend) = LB_BACKENDS.get(peer.backend)
    {
        event.flags |= trace_flag::FLOW;
        put(&mut event.new_dst, backend.addr);
        event.new_dport = backend.port;
        event.way = backend.kind;
    }
    if lb_trace_wants(&raw const event) == 0 || !may_tell(config) {
        return 0;
    }
    // SAFETY: integers without padding.
    tell_bytes(unsafe {
        core::slice::from_raw_parts((&raw const event).cast(), size_of::<TraceEvent>())
    });
    0
}
