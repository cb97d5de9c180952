//! Statistics: what the counters came to over time, and the forms in which tools for HAProxy read it.
//!
//! A sampler reads the report and the kernel's counters once a second and publishes a
//! [`Sample`]. Every form (CSV, JSON, metrics, page, socket) is written from the same sample, so that they agree, and
//! none of them costs the kernel anything, however often it is asked for.
#![forbid(unsafe_code)]

mod cleared;
pub(crate) mod csv;
mod events;
pub(crate) mod fields;
pub(crate) mod history;
pub(crate) mod json;
mod meter;
pub(crate) mod metrics;
mod names;
mod number;
mod sample;
mod sampler;
pub(crate) mod status;

#[cfg(test)]
pub(crate) mod tests;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use self::sampler::Sampler;
pub use self::{
    events::{Event, Events},
    history::{History, Point},
    sample::{Last, Load, Pool, Proxy, Sample, Server},
};
use super::{
    report::{StatusReport, Timestamp},
    server::Count,
};

/// Time between two samples.
const INTERVAL: Duration = Duration::from_secs(1);
/// The longest one, however long a sample takes.
const LONGEST: Duration = Duration::from_secs(30);
/// After a sample there is a rest of so many times as long as it took: 5 % of a CPU at most, however many backends there
/// are.
const REST: u32 = 20;
/// The same while nobody has looked for [`WATCHED`]: 0.5 %.
const REST_ALONE: u32 = 200;
/// Whoever looks is expected to look again within this time.
const WATCHED: Duration = Duration::from_secs(35);
/// Whoever looks waits for a new sample if the one before took no longer.
const QUICK: Duration = Duration::from_millis(20);
/// Who may wait for a new sample.
const WAITING: usize = 64;

/// What readers have of the statistics.
#[derive(Clone)]
pub struct Stats {
    inner: Arc<Inner>,
}

struct Inner {
    sample: ArcSwap<Sample>,
    history: Mutex<History>,
    events: Events,
    wanted: mpsc::Sender<oneshot::Sender<()>>,
    /// Maxima are to begin anew.
    forget: AtomicBool,
    /// Everything is.
    clear: AtomicBool,
    /// When somebody last looked; `None`: nobody did.
    looked: Mutex<Option<Instant>>,
}

// === impl Stats ===

impl Stats {
    /// Starts to sample on the present runtime until the last handle is gone. `count`: as for the status page.
    pub fn start(report: Arc<ArcSwap<StatusReport>>, count: Count, events: Events) -> Self {
        let (wanted, wishes) = mpsc::channel(WAITING);
        let inner = Arc::new(Inner {
            sample: ArcSwap::default(),
            history: Mutex::default(),
            events,
            wanted,
            forget: AtomicBool::new(false),
            clear: AtomicBool::new(false),
            looked: Mutex::default(),
        });
        tokio::spawn(run(Arc::downgrade(&inner), wishes, report, count));
        Self { inner }
    }

    /// The latest sample, however old it is.
    pub fn sample(&self) -> Arc<Sample> {
        self.inner.sample.load_full()
    }

    /// The latest sample for somebody who looks. If nobody has looked for a while it is a new one, unless that takes its
    /// time: then it is the one before, half a minute old at most, and a new one is on its way for whoever looks next.
    pub async fn latest(&self) -> Arc<Sample> {
        let sample = self.sample();
        if !self.inner.is_watched() {
            let is_old = Timestamp::now().since(sample.at) > LONGEST;
            if is_old || sample.cost <= QUICK {
                return self.fresh().await;
            }
            // Where so many wait that there is no room, one is on its way.
            let _ = self.inner.wanted.try_send(oneshot::channel().0);
        }
        self.inner.look();
        sample
    }

    /// A sample that was begun after this was called; the latest one if that takes too long.
    pub async fn fresh(&self) -> Arc<Sample> {
        self.inner.look();
        self.next().await
    }

    async fn next(&self) -> Arc<Sample> {
        const PATIENCE: Duration = Duration::from_secs(5);
        let (done, wait) = oneshot::channel();
        if self.inner.wanted.try_send(done).is_ok() {
            // Who samples may have ended: the latest one is all there is.
            let _ = tokio::time::timeout(PATIENCE, wait).await;
        }
        self.sample()
    }

