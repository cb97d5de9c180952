//! Services and addresses that many nodes share, in etcd.
//!
//! Every key below `PREFIX/services/` holds a document as a services file does. They are read once, followed by a watch,
//! and compared every now and then in case the watch went silent. Each document fails alone.
//!
//! Below `PREFIX/drained/` stand the nodes that drain, and below `PREFIX/peers/` those that take packets from each other.
//!
//! Below `PREFIX/vips/` and `PREFIX/addresses/` stands which address each name has, for all nodes alike:
//! whoever claims first has it.
//!
//! The JSON gateway of etcd 3.4 and later is spoken, over HTTP/1.1. `docs/etcd.md` is for operators.

mod claims;
mod client;
mod config;
mod drains;
mod members;
mod mirror;
mod watcher;
mod wire;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::SystemTime};

use tokio::sync::{mpsc, watch};

pub use self::{
    claims::{Release, View, Wanted},
    config::{EtcdConfig, Login, Timings},
    drains::{Drained, Nodes, OwnDrain},
    members::Members,
};
use self::{client::Client, watcher::Watcher};
use super::{Asked, Update};

/// The other ends of what [`run`] is given.
#[derive(Debug)]
pub struct Claims {
    /// What is agreed, and what is wrong with it.
    pub view: watch::Receiver<View>,
    /// The addresses that this node has for names.
    pub wanted: watch::Sender<Wanted>,
    /// Names whose addresses are given back.
    pub releases: mpsc::Sender<Release>,
    /// Whether this node drains; `None`: that is not known yet.
    pub own_drain: watch::Sender<Option<OwnDrain>>,
}

/// The provider's ends of [`Claims`].
#[derive(Debug)]
pub struct Ends {
    /// What is agreed.
    pub view: watch::Sender<View>,
    /// What is to be claimed.
    pub wanted: watch::Receiver<Wanted>,
    /// What is to be given back.
    pub releases: mpsc::Receiver<Release>,
    /// What others are to know of this node.
    pub own_drain: watch::Receiver<Option<OwnDrain>>,
}

/// Names that may wait to be given back.
const RELEASES: usize = 4;

/// Reads etcd for ever; ends when `tx` is closed. The update's provider is [`EtcdConfig::id`].
pub async fn run(config: EtcdConfig, tx: mpsc::Sender<Update>, ends: Ends, asked: Asked) {
    let Ends {
        view,
        wanted,
        releases,
        own_drain,
    } = ends;
    let client = match Client::new(&config) {
        Ok(client) => Arc::new(client),
        Err(why) => {
            tracing::error!(provider = %config.id(), "{why}");
            view.send_modify(|view| view.tried = true);
            let update = Update {
                provider: config.id(),
                at: SystemTime::now(),
                outcome: Err(why),
            };
            _ = tx.send(update).await;
            return tx.closed().await;
        }
    };
    let view = Arc::new(view);
    let claims = claims::claim(
        Arc::clone(&client),
        config.clone(),
        wanted,
        Arc::clone(&view),
    );
    let claims = tokio::spawn(claims);
    let releases = claims::release(Arc::clone(&client), config.prefix.clone(), releases);
    let releases = tokio::spawn(releases);
    let drains = drains::tell(
        Arc::clone(&client),
        config.clone(),
        own_drain,
        Arc::clone(&view),
    );
    let drains = tokio::spawn(drains);
    let members = members::tell(Arc::clone(&client), config.clone(), Arc::clone(&view));
    let members = tokio::spawn(members);
    Watcher::new(client, &config, &tx, &view, asked)
        .watch()
        .await;
    claims.abort();
    releases.abort();
    drains.abort();
    members.abort();
}

/// What connects the agent's own addresses with those in etcd.
pub fn channels() -> (Claims, Ends) {
    let (view_tx, view) = watch::channel(View::default());
    let (wanted, wanted_rx) = watch::channel(Wanted::default());
    let (releases, releases_rx) = mpsc::channel(RELEASES);
    let (own_drain, own_drain_rx) = watch::channel(None);
    let ours = Claims {
        view,
        wanted,
        releases,
        own_drain,
    };
    let theirs = Ends {
        view: view_tx,
        wanted: wanted_rx,
        releases: releases_rx,
        own_drain: own_drain_rx,
    };
    (ours, theirs)
}
