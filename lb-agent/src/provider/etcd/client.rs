//! HTTP towards etcd's gateway: bounded in time and size, several members, a token that is renewed.

use std::{
    fmt, fs,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use reqwest::{
    Certificate, Identity, Response, StatusCode, Url, header::AUTHORIZATION, redirect::Policy,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    config::{EtcdConfig, Login, Timings},
    wire::{Line, LoginAnswer, LoginRequest, Refusal, WatchAnswer},
};
use crate::provider::causes::with_causes;

/// gRPC's codes, as far as they matter.
const PERMISSION_DENIED: i64 = 7;
const OUT_OF_RANGE: i64 = 11;

/// Talks to one etcd through any of its members.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    urls: Vec<Url>,
    /// The member that worked last.
    current: AtomicUsize,
    login: Option<Login>,
    token: Mutex<Option<String>>,
    timings: Timings,
    max_body: usize,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    why: String,
}

/// What can be done about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Another member may do better.
    Member,
    /// The token is not valid any more.
    Token,
    /// This user may not do that.
    Denied,
    /// What was asked for is too old.
    Compacted,
    /// Nobody would do it.
    Refused,
}

/// What was tried for one request.
#[derive(Default)]
struct Tries {
    members: usize,
    renewed: bool,
}

/// A watch that stands.
pub(super) struct Stream {
    response: Response,
    url: Url,
    rest: Vec<u8>,
    max: usize,
}

// === impl Client ===

