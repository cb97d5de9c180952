//! The loop: events and time say when to read and what, answers say what is.

use std::{collections::BTreeSet, sync::Arc, time::SystemTime};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use crate::provider::{Asked, Problem, ProviderId, Snapshot, Update, backoff::Backoff};

use super::{
    acceptance::{Acceptance, Verdict},
    client::Client,
    config::{MarathonConfig, Timings},
    event::Touched,
    fetch::{Fetched, Fetcher, Missed},
    listener::{self, Seen},
    schedule::Schedule,
};

/// The subject of a problem with events.
const STREAM: &str = "event stream";

/// Watches one Marathon until nobody listens any more.
///
/// # Errors
/// The configuration cannot be used; nothing was sent to Marathon.
pub(super) async fn watch(
    config: &MarathonConfig,
    tx: &mpsc::Sender<Update>,
    mut asked: Asked,
) -> Result<(), String> {
    let client = Arc::new(Client::new(config)?);
    let timings = config.timings;
    let (seen, changes) = watch::channel(Seen::default());
    let spawn = || {
        Task(tokio::spawn(listener::listen(
            client.clone(),
            timings,
            seen.clone(),
        )))
    };
    let first = Instant::now() + timings.stream_first;
    let mut watcher = Watcher {
        tx,
        news: seen.clone(),
        timings,
        fetcher: Fetcher::new(
            Arc::clone(&client),
            config.framework.as_deref(),
            &config.edge,
        ),
        unnamed: id_without_framework(config),
        schedule: Schedule::new(timings.debounce, timings.debounce_at_most, first),
        acceptance: Acceptance::new(timings.confirm_empty),
        backoff: Backoff::new(timings.backoff),
        changes,
        seen: Seen::default(),
        last: None,
        leader: None,
        failing: false,
    };
    let mut listener = spawn();
    // The last reading was given up.
    let mut given_up = false;
    loop {
        tokio::select! {
            () = tx.closed() => return Ok(()),
            Ok(()) = watcher.changes.changed() => watcher.notice(),
            () = asked.asked() => watcher.schedule.at_once(Instant::now()),
            () = sleep_until(watcher.schedule.due()) => {
                // Requests are never sent while another round of them is under way.
                let (mut changes, opened) = (watcher.changes.clone(), watcher.seen.opened);
                let again = async { _ = changes.wait_for(|seen| seen.opened != opened).await };
                tokio::select! {
                    () = tx.closed() => return Ok(()),
                    () = watcher.read() => given_up = false,
                    // What was asked for may be lost as the stream before was, and would be asked for again in any
                    // case. Only every other reading: where streams come and go, a state must come, too.
                    () = again, if !given_up => {
                        given_up = true;
                        watcher.notice();
                    }
                }
            }
            end = &mut listener.0 => {
                tracing::error!(?end, "the reader of the event stream died; starting another");
                listener = spawn();
            }
        }
    }
}

/// How the provider is called before its framework is known.
pub fn id_without_framework(config: &MarathonConfig) -> ProviderId {
    let name = config.framework.clone().or_else(|| {
        let url = config.urls.first()?;
        let port = url
            .port()
            .map(|port| format!(":{port}"))
            .unwrap_or_default();
        Some(format!(
            "{}://{}{port}{}",
            url.scheme(),
            url.host_str()?,
            url.path().trim_end_matches('/')
        ))
    });
    ProviderId::new("marathon", name.unwrap_or_default())
}

struct Watcher<'a> {
    tx: &'a mpsc::Sender<Update>,
    /// Where the listener leaves what events were about.
    news: watch::Sender<Seen>,
    timings: Timings,
    fetcher: Fetcher,
    unnamed: ProviderId,
    schedule: Schedule,
    acceptance: Acceptance,
    backoff: Backoff,
    changes: watch::Receiver<Seen>,
    seen: Seen,
    last: Option<Arc<Snapshot>>,
    leader: Option<String>,
    failing: bool,
}

/// A task that ends with its owner.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

// === impl Watcher ===

