//! A connection that ends when its other side does not take what is sent to it.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// A stream whose writes fail after a while without progress. That nothing comes in is for the HTTP side to judge.
#[derive(Debug)]
pub(super) struct Patience<S> {
    stream: S,
    limit: Duration,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
    /// Nothing was sent since something came, or at all.
    unanswered: Arc<AtomicBool>,
}

// === impl Patience ===

impl<S> Patience<S> {
    pub(super) fn new(stream: S, limit: Duration) -> Self {
        Self {
            stream,
            limit,
            waiting: None,
            unanswered: Arc::new(AtomicBool::new(true)),
        }
    }

    /// Whether the other side has begun something that was not answered, or has not even begun; to be asked when the
    /// stream has ended.
    pub(super) fn unanswered(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.unanswered)
    }

    fn judge<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.waiting = None;
            return poll;
        }
        let limit = self.limit;
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        ready!(waiting.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patience<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.unanswered.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patience<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.unanswered.store(false, Ordering::Relaxed);
        }
        self.judge(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.judge(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.judge(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn what_was_begun_is_unanswered_until_something_is_sent() {
        let (mut other, stream) = tokio::io::duplex(8);
        let mut stream = Patience::new(stream, Duration::from_secs(10));
        let unanswered = stream.unanswered();
        let is = || unanswered.load(Ordering::Relaxed);
        assert!(is(), "nothing was asked yet");
        other.write_all(b"ask").await.unwrap();
        stream.read_exact(&mut [0; 3]).await.unwrap();
        assert!(is());
        stream.write_all(b"answer").await.unwrap();
        assert!(!is());
        other.write_all(b"a").await.unwrap();
        stream.read_exact(&mut [0]).await.unwrap();
        assert!(is(), "half a question");
    }

    #[tokio::test]
    async fn who_takes_nothing_is_given_up_and_who_takes_a_little_is_not() {
        let (mut reader, writer) = tokio::io::duplex(8);
        let mut writer = Patience::new(writer, Duration::from_millis(100));
        writer.write_all(&[0; 8]).await.unwrap();
        let error = writer.write_all(&[0; 4]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // Whatever is taken begins the time anew.
        let mut some = [0; 4];
        reader.read_exact(&mut some).await.unwrap();
        writer.write_all(&[0; 4]).await.unwrap();
        assert!(writer.waiting.is_none());
    }
}
