//! Ends local sockets whose backend is gone, beside the control loop: their process is told and can connect anew,
//! instead of talking to nobody.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use tokio::sync::Notify;
use tracing::{error, info};

use crate::{
    datapath::{Orphan, Sockets},
    net::sockets::{Peering, end},
};

/// A socket that chose its backend just before that went is remembered within this time.
const AGAIN: Duration = Duration::from_secs(1);

/// Looks after every change of the kernel's maps, for as long as the agent runs.
pub(super) async fn run(sockets: Sockets, changed: Arc<Notify>) {
    let mut sockets = sockets;
    let mut failing = false;
    loop {
        changed.notified().await;
        for pause in [Duration::ZERO, AGAIN] {
            tokio::time::sleep(pause).await;
            let swept = tokio::task::spawn_blocking(move || {
                let ended = sweep(&mut sockets);
                (sockets, ended)
            });
            let ended;
            (sockets, ended) = match swept.await {
                Ok(swept) => swept,
                Err(panicked) => {
                    error!("local sockets of backends that are gone are not ended: {panicked}");
                    return;
                }
            };
            match ended {
                Ok(0) => failing = false,
                Ok(ended) => {
                    failing = false;
                    info!(ended, "local sockets ended: their backend is gone");
                }
                Err(error) if !failing => {
                    failing = true;
                    error!("cannot end local sockets of backends that are gone: {error:#}");
                }
                Err(_) => {}
            }
        }
    }
}

/// Gives how many were ended.
fn sweep(sockets: &mut Sockets) -> Result<usize> {
    let orphans = sockets.orphans()?;
    end_all(sockets, &orphans)
}

/// Ends those of them that are still there, and gives how many they were.
pub(super) fn end_all(sockets: &mut Sockets, orphans: &[Orphan]) -> Result<usize> {
    let peering = |orphan: &Orphan| Peering {
        cookie: orphan.cookie(),
        proto: orphan.proto(),
        peer: orphan.peer(),
    };
    let wanted: Vec<_> = orphans.iter().map(peering).collect();
    let ended = end(&wanted).context("sock_diag")?;
    for orphan in orphans.iter().filter(|one| ended.contains(&peering(one))) {
        sockets.forget(orphan)?;
    }
    Ok(ended.len())
}
