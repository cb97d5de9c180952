//! Pure: where a backend stands in a service, of what its orchestrator, its checks and the operator say together.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};

use lb_common::backend_state;
use tracing::{info, warn};

use super::{
    ending::Ending,
    operator::{Operator, Said},
    slow::SlowStart,
};
use crate::{
    admin::{
        report::{BackendReport, BackendState, Timestamp},
        stats::{Event, Events},
    },
    catalog::{CatalogBackend, Desired, Drain, Properties, Service, ServiceKey, Weight},
    health::{Judged, Ours, Target, Verdict, Verdicts},
    plan::{self, Endpoint, KernelState, Wanted},
};

/// Why a backend is as the operator says.
const OPERATOR: &str = "by the operator";

/// Where a backend stands in one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// Its weight.
    pub(super) weight: Weight,
    /// Its share of new flows at this moment.
    pub(super) share: Weight,
    /// While it starts slowly: how much of its whole share that is, percent.
    pub(super) starting: Option<u8>,
    /// The kernel is to know it no more: what it has is reset.
    pub(super) gone: bool,
    /// What the kernel makes of it; with weight 0 it drains all the same.
    pub(super) state: plan::BackendState,
    /// What `status` says.
    pub(super) shown: BackendState,
    /// Why.
    pub(super) why: Option<Arc<str>>,
}

/// Who says something about backends besides the catalog.
#[derive(Clone, Copy, Debug)]
pub(super) struct Voices<'a> {
    /// What checks say; `None`: there are none.
    pub(super) verdicts: Option<&'a Verdicts>,
    pub(super) operator: Option<&'a Operator>,
    pub(super) slow: Option<&'a SlowStart>,
    pub(super) ending: Option<&'a Ending>,
    /// The moment that it is.
    pub(super) at: (Timestamp, Instant),
}

// === impl Voices ===

impl Voices<'_> {
    /// All must agree that a backend takes flows: who runs it, who checks it and the operator. What is taken out on
    /// purpose keeps its flows, whatever the checks say.
    ///
    /// The operator's weight is one for a backend that takes flows: it does not bring back what its orchestrator takes
    /// out, as the backend may be about to end.
    pub(super) fn standing(
        &self,
        key: &ServiceKey,
        service: &Service,
        backend: &CatalogBackend,
    ) -> Standing {
        let said = self
            .operator
            .map(|operator| operator.says(key, service, backend));
        let Said {
            out,
            weight: wished,
        } = said.unwrap_or_default();
        let declared = backend.draining.is_none_or(Drain::is_declared);
        let own = wished.filter(|_| declared);
        let weight = own.unwrap_or(backend.weight);
        if let Some(out) = out {
            let gone = out.is_over(self.at.0);
            return Standing {
                weight,
                share: Weight::DRAIN,
                starting: None,
                gone,
                state: plan::BackendState::Draining,
                shown: match out.maintenance {
                    true => BackendState::Maintenance,
                    false => BackendState::Draining,
                },
                why: Some(match gone {
                    true => format!("{OPERATOR}; what was left was reset").into(),
                    false => OPERATOR.into(),
                }),
            };
        }
        let over = |ending: &Ending| ending.is_over(key, service, backend.addr, self.at.1);
        let gone = self.ending.is_some_and(over);
        let judged = self.judged(&service.properties, backend.addr);
        let (state, shown, mut why) = if weight == Weight::DRAIN {
            let state = plan::BackendState::Draining;
            let drain = match own {
                Some(_) => Some(Drain::WEIGHT_0),
                None => backend.draining,
            };
            let why = drain.map(|drain| match gone {
                true => format!("{drain}; what was left was reset").into(),
                false => drain.why().into(),
            });
            (state, BackendState::Draining, why)
        } else if judged.verdict == Verdict::Down {
            (plan::BackendState::Down, BackendState::Down, judged.reason)
        } else {
            (plan::BackendState::Up, BackendState::Active, judged.reason)
        };
        if own.is_some_and(|own| own != backend.weight) {
            let weight = format!("weight {OPERATOR}");
            why = Some(match why {
                Some(why) => format!("{why}; {weight}").into(),
                None => weight.into(),
            });
        }
        let (mut share, mut starting) = (weight, None);
        if let Some(slow) = self.slow {
            share = slow.share(key, service, backend.addr, weight, self.at.1);
            starting = slow.percent(key, service, backend.addr, self.at.1);
            if slow.is_starting(key, service, backend.addr, self.at.1) && why.is_none() {
                why = Some("slow start".into());
            }
        }
        Standing {
            weight,
            share,
            starting,
            gone,
            state,
            shown,
            why,
        }
    }

    fn judged(&self, of: &Properties, addr: SocketAddr) -> Judged {
        match of.check.as_deref() {
            None => Judged::default(),
            Some(check) => match self.verdicts.map(|verdicts| verdicts.of(addr, check)) {
                None => Judged {
                    reason: Some("not checked: checks are turned off".into()),
                    ..Judged::default()
                },
                Some(Judged {
                    verdict: Verdict::Unknown,
                    reason: None,
                }) => Judged {
                    reason: Some("no check result yet".into()),
                    ..Judged::default()
                },
                Some(judged) => judged,
            },
        }
    }
}

