//! Telling what becomes of single packets and calls, while somebody asks.
//!
//! A packet is noted when it comes and told of when its verdict stands: what it went through in between
//! shows in the counters and in the flow tables, so that nothing on its way has to tell anything.

mod call;

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_OK, TC_ACT_SHOT, xdp_action, xdp_md},
    helpers::generated::{
        bpf_get_prandom_u32, bpf_skb_load_bytes, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
    },
};
use lb_common::{
    Addr4, Addr6, Be16, FlowKey, Reason, SNAP_MAX, TRACE_MATCHES, TraceConfig, TraceEvent,
    TraceNote, addr_flag, backend_kind, direction,
    headers::{ETH_IPV4, ETH_IPV6, ETH_LEN, Ip, Packet, TCP, UDP, flow_key, tcp_flags},
    icmp, scale, trace_flag, trace_hook, trace_verdict,
};

pub use call::call;

use crate::{
    clock::{now, precisely},
    extensions::HEADER_MASK,
    flows::find,
    ingress::is_our_port,
    maps::{
        LB_BACKENDS, LB_COUNTERS, LB_TRACE, LB_TRACE_EVENTS, LB_TRACE_GUARD, LB_TRACE_MATCHES,
        LB_TRACE_NOTE,
    },
    tables::Tables,
    views::{Buffer, Bytes},
};

/// A packet that can be told of.
trait Told: Packet {
    /// Bytes of the frame.
    fn length(&self) -> u32;
    /// The interface that the program runs at.
    fn interface(&self) -> u32;
    /// Copies its first bytes; whether it could.
    fn copy(&self, to: *mut u8, bytes: u32) -> bool;
}

impl Told for Bytes {
    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: the context of this program.
        unsafe { bpf_xdp_get_buff_len(self.0) as u32 }
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: a context field.
        unsafe { (*self.0).ingress_ifindex }
    }

    #[inline(always)]
    fn copy(&self, to: *mut u8, bytes: u32) -> bool {
        // SAFETY: the caller has room for so many bytes.
        unsafe { bpf_xdp_load_bytes(self.0, 0, to.cast(), bytes) == 0 }
    }
}

impl Told for Buffer {
    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: a context field.
        unsafe { (*self.0).len }
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: a context field.
        unsafe { (*self.0).ifindex }
    }

    #[inline(always)]
    fn copy(&self, to: *mut u8, bytes: u32) -> bool {
        // SAFETY: as above.
        unsafe { bpf_skb_load_bytes(self.0.cast(), 0, to.cast(), bytes) == 0 }
    }
}

/// What is asked for, if anybody asks.
#[inline(always)]
fn asked() -> Option<&'static TraceConfig> {
    LB_TRACE
        .get(0)
        .filter(|config| config.until != 0 && config.until > now())
}

macro_rules! stages {
    ($addr:ty, $view:ident, $context:ty, $saw:ident, $did:ident) => {
        /// Notes a packet that came; 0 if it is not to be told of.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $saw(ctx: *mut $context, l3: u32, hook: u32) -> u32 {
            if ctx.is_null() {
                return 0;
            }
            let l3 = (l3 & HEADER_MASK) as usize;
            u32::from(saw::<$addr, _>(&$view(ctx), l3, hook as u8).is_some())
        }

        /// Tells what became of the packet noted last.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $did(ctx: *mut $context, verdict: u32) -> u32 {
            if ctx.is_null() {
                return 0;
            }
            u32::from(did::<$addr, _>(&$view(ctx), verdict as u8).is_some())
        }
    };
}

stages!(Addr4, Bytes, xdp_md, lb_xdp_saw4, lb_xdp_did4);
stages!(Addr6, Bytes, xdp_md, lb_xdp_saw6, lb_xdp_did6);
stages!(Addr4, Buffer, __sk_buff, lb_tc_saw4, lb_tc_did4);
stages!(Addr6, Buffer, __sk_buff, lb_tc_saw6, lb_tc_did6);

