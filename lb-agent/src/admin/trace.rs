//! `GET /v1/trace` and `/v1/capture`: single packets and calls as they come, until the client goes.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use axum::{
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use ipnet::IpNet;
use lb_common::{Reason, SNAP_MAX};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{flows, report::StatusReport};
use crate::{
    look::{
        Seen, Told, TraceFilter, TraceReport, TraceWish,
        pcapng::{Captured, Direction, Pcapng},
    },
    plan::Endpoint,
};

/// Bytes of each packet when nobody says how many: all headers and the start of what they carry.
const SNAP: u32 = 256;
/// What is handed on at once.
const BATCH: usize = 256;
/// Traffic that a program saw at no interface that is still there.
const NO_INTERFACE: &str = "?";

/// The query of both.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Ask {
    vip: Option<String>,
    client: Option<String>,
    reason: Option<String>,
    sample: Option<String>,
    snap: Option<String>,
}

/// Names for what is told, from the newest report.
struct Book {
    reports: Arc<ArcSwap<StatusReport>>,
    read: Arc<StatusReport>,
    vips: BTreeMap<Endpoint, String>,
    tasks: BTreeMap<SocketAddr, Arc<str>>,
    interfaces: BTreeMap<u32, Option<String>>,
}

/// What becomes of [`Told`] on its way out.
trait Write: Send + 'static {
    fn write(&mut self, told: &Told, book: &mut Book, to: &mut Vec<u8>);
}

/// A line of JSON each; an empty line now and then, which tells each side that the other is there.
struct Lines;

struct Packets {
    file: Pcapng,
    begun: bool,
    lost: u64,
}

// === impl Ask ===

impl Ask {
    /// What is asked for; `bytes`: the packets themselves.
    ///
    /// # Errors
    ///
    /// One sentence about what is wrong with the query.
    pub(super) fn read(&self, report: &StatusReport, bytes: bool) -> Result<TraceWish, String> {
        let Self {
            vip,
            client,
            reason,
            sample,
            snap,
        } = self;
        let mut filter = TraceFilter {
            client: client.as_deref().map(net).transpose()?,
            reason: reason.as_deref().map(known_reason).transpose()?,
            ..TraceFilter::default()
        };
        if let Some(vip) = vip {
            match vip.parse() {
                Ok(spot) => filter.vip = Some(spot),
                Err(_) => filter.services = Some(flows::services(report, vip, "vip")?),
            }
        }
        let number = |name: &str, text: &Option<String>, most: u32, default: u32| match text {
            None => Ok(default),
            Some(text) => text
                .parse()
                .ok()
                .filter(|number| (1..=most).contains(number))
                .ok_or_else(|| format!("{name}: not a number from 1 to {most}")),
        };
        Ok(TraceWish {
            filter,
            sample: number("sample", sample, u32::MAX, 1)?,
            snap: match number("snap", snap, SNAP_MAX as u32, SNAP)? {
                snap if bytes => snap,
                _ => 0,
            },
        })
    }
}

fn net(text: &str) -> Result<IpNet, String> {
    text.parse()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| "client: neither an address nor a prefix such as 192.0.2.0/24".to_owned())
}

fn known_reason(text: &str) -> Result<Reason, String> {
    let wanted = text.replace('-', "_");
    let mut all = Reason::ALL.iter();
    all.find(|reason| reason.as_str() == wanted)
        .copied()
        .ok_or_else(|| {
            let all: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
            format!("reason: there is no {text}; there are {}", all.join(", "))
        })
}

/// Everything that is told, a line of JSON each.
pub(super) fn lines(told: mpsc::Receiver<Told>, reports: Arc<ArcSwap<StatusReport>>) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (kind, body(told, reports, Lines)).into_response()
}

/// Every packet that is told, as a pcapng file.
pub(super) fn packets(
    told: mpsc::Receiver<Told>,
    reports: Arc<ArcSwap<StatusReport>>,
    snap: u32,
) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/x-pcapng")];
    let writer = Packets {
        file: Pcapng::new(snap),
        begun: false,
        lost: 0,
    };
    (kind, body(told, reports, writer)).into_response()
}

