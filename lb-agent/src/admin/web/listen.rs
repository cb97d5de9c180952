//! Takes connections over TCP: a bounded number, each for a bounded time.

use std::{
    collections::HashMap,
    error::Error,
    io, iter,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::Extension, middleware};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    access::Access,
    guard::{Ends, Guard, guard},
    patience::Patience,
    tls::Certificate,
};
use crate::admin::accept::Room;

/// Connections at a time.
const CONNECTIONS: u16 = 512;
/// Connections of one address at a time, so that one client does not keep out all others.
const OF_ONE: usize = 64;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;
/// A request's head must be here within this time, and so must the next one on a connection that stays open.
const HEAD: Duration = Duration::from_secs(10);
/// A TLS handshake must be done within this time.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Whoever takes nothing of an answer for so long is cut off.
const STALLED: Duration = Duration::from_secs(20);
/// A connection lives no longer, whatever it does: traces end with it, too.
const LONGEST: Duration = Duration::from_secs(3_600);
/// The largest head of a request, bytes.
const LARGEST_HEAD: usize = 16 * 1_024;
/// The most lines in it.
const MOST_HEADERS: usize = 64;

/// Bound, not yet served.
#[derive(Debug)]
pub struct Listening {
    listeners: Vec<TcpListener>,
    /// Where nobody listens, though that was the default; sentences.
    pub warnings: Vec<String>,
}

/// Why nobody can listen.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {at}: {error}; --admin-listen names another address, --admin-listen none turns it off"
)]
pub struct WebError {
    at: SocketAddr,
    error: io::Error,
}

// === impl Listening ===

impl Listening {
    /// Binds. `by_default`: nobody asked for these addresses, so one that cannot be had is no error.
    ///
    /// # Errors
    ///
    /// An address that was asked for cannot be had.
    pub fn open(addresses: &[SocketAddr], by_default: bool) -> Result<Self, WebError> {
        let mut listening = Self {
            listeners: Vec::new(),
            warnings: Vec::new(),
        };
        for at in addresses {
            match bind(*at) {
                Ok(listener) => listening.listeners.push(listener),
                // There is no IPv6 on this node.
                Err(error)
                    if by_default
                        && matches!(
                            error.raw_os_error(),
                            Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT)
                        ) => {}
                Err(error) if by_default => {
                    let error = WebError { at: *at, error };
                    listening.warnings.push(error.to_string());
                }
                Err(error) => return Err(WebError { at: *at, error }),
            }
        }
        Ok(listening)
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let listeners = self.listeners.iter();
        listeners.filter_map(|one| one.local_addr().ok()).collect()
    }
}

fn bind(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Counts connections.
struct Counted {
    room: Room,
    by_addr: Mutex<HashMap<IpAddr, usize>>,
}

/// What one connection counts for.
struct Place {
    counted: Arc<Counted>,
    addr: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_addr = self
            .counted
            .by_addr
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_addr.get_mut(&self.addr) {
            *count -= 1;
            if *count == 0 {
                by_addr.remove(&self.addr);
            }
        }
    }
}

impl Counted {
    /// `None`: the address has as many as it may.
    fn place(self: &Arc<Self>, addr: IpAddr) -> Option<Place> {
        let mut by_addr = self.by_addr.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_addr.entry(addr).or_default();
        if *count >= OF_ONE {
            return None;
        }
        *count += 1;
        Some(Place {
            counted: Arc::clone(self),
            addr,
        })
    }
}

