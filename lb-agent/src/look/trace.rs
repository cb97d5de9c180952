//! Single packets and calls as people and machines see them: what came, and what became of it.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use lb_common::{
    Addr4, Addr6, Address as _, Be16, Reason, TraceEvent, TraceMatch, direction,
    headers::{ICMP, ICMP6, TCP, UDP},
    is_refused, trace_flag, trace_hook, trace_verdict,
};
use serde::{Deserialize, Serialize};

use super::{Spot, Way};
use crate::plan::Endpoint;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceWish {
    /// Which packets and calls.
    pub filter: TraceFilter,
    /// Of packets that go on as those of their flow before, one in so many; 0 and 1: all.
    pub sample: u32,
    /// Bytes of each packet; 0: none.
    pub snap: u32,
}

/// What a packet must have to be shown; whatever is `None` may be anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceFilter {
    /// The address that the client speaks to.
    pub vip: Option<Spot>,
    /// The VIPs of a service.
    pub services: Option<BTreeSet<Endpoint>>,
    /// Who speaks to it. A process of this node is nobody here: its address is not chosen yet.
    pub client: Option<IpNet>,
    /// Something that was counted of it.
    pub reason: Option<Reason>,
}

/// A packet or a call, as the kernel told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// What the kernel said.
    pub event: TraceEvent,
    /// When, ns since 1970-01-01T00:00:00Z.
    pub time_ns: u64,
    /// Its first bytes, if they were asked for.
    pub bytes: Vec<u8>,
}

/// What somebody who asks is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// It was switched on, or goes on; about once a second.
    Beat,
    /// A packet or a call that matches.
    Seen(Box<Seen>),
    /// So many more could not be told.
    Lost(u64),
}

/// One line of `lb-agent trace`, and of `GET /v1/trace`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TraceReport {
    /// When, ns since 1970-01-01T00:00:00Z.
    pub time_ns: u64,
    /// Where in the kernel.
    pub hook: Place,
    /// The interface; `None`: a call, or an interface that is gone.
    pub interface: Option<String>,
    /// `tcp`, `udp`, `icmp`, `icmp6`, else the number.
    pub protocol: String,
    /// As the packet came, with port 0 where it has none; `None`: a call.
    pub from: Option<SocketAddr>,
    /// As the packet came, or what the call asked for.
    pub to: SocketAddr,
    /// Flags of a TCP segment as `tcpdump` shows them, type and code of an ICMP message, or nothing.
    pub detail: String,
    /// Whether it is a part of a larger packet.
    pub fragment: bool,
    /// Of the frame; 0: a call.
    pub bytes: u32,
    /// Whether there is a flow for it, and whether there was one before; `None`: none.
    pub flow: Option<Age>,
    /// Who speaks to the VIP; `None`: not known.
    pub client: Option<SocketAddr>,
    /// What is spoken to.
    pub vip: SocketAddr,
    /// The VIP's canonical name without zone; `None`: it has none.
    pub name: Option<String>,
    /// The backend; `None`: none.
    pub backend: Option<SocketAddr>,
    /// The orchestrator's id of the backend, or its name in the services file.
    pub task: Option<Arc<str>>,
    /// How the backend is reached; `None`: none.
    pub how: Option<Way>,
    /// What became of it.
    pub then: Outcome,
    /// Everything that was counted of it.
    pub reasons: Vec<String>,
}

/// Where in the kernel something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// XDP.
    Xdp,
    /// The tc program behind XDP, on the way in.
    TcIngress,
    /// The tc program of an interface behind which backends are.
    TcLink,
    /// The tc program on the way out.
    TcEgress,
    /// A process's `connect`.
    Connect,
    /// A process's `sendmsg`.
    Sendmsg,
    /// A process's `bind`.
    Bind,
}

/// How old a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Age {
    /// This packet or call opened it.
    New,
    /// It was there.
    Known,
}

/// What became of a packet or a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// This host's stack has the packet; the call goes on.
    Passed,
    /// Dropped without a word.
    Dropped,
    /// Sent out by an interface.
    Sent,
    /// The client is told that it cannot be.
    Refused,
}

/// Who speaks to whom by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ends {
    client: Option<SocketAddr>,
    vip: SocketAddr,
    backend: Option<SocketAddr>,
}