// === impl Standing ===

impl Standing {
    /// Whether new flows come to it, if it is its tier's turn.
    pub(super) fn takes_flows(&self) -> bool {
        self.shown == BackendState::Active && self.weight != Weight::DRAIN
    }
}

// === impl Voices ===

impl Default for Voices<'_> {
    /// Nobody says anything.
    fn default() -> Self {
        Self {
            verdicts: None,
            operator: None,
            slow: None,
            ending: None,
            at: (Timestamp::now(), Instant::now()),
        }
    }
}

/// Every probe that the services ask for.
pub(super) fn targets(desired: &Desired) -> BTreeSet<Arc<Target>> {
    let of = |service: &Service| {
        let check = service.properties.check.clone();
        let backends = service.backends.iter().map(|backend| backend.addr);
        let target = |check: Arc<_>| {
            let of = move |addr| {
                let check = Arc::clone(&check);
                Arc::new(Target { addr, check })
            };
            backends.map(of).collect::<Vec<_>>()
        };
        check.map(target).unwrap_or_default()
    };
    desired.services.values().flat_map(of).collect()
}

/// Backends that an agent before this one left as down.
pub(super) fn known_down(have: &KernelState) -> BTreeSet<SocketAddr> {
    let backends = have.backends.values();
    let down = backends.filter(|backend| backend.state == backend_state::DOWN);
    let at = down.filter_map(Endpoint::of);
    at.map(|at| SocketAddr::new(at.addr, at.port)).collect()
}

/// What the kernel programs are to translate.
pub(super) fn ours(want: &Wanted) -> Ours {
    const TCP: u8 = 6;
    let ports = want.services.keys().filter(|at| at.proto == TCP);
    let ports = ports.filter(|at| want.node_addresses.contains(&at.addr));
    Ours {
        vips: want.vips.clone(),
        ports: ports.map(|at| SocketAddr::new(at.addr, at.port)).collect(),
    }
}

/// Since when each backend has been in the state in which it is.
#[derive(Debug, Default)]
pub(super) struct Since {
    states: BTreeMap<(ServiceKey, SocketAddr), Been>,
    /// Those of the report under construction.
    next: BTreeMap<(ServiceKey, SocketAddr), Been>,
    /// What changed is told there.
    pub(super) events: Events,
}

/// How a backend has been.
#[derive(Clone, Copy, Debug)]
struct Been {
    state: BackendState,
    since: Timestamp,
    downs: u64,
    /// Before `since`, ms.
    down_ms: u64,
}

// === impl Since ===

impl Since {
    /// Fills in since when and how it was before, and tells of a change with its reason.
    pub(super) fn note(
        &mut self,
        key: &ServiceKey,
        service: &Service,
        backend: &mut BackendReport,
    ) {
        let (now, to) = (Timestamp::now(), backend.state);
        let at = (*key, backend.addr);
        let is_down = to == BackendState::Down;
        let been = match self.states.get(&at) {
            Some(been) if been.state == to => *been,
            Some(been) => {
                self.tell(key, service, backend, been.state);
                let before = now.since(been.since).as_millis();
                let before = u64::try_from(before).unwrap_or(u64::MAX);
                Been {
                    state: to,
                    since: now,
                    downs: been.downs + u64::from(is_down),
                    down_ms: been.down_ms + if been.state.is_out() { before } else { 0 },
                }
            }
            None => {
                if is_down {
                    self.tell(key, service, backend, BackendState::Active);
                }
                Been {
                    state: to,
                    since: now,
                    downs: is_down.into(),
                    down_ms: 0,
                }
            }
        };
        backend.since = Some(been.since);
        backend.health.downs = been.downs;
        backend.health.down_ms = been.down_ms;
        self.next.insert(at, been);
    }

    /// The report is complete: who is not in it is forgotten.
    pub(super) fn turn_over(&mut self) {
        self.states = std::mem::take(&mut self.next);
    }

    fn tell(
        &self,
        key: &ServiceKey,
        service: &Service,
        backend: &BackendReport,
        from: BackendState,
    ) {
        let (to, addr) = (backend.state, backend.addr);
        let name = service.fqdn().unwrap_or_default();
        let reason = match (&backend.why, from) {
            (Some(why), _) => why,
            (None, BackendState::Down) => "it answers again",
            (None, _) => "",
        };
        if to == BackendState::Down {
            warn!(service = %key, name, backend = %addr, %from, %to, reason, "backend state changed");
        } else {
            info!(service = %key, name, backend = %addr, %from, %to, reason, "backend state changed");
        }
        self.events.push(Event {
            backend: Some(addr),
            from: Some(from.to_string()),
            to: Some(to.to_string()),
            reason: reason.to_owned(),
            ..Event::of_service("backend state changed", title(key, service))
        });
    }
}

/// What a service is called in events: its name, or its address, with port and protocol.
pub(super) fn title(key: &ServiceKey, service: &Service) -> String {
    match &service.name {
        Some(name) => format!("{name}:{}/{}", key.port, key.protocol),
        None => key.to_string(),
    }
}

#[cfg(test)]
mod tests;
