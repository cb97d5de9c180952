//! Who hears what the programs tell: any number of listeners, one thread while there are some.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_common::TraceMatch;
use tokio::sync::mpsc;
use tracing::{error, info};

use crate::{
    datapath::Tracer,
    look::{Told, TraceFilter, TraceWish},
};

/// Events that wait for a listener to take them; what comes when it is full is lost to it.
const WAITING: usize = 8_192;
/// Listeners at a time.
const MOST: usize = 16;
/// How often listeners are looked after.
const ROUND: Duration = Duration::from_millis(50);
/// How often a listener hears that it is still heard, and what was lost.
const BEAT: Duration = Duration::from_secs(1);

/// Hands on what the programs tell.
#[derive(Clone)]
pub(super) struct Tracing(Arc<Mutex<Shared>>);

struct Shared {
    /// With the thread while it runs.
    tracer: Option<Tracer>,
    listeners: Vec<Listener>,
}

struct Listener {
    wish: TraceWish,
    to: mpsc::Sender<Told>,
    lost: u64,
    /// `None`: it was not told yet that it is heard.
    beat: Option<Instant>,
}

// === impl Tracing ===

impl Tracing {
    pub(super) fn new(tracer: Tracer) -> Self {
        Self(Arc::new(Mutex::new(Shared {
            tracer: Some(tracer),
            listeners: Vec::new(),
        })))
    }

    /// Listens until the receiver is dropped. The first thing it gets is a [`Told::Beat`], when it is switched on.
    ///
    /// # Errors
    ///
    /// If there are too many listeners, or no thread can be had.
    pub(super) fn listen(&self, wish: TraceWish) -> Result<mpsc::Receiver<Told>> {
        let (to, from) = mpsc::channel(WAITING);
        let mut shared = self.lock();
        ensure!(
            shared.listeners.len() < MOST,
            "{MOST} traces and captures are running; end one of them"
        );
        shared.listeners.push(Listener {
            wish,
            to,
            lost: 0,
            beat: None,
        });
        if let Some(tracer) = shared.tracer.take() {
            drop(shared);
            let this = self.clone();
            let thread = thread::Builder::new().name("trace".to_owned());
            thread
                .spawn(move || this.run(tracer))
                .context("cannot start a thread")?;
        }
        Ok(from)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until nobody listens any more.
    fn run(&self, mut tracer: Tracer) {
        info!("tracing begins");
        let mut lost = tracer.lost().unwrap_or_default();
        loop {
            {
                let mut shared = self.lock();
                shared.listeners.retain(|one| !one.to.is_closed());
                if shared.listeners.is_empty() {
                    if let Err(error) = tracer.switch_off() {
                        error!("{error:#}");
                    }
                    shared.tracer = Some(tracer);
                    break;
                }
                if let Err(error) = shared.round(&mut tracer, &mut lost) {
                    error!("tracing ends: {error:#}");
                    shared.listeners.clear();
                    continue;
                }
            }
            if let Err(error) = tracer.wait(ROUND) {
                error!("tracing ends: {error:#}");
                self.lock().listeners.clear();
            }
        }
        info!("tracing has ended");
    }
}

// === impl Shared ===

impl Shared {
    fn round(&mut self, tracer: &mut Tracer, lost: &mut u64) -> Result<()> {
        let wishes = || self.listeners.iter().map(|one| &one.wish);
        let snap = wishes().map(|wish| wish.snap).max().unwrap_or_default();
        let sample = wishes().map(|wish| wish.sample).min().unwrap_or_default();
        tracer.switch_on(snap, sample, &wanted(wishes().map(|wish| &wish.filter)))?;
        let total = tracer.lost()?;
        let more = total.saturating_sub(*lost);
        *lost = total;
        for one in &mut self.listeners {
            one.look_after(more);
        }
        // As many as a round may hold up those who wait for the lock.
        for _ in 0..4 * WAITING {
            let Some(seen) = tracer.hear() else { break };
            for one in &mut self.listeners {
                // Two records of a packet are for those who want its bytes.
                let wanted = one.wish.snap != 0 || !seen.is_after();
                if !wanted || !seen.is_for(&one.wish.filter) {
                    continue;
                }
                let mut seen = seen.clone();
                seen.bytes.truncate(one.wish.snap as usize);
                one.tell(seen);
            }
        }
        Ok(())
    }
}

/// What all of them together want; empty: everything.
fn wanted<'a>(filters: impl Iterator<Item = &'a TraceFilter>) -> Vec<TraceMatch> {
    let mut wanted = Vec::new();
    for filter in filters {
        let matches = filter.matches();
        if matches.contains(&TraceMatch::default()) {
            return Vec::new();
        }
        wanted.extend(matches);
    }
    wanted
}

// === impl Listener ===

impl Listener {
    fn tell(&mut self, seen: crate::look::Seen) {
        if self.to.try_send(Told::Seen(Box::new(seen))).is_err() {
            self.lost += 1;
        }
    }

    fn look_after(&mut self, lost: u64) {
        // What was lost before it came is none of its.
        if self.beat.is_some() {
            self.lost += lost;
        }
        if self.beat.is_some_and(|beat| beat.elapsed() < BEAT) {
            return;
        }
        if self.lost > 0 && self.to.try_send(Told::Lost(self.lost)).is_ok() {
            self.lost = 0;
        }
        if self.to.try_send(Told::Beat).is_ok() || self.beat.is_some() {
            self.beat = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_are_asked_for_what_anybody_wants() {
        let of = |vip: &str| TraceFilter {
            vip: Some(vip.parse().unwrap()),
            ..TraceFilter::default()
        };
        let (one, other) = (of("11.0.0.1"), of("[fd01::1]:80"));
        assert_eq!(wanted([&one, &other].into_iter()).len(), 2);
        let all = TraceFilter::default();
        assert!(wanted([&one, &all].into_iter()).is_empty());
        assert!(wanted([].into_iter()).is_empty());
    }
}