// === impl TraceFilter ===

impl TraceFilter {
    /// The same for the programs: all that it wants is wanted by one of these.
    pub fn matches(&self) -> Vec<TraceMatch> {
        let Self {
            vip,
            services,
            client,
            reason,
        } = self;
        let mut all = TraceMatch {
            reasons: reason.map_or(0, |reason| 1 << reason as u32),
            ..TraceMatch::default()
        };
        if let Some(client) = client {
            (all.client, all.family) = wide(client.addr());
            (all.client_mask, _) = wide(client.netmask());
        }
        let at = |addr: IpAddr, port: u16, proto: u8| {
            let (vip, family) = wide(addr);
            let (vip_mask, _) = wide(IpNet::from(addr).netmask());
            TraceMatch {
                vip,
                vip_mask,
                port: Be16::new(port),
                proto,
                family,
                ..all
            }
        };
        match (services, vip) {
            (Some(services), _) => services
                .iter()
                .map(|service| at(service.addr, service.port, service.proto))
                .collect(),
            (None, Some(spot)) => vec![at(spot.addr, spot.port.unwrap_or(0), 0)],
            (None, None) => vec![all],
        }
    }
}

/// An address as the programs have it, and its family.
fn wide(addr: IpAddr) -> (Addr6, u8) {
    match addr {
        IpAddr::V4(addr) => (Addr4::from(addr).widen(), 4),
        IpAddr::V6(addr) => (addr.into(), 6),
    }
}

// === impl Seen ===

impl Seen {
    /// Whether it is asked for.
    pub fn is_for(&self, filter: &TraceFilter) -> bool {
        let TraceFilter {
            vip,
            services,
            client,
            reason,
        } = filter;
        let ends = self.ends();
        vip.is_none_or(|spot| spot.is(ends.vip))
            && services
                .as_ref()
                .is_none_or(|services| services.iter().any(|at| self.speaks_to(at, ends.vip)))
            && client.is_none_or(|net| ends.client.is_some_and(|at| net.contains(&at.ip())))
            && reason.is_none_or(|reason| self.event.reasons & (1 << reason as u32) != 0)
    }

    /// Without ports, as an ICMP message is, it may be about any service of its VIP.
    fn speaks_to(&self, service: &Endpoint, vip: SocketAddr) -> bool {
        if vip.port() == 0 {
            return service.addr == vip.ip();
        }
        *service == Endpoint::new(vip, self.event.proto)
    }

    fn at(&self, addr: &Addr6, port: Be16) -> SocketAddr {
        let addr = match self.event.family {
            4 => IpAddr::V4(Addr4::narrow(addr).into()),
            _ => IpAddr::V6((*addr).into()),
        };
        SocketAddr::new(addr, port.get())
    }

    fn ends(&self) -> Ends {
        let event = &self.event;
        let (from, to) = (
            self.at(&event.src, event.sport),
            self.at(&event.dst, event.dport),
        );
        let has_flow = event.flags & trace_flag::FLOW != 0;
        if has_flow && event.direction == direction::REVERSE {
            return Ends {
                client: Some(self.at(&event.new_dst, event.new_dport)),
                vip: self.at(&event.new_src, event.new_sport),
                backend: Some(from),
            };
        }
        Ends {
            client: (!self.is_call()).then_some(from),
            vip: to,
            backend: has_flow.then(|| self.at(&event.new_dst, event.new_dport)),
        }
    }

    fn is_call(&self) -> bool {
        self.event.hook >= trace_hook::CONNECT
    }

    /// Whether the bytes are those of the packet as it went.
    pub fn is_after(&self) -> bool {
        self.event.flags & trace_flag::AFTER != 0
    }

