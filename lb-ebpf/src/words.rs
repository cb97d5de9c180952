//! What the programs do, in words, by aya-log: only in builds with the feature `trace`.
//!
//! What happens to a packet is noted, and said when its verdict stands: deep down the stack has no room for words. What
//! a socket's call comes to is said at once, since a process may be interrupted.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use aya_log_ebpf::{debug, info, warn};
use lb_common::{Reason, SockPeer};

use crate::{choose::NONE, counters, maps::LB_BACKENDS};

/// What happened since a packet came.
struct Note {
    /// A bit for each reason that was counted.
    reasons: u64,
    service: u32,
    /// That of a new flow, or [`NONE`].
    backend: u32,
    /// A backend that became suspect, or [`NONE`].
    suspect: u32,
}

#[btf_map]
static LB_WORDS: PerCpuArray<Note, 1> = PerCpuArray::new();

const REASONS: usize = Reason::ALL.len();
/// All names are as long as the longest: a table of texts would be one of pointers, which the loader cannot set.
const NAME: usize = longest();
static NAMES: [[u8; NAME]; REASONS] = names();

const fn longest() -> usize {
    let (mut longest, mut i) = (0, 0);
    while i < REASONS {
        let len = Reason::ALL[i].as_str().len();
        if len > longest {
            longest = len;
        }
        i += 1;
    }
    longest
}

const fn names() -> [[u8; NAME]; REASONS] {
    let mut names = [[b' '; NAME]; REASONS];
    let mut i = 0;
    while i < REASONS {
        let name = Reason::ALL[i].as_str().as_bytes();
        let mut at = 0;
        while at < name.len() {
            names[i][at] = name[at];
            at += 1;
        }
        i += 1;
    }
    names
}

#[inline(always)]
fn note() -> Option<&'static mut Note> {
    let note = LB_WORDS.get_ptr_mut(0)?;
    // SAFETY: a per-CPU value. A packet that interrupts a call may at worst be told with the call's reason.
    Some(unsafe { &mut *note })
}

/// A packet comes.
#[inline(always)]
pub fn begin() {
    lb_say_nothing();
}

/// Forgets what was noted. A function of its own: what the caller holds is then kept in registers, and its stack frame
/// is one of those that are full.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_say_nothing() -> u32 {
    if let Some(note) = note() {
        note.reasons = 0;
        note.backend = NONE;
        note.suspect = NONE;
    }
    0
}

/// Counts under the reason of this number.
#[inline(always)]
pub fn count(reason: u32) {
    lb_count(reason);
}

/// A function of its own, see [`lb_say_nothing`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_count(reason: u32) -> u32 {
    counters::count_only(reason);
    if let Some(note) = note() {
        note.reasons |= 1 << (reason & (u64::BITS - 1));
    }
    0
}

/// A backend was chosen for a new flow.
#[inline(always)]
pub fn chosen(service: u32, backend: u32) {
    lb_note_flow(service, backend);
}

/// A function of its own, see [`lb_say_nothing`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_note_flow(service: u32, backend: u32) -> u32 {
    if let Some(note) = note() {
        note.service = service;
        note.backend = backend;
    }
    0
}

/// A backend became suspect.
#[inline(always)]
pub fn suspect(backend: u32) {
    if let Some(note) = note() {
        note.suspect = backend;
    }
}

/// Says what became of the packet.
#[inline(always)]
pub fn end() {
    lb_say_all();
}

/// Says what a socket's call for the VIP in `peer` came to; `known`: its backend was chosen before.
#[inline(always)]
pub fn call(peer: &SockPeer, reason: Option<u32>, known: bool) {
    match reason {
        Some(reason) => {
            lb_say_reason(reason);
        }
        None if !known && peer.backend != NONE => {
            lb_say_flow(peer.service, peer.backend);
        }
        None => {}
    }
}

/// A function of its own, as are all that say something: the words take much of a stack frame.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_say_all() -> u32 {
    let Some(note) = note() else {
        return 0;
    };
    if note.backend != NONE {
        lb_say_flow(note.service, note.backend);
    }
    if note.suspect != NONE {
        lb_say_suspect(note.suspect);
    }
    for reason in 0..REASONS as u32 {
        if note.reasons >> reason & 1 != 0 {
            lb_say_reason(reason);
        }
    }
    0
}

/// Says where a new flow goes.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_say_flow(service: u32, backend: u32) -> u32 {
    let Some(at) = LB_BACKENDS.get(backend) else {
        return 0;
    };
    let [word, ..] = at.addr.0;
    let port = u32::from(at.port.get());
    if at.family == 4 {
        lb_say_flow4(service, u32::from_be(word), port)
    } else {
        lb_say_flow6(service, backend)
    }
}

/// For IPv4; address and port in host byte order.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_say_flow4(service: u32, addr: u32, port: u32) -> u32 {
    debug!(
        (),
        "service {}: a new flow goes to {:i}:{}", service, addr, port
    );
    0
}

/// For IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_say_flow6(service: u32, backend: u32) -> u32 {
    let Some(at) = LB_BACKENDS.get(backend) else {
        return 0;
    };
    // SAFETY: an address of four words is one of sixteen bytes.
    let addr = unsafe { *(&raw const at.addr).cast::<[u8; 16]>() };
    debug!(
        (),
        "service {}: a new flow goes to [{:i}]:{}",
        service,
        addr,
        at.port.get()
    );
    0
}

/// Says that a backend does not answer.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_say_suspect(backend: u32) -> u32 {
    warn!((), "backend {} is suspect", backend);
    0
}

/// Says why a packet or call was dropped, refused or left alone.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_say_reason(reason: u32) -> u32 {
    let Some(name) = NAMES.get(reason as usize) else {
        return 0;
    };
    // SAFETY: ASCII.
    let name = unsafe { core::str::from_utf8_unchecked(name) };
    info!((), "counted: {}", name);
    0
}
