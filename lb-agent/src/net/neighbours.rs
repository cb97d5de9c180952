//! Neighbours: who is on a link and under which MAC address, and news of that.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    time::Duration,
};

use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::LinkMessage,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
    },
};
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Link, Netlink};
use crate::plan::{Mac, Neighbour};

/// News are told after so long without more, so that a burst is one.
const QUIET: Duration = Duration::from_millis(1);
/// News are told after so long at the latest.
const PATIENCE: Duration = Duration::from_millis(10);
/// Between two tries to open the socket again.
const RETRY: Duration = Duration::from_secs(1);

const GROUPS: &[MulticastGroup] = &[MulticastGroup::Neigh, MulticastGroup::Link];

type Message = NetlinkMessage<RouteNetlinkMessage>;
type Messages = futures_util::stream::BoxStream<'static, Message>;

/// What the kernel knows of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    /// Its MAC address; `None`: not known, or it does not answer.
    pub mac: Option<Mac>,
    /// Whether the kernel would make sure before it relied on the MAC address for long (`NUD_STALE`). It
    /// does so only for what it sends itself.
    pub stale: bool,
}

/// What changed, each thing as it was last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Neighbours.
    pub neighbours: BTreeMap<Neighbour, Station>,
    /// Interfaces, by index; `None`: gone.
    pub links: BTreeMap<u32, Option<Link>>,
    /// Some messages were lost: all must be read anew.
    pub lost: bool,
}

/// A subscription to the neighbours of some interfaces, and to those interfaces themselves. Separate from
/// [`super::Watch`], which waits longer and is not to suffer from a burst of neighbours.
pub struct NeighbourWatch {
    messages: Messages,
    ifaces: BTreeSet<u32>,
    news: News,
    /// When the first and the last of the news came.
    came: Option<(Instant, Instant)>,
}

// === impl NeighbourWatch ===

impl NeighbourWatch {
    /// Subscribes. What changes from now on is told. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// If the kernel gives no socket.
    pub fn open(ifaces: impl IntoIterator<Item = u32>) -> Result<Self> {
        Ok(Self {
            messages: subscribe()?,
            ifaces: ifaces.into_iter().collect(),
            news: News::default(),
            came: None,
        })
    }

    /// Tells of these interfaces from now on.
    pub fn follow(&mut self, ifaces: impl IntoIterator<Item = u32>) {
        self.ifaces = ifaces.into_iter().collect();
    }

    /// Waits for news, and until it is quiet again (1 ms, 10 ms at most). Dropping the future loses
    /// nothing.
    pub async fn news(&mut self) -> News {
        loop {
            let due = self
                .came
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
                    self.came = None;
                    return std::mem::take(&mut self.news);
                }
                message = self.messages.next() => match message {
                    Some(message) => if self.news.take(&message, &self.ifaces) {
                        self.note();
                    }
                    None => self.resubscribe().await,
                },
            }
        }
    }

    fn note(&mut self) {
        let now = Instant::now();
        let first = self.came.map_or(now, |(first, _)| first);
        self.came = Some((first, now));
    }

    /// After the socket has failed; anything may have been missed.
    async fn resubscribe(&mut self) {
        match subscribe() {
            Ok(messages) => {
                tracing::warn!("lost sight of the neighbours; watching them by another socket");
                self.messages = messages;
                self.news.lost = true;
                self.note();
            }
            Err(error) => {
                tracing::warn!("cannot watch the neighbours: {error:#}; trying again");
                sleep(RETRY).await;
            }
        }
    }
}

impl std::fmt::Debug for NeighbourWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NeighbourWatch")
            .field("ifaces", &self.ifaces)
            .field("news", &self.news)
            .finish_non_exhaustive()
    }
}

fn subscribe() -> Result<Messages> {
    let (connection, _, messages) =
        rtnetlink::new_multicast_connection(GROUPS).context("cannot open a netlink socket")?;
    tokio::spawn(connection);
    Ok(messages.map(|(message, _)| message).boxed())
}

// === impl News ===

