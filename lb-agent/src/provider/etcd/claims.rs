//! Which address each name has, on all nodes alike.
//!
//! `vips/ipv4/NAME` holds the address of a name (`vips/ipv6/NAME` that of the other family), and `addresses/ADDR` the name
//! that has an address. Both are put by one transaction, which does nothing if either is there: whoever came first has it.
//! Nobody changes or removes them but the operator.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep},
};

use super::{
    client::{Client, Kind},
    config::EtcdConfig,
    drains::Nodes,
    members::Members,
    mirror::Mirror,
    wire::{ClaimAnswer, ClaimRequest, ReleaseRequest},
};
use crate::{
    provider::{Problem, backoff::Backoff},
    vip::{Family, Shared, VipName},
};

const ADDRESSES: &str = "addresses/";
/// Claims under way at a time.
const AT_A_TIME: usize = 16;
/// A user that may not write may one day.
const DENIED: Duration = Duration::from_secs(60);

/// The addresses that a node has for the names it serves.
pub type Wanted = Arc<BTreeMap<(VipName, Family), IpAddr>>;

/// A name that is to have no address any more, those that it has, and who is told how that ended.
pub type Release = (VipName, Vec<IpAddr>, oneshot::Sender<Result<(), String>>);

/// What is known of the agreement.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// What is agreed; `None` before the first reading.
    pub shared: Option<Arc<Shared>>,
    /// Etcd was asked at least once, well or not.
    pub tried: bool,
    /// Why addresses cannot be claimed.
    pub trouble: Option<String>,
    /// Nodes that drain.
    pub drained: Arc<Nodes>,
    /// Why others do not hear whether this one does.
    pub untold: Option<String>,
    /// Nodes that have entered themselves as peers.
    pub members: Arc<Members>,
    /// Why this one is not entered.
    pub unlisted: Option<String>,
    /// Entries that make no sense.
    pub(super) problems: Vec<Problem>,
}

// === impl View ===

impl View {
    /// Takes a reading of addresses, of nodes that drain and of peers, each with what is wrong in it; whether anything is
    /// new.
    pub(super) fn read(
        &mut self,
        (shared, mut problems): (Shared, Vec<Problem>),
        (drained, wrong): (Nodes, Vec<Problem>),
        (members, wrong_members): (Members, Vec<Problem>),
    ) -> bool {
        problems.extend(wrong.into_iter().chain(wrong_members));
        self.problems = problems;
        let mut news = !std::mem::replace(&mut self.tried, true);
        if self.shared.as_deref() != Some(&shared) {
            self.shared = Some(Arc::new(shared));
            news = true;
        }
        if *self.drained != drained {
            self.drained = Arc::new(drained);
            news = true;
        }
        if *self.members != members {
            self.members = Arc::new(members);
            news = true;
        }
        news
    }
}

fn folder(family: Family) -> &'static str {
    match family {
        Family::V4 => "vips/ipv4/",
        Family::V6 => "vips/ipv6/",
    }
}

/// What is agreed: a pair of entries that name each other.
pub(super) fn agreed(mirror: &Mirror, prefix: &str) -> (Shared, Vec<Problem>) {
    let (mut shared, mut problems) = (Shared::default(), Vec::new());
    for family in Family::ALL {
        for (name, value) in mirror.below(folder(family)) {
            let text = String::from_utf8_lossy(value);
            let mut wrong = |what: String| {
                problems.push(Problem {
                    subject: format!("{prefix}{}{name}", folder(family)).into(),
                    reason: format!("{what}; the entry is ignored"),
                });
            };
            let Some(canonical) = VipName::from_canonical(name) else {
                wrong("the key does not end with the name of a VIP".to_owned());
                continue;
            };
            let addr = text.parse().ok().filter(|addr| Family::of(*addr) == family);
            let Some(addr) = addr else {
                let shown: String = text.chars().take(64).collect();
                wrong(format!("{shown:?} is not an {family} address"));
                continue;
            };
            if mirror.get(&format!("{ADDRESSES}{addr}")) != Some(name.as_bytes()) {
                wrong(format!(
                    "{prefix}{ADDRESSES}{addr} does not say {name}; remove both, or put both"
                ));
            } else if !shared.add(canonical, addr) {
                wrong(format!("{addr} is that of another name, too"));
            }
        }
    }
    (shared, problems)
}