    /// Waits for the first sample of an agent that has looked around.
    pub async fn begun(&self) {
        const AGAIN: Duration = Duration::from_millis(20);
        while self.next().await.report.agent.pid == 0 {
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// What changed of late.
    pub fn events(&self) -> &Events {
        &self.inner.events
    }

    /// The last two minutes of a proxy or one of its servers, the oldest first; `None`: nothing is known of it.
    pub fn history(&self, iid: u32, backend: Option<SocketAddr>) -> Option<Vec<Point>> {
        let history = self
            .inner
            .history
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        history.of(iid, backend)
    }

    /// Has every maximum begin anew; `counters`: and all that statistics in HAProxy's forms and the page count. The
    /// kernel's counters stay as they are, and so do metrics.
    pub async fn clear(&self, counters: bool) {
        let wanted = match counters {
            true => &self.inner.clear,
            false => &self.inner.forget,
        };
        wanted.store(true, Ordering::Release);
        self.fresh().await;
    }
}

// === impl Inner ===

impl Inner {
    fn is_watched(&self) -> bool {
        let looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        looked.is_some_and(|looked| looked.elapsed() < WATCHED)
    }

    fn look(&self) {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        *looked = Some(Instant::now());
    }

    fn publish(&self, sampler: &Sampler, sample: Sample, tick: bool) {
        if tick {
            let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
            history.note(sampler, sample.at);
        }
        self.sample.store(Arc::new(sample));
    }

    /// Counters that cannot be read leave the last sample as it is, so that it grows old. Before the first one there is
    /// `unread`, without a number and of no time: nobody has to wait.
    fn keep(&self, unread: Sample) {
        if self.sample.load().at == Timestamp(0) {
            self.sample.store(Arc::new(unread));
        }
    }

    /// Between the beginning of a sample that took so long and that of the next one.
    fn interval(&self, took: Duration) -> Duration {
        let rest = if self.is_watched() { REST } else { REST_ALONE };
        (took * rest).clamp(INTERVAL, LONGEST)
    }
}

/// Samples until nobody is left to read it.
async fn run(
    inner: std::sync::Weak<Inner>,
    mut wishes: mpsc::Receiver<oneshot::Sender<()>>,
    report: Arc<ArcSwap<StatusReport>>,
    count: Count,
) {
    let mut sampler = Some(Sampler::default());
    let mut next = Instant::now();
    let mut failing = false;
    loop {
        let mut waiting = Vec::new();
        let tick = tokio::select! {
            () = tokio::time::sleep_until(next.into()) => true,
            wish = wishes.recv() => match wish {
                Some(wish) => {
                    waiting.push(wish);
                    false
                }
                None => return,
            },
        };
        while let Ok(wish) = wishes.try_recv() {
            waiting.push(wish);
        }
        let (Some(shared), Some(mut taken)) = (inner.upgrade(), sampler.take()) else {
            return;
        };
        let forget = shared.forget.swap(false, Ordering::AcqRel);
        let clear = shared.clear.swap(false, Ordering::AcqRel);
        let (report, count) = (report.load_full(), Arc::clone(&count));
        let begun = Instant::now();
        let taking = tokio::task::spawn_blocking(move || {
            let mut report = StatusReport::clone(&report);
            let failure = count(&mut report).err();
            if forget {
                taken.forget();
            }
            if clear {
                taken.clear();
            }
            let report = report.at(Timestamp::now());
            let sample = match failure {
                None => taken.take(report, tick),
                Some(_) => Sample::unread(report),
            };
            (taken, sample, failure)
        });
        match taking.await {
            Ok((taken, mut sample, failure)) => {
                sample.cost = begun.elapsed();
                match &failure {
                    None => shared.publish(&taken, sample, tick),
                    Some(error) => {
                        if !failing {
                            error!(
                                "cannot read the counters: {error:#}; statistics stand still until that works again"
                            );
                        }
                        shared.keep(sample);
                    }
                }
                failing = failure.is_some();
                sampler = Some(taken);
            }
            Err(panicked) => {
                error!("the sampling of counters ended: {panicked}; statistics stand still");
                return;
            }
        }
        let after = begun + shared.interval(begun.elapsed());
        next = if tick { after } else { next.min(after) };
        for wish in waiting {
            // Who waited may have gone.
            let _ = wish.send(());
        }
    }
}
