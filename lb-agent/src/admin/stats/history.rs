//! The last two minutes of every service and, where they are not too many, of every backend, a point a second.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    net::SocketAddr,
};

use serde::Serialize;

use super::{meter::Tick, sampler::Sampler};
use crate::admin::report::Timestamp;

/// As many points are kept: two minutes at one a second.
const KEPT: usize = 120;

/// Of more backends than these nothing is kept: it would take more than 30 MB.
pub(crate) const BACKENDS: usize = 16_384;

/// A service or a backend at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Point {
    /// When.
    pub at: Timestamp,
    /// New flows a second.
    pub rate: u64,
    /// Flows at that moment.
    pub active: u64,
    /// Mean time from SYN to SYN-ACK in that second, us; `None`: there was no handshake.
    pub connect_us: Option<u64>,
}

/// Of every service, by `iid`, and of every backend, by its service's `iid` and its address.
#[derive(Debug, Default)]
pub struct History {
    /// When there was a point, the oldest first; of who is new there are only the latest.
    at: VecDeque<Timestamp>,
    services: HashMap<u32, Ring>,
    backends: HashMap<(u32, SocketAddr), Ring>,
}

type Ring = VecDeque<Short>;

/// A point without its time, as small as it can be.
#[derive(Clone, Copy, Debug)]
struct Short {
    rate: u32,
    active: u32,
    /// [`NONE`]: there was no handshake.
    connect_us: u32,
}

const NONE: u32 = u32::MAX;

// === impl History ===

impl History {
    /// The points of one service or of one of its backends, the oldest first.
    pub(super) fn of(&self, iid: u32, backend: Option<SocketAddr>) -> Option<Vec<Point>> {
        let ring = match backend {
            None => self.services.get(&iid)?,
            Some(addr) => self.backends.get(&(iid, addr))?,
        };
        let at = self.at.iter().skip(self.at.len() - ring.len());
        let point = |(at, short): (&Timestamp, &Short)| Point {
            at: *at,
            rate: short.rate.into(),
            active: short.active.into(),
            connect_us: Some(short.connect_us.into()).filter(|_| short.connect_us != NONE),
        };
        Some(at.zip(ring).map(point).collect())
    }

    /// Takes the points of this moment; who is gone is forgotten.
    pub(super) fn note(&mut self, sampler: &Sampler, at: Timestamp) {
        push(&mut self.at, at);
        go_on(&mut self.services, sampler.services());
        match sampler.backends().count() > BACKENDS {
            true => self.backends.clear(),
            false => go_on(&mut self.backends, sampler.backends()),
        }
    }
}

// === impl Short ===

impl From<Tick> for Short {
    fn from(tick: Tick) -> Self {
        let short = |number: u64| u32::try_from(number).unwrap_or(NONE - 1);
        Self {
            rate: short(tick.rate),
            active: short(tick.active),
            connect_us: tick.connect_us.map_or(NONE, short),
        }
    }
}

fn push<T>(ring: &mut VecDeque<T>, new: T) {
    if ring.len() == KEPT {
        ring.pop_front();
    }
    ring.push_back(new);
}

/// Rings with their next points; those without one are dropped.
fn go_on<K: Eq + Hash>(rings: &mut HashMap<K, Ring>, points: impl Iterator<Item = (K, Tick)>) {
    let mut old = std::mem::take(rings);
    for (key, tick) in points {
        let mut ring = old.remove(&key).unwrap_or_default();
        push(&mut ring, tick.into());
        rings.insert(key, ring);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::admin::{
        report::{BackendReport, BackendState, StatusReport},
        stats::tests::{backend, service},
    };

    #[test]
    fn backends_have_points_as_long_as_they_are_there() {
        let (mut sampler, mut history) = (Sampler::default(), History::default());
        let mut tick = |second: u64, pool: Vec<BackendReport>| {
            let mut report = StatusReport {
                services: Arc::new(vec![service(Some("web.x"), 7, pool)]),
                ..StatusReport::default()
            };
            report.agent.now = Timestamp(second * 1_000);
            sampler.take(report, true);
            history.note(&sampler, Timestamp(second * 1_000));
            ["10.0.0.1:80", "10.0.0.2:80"].map(|addr| {
                let points = history.of(7, Some(addr.parse().unwrap()));
                let points = points.unwrap_or_default().into_iter();
                points
                    .map(|point| (point.at.0 / 1_000, point.rate, point.active))
                    .collect::<Vec<_>>()
            })
        };
        let one = |number: u8, flows| {
            let addr = format!("10.0.0.{number}:80");
            let mut one = backend(&addr, BackendState::Active, None);
            one.traffic.flows_new = flows;
            one
        };
        let [first, second] = tick(1, vec![one(1, 40)]);
        assert_eq!((first, second), (vec![(1, 0, 2)], vec![]));
        let [first, second] = tick(2, vec![one(1, 45), one(2, 9)]);
        assert_eq!(first, [(1, 0, 2), (2, 5, 2)]);
        assert_eq!(second, [(2, 0, 2)], "the latest moment is its own");
        let [first, second] = tick(3, vec![one(2, 10)]);
        assert_eq!((first, second), (vec![], vec![(2, 0, 2), (3, 1, 2)]));
        for second in 4..200 {
            let [_, kept] = tick(second, vec![one(2, 10)]);
            assert!(kept.len() <= KEPT);
            assert_eq!(kept.last(), Some(&(second, 0, 2)));
        }
        assert_eq!(history.of(7, None).map(|points| points.len()), Some(KEPT));
        assert_eq!(history.of(8, None), None);
    }
}
