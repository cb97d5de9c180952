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
    operator::{Front, Member, Operator, Said},
    slow::SlowStart,
};
use crate::{
    admin::{
        orders::Forced,
        report::{BackendReport, BackendState, Timestamp},
        stats::{Event, Events},
    },
    catalog::{CatalogBackend, Check, Desired, Drain, Port, Service, ServiceKey, Weight},
    health::{Followed, Judged, Ours, Target, Verdict, Verdicts},
    plan::{self, Endpoint, KernelState, Wanted},
};

/// Why a backend is as the operator says.
const OPERATOR: &str = "by the operator";
/// The same of one that is up without new flows.
const STOPPING: &str = "stopping by the operator";

/// Where a backend stands in one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// Its weight.
    pub(super) weight: Weight,
    /// Its share of new flows at this moment.
    pub(super) share: Weight,
    /// While it starts slowly: how much of its whole share that is, percent.
    pub(super) starting: Option<u8>,
    /// Flows at a time; 0: no limit.
    pub(super) limit: u32,
    /// The operator says how it is.
    pub(super) forced: Option<Forced>,
    /// Its checks are stopped.
    pub(super) unchecked: bool,
    /// Its checks ask it there by the operator's word.
    pub(super) check_port: Option<Port>,
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
        let said = self.said(key, service, backend);
        let Said {
            out,
            weight: wished,
            health: forced,
            unchecked,
            limit,
            check_port,
        } = said;
        let ending = backend.draining.is_some_and(Drain::is_ending);
        let declared = backend.draining.is_none_or(Drain::is_declared);
        let up = forced == Some(Forced::Up) && !ending;
        let own = match (wished, declared) {
            (wished, true) => wished,
            // Who is not fit has no share that could be known.
            (wished, false) if up => wished.or(Some(Weight::ONE)),
            _ => None,
        };
        let weight = own.unwrap_or(backend.weight);
        let stands = |share, starting, gone, state, shown, why| Standing {
            weight,
            share,
            starting,
            limit: limit.unwrap_or(backend.max_flows),
            forced,
            unchecked: unchecked.is_some(),
            check_port,
            gone,
            state,
            shown,
            why,
        };
        let taken_out = |state, shown, gone, why: &str| {
            let why = match gone {
                true => format!("{why}; what was left was reset").into(),
                false => why.into(),
            };
            stands(Weight::DRAIN, None, gone, state, shown, Some(why))
        };
        let elsewhere = self
            .operator
            .and_then(|operator| operator.drained_by(backend.addr.ip()));
        let taken = match (out, elsewhere) {
            (None, None) => None,
            (Some(out), None) => Some((out, OPERATOR.to_owned())),
            (Some(out), Some((_, theirs))) => Some((out.and(theirs), OPERATOR.to_owned())),
            (None, Some((node, theirs))) => Some((theirs, format!("drained by {node}"))),
        };
        if let Some((out, why)) = taken {
            let shown = match out.maintenance {
                true => BackendState::Maintenance,
                false => BackendState::Draining,
            };
            let gone = out.is_over(self.at.0);
            return taken_out(plan::BackendState::Draining, shown, gone, &why);
        }
        match forced {
            Some(Forced::Stopping) => {
                let (state, shown) = (plan::BackendState::Draining, BackendState::Draining);
                return taken_out(state, shown, false, STOPPING);
            }
            Some(Forced::Down) => {
                let (state, shown) = (plan::BackendState::Off, BackendState::Down);
                return taken_out(state, shown, false, OPERATOR);
            }
            Some(Forced::Up) | None => {}
        }
        let over = |ending: &Ending| ending.is_over(key, service, backend.addr, self.at.1);
        let gone = self.ending.is_some_and(over);
        let judged = match (up, unchecked) {
            (true, _) => Judged {
                verdict: Verdict::Up,
                reason: Some(format!("up {OPERATOR}").into()),
            },
            (false, Some(down)) if service.properties.check.is_some() => Judged {
                verdict: if down { Verdict::Down } else { Verdict::Up },
                reason: Some(format!("checks stopped {OPERATOR}").into()),
            },
            (false, _) => self.judged(&said, service, backend),
        };
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
        if wished.is_some() && own.is_some_and(|own| own != backend.weight) {
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
        stands(share, starting, gone, state, shown, why)
    }

    /// What the operator says of a service itself.
    pub(super) fn front(&self, key: &ServiceKey, service: &Service) -> Front {
        let said = self.operator.map(|one| one.says_of_service(key, service));
        said.unwrap_or_default()
    }

    /// Whose checks have him down, those that are stopped included.
    pub(super) fn down(&self, desired: &Desired) -> impl Iterator<Item = Member> {
        let is_down = |key: &ServiceKey, service: &Service, backend: &CatalogBackend| {
            let said = self.said(key, service, backend);
            let stopped = said.unchecked;
            stopped.unwrap_or_else(|| self.judged(&said, service, backend).verdict == Verdict::Down)
        };
        desired.services.iter().flat_map(move |(key, service)| {
            let backends = service.backends.iter();
            let down = backends.filter(|backend| is_down(key, service, backend));
            let down: Vec<_> = down.map(|backend| (*key, backend.addr)).collect();
            down
        })
    }

    fn said(&self, key: &ServiceKey, service: &Service, backend: &CatalogBackend) -> Said {
        let said = self.operator.map(|one| one.says(key, service, backend));
        said.unwrap_or_default()
    }

    fn judged(&self, said: &Said, service: &Service, backend: &CatalogBackend) -> Judged {
        let verdict = |check: Arc<Check>| Some(self.verdicts?.of(backend.addr, &check));
        match said.check(&service.properties) {
            None => Judged::default(),
            Some(check) => match verdict(check) {
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

/// Every probe that the services ask for; where the operator has stopped all that ask for one, it waits.
pub(super) fn targets(desired: &Desired, operator: &Operator) -> Followed {
    let (mut asked, mut stopped) = (BTreeSet::new(), BTreeSet::new());
    for (key, service) in &desired.services {
        if service.properties.check.is_none() {
            continue;
        }
        for backend in &service.backends {
            let said = operator.says(key, service, backend);
            let Some(check) = said.check(&service.properties) else {
                continue;
            };
            let target = Arc::new(Target {
                addr: backend.addr,
                check,
            });
            match said.unchecked {
                None => asked.insert(target),
                Some(_) => stopped.insert(target),
            };
        }
    }
    Followed {
        paused: stopped.difference(&asked).cloned().collect(),
        targets: &asked | &stopped,
    }
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
    /// The operator says how it is.
    forced: bool,
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
        let forced = backend.health.forced.is_some();
        let been = match self.states.get(&at) {
            Some(been) if been.state == to => Been { forced, ..*been },
            Some(been) => {
                self.tell(key, service, backend, (been.state, been.forced));
                let before = now.since(been.since).as_millis();
                let before = u64::try_from(before).unwrap_or(u64::MAX);
                Been {
                    state: to,
                    since: now,
                    downs: been.downs + u64::from(is_down),
                    down_ms: been.down_ms + if been.state.is_out() { before } else { 0 },
                    forced,
                }
            }
            None => {
                if is_down {
                    self.tell(key, service, backend, (BackendState::Active, false));
                }
                Been {
                    state: to,
                    since: now,
                    downs: is_down.into(),
                    down_ms: 0,
                    forced,
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
        (from, forced): (BackendState, bool),
    ) {
        let (to, addr) = (backend.state, backend.addr);
        let name = service.fqdn().unwrap_or_default();
        let reason = match (&backend.why, from) {
            (Some(why), _) => why,
            (None, _) if forced => "no longer by the operator",
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
            ..Event::of_service(Event::STATE, title(key, service))
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
