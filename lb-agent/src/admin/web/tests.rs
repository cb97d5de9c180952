//! The pages over TCP: who gets what, and what becomes of those who misbehave.

mod bounds;
mod csv;
mod health;
mod slow;
mod tls;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use super::*;
use crate::admin::{Admin, Sources, tests::running::Running};

const PATIENCE: Duration = Duration::from_secs(10);
const TOKEN: &str = "Authorization: Bearer s3cret\r\n";

/// Pages over TCP.
pub(in crate::admin) struct Site {
    at: SocketAddr,
    running: Running,
    _dir: tempfile::TempDir,
}

impl Site {
    pub(in crate::admin) fn open(change: impl FnOnce(&mut Access)) -> Self {
        Self::with(change, None, |_| {})
    }

    /// With `change` done to what it shows.
    pub(in crate::admin) fn of(change: impl FnOnce(&mut Sources) + Send + 'static) -> Self {
        Self::start(|_| {}, None, change, |_| {})
    }

    /// With `before` done to it before it serves.
    fn with(
        change: impl FnOnce(&mut Access),
        certificate: Option<Certificate>,
        before: impl FnOnce(&Admin) + Send + 'static,
    ) -> Self {
        Self::start(change, certificate, |_| {}, before)
    }

    fn start(
        change: impl FnOnce(&mut Access),
        certificate: Option<Certificate>,
        sources: impl FnOnce(&mut Sources) + Send + 'static,
        before: impl FnOnce(&Admin) + Send + 'static,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (token, users) = (dir.path().join("token"), dir.path().join("users"));
        std::fs::write(&token, "s3cret\n").unwrap();
        std::fs::write(&users, "ann:word\n").unwrap();
        let mut access = Access {
            token_file: Some(token),
            users_file: Some(users),
            ..Access::default()
        };
        change(&mut access);
        let listening = Listening::open(&["127.0.0.1:0".parse().unwrap()], false).unwrap();
        let at = listening.addresses()[0];
        let running = Running::with(sources, async |admin, stop| {
            let node = "n1".to_owned();
            before(&admin);
            serve(listening, certificate, admin.router(), access, node, &stop).unwrap();
            stop.cancelled().await;
        });
        Self {
            at,
            running,
            _dir: dir,
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.at).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// The answer's head and body.
    fn send(&self, request: &[u8]) -> (String, String) {
        let mut stream = self.connect();
        // Who is refused early may not take all of it.
        let _ = stream.write_all(request);
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        (head.to_owned(), body.to_owned())
    }

    pub(in crate::admin) fn get(&self, target: &str, headers: &str) -> (String, String) {
        self.send(format!("GET {target} HTTP/1.0\r\n{headers}\r\n").as_bytes())
    }

    pub(in crate::admin) fn post(
        &self,
        target: &str,
        headers: &str,
        body: &str,
    ) -> (String, String) {
        let length = body.len();
        let head = format!("POST {target} HTTP/1.0\r\n{headers}Content-Length: {length}\r\n\r\n");
        self.send(format!("{head}{body}").as_bytes())
    }

    fn ordered(&self) -> Vec<String> {
        self.running.ordered()
    }

    fn logged(&self, parts: &[&str]) -> String {
        self.running.logged(parts)
    }

    fn log(&self) -> String {
        self.running.log()
    }
}

fn status(answer: &(String, String)) -> &str {
    answer.0.split(' ').nth(1).unwrap_or("none")
}

fn header<'a>(answer: &'a (String, String), name: &str) -> &'a str {
    let lines = answer.0.lines();
    let found = lines
        .filter_map(|line| line.split_once(": "))
        .find(|(known, _)| *known == name);
    found.map_or("", |(_, value)| value)
}

