//! The loop: events say what to look at, looks say what is.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{StreamExt as _, stream};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use crate::provider::{
    Asked, Snapshot, Update,
    backoff::{Backoff, Steps},
};

use super::{
    DockerConfig,
    build::build,
    client::Client,
    container::Container,
    engine::{Effect, Engine, Seat},
    event::Told,
};

/// Looks under way at a time.
const AT_ONCE: usize = 8;
/// Events that may wait.
const EVENTS: usize = 4_096;
/// Events before the connection that are asked for, s: they cover the moment between the request for events and the
/// engine's taking it.
const BEFORE: u64 = 3;
/// How often a Swarm's tasks are asked for after something was told of its services, and for how long.
const HURRY: Duration = Duration::from_millis(250);
const HURRY_FOR: Duration = Duration::from_secs(3);

/// Times of the watcher.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// From an event to the look at its container.
    pub coalesce: Duration,
    /// Between two looks at everything.
    pub resync: Duration,
    /// Between two looks at the tasks of a Swarm.
    pub poll: Duration,
    /// Between two signs of life.
    pub ping: Duration,
    /// After a failure.
    pub backoff: Steps,
}

/// Watches one engine until nobody listens any more.
pub(super) async fn watch(config: &DockerConfig, tx: &mpsc::Sender<Update>, asked: Asked) {
    let mut watcher = Watcher {
        config,
        tx,
        asked,
        engine: Engine::default(),
        last: None,
        complete: false,
    };
    let mut backoff = Backoff::new(config.timings.backoff);
    let mut failing = false;
    loop {
        let began = Instant::now();
        let end = tokio::select! {
            () = tx.closed() => return,
            end = watcher.session(&mut failing) => end,
        };
        // A connection that held for a while was none of a row of failures.
        if began.elapsed() > config.timings.ping {
            backoff.reset();
        }
        if !std::mem::replace(&mut failing, true) {
            tracing::warn!(provider = %config.id(), why = end, "Docker cannot be read; the last state stays");
        }
        if tx.send(config.update(Err(end))).await.is_err() {
            return;
        }
        tokio::select! {
            () = tx.closed() => return,
            () = watcher.asked.asked() => {}
            () = sleep(backoff.after_failure(rand::random())) => {}
        }
    }
}

struct Watcher<'a> {
    config: &'a DockerConfig,
    tx: &'a mpsc::Sender<Update>,
    asked: Asked,
    engine: Engine,
    last: Option<Arc<Snapshot>>,
    /// Whether all containers and the Swarm were looked at once: before that, nothing is told.
    complete: bool,
}

/// A container, none, or why that cannot be said.
type Found = Result<Option<Container>, String>;

/// What a round of looks showed.
struct Looked {
    /// Every container there is, where all were looked at.
    listed: Option<BTreeSet<Arc<str>>>,
    found: Vec<(Arc<str>, Found)>,
}

// === impl Timings ===

impl Default for Timings {
    fn default() -> Self {
        Self {
            coalesce: Duration::from_millis(20),
            resync: Duration::from_secs(30),
            poll: Duration::from_secs(5),
            ping: Duration::from_secs(10),
            backoff: Steps {
                first: Duration::from_millis(100),
                factor: 2.0,
                cap: Duration::from_secs(5),
            },
        }
    }
}

// === impl Watcher ===

