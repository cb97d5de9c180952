//! What the provider is told, and its times.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, time::Duration};

use reqwest::Url;

use crate::provider::{ProviderId, backoff::Steps, marathon::Secret};

/// An etcd to read.
#[derive(Clone, Debug)]
pub struct EtcdConfig {
    /// The members of one cluster, tried in turn.
    pub urls: Vec<Url>,
    /// What our keys begin with; it ends in `/`.
    pub prefix: String,
    /// PEM file with the authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM files with the client's certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// User and password, if etcd wants any.
    pub login: Option<Login>,
    /// What this node is called by the others; `None`: nothing is told of it.
    pub node: Option<String>,
    /// The addresses by which the others know this node as a peer; `None`: they do not by etcd.
    pub member: Option<BTreeSet<IpAddr>>,
    /// How long and how often.
    pub timings: Timings,
    /// The longest answer, and the longest line of a watch, in bytes.
    pub max_body: usize,
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The password.
    pub password: Secret,
}

/// Times of the provider.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// To connect.
    pub connect: Duration,
    /// For a whole request, and until a watch says that it stands.
    pub request: Duration,
    /// Silence after a change before it is told, and the longest time that changes are gathered.
    pub debounce: (Duration, Duration),
    /// Between two comparisons.
    pub resync: Duration,
    /// Before an address is claimed anew that could not be claimed.
    pub claim_again: Duration,
    /// How long other nodes know this one as a peer after it said so last.
    pub lease: Duration,
    /// Waits after failures.
    pub backoff: Steps,
}

// === impl EtcdConfig ===

impl EtcdConfig {
    /// The usual ways of talking to the members at `urls`.
    pub fn new(urls: Vec<Url>, prefix: &str) -> Self {
        Self {
            urls,
            prefix: prefix.to_owned(),
            ca_file: None,
            certificate: None,
            login: None,
            node: None,
            member: None,
            timings: Timings::default(),
            max_body: 64 << 20,
        }
    }

    /// The name of the provider. It does not depend on the members, which may be others after a restart.
    pub fn id(&self) -> ProviderId {
        ProviderId::new("etcd", &self.prefix)
    }
}

// === impl Timings ===

impl Default for Timings {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            request: Duration::from_secs(5),
            debounce: (Duration::from_millis(10), Duration::from_millis(100)),
            resync: Duration::from_secs(30),
            claim_again: Duration::from_secs(5),
            lease: Duration::from_secs(600),
            backoff: Steps {
                first: Duration::from_millis(250),
                factor: 2.0,
                cap: Duration::from_secs(10),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_watch_does_not_tell_and_what_an_outage_hid_is_seen_within_35_s() {
        let timings = Timings::default();
        let most = Duration::from_secs(35);
        assert!(timings.resync + timings.request <= most);
        // The outage ends just after a request was sent that comes to nothing.
        let asked_again = timings.request + timings.backoff.cap;
        assert!(asked_again + timings.request < most);
    }
}
