//! Asks the running agent: one HTTP/1.0 GET over its unix socket.
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
    admin::report::{Resolution, StatusReport},
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

/// Names and values as the query of an address.
fn encoded(query: &[(&str, String)]) -> String {
    let pairs = query.iter();
    let pairs = pairs.map(|(name, value)| format!("{name}={}", percent_encoded(value)));
    pairs.collect::<Vec<_>>().join("&")
}

fn get<T: DeserializeOwned>(socket: &Path, target: &str) -> Result<T, ClientError> {
    let path = || socket.to_owned();
    let answer = exchange(socket, target).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ClientError::NotRunning(path())
        }
        io::ErrorKind::PermissionDenied => ClientError::Denied(path()),
        io::ErrorKind::WouldBlock => {
            let error = io::Error::new(
                io::ErrorKind::TimedOut,
                format!("nothing for {} s", PATIENCE.as_secs()),
            );
            ClientError::Io {
                path: path(),
                error,
            }
        }
        _ => ClientError::Io {
            path: path(),
            error,
        },
    })?;
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

fn exchange(socket: &Path, target: &str) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {target} HTTP/1.0\r\nHost: lb-agent\r\n\r\n").as_bytes())?;
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