impl Watcher<'_> {
    /// One connection; why it ended.
    async fn session(&mut self, failing: &mut bool) -> String {
        match self.connected(failing).await {
            Ok(never) => match never {},
            Err(why) => why,
        }
    }

    async fn connected(&mut self, failing: &mut bool) -> Result<std::convert::Infallible, String> {
        let timings = self.config.timings;
        let client = Client::connect(self.config).await?;
        self.engine.stands_at(client.node().await?);
        let (seen, mut events) = mpsc::channel::<Result<Told, String>>(EVENTS);
        // Both end with this function.
        let mut reader = JoinSet::new();
        reader.spawn(forward(client.clone(), seen));
        let mut looks = JoinSet::<Result<Looked, String>>::new();
        looks.spawn(look_at_all(client.clone()));
        let mut swarms = JoinSet::<Result<Seat, String>>::new();
        swarms.spawn(look_at_swarm(client.clone()));

        let mut pings = JoinSet::<Result<(), String>>::new();

        let mut dirty = BTreeSet::<Arc<str>>::new();
        let mut touched = BTreeSet::<Arc<str>>::new();
        let mut due = None;
        let mut resync_at = Instant::now() + spread(timings.resync);
        let mut ping_at = Instant::now() + timings.ping;
        let mut swarm_at = Instant::now();
        let mut hurry_until = swarm_at;
        let (mut listed, mut swarm_seen) = (false, false);
        loop {
            tokio::select! {
                event = events.recv() => {
                    let event = event.ok_or("Docker closed the stream of events")??;
                    tracing::debug!(?event, "Docker tells");
                    let Told::Container(event) = event else {
                        swarm_at = Instant::now();
                        hurry_until = swarm_at + HURRY_FOR;
                        continue;
                    };
                    let Effect { tell, look } = self.engine.saw(&event, Instant::now());
                    touched.insert(Arc::clone(&event.id));
                    if look {
                        dirty.insert(event.id);
                        due.get_or_insert(Instant::now() + timings.coalesce);
                    }
                    if tell {
                        self.tell().await;
                    }
                }
                Some(done) = looks.join_next() => {
                    let looked = done.map_err(|died| format!("a look at the containers died: {died}"))??;
                    self.take(looked, &touched, &mut dirty);
                    if !dirty.is_empty() {
                        due.get_or_insert(Instant::now() + timings.coalesce);
                    }
                    listed = true;
                    if swarm_seen {
                        self.read_again(failing);
                    }
                    self.tell().await;
                }
                Some(done) = swarms.join_next() => {
                    let read = done.map_err(|died| format!("a look at the Swarm died: {died}"))?;
                    self.engine.saw_swarm(read);
                    swarm_seen = true;
                    let now = Instant::now();
                    swarm_at = now + if now < hurry_until { HURRY } else { self.patience() };
                    if listed {
                        self.read_again(failing);
                        self.tell().await;
                    }
                }
                () = sleep_until(swarm_at), if swarms.is_empty() => {
                    swarms.spawn(look_at_swarm(client.clone()));
                }
                () = at(due), if looks.is_empty() => {
                    due = None;
                    touched.clear();
                    let ids = std::mem::take(&mut dirty);
                    looks.spawn(look_at(client.clone(), ids));
                }
                () = sleep_until(resync_at), if looks.is_empty() => {
                    resync_at = Instant::now() + spread(timings.resync);
                    self.engine.lose_patience(Instant::now());
                    touched.clear();
                    looks.spawn(look_at_all(client.clone()));
                }
                () = self.asked.asked() => {
                    resync_at = Instant::now();
                    swarm_at = resync_at;
                }
                // Nothing else waits for the answer.
                () = sleep_until(ping_at), if pings.is_empty() => {
                    let client = client.clone();
                    pings.spawn(async move { client.ping().await });
                }
                Some(done) = pings.join_next() => {
                    done.map_err(|died| format!("a sign of life died: {died}"))??;
                    ping_at = Instant::now() + timings.ping;
                }
            }
        }
    }

    /// All was read since the connection was made.
    fn read_again(&mut self, failing: &mut bool) {
        self.complete = true;
        if std::mem::take(failing) {
            tracing::info!(provider = %self.config.id(), "Docker can be read again");
        }
    }

    /// Until the next look at the Swarm.
    fn patience(&self) -> Duration {
        let Timings { poll, resync, .. } = self.config.timings;
        match self.engine.swarm() {
            Some(swarm) => swarm.patience(poll.min(resync)),
            None if self.engine.swarm_unread().is_some() => poll.min(resync),
            // It may become a manager.
            None => spread(resync),
        }
    }

    /// Takes what was seen; what an event touched meanwhile may be older than the event, and is looked at again.
    fn take(
        &mut self,
        looked: Looked,
        touched: &BTreeSet<Arc<str>>,
        dirty: &mut BTreeSet<Arc<str>>,
    ) {
        if let Some(mut listed) = looked.listed {
            listed.extend(touched.iter().cloned());
            self.engine.keep_only(&listed);
        }
        for (id, found) in looked.found {
            if touched.contains(&id) {
                dirty.insert(id);
                continue;
            }
            tracing::debug!(container = &*id, ?found, "looked at");
            match found {
                Ok(found) => self.engine.looked(&id, found),
                // It stays as it was, until the next look at everything.
                Err(why) => {
                    self.engine.missed(&id);
                    tracing::warn!(provider = %self.config.id(), container = &*id, why, "a container cannot be read")
                }
            }
        }
    }

    async fn tell(&mut self) {
        if !self.complete {
            return;
        }
        let snapshot = build(&self.engine, self.config);
        // An unchanged state is the same allocation, so that consumers can tell cheaply.
        let state = match self.last.take() {
            Some(last) if *last == snapshot => last,
            _ => Arc::new(snapshot),
        };
        self.last = Some(Arc::clone(&state));
        // A closed channel ends the loop above.
        _ = self.tx.send(self.config.update(Ok(state))).await;
    }
}

/// Passes events on until the stream ends.
async fn forward(client: Client, to: mpsc::Sender<Result<Told, String>>) {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let mut events = std::pin::pin!(client.events(since.saturating_sub(BEFORE)));
    while let Some(event) = events.next().await {
        if to.send(event).await.is_err() {
            return;
        }
    }
}

async fn look_at_all(client: Client) -> Result<Looked, String> {
    let listed: BTreeSet<Arc<str>> = client.list().await?.into_iter().collect();
    let looked = look_at(client, listed.clone()).await?;
    Ok(Looked {
        listed: Some(listed),
        ..looked
    })
}

async fn look_at(client: Client, ids: BTreeSet<Arc<str>>) -> Result<Looked, String> {
    let look = |id: Arc<str>| {
        let client = client.clone();
        async move {
            let found = client.look(&id).await;
            (id, found)
        }
    };
    Ok(Looked {
        listed: None,
        found: stream::iter(ids)
            .map(look)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await,
    })
}

async fn look_at_swarm(client: Client) -> Result<Seat, String> {
    client.swarm().await
}

/// Never, where nothing is due.
async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// 10 % either way, so that the agents of a cluster do not all come at once.
fn spread(wait: Duration) -> Duration {
    wait.mul_f64(rand::random_range(0.9..1.1))
}
