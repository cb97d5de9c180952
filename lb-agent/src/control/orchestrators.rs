//! Addresses that belong to somebody else: no IP VIP may be one of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use reqwest::Url;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::debug;

use crate::config::Config;

/// How long a start waits for the first look-up: a resolver that is away keeps nobody from serving.
const AT_START: Duration = Duration::from_secs(1);
/// For one look-up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Peers, resolvers and orchestrators; those that are known by a host name with the addresses that it had last.
#[derive(Debug)]
pub(super) struct Foreign {
    given: BTreeSet<IpAddr>,
    named: watch::Receiver<BTreeSet<IpAddr>>,
}

// === impl Foreign ===

impl Foreign {
    /// Those that the configuration names; host names are looked up from now on, every `config.resync`.
    pub(super) async fn start(config: &Config) -> Self {
        let mut given: BTreeSet<IpAddr> = config.peers.iter().copied().collect();
        let dns = config.dns.iter().flat_map(|dns| {
            let upstreams = dns.upstreams.clone().unwrap_or_default();
            dns.sockets().into_iter().chain(upstreams)
        });
        given.extend(dns.map(|addr| addr.ip()));
        let mut names = BTreeSet::new();
        for host in hosts(config) {
            match host.trim_matches(['[', ']']).parse() {
                Ok(addr) => _ = given.insert(addr),
                Err(_) => _ = names.insert(host),
            }
        }
        let (into, mut named) = watch::channel(BTreeSet::new());
        if !names.is_empty() {
            tokio::spawn(look_up(names, config.resync, into));
            // Late is late: what is found then holds from then on.
            let _ = timeout(AT_START, named.changed()).await;
        }
        Self { given, named }
    }

    /// All of them, as of now.
    pub(super) fn addresses(&self) -> BTreeSet<IpAddr> {
        &self.given | &self.named.borrow()
    }
}

/// The hosts that providers talk to, by name or address.
fn hosts(config: &Config) -> impl Iterator<Item = String> {
    let marathon = config.marathons().flat_map(|marathon| &marathon.urls);
    let etcd = config.etcd.iter().flat_map(|etcd| &etcd.urls);
    let ecs = config.ecs.iter();
    let ecs = ecs.flat_map(|ecs| ecs.endpoint.iter().chain(&ecs.events));
    let docker = config.docker.iter();
    let docker = docker.filter_map(|docker| Url::parse(&docker.socket).ok());
    let urls = marathon.chain(etcd).chain(ecs).cloned().chain(docker);
    let host = |url: Url| url.host_str().map(str::to_owned);
    urls.filter_map(host).filter(|host| !host.is_empty())
}

/// Looks all names up, again and again.
async fn look_up(names: BTreeSet<String>, every: Duration, into: watch::Sender<BTreeSet<IpAddr>>) {
    let mut known = BTreeMap::new();
    loop {
        for name in &names {
            let found = timeout(PATIENCE, tokio::net::lookup_host((name.as_str(), 0))).await;
            let found = found.map_err(|_| "no answer in time".to_owned());
            let found = found.and_then(|found| found.map_err(|error| error.to_string()));
            take(
                &mut known,
                name,
                found.map(|found| found.map(|addr| addr.ip())),
            );
        }
        into.send_replace(known.values().flatten().copied().collect());
        tokio::select! {
            () = into.closed() => return,
            () = sleep(every) => {}
        }
    }
}

/// What was known of a name stays when it cannot be looked up.
fn take(
    known: &mut BTreeMap<String, BTreeSet<IpAddr>>,
    name: &str,
    found: Result<impl Iterator<Item = IpAddr>, String>,
) {
    match found {
        Ok(found) => {
            let found = found.map(|addr| addr.to_canonical()).collect();
            known.insert(name.to_owned(), found);
        }
        Err(why) => debug!(name, why, "cannot look up a host; its last addresses stay"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(args: &[&str]) -> Config {
        let args = ["lb-agent", "--iface", "lo"].iter().chain(args).copied();
        let cli = crate::cli::Cli::from_args(args).unwrap();
        Config::load(&cli.flags).unwrap()
    }

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn peers_and_whoever_a_provider_talks_to_are_known_by_address_and_by_name() {
        let config = config(&[
            "--peers",
            "10.0.0.7",
            "--marathon",
            "http://10.0.0.1:8080",
            "--marathon",
            "http://localhost:8080",
            "--etcd",
            "http://[fd00::2]:2379",
            "--docker=tcp://10.0.0.3:2375",
        ]);
        let foreign = Foreign::start(&config).await;
        let known = foreign.addresses();
        for expected in ["10.0.0.7", "10.0.0.1", "127.0.0.1", "fd00::2", "10.0.0.3"] {
            assert!(known.contains(&addr(expected)), "{expected}: {known:?}");
        }
    }

    #[test]
    fn a_name_that_cannot_be_looked_up_keeps_its_addresses() {
        let mut known = BTreeMap::new();
        let found = |text: &str| Ok([addr(text)].into_iter());
        take(&mut known, "marathon.mesos", found("10.0.0.1"));
        take(
            &mut known,
            "marathon.mesos",
            Err::<std::iter::Empty<_>, _>("no answer".to_owned()),
        );
        assert_eq!(known["marathon.mesos"], [addr("10.0.0.1")].into());
        take(&mut known, "marathon.mesos", found("::ffff:10.0.0.2"));
        assert_eq!(known["marathon.mesos"], [addr("10.0.0.2")].into());
    }
}
