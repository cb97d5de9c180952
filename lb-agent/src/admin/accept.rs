//! Takes connections: a bounded number at a time.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tracing::warn;

/// When no connection can be taken, the next try comes after this time.
const PAUSE: Duration = Duration::from_millis(200);

/// Where connections come in.
pub(super) trait Door: Sync {
    /// A connection, with what else is known of it.
    type Came: Send;

    /// The next one.
    fn next(&self) -> impl Future<Output = io::Result<Self::Came>> + Send;
}

impl Door for UnixListener {
    type Came = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

impl Door for TcpListener {
    type Came = (TcpStream, SocketAddr);

    async fn next(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.accept().await
    }
}

/// Room for connections, of one door or of several.
pub(super) struct Room {
    places: Arc<Semaphore>,
    size: u16,
    /// All places were taken when one was last looked for.
    full: AtomicBool,
    /// What the log calls it.
    name: &'static str,
}

/// A connection's place, free again when it is dropped.
pub(super) type Taken = OwnedSemaphorePermit;

// === impl Room ===

impl Room {
    /// For `size` connections at a time; `name`: to what, for the log.
    pub(super) fn new(size: u16, name: &'static str) -> Self {
        Self {
            places: Arc::new(Semaphore::new(usize::from(size))),
            size,
            full: AtomicBool::new(false),
            name,
        }
    }

    /// Takes connections until it is dropped, and hands on each with its place.
    pub(super) async fn fill<D: Door>(
        &self,
        door: &D,
        mut hand_on: impl FnMut(D::Came, Taken) + Send,
    ) {
        loop {
            // Further ones wait in the kernel, and are given up there.
            let is_full = self.places.available_permits() == 0;
            let was_full = self.full.swap(is_full, Ordering::Relaxed);
            if is_full && !was_full {
                let Self { size, name, .. } = self;
                warn!("all {size} connections to {name} are taken; further ones wait");
            }
            let Ok(taken) = Arc::clone(&self.places).acquire_owned().await else {
                return;
            };
            match door.next().await {
                Ok(came) => hand_on(came, taken),
                Err(error) => {
                    warn!("cannot take a connection to {}: {error}", self.name);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Waits until everybody has gone.
    pub(super) async fn emptied(&self) {
        let _ = self.places.acquire_many(u32::from(self.size)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use futures_util::FutureExt as _;
    use tokio::sync::{
        Mutex,
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    };

    use super::*;
    use crate::log::tests::told;

    /// Who is sent comes in.
    struct Sent(Mutex<UnboundedReceiver<io::Result<u8>>>);

    impl Door for Sent {
        type Came = u8;

        async fn next(&self) -> io::Result<u8> {
            let mut sent = self.0.lock().await;
            sent.recv().await.unwrap()
        }
    }

    fn door() -> (UnboundedSender<io::Result<u8>>, Sent) {
        let (send, sent) = unbounded_channel();
        (send, Sent(Mutex::new(sent)))
    }

    /// What the log says while this runs.
    fn logged(run: impl Future<Output = ()>) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let lines = told(|| runtime.block_on(run));
        let said = lines.iter().map(|line| line["message"].as_str().unwrap());
        said.map(str::to_owned).collect()
    }

    #[test]
    fn who_finds_no_place_waits_and_the_log_says_so_once_each_time() {
        let said = logged(async {
            let (send, door) = door();
            let room = Room::new(2, "this door");
            let (taken, mut seen) = unbounded_channel();
            let fill = room.fill(&door, |number, place| taken.send((number, place)).unwrap());
            let come_and_go = async {
                (0..4).for_each(|number| send.send(Ok(number)).unwrap());
                let first = seen.recv().await.unwrap();
                let second = seen.recv().await.unwrap();
                tokio::task::yield_now().await;
                assert!(seen.try_recv().is_err(), "a third one of two");
                drop(first);
                let third = seen.recv().await.unwrap();
                drop((second, third));
                let fourth = seen.recv().await.unwrap();
                tokio::task::yield_now().await;
                send.send(Ok(4)).unwrap();
                let fifth = seen.recv().await.unwrap();
                assert_eq!((fourth.0, fifth.0), (3, 4));
                tokio::task::yield_now().await;
                (fourth, fifth)
            };
            let held = tokio::select! {
                biased;
                () = fill => unreachable!("it never ends by itself"),
                held = come_and_go => held,
            };
            assert!(room.emptied().now_or_never().is_none());
            drop(held);
            assert!(room.emptied().now_or_never().is_some());
        });
        let full = "all 2 connections to this door are taken; further ones wait";
        assert_eq!(said, [full, full]);
    }

    #[test]
    fn after_an_error_it_rests_and_goes_on() {
        let said = logged(async {
            let (send, door) = door();
            let room = Room::new(1, "this door");
            let (taken, mut seen) = unbounded_channel();
            let begun = Instant::now();
            send.send(Err(io::Error::other("no more files"))).unwrap();
            send.send(Ok(7)).unwrap();
            let fill = room.fill(&door, |number, place| taken.send((number, place)).unwrap());
            let came = tokio::select! {
                biased;
                () = fill => unreachable!("it never ends by itself"),
                came = seen.recv() => came.unwrap(),
            };
            assert_eq!(came.0, 7);
            assert!(begun.elapsed() >= PAUSE, "{:?}", begun.elapsed());
        });
        // Room for one, and it is taken then.
        let full = "all 1 connections to this door are taken; further ones wait";
        let failed = "cannot take a connection to this door: no more files";
        assert_eq!(said, [failed, full]);
    }
}