    /// The line about it; `interface`: its name. The VIP's name and the backend's are left out.
    pub fn report(&self, interface: Option<String>) -> TraceReport {
        let event = &self.event;
        let Ends {
            client,
            vip,
            backend,
        } = self.ends();
        let reasons = Reason::ALL.iter().copied();
        let reasons: Vec<_> = reasons
            .filter(|reason| event.reasons & (1 << *reason as u32) != 0)
            .collect();
        let age = match event.flags & (trace_flag::FLOW | trace_flag::KNOWN) {
            both if both == trace_flag::FLOW | trace_flag::KNOWN => Some(Age::Known),
            trace_flag::FLOW if event.hook != trace_hook::BIND => Some(Age::New),
            _ => None,
        };
        TraceReport {
            time_ns: self.time_ns,
            hook: Place::of(event.hook),
            interface,
            protocol: protocol(event.proto),
            from: (!self.is_call()).then(|| self.at(&event.src, event.sport)),
            to: self.at(&event.dst, event.dport),
            detail: detail(event),
            fragment: event.flags & trace_flag::FRAGMENT != 0,
            bytes: event.len,
            flow: age,
            client,
            vip,
            name: None,
            backend,
            task: None,
            how: backend.map(|_| Way::of(event.way)),
            then: Outcome::of(event.verdict, &reasons),
            reasons: reasons.iter().map(|r| r.as_str().to_owned()).collect(),
        }
    }
}

fn protocol(proto: u8) -> String {
    match proto {
        TCP => "tcp".to_owned(),
        UDP => "udp".to_owned(),
        ICMP => "icmp".to_owned(),
        ICMP6 => "icmp6".to_owned(),
        other => other.to_string(),
    }
}

fn detail(event: &TraceEvent) -> String {
    /// Bits of the TCP header's flags and the letters of `tcpdump`.
    const FLAGS: [(u8, char); 6] = [
        (0x02, 'S'),
        (0x01, 'F'),
        (0x04, 'R'),
        (0x08, 'P'),
        (0x20, 'U'),
        (0x10, '.'),
    ];
    match event.proto {
        TCP if event.hook < trace_hook::CONNECT => FLAGS
            .iter()
            .filter(|(bit, _)| event.kind & bit != 0)
            .map(|(_, letter)| *letter)
            .collect(),
        ICMP | ICMP6 => format!("type {} code {}", event.kind, event.code),
        _ => String::new(),
    }
}

// === impl TraceReport ===

impl TraceReport {
    /// What became of it, in words.
    pub fn story(&self) -> String {
        let mut words = Vec::new();
        if self.fragment {
            words.push("fragment".to_owned());
        }
        if let (Some(backend), Some(how)) = (self.backend, self.how) {
            let task = self.task.as_ref();
            let task = task.map_or_else(String::new, |task| format!(" ({task})"));
            let whose = match (self.flow, self.from) {
                (Some(Age::New), Some(_)) => "new flow, backend",
                _ if self.from == self.backend => "reply of",
                _ => "backend",
            };
            words.push(format!("{whose} {backend}{task} by {how}"));
        }
        words.push(match self.reasons.as_slice() {
            [] => self.then.to_string(),
            reasons => format!("{} ({})", self.then, reasons.join(", ")),
        });
        words.join(", ")
    }
}

// === impl Place ===

impl Place {
    fn of(hook: u8) -> Self {
        match hook {
            trace_hook::XDP => Self::Xdp,
            trace_hook::INGRESS => Self::TcIngress,
            trace_hook::LINK => Self::TcLink,
            trace_hook::EGRESS => Self::TcEgress,
            trace_hook::CONNECT => Self::Connect,
            trace_hook::SENDMSG => Self::Sendmsg,
            _ => Self::Bind,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Xdp => "xdp",
            Self::TcIngress => "tc-ingress",
            Self::TcLink => "tc-link",
            Self::TcEgress => "tc-egress",
            Self::Connect => "connect",
            Self::Sendmsg => "sendmsg",
            Self::Bind => "bind",
        })
    }
}

// === impl Outcome ===

impl Outcome {
    fn of(verdict: u8, reasons: &[Reason]) -> Self {
        match verdict {
            trace_verdict::DROPPED => Self::Dropped,
            trace_verdict::SENT => Self::Sent,
            trace_verdict::REFUSED => Self::Refused,
            // The stack answers.
            _ if reasons.iter().any(|reason| is_refused(*reason as u32)) => Self::Refused,
            _ => Self::Passed,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Passed => "passed",
            Self::Dropped => "dropped",
            Self::Sent => "sent",
            Self::Refused => "refused",
        })
    }
}

#[cfg(test)]
mod tests;
