//! Pure: what HAProxy's tools call services and backends.

use std::{
    collections::{BTreeSet, HashSet},
    net::SocketAddr,
    sync::Arc,
};

use sha2::{Digest as _, Sha256};

use crate::{
    admin::report::{BackendReport, ServiceReport},
    catalog::Protocol,
};

/// The largest `sid`.
const SIDS: u16 = 32_767;

/// `pxname`: service ports of Marathon are called as Marathon-LB calls them, others by name and port.
pub(super) fn proxy(service: &ServiceReport) -> String {
    let port = service.port;
    let name = match (&service.called, &service.name, service.addrs.first()) {
        (Some(called), ..) => called.to_string(),
        (None, Some(name), _) => name.clone(),
        (None, None, Some(addr)) => addr.to_string(),
        (None, None, None) => String::new(),
    };
    let udp = match service.protocol {
        Protocol::Tcp => "",
        Protocol::Udp => "_udp",
    };
    let name = format!("{name}_{port}{udp}");
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.:-".contains(c);
    name.chars()
        .map(|c| if plain(c) { c } else { '_' })
        .collect()
}

/// Makes names unique: the second of one name is `name_2`.
pub(super) fn unique(name: String, taken: &mut HashSet<Arc<str>>) -> Arc<str> {
    let mut found: Arc<str> = name.as_str().into();
    let mut number = 2;
    while !taken.insert(Arc::clone(&found)) {
        found = format!("{name}_{number}").into();
        number += 1;
    }
    found
}

/// What the name of a backend is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    addr: SocketAddr,
    host: Option<Arc<str>>,
    called: Option<Arc<str>>,
}

// === impl Named ===

impl Named {
    pub(super) fn of(backend: &BackendReport) -> Self {
        Self {
            addr: backend.addr,
            host: backend.host.clone(),
            called: backend.called.clone(),
        }
    }

    /// Whether the name would be made of the same.
    pub(super) fn is_of(&self, backend: &BackendReport) -> bool {
        let Self { addr, host, called } = self;
        *addr == backend.addr && *host == backend.host && *called == backend.called
    }
}

/// `svname` without what makes it unique: what the operator calls it, `host_ip_port` of a Marathon task whose host is
/// called otherwise than it is reached, as by Marathon-LB, else `ip_port`.
fn server(Named { addr, host, called }: &Named) -> String {
    if let Some(called) = called {
        return called.to_string();
    }
    let host = host.iter().map(|host| format!("{host}_"));
    let name = host.collect::<String>() + &format!("{}_{}", addr.ip(), addr.port());
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    name.chars()
        .map(|c| if plain(c) { c } else { '_' })
        .collect()
}

/// `sid`, `svname` and place of every backend, ascending by `sid`.
pub(super) fn servers(named: &[Named]) -> Vec<(u16, Arc<str>, usize)> {
    let mut taken = HashSet::new();
    let names = named.iter().enumerate();
    // Who has a name of his own keeps it.
    let (called, others): (Vec<_>, Vec<_>) = names.partition(|(_, one)| one.called.is_some());
    let names = called.into_iter().chain(others);
    let mut names: Vec<_> = names
        .map(|(place, one)| (unique(server(one), &mut taken), place))
        .collect();
    names.sort();
    let mut ids = BTreeSet::new();
    let mut servers: Vec<_> = names
        .into_iter()
        // More than there are ids: nobody can tell them apart, so they are not shown.
        .take(SIDS.into())
        .map(|(name, place)| (id(&name, &mut ids), name, place))
        .collect();
    servers.sort();
    servers
}

/// A hash of the name that nobody else has.
fn id(name: &str, taken: &mut BTreeSet<u16>) -> u16 {
    let mut text = name.to_owned();
    loop {
        let digest = Sha256::digest(text.as_bytes());
        let id = digest.iter().fold(0_u32, |rest, byte| {
            (rest * 256 + u32::from(*byte)) % u32::from(SIDS)
        });
        // Less than SIDS.
        let id = id as u16;
        if id > 0 && taken.insert(id) {
            return id;
        }
        if taken.len() + 1 >= usize::from(SIDS) {
            // All but the last are taken.
            taken.insert(SIDS);
            return SIDS;
        }
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        text = format!("{text} {hex}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_called_and_numbered_as_by_marathon_lb() {
        let at = |host: Option<&str>, text: &str| {
            let addr = text.parse::<SocketAddr>().unwrap();
            Named {
                addr,
                host: host.map(Arc::from),
                called: None,
            }
        };
        let found = servers(&[
            at(None, "10.0.0.1:31000"),
            at(None, "[fd00::1]:80"),
            at(Some("agent1.mesos"), "10.0.1.5:28543"),
            Named {
                called: Some("fd00__2_80".into()),
                ..at(Some("agent1.mesos"), "10.0.1.5:28544")
            },
            at(None, "[fd00::2]:80"),
        ]);
        let names: BTreeSet<_> = found
            .iter()
            .map(|(_, name, place)| (&**name, *place))
            .collect();
        let all = [
            ("10_0_0_1_31000", 0),
            ("fd00__1_80", 1),
            ("agent1_mesos_10_0_1_5_28543", 2),
            ("fd00__2_80", 3),
            ("fd00__2_80_2", 4),
        ];
        assert_eq!(names, all.into());
        // python3: int(hashlib.sha256(b"10_0_0_1_31000").hexdigest(), 16) % 32767
        let first = found.iter().find(|(_, _, place)| *place == 0).unwrap();
        assert_eq!(first.0, FIRST);
        // The same name again, as a hash that is taken: "<name> <hex>".
        let mut taken = BTreeSet::from([FIRST]);
        assert_eq!(id("10_0_0_1_31000", &mut taken), SECOND);
    }

    /// By Python.
    const FIRST: u16 = 28035;
    const SECOND: u16 = 8455;

    #[test]
    fn many_servers_all_have_ids_of_their_own() {
        let addrs: Vec<_> = (0..2_000_u16)
            .map(|n| Named {
                addr: SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 80)),
                host: None,
                called: None,
            })
            .collect();
        let found = servers(&addrs);
        let ids: BTreeSet<_> = found.iter().map(|(sid, ..)| *sid).collect();
        assert_eq!(ids.len(), addrs.len());
        assert!(found.windows(2).all(|two| two[0].0 < two[1].0));
    }

    #[test]
    fn a_proxy_is_called_as_its_orchestrator_wants_it_or_by_its_name_and_port() {
        let mut service = crate::admin::tests::reports::service(None, "11.0.0.1", 80, &[]);
        let (port, name) = (service.port, "my-shop.marathon");
        service.name = Some(name.to_owned());
        assert_eq!(proxy(&service), format!("{name}_{port}"));
        service.called = Some("My_shop".into());
        assert_eq!(proxy(&service), format!("My_shop_{port}"));
        service.protocol = Protocol::Udp;
        assert_eq!(proxy(&service), format!("My_shop_{port}_udp"));
    }

    #[test]
    fn names_that_become_alike_are_told_apart() {
        let mut taken = HashSet::new();
        let mut name = || unique("a".to_owned(), &mut taken);
        assert_eq!([&*name(), &*name(), &*name()], ["a", "a_2", "a_3"]);
    }
}
