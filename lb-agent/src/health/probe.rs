//! Asks one backend. A probe that fails says why in a few words.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Outcome, Target};
use crate::catalog::{Http, Probe};

/// The largest head of an answer, bytes.
const LARGEST_HEAD: usize = 16 * 1_024;
/// As much of an answer's body is read, so that the backend is not cut off in the middle of a short one, bytes.
const BODY: usize = 16 * 1_024;

/// What the kernel programs of this node translate: a probe of it would be answered by somebody else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ours {
    /// Every VIP.
    pub vips: BTreeSet<IpAddr>,
    /// TCP services at ports of the node's own addresses.
    pub ports: BTreeSet<SocketAddr>,
}

/// How far a probe came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was not asked.
    NotAsked,
    /// A connection was accepted, and that was all that was asked.
    Connected,
    /// None was accepted.
    Refused,
    /// The connection took too long.
    Silent,
    /// The answer is a good one.
    Answered,
    /// Its status is not.
    WrongStatus,
    /// It is none.
    Garbled,
    /// It took too long.
    Unanswered,
}

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// For the verdict.
    pub outcome: Outcome,
    /// How far it came.
    pub fate: Fate,
    /// The status code of an HTTP answer.
    pub status: Option<u16>,
}

/// Why a probe failed.
struct Failure {
    why: String,
    fate: Fate,
    status: Option<u16>,
}

// === impl Failure ===

impl Failure {
    fn new(fate: Fate, why: String) -> Self {
        Self {
            why,
            fate,
            status: None,
        }
    }
}

// === impl Ours ===

impl Ours {
    /// What becomes of a probe of `at` without its being sent.
    pub fn settle(&self, at: SocketAddr) -> Option<Outcome> {
        if self.vips.contains(&at.ip()) {
            // The translated connection of a client ends here, too.
            let why = "its address is a VIP, behind which nothing listens";
            return Some(Outcome::Failed(why.into()));
        }
        let why = || format!("not checked: a service stands at {at} of this node").into();
        self.ports.contains(&at).then(|| Outcome::NotAsked(why()))
    }
}

/// Asks, and gives up when the time is over.
pub(super) async fn probe(target: &Target) -> Asked {
    let check = &target.check;
    let at = check.at(target.addr);
    let connected = std::sync::atomic::AtomicBool::new(false);
    let asked = async {
        let stream = connect(at).await?;
        connected.store(true, std::sync::atomic::Ordering::Relaxed);
        match &check.probe {
            Probe::Tcp => Ok(None),
            Probe::Http(http) => request(stream, at, http).await.map(Some),
        }
    };
    let outcome = match tokio::time::timeout(check.timeout, asked).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::new(
            match connected.into_inner() {
                true => Fate::Unanswered,
                false => Fate::Silent,
            },
            format!("no answer within {:?}", check.timeout),
        )),
    };
    match outcome {
        Ok(status) => Asked {
            outcome: Outcome::Passed,
            fate: match status {
                Some(_) => Fate::Answered,
                None => Fate::Connected,
            },
            status,
        },
        Err(Failure { why, fate, status }) => Asked {
            outcome: Outcome::Failed(why.into()),
            fate,
            status,
        },
    }
}

async fn connect(at: SocketAddr) -> Result<TcpStream, Failure> {
    let connected = TcpStream::connect(at).await;
    connected.map_err(|error| Failure::new(Fate::Refused, words(&error)))
}

/// The system's words without its number.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_lowercase()
}

/// One request on a connection of its own: no redirect is followed and no proxy asked.
async fn request(stream: TcpStream, at: SocketAddr, http: &Http) -> Result<u16, Failure> {
    let garbled = |why| Failure::new(Fate::Garbled, why);
    let broken = |error: hyper::Error| garbled(format!("no answer that is HTTP: {error}"));
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(LARGEST_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let host = http.host.clone().unwrap_or_else(|| at.to_string());
    let request = Request::builder()
        .method(http.method)
        .uri(&*http.path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, "lb-agent-check")
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| garbled(format!("cannot ask: {error}")))?;
    let asked = async {
        let answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status().as_u16();
        // What is in it does not matter, nor how it ends.
        let _ = Limited::new(answer.into_body(), BODY).collect().await;
        Ok::<_, Failure>(status)
    };
    let status = drive(asked, connection).await?;
    if http.expects(status) {
        return Ok(status);
    }
    let why = format!("HTTP status {status}, not {}", http.expected());
    Err(Failure {
        status: Some(status),
        ..Failure::new(Fate::WrongStatus, why)
    })
}

/// Runs a request and its connection together.
async fn drive<T>(
    asked: impl Future<Output = Result<T, Failure>>,
    connection: impl Future<Output = hyper::Result<()>>,
) -> Result<T, Failure> {
    let mut asked = std::pin::pin!(asked);
    tokio::select! {
        biased;
        answer = &mut asked => answer,
        // The request has what there is to say about it.
        _ = connection => asked.await,
    }
}

/// As [`probe`], but nothing is sent that our own programs would translate.
pub(super) async fn ask(target: Arc<Target>, ours: Arc<Ours>) -> Asked {
    match ours.settle(target.check.at(target.addr)) {
        Some(outcome) => Asked {
            outcome,
            fate: Fate::NotAsked,
            status: None,
        },
        None => probe(&target).await,
    }
}
