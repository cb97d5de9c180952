//! From measurements to cases, with the bounds where they apply.

use super::{Load, Offloads, Taken, Way};
use crate::bench::{
    load::client::Outcome,
    report::{Bound, Case, Ratio, Report},
    stats::{median, median_interval},
};

const SUITE: &str = "lab";

/// A number that is taken from each measurement.
struct Figure {
    what: &'static str,
    unit: &'static str,
    load: Load,
    /// Whether more is better.
    more: bool,
    of: fn(&Outcome) -> f64,
}

const CONNECTIONS: Figure = Figure {
    what: "connections",
    unit: "connections/s",
    load: Load::Short,
    more: true,
    of: |outcome| outcome.connections as f64 / outcome.seconds,
};

const BYTES: Figure = Figure {
    what: "bytes",
    unit: "MB/s",
    load: Load::Bulk,
    more: true,
    of: |outcome| outcome.bytes as f64 / 1e6 / outcome.seconds,
};

const CPU_PER_GB: Figure = Figure {
    what: "CPU per GB",
    unit: "CPU s",
    load: Load::Bulk,
    more: false,
    of: |outcome| outcome.busy / (outcome.bytes as f64 / 1e9),
};

const CPU_PER_CONNECTIONS: Figure = Figure {
    what: "CPU per 100,000 connections",
    unit: "CPU s",
    load: Load::Short,
    more: false,
    of: |outcome| outcome.busy / (outcome.connections as f64 / 1e5),
};

const LATENCIES: [Figure; 4] = [
    latency("connect, p50", |outcome| outcome.connect_us[0]),
    latency("connect, p99", |outcome| outcome.connect_us[1]),
    latency("request, p50", |outcome| outcome.request_us[0]),
    latency("request, p99", |outcome| outcome.request_us[1]),
];

/// What XDP NAT must reach against another way: connections per second, CPU per GB above direct.
const RIVALS: [(Way, f64, f64); 2] = [(Way::Nftables, 1.3, 0.6), (Way::Haproxy, 3.0, 0.35)];

/// What the socket path must reach against direct.
const SOCKET: [(Figure, f64); 2] = [(CONNECTIONS, 0.95), (BYTES, 0.98)];

const fn latency(what: &'static str, of: fn(&Outcome) -> f64) -> Figure {
    Figure {
        what,
        unit: "us",
        load: Load::Single,
        more: false,
        of,
    }
}

/// Adds every case of one setting; bounds hold without offloads.
pub(super) fn add(report: &mut Report, taken: &Taken, offloads: Offloads) {
    let bounded = offloads == Offloads::Off;
    let figures = [CONNECTIONS, BYTES, CPU_PER_GB, CPU_PER_CONNECTIONS];
    for figure in figures.iter().chain(&LATENCIES) {
        for way in Way::ALL {
            report.push(figure.case(taken, way, offloads));
        }
    }
    for (figure, least) in &SOCKET {
        let mut case = figure.against(taken, Way::Socket, Way::Direct, offloads);
        let pairs = figure.ratios(taken, Way::Socket, Way::Direct);
        if let Some((low, high)) = median_interval(&pairs) {
            case.case += &format!(" (95 % interval {low:.3}-{high:.3}, {} pairs)", pairs.len());
        }
        case.bound = bounded.then_some(Bound::AtLeast(*least));
        report.push(case);
    }
    for (rival, least, most) in RIVALS {
        let mut case = CONNECTIONS.against(taken, Way::Xdp, rival, offloads);
        case.bound = bounded.then_some(Bound::AtLeast(least));
        report.push(case);
        let mut case = CPU_PER_GB.above_direct(taken, rival, offloads);
        case.bound = bounded.then_some(Bound::AtMost(most));
        report.push(case);
        report.push(CPU_PER_CONNECTIONS.above_direct(taken, rival, offloads));
    }
}

// === impl Figure ===

impl Figure {
    fn values(&self, taken: &Taken, way: Way) -> Vec<f64> {
        let outcomes = taken.of(way, self.load);
        outcomes.into_iter().map(self.of).collect()
    }

    /// Round by round.
    fn ratios(&self, taken: &Taken, way: Way, to: Way) -> Vec<f64> {
        let (ways, to) = (self.values(taken, way), self.values(taken, to));
        ways.iter().zip(&to).map(|(way, to)| way / to).collect()
    }

