//! A server over made-up services, on a thread of its own.

use std::{
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::admin::{
    Admin, Alive, Count, Resolve, Sources,
    orders::{Act, Ordered},
    report::{AgentReport, BackendState, Resolution, StatusReport, Timestamp},
    stats::tests::{backend, service},
};

/// What serves until this is dropped.
pub(in crate::admin) struct Running {
    orders: Arc<Mutex<Vec<String>>>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

impl Running {
    /// Has `serve` serve when the first sample is there; it ends with its token.
    pub(in crate::admin) fn start<F>(serve: F) -> Self
    where
        F: AsyncFnOnce(Admin, CancellationToken) + Send + 'static,
    {
        Self::with(|_| {}, serve)
    }

    /// The same over this report.
    pub(in crate::admin) fn over<F>(report: StatusReport, serve: F) -> Self
    where
        F: AsyncFnOnce(Admin, CancellationToken) + Send + 'static,
    {
        let change = |sources: &mut Sources| sources.report.store(Arc::new(report));
        Self::with(change, serve)
    }

    /// The same with `change` done to what the pages show.
    pub(in crate::admin) fn with<F>(
        change: impl FnOnce(&mut Sources) + Send + 'static,
        serve: F,
    ) -> Self
    where
        F: AsyncFnOnce(Admin, CancellationToken) + Send + 'static,
    {
        let (stop, orders) = (CancellationToken::new(), Arc::default());
        let (stopped, noted) = (stop.clone(), Arc::clone(&orders));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let (sender, receiver) = mpsc::channel(4);
                tokio::spawn(obey(receiver, noted));
                let mut sources = sources(report(), sender);
                change(&mut sources);
                let admin = Admin::start(sources);
                admin.stats.fresh().await;
                serve(admin, stopped).await;
            });
        });
        Self {
            orders,
            stop,
            thread: Some(thread),
        }
    }

    /// What was ordered since the last call.
    pub(in crate::admin) fn ordered(&self) -> Vec<String> {
        std::mem::take(&mut self.orders.lock().unwrap())
    }

    /// Ends it, and waits for its end.
    pub(in crate::admin) fn end(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

async fn obey(mut orders: mpsc::Receiver<Ordered>, noted: Arc<Mutex<Vec<String>>>) {
    while let Some((order, answer)) = orders.recv().await {
        let which = order.which.to_string();
        noted.lock().unwrap().push(format!("{} {which}", order.act));
        let _ = answer.send(match order.act {
            Act::Weight(13) => Err("no such luck".to_owned()),
            _ => Ok(vec![which]),
        });
    }
}

/// A service with two backends.
pub(in crate::admin) fn report() -> StatusReport {
    let backends = ["10.0.0.1:80", "10.0.0.2:80"];
    let backends = backends.map(|addr| {
        backend(
            addr,
            BackendState::Active,
            Some("<script>alert(1)</script>"),
        )
    });
    StatusReport {
        agent: AgentReport {
            version: "1.2.3".into(),
            pid: 42,
            node: "n1".into(),
            started: Timestamp::now(),
            ..AgentReport::default()
        },
        services: Arc::new(vec![service(Some("web.x"), 7, backends.to_vec())]),
        warnings: vec!["<script>".into()],
        ..StatusReport::default()
    }
}

fn sources(report: StatusReport, orders: mpsc::Sender<Ordered>) -> Sources {
    let resolve: Resolve = Arc::new(|_| Resolution::default());
    let count: Count = Arc::new(|_| Ok(()));
    Sources {
        report: Arc::new(ArcSwap::from_pointee(report)),
        resolve,
        count,
        look: Arc::new(super::look::Flows),
        orders,
        events: Default::default(),
        alive: Arc::new(Alive::new(Duration::from_secs(30))),
    }
}