impl Client {
    /// Builds the client; nothing is sent.
    ///
    /// # Errors
    /// No member, a file that cannot be used, no TLS provider installed.
    pub(super) fn new(config: &EtcdConfig) -> Result<Self, String> {
        if config.urls.is_empty() {
            return Err("no URL of an etcd is given".to_owned());
        }
        // reqwest panics without one.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err("no TLS crypto provider is installed in this process".to_owned());
        }
        Ok(Self {
            http: build(config)?,
            urls: config.urls.clone(),
            current: AtomicUsize::new(0),
            login: config.login.clone(),
            token: Mutex::default(),
            timings: config.timings,
            max_body: config.max_body,
        })
    }

    /// One request; on trouble with a member the next one is tried, and a token that is not valid any more is renewed
    /// once.
    ///
    /// # Errors
    /// Anything but a complete answer.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let mut tries = Tries::default();
        loop {
            let (index, url) = self.member();
            match self.post_once(url, path, body).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => self.goes_on(index, failure, &mut tries)?,
            }
        }
    }

    /// Opens a watch and waits until it stands.
    ///
    /// # Errors
    /// As [`Client::post`]; [`Kind::Compacted`] where it would have to start too early.
    pub(super) async fn watch(&self, body: &impl Serialize) -> Result<Stream, Failure> {
        let mut tries = Tries::default();
        loop {
            let (index, url) = self.member();
            let patience = self.timings.request;
            let opened = tokio::time::timeout(patience, self.watch_once(url, body)).await;
            let late = |_| Failure::new(url, Kind::Member, &format!("no watch in {patience:?}"));
            match opened.map_err(late).flatten() {
                Ok(stream) => return Ok(stream),
                Err(failure) => self.goes_on(index, failure, &mut tries)?,
            }
        }
    }

    async fn post_once<T: DeserializeOwned>(
        &self,
        url: &Url,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        self.log_in(url).await?;
        let response = self.send(url, path, body, true).await?;
        let bytes = self.body(url, response).await?;
        parse(url, &bytes)
    }

    async fn watch_once(&self, url: &Url, body: &impl Serialize) -> Result<Stream, Failure> {
        self.log_in(url).await?;
        let response = self.send(url, "v3/watch", body, false).await?;
        let mut stream = Stream {
            response,
            url: url.clone(),
            rest: Vec::new(),
            max: self.max_body,
        };
        if stream.next().await?.created {
            Ok(stream)
        } else {
            Err(Failure::new(
                url,
                Kind::Member,
                "a watch that does not begin",
            ))
        }
    }

    /// The member that worked last.
    fn member(&self) -> (usize, &Url) {
        let index = self.current.load(Ordering::Relaxed) % self.urls.len();
        (index, &self.urls[index])
    }

    /// Whether it is worth another try, with another member or a new token; else the failure.
    fn goes_on(&self, index: usize, failure: Failure, tries: &mut Tries) -> Result<(), Failure> {
        match failure.kind {
            Kind::Token if !tries.renewed && self.login.is_some() => {
                tries.renewed = true;
                *self.token() = None;
                Ok(())
            }
            Kind::Member => {
                self.rotate(index);
                tries.members += 1;
                if tries.members < self.urls.len() {
                    Ok(())
                } else {
                    Err(failure)
                }
            }
            _ => Err(failure),
        }
    }

    /// Another request may have moved on already; then its choice stands.
    fn rotate(&self, from: usize) {
        let next = (from + 1) % self.urls.len();
        let (load, store) = (Ordering::Relaxed, Ordering::Relaxed);
        _ = self.current.compare_exchange(from, next, load, store);
    }

    fn token(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gets a token if one is needed and there is none.
    async fn log_in(&self, url: &Url) -> Result<(), Failure> {
        let Some(Login { user, password }) = &self.login else {
            return Ok(());
        };
        if self.token().is_some() {
            return Ok(());
        }
        let password = password.reveal();
        let body = LoginRequest {
            name: user,
            password: &password,
        };
        let response = self.send(url, "v3/auth/authenticate", &body, true).await?;
        let bytes = self.body(url, response).await?;
        let answer: LoginAnswer = parse(url, &bytes)?;
        *self.token() = Some(answer.token);
        Ok(())
    }

    /// An answer with status 200; with `whole` it must be complete in time.
    async fn send(
        &self,
        url: &Url,
        path: &str,
        body: &impl Serialize,
        whole: bool,
    ) -> Result<Response, Failure> {
        let mut target = url.clone();
        if let Ok(mut segments) = target.path_segments_mut() {
            segments.pop_if_empty().extend(path.split('/'));
        }
        let mut request = self.http.post(target).json(body);
        if whole {
            request = request.timeout(self.timings.request);
        }
        if let Some(token) = &*self.token() {
            request = request.header(AUTHORIZATION, token);
        }
        let response = request
            .send()
            .await
            .map_err(|e| Failure::transport(url, &e))?;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response);
        }
        let patience = self.timings.request;
        let body = tokio::time::timeout(patience, self.body(url, response)).await;
        let body = body.ok().and_then(Result::ok).unwrap_or_default();
        Err(Failure::refused(url, status, &body))
    }

    async fn body(&self, url: &Url, mut response: Response) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        let failed = |e: reqwest::Error| Failure::transport(url, &e);
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > self.max_body {
                return Err(Failure::too_long(url, self.max_body));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

fn parse<T: DeserializeOwned>(url: &Url, bytes: &[u8]) -> Result<T, Failure> {
    let wrong = |e: serde_json::Error| {
        Failure::new(
            url,
            Kind::Member,
            &format!("an answer that is not etcd's: {e}"),
        )
    };
    serde_json::from_slice(bytes).map_err(wrong)
}

/// Redirects are not followed and the environment's proxies not asked: etcd is part of the cluster.
fn build(config: &EtcdConfig) -> Result<reqwest::Client, String> {
    let builder = || {
        let builder = reqwest::Client::builder();
        let builder = builder.redirect(Policy::none()).no_proxy().http1_only();
        let builder = builder.connect_timeout(config.timings.connect);
        builder.tcp_keepalive(config.timings.resync)
    };
    let plain = config.urls.iter().all(|url| url.scheme() == "http");
    let mut chosen = builder();
    match &config.ca_file {
        Some(path) => chosen = chosen.tls_certs_only(authorities(path)?),
        // A machine without any CA certificates can still speak plain HTTP.
        None if plain => chosen = chosen.tls_certs_only([]),
        None => {}
    }
    if let Some((certificate, key)) = &config.certificate {
        chosen = chosen.identity(identity(certificate, key)?);
    }
    chosen
        .build()
        .map_err(|e| format!("cannot set up an HTTP client: {}", with_causes(&e)))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}

fn authorities(path: &Path) -> Result<Vec<Certificate>, String> {
    match Certificate::from_pem_bundle(&read(path)?) {
        Ok(roots) if roots.is_empty() => {
            Err(format!("CA file {} holds no certificate", path.display()))
        }
        Ok(roots) => Ok(roots),
        Err(e) => Err(format!(
            "cannot use CA file {}: {}",
            path.display(),
            with_causes(&e)
        )),
    }
}

fn identity(certificate: &Path, key: &Path) -> Result<Identity, String> {
    let mut pem = read(certificate)?;
    pem.push(b'\n');
    pem.extend(read(key)?);
    let failed = |e: reqwest::Error| {
        let (certificate, key) = (certificate.display(), key.display());
        format!("cannot use {certificate} with {key}: {}", with_causes(&e))
    };
    Identity::from_pem(&pem).map_err(failed)
}

// === impl Stream ===

impl Stream {
    /// What the watch tells next; it may take for ever, and nothing is lost if nobody waits for it to end.
    ///
    /// # Errors
    /// The connection broke, or the watch is over.
    pub(super) async fn next(&mut self) -> Result<WatchAnswer, Failure> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return self.read(&line);
            }
            let failed = |e: reqwest::Error| Failure::transport(&self.url, &e);
            match self.response.chunk().await.map_err(failed)? {
                Some(chunk) if self.rest.len() + chunk.len() > self.max => {
                    return Err(Failure::too_long(&self.url, self.max));
                }
                Some(chunk) => self.rest.extend_from_slice(&chunk),
                None => return Err(Failure::new(&self.url, Kind::Member, "the watch ended")),
            }
        }
    }

    fn read(&self, line: &[u8]) -> Result<WatchAnswer, Failure> {
        let Line { result, error } = parse(&self.url, line)?;
        if let Some(error) = error {
            return Err(Failure::told(&self.url, Kind::Member, &error));
        }
        let answer = result.unwrap_or_default();
        if !answer.canceled {
            return Ok(answer);
        }
        let kind = if answer.compact_revision.0 > 0 {
            Kind::Compacted
        } else if answer.cancel_reason.contains("permission denied") {
            Kind::Denied
        } else {
            Kind::Member
        };
        let why = format!("the watch was ended: {}", answer.cancel_reason);
        Err(Failure::new(&self.url, kind, &why))
    }
}

