//! Ticks when interfaces, addresses or routes change.

use std::{future::pending, time::Duration};

use anyhow::{Context, Result};
use futures_util::StreamExt;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
};
use tokio::time::{Instant, sleep, sleep_until};

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
];

type Message = NetlinkMessage<RouteNetlinkMessage>;
type Messages = futures_util::stream::BoxStream<'static, Message>;

/// A subscription to changes of the node's network, our own routes excepted.
///
/// It tells *that* something changed, never what: the reader dumps afresh, so messages that the kernel
/// had to drop (ENOBUFS) cost nothing but that dump.
pub struct Watch {
    messages: Messages,
    /// When the change that is waiting to be told began, and when the last one came.
    changed: Option<(Instant, Instant)>,
}

// === impl Watch ===

impl Watch {
    /// Subscribes. What changes from now on is told. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// If the kernel gives no socket.
    pub fn open() -> Result<Self> {
        Ok(Self {
            messages: subscribe()?,
            changed: None,
        })
    }

    /// Waits for the next change, and until it is quiet again (50 ms, 500 ms at most). Dropping the future
    /// loses nothing.
    pub async fn changed(&mut self) {
        loop {
            let due = self
                .changed
                .map(|(first, last)| (last + QUIET).min(first + PATIENCE));
            let quiet = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                () = quiet => {
                    self.changed = None;
                    return;
                }
                message = self.messages.next() => match message {
                    Some(message) if !concerns(&message) => {}
                    Some(_) => self.note(),
                    None => self.resubscribe().await,
                },
            }
        }
    }

    fn note(&mut self) {
        let now = Instant::now();
        let first = self.changed.map_or(now, |(first, _)| first);
        self.changed = Some((first, now));
    }

    /// After the socket has failed; what was missed counts as a change.
    async fn resubscribe(&mut self) {
        match subscribe() {
            Ok(messages) => {
                self.messages = messages;
                self.note();
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
            .field("changed", &self.changed)
            .finish_non_exhaustive()
    }
}

fn subscribe() -> Result<Messages> {
    let (connection, _, messages) =
        rtnetlink::new_multicast_connection(GROUPS).context("cannot open a netlink socket")?;
    tokio::spawn(connection);
    Ok(messages.map(|(message, _)| message).boxed())
}

/// Whether a message tells of a change that others made, or that messages were lost.
fn concerns(message: &Message) -> bool {
    match &message.payload {
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route),
        ) => u8::from(route.header.protocol) != PROTOCOL,
        NetlinkPayload::InnerMessage(_) | NetlinkPayload::Overrun(_) => true,
        _ => false,
    }
}