impl Watcher<'_> {
    /// Takes note of what the listener has seen.
    fn notice(&mut self) {
        let now = Instant::now();
        let seen = self.changes.borrow_and_update().clone();
        let Seen {
            opened, lost, news, ..
        } = seen;
        let before = std::mem::replace(&mut self.seen, seen);
        if news != before.news {
            self.schedule.event(now);
        }
        if opened != before.opened || lost != before.lost {
            self.acceptance.disturb();
        }
        // Whatever happened between two streams was missed. If the very first cannot be opened,
        // there is nothing to wait for.
        if opened != before.opened || (lost != before.lost && self.last.is_none() && !self.failing)
        {
            self.schedule.at_once(now);
        }
    }

    /// Reads what is due: the apps that events were about, or everything.
    async fn read(&mut self) {
        let mut touched = Touched::Nothing;
        self.news.send_if_modified(|seen| {
            touched = std::mem::take(&mut seen.touched);
            false
        });
        let whole = self.failing || self.schedule.is_whole_due(Instant::now());
        self.schedule.begins();
        match (touched, self.last.clone()) {
            (Touched::Apps(ids), Some(last)) if !whole => self.apps(&ids, &last).await,
            // What an event was about has been read already.
            (Touched::Nothing, Some(_)) if !whole => {}
            _ => self.snapshot().await,
        }
    }

    async fn apps(&mut self, ids: &BTreeSet<String>, last: &Snapshot) {
        match self.fetcher.apps(ids, last).await {
            Ok(fetched) => {
                if fetched.leader.is_some() && fetched.leader != self.leader {
                    // What else is new with a new leader, events do not tell.
                    self.schedule.at_once(Instant::now());
                }
                self.publish(fetched.snapshot).await;
            }
            Err(Missed::Gone) => self.schedule.at_once(Instant::now()),
            Err(Missed::Failed(why)) => self.fail(why).await,
        }
    }

    async fn snapshot(&mut self) {
        match self.fetcher.snapshot(self.last.as_deref()).await {
            Ok(fetched) => self.judge(fetched).await,
            Err(why) => self.fail(why).await,
        }
    }

    async fn judge(&mut self, fetched: Fetched) {
        let Fetched {
            snapshot,
            empty,
            leader,
        } = fetched;
        let now = Instant::now();
        if leader.is_some() && leader != self.leader {
            if self.leader.is_some() {
                self.acceptance.disturb();
            }
            self.leader = leader;
        }
        let had_vips = self.last.as_ref().is_none_or(|last| !last.pools.is_empty());
        match self.acceptance.judge(empty, had_vips, now) {
            Verdict::Apply => self.apply(snapshot).await,
            Verdict::Confirm(at) => {
                self.schedule.failed(at);
                let why = "Marathon says that it has no apps at all, right after a start or a \
                           disturbance; waiting for a second answer that agrees";
                self.send(Err(why.to_owned())).await;
            }
        }
    }

    async fn apply(&mut self, snapshot: Snapshot) {
        let spread = self.timings.resync.mul_f64(rand::random_range(0.0..0.1));
        self.schedule
            .done(Instant::now() + self.timings.resync + spread);
        self.backoff.reset();
        if std::mem::take(&mut self.failing) {
            tracing::info!(provider = %self.id(), "Marathon can be read again");
        }
        self.publish(snapshot).await;
    }

    async fn publish(&mut self, mut snapshot: Snapshot) {
        // What was read of single apps has the rest from before.
        snapshot.problems.retain(|one| &*one.subject != STREAM);
        snapshot.problems.extend(self.deaf());
        let last = self.last.take().unwrap_or_default();
        // An unchanged state is the same allocation, so that consumers can tell cheaply.
        let state = if *last == snapshot {
            last
        } else {
            Arc::new(snapshot)
        };
        self.last = Some(Arc::clone(&state));
        self.send(Ok(state)).await;
    }

    /// Why events are not heard, if they are not.
    fn deaf(&self) -> Option<Problem> {
        let why = self.seen.closed.as_ref()?;
        let every = self.timings.resync.as_secs();
        Some(Problem {
            subject: STREAM.into(),
            reason: format!(
                "it cannot be opened, so changes are only seen when everything is read, every {every} s: {why}"
            ),
        })
    }

    async fn fail(&mut self, why: String) {
        self.schedule
            .failed(Instant::now() + self.backoff.after_failure(rand::random()));
        self.acceptance.disturb();
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(provider = %self.id(), why, "cannot read Marathon; the last state stays");
        }
        self.send(Err(why)).await;
    }

    async fn send(&self, outcome: Result<Arc<Snapshot>, String>) {
        let update = Update {
            provider: self.id(),
            at: SystemTime::now(),
            outcome,
        };
        // A closed channel ends the loop.
        _ = self.tx.send(update).await;
    }

    fn id(&self) -> ProviderId {
        match self.fetcher.framework() {
            Some(name) => ProviderId::new("marathon", name),
            None => self.unnamed.clone(),
        }
    }
}
