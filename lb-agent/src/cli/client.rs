//! Asks the running agent: one HTTP/1.0 request over its unix socket.
//!
//! HTTP/1.0 because the answer then ends with the connection: no chunks, no runtime, no HTTP library.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::de::DeserializeOwned;

use crate::{
    admin::{
        report::{Resolution, StatusReport},
        web::COMMAND,
    },
    look::{Explanation, FlowsReport},
};

/// An agent that says nothing for so long will not answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer; each is one sentence with the socket's path.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("no agent is running: nobody listens on {}", .0.display())]
    NotRunning(PathBuf),
    #[error("cannot ask the agent on {}: permission denied; run this as root", .0.display())]
    Denied(PathBuf),
    #[error("the agent on {} did not answer: {error}", .path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("the agent on {} answered with an error: {reason}", .path.display())]
    Refused { path: PathBuf, reason: String },
    #[error("the agent on {} gave an answer that this version does not understand: {reason}", .path.display())]
    Malformed { path: PathBuf, reason: String },
}

impl ClientError {
    pub(super) fn not_running(&self) -> bool {
        matches!(self, Self::NotRunning(_))
    }
}

/// The agent's report about itself.
pub(super) fn status(socket: &Path) -> Result<StatusReport, ClientError> {
    get(socket, "/v1/status")
}

/// Statistics, or those parts of them that `T` has.
#[cfg(feature = "tui")]
pub(super) fn stats<T: DeserializeOwned>(socket: &Path) -> Result<T, ClientError> {
    get(socket, "/v1/stats")
}

/// What the agent's DNS says of a name.
pub(super) fn resolve(socket: &Path, name: &str) -> Result<Resolution, ClientError> {
    get(
        socket,
        &format!("/v1/resolve?name={}", percent_encoded(name)),
    )
}

/// Live flows; `query`: which.
pub(super) fn flows(socket: &Path, query: &[(&str, String)]) -> Result<FlowsReport, ClientError> {
    get(socket, &format!("/v1/flows?{}", encoded(query)))
}

/// What becomes of a flow; `query`: which.
pub(super) fn explain(socket: &Path, query: &[(&str, String)]) -> Result<Explanation, ClientError> {
    get(socket, &format!("/v1/explain?{}", encoded(query)))
}

/// Gives an order about backends; what then holds, in lines.
pub(super) fn order(
    socket: &Path,
    page: &str,
    query: &[(&str, String)],
) -> Result<Vec<String>, ClientError> {
    ask(socket, "POST", &format!("{page}?{}", encoded(query)))
}

/// An answer that goes on until one side ends it.
pub(super) struct Stream {
    path: PathBuf,
    stream: UnixStream,
    /// What came with the head of the answer.
    early: Vec<u8>,
}

/// Asks for something that goes on; the agent has said that it does.
pub(super) fn stream(
    socket: &Path,
    page: &str,
    query: &[(&str, String)],
) -> Result<Stream, ClientError> {
    let target = format!("{page}?{}", encoded(query));
    let (status, early, stream) = begin(socket, &target).map_err(|error| failed(socket, error))?;
    let mut stream = Stream {
        path: socket.to_owned(),
        stream,
        early,
    };
    if status == 200 {
        return Ok(stream);
    }
    let mut body = std::mem::take(&mut stream.early);
    while let Some(more) = stream.read(Some(PATIENCE))? {
        if more.is_empty() {
            break;
        }
        body.extend(more);
    }
    Err(ClientError::Refused {
        path: stream.path,
        reason: format!("{status} {}", String::from_utf8_lossy(&body).trim()),
    })
}

/// Status code, what came with the head, and the rest.
fn begin(socket: &Path, target: &str) -> io::Result<(u16, Vec<u8>, UnixStream)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {target} HTTP/1.0\r\nHost: lb-agent\r\n\r\n").as_bytes())?;
    let (mut answer, mut room) = (Vec::new(), [0; 4_096]);
    loop {
        if let Some((status, body)) = split(&answer) {
            return Ok((status, body.to_vec(), stream));
        }
        match stream.read(&mut room)? {
            0 => {
                let text = "it ended before it began";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
            }
            read => answer.extend(&room[..read]),
        }
    }
}

