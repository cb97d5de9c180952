//! Marathon: reads its HTTP API and turns VIP labels into pools.
//!
//! Marathon does not promise any order of events and never repeats one. So events only say that
//! there may be news; what is true comes from snapshots of the whole state (`watcher`, `fetch`).
//! Everything from JSON to pools is pure (`reading`, `build`).

mod acceptance;
mod agents;
mod app_pools;
mod build;
mod client;
mod config;
mod deployment;
mod edge;
mod event;
mod fetch;
mod label;
mod listener;
mod login;
mod model;
mod own;
mod pod_model;
mod pod_pools;
mod ports;
mod reading;
mod schedule;
mod secret;
mod sse;
mod version;
mod watcher;
mod weight;

#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

pub use self::{
    config::{Auth, MarathonConfig, Timings},
    edge::Edge,
    login::Credentials,
    secret::Secret,
    watcher::id_without_framework,
};
pub use crate::provider::backoff::Steps;
pub use reqwest::Url;

use super::{Asked, Update};

/// How long a watcher that cannot start, or died, is left alone.
const RESTART: Duration = Duration::from_secs(5);

/// Watches one Marathon and sends an [`Update`] for every attempt to read it. Ends when `tx` is
/// closed, and only then: a watcher that dies is started again.
///
/// The process must have installed a rustls crypto provider; without one every update says so.
/// The provider is called `marathon:<framework>`, or by its URL until the framework is known.
pub async fn run(config: MarathonConfig, tx: mpsc::Sender<Update>, asked: Asked) {
    while !tx.is_closed() {
        let (config_of_task, tx_of_task, asked) = (config.clone(), tx.clone(), asked.clone());
        let mut task = tokio::task::JoinSet::new();
        task.spawn(async move { watcher::watch(&config_of_task, &tx_of_task, asked).await });
        let why = match task.join_next().await {
            Some(Ok(Ok(()))) | None => return,
            Some(Ok(Err(why))) => why,
            Some(Err(died)) => format!("the watcher died and is started again: {died}"),
        };
        let provider = watcher::id_without_framework(&config);
        tracing::error!(%provider, why, "Marathon is not watched");
        let update = Update {
            provider,
            at: SystemTime::now(),
            outcome: Err(why),
        };
        _ = tx.send(update).await;
        tokio::select! {
            () = tx.closed() => return,
            () = tokio::time::sleep(RESTART) => {}
        }
    }
}
