//! What an app of the lab runs: an HTTP server and a UDP echo on each of its ports, both of which say where
//! they run. It keeps no state.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Query, State},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

/// What the server prints once it answers on every port.
pub const READY: &str = "ready";

/// How often a throttled download sends.
const TICK: Duration = Duration::from_millis(20);

/// Where one port of a task is served.
#[derive(Clone, Debug)]
pub struct Spot {
    /// What it calls its node.
    pub node: Arc<str>,
    /// The address to listen on; `::` takes both families.
    pub bind: IpAddr,
    /// The port, TCP and UDP.
    pub port: u16,
}

/// The query of `/download`.
#[derive(Debug, Deserialize)]
struct Download {
    /// How many bytes to send.
    bytes: u64,
    /// Bytes a second; absent or 0 is as fast as it goes.
    #[serde(default)]
    rate: u64,
}

/// The sentence of the tutorial.
pub fn sentence(node: &str, port: u16) -> String {
    format!("Running on node '{node}' and port '{port}'")
}

/// Serves every spot until `stop` turns true; then takes no new connection and gives those at hand `grace`.
///
/// # Errors
///
/// A port cannot be bound.
pub async fn serve(spots: Vec<Spot>, stop: watch::Receiver<bool>, grace: Duration) -> Result<()> {
    let mut servers = JoinSet::new();
    for spot in spots {
        let at = SocketAddr::new(spot.bind, spot.port);
        let listener = listener(at).with_context(|| format!("cannot listen on TCP {at}"))?;
        let socket = udp_socket(at).with_context(|| format!("cannot listen on UDP {at}"))?;
        servers.spawn(serve_http(listener, spot.clone(), stopped(stop.clone())));
        servers.spawn(serve_udp(socket, spot, stopped(stop.clone())));
    }
    println!("{READY}");
    stopped(stop).await;
    // What still runs after the grace period is cut off: the operator was told how long it is.
    let _ = timeout(grace, async {
        while servers.join_next().await.is_some() {}
    })
    .await;
    Ok(())
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // A sender that is gone asks for an end too.
    let _ = stop.wait_for(|asked| *asked).await;
}

async fn serve_http(
    listener: TcpListener,
    spot: Spot,
    end: impl Future<Output = ()> + Send + 'static,
) {
    let routes = Router::new()
        .route("/download", get(download))
        .fallback(page)
        .with_state(spot)
        .into_make_service_with_connect_info::<SocketAddr>();
    if let Err(error) = axum::serve(listener, routes)
        .with_graceful_shutdown(end)
        .await
    {
        eprintln!("the HTTP server ended: {error}");
    }
}

async fn page(
    State(spot): State<Spot>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
) -> impl IntoResponse {
    let client = seen(client);
    ([("X-Client", client.to_string())], answer(&spot, client))
}

async fn download(State(spot): State<Spot>, Query(asked): Query<Download>) -> Response {
    let Download { bytes, rate } = asked;
    let per_tick = if rate == 0 {
        64 << 10
    } else {
        (rate / 50).max(1)
    };
    let chunks = stream::unfold((bytes, Instant::now()), move |(left, due)| async move {
        if left == 0 {
            return None;
        }
        let length = left.min(per_tick);
        let next = if rate == 0 { due } else { due + TICK };
        sleep_until(due).await;
        let chunk = vec![b'.'; usize::try_from(length).unwrap_or(usize::MAX)];
        Some((
            Ok::<_, io::Error>(Bytes::from(chunk)),
            (left - length, next),
        ))
    });
    let headers = [
        ("Content-Length", bytes.to_string()),
        ("Content-Type", "application/octet-stream".to_owned()),
        ("X-Node", spot.node.to_string()),
    ];
    (headers, Body::from_stream(chunks)).into_response()
}

async fn serve_udp(socket: UdpSocket, spot: Spot, end: impl Future<Output = ()>) {
    let echo = async {
        let mut buffer = vec![0; 65_536];
        loop {
            // An ICMP error about an earlier answer comes up here; it is not about this socket's health.
            let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
                continue;
            };
            let mut reply = answer(&spot, seen(client)).into_bytes();
            reply.extend_from_slice(&buffer[..length]);
            let _ = socket.send_to(&reply, client).await;
        }
    };
    tokio::select! {
        () = echo => {}
        () = end => {}
    }
}

fn answer(spot: &Spot, client: SocketAddr) -> String {
    format!("{}\nclient {client}\n", sentence(&spot.node, spot.port))
}

/// A dual-stack socket shows IPv4 clients as mapped addresses.
fn seen(client: SocketAddr) -> SocketAddr {
    SocketAddr::new(client.ip().to_canonical(), client.port())
}

fn listener(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = bound(at, Type::STREAM, Protocol::TCP)?;
    socket.listen(1024)?;
    TcpListener::from_std(socket.into())
}

fn udp_socket(at: SocketAddr) -> io::Result<UdpSocket> {
    UdpSocket::from_std(bound(at, Type::DGRAM, Protocol::UDP)?.into())
}

fn bound(at: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), kind, Some(protocol))?;
    if at.is_ipv6() && at.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    Ok(socket)
}
