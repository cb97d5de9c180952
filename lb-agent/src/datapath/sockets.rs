//! Local sockets whose backend takes no packets any more.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    path::Path,
};

use anyhow::{Context as _, Result};
use aya::maps::{HashMap as BpfHashMap, Map, MapData};
use lb_common::{
    Addr4, Addr6, Address as _, Backend, Service, ServiceKey, SockKey, SockPeer, backend_state,
    headers::UDP, service_flag,
};

use super::{
    Sizes,
    arrays::ById,
    flows::{Pair, entries, is_missing, pinned},
    layout::schema_dir,
};

/// What is remembered of local sockets, opened from the pins.
#[derive(Debug)]
pub struct Sockets {
    peers: OwnedFd,
    map: BpfHashMap<MapData, SockKey, SockPeer>,
    backends: ById<Backend>,
    services4: OwnedFd,
    services6: OwnedFd,
}

/// A socket that talks to nobody.
#[derive(Clone, Copy, Debug)]
pub struct Orphan {
    key: SockKey,
}

// === impl Sockets ===

impl Sockets {
    pub(super) fn open(pin_dir: &Path, sizes: &Sizes) -> Result<Self> {
        let dir = &schema_dir(pin_dir);
        let path = dir.join("LB_SOCK_PEERS");
        let map = MapData::from_pin(&path)
            .with_context(|| format!("cannot open the pinned map {}", path.display()))?;
        Ok(Self {
            peers: pinned(dir, "LB_SOCK_PEERS")?,
            map: Map::LruHashMap(map).try_into()?,
            backends: ById::open(dir, "LB_BACKENDS", sizes.backends)?,
            services4: pinned(dir, "LB_SERVICES4")?,
            services6: pinned(dir, "LB_SERVICES6")?,
        })
    }

    /// Sockets whose backend is gone; of UDP also those whose backend is down, unless their service fails open. Some
    /// of them may have been closed long ago. Blocks.
    ///
    /// # Errors
    ///
    /// If a map cannot be read.
    pub fn orphans(&self) -> Result<Vec<Orphan>> {
        let backends = self.backends.read()?;
        let mut flags = HashMap::new();
        entries(&self.services4, |_: ServiceKey<Addr4>, service: Service| {
            flags.insert(service.id, service.flags);
        })
        .context("cannot read LB_SERVICES4")?;
        entries(&self.services6, |_: ServiceKey<Addr6>, service: Service| {
            flags.insert(service.id, service.flags);
        })
        .context("cannot read LB_SERVICES6")?;
        self.whose(|key, peer| {
            let flags = flags.get(&peer.service).copied().unwrap_or_default();
            is_orphan(key, peer, backends.get(&peer.backend), flags)
        })
    }

    /// Sockets that are connected to these backends by these services. Some of them may have been closed long ago. Blocks.
    ///
    /// # Errors
    ///
    /// If the map cannot be read.
    pub fn of(&self, pairs: &BTreeSet<Pair>) -> Result<Vec<Orphan>> {
        self.whose(|_, peer| {
            pairs.contains(&Pair {
                service: peer.service,
                backend: peer.backend,
            })
        })
    }

    fn whose(&self, is_meant: impl Fn(&SockKey, &SockPeer) -> bool) -> Result<Vec<Orphan>> {
        let mut found = Vec::new();
        entries(&self.peers, |key: SockKey, peer: SockPeer| {
            if is_meant(&key, &peer) {
                found.push(Orphan { key });
            }
        })
        .context("cannot read LB_SOCK_PEERS")?;
        Ok(found)
    }

    /// Forgets a socket that was ended.
    ///
    /// # Errors
    ///
    /// If the map cannot be written.
    pub fn forget(&mut self, orphan: &Orphan) -> Result<()> {
        match self.map.remove(&orphan.key) {
            Ok(()) => Ok(()),
            // The program that sees a connection end was first.
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(error).context("cannot forget a socket"),
        }
    }
}

/// `flags`: those of the service that it was connected to.
fn is_orphan(key: &SockKey, peer: &SockPeer, backend: Option<&Backend>, flags: u32) -> bool {
    let Some(backend) = backend.filter(|backend| backend.generation == peer.generation) else {
        return true;
    };
    match backend.state {
        backend_state::FREE => true,
        backend_state::DOWN => key.proto == UDP && flags & service_flag::FAIL_OPEN == 0,
        _ => false,
    }
}

// === impl Orphan ===

impl Orphan {
    /// The kernel's socket cookie.
    pub fn cookie(&self) -> u64 {
        self.key.cookie
    }

    /// IP protocol number.
    pub fn proto(&self) -> u8 {
        self.key.proto
    }

    /// The backend that it is connected to.
    pub fn peer(&self) -> SocketAddr {
        let addr = match self.key.family {
            4 => IpAddr::V4(Addr4::narrow(&self.key.addr).into()),
            _ => IpAddr::V6(self.key.addr.into()),
        };
        SocketAddr::new(addr, self.key.port.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::headers::TCP;

    #[test]
    fn who_drains_is_left_alone_and_who_is_down_loses_udp_unless_the_service_fails_open() {
        let peer = SockPeer {
            generation: 7,
            ..SockPeer::default()
        };
        let orphan = |proto, state, generation, flags| {
            let key = SockKey {
                proto,
                ..SockKey::default()
            };
            let backend = Backend {
                state,
                generation,
                ..Backend::default()
            };
            is_orphan(&key, &peer, Some(&backend), flags)
        };
        use backend_state::{ACTIVE, DOWN, DRAINING, FREE};
        for proto in [TCP, UDP] {
            assert!(!orphan(proto, ACTIVE, 7, 0));
            assert!(!orphan(proto, DRAINING, 7, 0));
            assert!(orphan(proto, FREE, 7, 0));
            assert!(orphan(proto, ACTIVE, 8, 0));
            assert!(!orphan(proto, DOWN, 7, service_flag::FAIL_OPEN));
        }
        assert!(orphan(UDP, DOWN, 7, 0));
        assert!(!orphan(TCP, DOWN, 7, 0));
        let key = SockKey::default();
        assert!(is_orphan(&key, &peer, None, 0));
    }
}
