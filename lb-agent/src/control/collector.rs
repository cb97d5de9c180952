//! Removes flows that are over and counts those that live, beside the control loop.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tracing::{error, warn};

use super::leaving::Leaving;
use crate::datapath::flows::{Census, Fill, FlowTables};

/// What the operator is told while that is so.
pub(super) const PORTS_RUN_SHORT: &str = "full NAT looks long for source ports: two thirds of them or more are in use \
     towards some backend, and new flows will be dropped when all are; give it more with --snat-ports, or spread the \
     service over more backends";

/// Time between two walks through the flow tables.
const INTERVAL: Duration = Duration::from_secs(10);
/// After a walk there is a rest of so many times as long as it took: 2 % of a CPU at most, however many flows there are.
const REST: u32 = 50;
/// The same while the tables are as good as empty: what is in them can wait, and to walk through empty buckets takes its
/// time, too.
const REST_IDLE: u32 = 250;
/// Tables up to this share are as good as empty, percent.
const IDLE: u64 = 1;
/// A table is called nearly full above this share, percent: new flows begin to push out old ones.
const NEARLY_FULL: u64 = 90;

/// What the source ports of full NAT are called beside the tables: those in use towards the backend that has most.
const PORTS: &str = "source ports, to one backend";

/// A new flow that finds its source port only after so many tries in vain is one of those by which one sees that the ports
/// run short: of random tries as many hit ports in use.
const LATE: usize = 7;
/// If so many of a hundred new flows are late, about two thirds of the ports are taken.
const LATE_MOST: u64 = 5;
/// New flows of one round below which a share says nothing.
const TELLING: u64 = 20;

/// Walks for as long as the agent runs; `ports`: how many full NAT has.
pub(super) async fn run(
    tables: FlowTables,
    census: Arc<ArcSwap<Census>>,
    leaving: Arc<Leaving>,
    ports: u32,
) {
    let mut tables = Some(tables);
    let mut failing = false;
    loop {
        let Some(mut walked) = tables.take() else {
            return;
        };
        let (start, asked) = (Instant::now(), leaving.asked());
        let walk = tokio::task::spawn_blocking(move || {
            let found = walked.collect(asked);
            (walked, found)
        });
        let found = match walk.await {
            Ok((walked, found)) => {
                tables = Some(walked);
                found
            }
            Err(panicked) => {
                error!(
                    "the walk through the flow tables ended: {panicked}; flows are not collected"
                );
                return;
            }
        };
        let mut rest = REST;
        match found {
            Ok(mut found) => {
                failing = false;
                if is_idle(&found) {
                    rest = REST_IDLE;
                }
                found.tables.push(Fill {
                    name: PORTS,
                    used: found.ports.values().copied().max().unwrap_or(0),
                    room: ports,
                });
                let before = census.load();
                warn_of_full(&before, &found);
                found.ports_run_short = run_short(&before.tries, &found.tries);
                if found.ports_run_short && !before.ports_run_short {
                    warn!(tries = ?found.tries, "{PORTS_RUN_SHORT}");
                }
                let found = Arc::new(found);
                census.store(Arc::clone(&found));
                leaving.answer(&found);
            }
            Err(error) if !failing => {
                failing = true;
                error!("cannot walk through the flow tables: {error:#}");
            }
            Err(_) => {}
        }
        tokio::time::sleep(INTERVAL.max(start.elapsed() * rest)).await;
    }
}

/// Whether new flows between two walks had to look long for a source port, or in vain.
fn run_short(before: &[u64], now: &[u64]) -> bool {
    if before.len() != now.len() {
        // Nobody knows what came before this agent.
        return false;
    }
    let new = now
        .iter()
        .zip(before)
        .map(|(now, before)| now.saturating_sub(*before));
    let new: Vec<_> = new.collect();
    let all: u64 = new.iter().sum();
    let late: u64 = new.iter().skip(LATE).sum();
    let in_vain = new.last().is_some_and(|in_vain| *in_vain > 0);
    in_vain || (all >= TELLING && late * 100 >= all * LATE_MOST)
}

fn is_idle(census: &Census) -> bool {
    let all = &census.tables;
    all.iter()
        .filter(|fill| is_of_flows(fill.name))
        .all(|fill| u64::from(fill.used) * 100 <= u64::from(fill.room) * IDLE)
}

fn is_of_flows(table: &str) -> bool {
    table.contains("flows")
}

/// One line when a table becomes nearly full.
fn warn_of_full(before: &Census, now: &Census) {
    let nearly = |census: &Census, name| {
        let fill = census.tables.iter().find(|fill| fill.name == name);
        fill.is_some_and(|fill| u64::from(fill.used) * 100 >= u64::from(fill.room) * NEARLY_FULL)
    };
    for fill in &now.tables {
        if !nearly(now, fill.name) || nearly(before, fill.name) {
            continue;
        }
        let (table, used, room) = (fill.name, fill.used, fill.room);
        if table == PORTS {
            warn!(
                table,
                used,
                room,
                "full NAT is about to run out of source ports: new flows will be refused; give it more with \
                 --snat-ports, or spread the service over more backends"
            );
        } else if !is_of_flows(table) {
            warn!(
                table,
                used,
                room,
                "a table is nearly full: new entries will push out those that were used longest ago"
            );
        } else {
            warn!(
                table,
                used,
                room,
                "a flow table is nearly full: new flows will push out old ones; give it more room with \
                 --flows, --half-open-flows or --udp-flows"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Flows by tries in vain; the last ones found no port.
    fn tries(first: u64, late: u64, in_vain: u64) -> Vec<u64> {
        let mut tries = vec![0; 17];
        (tries[0], tries[9], tries[16]) = (first, late, in_vain);
        tries
    }

    #[test]
    fn ports_run_short_when_many_new_flows_look_long_or_one_in_vain() {
        let none = tries(0, 0, 0);
        assert!(!run_short(&none, &tries(1_000, 49, 0)));
        assert!(run_short(&none, &tries(1_000, 53, 0)));
        assert!(!run_short(&none, &tries(10, 5, 0)), "too few to tell");
        assert!(run_short(&none, &tries(1, 0, 1)));
        // What was before is over.
        assert!(!run_short(&tries(5, 100, 7), &tries(105, 100, 7)));
        assert!(!run_short(&[], &tries(1, 1_000, 1)), "of another agent");
    }
}