impl News {
    /// Adds what a message says of these interfaces; false if that is nothing.
    fn take(&mut self, message: &Message, ifaces: &BTreeSet<u32>) -> bool {
        let message = match &message.payload {
            NetlinkPayload::InnerMessage(message) => message,
            NetlinkPayload::Overrun(_) => {
                self.lost = true;
                return true;
            }
            _ => return false,
        };
        match message {
            RouteNetlinkMessage::NewNeighbour(message) => match Station::parse(message) {
                Some((neighbour, station)) => self.neighbour(neighbour, station, ifaces),
                None => false,
            },
            // The message gives the state that it had before.
            RouteNetlinkMessage::DelNeighbour(message) => match Station::parse(message) {
                Some((neighbour, _)) => self.neighbour(neighbour, Station::UNKNOWN, ifaces),
                None => false,
            },
            RouteNetlinkMessage::NewLink(message) => {
                self.link(message, ifaces, Link::parse(message))
            }
            RouteNetlinkMessage::DelLink(message) => self.link(message, ifaces, None),
            _ => false,
        }
    }

    fn neighbour(
        &mut self,
        neighbour: Neighbour,
        station: Station,
        ifaces: &BTreeSet<u32>,
    ) -> bool {
        let concerns = ifaces.contains(&neighbour.ifindex);
        if concerns {
            self.neighbours.insert(neighbour, station);
        }
        concerns
    }

    fn link(&mut self, message: &LinkMessage, ifaces: &BTreeSet<u32>, link: Option<Link>) -> bool {
        let header = &message.header;
        // A bridge tells of its ports as well, and of one that leaves it as if that were gone.
        let concerns =
            header.interface_family != AddressFamily::Bridge && ifaces.contains(&header.index);
        if concerns {
            self.links.insert(header.index, link);
        }
        concerns
    }
}

// === impl Station ===

impl Station {
    const UNKNOWN: Self = Self {
        mac: None,
        stale: false,
    };

    /// `None` for what is no neighbour of an IP address: bridge ports' stations, proxied addresses.
    fn parse(message: &NeighbourMessage) -> Option<(Neighbour, Self)> {
        let header = &message.header;
        if header.flags.contains(NeighbourFlags::Proxy) {
            return None;
        }
        let (mut addr, mut mac) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                    addr = Some((*v4).into());
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                    addr = Some((*v6).into());
                }
                NeighbourAttribute::LinkLayerAddress(bytes) => {
                    mac = bytes.as_slice().try_into().ok();
                }
                _ => {}
            }
        }
        // `NUD_VALID`, include/net/neighbour.h: in other states the MAC address is an old one or none.
        let valid = matches!(
            header.state,
            NeighbourState::Permanent
                | NeighbourState::Noarp
                | NeighbourState::Reachable
                | NeighbourState::Probe
                | NeighbourState::Stale
                | NeighbourState::Delay
        );
        let neighbour = Neighbour {
            ifindex: header.ifindex,
            addr: addr?,
        };
        let station = Self {
            mac: mac.filter(|_| valid),
            stale: header.state == NeighbourState::Stale,
        };
        Some((neighbour, station))
    }
}

// === impl Netlink ===

impl Netlink {
    /// The neighbours on all interfaces as they are now.
    ///
    /// # Errors
    ///
    /// If the dump is refused.
    pub async fn neighbours(&self) -> Result<BTreeMap<Neighbour, Station>> {
        let dump = self.handle()?.neighbours().get().execute();
        let messages: Vec<NeighbourMessage> =
            dump.try_collect().await.context("cannot dump neighbours")?;
        Ok(messages.iter().filter_map(Station::parse).collect())
    }

    /// Does to these neighbours what a packet for them would do: the kernel asks for one that it does not
    /// know, and makes sure of one that it has not heard of for a while (`NTF_USE`, kernel 2.6.31). What XDP
    /// sends does neither. Nothing is left behind.
    ///
    /// # Errors
    ///
    /// If the kernel refuses one, because its interface is gone; those before it are asked for.
    pub async fn use_neighbours(&self, neighbours: Vec<Neighbour>) -> Result<()> {
        for Neighbour { ifindex, addr } in neighbours {
            let request = self.handle()?.neighbours().add(ifindex, addr).replace();
            request
                .state(NeighbourState::None)
                .flags(NeighbourFlags::Use)
                .execute()
                .await
                .with_context(|| format!("cannot ask for neighbour {addr}"))?;
        }
        Ok(())
    }
}
