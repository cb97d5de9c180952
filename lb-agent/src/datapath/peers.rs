//! Peers: the agents of backends' hosts, who may send packets for backends of this node, and those backends.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData},
};
use lb_common::{Addr4, Addr6, Address as _, Be16, LocalKey, Peer};

use super::{
    arrays::ById,
    kernel::take,
    layout::{SENDERS, Sizes},
};
use crate::plan::{Endpoint, KernelState, Local};

/// The maps.
pub(super) struct Peers {
    hosts: ById<Peer>,
    v4: HashMap<MapData, Addr4, u32>,
    v6: HashMap<MapData, Addr6, u32>,
    /// The same addresses by index; index 0 is nobody's.
    by_index: Array<MapData, Addr6>,
    locals: HashMap<MapData, LocalKey, u32>,
}

// === impl Peers ===

impl Peers {
    pub(super) fn take(object: &mut Ebpf, sizes: &Sizes) -> Result<Self> {
        Ok(Self {
            hosts: ById::take(object, "LB_PEERS", sizes.backends)?,
            v4: take(object, "LB_SENDERS4")?,
            v6: take(object, "LB_SENDERS6")?,
            by_index: take(object, "LB_SENDERS")?,
            locals: take(object, "LB_LOCALS")?,
        })
    }

    /// Adds what they hold, of backends with ids below `end`.
    pub(super) fn read(&self, state: &mut KernelState, end: usize) -> Result<()> {
        state.hosts = self.hosts.read_below(end)?;
        for entry in self.v4.keys() {
            state.peers.insert(IpAddr::V4(entry?.into()));
        }
        for entry in self.v6.keys() {
            state.peers.insert(IpAddr::V6(entry?.into()));
        }
        for entry in self.locals.iter() {
            let (key, id) = entry?;
            let addr = match key.family {
                4 => IpAddr::V4(Addr4::narrow(&key.addr).into()),
                _ => IpAddr::V6(key.addr.into()),
            };
            let local = Local {
                service: key.service,
                addr: SocketAddr::new(addr, key.port.get()),
            };
            state.locals.insert(local, id);
        }
        Ok(())
    }

    pub(super) fn put_hosts(&self, ids: &[u32], values: &[Peer]) -> Result<()> {
        self.hosts.put(ids, values)
    }

    /// The address comes first into the array, so that the index is of no use to whoever had it before.
    pub(super) fn put(&mut self, addr: IpAddr) -> Result<()> {
        let index = self.vacant()?;
        self.by_index.set(index, Endpoint::wide(addr), 0)?;
        match addr {
            IpAddr::V4(addr) => self.v4.insert(Addr4::from(addr), index, 0)?,
            IpAddr::V6(addr) => self.v6.insert(Addr6::from(addr), index, 0)?,
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, addr: IpAddr) -> Result<()> {
        let index = match addr {
            IpAddr::V4(addr) => {
                let addr = Addr4::from(addr);
                let index = self.v4.get(&addr, 0)?;
                self.v4.remove(&addr)?;
                index
            }
            IpAddr::V6(addr) => {
                let addr = Addr6::from(addr);
                let index = self.v6.get(&addr, 0)?;
                self.v6.remove(&addr)?;
                index
            }
        };
        self.by_index
            .set(index, Addr6::default(), 0)
            .context("a peer that is none any more is still known by its index")
    }

    fn vacant(&self) -> Result<u32> {
        for index in 1..=2 * SENDERS {
            if self.by_index.get(&index, 0)? == Addr6::default() {
                return Ok(index);
            }
        }
        bail!("there is no room for another peer")
    }

    pub(super) fn put_local(&mut self, local: &Local, id: u32) -> Result<()> {
        self.locals.insert(name(local), id, 0)?;
        Ok(())
    }

    pub(super) fn remove_local(&mut self, local: &Local) -> Result<()> {
        self.locals.remove(&name(local))?;
        Ok(())
    }
}

fn name(local: &Local) -> LocalKey {
    LocalKey {
        addr: Endpoint::wide(local.addr.ip()),
        service: local.service,
        port: Be16::new(local.addr.port()),
        family: if local.addr.is_ipv4() { 4 } else { 6 },
    }
}
