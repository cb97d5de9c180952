//! Nodes that run an agent, told to all others.
//!
//! `peers/NODE` says by which addresses a node sends. Each node writes its own entry and renews it; one that is not
//! renewed goes by itself. What a node has in the kernel goes on without its agent, so that takes its time.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    claims::{View, say, waits},
    client::{Client, Kind},
    config::EtcdConfig,
    mirror::Mirror,
    wire::{ClaimAnswer, LeaseAnswer, LeaseRequest, WriteRequest},
};
use crate::provider::{Problem, backoff::Backoff};

const PEERS: &str = "peers/";

/// An entry is renewed so many times before it would go.
const RENEWALS: u32 = 3;

/// By what each node is called, the addresses with which it sends.
pub type Members = BTreeMap<String, BTreeSet<IpAddr>>;

#[derive(Serialize, Deserialize)]
struct Entry {
    addresses: BTreeSet<IpAddr>,
}

/// All nodes that have entered themselves.
pub(super) fn members(mirror: &Mirror, prefix: &str) -> (Members, Vec<Problem>) {
    let (mut members, mut problems) = (Members::new(), Vec::new());
    for (node, value) in mirror.below(PEERS) {
        match read(value) {
            Ok(addresses) => _ = members.insert(node.to_owned(), addresses),
            Err(why) => problems.push(Problem {
                subject: format!("{prefix}{PEERS}{node}").into(),
                reason: format!("{why}; the entry is ignored"),
            }),
        }
    }
    (members, problems)
}

fn read(value: &[u8]) -> Result<BTreeSet<IpAddr>, String> {
    let entry: Entry = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    let addresses: BTreeSet<_> = entry.addresses.iter().map(IpAddr::to_canonical).collect();
    let is_nobodys =
        |addr: &&IpAddr| addr.is_unspecified() || addr.is_loopback() || addr.is_multicast();
    match addresses.iter().find(is_nobodys) {
        Some(addr) => Err(format!("{addr} is no node's address")),
        None => Ok(addresses),
    }
}

/// Keeps this node's entry there, for ever; nothing is written before the first reading.
pub(super) async fn tell(client: Arc<Client>, config: EtcdConfig, view: Arc<watch::Sender<View>>) {
    let (Some(node), Some(addresses)) = (&config.node, &config.member) else {
        return;
    };
    let every = config.timings.lease / RENEWALS;
    let mut seen = view.subscribe();
    let mut backoff = Backoff::new(config.timings.backoff);
    let mut renewed: Option<Instant> = None;
    loop {
        let due = {
            let seen = seen.borrow_and_update();
            let is_over = renewed.is_none_or(|at| at.elapsed() >= every);
            seen.shared.is_some() && (is_over || seen.members.get(node) != Some(addresses))
        };
        let trouble = match due {
            true => write(&client, &config, node, addresses).await.err(),
            false => None,
        };
        let wait = waits(trouble.as_ref(), &mut backoff, &config);
        let failing = trouble.is_some();
        let again = match (failing, renewed) {
            (false, _) if due => {
                renewed = Some(Instant::now());
                Instant::now() + every
            }
            (false, Some(at)) => at + every,
            // Before the first reading, which wakes this, or after a failure.
            _ => Instant::now() + wait,
        };
        say(
            &view,
            |view| &mut view.unlisted,
            trouble.map(|(_, why)| why),
        );
        tokio::select! {
            changed = seen.changed(), if !failing => if changed.is_err() { return },
            () = sleep_until(again) => {}
        }
    }
}

async fn write(
    client: &Client,
    config: &EtcdConfig,
    node: &str,
    addresses: &BTreeSet<IpAddr>,
) -> Result<(), (Kind, String)> {
    let key = format!("{}{PEERS}{node}", config.prefix);
    let entry = Entry {
        addresses: addresses.clone(),
    };
    let value = serde_json::to_string(&entry);
    let value = value.map_err(|error| (Kind::Refused, error.to_string()))?;
    let told = async {
        let lease = LeaseRequest::of(config.timings.lease);
        let lease: LeaseAnswer = client.post("v3/lease/grant", &lease).await?;
        let request = WriteRequest::leased(&key, &value, lease.id);
        client.post::<ClaimAnswer>("v3/kv/txn", &request).await
    };
    told.await.map(drop).map_err(|failure| {
        let why = format!("other nodes do not know this one as a peer by etcd: {failure}");
        (failure.kind, why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_names_addresses_of_a_node_and_nothing_else() {
        let of = |value: &str| read(value.as_bytes());
        let addr = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(
            of(r#"{"addresses": ["10.0.0.1", "fd00::1", "::ffff:10.0.0.1"]}"#),
            Ok([addr("10.0.0.1"), addr("fd00::1")].into())
        );
        for (wrong, why) in [
            (r#"{"addresses": ["127.0.0.1"]}"#, "127.0.0.1 is no node's"),
            (r#"{"addresses": ["0.0.0.0"]}"#, "0.0.0.0 is no node's"),
            (r#"{"addresses": ["node"]}"#, "invalid IP address"),
            ("{}", "missing field"),
            ("yes", "expected"),
        ] {
            let told = of(wrong).unwrap_err();
            assert!(told.contains(why), "{wrong}: {told}");
        }
    }
}