/// Claims the addresses that are wanted and not agreed yet, for ever.
pub(super) async fn claim(
    client: Arc<Client>,
    config: EtcdConfig,
    mut wanted: watch::Receiver<Wanted>,
    view: Arc<watch::Sender<View>>,
) {
    let mut seen = view.subscribe();
    let mut backoff = Backoff::new(config.timings.backoff);
    // What was asked for, and when that may be asked for again: the answer comes by the watch.
    let mut asked = BTreeMap::<(VipName, IpAddr), Instant>::new();
    loop {
        let now = Instant::now();
        asked.retain(|_, again| *again > now);
        let missing = missing(&wanted.borrow_and_update(), &seen.borrow_and_update());
        let nothing = missing.is_empty();
        let missing: Vec<_> = missing
            .into_iter()
            .filter(|one| !asked.contains_key(one))
            .collect();
        let mut trouble = None;
        for some in missing.chunks(AT_A_TIME) {
            let mut attempts = Vec::with_capacity(some.len());
            for (name, addr) in some {
                attempts.push(attempt(&client, &config.prefix, name, *addr));
            }
            for (outcome, one) in join_all(attempts).await.into_iter().zip(some) {
                match outcome {
                    Ok(()) => {
                        _ = asked.insert(one.clone(), Instant::now() + config.timings.claim_again)
                    }
                    Err(why) => trouble = Some(why),
                }
            }
            if trouble.is_some() {
                break;
            }
        }
        let wait = waits(trouble.as_ref(), &mut backoff, &config);
        let failing = trouble.is_some();
        // While answers are under way nothing is known.
        if failing || nothing || !missing.is_empty() {
            say(&view, |view| &mut view.trouble, trouble.map(|(_, why)| why));
        }
        tokio::select! {
            changed = wanted.changed(), if !failing => if changed.is_err() { return },
            changed = seen.changed(), if !failing => if changed.is_err() { return },
            () = sleep(wait) => {}
        }
    }
}

/// How long until the next look, without any news.
pub(super) fn waits(
    trouble: Option<&(Kind, String)>,
    backoff: &mut Backoff,
    config: &EtcdConfig,
) -> Duration {
    match trouble {
        Some((Kind::Denied, _)) => DENIED,
        Some(_) => backoff.after_failure(rand::random()),
        None => {
            backoff.reset();
            config.timings.claim_again
        }
    }
}

/// What others see of a trouble, once.
pub(super) fn say(
    view: &watch::Sender<View>,
    which: fn(&mut View) -> &mut Option<String>,
    trouble: Option<String>,
) {
    view.send_if_modified(|view| {
        let said = which(view);
        let news = *said != trouble;
        if let Some(why) = trouble.as_ref().filter(|_| news) {
            tracing::warn!("{why}");
        }
        *said = trouble;
        news
    });
}

/// What nobody claimed yet; nothing before the first reading.
fn missing(wanted: &Wanted, view: &View) -> Vec<(VipName, IpAddr)> {
    let Some(shared) = &view.shared else {
        return Vec::new();
    };
    let free = |name: &VipName, family, addr| {
        shared.address(name, family).is_none() && shared.holder(addr).is_none()
    };
    let each = wanted.iter();
    each.filter(|((name, family), addr)| free(name, *family, **addr))
        .map(|((name, _), addr)| (name.clone(), *addr))
        .collect()
}

/// The keys of a claim and what they say.
fn entries(prefix: &str, name: &VipName, addr: IpAddr) -> [(String, String); 2] {
    let of_name = format!("{prefix}{}{name}", folder(Family::of(addr)));
    let of_addr = format!("{prefix}{ADDRESSES}{addr}");
    [(of_name, addr.to_string()), (of_addr, name.to_string())]
}

/// Gives addresses back, one name after the other.
pub(super) async fn release(
    client: Arc<Client>,
    prefix: String,
    mut releases: mpsc::Receiver<Release>,
) {
    while let Some((name, addrs, answer)) = releases.recv().await {
        let pairs = addrs.iter().flat_map(|addr| entries(&prefix, &name, *addr));
        let request = ReleaseRequest::new(&pairs.collect::<Vec<_>>());
        let told: Result<ClaimAnswer, _> = client.post("v3/kv/txn", &request).await;
        let outcome = match told {
            Ok(ClaimAnswer { succeeded: true }) => Ok(()),
            Ok(ClaimAnswer { succeeded: false }) => {
                Err("its claim was changed meanwhile".to_owned())
            }
            Err(failure) => Err(failure.to_string()),
        };
        // Who ordered may have gone meanwhile.
        let _ = answer.send(outcome);
    }
}

/// One claim. That another was first is no failure: the watch tells who.
async fn attempt(
    client: &Client,
    prefix: &str,
    name: &VipName,
    addr: IpAddr,
) -> Result<(), (Kind, String)> {
    let request = ClaimRequest::new(entries(prefix, name, addr));
    let answer: Result<ClaimAnswer, _> = client.post("v3/kv/txn", &request).await;
    match answer {
        Ok(ClaimAnswer { succeeded }) => {
            tracing::debug!(%name, %addr, succeeded, "address claimed in etcd");
            Ok(())
        }
        Err(failure) => Err((
            failure.kind,
            format!(
                "addresses are not claimed in etcd, so new names that collide wait for one: {failure}"
            ),
        )),
    }
}
