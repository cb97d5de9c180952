//! What is refused is in the log, and nobody takes the places of all others.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use base64::Engine as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, SockAddr, Socket, Type};

use super::*;
use crate::admin::tests::running::many;

/// So many idle connections of one client.
const MANY: usize = 2_000;

/// Asks as another client.
pub(super) fn connect_from(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let own = SocketAddr::new(IpAddr::V4(from), 0);
    socket.bind(&SockAddr::from(own)).unwrap();
    socket.connect(&SockAddr::from(to)).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Lets this process have as many files open as it may.
pub(super) fn raise_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, most).unwrap();
}

#[test]
fn a_refusal_is_in_the_log_with_who_and_why() {
    let site = Site::open(|_| {});
    let drain = "/v1/drain?backend=10.0.0.1:80";
    let own = "peer=127.0.0.1:";
    site.post(drain, "", "");
    site.logged(&["WARN", own, "/v1/drain", "refused: no token or password"]);
    site.post(drain, "Authorization: Bearer no\r\n", "");
    site.logged(&[
        "WARN",
        own,
        "/v1/drain",
        "refused: a wrong token or password",
    ]);
    site.get("/v1/flows", "");
    site.logged(&["WARN", own, "/v1/flows", "refused: no token or password"]);
    site.send(b"nonsense\r\n\r\n");
    site.logged(&["WARN", own, "refused: no HTTP request"]);
    site.send(format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(100_000)).as_bytes());
    site.logged(&["WARN", own, "refused: no HTTP request", "too large"]);
    let foreign = "Origin: http://evil.example\r\nHost: n1\r\n";
    site.post(drain, foreign, "");
    site.logged(&["WARN", own, "refused: a page of another site"]);
    let form = |body: &str, why: &str| {
        site.post("/haproxy?stats", TOKEN, body);
        let by = "by=\"the token at 127.0.0.1:";
        site.logged(&["WARN", by, "refused: a form, ", why]);
    };
    form(&"s".repeat(16 * 1_024 + 1), "it is too long");
    form("s=x&action=drain&b=%237", "proxy or servers are unknown");
    form("action=drain&b=%237", "it names no server");
    assert_eq!(site.ordered(), [""; 0]);
    form(
        "s=10_0_0_1_80&s=x&action=ready&b=%237",
        "some of its servers are unknown",
    );
    assert_eq!(site.ordered(), ["ready 10.0.0.1:80 of web.x:80/tcp"]);
    let site = Site::open(|access| *access = Access::default());
    site.post("/haproxy?stats", "", "s=10_0_0_1_80&action=drain&b=%237");
    let why = "refused: a form, nothing can be changed over TCP here";
    site.logged(&["WARN", "by=\"127.0.0.1:", why]);
}

#[test]
fn what_cannot_be_answered_is_in_the_log_with_who_and_why() {
    let site = Site::open(|_| {});
    let (nobody, token) = ("by=\"127.0.0.1:", "by=\"the token at 127.0.0.1:");
    for (target, code, why) in [
        ("/v1/history", "400", "say which service"),
        ("/v1/history?service=x", "404", "there is no such service"),
        (
            "/v1/history?service=web.x_80&backend=10.0.0.9:80",
            "404",
            "the service has no such backend",
        ),
        ("/v1/events?after=x", "400", "Failed to deserialize"),
        ("/v1/live?since=-1", "400", "Failed to deserialize"),
        ("/v1/resolve?name=", "400", "say which name"),
        ("/v1/metrics/mesos", "404", "Unknown Registry"),
        ("/assets/none.js", "404", "there is no such file"),
        ("/nothing", "404", "no such page"),
    ] {
        let answer = site.get(target, "");
        assert_eq!(status(&answer), code, "{target}");
        assert!(answer.1.contains(why), "{answer:?}");
        let path = target.split('?').next().unwrap();
        let path = format!("method=GET path=\"{path}\"");
        let level = if code == "404" { "INFO" } else { "WARN" };
        site.logged(&[level, &format!("refused: {why}"), nobody, &path]);
    }
    for (target, why) in [
        ("/v1/drain", "say either which backend"),
        ("/v1/drain?backend=10.0.0.1:80&x=y", "Failed to deserialize"),
        ("/v1/weight?backend=10.0.0.1:80&weight=257", "say which"),
        ("/v1/release", "say which name"),
    ] {
        assert_eq!(status(&site.post(target, TOKEN, "")), "400", "{target}");
        let path = target.split('?').next().unwrap();
        let path = format!("method=POST path=\"{path}\"");
        site.logged(&["WARN", &format!("refused: {why}"), token, &path]);
    }
    assert_eq!(site.ordered(), [""; 0]);
    // Every browser asks for it.
    assert_eq!(status(&site.get("/favicon.ico", "")), "404");
    let long = format!("/{}", "a".repeat(10_000));
    assert_eq!(status(&site.get(&long, "")), "404");
    let line = site.logged(&["refused: no such page", "path=\"/aaaa"]);
    assert!(line.len() < 500, "{line}");
    assert!(!site.log().contains("favicon"), "{}", site.log());
    let head = site.send(b"HEAD /nothing HTTP/1.0\r\n\r\n");
    assert_eq!((status(&head), &*head.1), ("404", ""));
    site.logged(&["INFO", "refused: ", "method=HEAD path=\"/nothing\""]);
    let dance = format!("DANCE / HTTP/1.0\r\n{TOKEN}\r\n");
    assert_eq!(status(&site.send(dance.as_bytes())), "405");
    site.logged(&["WARN", "refused: Method Not Allowed", "method=DANCE"]);
}

