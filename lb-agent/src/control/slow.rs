//! Pure: a backend that comes up gets its share in steps, so that it can warm up.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::catalog::{Service, ServiceKey, Weight};

/// Each step is a new table, so there are few.
const STEPS: u32 = 8;

/// Which backends of services with slow start have come up, and when.
#[derive(Debug, Default)]
pub(super) struct SlowStart {
    /// `None`: it was there before anybody looked.
    up: BTreeMap<(ServiceKey, SocketAddr), Option<Instant>>,
    known: BTreeSet<ServiceKey>,
}

// === impl SlowStart ===

impl SlowStart {
    /// Takes note of who takes flows now. What a service has when it is first seen is not new: nobody knows for how long
    /// it has been up, and of equal backends all would start alike.
    pub(super) fn note<'a>(
        &mut self,
        services: impl Iterator<Item = (&'a ServiceKey, &'a Service)>,
        takes_flows: impl Fn(&ServiceKey, &Service, usize) -> bool,
        now: Instant,
    ) {
        let mut up = BTreeMap::new();
        let mut known = BTreeSet::new();
        for (key, service) in services.filter(|(_, service)| service.properties.slow_start > 0) {
            known.insert(*key);
            for (index, backend) in service.backends.iter().enumerate() {
                if !takes_flows(key, service, index) {
                    continue;
                }
                let at = (*key, backend.addr);
                let came = match self.up.get(&at) {
                    Some(came) => *came,
                    None => self.known.contains(key).then_some(now),
                };
                up.insert(at, came);
            }
        }
        *self = Self { up, known };
    }

    /// A backend's share in the kernel's tables. Those of a service with slow start are all multiplied by the same, so
    /// that there is something between nothing and a weight of 1.
    pub(super) fn share(
        &self,
        key: &ServiceKey,
        service: &Service,
        addr: SocketAddr,
        weight: Weight,
        now: Instant,
    ) -> Weight {
        let over = service.properties.slow_start;
        if over == 0 || weight == Weight::DRAIN {
            return weight;
        }
        let weights = service.backends.iter().map(|backend| backend.weight.get());
        let largest = weights.chain([weight.get()]).max().unwrap_or(1).max(1);
        let factor = (u32::from(Weight::MAX.get()) / u32::from(largest)).clamp(1, STEPS);
        let full = u32::from(weight.get()) * factor;
        let share = match self.step(key, addr, over, now) {
            None => full,
            Some(step) => (full * (step + 1) / STEPS).max(1),
        };
        u16::try_from(share)
            .ok()
            .and_then(Weight::new)
            .unwrap_or(Weight::MAX)
    }

    /// Whether a backend is still starting.
    pub(super) fn is_starting(
        &self,
        key: &ServiceKey,
        service: &Service,
        addr: SocketAddr,
        now: Instant,
    ) -> bool {
        self.step(key, addr, service.properties.slow_start, now)
            .is_some()
    }

    /// How much of its whole share it has while it starts, percent; `None`: it is done.
    pub(super) fn percent(
        &self,
        key: &ServiceKey,
        service: &Service,
        addr: SocketAddr,
        now: Instant,
    ) -> Option<u8> {
        let step = self.step(key, addr, service.properties.slow_start, now)?;
        u8::try_from((step + 1) * 100 / STEPS).ok()
    }

    /// The step that it is in, from 0 on; `None`: it is done.
    fn step(&self, key: &ServiceKey, addr: SocketAddr, over: u32, now: Instant) -> Option<u32> {
        let came = (*self.up.get(&(*key, addr))?)?;
        let length = Duration::from_secs(over.into()) / STEPS;
        if length.is_zero() {
            return None;
        }
        let passed = now.saturating_duration_since(came).as_nanos() / length.as_nanos();
        u32::try_from(passed).ok().filter(|step| *step < STEPS)
    }

    /// When the next step begins.
    pub(super) fn next_step<'a>(
        &self,
        services: impl Fn(&ServiceKey) -> Option<&'a Service>,
        now: Instant,
    ) -> Option<Instant> {
        let steps = self.up.iter().filter_map(|((key, addr), came)| {
            let over = services(key)?.properties.slow_start;
            let step = self.step(key, *addr, over, now)?;
            let length = Duration::from_secs(over.into()) / STEPS;
            Some((*came)? + length * (step + 1))
        });
        steps.min()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::catalog::{CatalogBackend, Properties};

    fn service(weights: &[u16]) -> Service {
        let backends = weights.iter().zip(1..).map(|(weight, n)| CatalogBackend {
            weight: Weight::new(*weight).unwrap(),
            ..CatalogBackend::plain(&format!("10.0.0.{n}:80"))
        });
        Service {
            name: None,
            properties: Arc::new(Properties {
                slow_start: 80,
                ..Properties::default()
            }),
            backends: backends.collect(),
        }
    }

    #[test]
    fn a_backend_that_comes_grows_in_eight_steps_beside_those_that_were_there() {
        let key = ServiceKey::tcp("11.0.0.1:80");
        let (service, start) = (service(&[1, 2]), Instant::now());
        let mut slow = SlowStart::default();
        let shares = |slow: &SlowStart, now| {
            let of = |one: &CatalogBackend| slow.share(&key, &service, one.addr, one.weight, now);
            service
                .backends
                .iter()
                .map(|one| of(one).get())
                .collect::<Vec<_>>()
        };
        let note = |slow: &mut SlowStart, who: &[usize], now| {
            let up = |_: &ServiceKey, _: &Service, index: usize| who.contains(&index);
            slow.note([(&key, &service)].into_iter(), up, now);
        };
        // What is there at first is not new.
        note(&mut slow, &[0], start);
        assert_eq!(shares(&slow, start)[0], 8);
        assert_eq!(slow.next_step(|_| Some(&service), start), None);
        note(&mut slow, &[0, 1], start);
        let after = |seconds| start + Duration::from_secs(seconds);
        let grown: Vec<_> = (0..=80)
            .step_by(10)
            .map(|s| shares(&slow, after(s)))
            .collect();
        let second: Vec<_> = grown.iter().map(|shares| shares[1]).collect();
        assert_eq!(second, [2, 4, 6, 8, 10, 12, 14, 16, 16]);
        assert!(grown.iter().all(|shares| shares[0] == 8));
        let next = |seconds| slow.next_step(|_| Some(&service), after(seconds));
        assert_eq!(next(0), Some(after(10)));
        assert_eq!(next(79), Some(after(80)));
        assert_eq!(next(80), None);
        // To look again changes nothing; to go and come back does.
        note(&mut slow, &[0, 1], after(40));
        assert_eq!(shares(&slow, after(40)), [8, 10]);
        note(&mut slow, &[0], after(50));
        note(&mut slow, &[0, 1], after(60));
        assert_eq!(shares(&slow, after(60)), [8, 2]);
    }

    #[test]
    fn large_weights_stay_within_bounds_and_zero_stays_zero() {
        let key = ServiceKey::tcp("11.0.0.1:80");
        let service = service(&[256, 3, 0]);
        let slow = SlowStart::default();
        let shares = service.backends.iter().map(|one| {
            let share = slow.share(&key, &service, one.addr, one.weight, Instant::now());
            share.get()
        });
        assert_eq!(shares.collect::<Vec<_>>(), [256, 3, 0]);
    }
}