/// Notes a packet at XDP; gives its EtherType `kind` if it is to be told of, else 0. `l3`: where that leads.
#[inline(always)]
pub fn xdp_saw(ctx: *mut xdp_md, kind: u16, l3: usize) -> u16 {
    let told = asked().is_some()
        && match kind {
            ETH_IPV4 => lb_xdp_saw4(ctx, l3 as u32, trace_hook::XDP.into()) != 0,
            ETH_IPV6 => lb_xdp_saw6(ctx, l3 as u32, trace_hook::XDP.into()) != 0,
            _ => false,
        };
    if told { kind } else { 0 }
}

/// Tells of it.
#[inline(always)]
pub fn xdp_did(ctx: *mut xdp_md, traced: u16, action: u32) {
    if traced == 0 {
        return;
    }
    let verdict = u32::from(match action {
        xdp_action::XDP_PASS => trace_verdict::PASSED,
        xdp_action::XDP_TX | xdp_action::XDP_REDIRECT => trace_verdict::SENT,
        _ => trace_verdict::DROPPED,
    });
    match traced {
        ETH_IPV4 => lb_xdp_did4(ctx, verdict),
        _ => lb_xdp_did6(ctx, verdict),
    };
}

/// Notes a packet at one of the tc hooks; gives its EtherType `kind` if it is to be told of, else 0.
#[inline(always)]
pub fn tc_saw(skb: *mut __sk_buff, kind: u16, hook: u8) -> u16 {
    let told = asked().is_some()
        && match kind {
            ETH_IPV4 => lb_tc_saw4(skb, ETH_LEN as u32, hook.into()) != 0,
            ETH_IPV6 => lb_tc_saw6(skb, ETH_LEN as u32, hook.into()) != 0,
            _ => false,
        };
    if told { kind } else { 0 }
}

/// Tells of it.
#[inline(always)]
pub fn tc_did(skb: *mut __sk_buff, traced: u16, action: i32) {
    if traced == 0 {
        return;
    }
    let verdict = u32::from(match action {
        TC_ACT_OK => trace_verdict::PASSED,
        TC_ACT_SHOT => trace_verdict::DROPPED,
        _ => trace_verdict::SENT,
    });
    match traced {
        ETH_IPV4 => lb_tc_did4(skb, verdict),
        _ => lb_tc_did6(skb, verdict),
    };
}

#[inline(always)]
fn note() -> Option<&'static mut TraceNote> {
    let note = LB_TRACE_NOTE.get_ptr_mut(0)?;
    // SAFETY: a per-CPU value; XDP and tc programs of one CPU do not preempt each other.
    Some(unsafe { &mut *note })
}

#[inline(always)]
fn saw<A: Tables, P: Told>(packet: &P, l3: usize, hook: u8) -> Option<()> {
    let config = LB_TRACE.get(0)?;
    let ip = A::parse(packet, l3)?;
    let carried = ip.proto == TCP || ip.proto == UDP;
    let key = match flow_key(packet, &ip) {
        Some(key) if carried && is_whole_or_first::<A, P>(packet, l3, &ip) => key,
        _ => FlowKey {
            src: ip.src,
            dst: ip.dst,
            sport: Be16(0),
            dport: Be16(0),
            proto: u32::from(ip.proto),
        },
    };
    let known = key.dport.0 != 0 && find(&key).is_some();
    let mut flags = if known { trace_flag::KNOWN } else { 0 };
    if ip.fragment {
        flags |= trace_flag::FRAGMENT;
    }
    let may_be_foreign = if hook == trace_hook::LINK || hook == trace_hook::EGRESS {
        if key.dport.0 != 0 && !known {
            return None;
        }
        !known
    } else {
        if u32::from(A::filter(&ip.dst)) & addr_flag::TRACED == 0 {
            return None;
        }
        match A::address_flags(&ip.dst) {
            0 => return None,
            ours if ours & addr_flag::VIP != 0 => false,
            _ if key.dport.0 == 0 => true,
            _ if !is_our_port(&key) => return None,
            _ => false,
        }
    };
    if may_be_foreign {
        flags |= trace_flag::QUIET;
    }
    let (kind, code) = match ip.proto {
        TCP => (tcp_flags(packet, ip.l4).unwrap_or(0), 0),
        proto if proto == A::PROTO => icmp::kind(packet, ip.l4).unwrap_or((0, 0)),
        _ => (0, 0),
    };
    let note = note()?;
    for reason in 0..Reason::ALL.len() {
        let Some(counter) = LB_COUNTERS.get(reason as u32) else {
            break;
        };
        note.counted[reason] = *counter;
    }
    let event = &mut note.event;
    event.at = precisely();
    put(&mut event.src, ip.src.widen());
    put(&mut event.dst, ip.dst.widen());
    event.sport = key.sport;
    event.dport = key.dport;
    event.len = packet.length();
    event.ifindex = packet.interface();
    event.flags = flags;
    event.hook = hook;
    event.family = A::VERSION;
    event.proto = ip.proto;
    event.kind = kind;
    event.code = code;
    event.captured = captured(packet, config.snap, &mut note.bytes);
    Some(())
}

