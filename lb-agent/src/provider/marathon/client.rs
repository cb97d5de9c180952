//! HTTP towards Marathon: bounded in time and size, several URLs, the redirect to the leader.

use std::{
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use reqwest::{
    Certificate, RequestBuilder, Response, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION},
    redirect::Policy,
};

use super::{
    config::{Auth, MarathonConfig, Timings},
    login::Login,
};
use crate::provider::causes::with_causes;

/// A standby sends the stream to the leader; more hops than this are a loop.
const MAX_HOPS: usize = 3;

/// Talks to one Marathon through any of its URLs.
#[derive(Debug)]
pub(super) struct Client {
    json: reqwest::Client,
    stream: reqwest::Client,
    urls: Vec<Url>,
    /// The URL that worked last.
    current: AtomicUsize,
    /// Sent on every hop: most libraries strip it when the host changes, and the leader needs it.
    auth: Auth,
    /// With an account of DC/OS: its token.
    login: Option<Login>,
    timings: Timings,
    max_body: usize,
}

/// A complete answer with status 200.
#[derive(Debug)]
pub(super) struct Answer {
    /// The body, decompressed.
    pub(super) body: Vec<u8>,
    /// `X-Marathon-Leader`.
    pub(super) leader: Option<String>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Failure {
    /// The status, if the answer came that far.
    pub(super) status: Option<StatusCode>,
    why: String,
}

/// An open event stream.
#[derive(Debug)]
pub(super) struct EventStream {
    response: Response,
    /// Who serves it, after redirects.
    pub(super) url: Url,
    /// Which of the client's URLs led there.
    pub(super) index: usize,
}

// === impl Client ===

impl Client {
    /// Builds the client; nothing is sent.
    ///
    /// # Errors
    /// No URL or one that is not HTTP, a CA file that cannot be used, no TLS provider installed.
    pub(super) fn new(config: &MarathonConfig) -> Result<Self, String> {
        let urls = config
            .urls
            .iter()
            .map(clean)
            .collect::<Result<Vec<_>, _>>()?;
        if urls.is_empty() {
            return Err("no URL of a Marathon is given".to_owned());
        }
        // reqwest panics without one.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err("no TLS crypto provider is installed in this process".to_owned());
        }
        let auth = config.auth.or_of(config.urls.first())?;
        let roots = config.ca_file.as_deref().map(read_ca).transpose()?;
        let json = build(&urls, roots.as_deref(), &config.timings, true)?;
        let stream = build(&urls, roots.as_deref(), &config.timings, false)?;
        Ok(Self {
            json,
            stream,
            urls,
            current: AtomicUsize::new(0),
            login: match &auth {
                Auth::Login(credentials) => Some(Login::new(credentials)),
                _ => None,
            },
            auth,
            timings: config.timings,
            max_body: config.max_body,
        })
    }

    /// How long one request may take.
    pub(super) fn patience(&self) -> Duration {
        self.timings.request
    }

    /// `GET` of a JSON resource below the URL that worked last; on connection errors and 5xx the
    /// next URL is tried.
    ///
    /// # Errors
    /// Anything but a complete answer with status 200.
    pub(super) async fn get(&self, path: &[&str], query: Option<&str>) -> Result<Answer, Failure> {
        let mut tries = 0;
        loop {
            let (index, url) = self.url(path, query);
            match self.get_once(&url).await {
                Err(failure) => self.rotate(index, failure, &mut tries)?,
                answer => return answer,
            }
        }
    }

