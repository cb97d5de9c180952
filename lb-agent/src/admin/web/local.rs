//! Takes connections at the admin socket: a bounded number, with the bounds of those over TCP for what they send.

use std::{future::Future, pin::pin, time::Duration};

use axum::Router;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::{
    listen::{conversation, note_end},
    patience::Patience,
};
use crate::admin::{accept::Room, socket::who};

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
    let room = Room::new(CONNECTIONS, "the admin socket");
    let stop = CancellationToken::new();
    let begin = |stream, taken| {
        let (router, stop) = (router.clone(), stop.clone());
        tokio::spawn(async move {
            talk(stream, router, &stop).await;
            drop(taken);
        });
    };
    tokio::select! {
        () = room.fill(&listener, begin) => {}
        () = shutdown => {}
    }
    stop.cancel();
    room.emptied().await;
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
