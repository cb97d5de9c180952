//! Starts what looks after flows and sockets beside the control loop.

use std::sync::Arc;

use anyhow::Result;
use tokio::sync::{Notify, mpsc};

use super::{
    Published, collector, orphans,
    resets::{self, Places, Reset},
    suspects,
};
use crate::{config::PortRange, datapath::Datapath, health::Latests};

/// Orders to reset flows that may wait.
const RESETS: usize = 16;

/// The control loop's side of it.
pub(super) struct Beside {
    /// To be told when the maps have changed.
    pub(super) changed: Arc<Notify>,
    /// To be told whose flows are to be reset.
    pub(super) resets: mpsc::Sender<Reset>,
}

/// Starts all of it, on the present runtime; `checks`: what the latest ones came to; `ports`: what full NAT may use.
pub(super) fn start(
    datapath: &Datapath,
    published: &Published,
    checks: Arc<Latests>,
    ports: PortRange,
) -> Result<Beside> {
    let census = Arc::clone(&published.census);
    tokio::spawn(collector::run(
        datapath.flow_tables()?,
        census,
        Arc::clone(&published.leaving),
        u32::from(ports.max - ports.min) + 1,
    ));
    let known = Arc::clone(&published.suspects);
    let events = published.events.clone();
    tokio::spawn(suspects::run(datapath.suspects()?, known, checks, events));
    let changed = Arc::new(Notify::new());
    tokio::spawn(orphans::run(datapath.sockets()?, Arc::clone(&changed)));
    let (resets, asked) = mpsc::channel(RESETS);
    let places = Places {
        tables: datapath.flow_tables()?,
        sockets: datapath.sockets()?,
    };
    tokio::spawn(resets::run(places, asked));
    Ok(Beside { changed, resets })
}
