//! Asks an upstream, within bounds: a dead upstream must cost neither descriptors nor patience.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use hickory_server::{
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::{Query, ResponseCode},
        rr::Record,
    },
    resolver::{
        Resolver,
        config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    },
};
use tokio::{sync::Semaphore, time::timeout};

use super::{Answer, Stats};

/// Each takes a socket, so this is a share of the agent's descriptors.
const MAX_IN_FLIGHT: usize = 512;
/// From query to answer. Clients try again after 5 s (resolv.conf(5)); one that waits on a TCP connection
/// holds up what it asked after.
const DEADLINE: Duration = Duration::from_secs(2);
/// For one upstream of several, so that a second one gets its turn.
const PATIENCE: Duration = Duration::from_millis(900);
/// An upstream that did not answer is asked last for so long, or every query would wait for it first.
const HOLD_DOWN: Duration = Duration::from_secs(30);

/// Passes queries on.
pub(super) struct Forwarder {
    upstreams: ArcSwap<Vec<Upstream>>,
    in_flight: Semaphore,
    stats: Arc<Stats>,
}

/// One name server. Each has its own resolver: hickory's pool gives all of its servers together the time
/// of one, so that behind a dead first one no other would be asked.
struct Upstream {
    addr: SocketAddr,
    resolver: Resolver<TokioRuntimeProvider>,
    held_until: Mutex<Option<Instant>>,
}

// === impl Forwarder ===

impl Forwarder {
    /// Has no upstream until [`Self::set_upstreams`].
    pub(super) fn new(stats: Arc<Stats>) -> Self {
        Self {
            upstreams: ArcSwap::default(),
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
            stats,
        }
    }

    /// From now on asks these, in this order: a later one may know less (resolv.conf(5)).
    pub(super) fn set_upstreams(&self, addrs: &[SocketAddr]) -> anyhow::Result<()> {
        let patience = if addrs.len() > 1 { PATIENCE } else { DEADLINE };
        let upstreams: anyhow::Result<Vec<_>> = addrs
            .iter()
            .map(|&addr| Upstream::new(addr, patience))
            .collect();
        self.upstreams.store(Arc::new(upstreams?));
        Ok(())
    }

    /// The upstream's answer; SERVFAIL if there is none within the deadline.
    pub(super) async fn forward(&self, query: &Query) -> Answer {
        let upstreams = self.upstreams.load_full();
        if upstreams.is_empty() {
            return Answer::error(ResponseCode::ServFail);
        }
        let Ok(_permit) = self.in_flight.try_acquire() else {
            self.stats.forward_shed.fetch_add(1, Ordering::Relaxed);
            return Answer::error(ResponseCode::ServFail);
        };
        let asked = timeout(DEADLINE, ask_in_turn(&upstreams, query)).await;
        let (counter, answer) = match asked.ok().flatten() {
            Some(answer) => (&self.stats.forwarded, answer),
            None => {
                tracing::debug!(name = %query.name(), "no upstream answered");
                let failed = Answer::error(ResponseCode::ServFail);
                (&self.stats.forward_failed, failed)
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
        answer
    }
}

/// The first answer; one that only says that the server will not help counts if no other comes.
async fn ask_in_turn(upstreams: &[Upstream], query: &Query) -> Option<Answer> {
    let now = Instant::now();
    let (held, ready): (Vec<_>, Vec<_>) = upstreams.iter().partition(|u| u.is_held(now));
    let mut unhelpful = None;
    for upstream in ready.into_iter().chain(held) {
        match upstream.ask(query).await {
            Some(answer) if is_helpful(answer.code) => return Some(answer),
            Some(answer) => unhelpful = unhelpful.or(Some(answer)),
            None => {}
        }
    }
    unhelpful
}

/// glibc's resolver asks the next server, too, on these.
fn is_helpful(code: ResponseCode) -> bool {
    !matches!(
        code,
        ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp
    )
}

// === impl Upstream ===

impl Upstream {
    fn new(addr: SocketAddr, patience: Duration) -> anyhow::Result<Self> {
        let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
        for connection in &mut connections {
            connection.port = addr.port();
        }
        let server = NameServerConfig::new(addr.ip(), true, connections);
        let config = ResolverConfig::from_name_servers(vec![server]);
        let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.use_hosts_file = ResolveHosts::Never;
        options.timeout = patience;
        options.attempts = 1;
        let resolver = builder
            .build()
            .with_context(|| format!("cannot forward DNS to {addr}"))?;
        Ok(Self {
            addr,
            resolver,
            held_until: Mutex::default(),
        })
    }

    /// `None` if it does not answer.
    async fn ask(&self, query: &Query) -> Option<Answer> {
        let lookup = self
            .resolver
            .lookup(query.name().clone(), query.query_type());
        let error = match lookup.await {
            Ok(found) => return Some(self.alive(positive(found.answers().to_vec()))),
            Err(NetError::Dns(error)) => return Some(self.alive(negative(error))),
            Err(error) => error,
        };
        tracing::debug!(upstream = %self.addr, %error, "upstream did not answer");
        self.hold(Some(Instant::now() + HOLD_DOWN));
        None
    }

    fn alive(&self, answer: Answer) -> Answer {
        self.hold(None);
        answer
    }

    fn hold(&self, until: Option<Instant>) {
        *self
            .held_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = until;
    }

    fn is_held(&self, now: Instant) -> bool {
        self.held_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|until| now < until)
    }
}

fn positive(answers: Vec<Record>) -> Answer {
    Answer {
        answers,
        ..Answer::error(ResponseCode::NoError)
    }
}

fn negative(error: DnsError) -> Answer {
    match error {
        DnsError::NoRecordsFound(nothing) => Answer {
            authority: nothing
                .soa
                .map(|soa| soa.into_record_of_rdata())
                .into_iter()
                .collect(),
            ..Answer::error(nothing.response_code)
        },
        DnsError::ResponseCode(code) => Answer::error(code),
        _ => Answer::error(ResponseCode::ServFail),
    }
}