#[inline(always)]
fn is_whole_or_first<A: Tables, P: Packet>(packet: &P, l3: usize, ip: &Ip<A>) -> bool {
    !ip.fragment || A::fragment(packet, l3, ip).is_some_and(|fragment| fragment.is_first())
}

/// Copies the first bytes of a packet; gives their number.
#[inline(always)]
fn captured<P: Told>(packet: &P, snap: u32, bytes: &mut [u8; SNAP_MAX + 1]) -> u32 {
    let len = packet.length();
    let least = if len < snap { len } else { snap };
    if least == 0 {
        return 0;
    }
    // Opaque to the compiler, which would otherwise move the bound to where the verifier forgets it; and above 0 by what
    // is added, since kernels before 6.3 learn nothing from a comparison with 0.
    let wanted = (core::hint::black_box(least - 1) & SNAP_MAX as u32) + 1;
    if !packet.copy(bytes.as_mut_ptr(), wanted) {
        return 0;
    }
    wanted
}

#[inline(always)]
fn did<A: Tables, P: Told>(packet: &P, verdict: u8) -> Option<()> {
    let config = LB_TRACE.get(0)?;
    let note = note()?;
    let reasons = lb_trace_reasons();
    let event = &mut note.event;
    event.reasons = reasons;
    event.verdict = verdict;
    describe::<A>(event);
    let eventful = reasons != 0 || verdict == trace_verdict::DROPPED;
    if event.flags & trace_flag::QUIET != 0 && !eventful && verdict == trace_verdict::PASSED {
        return None;
    }
    if event.flags & trace_flag::KNOWN != 0 && !eventful && !is_sampled(config) {
        return None;
    }
    if lb_trace_wants(&raw const *event) == 0 || !may_tell(config) {
        return None;
    }
    let came = event.captured;
    tell(note, came);
    let event = &mut note.event;
    let translated = verdict == trace_verdict::PASSED
        && event.flags & trace_flag::FLOW != 0
        && reasons & (1 << Reason::ToSlowPath as u32) == 0;
    if config.snap != 0 && (translated || verdict == trace_verdict::SENT) {
        event.flags |= trace_flag::AFTER;
        event.len = packet.length();
        let went = captured(packet, config.snap, &mut note.bytes);
        note.event.captured = went;
        tell(note, went);
    }
    Some(())
}

/// What was counted since the packet was noted, a bit for each reason. A function of its own: the verifier
/// would follow every set of bits to the program's end.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_trace_reasons() -> u64 {
    let Some(note) = note() else {
        return 0;
    };
    let mut reasons = 0;
    for reason in 0..Reason::ALL.len() {
        let Some(counter) = LB_COUNTERS.get(reason as u32) else {
            break;
        };
        let moved = counter.wrapping_sub(note.counted[reason]);
        reasons |= u64::from(moved != 0) << reason;
    }
    reasons
}

