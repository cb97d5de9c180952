//! The loop: read, tell, wait; longer after a failure, and longest while AWS asks for less.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::{
    EcsConfig,
    api::{Api, Failure, FailureKind},
    aws::Aws,
    build::build,
    events::{Allowance, Ear},
    model::Known,
    reader::{Cadence, Reader},
    waits::Waits,
};
use crate::provider::{Asked, Problem, Snapshot, Update, backoff::Steps};

/// Times of the watcher.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// Between two readings of the tasks.
    pub poll: Duration,
    /// Between two readings of the services.
    pub services: Duration,
    /// Between two readings of the load balancers.
    pub balancers: Duration,
    /// While AWS asks for less; its cap is the longest time between two readings, too. After any other failure the
    /// same steps, up to 10 s.
    pub backoff: Steps,
}

/// Watches one cluster until nobody listens any more.
pub(super) async fn watch(
    config: &EcsConfig,
    tx: &mpsc::Sender<Update>,
    mut asked: Asked,
    mut ear: Ear,
) {
    let mut reader: Option<Reader<Aws>> = None;
    let mut teller = Teller::new(config);
    let mut allowance = Allowance::new(Instant::now());
    loop {
        let outcome = tokio::select! {
            () = tx.closed() => return,
            outcome = reading(&mut reader, config) => outcome,
        };
        let known = reader.as_ref().map(Reader::known);
        let snapshot = outcome.map(|()| state(known.unwrap_or(&Known::default()), config, &ear));
        let (update, wait) = teller.take(snapshot);
        if tx.send(update).await.is_err() {
            return;
        }
        let is_well = !teller.failing && teller.slow == 1;
        let next = allowance.next(Instant::now());
        let heard = async {
            sleep_until(next).await;
            ear.heard().await;
        };
        tokio::select! {
            () = tx.closed() => return,
            // Whoever asks cannot know that AWS wants to be asked less.
            () = asked.asked(), if teller.slow == 1 => {
                if let Some(reader) = &mut reader {
                    reader.doubt();
                }
            }
            () = heard, if is_well => allowance.take(Instant::now()),
            () = sleep(wait) => {}
        }
    }
}

/// What is told of a cluster.
pub(super) fn state(known: &Known, config: &EcsConfig, ear: &Ear) -> Snapshot {
    let mut snapshot = build(known, config);
    if let Some(why) = ear.trouble() {
        snapshot.problems.push(Problem {
            subject: config.name().into(),
            reason: format!(
                "events are not heard, so that a change counts from the next poll on: {why}"
            ),
        });
        snapshot.problems.sort();
    }
    snapshot
}

async fn reading(reader: &mut Option<Reader<Aws>>, config: &EcsConfig) -> Result<(), Failure> {
    let reader = match reader {
        Some(reader) => reader,
        None => {
            let aws = Aws::connect(config).await?;
            reader.insert(self::reader(aws, config))
        }
    };
    reader.read(Instant::now()).await
}

/// A reader with the times of the configuration.
pub(super) fn reader<A: Api>(api: A, config: &EcsConfig) -> Reader<A> {
    let Timings {
        poll: _,
        services,
        balancers,
        backoff,
    } = config.timings;
    let cadence = Cadence {
        services,
        fronts: balancers,
        backoff,
    };
    Reader::new(api, cadence, config.hosts.clone())
}

/// Says what came of a reading, and when the next one is.
pub(super) struct Teller<'a> {
    config: &'a EcsConfig,
    waits: Waits,
    /// The usual wait is this many times longer, because AWS asked for less.
    slow: u32,
    failing: bool,
    last: Option<Arc<Snapshot>>,
}

// === impl Timings ===

impl Default for Timings {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(5),
            services: Duration::from_secs(60),
            balancers: Duration::from_secs(300),
            backoff: Steps {
                first: Duration::from_secs(1),
                factor: 2.0,
                cap: Duration::from_secs(60),
            },
        }
    }
}

// === impl Teller ===

impl<'a> Teller<'a> {
    pub(super) fn new(config: &'a EcsConfig) -> Self {
        Self {
            waits: Waits::new(config.timings.backoff),
            config,
            slow: 1,
            failing: false,
            last: None,
        }
    }

    /// What to tell, and how long to wait then.
    pub(super) fn take(&mut self, outcome: Result<Snapshot, Failure>) -> (Update, Duration) {
        match outcome {
            Ok(snapshot) => {
                let provider = self.config.id();
                if std::mem::take(&mut self.failing) {
                    tracing::info!(%provider, "ECS can be read again");
                }
                self.waits.reset();
                let wait = spread(self.usual());
                self.slow = (self.slow / 2).max(1);
                // An unchanged state is the same allocation, so that consumers can tell cheaply.
                let state = match self.last.take() {
                    Some(last) if *last == snapshot => last,
                    _ => Arc::new(snapshot),
                };
                self.last = Some(Arc::clone(&state));
                (self.config.update(Ok(state)), wait)
            }
            Err(failure) => {
                if !std::mem::replace(&mut self.failing, true) {
                    let provider = self.config.id();
                    tracing::warn!(%provider, why = %failure, "ECS cannot be read; the last state stays");
                }
                let mut wait = self.waits.after_failure(failure.kind, rand::random());
                if failure.kind == FailureKind::Throttled {
                    self.slow = self.slow.saturating_mul(2).min(64);
                    wait = wait.max(spread(self.usual()));
                }
                (self.config.update(Err(failure.reason)), wait)
            }
        }
    }

    fn usual(&self) -> Duration {
        let Timings { poll, backoff, .. } = self.config.timings;
        (poll * self.slow).min(backoff.cap.max(poll))
    }
}

/// 10 % less at most, so that the agents of a cluster do not all come at once, and none comes late.
fn spread(wait: Duration) -> Duration {
    wait.mul_f64(rand::random_range(0.9..1.0))
}
