//! Services and addresses that many nodes share, in etcd.
//!
//! Every key below `PREFIX/services/` holds a document as a services file does. They are read once, followed by a watch,
//! and compared every now and then in case the watch went silent. Each document fails alone.
//!
//! Below `PREFIX/vips/` and `PREFIX/addresses/` stands which address each name has, for all nodes alike:
//! whoever claims first has it.
//!
//! The JSON gateway of etcd 3.4 and later is spoken, over HTTP/1.1. `docs/etcd.md` is for operators.

mod claims;
mod client;
mod config;
mod mirror;
mod watcher;
mod wire;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::SystemTime};

use tokio::sync::{mpsc, watch};

pub use self::{
    claims::{View, Wanted},
    config::{EtcdConfig, Login, Timings},
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
}

/// Reads etcd for ever; ends when `tx` is closed. The update's provider is [`EtcdConfig::id`].
pub async fn run(
    config: EtcdConfig,
    tx: mpsc::Sender<Update>,
    view: watch::Sender<View>,
    wanted: watch::Receiver<Wanted>,
    asked: Asked,
) {
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
    Watcher::new(client, &config, &tx, &view, asked)
        .watch()
        .await;
    claims.abort();
}

/// What connects the agent's own addresses with those in etcd.
pub fn channels() -> (Claims, watch::Sender<View>, watch::Receiver<Wanted>) {
    let (view_tx, view) = watch::channel(View::default());
    let (wanted, wanted_rx) = watch::channel(Wanted::default());
    (Claims { view, wanted }, view_tx, wanted_rx)
}
