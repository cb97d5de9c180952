//! Addresses of agents. Marathon may give host names; they are looked up, and what was known stays
//! when a look-up fails.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout_at};

/// How many look-ups run at once.
const PARALLEL: usize = 16;
/// How long one look-up may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long all look-ups of one snapshot may take.
const TOGETHER: Duration = Duration::from_secs(5);
/// How long an address is taken for good.
const FRESH: Duration = Duration::from_secs(60);
/// How long a name that failed is left alone, so that a dead resolver does not pile up threads.
const RETRY: Duration = Duration::from_secs(10);

/// The addresses that are known.
pub(super) type Addresses = HashMap<String, IpAddr>;

/// A cache of agents' addresses.
#[derive(Debug, Default)]
pub(super) struct Agents {
    known: Addresses,
    next_try: HashMap<String, Instant>,
}

/// The address of an agent; literal addresses need no look-up.
pub(super) fn address(host: &str, known: &Addresses) -> Option<IpAddr> {
    host.parse().ok().or_else(|| known.get(host).copied())
}

/// An agent's name, unless it is the address that a task is reached at.
pub(super) fn host(name: Option<&str>, addr: IpAddr) -> Option<Arc<str>> {
    let name = name.filter(|name| !name.is_empty() && name.parse() != Ok(addr));
    name.map(Arc::from)
}

// === impl Agents ===

impl Agents {
    /// What is known now.
    pub(super) fn known(&self) -> &Addresses {
        &self.known
    }

    /// Looks up those of `names` that are new or stale. A slow resolver holds a snapshot up only so
    /// long; what it has not answered by then is asked again later.
    pub(super) async fn refresh(&mut self, names: &BTreeSet<&str>) {
        let due = self.due(names, Instant::now());
        let mut unanswered: BTreeSet<String> = due.iter().cloned().collect();
        let end = Instant::now() + TOGETHER;
        let lookups = futures_util::stream::iter(due).map(|name| async move {
            let found = look_up(&name).await;
            (name, found)
        });
        let mut lookups = lookups.buffer_unordered(PARALLEL);
        while let Ok(Some((name, found))) = timeout_at(end, lookups.next()).await {
            unanswered.remove(&name);
            self.learn(name, found, Instant::now());
        }
        // Not before: a reading that is given up meanwhile must not leave names alone that nobody has asked for.
        let next_try = unanswered.into_iter().map(|name| (name, end + RETRY));
        self.next_try.extend(next_try);
    }

    /// Names that were never known come first.
    fn due(&self, names: &BTreeSet<&str>, now: Instant) -> Vec<String> {
        let waits = |name: &&&str| self.next_try.get(**name).is_some_and(|at| *at > now);
        let names = names
            .iter()
            .filter(|name| name.parse::<IpAddr>().is_err() && !waits(name));
        let mut due: Vec<String> = names.map(|name| (*name).to_owned()).collect();
        due.sort_by_key(|name| self.known.contains_key(name));
        due
    }

    fn learn(&mut self, name: String, found: Result<IpAddr, String>, now: Instant) {
        let next = match found {
            Ok(addr) => {
                self.known.insert(name.clone(), addr);
                now + FRESH
            }
            Err(why) => {
                let last = self.known.get(&name);
                tracing::warn!(
                    agent = name,
                    why,
                    ?last,
                    "cannot look up the address of an agent"
                );
                now + RETRY
            }
        };
        self.next_try.insert(name, next);
    }
}

/// The first IPv4 address, as DC/OS does; an IPv6 one only where there is no other.
async fn look_up(name: &str) -> Result<IpAddr, String> {
    let found = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((name, 0))).await;
    let found = found.map_err(|_| format!("no answer in {PATIENCE:?}"))?;
    let found: Vec<IpAddr> = found
        .map_err(|e| e.to_string())?
        .map(|addr| addr.ip())
        .collect();
    let first = found.iter().find(|addr| addr.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| "it has no address".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names<'a>(names: &[&'a str]) -> BTreeSet<&'a str> {
        names.iter().copied().collect()
    }

    #[test]
    fn literal_addresses_are_never_looked_up() {
        let agents = Agents::default();
        let now = Instant::now();
        assert_eq!(
            agents.due(&names(&["10.0.0.1", "fd01::1", "agent-1"]), now),
            ["agent-1"]
        );
        assert_eq!(
            address("10.0.0.1", agents.known()),
            Some([10, 0, 0, 1].into())
        );
        assert_eq!(address("agent-1", agents.known()), None);
    }

    #[test]
    fn the_last_known_address_outlives_a_failed_look_up() {
        let mut agents = Agents::default();
        let start = Instant::now();
        let one = names(&["agent-1"]);
        agents.learn("agent-1".into(), Ok([10, 0, 0, 1].into()), start);
        assert!(agents.due(&one, start).is_empty());
        let later = start + FRESH;
        assert_eq!(agents.due(&one, later), ["agent-1"]);
        agents.learn("agent-1".into(), Err("SERVFAIL".into()), later);
        assert_eq!(
            address("agent-1", agents.known()),
            Some([10, 0, 0, 1].into())
        );
        assert!(agents.due(&one, later).is_empty(), "a failed name rests");
        assert_eq!(agents.due(&one, later + RETRY), ["agent-1"]);
    }

    #[tokio::test]
    async fn names_are_looked_up() {
        let mut agents = Agents::default();
        agents.refresh(&names(&["localhost"])).await;
        assert!(address("localhost", agents.known()).is_some_and(|addr| addr.is_loopback()));
    }
}