fn body(
    told: mpsc::Receiver<Told>,
    reports: Arc<ArcSwap<StatusReport>>,
    writer: impl Write,
) -> Body {
    let state = (told, Book::new(reports), writer);
    Body::from_stream(stream::unfold(
        state,
        |(mut told, mut book, mut writer)| async {
            let (mut batch, mut bytes) = (Vec::with_capacity(BATCH), Vec::new());
            while bytes.is_empty() {
                if told.recv_many(&mut batch, BATCH).await == 0 {
                    return None;
                }
                for one in batch.drain(..) {
                    if one == Told::Beat {
                        book.refresh();
                    }
                    writer.write(&one, &mut book, &mut bytes);
                }
            }
            let bytes = Ok::<_, std::convert::Infallible>(Bytes::from(bytes));
            Some((bytes, (told, book, writer)))
        },
    ))
}

// === impl Book ===

impl Book {
    fn new(reports: Arc<ArcSwap<StatusReport>>) -> Self {
        let mut book = Self {
            reports,
            read: Arc::default(),
            vips: BTreeMap::new(),
            tasks: BTreeMap::new(),
            interfaces: BTreeMap::new(),
        };
        book.refresh();
        book
    }

    fn refresh(&mut self) {
        // An index may have been given away.
        self.interfaces.clear();
        let newest = self.reports.load_full();
        if Arc::ptr_eq(&newest, &self.read) {
            return;
        }
        self.vips = flows::names(&newest)
            .into_iter()
            .map(|(vip, name)| (vip, name.to_owned()))
            .collect();
        let backends = newest.services.iter().flat_map(|service| &service.backends);
        self.tasks = backends
            .filter(|backend| *backend.task != *backend.addr.to_string())
            .map(|backend| (backend.addr, backend.task.clone()))
            .collect();
        self.read = newest;
    }

    fn report(&mut self, seen: &Seen) -> TraceReport {
        let index = seen.event.ifindex;
        let known = self.interfaces.entry(index);
        let interface = known.or_insert_with(|| interface(index)).clone();
        let mut report = seen.report(interface);
        let vip = Endpoint::new(report.vip, seen.event.proto);
        report.name = self.vips.get(&vip).cloned();
        let task = |backend: SocketAddr| self.tasks.get(&backend).cloned();
        report.task = report.backend.and_then(task);
        report
    }
}

fn interface(index: u32) -> Option<String> {
    if index == 0 {
        return None;
    }
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    rustix::net::netdevice::index_to_name(&socket, index).ok()
}

// === impl Lines ===

impl Write for Lines {
    fn write(&mut self, told: &Told, book: &mut Book, to: &mut Vec<u8>) {
        let line = match told {
            Told::Beat => Ok(String::new()),
            Told::Seen(seen) => serde_json::to_string(&book.report(seen)),
            Told::Lost(lost) => Ok(format!("{{\"lost\":{lost}}}")),
        };
        // Plain values: they can be written.
        if let Ok(line) = line {
            to.extend(line.as_bytes());
            to.push(b'\n');
        }
    }
}

// === impl Packets ===

impl Write for Packets {
    fn write(&mut self, told: &Told, book: &mut Book, to: &mut Vec<u8>) {
        if !self.begun {
            self.begun = true;
            to.extend(self.file.header());
        }
        match told {
            Told::Beat => {}
            Told::Seen(seen) if seen.bytes.is_empty() => {}
            Told::Seen(seen) => {
                let report = book.report(seen);
                let after = seen.is_after();
                let direction = if after {
                    Direction::Outbound
                } else {
                    Direction::Inbound
                };
                let when = if after { "as it went" } else { "as it came" };
                let comment = format!("{} {when}: {}", report.hook, report.story());
                let packet = Captured {
                    time_ns: seen.time_ns,
                    bytes: &seen.bytes,
                    len: seen.event.len,
                    direction,
                    comment: &comment,
                };
                let interface = report.interface.as_deref().unwrap_or(NO_INTERFACE);
                to.extend(self.file.packet(interface, &packet));
            }
            Told::Lost(lost) => {
                self.lost += lost;
                let now = SystemTime::now().duration_since(UNIX_EPOCH);
                let now = now.unwrap_or_default().as_nanos() as u64;
                to.extend(self.file.lost(now, self.lost));
            }
        }
    }
}
