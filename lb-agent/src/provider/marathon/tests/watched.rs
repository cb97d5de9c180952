//! A watcher under test: fast times, updates as text, waits with a deadline.

use std::{future::Future, time::Duration};

use tokio::{sync::mpsc, task::JoinHandle};

use super::{lines, server::Fake, simple_app};
use crate::provider::{
    Again, Update,
    marathon::{MarathonConfig, Steps, Timings, run},
};
use serde_json::Value;

/// Nothing here takes so long unless it is broken.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);
pub(super) const A: &str = "/a.marathon:80/tcp /a = 10.0.0.1:31000 w1";
pub(super) const B: &str = "/b.marathon:80/tcp /b = 10.0.0.1:32000 w1";

/// More of these than a body may be long come in no time.
pub(super) const BLANKS: &str = match str::from_utf8(&[b' '; 8192]) {
    Ok(blanks) => blanks,
    Err(_) => "",
};

pub(super) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Fast, and with a resync so rare that only what a test is about can cause a snapshot.
pub(super) fn config(fake: &Fake) -> MarathonConfig {
    let mut config = MarathonConfig::new(vec![fake.url()]);
    config.timings = Timings {
        connect: ms(1000),
        request: ms(2000),
        open: ms(2000),
        unanswered: Duration::from_secs(12),
        silence: Duration::from_secs(600),
        debounce: ms(20),
        debounce_at_most: ms(100),
        resync: Duration::from_secs(600),
        backoff: Steps {
            first: ms(20),
            factor: 1.5,
            cap: ms(60),
        },
        stable_stream: Duration::from_secs(600),
        confirm_empty: ms(300),
        stream_first: ms(5000),
    };
    config.max_body = 64 << 10;
    config
}

pub(super) struct Watched {
    pub(super) rx: mpsc::Receiver<Update>,
    pub(super) task: JoinHandle<()>,
    pub(super) again: Again,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) fn watch(config: MarathonConfig) -> Watched {
    _ = rustls::crypto::ring::default_provider().install_default();
    let (tx, rx) = mpsc::channel(64);
    let again = Again::default();
    Watched {
        rx,
        task: tokio::spawn(run(config, tx, again.listen())),
        again,
    }
}

pub(super) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(DEADLINE, future).await;
    result.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

impl Watched {
    pub(super) async fn next(&mut self) -> Update {
        within("an update", self.rx.recv()).await.unwrap()
    }

    /// The next good state.
    pub(super) async fn state(&mut self) -> Vec<String> {
        loop {
            if let Ok(state) = self.next().await.outcome {
                return lines(&state);
            }
        }
    }

    /// Waits for a state, whatever comes before.
    pub(super) async fn until(&mut self, expected: &[&str]) {
        while self.state().await != expected {}
    }

    /// Waits for a state with a problem of this subject, or for one without.
    pub(super) async fn until_told(&mut self, subject: &str, told: bool) {
        loop {
            let Ok(state) = self.next().await.outcome else {
                continue;
            };
            let mut problems = state.problems.iter();
            if problems.any(|one| &*one.subject == subject) == told {
                return;
            }
        }
    }

    /// The next failure; a state in between must be the `last` one.
    pub(super) async fn failure(&mut self, last: &[&str]) -> String {
        loop {
            match self.next().await.outcome {
                Ok(state) => assert_eq!(lines(&state), last, "the last state did not stay"),
                Err(why) => return why,
            }
        }
    }
}

pub(super) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    within(what, async {
        while !condition() {
            tokio::time::sleep(ms(2)).await;
        }
    })
    .await;
}

pub(super) fn app_a() -> Value {
    simple_app("/a", 31000)
}

pub(super) fn app_b() -> Value {
    simple_app("/b", 32000)
}
