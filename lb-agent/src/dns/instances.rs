//! Pure: the names below that of a VIP, which stand for its backends.
//!
//! | name | answer |
//! |---|---|
//! | `tasks.NAME` | A, AAAA: every backend that takes new connections |
//! | `_PORT._tcp.tasks.NAME`, `_udp` | SRV (RFC 2782): those at that port of the VIP, with their own ports |
//! | `INSTANCE.NAME` | A, AAAA: that backend, as long as it is there |
//!
//! An instance is called what its orchestrator calls it, or by its address: `10-0-1-5`, `fd00-0-0-0-0-0-0-5`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use rand::seq::SliceRandom as _;

use crate::{catalog::Protocol, vip};

/// More are not named in one answer: with the longest names it would not fit a message over TCP (RFC 1035 section 4.2.2).
const MOST: usize = 200;
/// What stands for all of them.
const TASKS: &str = "tasks";

/// A backend of a VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Where it listens.
    pub addr: SocketAddr,
    /// The VIP's port, host byte order.
    pub port: u16,
    /// The VIP's protocol.
    pub protocol: Protocol,
    /// Its share of new connections.
    pub weight: u16,
    /// Whether it takes new connections.
    pub ready: bool,
    /// One label; what [`Self::label`] gives.
    pub label: Box<str>,
}

/// What the labels before the name of a VIP ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked<'a> {
    /// All that take new connections.
    Tasks,
    /// Those behind one port; `None`: a node of the tree without records.
    Port(Option<(u16, Protocol)>),
    /// One.
    One(&'a str),
}

// === impl Instance ===

impl Instance {
    /// The label of a backend at `addr` that its orchestrator calls `name`.
    pub fn label(name: Option<&str>, addr: IpAddr) -> Box<str> {
        let named = name.and_then(vip::label).filter(|label| label != TASKS);
        let label = named.unwrap_or_else(|| match addr {
            IpAddr::V4(v4) => v4.octets().map(|part| part.to_string()).join("-"),
            IpAddr::V6(v6) => v6.segments().map(|part| format!("{part:x}")).join("-"),
        });
        label.into()
    }
}

// === impl Asked ===

impl<'a> Asked<'a> {
    /// What `labels` ask for, in lower case, and the rest, which is the VIP's name.
    pub(super) fn read<'l>(labels: &'l [&'a str]) -> Option<(Self, &'l [&'a str])> {
        let protocol = |label: &str| match label {
            "_tcp" => Some(Protocol::Tcp),
            "_udp" => Some(Protocol::Udp),
            _ => None,
        };
        match labels {
            [TASKS, name @ ..] => Some((Self::Tasks, name)),
            [one, TASKS, name @ ..] if protocol(one).is_some() => Some((Self::Port(None), name)),
            [port, below, TASKS, name @ ..] => {
                let digits = port.strip_prefix('_')?;
                let port = digits
                    .parse()
                    .ok()
                    .filter(|port: &u16| port.to_string() == digits)?;
                Some((Self::Port(Some((port, protocol(below)?))), name))
            }
            [one, name @ ..] => Some((Self::One(one), name)),
            [] => None,
        }
    }
}

/// The addresses that `asked` stands for among `instances`, in random order; `None`: there is no such name.
pub(super) fn addresses(instances: &[Instance], asked: Asked<'_>) -> Option<Vec<IpAddr>> {
    let of = |counts: &dyn Fn(&&Instance) -> bool| {
        let counting = instances.iter().filter(counts);
        let addrs: BTreeSet<IpAddr> = counting.map(|one| one.addr.ip()).collect();
        shuffled(addrs)
    };
    match asked {
        Asked::Tasks => Some(of(&|one| one.ready)),
        Asked::Port(_) => services(instances, asked).map(|_| Vec::new()),
        Asked::One(label) => Some(of(&|one| *one.label == *label)).filter(|some| !some.is_empty()),
    }
}

/// The backends of SRV records for `asked`, in random order; `None`: there is no such name.
pub(super) fn services<'i>(
    instances: &'i [Instance],
    asked: Asked<'_>,
) -> Option<Vec<&'i Instance>> {
    let Asked::Port(port) = asked else {
        return addresses(instances, asked).map(|_| Vec::new());
    };
    let Some((port, protocol)) = port else {
        return Some(Vec::new());
    };
    let behind = || {
        let fits = move |one: &&Instance| one.port == port && one.protocol == protocol;
        instances.iter().filter(fits)
    };
    behind().next()?;
    // One that has both families is one service.
    let ready = behind().filter(|one| one.ready);
    let distinct: BTreeMap<_, _> = ready
        .map(|one| ((&one.label, one.addr.port()), one))
        .collect();
    Some(shuffled(distinct.into_values()))
}

fn shuffled<T>(all: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut all: Vec<T> = all.into_iter().collect();
    all.shuffle(&mut rand::rng());
    all.truncate(MOST);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_called_as_its_orchestrator_says_or_by_its_address() {
        for (name, addr, label) in [
            (Some("web-1"), "10.0.0.1", "web-1"),
            (Some("Web_1.x"), "10.0.0.1", "web-1-x"),
            (Some("tasks"), "10.0.0.1", "10-0-0-1"),
            (Some("--"), "10.0.0.1", "10-0-0-1"),
            (None, "10.0.0.1", "10-0-0-1"),
            (None, "fd00::5", "fd00-0-0-0-0-0-0-5"),
        ] {
            let addr = addr.parse().unwrap();
            assert_eq!(*Instance::label(name, addr), *label, "{name:?} {addr}");
        }
    }

    #[test]
    fn the_labels_before_a_name_say_what_is_asked() {
        for (asked, expected) in [
            ("tasks.web.docker", Some((Asked::Tasks, 2))),
            ("web-1.web.docker", Some((Asked::One("web-1"), 2))),
            ("_tcp.tasks.web.docker", Some((Asked::Port(None), 2))),
            (
                "_80._udp.tasks.web.docker",
                Some((Asked::Port(Some((80, Protocol::Udp))), 2)),
            ),
            ("_080._udp.tasks.web.docker", None),
            ("_x._tcp.tasks.web.docker", None),
            ("_80._sctp.tasks.web.docker", None),
        ] {
            let labels: Vec<&str> = asked.split('.').collect();
            let read = Asked::read(&labels).map(|(asked, name)| (asked, name.len()));
            assert_eq!(read, expected, "{asked}");
        }
        assert_eq!(Asked::read(&[]), None);
    }
}
