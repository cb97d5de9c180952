//! Whoever is slow is cut off, and the log says so; whoever only rests between two questions is not complained of.

use std::{net::Ipv4Addr, sync::Arc};

use super::{
    bounds::{connect_from, raise_limit},
    *,
};
use crate::admin::tests::running::many;

/// Longer than anybody is waited for.
const LONG: Duration = Duration::from_secs(60);

/// A connection over which this was sent, and how the log names it.
fn begun(site: &Site, request: &str) -> (TcpStream, String) {
    let mut stream = site.connect();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let own = stream.local_addr().unwrap();
    (stream, own.to_string())
}

/// All that comes until the connection ends.
fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        let kind = error.kind();
        assert_eq!(kind, std::io::ErrorKind::ConnectionReset, "{error}");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn who_does_not_come_to_the_point_is_cut_off_and_said() {
    let site = Site::open(|_| {});
    let (mut silent, who_is_silent) = begun(&site, "");
    let (mut half, who_says_half) = begun(&site, "GET / HTTP/1.1\r\nHost: n1");
    let (mut form, who_sends_a_form) = begun(
        &site,
        &format!("POST /haproxy?stats HTTP/1.0\r\n{TOKEN}Content-Length: 99\r\n\r\ns=1"),
    );
    let (mut rests, who_rests) = begun(&site, "GET /healthz HTTP/1.1\r\nHost: n1\r\n\r\n");
    let (mut again, who_asks_half) = begun(&site, "GET /healthz HTTP/1.1\r\nHost: n1\r\n\r\n");
    let mut answer = [0; 12];
    again.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    again.write_all(b"GET /hea").unwrap();

    // All others are served meanwhile.
    assert_eq!(status(&site.get("/healthz", "")), "200");
    let late = "refused: no whole request within 10 s";
    for who in [&who_is_silent, &who_says_half, &who_asks_half] {
        site.logged(&["WARN", &format!("peer={who}"), late]);
    }
    let late = "refused: a form, not all of it came in time";
    site.logged(&["WARN", &who_sends_a_form, late]);
    assert!(rest(&mut form).contains("/haproxy?stats;st=UNKN"));
    assert_eq!(rest(&mut silent), "");
    assert_eq!(rest(&mut half), "");
    rest(&mut again);
    let answered = rest(&mut rests);
    assert!(answered.starts_with("HTTP/1.1 200") && answered.ends_with("ok\n"));
    let log = site.log();
    let mut lines = log.lines();
    let of_resting = lines.find(|line| line.contains(&who_rests));
    assert_eq!(of_resting, None, "it was answered");
    assert_eq!(site.ordered(), [""; 0]);
}

#[test]
fn who_takes_nothing_of_an_answer_is_cut_off_and_said() {
    let site = Site::of(|sources| sources.report.store(Arc::new(many())));
    let (stream, who) = begun(&site, "GET /metrics HTTP/1.0\r\n\r\n");
    let why = "refused: too slow to take an answer";
    site.logged(&["WARN", &format!("peer={who}"), why]);
    // It was there all the time.
    drop(stream);
}

#[test]
fn all_places_taken_is_said_once_and_they_are_given_again() {
    raise_limit();
    let site = Site::open(|_| {});
    let address = |last| Ipv4Addr::new(127, 0, 0, last);
    let idle: Vec<_> = (1..=8)
        .flat_map(|last| (0..64).map(move |_| address(last)))
        .map(|from| connect_from(from, site.at))
        .collect();
    let full = "all 512 connections to the admin port are taken";
    site.logged(&["WARN", full]);
    let mut other = connect_from(address(9), site.at);
    other.set_read_timeout(Some(LONG)).unwrap();
    other.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
    assert!(rest(&mut other).starts_with("HTTP/1.0 200"));
    assert_eq!(site.log().matches(full).count(), 1);
    drop(idle);
}

#[test]
fn a_body_that_nobody_asked_for_is_not_read() {
    /// So much would be sent; what the kernel keeps for two sockets is a tenth of it.
    const PIECES: usize = 2_000;
    let site = Site::open(|_| {});
    let head = "GET /healthz HTTP/1.1\r\nHost: n1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (mut stream, _) = begun(&site, head);
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let piece = format!("10000\r\n{}\r\n", "a".repeat(0x1_0000));
    let all = (0..PIECES).all(|_| stream.write_all(piece.as_bytes()).is_ok());
    assert!(!all, "it reads what it does not want");
    assert_eq!(status(&site.get("/healthz", "")), "200");
}
