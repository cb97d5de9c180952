//! Somebody wants everything to be read and compared anew: an operator, or a tool that sends Marathon-LB its `SIGHUP`.

use std::{future::pending, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// Each is asked at most once in this time: asking is cheap, reading a large Marathon is not.
const PACE: Duration = Duration::from_secs(1);

/// Asks all providers, and the control loop.
#[derive(Clone, Debug, Default)]
pub struct Again(watch::Sender<()>);

/// The ear of one of them.
#[derive(Clone, Debug)]
pub struct Asked {
    from: watch::Receiver<()>,
    pace: Duration,
    last: Option<Instant>,
}

// === impl Again ===

impl Again {
    /// Each provider reads its orchestrator as soon as it can, whatever it knows, and the control loop compares the
    /// kernel with what is wanted. What was read stays until then.
    pub fn ask(&self) {
        self.0.send_replace(());
    }

    /// For one more.
    pub fn listen(&self) -> Asked {
        self.listen_every(PACE)
    }

    fn listen_every(&self, pace: Duration) -> Asked {
        Asked {
            from: self.0.subscribe(),
            pace,
            last: None,
        }
    }
}

// === impl Asked ===

impl Asked {
    /// Ready when somebody has asked since it was last; nothing is lost if it is dropped before.
    pub(crate) async fn asked(&mut self) {
        if let Some(last) = self.last {
            sleep_until(last + self.pace).await;
        }
        if self.from.changed().await.is_err() {
            return pending().await;
        }
        self.last = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const PACE: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn what_was_asked_while_nobody_listened_is_heard_once() {
        let again = Again::default();
        let mut asked = again.listen_every(PACE);
        again.ask();
        again.ask();
        asked.asked().await;
        assert!(timeout(PACE * 5, asked.asked()).await.is_err());
    }

    #[tokio::test]
    async fn who_asks_without_pause_is_heard_at_a_pace() {
        let again = Again::default();
        let mut asked = again.listen_every(PACE);
        let begun = Instant::now();
        for _ in 0..4 {
            again.ask();
            asked.asked().await;
        }
        assert!(begun.elapsed() >= PACE * 3);
    }

    #[tokio::test]
    async fn with_nobody_left_to_ask_it_waits() {
        let mut asked = Again::default().listen_every(PACE);
        assert!(timeout(PACE * 5, asked.asked()).await.is_err());
    }
}
