//! A server over made-up services, on a thread of its own.

use std::{
    io,
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
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

/// What is awaited is there within this time: whoever takes nothing is cut off after 20 s.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

/// What serves until this is dropped.
pub(in crate::admin) struct Running {
    log: Log,
    orders: Arc<Mutex<Vec<String>>>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
        let log = Log::default();
        let lines = log.clone();
        let thread = std::thread::spawn(move || {
            let subscriber = tracing_subscriber::fmt()
                .with_ansi(false)
                .with_writer(move || lines.clone())
                .finish();
            let _logged = tracing::subscriber::set_default(subscriber);
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
            log,
            orders,
            stop,
            thread: Some(thread),
        }
    }

    /// What was ordered since the last call.
    pub(in crate::admin) fn ordered(&self) -> Vec<String> {
        std::mem::take(&mut self.orders.lock().unwrap())
    }

    /// Waits for a line of the log that has all of these in it.
    pub(in crate::admin) fn logged(&self, parts: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.log();
            let mut lines = text.lines();
            if let Some(line) = lines.find(|line| parts.iter().all(|part| line.contains(part))) {
                return line.to_owned();
            }
            assert!(
                Instant::now() < deadline,
                "no line with {parts:?} in\n{text}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The whole log.
    pub(in crate::admin) fn log(&self) -> String {
        String::from_utf8_lossy(&self.log.0.lock().unwrap()).into_owned()
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

/// So many services that a page of them is not sent at once.
pub(in crate::admin) fn many() -> StatusReport {
    let one = |n: u32| {
        let [_, _, a, b] = n.to_be_bytes();
        let addrs = (1..=4).map(|last| format!("10.{a}.{b}.{last}:80"));
        let backends = addrs.map(|addr| backend(&addr, BackendState::Active, None));
        service(Some(&format!("app{n}.x")), n, backends.collect())
    };
    StatusReport {
        services: Arc::new((1..=2_000).map(one).collect()),
        ..report()
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