/// Serves `router` at all of these addresses until `stop`. `node`: the node's host name.
///
/// # Errors
///
/// A listener cannot be handed to the runtime.
pub fn serve(
    listening: Listening,
    certificate: Option<Certificate>,
    router: Router,
    access: Access,
    node: String,
    stop: &CancellationToken,
) -> io::Result<()> {
    let guarded = Arc::new(Guard { access, node });
    // Around the routes and not at each of them: the guard may lead a request to another one.
    let router = Router::new()
        .fallback_service(router)
        .layer(middleware::from_fn_with_state(guarded, guard));
    let certificate = certificate.map(Arc::new);
    let counted = Arc::new(Counted {
        room: Room::new(CONNECTIONS, "the admin port"),
        by_addr: Mutex::default(),
    });
    for listener in listening.listeners {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let accepting = accept(
            listener,
            certificate.clone(),
            router.clone(),
            Arc::clone(&counted),
            stop.clone(),
        );
        tokio::spawn(stop.clone().run_until_cancelled_owned(accepting));
    }
    Ok(())
}

async fn accept(
    listener: tokio::net::TcpListener,
    certificate: Option<Arc<Certificate>>,
    router: Router,
    counted: Arc<Counted>,
    stop: CancellationToken,
) {
    let begin = |(stream, peer): (TcpStream, SocketAddr), taken| {
        let Some(place) = counted.place(peer.ip().to_canonical()) else {
            warn!(%peer, "refused: more than {OF_ONE} connections of one address");
            return;
        };
        let Ok(local) = stream.local_addr() else {
            return;
        };
        let ends = Ends { peer, local };
        let router = router.clone().layer(Extension(ends));
        let certificate = certificate.clone();
        let connection = async move {
            let talking = talk(stream, peer, certificate, router);
            if tokio::time::timeout(LONGEST, talking).await.is_err() {
                debug!(%peer, "the connection has lived long enough");
            }
            drop((taken, place));
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(connection));
    };
    counted.room.fill(&listener, begin).await;
}

async fn talk(
    stream: TcpStream,
    peer: SocketAddr,
    certificate: Option<Arc<Certificate>>,
    router: Router,
) {
    let _ = stream.set_nodelay(true);
    let Some(certificate) = certificate else {
        return converse(stream, peer, router).await;
    };
    let acceptor = TlsAcceptor::from(certificate.current());
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => converse(stream, peer, router).await,
        Ok(Err(error)) => warn!(%peer, "refused: a TLS handshake failed: {error}"),
        Err(_) => warn!(%peer, "refused: a TLS handshake took too long"),
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, peer: SocketAddr, router: Router) {
    let stream = Patience::new(stream, STALLED);
    let unanswered = stream.unanswered();
    let served = conversation(stream, router).await;
    note_end(served, &unanswered, &peer.to_string());
}

/// HTTP on one connection, with bounds for what a client may send and how long it may take for that.
pub(super) fn conversation<S: AsyncRead + AsyncWrite + Unpin>(
    stream: Patience<S>,
    router: Router,
) -> http1::Connection<TokioIo<Patience<S>>, TowerToHyperService<Router>> {
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(LARGEST_HEAD)
        .max_headers(MOST_HEADERS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
}

/// Says in the log why a connection ended, if the client is to blame. `unanswered`: see [`Patience::unanswered`].
pub(super) fn note_end(served: hyper::Result<()>, unanswered: &AtomicBool, peer: &str) {
    match served {
        Ok(()) => {}
        Err(error) if error.is_parse() => {
            warn!(%peer, "refused: no HTTP request, or too much of one: {error}");
        }
        // Else it was kept open after an answer, in case there would be more to ask.
        Err(error) if error.is_timeout() && unanswered.load(Ordering::Relaxed) => {
            warn!(%peer, "refused: no whole request within {} s", HEAD.as_secs());
        }
        Err(error) if is_late(&error) => {
            warn!(%peer, "refused: too slow to take an answer");
        }
        Err(error) => debug!(%peer, "a connection ended: {error}"),
    }
}

/// Whether the other side took nothing of an answer for too long, or too long for all of it.
fn is_late(error: &hyper::Error) -> bool {
    let mut causes = iter::successors(error.source(), |cause| (*cause).source());
    causes.any(|cause| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut)
    })
}
