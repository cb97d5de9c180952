//! Long pages are few at a time: each holds a sample, for as long as its reader takes.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

use super::client::Place;

/// Long pages at a time.
const ALL: usize = 16;
/// Of these: to one address, so that no client keeps all others waiting.
const OF_ONE: usize = 4;
/// Whoever finds no place within this time is to come again.
const PATIENCE: Duration = Duration::from_secs(2);
/// When, s.
const AGAIN: &str = "5";

/// Counts whoever reads a long page.
#[derive(Debug)]
pub(in crate::admin) struct Readers {
    all: Arc<Semaphore>,
    by_addr: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
}

/// One of them, until this is dropped.
#[derive(Debug)]
pub(in crate::admin) struct Reader {
    _all: OwnedSemaphorePermit,
    _own: Option<OwnedSemaphorePermit>,
}

// === impl Readers ===

impl Default for Readers {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(ALL)),
            by_addr: Mutex::default(),
        }
    }
}

impl Readers {
    /// Waits a little for a place; else the answer is that there is none.
    pub(in crate::admin) async fn enter(&self, place: Place) -> Result<Reader, Box<Response>> {
        let waiting = async {
            let own = match place.0 {
                Some(addr) => Some(self.of(addr).acquire_owned().await.ok()?),
                None => None,
            };
            let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
            Some(Reader {
                _all: all,
                _own: own,
            })
        };
        if let Ok(Some(reader)) = tokio::time::timeout(PATIENCE, waiting).await {
            return Ok(reader);
        }
        let client = place.0.map(|addr| addr.to_string()).unwrap_or_default();
        warn!(client, "refused: too many read long pages, too slowly");
        let late = [(header::RETRY_AFTER, AGAIN)];
        let why = "too many read long pages, too slowly; come again\n";
        let answer = (StatusCode::SERVICE_UNAVAILABLE, late, why);
        Err(Box::new(answer.into_response()))
    }

    /// The places of one client; forgotten when nobody has or wants one.
    fn of(&self, addr: IpAddr) -> Arc<Semaphore> {
        let mut by_addr = self.by_addr.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = by_addr.get(&addr).and_then(Weak::upgrade) {
            return own;
        }
        by_addr.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(OF_ONE));
        by_addr.insert(addr, Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(addr: &str) -> Place {
        Place(Some(addr.parse().unwrap()))
    }

    #[tokio::test]
    async fn one_client_takes_its_own_places_and_no_others() {
        let readers = Readers::default();
        let mut held = Vec::new();
        for _ in 0..OF_ONE {
            held.push(readers.enter(at("127.0.0.1")).await.unwrap());
        }
        let refused = readers.enter(at("127.0.0.1")).await.unwrap_err();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.headers()[header::RETRY_AFTER], AGAIN);
        let other = readers.enter(at("127.0.0.2")).await.unwrap();
        held.pop();
        held.push(readers.enter(at("127.0.0.1")).await.unwrap());
        drop((held, other));
        readers.enter(at("127.0.0.3")).await.unwrap();
        assert_eq!(
            readers.by_addr.lock().unwrap().len(),
            1,
            "all are forgotten"
        );
    }

    #[tokio::test]
    async fn all_together_take_no_more_than_there_are() {
        let readers = Readers::default();
        let mut held = Vec::new();
        for _ in 0..ALL {
            held.push(readers.enter(Place(None)).await.unwrap());
        }
        assert!(readers.enter(at("127.0.0.1")).await.is_err());
        held.pop();
        assert!(readers.enter(at("127.0.0.1")).await.is_ok());
    }
}
