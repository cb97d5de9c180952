//! A Marathon whose answers are ready beforehand: it notes when each was sent, and can be in trouble.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::lab::{Host, wait_until};

const STREAM: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream;charset=utf-8\r\nConnection: close\r\n\r\n";

/// Who takes nothing for so long is too slow for its stream: Marathon counts the events that wait, 1,024 of them.
const SLOW: Duration = Duration::from_millis(500);

/// What comes of a request while everything is well: `200 OK`, and this sort of body.
const WELL: (&str, &str) = ("200 OK", "application/json");

/// The server. Its threads end with the process.
pub struct Answers(Arc<Mutex<State>>);

/// What is wrong with a Marathon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It takes requests and never answers; streams say nothing.
    Frozen,
    /// It closes every connection.
    Closing,
    /// It sends half of each answer.
    Half,
    /// It answers 500.
    Failing,
    /// It answers something else.
    Garbage,
}

#[derive(Default)]
struct State {
    bodies: HashMap<String, Arc<[u8]>>,
    /// When the last byte of each answer was written.
    sent: HashMap<String, Instant>,
    streams: Vec<TcpStream>,
    /// Connections whose requests are not answered.
    held: Vec<TcpStream>,
    /// Requests being answered, and the most there ever were at once.
    busy: (usize, usize),
    /// Requests that came.
    requests: usize,
    trouble: Option<Trouble>,
}

// === impl Answers ===

impl Answers {
    /// Serves in a host of the lab.
    ///
    /// # Errors
    ///
    /// The address cannot be bound.
    pub fn serve(host: &Host, at: SocketAddr, framework: &str, apps: &Value) -> Result<Self> {
        let listener = host.enter(|| TcpListener::bind(at))??;
        let answers = Self(Arc::default());
        let info = json!({"marathon_config": {"framework_name": framework}});
        answers.set("/v2/info", &info);
        answers.set("/v2/pods/::status", &json!([]));
        answers.set("/v2/apps", apps);
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
    pub fn set(&self, path: &str, body: &Value) {
        let body = body.to_string().into_bytes().into();
        lock(&self.0).bodies.insert(path.to_owned(), body);
    }

    /// What is wrong with it from now on. What was held back is cut off, as by a restart.
    pub fn set_trouble(&self, trouble: Option<Trouble>) {
        let mut state = lock(&self.0);
        state.trouble = trouble;
        let mut ended = std::mem::take(&mut state.held);
        if trouble != Some(Trouble::Frozen) {
            ended.append(&mut state.streams);
        }
        for stream in ended {
            // The other side may have closed it.
            _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Sends an event to every open stream. Whoever does not take it is cut off, as Marathon does.
    pub fn event(&self, data: &Value) {
        let name = data["eventType"].as_str().unwrap_or_default();
        let event = format!("event: {name}\r\ndata: {data}\r\n\r\n");
        lock(&self.0).streams.retain_mut(|stream| {
            let taken = stream.write_all(event.as_bytes()).is_ok();
            if !taken {
                // Copies of it may be held elsewhere; the other side may have closed it.
                _ = stream.shutdown(Shutdown::Both);
            }
            taken
        });
    }

    /// Whether somebody listens to events.
    pub fn is_heard(&self) -> bool {
        !lock(&self.0).streams.is_empty()
    }

    /// When the latest answer at a path was complete.
    ///
    /// # Errors
    ///
    /// There was none.
    pub fn answered(&self, path: &str) -> Result<Instant> {
        let sent = lock(&self.0).sent.get(path).copied();
        sent.with_context(|| format!("nobody asked for {path}"))
    }

    /// Waits until somebody listens to events.
    ///
    /// # Errors
    ///
    /// Nobody does within 30 s.
    pub fn wait_for_stream(&self) -> Result<()> {
        wait_until("an event stream", Duration::from_secs(30), || {
            self.is_heard()
        })
    }

    /// The most requests that were ever under way at once.
    pub fn most_at_once(&self) -> usize {
        lock(&self.0).busy.1
    }

    /// How many requests came so far, those for streams left out.
    pub fn requests(&self) -> usize {
        lock(&self.0).requests
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
        let (trouble, body) = {
            let mut state = lock(state);
            if path == "/v2/events" && state.trouble.is_none() {
                out.write_all(STREAM.as_bytes())?;
                stream.set_write_timeout(Some(SLOW))?;
                state.streams.push(stream.try_clone()?);
                return Ok(());
            }
            if state.trouble == Some(Trouble::Frozen) {
                state.held.push(stream.try_clone()?);
                return Ok(());
            }
            state.requests += usize::from(path != "/v2/events");
            state.busy.0 += 1;
            state.busy.1 = state.busy.1.max(state.busy.0);
            (state.trouble, state.bodies.get(path).cloned())
        };
        let body = body.as_deref();
        let ((status, kind), body) = match trouble {
            Some(Trouble::Failing) => (("500 Internal Server Error", "text/plain"), &b"no"[..]),
            Some(Trouble::Garbage) => (("200 OK", "text/html"), &b"<html>Welcome</html>"[..]),
            _ => match body {
                Some(body) => (WELL, body),
                None => (("404 Not Found", WELL.1), &b"{}"[..]),
            },
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let part = match trouble {
            Some(Trouble::Half) => &body[..body.len() / 2],
            _ => body,
        };
        let written = match trouble {
            Some(Trouble::Closing) => Ok(()),
            _ => out
                .write_all(head.as_bytes())
                .and_then(|()| out.write_all(part)),
        };
        let mut state = lock(state);
        state.busy.0 -= 1;
        if trouble.is_none() {
            state.sent.insert(path.to_owned(), Instant::now());
        }
        written?;
        if matches!(trouble, Some(Trouble::Closing | Trouble::Half)) {
            // Copies of it may be held elsewhere.
            stream.shutdown(Shutdown::Both)?;
            return Ok(());
        }
    }
}
