//! Removes flows that are over and counts those that live, beside the control loop.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tracing::{error, warn};

use crate::datapath::flows::{Census, Fill, FlowTables};

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

/// Walks for as long as the agent runs; `ports`: how many full NAT has.
pub(super) async fn run(tables: FlowTables, census: Arc<ArcSwap<Census>>, ports: u32) {
    let mut tables = Some(tables);
    let mut failing = false;
    loop {
        let Some(mut walked) = tables.take() else {
            return;
        };
        let start = Instant::now();
        let walk = tokio::task::spawn_blocking(move || {
            let found = walked.collect();
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
                warn_of_full(&census.load(), &found);
                census.store(Arc::new(found));
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
