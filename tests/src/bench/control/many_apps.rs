//! A Marathon whose answers are ready beforehand: it notes when each was sent.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::lab::{Host, wait_until};

const STREAM: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream;charset=utf-8\r\nConnection: close\r\n\r\n";

/// The server. Its threads end with the process.
pub(super) struct Answers(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    bodies: HashMap<String, Arc<[u8]>>,
    /// When the last byte of each answer was written.
    sent: HashMap<String, Instant>,
    streams: Vec<TcpStream>,
    /// Requests being answered, and the most there ever were at once.
    busy: (usize, usize),
}

// === impl Answers ===

impl Answers {
    /// Serves in a host of the lab.
    pub(super) fn serve(host: &Host, at: SocketAddr, apps: &Value) -> Result<Self> {
        let listener = host.enter(|| TcpListener::bind(at))??;
        let answers = Self(Arc::default());
        let info = json!({"marathon_config": {"framework_name": "marathon"}});
        for (path, body) in [
            ("/v2/info", &info),
            ("/v2/pods/::status", &json!([])),
            ("/v2/apps", apps),
        ] {
            answers.set(path, body);
        }
        let state = Arc::clone(&answers.0);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                thread::spawn(move || _ = converse(&stream, &state));
            }
        });
        Ok(answers)
    }

    /// What a path answers from now on.
    pub(super) fn set(&self, path: &str, body: &Value) {
        let body = body.to_string().into_bytes().into();
        lock(&self.0).bodies.insert(path.to_owned(), body);
    }

    /// Sends an event to every open stream.
    pub(super) fn event(&self, data: &Value) {
        let name = data["eventType"].as_str().unwrap_or_default();
        let event = format!("event: {name}\r\ndata: {data}\r\n\r\n");
        for stream in &mut lock(&self.0).streams {
            // A stream that was closed is not there any more.
            _ = stream.write_all(event.as_bytes());
        }
    }

    /// When the latest answer at a path was complete.
    pub(super) fn answered(&self, path: &str) -> Result<Instant> {
        let sent = lock(&self.0).sent.get(path).copied();
        sent.with_context(|| format!("nobody asked for {path}"))
    }

    /// Waits until somebody listens to events.
    pub(super) fn wait_for_stream(&self) -> Result<()> {
        wait_until("an event stream", Duration::from_secs(10), || {
            !lock(&self.0).streams.is_empty()
        })
    }

    /// The most requests that were ever under way at once.
    pub(super) fn most_at_once(&self) -> usize {
        lock(&self.0).busy.1
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers the requests of one connection.
fn converse(stream: &TcpStream, state: &Mutex<State>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut requests = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if requests.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let target = line.split(' ').nth(1).context("no request")?.to_owned();
        while line.trim() != "" {
            line.clear();
            requests.read_line(&mut line)?;
        }
        let path = target.split('?').next().unwrap_or_default();
        let mut out = stream;
        if path == "/v2/events" {
            out.write_all(STREAM.as_bytes())?;
            lock(state).streams.push(stream.try_clone()?);
            return Ok(());
        }
        let body = {
            let mut state = lock(state);
            state.busy.0 += 1;
            state.busy.1 = state.busy.1.max(state.busy.0);
            state.bodies.get(path).cloned()
        };
        let (status, body) = match &body {
            Some(body) => ("200 OK", &body[..]),
            None => ("404 Not Found", &b"{}"[..]),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let written = out.write_all(head.as_bytes());
        let written = written.and_then(|()| out.write_all(body));
        let mut state = lock(state);
        state.busy.0 -= 1;
        state.sent.insert(path.to_owned(), Instant::now());
        written?;
    }
}
