//! Events of ECS that EventBridge sends to a queue: each has the tasks of its cluster read at once.
//!
//! That is all that an event does, so that it may come late, twice, out of order or never: the polls go on all the
//! same.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use reqwest::Url;
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{Timings, api::Failure, aws::Sqs, model::last, waits::Waits};
use crate::provider::{Again, Asked};

/// Between two questions, where the first had an answer: a storm of events is taken ten at a time.
const PACE: Duration = Duration::from_millis(500);
/// Readings that events may bring at once.
const BURST: u32 = 5;
/// After so long they may bring one more.
const REFILL: Duration = Duration::from_secs(5);

/// A message of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// What takes it out.
    pub(super) receipt: String,
    /// An event, by EventBridge or, around it, by SNS.
    pub(super) body: String,
}

/// A queue of events.
#[async_trait]
pub(super) trait Queue: Send + Sync {
    /// Messages, as soon as there are any; none after some seconds.
    async fn receive(&self) -> Result<Vec<Message>, Failure>;
    /// Takes them out.
    async fn delete(&self, messages: &[Message]) -> Result<(), Failure>;
}

/// Wakes the watcher of one cluster, and says why it may not.
#[derive(Clone, Debug)]
pub struct Ear {
    asked: Asked,
    trouble: watch::Receiver<Option<Arc<str>>>,
}

/// Starts to read a queue; an ear for each of the clusters (names or ARNs). `region`: the queue's, where its address
/// does not say it. Ends when all ears are gone.
pub fn hear(queue: Url, region: Option<String>, clusters: &[String]) -> Vec<Ear> {
    let (mouths, trouble) = mouths(clusters);
    let ears = mouths.iter().map(|mouth| mouth.ear(&trouble)).collect();
    let queue = Sqs::new(queue, region);
    tokio::spawn(async move {
        tokio::select! {
            () = trouble.closed() => {}
            () = listen(&queue, &mouths, &trouble) => {}
        }
    });
    ears
}

/// Who is told of events of a cluster.
pub(super) struct Mouth {
    cluster: String,
    again: Again,
}

type Trouble = watch::Sender<Option<Arc<str>>>;

pub(super) fn mouths(clusters: &[String]) -> (Vec<Mouth>, Trouble) {
    let mouths = clusters.iter().map(|cluster| Mouth {
        cluster: cluster.clone(),
        again: Again::default(),
    });
    (mouths.collect(), watch::Sender::new(None))
}

/// Reads, tells, and waits longer after a failure, for ever.
pub(super) async fn listen(queue: &impl Queue, mouths: &[Mouth], trouble: &Trouble) {
    let mut waits = Waits::new(Timings::default().backoff);
    loop {
        let wait = match turn(queue, mouths).await {
            Ok(heard) => {
                waits.reset();
                if trouble.send_replace(None).is_some() {
                    tracing::info!("events of ECS are heard again");
                }
                if heard { PACE } else { Duration::ZERO }
            }
            Err(failure) => {
                let why: Arc<str> = failure.reason.into();
                if trouble.send_replace(Some(Arc::clone(&why))).is_none() {
                    tracing::warn!(%why, "events of ECS are not heard; the polls go on");
                }
                waits.after_failure(failure.kind, rand::random())
            }
        };
        sleep(wait).await;
    }
}

/// One question; whether it had an answer.
async fn turn(queue: &impl Queue, mouths: &[Mouth]) -> Result<bool, Failure> {
    let messages = queue.receive().await?;
    if messages.is_empty() {
        return Ok(false);
    }
    for message in &messages {
        let about = cluster_of(&message.body);
        for mouth in mouths {
            if about.as_deref().is_none_or(|about| mouth.concerns(about)) {
                mouth.again.ask();
            }
        }
    }
    queue.delete(&messages).await?;
    Ok(true)
}

/// The ARN of the cluster that an event is about; `None`: who knows.
fn cluster_of(body: &str) -> Option<String> {
    let mut event: Value = serde_json::from_str(body).ok()?;
    // SNS wraps it, unless it is told to deliver it raw.
    if let Some(inner) = event["Message"].as_str() {
        event = serde_json::from_str(inner).ok()?;
    }
    event["detail"]["clusterArn"].as_str().map(str::to_owned)
}

/// How many readings events may bring: whatever their rate, so many more requests a minute, and no more.
#[derive(Debug)]
pub(super) struct Allowance {
    left: u32,
    since: Instant,
}

// === impl Mouth ===

impl Mouth {
    pub(super) fn ear(&self, trouble: &Trouble) -> Ear {
        Ear {
            asked: self.again.listen(),
            trouble: trouble.subscribe(),
        }
    }

    fn concerns(&self, about: &str) -> bool {
        if self.cluster.starts_with("arn:") {
            self.cluster == about
        } else {
            self.cluster == last(about)
        }
    }
}

// === impl Ear ===

impl Ear {
    /// Hears nothing.
    pub fn deaf() -> Self {
        Self {
            asked: Again::default().listen(),
            trouble: watch::Sender::new(None).subscribe(),
        }
    }

    /// Ready when there was an event since it was last; nothing is lost if it is dropped before.
    pub(super) async fn heard(&mut self) {
        self.asked.asked().await;
    }

    /// Why events are not heard, if they are not.
    pub(super) fn trouble(&self) -> Option<Arc<str>> {
        self.trouble.borrow().clone()
    }
}

// === impl Allowance ===

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            since: now,
        }
    }

    /// When the next one may be.
    pub(super) fn next(&mut self, now: Instant) -> Instant {
        self.refill(now);
        if self.left > 0 {
            now
        } else {
            self.since + REFILL
        }
    }

    /// One is used.
    pub(super) fn take(&mut self, now: Instant) {
        self.refill(now);
        self.left = self.left.saturating_sub(1);
    }

    fn refill(&mut self, now: Instant) {
        while self.left < BURST && now.saturating_duration_since(self.since) >= REFILL {
            self.left += 1;
            self.since += REFILL;
        }
        if self.left == BURST {
            self.since = now;
        }
    }
}
