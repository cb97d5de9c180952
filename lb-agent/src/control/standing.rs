//! Pure: where a backend stands in a service, of what its orchestrator, its checks and the operator say together.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use lb_common::backend_state;
use tracing::{info, warn};

use crate::{
    admin::report::{BackendReport, BackendState, Timestamp},
    catalog::{CatalogBackend, Desired, Properties, Service, ServiceKey, Weight},
    health::{Judged, Ours, Target, Verdict, Verdicts},
    plan::{self, Endpoint, KernelState, Wanted},
};

/// Where a backend stands in one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// Its share of new flows.
    pub(super) weight: Weight,
    /// What the kernel makes of it; with weight 0 it drains all the same.
    pub(super) state: plan::BackendState,
    /// What `status` says.
    pub(super) shown: BackendState,
    /// Why.
    pub(super) why: Option<Arc<str>>,
}

/// Who says something about backends besides the catalog.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Voices<'a> {
    /// What checks say; `None`: there are none.
    pub(super) verdicts: Option<&'a Verdicts>,
}

// === impl Voices ===

impl Voices<'_> {
    /// Both must agree that a backend takes flows: who runs it and who checks it. What the orchestrator takes out
    /// keeps its flows, whatever the checks say.
    pub(super) fn standing(&self, of: &Properties, backend: &CatalogBackend) -> Standing {
        let judged = self.judged(of, backend.addr);
        let (state, shown, why) = if backend.weight == Weight::DRAIN {
            let state = plan::BackendState::Draining;
            (state, BackendState::Draining, backend.draining.clone())
        } else if judged.verdict == Verdict::Down {
            (plan::BackendState::Down, BackendState::Down, judged.reason)
        } else {
            (plan::BackendState::Up, BackendState::Active, judged.reason)
        };
        Standing {
            weight: backend.weight,
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
    states: BTreeMap<(ServiceKey, SocketAddr), (BackendState, Timestamp)>,
    /// Those of the report under construction.
    next: BTreeMap<(ServiceKey, SocketAddr), (BackendState, Timestamp)>,
}

// === impl Since ===

impl Since {
    /// Fills in since when, and logs a change with its reason.
    pub(super) fn note(
        &mut self,
        key: &ServiceKey,
        service: &Service,
        backend: &mut BackendReport,
    ) {
        let (now, to) = (Timestamp::now(), backend.state);
        let at = (*key, backend.addr);
        let since = match self.states.get(&at) {
            Some((state, since)) if *state == to => *since,
            Some((from, _)) => {
                tell(key, service, backend, *from);
                now
            }
            None => {
                if to == BackendState::Down {
                    tell(key, service, backend, BackendState::Active);
                }
                now
            }
        };
        backend.since = Some(since);
        self.next.insert(at, (to, since));
    }

    /// The report is complete: who is not in it is forgotten.
    pub(super) fn turn_over(&mut self) {
        self.states = std::mem::take(&mut self.next);
    }
}

fn tell(key: &ServiceKey, service: &Service, backend: &BackendReport, from: BackendState) {
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
}

#[cfg(test)]
mod tests;
