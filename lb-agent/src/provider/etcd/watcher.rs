//! The loop: a listing, a watch from there on, and a comparison now and then.

use std::{collections::BTreeSet, sync::Arc, time::SystemTime};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};

use super::{
    claims::{self, View},
    client::{Client, Failure, Kind, Stream},
    config::{EtcdConfig, Timings},
    drains, members,
    mirror::{Changed, MOST_KEYS, Mirror},
    wire::{Bytes, KeyValue, RangeAnswer, RangeRequest, Revision, WatchCreate, WatchRequest},
};
use crate::provider::{
    Asked, ProviderId, Snapshot, Update, backoff::Backoff, documents::Documents,
};

/// Where the documents are.
const SERVICES: &str = "services/";
/// Keys of one page, with and without what they hold.
const PAGE: i64 = 500;
const PAGE_OF_KEYS: i64 = 10_000;

/// Follows one etcd.
pub(super) struct Watcher<'a> {
    client: Arc<Client>,
    id: ProviderId,
    prefix: String,
    timings: Timings,
    tx: &'a mpsc::Sender<Update>,
    view: &'a watch::Sender<View>,
    asked: Asked,
    mirror: Mirror,
    documents: Documents,
    /// What is agreed of addresses is to be read from the mirror; true before the first time.
    agreed_anew: bool,
    last: Option<Arc<Snapshot>>,
    backoff: Backoff,
    failing: bool,
}

/// How a watch ended.
enum End {
    /// Nobody listens any more.
    Closed,
    /// The watch does not say what is; everything is to be read anew.
    Stale,
    Failed(String),
}

// === impl Watcher ===

impl<'a> Watcher<'a> {
    /// Nothing is asked yet.
    pub(super) fn new(
        client: Arc<Client>,
        config: &EtcdConfig,
        tx: &'a mpsc::Sender<Update>,
        view: &'a watch::Sender<View>,
        asked: Asked,
    ) -> Self {
        Self {
            client,
            id: config.id(),
            prefix: config.prefix.clone(),
            timings: config.timings,
            tx,
            view,
            asked,
            mirror: Mirror::new(&config.prefix),
            documents: Documents::default(),
            agreed_anew: true,
            last: None,
            backoff: Backoff::new(config.timings.backoff),
            failing: false,
        }
    }

    /// Follows etcd until nobody listens any more.
    pub(super) async fn watch(mut self) {
        let tx = self.tx;
        loop {
            let end = tokio::select! {
                () = tx.closed() => return,
                end = self.session() => end,
            };
            match end {
                End::Closed => return,
                End::Stale => {}
                End::Failed(why) => {
                    self.fail(why).await;
                    let wait = self.backoff.after_failure(rand::random());
                    tokio::select! {
                        () = tx.closed() => return,
                        () = self.asked.asked() => {}
                        () = sleep(wait) => {}
                    }
                }
            }
        }
    }

    /// From a listing to the end of the watch.
    async fn session(&mut self) -> End {
        let failed = |failure: Failure| End::Failed(failure.to_string());
        let (listing, revision) = match self.list(false).await {
            Ok(listed) => listed,
            Err(failure) => return failed(failure),
        };
        let changed = match self.mirror.replace(listing) {
            Ok(changed) => changed,
            Err(why) => return End::Failed(format!("{}: {why}", self.prefix)),
        };
        self.take(&changed);
        // Whatever changes from here on comes by the watch. What was listed counts even where that cannot be had.
        let stream = match self.open(revision).await {
            Ok(stream) => stream,
            // What was listed is too old already.
            Err(failure) if failure.kind == Kind::Compacted => return End::Stale,
            Err(failure) => {
                self.tell().await;
                return failed(failure);
            }
        };
        self.backoff.reset();
        if std::mem::take(&mut self.failing) {
            tracing::info!(provider = %self.id, "etcd can be read again");
        }
        if self.tell().await.is_none() {
            return End::Closed;
        }
        self.follow(stream).await
    }

    async fn open(&self, revision: Revision) -> Result<Stream, Failure> {
        let key = Bytes::from(self.prefix.as_str());
        let create_request = WatchCreate {
            range_end: key.end_of_prefix(),
            key,
            start_revision: Revision(revision.0 + 1),
            progress_notify: true,
        };
        self.client.watch(&WatchRequest { create_request }).await
    }