#[test]
fn an_order_is_in_the_log_with_who_gave_it() {
    let site = Site::open(|_| {});
    let password = base64::engine::general_purpose::STANDARD.encode("ann:word");
    let password = format!("Authorization: Basic {password}\r\n");
    let drain = "/v1/drain?backend=10.0.0.1:80&deadline=5";
    site.post(drain, TOKEN, "");
    let done = "the operator's order";
    site.logged(&[
        "INFO",
        done,
        "the token at 127.0.0.1:",
        "drain",
        "10.0.0.1:80",
    ]);
    site.post(drain, &password, "");
    site.logged(&["INFO", done, "user ann at 127.0.0.1:", "deadline=5"]);
    let form = "s=10_0_0_1_80&action=maint&b=web.x_80";
    site.post("/haproxy?stats", &password, form);
    site.logged(&["INFO", done, "user ann at 127.0.0.1:", "maintenance"]);
    site.post("/v1/weight?backend=10.0.0.1:80&weight=13", TOKEN, "");
    let refused = "the operator's order was refused";
    site.logged(&["WARN", refused, "the token at", "weight 13", "no such luck"]);
}

#[test]
fn one_client_with_thousands_of_idle_connections_keeps_no_other_out() {
    raise_limit();
    let site = Site::open(|_| {});
    let idle: Vec<_> = (0..MANY).map(|_| TcpStream::connect(site.at)).collect();
    let mut other = connect_from(Ipv4Addr::new(127, 0, 0, 2), site.at);
    let asked = Instant::now();
    other.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    other.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.0 200"), "{text}");
    // Sooner than the idle ones are cut off.
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(idle.iter().filter(|one| one.is_ok()).count(), MANY);
    site.logged(&["WARN", "peer=127.0.0.1:", "connections of one address"]);
}

#[test]
fn an_order_waits_for_no_body_and_takes_no_long_one() {
    let site = Site::open(|_| {});
    let orders = [
        "drain",
        "maintenance",
        "health",
        "reset",
        "ready",
        "weight",
        "resync",
    ];
    for order in orders {
        let query = match order {
            "health" => "?backend=10.0.0.1:80&state=up",
            "weight" => "?backend=10.0.0.1:80&weight=3",
            "resync" => "",
            _ => "?backend=10.0.0.1:80",
        };
        let begin = |headers: &str| format!("POST /v1/{order}{query} HTTP/1.0\r\n{headers}\r\n");
        let slow = site.send(begin(&format!("{TOKEN}Content-Length: 10\r\n")).as_bytes());
        assert_eq!(status(&slow), "200", "{order}: a body that never comes");
        site.ordered();
        for long in [
            "Content-Length: 1000000000000",
            "Transfer-Encoding: chunked",
        ] {
            // HTTP/1.0 has no chunks.
            let head = format!(
                "POST /v1/{order}{query} HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n{TOKEN}{long}\r\n\r\n"
            );
            let answer = site.send(head.as_bytes());
            assert_eq!(status(&answer), "413", "{order} {long}: {answer:?}");
            let nobody = site.send(head.replace(TOKEN, "").as_bytes());
            assert_eq!(status(&nobody), "401", "{order} {long}: {nobody:?}");
        }
        assert_eq!(site.ordered(), [""; 0], "{order}");
    }
    site.logged(&["WARN", "refused: an order is in the query"]);
    assert_eq!(status(&site.get("/healthz", "")), "200");
}

#[test]
fn slow_readers_keep_nobody_waiting_but_their_own_client() {
    let site = Site::of(|sources| sources.report.store(Arc::new(many())));
    assert!(site.get("/;csv", "").1.len() > 1_000_000);
    let begun = || {
        let mut stream = site.connect();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        stream
    };
    let slow: Vec<_> = (0..4).map(|_| begun()).collect();
    let asked = Instant::now();
    let refused = site.get("/;csv", "");
    let took = asked.elapsed();
    assert_eq!(status(&refused), "503", "{}", refused.0);
    assert_eq!(header(&refused, "retry-after"), "5");
    assert!(
        (Duration::from_secs(1)..PATIENCE).contains(&took),
        "{took:?}"
    );
    site.logged(&["WARN", "127.0.0.1", "refused: too many read long pages"]);
    let mut other = connect_from(Ipv4Addr::new(127, 0, 0, 2), site.at);
    other.write_all(b"GET /;csv HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    other.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.0 200"), "{:.100}", text);
    drop(slow);
    let deadline = Instant::now() + PATIENCE;
    while status(&site.get("/;csv", "")) != "200" {
        assert!(Instant::now() < deadline, "who has gone keeps its place");
    }
}
