//! HAProxy's CSV over HTTP and on the stats socket.

use super::*;
use crate::admin::{
    haproxy::{self, Place, StatsSocket},
    stats::csv::COUNT,
};

#[test]
fn the_csv_is_the_same_over_http_and_on_the_socket_but_for_the_empty_line() {
    let dir = tempfile::tempdir().unwrap();
    let socket = StatsSocket::open(&Place::default(), dir.path()).unwrap();
    let listening = Listening::open(&["127.0.0.1:0".parse().unwrap()], false).unwrap();
    let at = listening.addresses()[0];
    let _running = Running::start(async |admin, stop| {
        let (router, node) = (admin.clone().router(), "n1".to_owned());
        serve(listening, None, router, Access::default(), node, &stop).unwrap();
        haproxy::serve(socket, admin, stop).await.unwrap();
    });
    let read = |mut stream: Box<dyn ReadWrite>, text: &str| {
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let deadline = Instant::now() + PATIENCE;
    let body = loop {
        let page = Box::new(TcpStream::connect(at).unwrap());
        let page = read(page, "GET /;csv HTTP/1.0\r\n\r\n");
        let (_, body) = page.split_once("\r\n\r\n").unwrap();
        let path = dir.path().join("stats.sock");
        let stat = Box::new(std::os::unix::net::UnixStream::connect(path).unwrap());
        let stat = read(stat, "show stat\n");
        // Of one sample: the next one is a second older.
        if stat == format!("{body}\n") {
            break body.to_owned();
        }
        assert!(Instant::now() < deadline, "{body}\nis not\n{stat}");
    };
    assert!(body.starts_with("# pxname,svname,"), "{body}");
    assert!(body.ends_with(",\n") && !body.ends_with("\n\n"), "{body:?}");
    assert_eq!(body.lines().count(), 5, "{body}");
    for line in body.lines() {
        assert_eq!(line.matches(',').count(), COUNT, "{line}");
        assert!(line.ends_with(','), "{line}");
    }
}

/// Either kind of connection.
trait ReadWrite: std::io::Read + std::io::Write {}

impl<S: std::io::Read + std::io::Write> ReadWrite for S {}