    /// Opens the event stream, following redirects to the leader.
    ///
    /// # Errors
    /// Anything but status 200 and an event stream.
    pub(super) async fn events(&self) -> Result<EventStream, Failure> {
        // Together the URLs take no longer than one may.
        let patience = self.timings.open / u32::try_from(self.urls.len()).unwrap_or(u32::MAX);
        let mut tries = 0;
        loop {
            let (index, url) = self.url(&["v2", "events"], Some("plan-format=light"));
            let opened = self.open_stream(index, url.clone());
            let opened = tokio::time::timeout(patience, opened).await;
            match opened {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(failure)) => self.rotate(index, failure, &mut tries)?,
                Err(_) => {
                    let failure = Failure::new(&url, format!("no answer in {patience:?}"));
                    self.rotate(index, failure, &mut tries)?;
                }
            }
        }
    }

    fn url(&self, path: &[&str], query: Option<&str>) -> (usize, Url) {
        let index = self.current.load(Ordering::Relaxed) % self.urls.len();
        (index, join(&self.urls[index], path, query))
    }

    /// Goes on to the next URL; gives the failure back if no URL is left to try or none would help.
    fn rotate(&self, index: usize, failure: Failure, tries: &mut usize) -> Result<(), Failure> {
        if !failure.concerns_the_server() {
            return Err(failure);
        }
        self.leave(index);
        *tries += 1;
        if *tries < self.urls.len() {
            Ok(())
        } else {
            Err(failure)
        }
    }

    /// From now on the URL after this one is asked first.
    pub(super) fn leave(&self, index: usize) {
        let next = (index + 1) % self.urls.len();
        // Another request may have moved on already; then its choice stands.
        _ = self
            .current
            .compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Sends a request with what identifies us. A token that is refused is renewed, once.
    async fn send(
        &self,
        url: &Url,
        request: impl Fn() -> RequestBuilder,
    ) -> Result<Response, Failure> {
        let send = |request: RequestBuilder| async {
            let sent = request.send().await;
            sent.map_err(|e| Failure::transport(url, &e))
        };
        let Some(login) = &self.login else {
            return send(self.auth.apply(request())).await;
        };
        let base = &self.urls[self.current.load(Ordering::Relaxed) % self.urls.len()];
        let mut refused = None;
        loop {
            let patience = self.timings.open;
            let token = login
                .token(&self.json, base, refused.as_deref(), patience)
                .await?;
            let authorization = format!("token={token}");
            let response = send(request().header(AUTHORIZATION, authorization)).await?;
            if response.status() != StatusCode::UNAUTHORIZED || refused.is_some() {
                return Ok(response);
            }
            refused = Some(token);
        }
    }

    async fn get_once(&self, url: &Url) -> Result<Answer, Failure> {
        let request = || {
            let request = self.json.get(url.clone());
            request
                .header(ACCEPT, "application/json")
                .timeout(self.timings.request)
        };
        let mut response = self.send(url, request).await?;
        if response.status() != StatusCode::OK {
            return Err(Failure::status(url, response.status()));
        }
        let leader = response.headers().get("x-marathon-leader");
        let leader = leader
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|e| Failure::transport(url, &e))?
        {
            if body.len() + chunk.len() > self.max_body {
                let why = format!("the answer is longer than {} bytes", self.max_body);
                return Err(Failure::new(url, why));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { body, leader })
    }

    async fn open_stream(&self, index: usize, mut url: Url) -> Result<EventStream, Failure> {
        for _ in 0..=MAX_HOPS {
            // Marathon compares the whole value of Accept; anything else is answered with 405.
            let request = || {
                let request = self.stream.get(url.clone());
                request.header(ACCEPT, "text/event-stream")
            };
            let response = self.send(&url, request).await?;
            let status = response.status();
            if status.is_redirection() {
                let location = header(&response, LOCATION.as_str()).unwrap_or_default();
                url = next_hop(&url, location).map_err(|why| Failure::new(&url, why))?;
                continue;
            }
            if status != StatusCode::OK {
                return Err(Failure::status(&url, status));
            }
            return match header(&response, CONTENT_TYPE.as_str()) {
                Some(kind) if kind.starts_with("text/event-stream") => Ok(EventStream {
                    response,
                    url,
                    index,
                }),
                other => {
                    let kind = other.unwrap_or("of no type");
                    let why = format!("the answer is {kind}, not an event stream");
                    Err(Failure::new(&url, why))
                }
            };
        }
        let why = format!("more than {MAX_HOPS} redirects");
        Err(Failure::new(&url, why))
    }
}

/// One client. Redirects are followed by hand, and the environment's proxies are not asked: the
/// orchestrator is part of the cluster.
fn build(
    urls: &[Url],
    roots: Option<&[Certificate]>,
    timings: &Timings,
    gzip: bool,
) -> Result<reqwest::Client, String> {
    let builder = || {
        let builder = reqwest::Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(timings.connect)
            // Who is gone without a word is noticed by the kernel, however long an answer may take: data that nobody
            // acknowledges, or three probes of an idle connection (tcp(7)).
            .tcp_user_timeout(timings.unanswered)
            .tcp_keepalive(timings.unanswered / 4)
            .tcp_keepalive_interval(timings.unanswered / 4)
            .tcp_keepalive_retries(3);
        if gzip { builder } else { builder.no_gzip() }
    };
    let built = match roots {
        Some(roots) => builder().tls_certs_only(roots.to_vec()).build(),
        None => match builder().build() {
            // A machine without any CA certificates can still speak plain HTTP.
            Err(_) if urls.iter().all(|url| url.scheme() == "http") => {
                builder().tls_certs_only([]).build()
            }
            built => built,
        },
    };
    built.map_err(|e| format!("cannot set up an HTTP client: {}", with_causes(&e)))
}

fn read_ca(path: &std::path::Path) -> Result<Vec<Certificate>, String> {
    let path_text = path.display();
    let pem = std::fs::read(path).map_err(|e| format!("cannot read CA file {path_text}: {e}"))?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(roots) if roots.is_empty() => Err(format!("CA file {path_text} holds no certificate")),
        Ok(roots) => Ok(roots),
        Err(e) => Err(format!(
            "cannot use CA file {path_text}: {}",
            with_causes(&e)
        )),
    }
}

/// Without credentials, which go into a header and never into a message.
fn clean(url: &Url) -> Result<Url, String> {
    let mut clean = url.clone();
    let stripped = clean
        .set_username("")
        .and_then(|()| clean.set_password(None));
    match url.scheme() {
        "http" | "https" if stripped.is_ok() && url.has_host() => {}
        _ => return Err("the URL of a Marathon must be http://HOST or https://HOST".to_owned()),
    }
    clean.set_query(None);
    clean.set_fragment(None);
    Ok(clean)
}