#[test]
fn everybody_may_read_and_nobody_write_without_a_secret() {
    let site = Site::open(|_| {});
    for target in [
        "/",
        "/haproxy?stats",
        "/;csv",
        "/haproxy?stats;json",
        "/metrics",
        "/v1/metrics/l4lb",
        "/v1/stats",
        "/v1/events",
        "/v1/status",
        "/v1/history?service=web.x_80",
        "/v1/vips",
        "/healthz",
        "/readyz",
        "/_haproxy_health_check",
        "/_haproxy_getpids",
        "/_haproxy_getconfig",
        "/_haproxy_getappmap",
        "/_haproxy_getvhostmap",
        "/_mlb_signal/hup",
        "/_mlb_signal/usr1",
    ] {
        let answer = site.get(target, "");
        assert_eq!(status(&answer), "200", "{target}: {answer:?}");
        assert_eq!(header(&answer, "cache-control"), "no-cache", "{target}");
    }
    for target in ["/v1/flows", "/v1/trace", "/v1/capture", "/v1/explain"] {
        let answer = site.get(target, "");
        assert_eq!(status(&answer), "401", "{target}");
        assert!(header(&answer, "www-authenticate").contains("Haproxy Statistics"));
    }
    assert_eq!(site.get("/_haproxy_getpids", "").1, "42\n");
    assert_eq!(status(&site.get("/nothing", "")), "404");
    let answer = site.get("/v1/metrics/mesos", "");
    assert_eq!((status(&answer), &*answer.1), ("404", "Unknown Registry"));
    assert_eq!(status(&site.send(b"DELETE / HTTP/1.0\r\n\r\n")), "401");
    assert_eq!(
        status(&site.post("/v1/drain?backend=10.0.0.1:80", "", "")),
        "401"
    );
    assert_eq!(status(&site.post("/haproxy?stats", "", "s=a")), "401");
    assert_eq!(site.ordered(), [""; 0]);
    let head = site.send(b"HEAD /;csv HTTP/1.0\r\n\r\n");
    assert_eq!((status(&head), &*head.1), ("200", ""));
}

#[test]
fn a_backend_has_a_history_under_each_of_its_names() {
    let site = Site::open(|_| {});
    let of = |backend: &str| {
        let target = format!("/v1/history?service=web.x_80{backend}");
        let answer = site.get(&target, "");
        let told: serde_json::Value = serde_json::from_str(&answer.1).unwrap_or_default();
        (status(&answer).to_owned(), told)
    };
    let (_, whole) = of("");
    assert!(whole["svname"].is_null());
    for name in ["10_0_0_1_80", "10.0.0.1:80"] {
        let begun = Instant::now();
        let told = loop {
            let (code, told) = of(&format!("&backend={name}"));
            assert_eq!((&*code, &told["svname"]), ("200", &"10_0_0_1_80".into()));
            if told["points"][0].is_object() {
                break told;
            }
            assert!(begun.elapsed() < PATIENCE, "no point: {told}");
        };
        assert_eq!(told["points"][0]["active"], 2, "{told}");
    }
    assert_eq!(of("&backend=10.0.0.9:80").0, "404");
}

#[test]
fn without_any_secret_a_write_says_what_would_allow_it() {
    let site = Site::open(|access| *access = Access::default());
    let answer = site.post("/v1/drain?backend=10.0.0.1:80", TOKEN, "");
    assert_eq!(status(&answer), "401", "a token that cannot be right");
    let answer = site.post("/v1/drain?backend=10.0.0.1:80", "", "");
    assert_eq!(status(&answer), "403");
    assert!(answer.1.contains("--admin-token-file"), "{answer:?}");
    let answer = site.post("/haproxy?stats", "", "s=10_0_0_1_80&action=drain&b=%237");
    assert_eq!(header(&answer, "location"), "/haproxy?stats;st=DENY");
    assert_eq!(site.ordered(), [""; 0]);
}

#[test]
fn a_secret_opens_what_it_is_for() {
    use base64::Engine as _;
    let basic = |pair| base64::engine::general_purpose::STANDARD.encode(pair);
    let site = Site::open(|_| {});
    for headers in [
        TOKEN.to_owned(),
        format!("Authorization: Basic {}\r\n", basic("ann:word")),
    ] {
        let answer = site.post("/v1/drain?backend=10.0.0.1:80", &headers, "");
        assert_eq!(status(&answer), "200", "{answer:?}");
        assert_eq!(site.ordered(), ["drain 10.0.0.1:80"]);
        assert_eq!(status(&site.get("/v1/flows", &headers)), "200");
    }
    let answer = site.post("/v1/weight?backend=10.0.0.1:80&weight=13", TOKEN, "");
    assert_eq!((status(&answer), &*answer.1), ("409", "no such luck\n"));
    for wrong in ["Bearer s3cre", "Basic YTpi", "Basic !", "Bearer"] {
        let answer = site.post(
            "/v1/drain?backend=10.0.0.1:80",
            &format!("Authorization: {wrong}\r\n"),
            "",
        );
        assert_eq!(status(&answer), "401", "{wrong}");
    }
    let twice = format!("{TOKEN}{TOKEN}");
    assert_eq!(status(&site.post("/v1/ready?node=true", &twice, "")), "401");
}

