//! Nodes that drain, told to all others.
//!
//! `drained/NODE` says which addresses the operator of a node has taken out there. Each node writes and removes its own
//! entry, and leaves it there when it stops: that is what a drain before a shutdown is for.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    claims::{View, say, waits},
    client::{Client, Kind},
    config::EtcdConfig,
    mirror::Mirror,
    wire::{ClaimAnswer, WriteRequest},
};
use crate::provider::{Problem, backoff::Backoff};

const DRAINED: &str = "drained/";

/// A node that drains.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// When the operator said so, ms since 1970.
    pub since: u64,
    /// Shown as maintenance instead of draining.
    #[serde(default)]
    pub maintenance: bool,
    /// When connections that are left are reset, ms since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<u64>,
    /// Of backends that are there.
    pub addresses: BTreeSet<IpAddr>,
}

/// By what each node is called.
pub type Nodes = BTreeMap<String, Drained>;

/// What others are to know of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnDrain {
    /// `None`: it does not drain.
    pub drained: Option<Drained>,
    /// Not all of its backends are known yet, so those that others know of stay.
    pub partial: bool,
}

/// All nodes that drain.
pub(super) fn nodes(mirror: &Mirror, prefix: &str) -> (Nodes, Vec<Problem>) {
    let (mut nodes, mut problems) = (Nodes::new(), Vec::new());
    for (node, value) in mirror.below(DRAINED) {
        match serde_json::from_slice(value) {
            Ok(drained) => _ = nodes.insert(node.to_owned(), drained),
            Err(error) => problems.push(Problem {
                subject: format!("{prefix}{DRAINED}{node}").into(),
                reason: format!("{error}; the entry is ignored"),
            }),
        }
    }
    (nodes, problems)
}

/// Keeps this node's entry as it is to be, for ever.
pub(super) async fn tell(
    client: Arc<Client>,
    config: EtcdConfig,
    mut own: watch::Receiver<Option<OwnDrain>>,
    view: Arc<watch::Sender<View>>,
) {
    let Some(node) = &config.node else { return };
    let mut seen = view.subscribe();
    let mut backoff = Backoff::new(config.timings.backoff);
    // What was written, and when it may be written again: that it is so comes by the watch.
    let mut written: Option<(Option<Drained>, Instant)> = None;
    loop {
        let change = {
            let (own, seen) = (own.borrow_and_update(), seen.borrow_and_update());
            change(own.as_ref(), &seen, node)
        };
        let under_way = |wish: &Option<Drained>| {
            let same = written.as_ref().filter(|(last, _)| last == wish);
            same.is_some_and(|(_, again)| *again > Instant::now())
        };
        let mut trouble = None;
        if let Some(wish) = change.filter(|wish| !under_way(wish)) {
            match write(&client, &config.prefix, node, wish.as_ref()).await {
                Ok(()) => written = Some((wish, Instant::now() + config.timings.claim_again)),
                Err(why) => trouble = Some(why),
            }
        }
        let wait = waits(trouble.as_ref(), &mut backoff, &config);
        let failing = trouble.is_some();
        say(&view, |view| &mut view.untold, trouble.map(|(_, why)| why));
        tokio::select! {
            changed = own.changed(), if !failing => if changed.is_err() { return },
            changed = seen.changed(), if !failing => if changed.is_err() { return },
            () = sleep(wait) => {}
        }
    }
}

/// What the entry is to become; `None`: it is so. Nothing is changed before the first reading.
fn change(own: Option<&OwnDrain>, view: &View, node: &str) -> Option<Option<Drained>> {
    let own = own?;
    view.shared.as_ref()?;
    let held = view.drained.get(node);
    let mut wish = own.drained.clone();
    if let (true, Some(wish), Some(held)) = (own.partial, &mut wish, held) {
        wish.addresses.extend(&held.addresses);
    }
    (wish.as_ref() != held).then_some(wish)
}

async fn write(
    client: &Client,
    prefix: &str,
    node: &str,
    wish: Option<&Drained>,
) -> Result<(), (Kind, String)> {
    let key = format!("{prefix}{DRAINED}{node}");
    let value = wish.map(serde_json::to_string).transpose();
    let value = value.map_err(|error| (Kind::Refused, error.to_string()))?;
    let request = WriteRequest::new(&key, value.as_deref());
    let told: Result<ClaimAnswer, _> = client.post("v3/kv/txn", &request).await;
    let drains = if wish.is_some() {
        "drains"
    } else {
        "is ready again"
    };
    told.map(drop).map_err(|failure| {
        let why = format!("other nodes are not told in etcd that this one {drains}: {failure}");
        (failure.kind, why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vip::Shared;

    fn drained(addresses: &[&str]) -> Drained {
        Drained {
            since: 1,
            addresses: addresses.iter().map(|addr| addr.parse().unwrap()).collect(),
            ..Drained::default()
        }
    }

    #[test]
    fn an_entry_is_changed_only_where_it_is_to_be_another() {
        let view = |held: &[(&str, Drained)]| View {
            shared: Some(Arc::new(Shared::default())),
            drained: Arc::new(
                held.iter()
                    .map(|(n, d)| ((*n).to_owned(), d.clone()))
                    .collect(),
            ),
            ..View::default()
        };
        let own = |drained: Option<Drained>, partial| OwnDrain { drained, partial };
        let both = drained(&["10.0.0.1", "172.17.0.2"]);
        let one = drained(&["10.0.0.1"]);
        let held = view(&[("n1", both.clone()), ("n2", one.clone())]);
        let at = |own: &OwnDrain| change(Some(own), &held, "n1");
        assert_eq!(at(&own(Some(both.clone()), false)), None);
        assert_eq!(at(&own(Some(one.clone()), false)), Some(Some(one.clone())));
        assert_eq!(at(&own(Some(one.clone()), true)), None, "more may come");
        assert_eq!(at(&own(None, false)), Some(None));
        let nothing = view(&[("n2", one.clone())]);
        assert_eq!(change(Some(&own(None, false)), &nothing, "n1"), None);
        assert_eq!(change(None, &held, "n1"), None, "nothing is known yet");
        let wish = own(Some(one), false);
        assert_eq!(
            change(Some(&wish), &View::default(), "n1"),
            None,
            "etcd was not read"
        );
    }
}
