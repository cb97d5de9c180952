//! Clients of the pages and of the stats socket that misbehave: what each gets, what the log says of it, what it costs
//! the agent, and that it costs nobody else anything.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use lb_tests::{
    admin::{PROXY, SERVERS, VIP, ask, expect_status, page, rows, services, socket},
    lab::wait_until,
    stage::{PATIENCE, Stage, connect},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, SockAddr, Socket, Type};

/// `ann:secret` may write.
const USERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/users");
const LOGIN: &str = "Authorization: Basic YW5uOnNlY3JldA==\r\n";
/// Addresses of a flood, and connections of each. No address may have more than 64 at a time: those of all together
/// leave room for others.
const FLOODERS: u8 = 7;
const OF_EACH: usize = 500;
/// On the stats socket, where 64 may be at a time.
const LOCAL: usize = 60;
/// How often the flood comes.
const FLOODS: usize = 4;
/// What all of it may take: 448 connections with what they have sent, KiB.
const ROOM: u64 = 64 << 10;
/// What the last flood may take that the second had not taken, KiB.
const LEFT_BEHIND: u64 = 16 << 10;
/// Of one kind, lines of the log within 10 s.
const LINES: u64 = 500;

fn stage() -> Stage {
    let stage = Stage::up(&services(""), &["--admin-users-file", USERS]);
    for server in SERVERS {
        expect_status(&stage, server, "UP");
    }
    stage
}

/// A connection to the pages from an address of the node's own; to be called in the node.
fn dial(last: u8) -> TcpStream {
    let at = |last, port| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), port);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SockAddr::from(at(last, 0))).expect("bound");
    let to = SockAddr::from(at(1, 9090));
    socket.connect_timeout(&to, PATIENCE).expect("connected");
    let stream = TcpStream::from(socket);
    for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
        set(&stream, Some(PATIENCE)).expect("set");
    }
    stream
}

/// The status code of the answer to these bytes; `None`: the connection ended before there was one.
fn code(stage: &Stage, bytes: &[u8]) -> Option<u16> {
    let send = || {
        let mut stream = dial(1);
        // Who is refused early may not take all of it, and who sends on may lose the answer.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    };
    let answer = stage.node.enter(send).expect("in the node");
    let text = String::from_utf8_lossy(&answer).into_owned();
    text.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()
}

/// How many lines of the log have all of these in them.
fn logged(stage: &Stage, parts: &[&str]) -> usize {
    let log = stage.agent.stderr();
    let lines = log.lines();
    lines
        .filter(|line| parts.iter().all(|part| line.contains(part)))
        .count()
}

/// Waits for one more than there were before.
fn expect_logged(stage: &Stage, parts: &[&str], before: usize) {
    let said = || logged(stage, parts) > before;
    let said = wait_until("the log says it", PATIENCE, said);
    assert!(said.is_ok(), "{parts:?} in {}", stage.agent.stderr());
}

/// Ends the load, also where a test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Connects to the VIP again and again while `act` is under way; how often, and what went wrong.
fn under_load<T>(stage: &Stage, act: impl FnOnce() -> T) -> (T, usize, Vec<String>) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            let (mut count, mut failed) = (0, Vec::new());
            while !stop.load(Ordering::Relaxed) {
                count += 1;
                let came = connect(&stage.clients[0], VIP).map(drop);
                failed.extend(came.err().map(|error| error.to_string()));
                // Source ports must last: each is taken for a minute.
                thread::sleep(Duration::from_millis(10));
            }
            (count, failed)
        });
        let ends = Ends(&stop);
        let done = act();
        drop(ends);
        let (count, failed) = load.join().expect("no panic");
        (done, count, failed)
    })
}

