//! The task that reads the event stream. It only counts; nothing is ever applied here, because a
//! slow reader is thrown out by Marathon.

use std::sync::Arc;

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::provider::backoff::Backoff;

use super::{
    client::{Client, EventStream},
    config::Timings,
    event::{self, Touched},
    sse::Parser,
};

/// How often each thing has happened so far, and what it was about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// A stream was opened.
    pub(super) opened: u64,
    /// A stream ended or could not be opened.
    pub(super) lost: u64,
    /// An event with news came.
    pub(super) news: u64,
    /// What the news since the last look may have changed.
    pub(super) touched: Touched,
    /// Why the stream could not be opened when it was last tried; `None`: it could.
    pub(super) closed: Option<Arc<str>>,
}

/// How a stream ended.
enum End {
    Closed,
    Broken(String),
    Silent,
}

/// Reads the stream and reconnects, for ever.
pub(super) async fn listen(client: Arc<Client>, timings: Timings, seen: watch::Sender<Seen>) {
    let mut backoff = Backoff::new(timings.backoff);
    loop {
        let silent = match client.events().await {
            Ok(stream) => {
                let opened = Instant::now();
                let (url, index) = (stream.url.clone(), stream.index);
                tracing::debug!(%url, "event stream opened");
                seen.send_modify(|seen| {
                    seen.opened += 1;
                    seen.closed = None;
                });
                let end = read(stream, timings, &seen).await;
                if opened.elapsed() >= timings.stable_stream {
                    backoff.reset();
                }
                match &end {
                    End::Closed => tracing::debug!(%url, "event stream closed by Marathon"),
                    End::Broken(why) => tracing::warn!(why, "event stream broke"),
                    End::Silent => {
                        let silence = timings.silence;
                        tracing::warn!(%url, ?silence, "event stream is silent; opening another");
                        // Who froze takes requests and does not answer them, either.
                        client.leave(index);
                    }
                }
                matches!(end, End::Silent)
            }
            Err(failure) => {
                let why: Arc<str> = failure.to_string().into();
                // Said once, however often it is tried again.
                if seen.borrow().closed.as_ref() != Some(&why) {
                    tracing::warn!(%why, "cannot open the event stream; trying again and again");
                }
                seen.send_modify(|seen| seen.closed = Some(why));
                false
            }
        };
        seen.send_modify(|seen| seen.lost += 1);
        if !silent {
            sleep(backoff.after_failure(rand::random())).await;
        }
    }
}

async fn read(mut stream: EventStream, timings: Timings, seen: &watch::Sender<Seen>) -> End {
    let mut parser = Parser::default();
    loop {
        let bytes = match timeout(timings.silence, stream.read()).await {
            Ok(Ok(Some(bytes))) => bytes,
            Ok(Ok(None)) => return End::Closed,
            Ok(Err(failure)) => return End::Broken(failure.to_string()),
            Err(_) => return End::Silent,
        };
        let mut touched = Touched::Nothing;
        parser.feed(&bytes, |event| touched.add(event::touched(&event)));
        if touched != Touched::Nothing {
            seen.send_modify(|seen| {
                seen.news += 1;
                seen.touched.add(touched);
            });
        }
    }
}