#[test]
fn reading_can_be_closed_too() {
    let site = Site::open(|access| access.closed = true);
    for target in [
        "/",
        "/;csv",
        "/metrics",
        "/v1/stats",
        "/v1/status",
        "/_haproxy_getpids",
        "/nothing",
    ] {
        let answer = site.get(target, "");
        assert_eq!(status(&answer), "401", "{target}");
        assert!(
            header(&answer, "www-authenticate").starts_with("Basic realm=\"Haproxy Statistics\"")
        );
        assert_ne!(status(&site.get(target, TOKEN)), "401", "{target}");
    }
    assert_eq!(status(&site.get("/healthz", "")), "200");
}

#[test]
fn no_page_of_another_site_can_write() {
    use base64::Engine as _;
    let password = base64::engine::general_purpose::STANDARD.encode("ann:word");
    let password = format!("Authorization: Basic {password}\r\n");
    let site = Site::open(|_| {});
    let host = format!("Host: {}\r\n", site.at);
    let write = |headers: &str| {
        let headers = format!("{password}{headers}");
        let answer = site.post("/v1/drain?backend=10.0.0.1:80", &headers, "");
        let form = site.post(
            "/haproxy?stats",
            &headers,
            "s=10_0_0_1_80&action=drain&b=web.x_80",
        );
        (
            status(&answer).to_owned(),
            header(&form, "location").to_owned(),
        )
    };
    let done = ("200".to_owned(), "/haproxy?stats;st=DONE".to_owned());
    let refused = ("403".to_owned(), String::new());
    let same = format!("{host}Origin: http://{}\r\n", site.at);
    assert_eq!(write(&same), done);
    assert_eq!(
        write(&format!("{same}Sec-Fetch-Site: same-origin\r\n")),
        done
    );
    assert_eq!(write(&format!("{host}Sec-Fetch-Site: none\r\n")), done);
    site.ordered();
    for headers in [
        format!("{host}Origin: http://evil.example\r\n"),
        format!("{host}Origin: null\r\n"),
        format!("{host}Sec-Fetch-Site: cross-site\r\n"),
        format!("{same}Sec-Fetch-Site: same-site\r\n"),
        // A name that was made to point here.
        "Host: evil.example\r\nOrigin: http://evil.example\r\nSec-Fetch-Site: same-origin\r\n"
            .to_owned(),
        "Host: evil.example\r\n".to_owned(),
    ] {
        assert_eq!(write(&headers), refused, "{headers}");
    }
    assert_eq!(site.ordered(), [""; 0]);
    // Nor read, where only the node itself should.
    assert_eq!(status(&site.get("/;csv", "Host: evil.example\r\n")), "403");
    assert_eq!(status(&site.get("/;csv", "Host: n1:9090\r\n")), "200");
    let hup = site.get(
        "/_mlb_signal/hup",
        &format!("{host}Sec-Fetch-Site: cross-site\r\n"),
    );
    assert_eq!(status(&hup), "403");
    // A token is nothing that a browser sends by itself.
    let named = format!("{TOKEN}Host: lb.example\r\n");
    assert_eq!(
        status(&site.post("/v1/drain?backend=10.0.0.1:80", &named, "")),
        "200"
    );
}

