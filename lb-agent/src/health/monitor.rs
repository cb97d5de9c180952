//! Sends the probes that are due, a bounded number at a time, and tells when a verdict changed.

use std::{
    collections::{BTreeSet, HashMap},
    future::pending,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{Notify, watch},
    task::{Id, JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{
    Asked, Checks, Fate, Followed, Latest, Latests, Ours, Outcome, Target, Verdicts, probe::ask,
};

/// Verdicts are told so often at most: a node that lost its network has thousands at once.
const TELL: Duration = Duration::from_millis(5);
/// How much later than it should a probe may begin before that is said.
const LATE: Duration = Duration::from_secs(5);
/// How often that is said at most.
const SAY_AGAIN: Duration = Duration::from_secs(600);

/// A probe that is done, or that failed itself.
type Done = Result<(Id, Asked), JoinError>;

/// The side of the control loop: says what is to be checked, and reads what is known.
#[derive(Debug)]
pub struct Monitor {
    checking: bool,
    wanted: watch::Sender<Arc<Followed>>,
    ours: Arc<ArcSwap<Ours>>,
    verdicts: Arc<ArcSwap<Verdicts>>,
    changed: Arc<Notify>,
    latests: Arc<Latests>,
}

/// The task.
struct Probing {
    checks: Checks,
    limit: usize,
    wanted: watch::Receiver<Arc<Followed>>,
    ours: Arc<ArcSwap<Ours>>,
    verdicts: Arc<ArcSwap<Verdicts>>,
    changed: Arc<Notify>,
    latests: Arc<Latests>,
    probes: JoinSet<Asked>,
    /// What each of them asks, and since when.
    asked: HashMap<Id, (Arc<Target>, Instant)>,
    said_late: Option<Instant>,
}

// === impl Monitor ===

impl Monitor {
    /// Starts probing, `limit` backends at a time; with 0, nothing is ever probed. `known_down`: what the kernel has as
    /// down.
    pub fn start(limit: usize, known_down: BTreeSet<SocketAddr>, stop: &CancellationToken) -> Self {
        let (wanted, receiver) = watch::channel(Arc::default());
        let monitor = Self {
            checking: limit > 0,
            wanted,
            ours: Arc::default(),
            verdicts: Arc::default(),
            changed: Arc::default(),
            latests: Arc::default(),
        };
        if limit > 0 {
            let checks = Checks::new(known_down, Instant::now());
            // Known before the task first runs.
            monitor.verdicts.store(Arc::new(checks.verdicts()));
            let probing = Probing {
                checks,
                limit,
                wanted: receiver,
                ours: Arc::clone(&monitor.ours),
                verdicts: Arc::clone(&monitor.verdicts),
                changed: Arc::clone(&monitor.changed),
                latests: Arc::clone(&monitor.latests),
                probes: JoinSet::new(),
                asked: HashMap::new(),
                said_late: None,
            };
            tokio::spawn(stop.clone().run_until_cancelled_owned(probing.run()));
        }
        monitor
    }

    /// Has these probed from now on, and no others.
    pub fn follow(&self, wanted: Followed) {
        self.wanted.send_if_modified(|now| {
            let differs = **now != wanted;
            if differs {
                *now = Arc::new(wanted);
            }
            differs
        });
    }

    /// Says what the kernel programs translate, before they do.
    pub fn beware(&self, ours: Ours) {
        if **self.ours.load() != ours {
            self.ours.store(Arc::new(ours));
        }
    }

    /// What is known now; `None`: nothing is probed.
    pub fn verdicts(&self) -> Option<Arc<Verdicts>> {
        self.checking.then(|| self.verdicts.load_full())
    }

    /// What the latest probes came to.
    pub fn latests(&self) -> Arc<Latests> {
        Arc::clone(&self.latests)
    }

    /// Waits for verdicts that differ from those of the last time.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

// === impl Probing ===

impl Probing {
    async fn run(mut self) {
        loop {
            let room = self.probes.len() < self.limit;
            let due = self.checks.next_due().filter(|_| room);
            let wait = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                followed = self.wanted.changed() => {
                    // The control loop is gone.
                    if followed.is_err() {
                        return;
                    }
                    self.follow();
                }
                Some(done) = self.probes.join_next_with_id() => self.take(done).await,
                () = wait => self.begin(),
            }
        }
    }

    fn follow(&mut self) {
        let wanted = Arc::clone(&self.wanted.borrow_and_update());
        let Followed { targets, paused } = &*wanted;
        let now = Instant::now();
        self.checks.follow(targets, now, rand::random::<f64>);
        self.checks.pause(paused, now);
        self.latests.keep(targets);
        self.tell();
    }

    fn begin(&mut self) {
        let now = Instant::now();
        if let Some(due) = self.checks.next_due()
            && now.saturating_duration_since(due) > LATE
            && self.said_late.is_none_or(|said| now > said + SAY_AGAIN)
        {
            self.said_late = Some(now);
            warn!(
                limit = self.limit,
                "health checks begin seconds too late: too many are under way; raise --checks or the intervals"
            );
        }
        while self.probes.len() < self.limit
            && let Some(target) = self.checks.begin(now)
        {
            let probe = ask(Arc::clone(&target), self.ours.load_full());
            let probe = self.probes.spawn(probe);
            self.asked.insert(probe.id(), (target, now));
        }
    }

    /// Takes note of a probe that is done, and of those that end just after it.
    async fn take(&mut self, done: Done) {
        if !self.note(done) {
            return;
        }
        tokio::time::sleep(TELL).await;
        while let Some(done) = self.probes.try_join_next_with_id() {
            self.note(done);
        }
        self.tell();
    }

    fn note(&mut self, done: Done) -> bool {
        let (id, asked) = match done {
            Ok(done) => done,
            Err(error) => {
                error!("a health check ended without an outcome: {error}");
                let asked = Asked {
                    outcome: Outcome::NotAsked("the check itself failed".into()),
                    fate: Fate::NotAsked,
                    status: None,
                };
                (error.id(), asked)
            }
        };
        let Some((target, began)) = self.asked.remove(&id) else {
            return false;
        };
        let (now, chance) = (Instant::now(), rand::random());
        let outcome = asked.outcome.clone();
        let changed = self.checks.observe(&target, outcome, now, chance);
        if let Some((against, up)) = self.checks.tendency(&target) {
            let latest = Latest {
                at: SystemTime::now(),
                took: now.saturating_duration_since(began),
                asked,
                failed: 0,
                against,
                up,
            };
            self.latests.note(&target, latest);
        }
        changed
    }

    fn tell(&self) {
        let verdicts = self.checks.verdicts();
        if **self.verdicts.load() != verdicts {
            self.verdicts.store(Arc::new(verdicts));
            self.changed.notify_one();
        }
    }
}