impl Stream {
    /// The next bytes, none when nothing came for so long; `None` when the agent ended it.
    pub(super) fn read(
        &mut self,
        patience: Option<Duration>,
    ) -> Result<Option<Vec<u8>>, ClientError> {
        if !self.early.is_empty() {
            return Ok(Some(std::mem::take(&mut self.early)));
        }
        let mut room = vec![0; 1 << 16];
        let read = self
            .stream
            .set_read_timeout(patience)
            .and_then(|()| self.stream.read(&mut room));
        match read {
            Ok(0) => Ok(None),
            Ok(read) => {
                room.truncate(read);
                Ok(Some(room))
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(Some(Vec::new()))
            }
            Err(error) => Err(failed(&self.path, error)),
        }
    }

    /// That the agent ended it.
    pub(super) fn broken(self) -> ClientError {
        let error = io::Error::new(io::ErrorKind::UnexpectedEof, "it has ended");
        ClientError::Io {
            path: self.path,
            error,
        }
    }
}

/// Names and values as the query of an address.
fn encoded(query: &[(&str, String)]) -> String {
    let pairs = query.iter();
    let pairs = pairs.map(|(name, value)| format!("{name}={}", percent_encoded(value)));
    pairs.collect::<Vec<_>>().join("&")
}

fn get<T: DeserializeOwned>(socket: &Path, target: &str) -> Result<T, ClientError> {
    ask(socket, "GET", target)
}

fn ask<T: DeserializeOwned>(socket: &Path, method: &str, target: &str) -> Result<T, ClientError> {
    let path = || socket.to_owned();
    let answer = exchange(socket, method, target).map_err(|error| failed(socket, error))?;
    let malformed = |reason: String| ClientError::Malformed {
        path: path(),
        reason,
    };
    let (status, body) = split(&answer).ok_or_else(|| malformed("it is not HTTP".to_owned()))?;
    if status != 200 {
        let reason = format!("{status} {}", String::from_utf8_lossy(body).trim());
        return Err(ClientError::Refused {
            path: path(),
            reason,
        });
    }
    serde_json::from_slice(body).map_err(|error| malformed(error.to_string()))
}

/// What is wrong when the socket cannot be used.
fn failed(socket: &Path, error: io::Error) -> ClientError {
    let path = socket.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning(path),
        io::ErrorKind::PermissionDenied => ClientError::Denied(path),
        io::ErrorKind::WouldBlock => {
            let text = format!("nothing for {} s", PATIENCE.as_secs());
            let error = io::Error::new(io::ErrorKind::TimedOut, text);
            ClientError::Io { path, error }
        }
        _ => ClientError::Io { path, error },
    }
}

fn exchange(socket: &Path, method: &str, target: &str) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = format!(
        "{method} {target} HTTP/1.0\r\nHost: lb-agent\r\nUser-Agent: {COMMAND}\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Status code and body.
fn split(answer: &[u8]) -> Option<(u16, &[u8])> {
    const END_OF_HEAD: &[u8] = b"\r\n\r\n";
    let end = answer
        .windows(END_OF_HEAD.len())
        .position(|window| window == END_OF_HEAD)?;
    let (head, body) = answer.split_at(end);
    let status = std::str::from_utf8(head)
        .ok()?
        .strip_prefix("HTTP/1.")?
        .split(' ')
        .nth(1)?
        .parse()
        .ok()?;
    Some((status, body.get(END_OF_HEAD.len()..)?))
}

/// RFC 3986 section 2.1: all but the unreserved characters.
fn percent_encoded(text: &str) -> String {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| {
            if unreserved(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_slashes_stays_one_parameter() {
        assert_eq!(percent_encoded("/a b&c=d.é"), "%2Fa%20b%26c%3Dd.%C3%A9");
    }

    #[test]
    fn an_answer_splits_into_status_and_body() {
        assert_eq!(
            split(b"HTTP/1.0 404 Not Found\r\nx: y\r\n\r\nno\r\n\r\n"),
            Some((404, &b"no\r\n\r\n"[..]))
        );
        assert_eq!(split(b"SSH-2.0\r\n\r\n"), None);
        assert_eq!(split(b"HTTP/1.1 200 OK\r\n"), None);
    }
}
