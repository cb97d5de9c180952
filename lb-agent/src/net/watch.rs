//! Ticks when interfaces, addresses, routes or rules change.

use std::{future::pending, time::Duration};

use anyhow::{Context, Result};
use futures_util::StreamExt;
use netlink_packet_route::{RouteNetlinkMessage, route::RouteMessage};
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

use super::route::PROTOCOL;

/// A change is told after so long without another one.
const QUIET: Duration = Duration::from_millis(50);
/// A change is told after so long at the latest.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between two tries to open the socket again.
const RETRY: Duration = Duration::from_secs(1);

const GROUPS: &[MulticastGroup] = &[
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

type Message = NetlinkMessage<RouteNetlinkMessage>;
type Messages = futures_util::stream::BoxStream<'static, Message>;

/// A subscription to changes of the node's network, except for the routes that we add.
///
/// It tells *that* something changed, never what: the reader dumps afresh, so messages that the kernel
/// had to drop (ENOBUFS) cost nothing but that dump.
pub struct Watch {
    messages: Messages,
    /// Reads the socket; it ends when the socket fails.
    pub(super) carrier: JoinHandle<()>,
    waiting: Option<Waiting>,
}

/// How much the reader must look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Others changed interfaces, addresses or routes.
    Theirs,
    /// A route of ours was removed, or messages were lost: nothing can be taken for granted, what we made
    /// included.
    Anything,
}

/// A change that is to be told.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    change: Change,
    first: Instant,
    last: Instant,
}

// === impl Watch ===

impl Watch {
    /// Subscribes. What changes from now on is told. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// If the kernel gives no socket.
    pub fn open() -> Result<Self> {
        let (messages, carrier) = subscribe()?;
        Ok(Self {
            messages,
            carrier,
            waiting: None,
        })
    }

    /// Waits for the next change, and until it is quiet again (50 ms, 500 ms at most). Dropping the future
    /// loses nothing.
    pub async fn changed(&mut self) -> Change {
        loop {
            let waiting = self.waiting;
            let quiet = async {
                match waiting {
                    Some(Waiting {
                        change,
                        first,
                        last,
                    }) => {
                        sleep_until((last + QUIET).min(first + PATIENCE)).await;
                        change
                    }
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                change = quiet => {
                    self.waiting = None;
                    return change;
                }
                message = self.messages.next() => match message {
                    Some(message) => {
                        if let Some(change) = told_by(&message) {
                            self.note(change);
                        }
                    }
                    None => self.resubscribe().await,
                },
            }
        }
    }

    fn note(&mut self, change: Change) {
        let last = Instant::now();
        let (change, first) = match self.waiting {
            Some(waiting) => (change.max(waiting.change), waiting.first),
            None => (change, last),
        };
        self.waiting = Some(Waiting {
            change,
            first,
            last,
        });
    }

    /// After the socket has failed; anything may have been missed.
    async fn resubscribe(&mut self) {
        match subscribe() {
            Ok((messages, carrier)) => {
                tracing::warn!("lost sight of the network; watching it by another socket");
                self.messages = messages;
                self.carrier = carrier;
                self.note(Change::Anything);
            }
            Err(error) => {
                tracing::warn!("cannot watch the network: {error:#}; trying again");
                sleep(RETRY).await;
            }
        }
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}

fn subscribe() -> Result<(Messages, JoinHandle<()>)> {
    let (connection, _, messages) =
        rtnetlink::new_multicast_connection(GROUPS).context("cannot open a netlink socket")?;
    let carrier = tokio::spawn(connection);
    Ok((messages.map(|(message, _)| message).boxed(), carrier))
}

/// What a message says, unless it is of a route that we added.
fn told_by(message: &Message) -> Option<Change> {
    let ours = |route: &RouteMessage| u8::from(route.header.protocol) == PROTOCOL;
    match &message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) if ours(route) => None,
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRoute(route)) if ours(route) => {
            Some(Change::Anything)
        }
        NetlinkPayload::InnerMessage(_) => Some(Change::Theirs),
        NetlinkPayload::Overrun(_) => Some(Change::Anything),
        _ => None,
    }
}
