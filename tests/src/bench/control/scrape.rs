//! What a scrape takes over HTTP, and what connections take meanwhile.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::{
    BACKENDS, Effort,
    agent::{WITHIN, millis, start},
    services::file,
};
use crate::{
    bench::load::{READY, client::Outcome},
    lab::{Host, HostSpec, Lab, programs::program, wait_until},
};

/// From one scrape to the next.
const PERIOD: Duration = Duration::from_secs(1);

/// Where the agent answers.
const ADMIN: &str = "127.0.0.1:9090";

/// A VIP beside the others, and who is behind it.
const VIP: &str = "10.128.255.1:80";
const SERVER: &str = "10.77.0.2:9000";

/// Pages that are asked for, and how many lines there are at least for each service and each backend.
pub(super) const PAGES: [Page; 3] = [
    Page {
        target: "/metrics",
        of_service: 20,
        of_backend: 0,
        bounded: true,
    },
    Page {
        target: "/haproxy?stats;csv",
        of_service: 2,
        of_backend: 1,
        bounded: true,
    },
    // Beyond 20,000 backends not part of the first: 250 MB at 100,000.
    Page {
        target: "/metrics?scope=server",
        of_service: 0,
        of_backend: 20,
        bounded: false,
    },
];

/// What is asked for.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) target: &'static str,
    of_service: usize,
    of_backend: usize,
    /// It is to come in time.
    pub(super) bounded: bool,
}

/// Figures of one page, ms.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// When nobody has asked for a while.
    pub(super) cold: Vec<f64>,
    /// Each second.
    pub(super) watched: Vec<f64>,
}

/// From `connect` to established, us: the medians and the 99th percentiles.
#[derive(Debug, Default)]
pub(super) struct Connects {
    pub(super) median: Vec<f64>,
    pub(super) late: Vec<f64>,
}

/// Figures of one agent.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// As [`PAGES`].
    pub(super) pages: Vec<Times>,
    /// While nobody asks.
    pub(super) quiet: Connects,
    /// While the pages that are to come in time are asked for each second.
    pub(super) scraped: Connects,
}

/// Measures with so many services, and one more that takes connections.
pub(super) fn measure(services: usize, effort: &Effort) -> Result<Taken> {
    let lab = Lab::new()?;
    let host = lab.host(&HostSpec::new("control").address("10.77.0.1/24"))?;
    let server = lab.host(&HostSpec::new("server").address("10.77.0.2/24"))?;
    let load = program("bench-load")?;
    let serving = server.start("server", &[&load, "serve", SERVER])?;
    wait_until("the server listens", WITHIN, || {
        serving.stdout().contains(READY)
    })?;
    let path = host.dir().join("services.yaml");
    let (vip, port) = VIP.split_once(':').context("a port")?;
    let more = format!("  - address: {vip}\n    port: {port}\n    backends: [\"{SERVER}\"]\n");
    fs::write(&path, file(services, None, None) + &more)?;
    let mut agent = start(&host, &["--services", &path.display().to_string()])?;
    wait_until("the pages tell of everything", WITHIN, || {
        agent.has_ended() || PAGES.iter().all(|page| get(&host, page, services).is_ok())
    })?;
    ensure!(!agent.has_ended(), "the agent ended: {}", agent.stderr());
    let mut taken = Taken::default();
    for page in &PAGES {
        let mut times = Times::default();
        thread::sleep(effort.silence);
        times.cold.push(get(&host, page, services)?);
        for _ in 0..effort.scrapes {
            thread::sleep(PERIOD);
            times.watched.push(get(&host, page, services)?);
        }
        taken.pages.push(times);
    }
    for _ in 0..effort.agent_rounds {
        for (scraped, figures) in [(false, &mut taken.quiet), (true, &mut taken.scraped)] {
            let outcome = connect(&host, &load, scraped.then_some(services), effort.load)?;
            let [median, late] = outcome.connect_us;
            figures.median.push(median);
            figures.late.push(late);
        }
    }
    Ok(taken)
}

/// Gets a page as a client would that reads as fast as it can; ms from `connect` to its end.
fn get(host: &Host, page: &Page, services: usize) -> Result<f64> {
    let lines = services * (page.of_service + page.of_backend * BACKENDS);
    let ask = || -> Result<(f64, usize)> {
        let began = Instant::now();
        let mut stream = TcpStream::connect(ADMIN)?;
        stream.set_read_timeout(Some(WITHIN))?;
        // The connection ends with the page, and nothing is put between its parts.
        write!(
            stream,
            "GET {} HTTP/1.0\r\nHost: {ADMIN}\r\n\r\n",
            page.target
        )?;
        let mut chunk = vec![0; 256 << 10];
        let (mut read, mut lines) = (stream.read(&mut chunk)?, 0);
        let ok = chunk[..read].split(|byte| *byte == b'\r').next();
        let ok = ok.is_some_and(|line| line.ends_with(b" 200 OK"));
        ensure!(ok, "{} is refused", page.target);
        while read > 0 {
            lines += chunk[..read].iter().filter(|byte| **byte == b'\n').count();
            read = stream.read(&mut chunk)?;
        }
        Ok((millis(began), lines))
    };
    let (took, found) = host.enter(ask)??;
    ensure!(
        found >= lines,
        "{} has {found} lines, not {lines}",
        page.target
    );
    Ok(took)
}

/// Connections one after the other for some time; with `scraped`, the number of services, also scrapes.
fn connect(host: &Host, load: &str, scraped: Option<usize>, time: Duration) -> Result<Outcome> {
    let over = AtomicBool::new(false);
    let scrape = |services| -> Result<()> {
        while !over.load(Relaxed) {
            let began = Instant::now();
            for page in PAGES.iter().filter(|page| page.bounded) {
                get(host, page, services)?;
            }
            thread::sleep(PERIOD.saturating_sub(began.elapsed()));
        }
        Ok(())
    };
    let scrape = &scrape;
    thread::scope(|scope| {
        let scraper = scraped.map(|services| scope.spawn(move || scrape(services)));
        let outcome = ask(host, load, time);
        over.store(true, Relaxed);
        if let Some(scraper) = scraper {
            let done = scraper.join();
            done.map_err(|_| anyhow!("the scraper panicked"))??;
        }
        outcome
    })
}

fn ask(host: &Host, load: &str, time: Duration) -> Result<Outcome> {
    let measure = time.as_millis().to_string();
    let argv = [
        load,
        "ask",
        VIP,
        "--kind",
        "short",
        "--threads",
        "1",
        "--places",
        "1",
        "--warm-up",
        "100",
        "--measure",
        &measure,
    ];
    let said = host.start("load", &argv)?.finish(time + WITHIN)?.ok()?;
    let outcome: Outcome = serde_json::from_str(&said).context("what the load says")?;
    ensure!(outcome.failures == 0, "{:?}", outcome.failure);
    Ok(outcome)
}