    async fn follow(&mut self, mut stream: Stream) -> End {
        // The agents of a cluster do not all come at once, and none comes late.
        let spread = self.timings.resync.mul_f64(rand::random_range(0.9..1.0));
        let mut compare = Instant::now() + spread;
        // When the first change that was not told came, and when they are told.
        let mut dirty: Option<(Instant, Instant)> = None;
        let (pause, most) = self.timings.debounce;
        loop {
            let due = dirty.map_or(compare, |(_, due)| due);
            tokio::select! {
                told = stream.next() => match told {
                    Ok(answer) => {
                        let changed = self.mirror.apply(answer.events);
                        if changed.0.is_empty() {
                            continue;
                        }
                        self.take(&changed);
                        let now = Instant::now();
                        let first = dirty.map_or(now, |(first, _)| first);
                        dirty = Some((first, (now + pause).min(first + most)));
                    }
                    Err(failure) => {
                        self.tell().await;
                        return match failure.kind {
                            Kind::Compacted => End::Stale,
                            _ => End::Failed(failure.to_string()),
                        };
                    }
                },
                () = self.asked.asked() => {
                    self.tell().await;
                    return End::Stale;
                }
                () = sleep_until(due) => {
                    if dirty.take().is_none() {
                        match self.list(true).await {
                            Ok((keys, _)) if self.mirror.agrees(&keys) => {}
                            // A change may be under way, or the watch is dead.
                            Ok(_) => return End::Stale,
                            Err(failure) => return End::Failed(failure.to_string()),
                        }
                        compare = Instant::now() + self.timings.resync;
                    }
                    if self.tell().await.is_none() {
                        return End::Closed;
                    }
                }
            }
        }
    }

    /// All keys, page by page as of one moment, and the revision of that.
    async fn list(&self, keys_only: bool) -> Result<(Vec<KeyValue>, Revision), Failure> {
        let mut key = Bytes::from(self.prefix.as_str());
        let range_end = key.end_of_prefix();
        let mut revision = Revision(0);
        let mut all = Vec::new();
        loop {
            let request = RangeRequest {
                key: key.clone(),
                range_end: range_end.clone(),
                limit: Revision(if keys_only { PAGE_OF_KEYS } else { PAGE }),
                revision,
                keys_only,
            };
            let answer: RangeAnswer = self.client.post("v3/kv/range", &request).await?;
            if revision.0 == 0 {
                revision = answer.header.revision;
            }
            let last = answer.kvs.last().map(|kv| kv.key.next());
            all.extend(answer.kvs);
            match last {
                // What is beyond is refused as a whole.
                Some(next) if answer.more && all.len() <= MOST_KEYS => key = next,
                _ => return Ok((all, revision)),
            }
        }
    }

    /// Takes what changed into the documents.
    fn take(&mut self, changed: &Changed) {
        for name in &changed.0 {
            let Some(document) = name.strip_prefix(SERVICES).filter(|name| !name.is_empty()) else {
                continue;
            };
            let shown = format!("{}{SERVICES}{document}", self.prefix);
            match self.mirror.get(name) {
                None => self.documents.remove(&shown),
                Some(value) => {
                    let text = String::from_utf8(value.to_vec());
                    let text = text.map_err(|e| format!("{shown}: not UTF-8: {e}"));
                    self.documents.put(&shown, text);
                }
            }
        }
        self.agreed_anew |= changed.0.iter().any(|name| !name.starts_with(SERVICES));
    }

    /// Tells the state as it is; `None`: nobody listens.
    async fn tell(&mut self) -> Option<()> {
        if std::mem::take(&mut self.agreed_anew) {
            let agreed = claims::agreed(&self.mirror, &self.prefix);
            let drained = drains::nodes(&self.mirror, &self.prefix);
            let members = members::members(&self.mirror, &self.prefix);
            self.view
                .send_if_modified(|view| view.read(agreed, drained, members));
        }
        let mut snapshot = self.documents.snapshot();
        snapshot
            .problems
            .extend(self.view.borrow().problems.iter().cloned());
        let problems: BTreeSet<_> = std::mem::take(&mut snapshot.problems).into_iter().collect();
        snapshot.problems = problems.into_iter().collect();
        let state = match self.last.take() {
            // An unchanged state is the same allocation, so that consumers can tell cheaply.
            Some(last) if *last == snapshot => last,
            _ => {
                let (documents, left_out) = (self.documents.count(), snapshot.problems.len());
                tracing::info!(provider = %self.id, documents, left_out, "services read");
                Arc::new(snapshot)
            }
        };
        self.last = Some(Arc::clone(&state));
        self.send(Ok(state)).await
    }

    async fn fail(&mut self, why: String) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(provider = %self.id, why, "cannot read etcd; the last state stays");
        }
        self.view
            .send_if_modified(|view| !std::mem::replace(&mut view.tried, true));
        _ = self.send(Err(why)).await;
    }

    async fn send(&self, outcome: Result<Arc<Snapshot>, String>) -> Option<()> {
        let update = Update {
            provider: self.id.clone(),
            at: SystemTime::now(),
            outcome,
        };
        self.tx.send(update).await.ok()
    }
}
