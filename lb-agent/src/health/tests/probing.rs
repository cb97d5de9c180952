//! Probes of real sockets on loopback, and the task that sends them.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    thread,
};

use tokio_util::sync::CancellationToken;

use super::*;
use crate::{catalog::Http, health::probe::probe};

fn http() -> Http {
    Http {
        method: "GET",
        path: "/healthz".to_owned(),
        host: None,
        expect: vec![Http::EXPECT],
    }
}

fn asking(addr: SocketAddr, probe: Probe) -> Target {
    let check = Check {
        timeout: Duration::from_millis(300),
        ..Check::new(probe)
    };
    let check = Arc::new(check);
    Target { addr, check }
}

/// A server that gives one answer; joining it gives what it was asked.
fn answering(answer: &'static [u8]) -> (SocketAddr, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let at = listener.local_addr().expect("its address");
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut asked = Vec::new();
        let mut byte = [0];
        while !asked.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
            asked.extend(byte);
        }
        let _ = stream.write_all(answer);
        String::from_utf8_lossy(&asked).into_owned()
    });
    (at, server)
}

async fn outcome(answer: &'static [u8], http: Http) -> (Outcome, String) {
    let (at, server) = answering(answer);
    let outcome = probe(&asking(at, Probe::Http(http))).await.outcome;
    (outcome, server.join().expect("it ends"))
}

fn why(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Failed(why) => why,
        other => panic!("it did not fail: {other:?}"),
    }
}

#[tokio::test]
async fn a_listener_passes_a_tcp_check_and_a_closed_port_does_not() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let target = asking(listener.local_addr().expect("its address"), Probe::Tcp);
    assert_eq!(probe(&target).await.outcome, Outcome::Passed);
    drop(listener);
    assert_eq!(why(&probe(&target).await.outcome), "connection refused");
}

#[tokio::test]
async fn another_port_is_asked_where_the_check_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let other = listener.local_addr().expect("its address").port();
    let check = Check {
        port: crate::catalog::Port::new(other),
        ..check()
    };
    let check = Arc::new(check);
    let addr = "127.0.0.1:1".parse().expect("an address");
    assert_eq!(
        probe(&Target { addr, check }).await.outcome,
        Outcome::Passed
    );
}

#[tokio::test]
async fn a_request_says_who_asks_and_the_status_decides() {
    let asked = Http {
        method: "HEAD",
        host: Some("www.example".to_owned()),
        ..http()
    };
    let (passed, request) = outcome(b"HTTP/1.1 204 No Content\r\n\r\n", asked).await;
    assert_eq!(passed, Outcome::Passed);
    assert!(
        request.starts_with("HEAD /healthz HTTP/1.1\r\n"),
        "{request}"
    );
    for header in ["host: www.example", "user-agent: lb-agent-check"] {
        assert!(request.contains(header), "{request}");
    }
    let (failed, _) = outcome(b"HTTP/1.0 500 Oh\r\n\r\nno", http()).await;
    assert_eq!(why(&failed), "HTTP status 500, not 200-399");
    let moved = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(outcome(moved, http()).await.0, Outcome::Passed);
    let only = Http {
        expect: vec![(418, 418)],
        ..http()
    };
    let (failed, _) = outcome(b"HTTP/1.1 200 OK\r\n\r\n", only).await;
    assert_eq!(why(&failed), "HTTP status 200, not 418");
    let star = Http {
        method: "OPTIONS",
        path: "*".to_owned(),
        ..http()
    };
    let (passed, request) = outcome(b"HTTP/1.1 200 OK\r\n\r\n", star).await;
    assert_eq!(passed, Outcome::Passed);
    assert!(request.starts_with("OPTIONS * HTTP/1.1\r\n"), "{request}");
}

