//! The few HTTP requests that tests make, without a client library: HTTP/1.0, so that no answer is chunked
//! and each ends with its connection.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(10);

/// An HTTP answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The status line and all headers, as received.
    pub head: String,
    /// The body.
    pub body: String,
}

// === impl Reply ===

impl Reply {
    /// The body as JSON.
    ///
    /// # Errors
    ///
    /// It is not JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("not JSON: {}", self.body))
    }

    /// A header's value; the name's letter case does not matter.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// One request with a JSON body, or none if `body` is `Value::Null`.
///
/// # Errors
///
/// The connection fails, or what comes back is not HTTP.
pub fn request(at: SocketAddr, method: &str, path: &str, body: &Value) -> Result<Reply> {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let headers = [("Content-Type", "application/json")];
    read(open(at, method, path, &headers, &body)?).with_context(|| format!("{method} {path}"))
}

/// Reads an answer to the end of its connection.
///
/// # Errors
///
/// The connection fails or falls silent, or what comes back is not HTTP.
pub fn read(mut stream: TcpStream) -> Result<Reply> {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&String::from_utf8_lossy(&answer))
}

/// A GET without a body.
///
/// # Errors
///
/// As [`request`].
pub fn get(at: SocketAddr, path: &str) -> Result<Reply> {
    request(at, "GET", path, &Value::Null)
}

/// Sends a request and returns the connection to read the answer from, for streams.
///
/// # Errors
///
/// The connection fails.
pub fn open(
    at: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&at, TIMEOUT)
        .with_context(|| format!("cannot connect to {at}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let length = body.len();
    stream.write_all(
        format!(
            "{method} {path} HTTP/1.0\r\nHost: {at}\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        )
        .as_bytes(),
    )?;
    Ok(stream)
}

/// Takes an answer apart.
///
/// # Errors
///
/// It is cut off before the body, or has no status.
pub fn parse(answer: &str) -> Result<Reply> {
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the answer ends before its body")?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .with_context(|| format!("no status in {head:?}"))?;
    Ok(Reply {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}
