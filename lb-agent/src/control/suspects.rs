//! Tells of backends that the kernel programs saw not to answer, beside the control loop. The programs themselves keep
//! new flows away from them: nothing waits for this.

use std::{collections::HashMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use lb_common::Suspect;
use tracing::{error, info, warn};

use crate::{
    datapath::{Suspects, suspect_reason},
    plan::Endpoint,
};

/// Time between two looks at the counter.
const INTERVAL: Duration = Duration::from_millis(250);

/// Backends that are suspect now.
pub(super) type Known = Arc<ArcSwap<HashMap<Endpoint, Suspect>>>;

/// Looks for as long as the agent runs.
pub(super) async fn run(suspects: Suspects, known: Known) {
    let mut times = 0;
    let mut failing = false;
    loop {
        // Two system calls, and as many more as there are thousands of backends while one is suspect.
        match look(&suspects, &mut times, &known.load()) {
            Ok(Some(now)) => {
                failing = false;
                tell(&known.load(), &now);
                known.store(Arc::new(now));
            }
            Ok(None) => failing = false,
            Err(why) if !failing => {
                failing = true;
                error!("cannot read which backends do not answer: {why:#}");
            }
            Err(_) => {}
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// `None`: nothing can have changed.
fn look(
    suspects: &Suspects,
    times: &mut u64,
    known: &HashMap<Endpoint, Suspect>,
) -> anyhow::Result<Option<HashMap<Endpoint, Suspect>>> {
    let before = std::mem::replace(times, suspects.times()?);
    if before == *times && known.is_empty() {
        return Ok(None);
    }
    suspects.read().map(Some)
}

/// One line when a backend becomes suspect, and one when it is none any more.
fn tell(before: &HashMap<Endpoint, Suspect>, now: &HashMap<Endpoint, Suspect>) {
    for (backend, suspect) in now {
        if !before.contains_key(backend) {
            let why = suspect_reason(suspect);
            warn!(%backend, why, "backend suspect: new connections go elsewhere until it answers");
        }
    }
    for backend in before.keys() {
        if !now.contains_key(backend) {
            info!(%backend, "backend not suspect any more");
        }
    }
}