/// Whether anybody wants to be told of this event; 0: nobody.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_trace_wants(event: *const TraceEvent) -> u32 {
    // SAFETY: null or a whole value, which is what the verifier grants for an argument of this type.
    let (Some(event), Some(config)) = (unsafe { event.as_ref() }, LB_TRACE.get(0)) else {
        return 0;
    };
    let matches = config.matches;
    if matches == 0 {
        return 1;
    }
    for index in 0..TRACE_MATCHES as u32 {
        if index >= matches {
            break;
        }
        if LB_TRACE_MATCHES
            .get(index)
            .is_some_and(|one| one.wants(event))
        {
            return 1;
        }
    }
    0
}

/// What is known of the flow of the packet that was noted.
#[inline(always)]
fn describe<A: Tables>(event: &mut TraceEvent) {
    put(&mut event.new_src, Addr6([0; 4]));
    put(&mut event.new_dst, Addr6([0; 4]));
    event.new_sport = Be16(0);
    event.new_dport = Be16(0);
    event.service = 0;
    event.backend = 0;
    event.generation = 0;
    event.direction = direction::FORWARD;
    event.way = 0;
    if event.dport.0 == 0 {
        return;
    }
    let key = FlowKey {
        src: A::narrow(&event.src),
        dst: A::narrow(&event.dst),
        sport: event.sport,
        dport: event.dport,
        proto: u32::from(event.proto),
    };
    let Some((_, flow)) = find(&key) else {
        return;
    };
    event.flags |= trace_flag::FLOW;
    put(&mut event.new_src, flow.new_src.widen());
    put(&mut event.new_dst, flow.new_dst.widen());
    event.new_sport = flow.new_sport;
    event.new_dport = flow.new_dport;
    event.service = flow.service;
    event.backend = flow.backend;
    event.generation = flow.generation;
    event.direction = flow.direction;
    event.way = flow.kind;
    if backend_kind::is_dsr(flow.kind)
        && let Some(backend) = LB_BACKENDS.get(flow.backend)
    {
        put(&mut event.new_dst, backend.addr);
        event.new_dport = backend.port;
    }
}

/// Writes an address word by word: the compiler would call a function that moves bytes.
#[inline(always)]
fn put(to: &mut Addr6, from: Addr6) {
    let to = (&raw mut to.0).cast::<u32>();
    for (i, word) in from.0.into_iter().enumerate() {
        // SAFETY: an address has four words.
        unsafe { to.add(i).write_volatile(word) };
    }
}

/// Whether a packet that goes the way of those before it is told of.
#[inline(always)]
fn is_sampled(config: &TraceConfig) -> bool {
    // SAFETY: no arguments, no side effects.
    config.sample <= 1 || scale(unsafe { bpf_get_prandom_u32() }, config.sample) == 0
}

/// Takes one packet of those that this CPU may tell of.
#[inline(always)]
fn may_tell(config: &TraceConfig) -> bool {
    let Some(guard) = LB_TRACE_GUARD.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: a per-CPU value. Where one hook interrupts another, one packet more may be told of.
    let guard = unsafe { &mut *guard };
    guard.bucket.refill(config.rate, now());
    let may = guard.bucket.take();
    if !may {
        guard.lost += 1;
    }
    may
}

#[inline(always)]
fn tell(note: &TraceNote, captured: u32) {
    let bytes = core::hint::black_box(captured) & SNAP_MAX as u32;
    let len = size_of::<TraceEvent>() + bytes as usize;
    // SAFETY: the bytes stand right behind the event, and there are no more than fit.
    tell_bytes(unsafe { core::slice::from_raw_parts((&raw const note.event).cast(), len) });
}

#[inline(always)]
fn tell_bytes(bytes: &[u8]) {
    if LB_TRACE_EVENTS.output_untyped::<[u8]>(bytes, 0).is_err()
        && let Some(guard) = LB_TRACE_GUARD.get_ptr_mut(0)
    {
        // SAFETY: as above.
        unsafe { (*guard).lost += 1 };
    }
}
