//! A netlink connection and the dumps that are read through it.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use netlink_packet_route::{
    AddressFamily, address::AddressMessage, link::LinkMessage, route::RouteMessage,
};
use rtnetlink::RouteMessageBuilder;
use tokio::task::JoinHandle;

use super::{Address, Link, Route, Topology};

/// A connection to the kernel's routing tables, in the network namespace of the thread that opened it. One
/// that broke off is opened again by the next request.
#[derive(Clone, Debug)]
pub struct Netlink {
    connection: Arc<Mutex<Connection>>,
}

#[derive(Debug)]
struct Connection {
    handle: rtnetlink::Handle,
    /// Carries requests and answers; it ends when the socket fails.
    carrier: JoinHandle<()>,
}

// === impl Netlink ===

impl Netlink {
    /// Opens a connection. Must be called inside a tokio runtime, which carries it until the last clone
    /// is dropped.
    ///
    /// # Errors
    ///
    /// If the kernel gives no socket.
    pub fn open() -> Result<Self> {
        Ok(Self {
            connection: Arc::new(Mutex::new(Connection::open()?)),
        })
    }

    /// For a request.
    pub(super) fn handle(&self) -> Result<rtnetlink::Handle> {
        let mut connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if connection.carrier.is_finished() {
            tracing::warn!("the netlink connection broke off; opening another");
            *connection = Connection::open()?;
        }
        Ok(connection.handle.clone())
    }

    /// Breaks the connection off, as an error on the socket does.
    #[cfg(test)]
    pub(super) async fn break_off(&self) {
        let carrier = || self.connection.lock().unwrap();
        carrier().carrier.abort();
        while !carrier().carrier.is_finished() {
            tokio::task::yield_now().await;
        }
    }

    /// Interfaces, addresses, routes and rules as they are now.
    ///
    /// # Errors
    ///
    /// If a dump is refused. The three dumps are not one moment; a change in between is seen by
    /// [`super::Watch`].
    pub async fn topology(&self) -> Result<Topology> {
        let links = self.links().await?;
        let addresses = self.addresses().await?;
        let mut topology = Topology::new(links, addresses, self.routes().await?);
        topology.rules = self.rules().await?;
        Ok(topology)
    }

    async fn links(&self) -> Result<Vec<Link>> {
        let dump = self.handle()?.link().get().execute();
        let messages: Vec<LinkMessage> = dump.try_collect().await.context("cannot dump links")?;
        Ok(messages.iter().filter_map(Link::parse).collect())
    }

    /// Every address, in the kernel's order.
    pub(super) async fn addresses(&self) -> Result<Vec<Address>> {
        let messages = self.address_messages().await?;
        Ok(messages.iter().filter_map(Address::parse).collect())
    }

    pub(super) async fn address_messages(&self) -> Result<Vec<AddressMessage>> {
        let dump = self.handle()?.address().get().execute();
        dump.try_collect().await.context("cannot dump addresses")
    }

    /// Every route of both families and all tables.
    pub(super) async fn routes(&self) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for (family, name, request) in [
            (
                AddressFamily::Inet,
                "IPv4",
                RouteMessageBuilder::<Ipv4Addr>::new().build(),
            ),
            (
                AddressFamily::Inet6,
                "IPv6",
                RouteMessageBuilder::<Ipv6Addr>::new().build(),
            ),
        ] {
            let dump = self.handle()?.route().get(request).execute();
            let messages: Vec<RouteMessage> = dump
                .try_collect()
                .await
                .with_context(|| format!("cannot dump {name} routes"))?;
            // A kernel without IPv6 answers with the routes of every family it has.
            let own = messages
                .iter()
                .filter(|message| message.header.address_family == family);
            routes.extend(own.filter_map(Route::parse));
        }
        Ok(routes)
    }
}

// === impl Connection ===

impl Connection {
    fn open() -> Result<Self> {
        let (connection, handle, _) =
            rtnetlink::new_connection().context("cannot open a netlink socket")?;
        let carrier = tokio::spawn(connection);
        Ok(Self { handle, carrier })
    }
}

/// Whether what was to be removed, or its interface, is not there any more.
pub(super) fn is_gone(error: &rtnetlink::Error) -> bool {
    let rtnetlink::Error::NetlinkError(error) = error else {
        return false;
    };
    [libc::ESRCH, libc::EADDRNOTAVAIL, libc::ENODEV].contains(&-error.raw_code())
}
