//! The admin socket over a temporary run directory, and the bodies it serves.

mod api;
mod crowd;
mod dashboards;
pub(crate) mod look;
mod ordering;
mod pages;
pub(in crate::admin) mod reports;
pub(super) mod running;

use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixListener, net::UnixStream},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use serde_json::Value;
use tempfile::TempDir;

use super::{
    report::{ProviderReport, Resolution, ServiceTraffic, StatusReport, Timestamp},
    *,
};
use reports::service;

use crate::catalog::Protocol;

/// Tells the helper process which directory to claim.
const HELPER_DIR: &str = "TEST_CLAIM_DIR";

/// An agent's admin side, running on a thread of its own.
struct Agent {
    dir: TempDir,
    report: Arc<ArcSwap<StatusReport>>,
    stop: tokio::sync::oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Agent {
    fn start() -> Self {
        Self::start_in(TempDir::new().unwrap())
    }

    fn start_in(dir: TempDir) -> Self {
        let socket = AdminSocket::open(dir.path()).unwrap();
        let report: Arc<ArcSwap<StatusReport>> = Arc::default();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let served = report.clone();
        let resolve: Resolve = Arc::new(|name| Resolution {
            name: format!("{name}."),
            code: "NOERROR".into(),
            ..Resolution::default()
        });
        let count: Count = Arc::new(|report| {
            for service in Arc::make_mut(&mut report.services) {
                service.traffic.flows_new = 7;
            }
            Ok(())
        });
        let (orders, ordered) = tokio::sync::mpsc::channel::<orders::Ordered>(1);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let shutdown = async {
                let _ = stopped.await;
            };
            runtime.spawn(ordering::obey(ordered));
            let serving = async {
                let admin = Admin::start(Sources {
                    report: served,
                    resolve,
                    count,
                    look: Arc::new(look::Flows),
                    orders,
                    events: Default::default(),
                    alive: Arc::new(Alive::new(Duration::from_secs(30))),
                });
                serve(socket, admin, shutdown).await
            };
            runtime.block_on(serving).unwrap();
        });
        Self {
            dir,
            report,
            stop,
            thread,
        }
    }

    fn get(&self, target: &str) -> Answer {
        self.ask(target, "")
    }

    /// The body of an answer that is no text.
    fn get_bytes(&self, target: &str) -> Vec<u8> {
        let mut stream = UnixStream::connect(self.dir.path().join(SOCKET_NAME)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        write!(stream, "GET {target} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
        answer.split_off(end.unwrap() + 4)
    }

    fn ask(&self, target: &str, headers: &str) -> Answer {
        self.send("GET", target, headers)
    }

    fn send(&self, method: &str, target: &str, headers: &str) -> Answer {
        let mut stream = UnixStream::connect(self.dir.path().join(SOCKET_NAME)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        write!(stream, "{method} {target} HTTP/1.0\r\n{headers}\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        Answer {
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    fn stop(self) -> TempDir {
        let Self {
            dir,
            report: _,
            stop,
            thread,
        } = self;
        stop.send(()).unwrap();
        thread.join().unwrap();
        dir
    }
}

struct Answer {
    /// Lower case.
    head: String,
    body: String,
}

impl Answer {
    fn status(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        let line = self
            .head
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name} in {}", self.head))
    }
}

#[test]
fn the_list_of_vips_is_the_one_that_dcos_net_shows() {
    let agent = Agent::start();
    let mut app2 = service(
        Some("dcos-101app2.marathon"),
        "11.68.84.23",
        10000,
        &["10.0.3.9:11017", "10.0.1.5:28543"],
    );
    app2.backends[0].weight = 0;
    let myapp = service(
        Some("mygroupmyapp.marathon"),
        "11.1.2.3",
        80,
        &["9.0.2.130:80", "9.0.1.6:80"],
    );
    let ip_vip = service(
        None,
        "10.1.2.3",
        5000,
        &["10.0.1.5:31100", "10.0.3.9:31101"],
    );
    let services = vec![ip_vip, myapp, app2];
    agent.report.store(Arc::new(StatusReport {
        services: services.into(),
        ..StatusReport::default()
    }));

    let answer = agent.get("/v1/vips");
    assert_eq!(
        (answer.status(), answer.header("content-type")),
        ("200", "application/json")
    );
    let by_vip = |text: &str| {
        let mut entries: Vec<Value> = serde_json::from_str(text).unwrap();
        entries.sort_by_key(|entry| entry["vip"].to_string());
        entries
    };
    assert_eq!(
        by_vip(&answer.body),
        by_vip(include_str!("fixtures/dcosnet-v1-vips.json"))
    );
    let vips: Vec<Value> = serde_json::from_str(&answer.body).unwrap();
    let order: Vec<_> = vips
        .iter()
        .map(|entry| entry["vip"].as_str().unwrap())
        .collect();
    assert!(order.is_sorted(), "{order:?}");
    assert!(answer.body.starts_with(r#"[{"vip":""#), "{}", answer.body);
}

#[test]
fn a_named_vip_of_both_families_is_one_entry_and_ipv6_has_no_brackets() {
    let agent = Agent::start();
    let services = vec![
        service(Some("six.marathon"), "fd01:c::5", 80, &["[fd01:b::2]:8080"]),
        service(Some("six.marathon"), "11.0.0.5", 80, &["172.19.0.2:8080"]),
        service(None, "fd01:c::1", 80, &[]),
    ];
    agent.report.store(Arc::new(StatusReport {
        services: services.into(),
        ..StatusReport::default()
    }));
    assert_eq!(
        agent.get("/v1/vips").body,
        concat!(
            r#"[{"vip":"fd01:c::1:80","protocol":"tcp","backend":[]},"#,
            r#"{"vip":"six.marathon.l4lb.thisdcos.directory:80","protocol":"tcp","#,
            r#""backend":[{"ip":"172.19.0.2","port":8080},{"ip":"fd01:b::2","port":8080}]}]"#
        )
    );
}

#[test]
fn a_client_that_has_the_list_already_is_told_so_until_it_changes() {
    let agent = Agent::start();
    let tag = agent.get("/v1/vips").header("etag").to_owned();
    assert!(
        tag.starts_with('"') && tag.ends_with('"') && tag.len() > 10,
        "{tag}"
    );
    let again = agent.ask("/v1/vips", &format!("If-None-Match: W/\"x\", {tag}\r\n"));
    assert_eq!((again.status(), again.body.as_str()), ("304", ""));
    let services = vec![service(None, "10.1.2.3", 5000, &[])];
    agent.report.store(Arc::new(StatusReport {
        services: services.into(),
        ..StatusReport::default()
    }));
    let changed = agent.ask("/v1/vips", &format!("If-None-Match: {tag}\r\n"));
    assert_eq!(changed.status(), "200");
    assert_ne!(changed.header("etag"), tag);
}

#[test]
fn status_is_the_report_with_ages_and_numbers_as_of_the_request() {
    let agent = Agent::start();
    let before = Timestamp::now();
    let synced = Timestamp(before.0 - 5000);
    let provider = ProviderReport {
        id: "file:x".into(),
        last_sync: Some(synced),
        ..ProviderReport::default()
    };
    let services = vec![service(
        Some("a.marathon"),
        "11.0.0.1",
        80,
        &["10.0.0.1:80"],
    )];
    agent.report.store(Arc::new(StatusReport {
        services: services.into(),
        providers: vec![provider],
        ..StatusReport::default()
    }));

    let answer = agent.get("/v1/status");
    let report: StatusReport = serde_json::from_str(&answer.body).unwrap();
    assert!(report.agent.now >= before);
    assert_eq!(
        report.providers[0].last_sync_age_ms,
        Some(report.agent.now.0 - synced.0)
    );
    assert_eq!(report.services[0].traffic.flows_new, 7);
    let mut kept = report.services.as_ref().clone();
    kept[0].traffic = ServiceTraffic::default();
    assert_eq!(kept, *agent.report.load().services);
    let json: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(json["services"][0]["protocol"], "tcp");
    assert_eq!(json["services"][0]["port"], 80);
    assert_eq!(json["services"][0]["backends"][0]["state"], "active");
}

#[test]
fn a_clock_set_back_is_an_age_of_zero() {
    let provider = ProviderReport {
        last_sync: Some(Timestamp(9000)),
        ..ProviderReport::default()
    };
    let report = StatusReport {
        providers: vec![provider],
        ..StatusReport::default()
    }
    .at(Timestamp(8000));
    assert_eq!(report.providers[0].last_sync_age_ms, Some(0));
}

#[test]
fn resolve_asks_what_dns_would_answer() {
    let agent = Agent::start();
    let answer: Resolution =
        serde_json::from_str(&agent.get("/v1/resolve?name=a%2Fb.marathon").body).unwrap();
    assert_eq!(answer.name, "a/b.marathon.");
    assert_eq!(agent.get("/v1/resolve").status(), "400");
    assert_eq!(agent.get("/v1/resolve?name=").status(), "400");
}

#[test]
fn it_says_that_it_lives_and_what_it_does_not_have() {
    let agent = Agent::start();
    assert_eq!(agent.get("/healthz").body, "ok\n");
    assert_eq!(agent.get("/v2/apps").status(), "404");
}

#[test]
fn only_the_owner_may_connect() {
    let dir = TempDir::new().unwrap();
    let _socket = AdminSocket::open(dir.path()).unwrap();
    let mode = fs::metadata(dir.path().join(SOCKET_NAME))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
}

#[test]
fn the_run_directory_is_made_if_it_is_missing() {
    let dir = TempDir::new().unwrap();
    let deep = dir.path().join("a/b");
    AdminSocket::open(&deep).unwrap();
    assert!(deep.is_dir());
}

#[test]
fn a_socket_that_a_killed_agent_left_is_replaced() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join(SOCKET_NAME);
    drop(UnixListener::bind(&path).unwrap());
    assert!(
        path.exists(),
        "std unlinks nothing, so the socket is stale now"
    );
    let agent = Agent::start_in(dir);
    assert_eq!(agent.get("/healthz").status(), "200");
}

#[test]
fn a_socket_that_somebody_answers_on_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join(SOCKET_NAME);
    let _other = UnixListener::bind(&path).unwrap();
    let error = AdminSocket::open(dir.path()).unwrap_err();
    assert!(
        matches!(error, ClaimError::Taken { pid: None, .. }),
        "{error}"
    );
    UnixStream::connect(&path).unwrap();
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join(SOCKET_NAME);
    fs::write(&path, "precious").unwrap();
    let error = AdminSocket::open(dir.path()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{} is not a socket; move it away, or give lb-agent another --run-dir",
            path.display()
        )
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn a_second_agent_on_the_same_run_directory_is_refused_with_the_first_ones_process() {
    let agent = Agent::start();
    let error = AdminSocket::open(agent.dir.path()).unwrap_err();
    let (pid, dir) = (std::process::id(), agent.dir.path().display());
    assert_eq!(
        error.to_string(),
        format!(
            "another lb-agent (process {pid}) is at work on {dir}; stop it first, or give this one its own --run-dir"
        )
    );
    assert_eq!(
        agent.get("/healthz").status(),
        "200",
        "the first one goes on"
    );
}

#[test]
fn an_agent_that_ends_in_good_order_leaves_no_socket_and_no_claim() {
    let dir = Agent::start().stop();
    assert!(!dir.path().join(SOCKET_NAME).exists());
    Agent::start_in(dir);
}

#[test]
#[ignore = "no test: `a_killed_agent_leaves_...` runs it as a process of its own, and kills it"]
fn helper_that_claims_a_directory_until_it_is_killed() {
    let dir = std::env::var_os(HELPER_DIR).unwrap();
    let _socket = AdminSocket::open(Path::new(&dir)).unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn a_killed_agent_leaves_a_directory_that_the_next_one_can_have() {
    let dir = TempDir::new().unwrap();
    let path: PathBuf = dir.path().join(SOCKET_NAME);
    let mut first = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "admin::tests::helper_that_claims_a_directory_until_it_is_killed",
        ])
        .env(HELPER_DIR, dir.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while UnixStream::connect(&path).is_err() {
        assert!(
            std::time::Instant::now() < deadline,
            "the first agent never listened"
        );
        std::thread::yield_now();
    }
    let error = AdminSocket::open(dir.path()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&format!("(process {})", first.id())),
        "{error}"
    );
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(path.exists(), "SIGKILL leaves the socket behind");
    Agent::start_in(dir);
}

#[test]
fn who_may_not_open_the_lock_is_told_to_be_root() {
    let denied = super::ClaimError::Io {
        act: "open",
        path: "/run/lb-agent/lock".into(),
        error: std::io::ErrorKind::PermissionDenied.into(),
    };
    assert_eq!(
        denied.to_string(),
        "cannot open /run/lb-agent/lock: permission denied; run this as root"
    );
}
