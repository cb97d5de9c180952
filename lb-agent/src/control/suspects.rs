//! Tells of backends that the kernel programs saw not to answer, beside the control loop, and clears those that checks
//! bring back. The programs themselves keep new flows away from them: nothing waits for this.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use lb_common::Suspect;
use tracing::{error, info, warn};

use crate::{
    admin::stats::{Event, Events},
    datapath::{Suspects, suspect_reason},
    health::Latests,
    plan::Endpoint,
};

/// Time between two looks at the counter.
const INTERVAL: Duration = Duration::from_millis(250);

/// Backends that are suspect now.
pub(super) type Known = Arc<ArcSwap<HashMap<Endpoint, Suspect>>>;

/// Looks for as long as the agent runs, and tells of changes in the log and as events; `checks`: what they came to.
pub(super) async fn run(suspects: Suspects, known: Known, checks: Arc<Latests>, events: Events) {
    let (mut times, mut down) = (0, HashSet::new());
    let mut failing = false;
    loop {
        // Two system calls, and as many more as there are thousands of backends while one is suspect.
        match look(&suspects, &mut times, &known.load()) {
            Ok(Some(now)) => {
                failing = false;
                tell(&known.load(), &now, &events);
                let up = checks.up(&now.keys().map(place).collect());
                let back = brought_back(&mut down, &now, &up);
                if !back.is_empty()
                    && let Err(why) = suspects.clear(&back)
                {
                    error!("cannot send new connections to who answers again: {why:#}");
                }
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

/// Suspects that checks had as down, too, and now have as up: so much is more than the absence of complaints, and they
/// need not wait until somebody tries them. What checks had as up all the time says nothing against what the programs
/// saw. `down`: whom they had as down at the last look.
fn brought_back(
    down: &mut HashSet<Endpoint>,
    suspects: &HashMap<Endpoint, Suspect>,
    up: &HashMap<SocketAddr, bool>,
) -> HashSet<Endpoint> {
    const TCP: u8 = 6;
    down.retain(|backend| suspects.contains_key(backend));
    let mut back = HashSet::new();
    for backend in suspects.keys().filter(|backend| backend.proto == TCP) {
        match up.get(&place(backend)) {
            Some(false) => _ = down.insert(*backend),
            Some(true) if down.remove(backend) => _ = back.insert(*backend),
            Some(true) | None => {}
        }
    }
    back
}

fn place(backend: &Endpoint) -> SocketAddr {
    SocketAddr::new(backend.addr, backend.port)
}

/// One line and one event when a backend becomes suspect, and when it is none any more; whichever services it is behind.
fn tell(before: &HashMap<Endpoint, Suspect>, now: &HashMap<Endpoint, Suspect>, events: &Events) {
    let event = |what: &str, backend: &Endpoint| Event {
        what: what.to_owned(),
        backend: Some(place(backend)),
        ..Event::default()
    };
    for (backend, suspect) in now {
        if !before.contains_key(backend) {
            let why = suspect_reason(suspect);
            warn!(%backend, why, "backend suspect: new connections go elsewhere until it answers");
            events.push(Event {
                to: Some("suspect".to_owned()),
                reason: format!("{why}; new connections go elsewhere until it answers"),
                ..event("backend suspect", backend)
            });
        }
    }
    for backend in before.keys() {
        if !now.contains_key(backend) {
            info!(%backend, "backend not suspect any more");
            events.push(Event {
                from: Some("suspect".to_owned()),
                reason: "it answered, or is gone".to_owned(),
                ..event("backend not suspect any more", backend)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use lb_common::suspicion;

    use super::*;
    use crate::log;

    #[test]
    fn a_backend_that_becomes_suspect_and_is_none_any_more_is_a_line_and_an_event_each() {
        let addr = SocketAddr::from(([10, 0, 0, 1], 80));
        let suspect = Suspect {
            times: 1,
            why: suspicion::REFUSED,
            ..Suspect::default()
        };
        let one = HashMap::from([(Endpoint::new(addr, 6), suspect)]);
        let (none, events) = (HashMap::new(), Events::default());
        let lines = log::tests::told(|| {
            tell(&none, &one, &events);
            // For as long as it is one, there is nothing new.
            tell(&one, &one, &events);
            tell(&one, &none, &events);
        });
        assert_eq!(lines.len(), 2, "{lines:?}");
        let told: Vec<_> = events.after(0).into_iter().map(short).collect();
        assert_eq!(
            told,
            [
                "10.0.0.1:80 - suspect: it refused a connection; new connections go elsewhere until it answers",
                "10.0.0.1:80 suspect -: it answered, or is gone"
            ]
        );
    }

    #[test]
    fn a_check_that_has_it_as_down_and_then_as_up_brings_a_suspect_back() {
        let addr = SocketAddr::from(([10, 0, 0, 1], 80));
        let (tcp, udp) = (Endpoint::new(addr, 6), Endpoint::new(addr, 17));
        let suspects = HashMap::from([tcp, udp].map(|backend| (backend, Suspect::default())));
        let mut down = HashSet::new();
        let mut back = |up: &[bool], suspects: &HashMap<Endpoint, Suspect>| {
            let up = up.iter().map(|up| (addr, *up)).collect();
            brought_back(&mut down, suspects, &up)
        };
        let nobody = HashSet::new();
        assert_eq!(back(&[], &suspects), nobody, "nothing is known");
        assert_eq!(back(&[true], &suspects), nobody, "it was up all the time");
        assert_eq!(back(&[false], &suspects), nobody);
        assert_eq!(back(&[], &suspects), nobody);
        assert_eq!(back(&[true], &suspects), HashSet::from([tcp]), "over TCP");
        assert_eq!(back(&[true], &suspects), nobody, "once");
        // Who is none meanwhile begins anew.
        back(&[false], &suspects);
        back(&[false], &HashMap::new());
        assert_eq!(back(&[true], &suspects), nobody);
    }

    fn short(event: Event) -> String {
        let word = |word: Option<String>| word.unwrap_or_else(|| "-".to_owned());
        let backend = word(event.backend.map(|addr| addr.to_string()));
        let (from, to) = (word(event.from), word(event.to));
        format!("{backend} {from} {to}: {}", event.reason)
    }
}
