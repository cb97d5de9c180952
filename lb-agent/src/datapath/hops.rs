//! The maps of next hops: the array that packets are sent by, and which neighbour has which index in it.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData},
};
use lb_common::{Addr4, Address as _, Neighbour as Key, NextHop};

use super::{kernel::take, sys};
use crate::plan::{HopOp, Neighbour};

/// What the maps hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldHops {
    /// Index by neighbour.
    pub names: BTreeMap<Neighbour, u32>,
    /// The array, without the entries that are all zeros.
    pub array: BTreeMap<u16, NextHop>,
}

/// The maps behind the indices in backends and flows.
pub struct HopMaps {
    array: Array<MapData, NextHop>,
    names: HashMap<MapData, Key, u32>,
}

// === impl HopMaps ===

impl HopMaps {
    pub(super) fn take(object: &mut Ebpf) -> Result<Self> {
        Ok(Self {
            array: take(object, "LB_NEXT_HOPS")?,
            names: take(object, "LB_NEIGHBOURS")?,
        })
    }

    /// Length of the array.
    pub fn capacity(&self) -> u16 {
        u16::try_from(self.array.len()).unwrap_or(u16::MAX)
    }

    /// Reads both maps.
    ///
    /// # Errors
    ///
    /// If one cannot be read.
    pub fn read(&self) -> Result<HeldHops> {
        let mut held = HeldHops::default();
        for entry in self.names.iter() {
            let (key, index) = entry.context("cannot read the indices of next hops")?;
            held.names.insert(neighbour(&key), index);
        }
        for index in 1..self.capacity() {
            let value = self.array.get(&index.into(), 0);
            let value = value.context("cannot read the array of next hops")?;
            if value != NextHop::default() {
                held.array.insert(index, value);
            }
        }
        Ok(held)
    }

    /// Does one write.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it; nothing was done then.
    pub fn apply(&mut self, op: &HopOp) -> Result<()> {
        match op {
            HopOp::Name { neighbour, index } => {
                self.names.insert(key(neighbour), u32::from(*index), 0)?;
            }
            HopOp::Put { index, value } => self.array.set(u32::from(*index), value, 0)?,
            HopOp::Forget(neighbour) => self.names.remove(&key(neighbour))?,
        }
        Ok(())
    }

    /// Waits until no packet is under way that saw the maps as they were before.
    ///
    /// # Errors
    ///
    /// If the kernel refuses membarrier(2).
    pub fn grace_period(&self) -> Result<()> {
        sys::grace_period().context("membarrier")
    }
}

fn key(neighbour: &Neighbour) -> Key {
    let (family, addr) = match neighbour.addr {
        IpAddr::V4(addr) => (4, Addr4::from(addr).widen()),
        IpAddr::V6(addr) => (6, addr.into()),
    };
    Key {
        ifindex: neighbour.ifindex,
        family,
        addr,
    }
}

fn neighbour(key: &Key) -> Neighbour {
    Neighbour {
        ifindex: key.ifindex,
        addr: match key.family {
            4 => IpAddr::V4(Addr4::narrow(&key.addr).into()),
            _ => IpAddr::V6(key.addr.into()),
        },
    }
}
