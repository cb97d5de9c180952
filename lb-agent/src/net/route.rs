//! A route as dumped, and the messages that add and remove ours.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
        RouteProtocol, RouteScope, RouteType, RouteVia,
    },
};

/// The `rtm_protocol` of every route that the agent makes; `purge` finds them by it. 176 is free in
/// iproute2's `rt_protos` and in the list of `linux/rtnetlink.h`.
pub const PROTOCOL: u8 = 176;

/// The table of addresses that are the node's own (`RT_TABLE_LOCAL`).
pub(super) const TABLE_LOCAL: u32 = 255;
/// The table that everybody uses (`RT_TABLE_MAIN`).
pub(super) const TABLE_MAIN: u32 = 254;
/// Of the `unreachable` routes: an operator's own route to a pool is taken before ours. The largest metric that
/// tools which read it as a signed number show as it is.
pub(super) const LAST_RESORT: u32 = 0x7fff_ffff;
/// What the kernel makes of an IPv6 route without a metric (`IP6_RT_PRIO_USER`, include/uapi/linux/ipv6_route.h).
const METRIC_V6: u32 = 1024;
/// `lo` in every network namespace (`LOOPBACK_IFINDEX`, include/net/flow.h).
pub(super) const LOOPBACK: u32 = 1;

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub dst: IpNet,
    /// Number of its table.
    pub table: u32,
    /// What is done with packets.
    pub kind: RouteType,
    /// Who made it.
    pub protocol: u8,
    /// How far away it is; means nothing for IPv6.
    pub scope: RouteScope,
    /// Of two routes to one place, the one with the smaller metric is taken.
    pub metric: u32,
    /// The interface; `None` for several and for routes that need none.
    pub ifindex: Option<u32>,
    /// Who gets the frames.
    pub via: Via,
    /// The longest packet that it takes, bytes, if that was set by hand.
    pub mtu: Option<u32>,
}

/// Who gets a route's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The destination itself.
    Link,
    /// A router, of either family.
    Router(IpAddr),
    /// One of several, or somebody who wants another header before; or it depends on more than the
    /// destination.
    Complex,
}

// === impl Route ===

impl Route {
    /// Our route that makes a VIP the node's own address.
    pub(super) fn local(vip: IpAddr) -> Self {
        Self {
            dst: vip.into(),
            table: TABLE_LOCAL,
            kind: RouteType::Local,
            protocol: PROTOCOL,
            scope: RouteScope::Host,
            metric: match vip {
                IpAddr::V4(_) => 0,
                IpAddr::V6(_) => METRIC_V6,
            },
            ifindex: Some(LOOPBACK),
            via: Via::Link,
            mtu: None,
        }
    }

    /// Our route that keeps packets for a pool's free addresses from leaving the node.
    pub(super) fn unreachable(pool: IpNet) -> Self {
        Self {
            dst: pool.trunc(),
            table: TABLE_MAIN,
            kind: RouteType::Unreachable,
            scope: RouteScope::Universe,
            metric: LAST_RESORT,
            ifindex: None,
            ..Self::local(pool.addr())
        }
    }

    /// Whether the agent made it, in this life or an earlier one.
    pub fn is_ours(&self) -> bool {
        self.protocol == PROTOCOL
    }

    /// `None` for what is no route of a table: a cached one, a dead one, one of another family.
    pub(super) fn parse(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        if header
            .flags
            .intersects(RouteFlags::Cloned | RouteFlags::Dead)
        {
            return None;
        }
        let any: IpAddr = match header.address_family {
            AddressFamily::Inet => std::net::Ipv4Addr::UNSPECIFIED.into(),
            AddressFamily::Inet6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        let mut route = Self {
            dst: IpNet::new(any, header.destination_prefix_length).ok()?,
            table: header.table.into(),
            kind: header.kind,
            protocol: header.protocol.into(),
            scope: header.scope,
            metric: 0,
            ifindex: None,
            via: Via::Link,
            mtu: None,
        };
        let mut via = match (header.source_prefix_length, header.tos) {
            (0, 0) => Via::Link,
            _ => Via::Complex,
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(addr) => {
                    route.dst =
                        IpNet::new(address(addr)?, header.destination_prefix_length).ok()?;
                }
                RouteAttribute::Table(table) => route.table = *table,
                RouteAttribute::Priority(metric) => route.metric = *metric,
                RouteAttribute::Oif(index) => route.ifindex = Some(*index),
                RouteAttribute::Gateway(addr) => via = via.router(address(addr)),
                RouteAttribute::Via(RouteVia::Inet(addr)) => via = via.router(Some((*addr).into())),
                RouteAttribute::Via(RouteVia::Inet6(addr)) => {
                    via = via.router(Some((*addr).into()))
                }
                RouteAttribute::Via(_)
                | RouteAttribute::MultiPath(_)
                | RouteAttribute::EncapType(_)
                | RouteAttribute::Encap(_) => via = Via::Complex,
                RouteAttribute::Metrics(metrics) => {
                    route.mtu = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        Some(Self { via, ..route })
    }

    /// The message that adds or removes it.
    pub(super) fn message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header = RouteHeader {
            address_family: match self.dst {
                IpNet::V4(_) => AddressFamily::Inet,
                IpNet::V6(_) => AddressFamily::Inet6,
            },
            destination_prefix_length: self.dst.prefix_len(),
            // Tables above 255 are named by the attribute alone.
            table: u8::try_from(self.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC),
            protocol: RouteProtocol::from(self.protocol),
            scope: self.scope,
            kind: self.kind,
            ..RouteHeader::default()
        };
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Destination(self.dst.addr().into()));
        attributes.push(RouteAttribute::Table(self.table));
        if self.metric > 0 {
            attributes.push(RouteAttribute::Priority(self.metric));
        }
        attributes.extend(self.ifindex.map(RouteAttribute::Oif));
        message
    }
}

// === impl Via ===

impl Via {
    fn router(self, addr: Option<IpAddr>) -> Self {
        match (self, addr) {
            (Self::Link, Some(addr)) => Self::Router(addr),
            _ => Self::Complex,
        }
    }
}

fn address(addr: &RouteAddress) -> Option<IpAddr> {
    match addr {
        RouteAddress::Inet(addr) => Some((*addr).into()),
        RouteAddress::Inet6(addr) => Some((*addr).into()),
        _ => None,
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The words of `ip route`.
        let kind = format!("{:?}", self.kind).to_ascii_lowercase();
        write!(f, "{kind} {}", self.dst)?;
        match self.table {
            TABLE_LOCAL => f.write_str(" table local"),
            TABLE_MAIN => Ok(()),
            other => write!(f, " table {other}"),
        }
    }
}
