//! Pure: how long a backend that is about to end keeps the flows that it has.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::catalog::{Drain, Service, ServiceKey};

/// Since when backends of services with a drain deadline are about to end, as far as this agent knows.
#[derive(Debug, Default)]
pub(super) struct Ending(BTreeMap<(ServiceKey, SocketAddr), Instant>);

// === impl Ending ===

impl Ending {
    /// Takes note of who is about to end now.
    pub(super) fn note<'a>(
        &mut self,
        services: impl Iterator<Item = (&'a ServiceKey, &'a Service)>,
        now: Instant,
    ) {
        let mut since = BTreeMap::new();
        for (key, service) in services.filter(|(_, service)| service.properties.drain.is_some()) {
            let backends = service.backends.iter();
            for backend in backends.filter(|one| one.draining.is_some_and(Drain::is_ending)) {
                let at = (*key, backend.addr);
                since.insert(at, self.0.get(&at).copied().unwrap_or(now));
            }
        }
        self.0 = since;
    }

    /// Whether a backend has had its time: what is left is reset.
    pub(super) fn is_over(
        &self,
        key: &ServiceKey,
        service: &Service,
        addr: SocketAddr,
        now: Instant,
    ) -> bool {
        self.end(key, service, addr).is_some_and(|end| end <= now)
    }

    /// The next moment at which somebody's time is over.
    pub(super) fn next<'a>(
        &self,
        services: impl Fn(&ServiceKey) -> Option<&'a Service>,
        now: Instant,
    ) -> Option<Instant> {
        let ends = self
            .0
            .keys()
            .filter_map(|(key, addr)| self.end(key, services(key)?, *addr));
        ends.filter(|end| *end > now).min()
    }

    fn end(&self, key: &ServiceKey, service: &Service, addr: SocketAddr) -> Option<Instant> {
        let since = self.0.get(&(*key, addr))?;
        let deadline = service.properties.drain?;
        Some(*since + Duration::from_secs(deadline.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{CatalogBackend, Properties};

    const GONE: &str = "10.0.0.1:80";

    fn service(deadline: Option<u32>, draining: Option<Drain>) -> Service {
        Service {
            name: None,
            properties: Properties {
                drain: deadline,
                ..Properties::default()
            }
            .into(),
            backends: vec![
                CatalogBackend {
                    draining,
                    ..CatalogBackend::plain(GONE)
                },
                CatalogBackend::plain("10.0.0.2:80"),
            ],
        }
    }

    #[test]
    fn what_is_left_is_reset_when_the_time_of_a_backend_that_ends_is_over() {
        let key = ServiceKey::tcp("11.0.0.1:80");
        let (start, addr) = (Instant::now(), GONE.parse().unwrap());
        let after = |seconds| start + Duration::from_secs(seconds);
        let stopping = Some(Drain::ending("told to stop"));
        let service_with_30 = service(Some(30), stopping);
        let mut ending = Ending::default();
        let note = |ending: &mut Ending, service: &Service, now| {
            ending.note([(&key, service)].into_iter(), now);
        };
        note(&mut ending, &service_with_30, start);
        // To look again changes nothing.
        note(&mut ending, &service_with_30, after(20));
        let over = |ending: &Ending, at| ending.is_over(&key, &service_with_30, addr, at);
        assert!(!over(&ending, after(29)) && over(&ending, after(30)));
        let next = |ending: &Ending, at| ending.next(|_| Some(&service_with_30), at);
        assert_eq!(next(&ending, after(20)), Some(after(30)));
        assert_eq!(next(&ending, after(30)), None);
        // The other one is not about to end.
        let other = "10.0.0.2:80".parse().unwrap();
        assert!(!ending.is_over(&key, &service_with_30, other, after(99)));
        // Back, and told to stop again: the time begins anew.
        note(&mut ending, &service(Some(30), None), after(40));
        note(&mut ending, &service_with_30, after(50));
        assert!(!over(&ending, after(60)) && over(&ending, after(80)));
    }

    #[test]
    fn who_is_unwell_or_without_a_deadline_keeps_its_flows() {
        let key = ServiceKey::tcp("11.0.0.1:80");
        let (start, addr) = (Instant::now(), GONE.parse().unwrap());
        let later = start + Duration::from_secs(1 << 30);
        for (deadline, draining, over) in [
            (Some(0), Drain::ending("stopping"), true),
            (Some(0), Drain::unfit("unhealthy"), false),
            (Some(0), Drain::WEIGHT_0, false),
            (None, Drain::ending("stopping"), false),
        ] {
            let service = service(deadline, Some(draining));
            let mut ending = Ending::default();
            ending.note([(&key, &service)].into_iter(), start);
            let is_over = ending.is_over(&key, &service, addr, later);
            assert_eq!(is_over, over, "{deadline:?} {draining}");
            assert_eq!(ending.is_over(&key, &service, addr, start), over);
        }
    }
}
