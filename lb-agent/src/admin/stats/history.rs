//! The last two minutes of every service, a point a second.

use std::collections::{HashMap, VecDeque};

use serde::Serialize;

use super::sampler::Sampler;
use crate::admin::report::Timestamp;

/// As many points are kept: two minutes at one a second.
const KEPT: usize = 120;

/// A service at one moment.
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

/// Of every service, by `iid`.
#[derive(Debug, Default)]
pub struct History(HashMap<u32, VecDeque<Point>>);

// === impl History ===

impl History {
    /// The points of one service, the oldest first.
    pub(super) fn of(&self, iid: u32) -> Option<Vec<Point>> {
        let points = self.0.get(&iid)?;
        Some(points.iter().copied().collect())
    }

    /// Takes the points of this moment; services that are gone are forgotten.
    pub(super) fn note(&mut self, sampler: &Sampler, at: Timestamp) {
        let mut old = std::mem::take(&mut self.0);
        for (iid, rate, active, connect_us) in sampler.points() {
            let mut points = old.remove(&iid).unwrap_or_default();
            if points.len() == KEPT {
                points.pop_front();
            }
            points.push_back(Point {
                at,
                rate,
                active,
                connect_us,
            });
            self.0.insert(iid, points);
        }
    }
}