// === impl Failure ===

impl Failure {
    fn new(url: &Url, kind: Kind, why: &str) -> Self {
        Self {
            kind,
            why: format!("{url}: {why}"),
        }
    }

    fn transport(url: &Url, error: &reqwest::Error) -> Self {
        // The address is said once.
        let said = error.url().map(|url| format!(" for url ({url})"));
        let text = with_causes(error).replace(&said.unwrap_or_default(), "");
        Self::new(url, Kind::Member, &text)
    }

    fn too_long(url: &Url, most: usize) -> Self {
        let why = format!("an answer longer than {most} bytes");
        Self::new(url, Kind::Refused, &why)
    }

    fn refused(url: &Url, status: StatusCode, body: &[u8]) -> Self {
        let told: Refusal = serde_json::from_slice(body).unwrap_or_default();
        let token =
            status == StatusCode::UNAUTHORIZED || told.text().contains("invalid auth token");
        let kind = match told.code {
            _ if token => Kind::Token,
            PERMISSION_DENIED => Kind::Denied,
            OUT_OF_RANGE => Kind::Compacted,
            _ if status.is_client_error() => Kind::Refused,
            _ => Kind::Member,
        };
        if told.text().is_empty() {
            Self::new(url, kind, &format!("answered {status}"))
        } else {
            Self::told(url, kind, &told)
        }
    }

    fn told(url: &Url, kind: Kind, told: &Refusal) -> Self {
        let text = told.text();
        let remedy = match text {
            _ if text.contains("user name is empty") => {
                "; give --etcd-user and --etcd-password-file"
            }
            _ if text.contains("authentication is not enabled") => "; leave --etcd-user out",
            _ => "",
        };
        Self::new(url, kind, &format!("{text}{remedy}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}