#[test]
fn the_form_answers_with_haproxys_codes() {
    let site = Site::open(|_| {});
    let code = |body: &str| {
        let answer = site.post("/haproxy?stats;up;st=OLD", TOKEN, body);
        assert_eq!((status(&answer), &*answer.1), ("303", ""), "{body}");
        let location = header(&answer, "location").to_owned();
        location
            .strip_prefix("/haproxy?stats;up;st=")
            .unwrap_or_else(|| panic!("{location}"))
            .to_owned()
    };
    assert_eq!(
        code("s=10_0_0_1_80&s=10_0_0_2_80&action=drain&b=%237"),
        "DONE"
    );
    let all = [
        "drain 10.0.0.1:80 of web.x:80/tcp",
        "drain 10.0.0.2:80 of web.x:80/tcp",
    ];
    assert_eq!(site.ordered(), all);
    assert_eq!(
        code("s=10_0_0_1_80&s=other&action=maint&b=web.x_80"),
        "PART"
    );
    assert_eq!(site.ordered(), ["maintenance 10.0.0.1:80 of web.x:80/tcp"]);
    assert_eq!(code("s=10_0_0_1_80&action=ready&b=%237"), "DONE");
    assert_eq!(site.ordered(), ["ready 10.0.0.1:80 of web.x:80/tcp"]);
    for (action, ordered) in [
        ("shutdown", "reset"),
        ("hrunn", "health up"),
        ("hnolb", "health stopping"),
        ("hdown", "health down"),
        ("dhlth", "checks off"),
        ("ehlth", "checks on"),
    ] {
        let body = format!("s=10_0_0_1_80&action={action}&b=%237");
        assert_eq!(code(&body), "DONE", "{action}");
        let expected = format!("{ordered} 10.0.0.1:80 of web.x:80/tcp");
        assert_eq!(site.ordered(), [expected], "{action}");
    }
    for (body, expected) in [
        ("", "NONE"),
        ("action=drain&b=%237", "NONE"),
        ("s=10_0_0_1_80&action=dance&b=%237", "ERRP"),
        ("s=10_0_0_1_80&action=drain&b=%238", "ERRP"),
        ("s=other&action=drain&b=%237", "ERRP"),
        ("s=10_0_0_1_80&action=drain", "ERRP"),
        ("s=10_0_0_1_80&action=dagent&b=%237", "DONE"),
        ("s=other&action=shutdown&b=%237", "ERRP"),
        (&"s".repeat(16 * 1_024 + 1), "EXCD"),
    ] {
        assert_eq!(code(body), expected, "{body:.40}");
    }
    assert_eq!(site.ordered(), [""; 0]);
}

#[test]
fn markup_in_names_is_shown_as_text() {
    let site = Site::open(|_| {});
    assert_eq!(status(&site.get("/haproxy?stats;st=<script>", "")), "400");
    let page = site.get("/haproxy?stats;st=%3Cscript%3E", "").1;
    assert!(
        page.contains("HAProxy version") && page.contains("idle = 100"),
        "{page}"
    );
    assert!(!page.contains("<script>"), "{page}");
    let answer = site.get("/", "");
    assert!(header(&answer, "content-security-policy").contains("default-src 'none'"));
}

#[test]
fn what_is_not_http_or_too_much_of_it_is_refused_and_harms_nobody() {
    let site = Site::open(|_| {});
    for (request, expected) in [
        (b"nonsense\r\n\r\n".to_vec(), "400"),
        (b"GET / HTTP/9.9\r\n\r\n".to_vec(), "400"),
        (
            format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000)).into_bytes(),
            "414",
        ),
        (
            format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(100_000)).into_bytes(),
            "431",
        ),
        (
            format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(500)).into_bytes(),
            "431",
        ),
        (
            b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n".to_vec(),
            "400",
        ),
        (vec![0; 1_000], "400"),
    ] {
        let answer = site.send(&request);
        let shown = String::from_utf8_lossy(&request[..request.len().min(30)]).into_owned();
        // The connection may be reset before all of what is too much was sent.
        assert!(
            [expected, "431", "none"].contains(&status(&answer)),
            "{shown}: {answer:?}"
        );
        assert_ne!(status(&answer), "200", "{shown}");
    }
    assert_eq!(status(&site.get("/healthz", "")), "200");
}

#[test]
fn who_says_nothing_is_cut_off_and_many_of_them_keep_nobody_out() {
    let site = Site::open(|_| {});
    // More than one address may have.
    let idle: Vec<_> = (0..300).map(|_| TcpStream::connect(site.at)).collect();
    let mut half = site.connect();
    let _ = half.write_all(b"GET / HTTP/1.1\r\nHost: x");
    // All of this address' places are taken until the first are cut off.
    let deadline = Instant::now() + Duration::from_secs(30);
    while status(&site.get("/healthz", "")) != "200" {
        assert!(
            Instant::now() < deadline,
            "idle connections keep everybody out"
        );
    }
    drop(idle);
}