#[tokio::test]
async fn what_is_not_http_fails_and_silence_does_in_time() {
    let (garbage, _) = outcome(b"SSH-2.0-OpenSSH\r\n", http()).await;
    assert!(
        why(&garbage).starts_with("no answer that is HTTP"),
        "{garbage:?}"
    );
    let (nothing, _) = outcome(b"", http()).await;
    assert!(
        why(&nothing).starts_with("no answer that is HTTP"),
        "{nothing:?}"
    );
    let silent = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let at = silent.local_addr().expect("its address");
    let outcome = probe(&asking(at, Probe::Http(http()))).await.outcome;
    assert_eq!(why(&outcome), "no answer within 300ms");
}

#[test]
fn what_our_own_programs_translate_is_not_asked() {
    let ours = Ours {
        vips: ["11.0.0.1".parse().expect("an address")].into(),
        ports: ["10.0.0.1:10000".parse().expect("an address")].into(),
    };
    let settled = |at: &str| ours.settle(at.parse().expect("an address"));
    assert!(matches!(settled("11.0.0.1:1"), Some(Outcome::Failed(_))));
    assert!(matches!(
        settled("10.0.0.1:10000"),
        Some(Outcome::NotAsked(_))
    ));
    assert_eq!(settled("10.0.0.1:10001"), None);
}

#[tokio::test]
async fn the_monitor_tells_of_a_listener_that_goes_and_comes() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let addr = listener.local_addr().expect("its address");
    let check = Arc::new(Check {
        interval: Duration::from_millis(100),
        timeout: Duration::from_millis(100),
        fall: 2,
        ..check()
    });
    let stop = CancellationToken::new();
    let _end = stop.clone().drop_guard();
    let monitor = Monitor::start(1, BTreeSet::new(), &stop);
    let target = Target {
        addr,
        check: Arc::clone(&check),
    };
    monitor.follow(Followed {
        targets: [Arc::new(target)].into(),
        paused: BTreeSet::new(),
    });
    let becomes = async |verdict| {
        let told = async {
            while monitor
                .verdicts()
                .expect("it checks")
                .of(addr, &check)
                .verdict
                != verdict
            {
                monitor.changed().await;
            }
        };
        let patience = Duration::from_secs(20);
        let in_time = tokio::time::timeout(patience, told).await;
        in_time.unwrap_or_else(|_| panic!("it becomes {verdict:?}"));
    };
    becomes(Verdict::Up).await;
    drop(listener);
    becomes(Verdict::Down).await;
    let _again = TcpListener::bind(addr).expect("a listener");
    becomes(Verdict::Up).await;
    assert!(
        Monitor::start(0, BTreeSet::new(), &stop)
            .verdicts()
            .is_none()
    );
}

#[tokio::test]
async fn no_more_are_asked_at_a_time_than_the_operator_says() {
    let patience = Duration::from_secs(20);
    // Asked once, and as patient as the test.
    let check = Arc::new(Check {
        interval: Duration::from_secs(3_600),
        timeout: patience,
        ..Check::new(Probe::Http(http()))
    });
    let (came, mut coming) = tokio::sync::mpsc::unbounded_channel();
    let mut targets = BTreeSet::new();
    for _ in 0..6 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0");
        let listener = listener.await.expect("a listener");
        let addr = listener.local_addr().expect("its address");
        let (check, came) = (Arc::clone(&check), came.clone());
        targets.insert(Arc::new(Target { addr, check }));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // The test is over.
                let _ = came.send(stream);
            }
        });
    }
    let stop = CancellationToken::new();
    let _end = stop.clone().drop_guard();
    let monitor = Monitor::start(2, BTreeSet::new(), &stop);
    monitor.follow(Followed {
        targets,
        paused: BTreeSet::new(),
    });
    let mut next = async |within| tokio::time::timeout(within, coming.recv()).await;
    let first = next(patience).await.expect("a probe");
    let second = next(patience).await.expect("another one");
    // The others are due within a second.
    let third = next(Duration::from_millis(1_500)).await;
    assert!(third.is_err(), "two are not answered yet");
    drop(first);
    let third = next(patience).await.expect("there is room");
    drop((second, third));
    for _ in 0..3 {
        let more = next(patience).await.expect("everybody's turn comes");
        drop(more);
    }
}
