//! Takes connections at the admin socket: a bounded number, with the bounds of those over TCP for what they send.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    listen::{PAUSE, conversation, note_end},
    patience::Patience,
};
use crate::admin::socket::who;

/// Connections at a time.
const CONNECTIONS: u16 = 128;
/// Whoever takes nothing of an answer for so long is cut off; what a trace tells may be read in a pager.
const STALLED: Duration = Duration::from_secs(3_600);

/// Serves until `shutdown` is ready, and then until all that was asked is answered.
pub(in crate::admin) async fn serve(
    listener: UnixListener,
    router: Router,
    shutdown: impl Future<Output = ()>,
) {
    let room = Arc::new(Semaphore::new(usize::from(CONNECTIONS)));
    let stop = CancellationToken::new();
    tokio::select! {
        () = accept(&listener, &router, &room, &stop) => {}
        () = shutdown => {}
    }
    stop.cancel();
    // All places: everybody has gone.
    let _ = room.acquire_many(u32::from(CONNECTIONS)).await;
}

async fn accept(
    listener: &UnixListener,
    router: &Router,
    room: &Arc<Semaphore>,
    stop: &CancellationToken,
) {
    let mut is_full = false;
    loop {
        // Further ones wait in the kernel, and are given up there.
        let was_full = std::mem::replace(&mut is_full, room.available_permits() == 0);
        if is_full && !was_full {
            warn!("all {CONNECTIONS} connections to the admin socket are taken; further ones wait");
        }
        let Ok(permit) = Arc::clone(room).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!("cannot take a connection to the admin socket: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (router, stop) = (router.clone(), stop.clone());
        tokio::spawn(async move {
            talk(stream, router, &stop).await;
            drop(permit);
        });
    }
}

async fn talk(stream: UnixStream, router: Router, stop: &CancellationToken) {
    let peer = who(&stream, "the admin socket");
    let stream = Patience::new(stream, STALLED);
    let unanswered = stream.unanswered();
    let mut talking = pin!(conversation(stream, router));
    let served = tokio::select! {
        served = talking.as_mut() => served,
        () = stop.cancelled() => {
            talking.as_mut().graceful_shutdown();
            talking.await
        }
    };
    note_end(served, &unanswered, &peer);
}