    /// What XDP NAT costs above the direct way, against what a rival does.
    fn above_direct(&self, taken: &Taken, rival: Way, offloads: Offloads) -> Case {
        let direct = self.values(taken, Way::Direct);
        let above = |way| -> Vec<f64> {
            let ways = self.values(taken, way);
            let pairs = ways.iter().zip(&direct);
            pairs.map(|(way, direct)| way - direct).collect()
        };
        let (ours, theirs) = (above(Way::Xdp), above(rival));
        Case {
            suite: SUITE,
            case: format!(
                "{} against {}, {} above direct, {}",
                Way::Xdp.name(),
                rival.name(),
                self.what,
                offloads.name()
            ),
            best: self.best(&ours),
            median: median(&ours),
            unit: self.unit,
            ratio: Some(Ratio {
                value: median(&ours) / median(&theirs),
                to: rival.name().to_owned(),
            }),
            bound: None,
        }
    }

    fn best(&self, values: &[f64]) -> f64 {
        let better = if self.more { f64::max } else { f64::min };
        values.iter().copied().fold(f64::NAN, better)
    }

    /// A way's own figure, with its ratio to direct.
    fn case(&self, taken: &Taken, way: Way, offloads: Offloads) -> Case {
        let values = self.values(taken, way);
        let ratio = (way != Way::Direct).then(|| Ratio {
            value: median(&self.ratios(taken, way, Way::Direct)),
            to: Way::Direct.name().to_owned(),
        });
        Case {
            suite: SUITE,
            case: format!("{}, {}, {}", way.name(), self.what, offloads.name()),
            best: self.best(&values),
            median: median(&values),
            unit: self.unit,
            ratio,
            bound: None,
        }
    }

    /// One way against another: a case of its own, which may carry a bound.
    fn against(&self, taken: &Taken, way: Way, to: Way, offloads: Offloads) -> Case {
        let values = self.values(taken, way);
        Case {
            case: format!(
                "{} against {}, {}, {}",
                way.name(),
                to.name(),
                self.what,
                offloads.name()
            ),
            best: self.best(&values),
            ratio: Some(Ratio {
                value: median(&self.ratios(taken, way, to)),
                to: to.name().to_owned(),
            }),
            ..self.case(taken, way, offloads)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(connections: u64, busy: f64) -> Outcome {
        Outcome {
            seconds: 1.0,
            busy,
            connections,
            bytes: 1_000_000_000,
            ..Outcome::default()
        }
    }

    /// Six rounds in which the socket path makes 96 % of the direct connections, XDP twice those of nftables.
    fn taken() -> Taken {
        let mut taken = Taken::default();
        for round in 0..6 {
            for (way, connections, busy) in [
                (Way::Direct, 100, 1.0),
                (Way::Socket, 96, 1.0),
                (Way::Xdp, 80, 1.5),
                (Way::Dsr, 90, 1.3),
                (Way::Nftables, 40, 2.0),
                (Way::Haproxy, 10, 6.0),
                (Way::Routed, 50, 1.2),
            ] {
                for load in [Load::Short, Load::Bulk, Load::Single] {
                    taken.0.push((way, load, round, outcome(connections, busy)));
                }
            }
        }
        taken
    }

    #[test]
    fn bounds_are_held_without_offloads_only() {
        let mut report = Report::default();
        add(&mut report, &taken(), Offloads::Off);
        let bounded: Vec<_> = report
            .cases()
            .iter()
            .filter(|case| case.bound.is_some())
            .collect();
        let met: Vec<_> = bounded.iter().map(|case| case.met()).collect();
        // Connections and bytes of the socket path, then connections and CPU against each rival.
        assert_eq!(met, [Some(true); 6]);
        let ratio = |at: usize| bounded[at].ratio.as_ref().map(|ratio| ratio.value);
        assert_eq!(ratio(0), Some(0.96));
        assert_eq!((ratio(2), ratio(3)), (Some(2.0), Some(0.5)));
        assert_eq!((ratio(4), ratio(5)), (Some(8.0), Some(0.1)));
        assert!(bounded[0].case.contains("interval 0.960-0.960, 6 pairs"));

        let mut report = Report::default();
        add(&mut report, &taken(), Offloads::Segments);
        assert!(report.cases().iter().all(|case| case.bound.is_none()));
    }
}