#[test]
fn whatever_is_refused_has_its_code_is_logged_and_changes_nothing() {
    let stage = stage();
    let drain = "/v1/drain?backend=10.77.0.11:80";
    let post = |target: &str, headers: &str, body: &str| {
        let length = body.len();
        format!("POST {target} HTTP/1.0\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
    };
    let form = |headers: &str, body: &str| post("/haproxy?stats", headers, body);
    let first = format!("s={}&action=drain&b={PROXY}", SERVERS[0]);
    let long = "a".repeat(100_000);
    let foreign = format!("{LOGIN}Host: 127.0.0.1\r\nOrigin: http://evil.example\r\n");
    for (request, expected, said) in [
        ("nonsense\r\n\r\n".to_owned(), 400, "no HTTP request"),
        (
            "GET /haproxy?stats;st=<script> HTTP/1.0\r\n\r\n".to_owned(),
            400,
            "no HTTP request",
        ),
        (format!("GET /{long} HTTP/1.0\r\n\r\n"), 431, "too large"),
        (
            format!("GET / HTTP/1.0\r\nA: {long}\r\n\r\n"),
            431,
            "too large",
        ),
        (
            format!("GET / HTTP/1.0\r\n{}\r\n", "A: b\r\n".repeat(500)),
            431,
            "too large",
        ),
        (post(drain, "", ""), 401, "no token or password"),
        (form("", &first), 401, "no token or password"),
        (
            "DELETE / HTTP/1.0\r\n\r\n".to_owned(),
            401,
            "no token or password",
        ),
        (
            "GET /v1/flows HTTP/1.0\r\n\r\n".to_owned(),
            401,
            "no token or password",
        ),
        (
            post(drain, "Authorization: Bearer secret\r\n", ""),
            401,
            "a wrong token or password",
        ),
        (
            post(drain, "Authorization: Basic YW5uOnNlY3JlZA==\r\n", ""),
            401,
            "a wrong token or password",
        ),
        (post(drain, &foreign, ""), 403, "a page of another site"),
        (form(&foreign, &first), 403, "a page of another site"),
        (
            "GET /;csv HTTP/1.0\r\nHost: evil.example\r\n\r\n".to_owned(),
            403,
            "names a host",
        ),
        (
            post(drain, LOGIN, &long),
            413,
            "nobody reads so long a body",
        ),
        (form(LOGIN, &long), 303, "a form, it is too long"),
        (
            "GET /v1/history HTTP/1.0\r\n\r\n".to_owned(),
            400,
            "say which service",
        ),
        (
            "GET /v1/history?service=nobody HTTP/1.0\r\n\r\n".to_owned(),
            404,
            "there is no such service",
        ),
        (
            "GET /nothing HTTP/1.0\r\n\r\n".to_owned(),
            404,
            "no such page",
        ),
        (
            post("/v1/weight?backend=10.77.0.11:80&weight=257", LOGIN, ""),
            400,
            "say which weight",
        ),
        (post("/v1/drain?server=s1", LOGIN, ""), 400, "unknown field"),
        (
            form(LOGIN, &first.replace("drain", "dance")),
            303,
            "servers are unknown",
        ),
    ] {
        let shown: String = request.chars().take(60).collect();
        let level = if expected == 404 { "INFO" } else { "WARN" };
        let line = [level, "127.0.0.1:", "refused", said];
        let before = logged(&stage, &line);
        let told = code(&stage, request.as_bytes());
        // What is too long may be cut off before the answer is read.
        let lost = told.is_none() && request.len() > long.len();
        assert!(told == Some(expected) || lost, "{shown}: {told:?}");
        expect_logged(&stage, &line, before);
    }
    let by = "at the stats socket";
    assert!(ask(&stage, "dance <b>").starts_with("Unknown command: 'dance <b>'"));
    expect_logged(&stage, &["WARN", by, "refused: Unknown command"], 0);
    let nobody = format!("set server {PROXY}/nobody state drain");
    assert_eq!(ask(&stage, &nobody), "No such server.\n\n");
    expect_logged(&stage, &["INFO", by, "refused: No such server."], 0);
    let mut stream = UnixStream::connect(socket(&stage)).expect("connected");
    // It may be closed before all of it is taken.
    let _ = stream.write_all(long.as_bytes());
    assert!(!matches!(stream.read(&mut [0]), Ok(1..)));
    expect_logged(&stage, &["WARN", by, "refused: a line of more than"], 0);

    let rows = rows(&page(&stage, "/;csv"));
    for server in SERVERS {
        let row = &rows[server];
        assert_eq!((&*row["status"], &*row["weight"]), ("UP", "1"), "{server}");
    }
    let words = stage.status()["operator"].clone();
    assert!(words.as_array().is_none_or(Vec::is_empty), "{words}");
    let came = |_| connect(&stage.clients[0], VIP).expect("a connection").1;
    let came: BTreeSet<_> = (0..20).map(came).collect();
    assert_eq!(came.len(), 2, "both take connections");
}

/// What a flood sends on each of its connections, by their number: nothing, half a head, the beginning of a body
/// without an end.
fn misuse(stream: &mut TcpStream, number: usize) {
    let endless = "Host: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\n";
    let said = match number % 4 {
        0 => String::new(),
        1 => "GET / HTTP/1.1\r\nHost: ".to_owned(),
        2 => format!("POST /haproxy?stats HTTP/1.1\r\n{LOGIN}{endless}"),
        _ => format!("GET /healthz HTTP/1.1\r\n{endless}"),
    };
    // Most are refused before they have said anything.
    let _ = stream.write_all(said.as_bytes());
    if number % 4 >= 2 {
        let _ = stream.write_all("a".repeat(0x1_0000).as_bytes());
    }
}

#[test]
fn thousands_of_connections_cost_little_memory_no_traffic_and_nobody_else_his_turn() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, most).expect("as many files as it may");
    let stage = stage();
    let flood = || {
        let mut held = Vec::new();
        for number in 0..OF_EACH {
            for last in 2..2 + FLOODERS {
                let mut stream = dial(last);
                misuse(&mut stream, number);
                held.push(stream);
            }
        }
        held
    };
    let (begun, before) = (Instant::now(), stage.memory());
    let mut after = Vec::new();
    let ((), count, failed) = under_load(&stage, || {
        for _ in 0..FLOODS {
            let held = stage.node.enter(flood).expect("in the node");
            let local: Vec<_> = (0..LOCAL)
                .map(|_| UnixStream::connect(socket(&stage)).expect("connected"))
                .collect();
            let asked = Instant::now();
            assert_eq!(code(&stage, b"GET /healthz HTTP/1.0\r\n\r\n"), Some(200));
            assert!(page(&stage, "/;csv").starts_with("# pxname,"));
            assert!(ask(&stage, "show stat").starts_with("# pxname,"));
            assert!(stage.status().is_object());
            // Sooner than the flood is cut off.
            let took = asked.elapsed();
            assert!(took < Duration::from_secs(8), "{took:?}");
            after.push(stage.memory());
            drop((held, local));
        }
    });
    assert!(count > 10 && failed.is_empty(), "{count}: {failed:?}");
    let peak = after.iter().max().expect("there were floods");
    let grown = format!("{before} KiB, then {after:?}");
    assert!(*peak < before + ROOM, "{grown}");
    assert!(after[FLOODS - 1] < after[1] + LEFT_BEHIND, "{grown}");
    expect_logged(&stage, &["WARN", "refused: more than 64 connections"], 0);
    expect_logged(&stage, &["WARN", "further ones are left out"], 0);
    let log = stage.agent.stderr();
    let lines = log.matches("refused: more than 64 connections").count();
    let periods = 2 + begun.elapsed().as_secs() / 10;
    assert!(lines as u64 <= LINES * periods, "{lines} lines");
    // Whoever says nothing is cut off.
    let mut silent = stage.node.enter(|| dial(99)).expect("in the node");
    assert_eq!(silent.read(&mut [0]).expect("an end"), 0);
    let late = [
        "WARN",
        "127.0.0.99:",
        "refused: no whole request within 10 s",
    ];
    expect_logged(&stage, &late, 0);
}
