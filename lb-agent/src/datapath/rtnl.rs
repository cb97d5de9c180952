//! Traffic control by rtnetlink, without waiting on a runtime: lists and removes what aya 0.14 cannot.
//!
//! Parsed by hand, because others' filters may hold anything and must not stop us from finding ours.

use std::{fmt, io};

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// `TC_H_CLSACT`, `include/uapi/linux/pkt_sched.h`; as a qdisc's handle its minor number is zero.
const CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
/// `struct nlmsghdr` and `struct tcmsg`.
const HEADER: usize = 16;
const TCMSG: usize = 20;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
/// `include/uapi/linux/pkt_cls.h`.
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_ID: u16 = 11;

/// Where in the qdisc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Ingress,
    Egress,
}

/// A filter, ours or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) priority: u16,
    pub(super) handle: u32,
    /// Of a cls_bpf filter.
    pub(super) name: Option<String>,
    /// The id of a cls_bpf filter's program.
    pub(super) program: Option<u32>,
    /// Priority and protocol as the kernel gave them.
    info: u32,
}

/// `struct tcmsg` without the family.
#[derive(Default)]
struct Tc {
    index: u32,
    handle: u32,
    parent: u32,
    info: u32,
}

// === impl Side ===

impl Side {
    /// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_*)`.
    fn parent(self) -> u32 {
        match self {
            Self::Ingress => 0xffff_fff2,
            Self::Egress => 0xffff_fff3,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// The interface's present name, or its number if it is gone.
pub(super) fn name(index: u32) -> String {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    );
    socket
        .and_then(|socket| rustix::net::netdevice::index_to_name(&socket, index))
        .unwrap_or_else(|_| format!("interface {index}"))
}

/// The interfaces of this network namespace that have a clsact qdisc.
pub(super) fn clsact_interfaces() -> io::Result<Vec<u32>> {
    let qdiscs = talk(libc::RTM_GETQDISC, libc::NLM_F_DUMP, &Tc::default())?;
    Ok(qdiscs
        .iter()
        .filter(|qdisc| attribute(&qdisc[TCMSG..], TCA_KIND).is_some_and(|k| k == b"clsact\0"))
        .map(|qdisc| word(qdisc, 4))
        .collect())
}

/// The filters of one side; none where there is no qdisc.
pub(super) fn filters(index: u32, side: Side) -> io::Result<Vec<Found>> {
    let request = Tc {
        index,
        parent: side.parent(),
        ..Tc::default()
    };
    let filters = talk(libc::RTM_GETTFILTER, libc::NLM_F_DUMP, &request)?;
    Ok(filters.iter().map(|filter| found(filter)).collect())
}

fn found(filter: &[u8]) -> Found {
    let attributes = &filter[TCMSG..];
    let options = match attribute(attributes, TCA_KIND) {
        Some(b"bpf\0") => attribute(attributes, TCA_OPTIONS).unwrap_or_default(),
        _ => &[],
    };
    let info = word(filter, 16);
    Found {
        priority: (info >> 16) as u16,
        handle: word(filter, 8),
        name: attribute(options, TCA_BPF_NAME)
            .map(|name| String::from_utf8_lossy(name.strip_suffix(b"\0").unwrap_or(name)).into()),
        program: attribute(options, TCA_BPF_ID)
            .filter(|id| id.len() == 4)
            .map(|id| word(id, 0)),
        info,
    }
}

/// Removes one filter. One that is gone already is no error.
pub(super) fn remove_filter(index: u32, side: Side, found: &Found) -> io::Result<()> {
    let request = Tc {
        index,
        handle: found.handle,
        parent: side.parent(),
        info: found.info,
    };
    gone(talk(libc::RTM_DELTFILTER, libc::NLM_F_ACK, &request))
}

/// Removes the clsact qdisc and whatever is in it.
pub(super) fn remove_clsact(index: u32) -> io::Result<()> {
    let request = Tc {
        index,
        handle: CLSACT_HANDLE,
        parent: CLSACT,
        info: 0,
    };
    gone(talk(libc::RTM_DELQDISC, libc::NLM_F_ACK, &request))
}

fn gone(answer: io::Result<Vec<Vec<u8>>>) -> io::Result<()> {
    match answer {
        Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// Sends a request and gathers what comes before the end or the acknowledgement, each at least a `tcmsg`.
fn talk(kind: u16, flags: libc::c_int, tc: &Tc) -> io::Result<Vec<Vec<u8>>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&request(kind, flags, tc), 0)?;
    let mut gathered = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while rest.len() >= HEADER {
            let length = (word(rest, 0) as usize).clamp(HEADER, rest.len());
            let payload = &rest[HEADER..length];
            match i32::from(u16::from_ne_bytes([rest[4], rest[5]])) {
                libc::NLMSG_DONE => return Ok(gathered),
                libc::NLMSG_ERROR if payload.len() >= 4 => match word(payload, 0) as i32 {
                    0 => return Ok(gathered),
                    errno => return Err(io::Error::from_raw_os_error(-errno)),
                },
                _ if payload.len() >= TCMSG => gathered.push(payload.to_vec()),
                _ => {}
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

fn request(kind: u16, flags: libc::c_int, tc: &Tc) -> Vec<u8> {
    let Tc {
        index,
        handle,
        parent,
        info,
    } = tc;
    let flags = (libc::NLM_F_REQUEST | flags) as u16;
    let mut bytes = Vec::with_capacity(HEADER + TCMSG);
    bytes.extend(((HEADER + TCMSG) as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Sequence number, port, then the address family: unspecified.
    bytes.extend([0; 12]);
    for word in [index, handle, parent, info] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes
}

/// A word in the machine's byte order. The caller has checked the length.
fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The value of the first attribute of this kind: length with its header, kind, value, padding to 4.
fn attribute(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let header = attributes.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let value = attributes.get(4..length)?;
        let found = i32::from(u16::from_ne_bytes([header[2], header[3]])) & libc::NLA_TYPE_MASK;
        if found == i32::from(kind) {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}
