//! What is remembered of sockets: which VIP a backend stands for, and which backend a UDP socket has chosen.
//!
//! Global functions: what they keep on the stack is not the caller's.

use lb_common::{Backend, Be16, SockChoice, SockKey, SockPeer};

use crate::{
    choose::{NONE, keeps_flows},
    clock::millis,
    counters, load,
    maps::{LB_BACKENDS, LB_SOCK_CHOICES, LB_SOCK_PEERS},
    tables::ANY,
};

/// Remembers that the VIP in `key` is the backend in `peer` to this socket; 0: it is done.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_sock_remember(key: *const SockKey, peer: *const SockPeer) -> u32 {
    // SAFETY: null or a whole value, which is what the verifier grants for arguments of these types.
    let (Some(key), Some(peer)) = (unsafe { key.as_ref() }, unsafe { peer.as_ref() }) else {
        return 1;
    };
    let Some(backend) = LB_BACKENDS.get(peer.backend) else {
        return 1;
    };
    let told = LB_SOCK_PEERS.insert(of_backend(key, backend), *peer, ANY);
    u32::from(told.is_err())
}

/// The backend that this socket's datagrams to the VIP already go to, while it lives, else [`NONE`]; `fails_open`: not 0
/// if the service does.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_sock_chosen(key: *const SockKey, fails_open: u32) -> u32 {
    // SAFETY: as above.
    let Some(key) = (unsafe { key.as_ref() }) else {
        return NONE;
    };
    // SAFETY: the ids are copied before any other map call.
    let choice = unsafe { LB_SOCK_CHOICES.get(*key) };
    let Some((id, generation)) = choice.map(|choice| (choice.backend, choice.generation)) else {
        return NONE;
    };
    let Some(backend) = LB_BACKENDS.get(id) else {
        return NONE;
    };
    if !keeps_flows(backend, generation, || fails_open != 0) {
        return NONE;
    }
    // Without it an answer would come from a stranger.
    // SAFETY: only whether it is there.
    match unsafe { LB_SOCK_PEERS.get(of_backend(key, backend)) } {
        Some(_) => id,
        None => NONE,
    }
}

/// Ends one flow of a UDP socket and makes `key` name the one before it, beginning with [`SockKey::head`]; 0: there is
/// none.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_sock_end(key: *mut SockKey) -> u32 {
    // SAFETY: as above; it may be written.
    let Some(key) = (unsafe { key.as_mut() }) else {
        return 0;
    };
    // SAFETY: copied before any other map call.
    let Some(choice) = unsafe { LB_SOCK_CHOICES.get(*key) }.copied() else {
        return 0;
    };
    let _ = LB_SOCK_CHOICES.remove(*key);
    if !key.is_head() {
        end(key, &choice, NONE);
    }
    let Some(older) = key.older(&choice) else {
        return 0;
    };
    *key = older;
    1
}

/// Notes a UDP flow that opens, in the place of the one that the socket had to the same VIP.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_sock_note(key: *const SockKey, peer: *const SockPeer) -> u32 {
    // SAFETY: as above.
    let (Some(key), Some(peer)) = (unsafe { key.as_ref() }, unsafe { peer.as_ref() }) else {
        return 0;
    };
    let mut choice = SockChoice {
        backend: peer.backend,
        generation: peer.generation,
        service: peer.service,
        opened: millis(),
        ..SockChoice::default()
    };
    // SAFETY: what is needed of it is copied before any other map call.
    if let Some(before) = unsafe { LB_SOCK_CHOICES.get(*key) } {
        goes_before(&mut choice, before);
        let ended = SockChoice {
            backend: before.backend,
            generation: before.generation,
            service: before.service,
            opened: before.opened,
            ..SockChoice::default()
        };
        if ended.backend != peer.backend {
            counters::redispatched(ended.backend, ended.generation, ended.service);
        }
        end(key, &ended, peer.backend);
    } else {
        let head = SockKey::head(key.cookie, key.proto);
        // SAFETY: as above.
        if let Some(before) = unsafe { LB_SOCK_CHOICES.get(head) } {
            goes_before(&mut choice, before);
        }
        let newest = SockChoice {
            older: key.addr,
            older_port: Be16(key.port.0),
            older_family: key.family,
            ..SockChoice::default()
        };
        // Without it the end of the socket is not seen, as where the table has lost it: the agent counts.
        let _ = LB_SOCK_CHOICES.insert(head, newest, ANY);
    }
    load::add(peer.backend, peer.service);
    // Without the memory the next datagram draws again, by the same cookie.
    let _ = LB_SOCK_CHOICES.insert(*key, choice, ANY);
    0
}

/// What was chosen before `known` was chosen before `choice`.
#[inline(always)]
fn goes_before(choice: &mut SockChoice, known: &SockChoice) {
    choice.older = known.older;
    choice.older_port = Be16(known.older_port.0);
    choice.older_family = known.older_family;
}

/// Counts the end of a flow, and forgets its backend's VIP unless the backend is `kept`.
#[inline(always)]
fn end(key: &SockKey, choice: &SockChoice, kept: u32) {
    let Some(backend) = LB_BACKENDS.get(choice.backend) else {
        return;
    };
    if backend.generation != choice.generation {
        // The id is another backend's by now.
        return;
    }
    if choice.backend != kept {
        // Not there: the agent was first, or another VIP of the socket has the same backend.
        let _ = LB_SOCK_PEERS.remove(of_backend(key, backend));
    }
    load::remove(choice.backend, choice.service, choice.opened);
}

/// The same socket's key by its backend.
#[inline(always)]
fn of_backend(key: &SockKey, backend: &Backend) -> SockKey {
    SockKey {
        cookie: key.cookie,
        addr: backend.addr,
        port: Be16(backend.port.0),
        family: key.family,
        proto: key.proto,
        pad: 0,
    }
}
