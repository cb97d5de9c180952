//! Connections to what is behind a VIP, one after the other, while something happens to it.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::lab::{Host, http};

/// When each connection began, and what came of it.
pub type Answers = Vec<(Instant, Result<String, String>)>;

/// The name that the container behind a VIP says, on a connection of its own.
///
/// # Errors
///
/// There is none, or it says something else.
pub fn ask(client: &Host, vip: SocketAddr) -> Result<String, String> {
    let answer = client
        .enter(|| http::get(vip, "/index.html"))
        .expect("entered");
    match answer {
        Ok(reply) if reply.status == 200 => Ok(reply.body.trim().to_owned()),
        Ok(reply) => Err(reply.head),
        Err(why) => Err(format!("{why:#}")),
    }
}

/// Answers of so many connections, by container.
pub fn shares(client: &Host, vip: SocketAddr, connections: u32) -> BTreeMap<String, u32> {
    let mut shares = BTreeMap::new();
    for _ in 0..connections {
        *shares
            .entry(ask(client, vip).expect("an answer"))
            .or_default() += 1;
    }
    shares
}

/// Asks all the time while `act` is under way.
pub fn during(client: &Host, vip: SocketAddr, act: impl FnOnce()) -> Answers {
    let answers = Mutex::<Answers>::default();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                let answer = ask(client, vip);
                answers.lock().expect("no panic").push((began, answer));
            }
        });
        act();
        stop.store(true, Ordering::Relaxed);
    });
    answers.into_inner().expect("no panic")
}

/// Of the answers, what was none.
pub fn failures(answers: &[(Instant, Result<String, String>)]) -> Vec<&String> {
    answers
        .iter()
        .filter_map(|(_, answer)| answer.as_ref().err())
        .collect()
}

/// A connection whose request is never complete, so that the server waits for the rest.
pub fn half_asked(client: &Host, vip: SocketAddr) -> TcpStream {
    let mut stream = client
        .enter(|| TcpStream::connect_timeout(&vip, Duration::from_secs(2)))
        .expect("entered")
        .expect("connected");
    let brief = Some(Duration::from_millis(200));
    stream.set_read_timeout(brief).expect("a time-out");
    stream.write_all(b"GET /").expect("sent");
    stream
}

/// Whether the connection is still there, after one more byte of the request.
///
/// # Panics
///
/// It is neither.
pub fn goes_on(mut stream: &TcpStream) -> bool {
    let sent = stream.write_all(b"x");
    match sent.and_then(|()| stream.read(&mut [0])) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => true,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => false,
        // The server's kernel ends it with the process.
        Ok(0) => false,
        other => panic!("neither on nor over: {other:?}"),
    }
}
