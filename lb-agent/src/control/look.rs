//! Answers the admin socket's questions from the kernel's maps, beside the control loop.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::{
    Published, collector::PORTS_RUN_SHORT, counted, names::resolution, report, trace::Tracing,
    web::Web,
};
use crate::{
    admin::{self, Admin, AdminSocket, Count, Look, Resolve, Sources, orders::Ordered},
    datapath::{Explainer, Stats, Tracer, flows::FlowTables},
    health::Latests,
    look::{Explanation, Filter, FlowsReport, Question, Told, TraceWish},
};

/// One question at a time: who asks often waits, and the node does not.
pub(super) struct Looker {
    tables: Mutex<FlowTables>,
    explainer: Explainer,
    tracing: Tracing,
}

// === impl Looker ===

impl Looker {
    pub(super) fn new(tables: FlowTables, explainer: Explainer, tracer: Tracer) -> Self {
        Self {
            tables: Mutex::new(tables),
            explainer,
            tracing: Tracing::new(tracer),
        }
    }
}

impl Look for Looker {
    fn flows(&self, filter: &Filter, limit: usize) -> Result<FlowsReport> {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.list(filter, limit)
    }

    fn explain(&self, question: &Question) -> Result<Explanation> {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        self.explainer.explain(&tables, question)
    }

    fn trace(&self, wish: TraceWish) -> Result<mpsc::Receiver<Told>> {
        self.tracing.listen(wish)
    }
}

/// What is read when somebody asks for numbers.
pub(super) struct Counters {
    pub(super) stats: Stats,
    pub(super) checks: Arc<Latests>,
}

/// Counts from now on, and serves the pages on the admin socket and over TCP until the agent stops.
pub(super) fn start_admin(
    socket: AdminSocket,
    web: Web,
    published: &Published,
    counters: Counters,
    looker: Looker,
    orders: mpsc::Sender<Ordered>,
    stop: &CancellationToken,
) -> Result<()> {
    let table = Arc::clone(&published.dns);
    let resolve: Resolve = Arc::new(move |name| resolution(&table.load(), name));
    let read = published.clone();
    let count: Count = Arc::new(move |report| {
        let census = read.census.load();
        report.datapath.maps.extend(report::flow_tables(&census));
        report.datapath.snat_tries.clone_from(&census.tries);
        if census.ports_run_short {
            report.warnings.push(PORTS_RUN_SHORT.to_owned());
        }
        if let Some(dns) = &mut report.dns {
            dns.upstreams = read.dns_upstreams.load().to_vec();
        }
        counted::fill_checks(report, &counters.checks);
        counted::fill(report, &counters.stats.read()?);
        Ok(())
    });
    let admin = Admin::start(Sources {
        report: Arc::clone(&published.status),
        resolve,
        count,
        look: Arc::new(looker),
        orders,
        events: published.events.clone(),
        alive: Arc::clone(&published.alive),
    });
    web.serve(&admin, &published.events, stop);
    let stop = stop.clone();
    tokio::spawn(async move {
        let done = async move { stop.cancelled().await };
        if let Err(error) = admin::serve(socket, admin, done).await {
            error!("the admin socket ended: {error}");
        }
    });
    Ok(())
}
