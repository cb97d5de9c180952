//! The latest changes, for people: which backend went into which state, and why.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;
use tokio::sync::Notify;

use crate::admin::report::Timestamp;

/// As many are remembered.
const KEPT: usize = 1_000;
/// The longest text of an event, bytes: names and reasons are written by tenants.
const LONGEST: usize = 512;

/// Something that changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Event {
    /// Counts up from 1 on.
    pub number: u64,
    /// When it was seen.
    pub at: Timestamp,
    /// What sort of thing, as in the log: `backend state changed`, `service added`.
    pub what: String,
    /// The service's name or address, with port and protocol.
    pub service: Option<String>,
    /// Where the backend listens.
    pub backend: Option<SocketAddr>,
    /// The state or weight before.
    pub from: Option<String>,
    /// The state or weight after.
    pub to: Option<String>,
    /// Why.
    pub reason: String,
}

/// The latest events, shared between who tells and who reads.
#[derive(Clone, Debug, Default)]
pub struct Events(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    ring: Mutex<Ring>,
    pushed: Notify,
}

#[derive(Debug, Default)]
struct Ring {
    last: u64,
    kept: VecDeque<Event>,
}

// === impl Event ===

impl Event {
    /// A backend is in another state.
    pub const STATE: &str = "backend state changed";

    /// One about a service.
    pub fn of_service(what: &str, service: String) -> Self {
        Self {
            what: what.to_owned(),
            service: Some(service),
            ..Self::default()
        }
    }
}

// === impl Events ===

impl Events {
    /// Adds one, with its number and the moment that it is; the oldest is forgotten for it.
    pub fn push(&self, mut event: Event) {
        for text in [&mut event.what, &mut event.reason]
            .into_iter()
            .chain(event.service.as_mut())
        {
            if text.len() > LONGEST {
                let end = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at));
                text.truncate(end.unwrap_or(0));
            }
        }
        let mut ring = self.0.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.last += 1;
        event.number = ring.last;
        event.at = Timestamp::now();
        if ring.kept.len() == KEPT {
            ring.kept.pop_front();
        }
        ring.kept.push_back(event);
        drop(ring);
        self.0.pushed.notify_waiters();
    }

    /// Those after the event of this number, the oldest first.
    pub fn after(&self, number: u64) -> Vec<Event> {
        let ring = self.0.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let new = ring.kept.iter().filter(|event| event.number > number);
        new.cloned().collect()
    }

    /// Waits until there are some.
    pub async fn next(&self, number: u64) -> Vec<Event> {
        loop {
            // Before the look: it knows of what is pushed from here on.
            let pushed = self.0.pushed.notified();
            let new = self.after(number);
            if !new.is_empty() {
                return new;
            }
            pushed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_and_numbers_go_on() {
        let events = Events::default();
        for number in 0..KEPT + 5 {
            events.push(Event {
                reason: "é".repeat(number),
                ..Event::of_service("service added", "web:80/tcp".to_owned())
            });
        }
        let kept = events.after(0);
        assert_eq!(kept.len(), KEPT);
        assert_eq!(kept[0].number, 6);
        assert!(kept.iter().all(|event| event.reason.len() <= LONGEST));
        assert_eq!(events.after(KEPT as u64 + 4).len(), 1);
        assert!(events.after(KEPT as u64 + 5).is_empty());
    }
}
