//! Serves DNS on open sockets.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use hickory_server::Server;
use tokio::{
    net::{TcpListener, UdpSocket},
    task::JoinSet,
    time::sleep,
};

use super::{DnsConfig, Sockets, Table, forward::Forwarder, handler::Handler, tcp, upstreams};

/// How often the system's list of name servers is read.
const RESOLV_CONF_CHECK: Duration = Duration::from_secs(2);
/// Before a UDP socket that failed is served again.
const PAUSE: Duration = Duration::from_secs(1);

/// Answers from `table`, forwards the rest, until `shutdown` is ready.
///
/// `config.listen` is what [`Sockets::bind`] took; here the addresses of `sockets` count. An error means
/// that DNS stopped.
pub async fn serve(
    sockets: Sockets,
    config: DnsConfig,
    table: Arc<ArcSwap<Table>>,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let own = sockets.addresses();
    let forwarder = Arc::new(Forwarder::new(config.stats.clone()));
    let upstreams = find_upstreams(&config, &own).await;
    if upstreams.is_empty() {
        tracing::warn!("no DNS upstream: names outside the zone of named VIPs get SERVFAIL");
    }
    forwarder.set_upstreams(&upstreams)?;
    config.asked.store(Arc::new(upstreams.clone()));
    let handler = Handler::new(
        table,
        forwarder.clone(),
        config.allow.clone(),
        config.stats.clone(),
    );

    let mut tasks = JoinSet::new();
    for socket in sockets.udp {
        tasks.spawn(serve_udp(socket, handler.clone()));
    }
    for listener in sockets.tcp {
        let listener =
            TcpListener::from_std(listener).context("cannot use a TCP socket for DNS")?;
        let handler = handler.clone();
        tasks.spawn(async {
            tcp::serve(listener, handler).await;
            Ok(())
        });
    }
    if config.upstreams.is_empty() {
        tasks.spawn(follow_resolv_conf(config, own, upstreams, forwarder));
    }
    tokio::select! {
        () = shutdown => Ok(()),
        Some(ended) = tasks.join_next() => match ended {
            Ok(Ok(())) => bail!("a DNS listener ended"),
            Ok(Err(error)) => Err(error),
            Err(error) => Err(error).context("a DNS listener died"),
        },
    }
}

async fn find_upstreams(config: &DnsConfig, own: &[SocketAddr]) -> Vec<SocketAddr> {
    if config.upstreams.is_empty() {
        return upstreams::of_system(&config.resolv_conf, own)
            .await
            .unwrap_or_default();
    }
    let others = upstreams::given(&config.upstreams, own);
    if others.len() < config.upstreams.len() {
        tracing::warn!("a DNS upstream that is one of our own listeners is left out");
    }
    others
}

/// hickory ends a socket's loop on some errors; the socket itself is good for another.
async fn serve_udp(socket: std::net::UdpSocket, handler: Handler) -> anyhow::Result<()> {
    loop {
        let clone = socket.try_clone().context("cannot serve a UDP socket")?;
        let mut server = Server::new(handler.clone());
        server.register_socket(UdpSocket::from_std(clone).context("cannot serve a UDP socket")?);
        if let Err(error) = server.block_until_done().await {
            tracing::warn!(%error, "DNS over UDP stopped; starting it again");
        }
        sleep(PAUSE).await;
    }
}

/// DHCP and people change it while the agent runs.
async fn follow_resolv_conf(
    config: DnsConfig,
    own: Vec<SocketAddr>,
    mut current: Vec<SocketAddr>,
    forwarder: Arc<Forwarder>,
) -> anyhow::Result<()> {
    loop {
        sleep(RESOLV_CONF_CHECK).await;
        let read = upstreams::of_system(&config.resolv_conf, &own).await;
        // A file that is being replaced is no reason to forget what it said.
        let Some(upstreams) = read.filter(|upstreams| *upstreams != current) else {
            continue;
        };
        tracing::info!(?upstreams, "the system's name servers changed");
        match forwarder.set_upstreams(&upstreams) {
            Ok(()) => {
                config.asked.store(Arc::new(upstreams.clone()));
                current = upstreams;
            }
            Err(error) => tracing::warn!(%error, "the old DNS upstreams stay"),
        }
    }
}