/// `path` below `base`, each element encoded.
fn join(base: &Url, path: &[&str], query: Option<&str>) -> Url {
    let mut url = base.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path);
    }
    url.set_query(query);
    url
}

/// Where a redirect leads; never from https to http.
fn next_hop(from: &Url, location: &str) -> Result<Url, String> {
    let to = match location {
        "" => return Err("a redirect without Location".to_owned()),
        location => from
            .join(location)
            .map_err(|e| format!("a redirect to {location:?}: {e}"))?,
    };
    let to = clean(&to).map(|mut clean| {
        clean.set_query(to.query());
        clean
    })?;
    if from.scheme() == "https" && to.scheme() == "http" {
        return Err(format!("a redirect from https to {to}, which is refused"));
    }
    Ok(to)
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response
        .headers()
        .get(name)
        .and_then(|value| value.to_str().ok())
}

// === impl EventStream ===

impl EventStream {
    /// The next bytes; `None` at the end of the stream.
    ///
    /// # Errors
    /// The connection broke.
    pub(super) async fn read(&mut self) -> Result<Option<bytes::Bytes>, Failure> {
        self.response
            .chunk()
            .await
            .map_err(|e| Failure::transport(&self.url, &e))
    }
}

// === impl Failure ===

impl Failure {
    fn new(url: &Url, why: String) -> Self {
        Self {
            status: None,
            why: format!("GET {url}: {why}"),
        }
    }

    fn status(url: &Url, status: StatusCode) -> Self {
        Self {
            status: Some(status),
            why: format!("GET {url}: answered {status}"),
        }
    }

    /// Of a request to log in.
    pub(super) fn of_login(url: &Url, status: Option<StatusCode>, why: String) -> Self {
        Self {
            status,
            why: format!("POST {url}: {why}"),
        }
    }

    pub(super) fn transport(url: &Url, error: &reqwest::Error) -> Self {
        let error = error.to_string().replace(&format!(" for url ({url})"), "") + &sources(error);
        Self::new(url, error)
    }

    /// Another URL may do better.
    fn concerns_the_server(&self) -> bool {
        self.status.is_none_or(|status| status.is_server_error())
    }
}

fn sources(error: &dyn std::error::Error) -> String {
    error
        .source()
        .map(|source| format!(": {}", with_causes(source)))
        .unwrap_or_default()
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn paths_go_below_the_url_whatever_its_own_path() {
        let path = ["v2", "pods", "::status"];
        for base in ["https://m/service/marathon", "https://m/service/marathon/"] {
            let joined = join(&url(base), &path, Some("a=b"));
            assert_eq!(
                joined.as_str(),
                "https://m/service/marathon/v2/pods/::status?a=b"
            );
        }
        let odd = join(
            &url("http://m:8080"),
            &["v2", "apps", "..", "a b?c#d"],
            None,
        );
        assert_eq!(odd.as_str(), "http://m:8080/v2/apps/a%20b%3Fc%23d");
    }

    #[test]
    fn a_redirect_may_change_the_host_but_never_drop_encryption() {
        let hop = |from: &str, to: &str| next_hop(&url(from), to).map(String::from);
        assert_eq!(
            hop("http://a/v2/events", "http://b:8080/v2/events?x=y").unwrap(),
            "http://b:8080/v2/events?x=y"
        );
        assert_eq!(
            hop("http://a/v2/events", "/v2/events").unwrap(),
            "http://a/v2/events"
        );
        assert_eq!(hop("http://a/", "https://b/").unwrap(), "https://b/");
        assert!(
            hop("https://a/", "http://b/")
                .unwrap_err()
                .contains("refused")
        );
        assert!(hop("http://a/", "ftp://b/").is_err());
        assert!(hop("http://a/", "").is_err());
    }

    #[test]
    fn credentials_in_a_url_never_show() {
        let clean = clean(&url("http://user:secret@m:8080/x?q#f")).unwrap();
        assert_eq!(clean.as_str(), "http://m:8080/x");
    }

    #[test]
    fn what_cannot_work_is_said_before_anything_is_sent() {
        _ = rustls::crypto::ring::default_provider().install_default();
        let error = |config| Client::new(&config).unwrap_err();
        assert!(error(MarathonConfig::new(vec![])).contains("no URL"));
        assert!(error(MarathonConfig::new(vec![url("ftp://m/")])).contains("http://HOST"));
        let mut config = MarathonConfig::new(vec![url("https://m/")]);
        config.ca_file = Some("/nonexistent/ca.pem".into());
        assert!(error(config.clone()).contains("cannot read CA file /nonexistent/ca.pem"));
        let file = tempfile::NamedTempFile::new().unwrap();
        config.ca_file = Some(file.path().to_owned());
        assert!(error(config).contains("holds no certificate"));
    }
}
