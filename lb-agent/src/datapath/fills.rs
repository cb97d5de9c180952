//! How full those tables are that neither a plan fills nor the collector of flows empties: of most, what was used
//! longest ago makes room for what comes.

use std::{io, os::fd::OwnedFd, path::Path};

use anyhow::{Context as _, Result};
use aya::Pod;
use lb_common::{
    Addr4, Addr6, Affinity, AffinityKey, Bucket, LocalKey, Neighbour,
    fragment::{FragmentKey, FragmentPorts},
};

use super::{
    flows::{Fill, entries, pinned},
    layout::{CLIENTS, FRAGMENTS, LOCALS, NAMESPACES, NEXT_HOPS},
};

/// The tables, opened from their pins.
#[derive(Debug)]
pub(super) struct Fills(Vec<Table>);

#[derive(Debug)]
struct Table {
    map: &'static str,
    name: &'static str,
    room: u32,
    fd: OwnedFd,
    count: fn(&OwnedFd) -> io::Result<u32>,
}

// === impl Fills ===

impl Fills {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let table = |map, name, room, count| {
            Ok(Table {
                map,
                name,
                room,
                fd: pinned(dir, map)?,
                count,
            })
        };
        let tables: [Result<Table>; 7] = [
            table(
                "LB_AFFINITY",
                "clients with affinity",
                CLIENTS,
                count::<AffinityKey, Affinity>,
            ),
            table(
                "LB_SOURCE_RATES",
                "clients with a rate",
                CLIENTS,
                count::<AffinityKey, Bucket>,
            ),
            table(
                "LB_NETNS",
                "network namespaces of local clients",
                NAMESPACES,
                count::<AffinityKey, Addr6>,
            ),
            table(
                "LB_FRAGMENTS4",
                "fragmented packets, IPv4",
                FRAGMENTS,
                count::<FragmentKey<Addr4>, FragmentPorts>,
            ),
            table(
                "LB_FRAGMENTS6",
                "fragmented packets, IPv6",
                FRAGMENTS,
                count::<FragmentKey<Addr6>, FragmentPorts>,
            ),
            table(
                "LB_NEIGHBOURS",
                "next hops",
                // Index 0 is not used.
                NEXT_HOPS - 1,
                count::<Neighbour, u32>,
            ),
            table(
                "LB_LOCALS",
                "backends of this node for peers",
                LOCALS,
                count::<LocalKey, u32>,
            ),
        ];
        Ok(Self(tables.into_iter().collect::<Result<_>>()?))
    }

    /// All of them at this moment.
    ///
    /// # Errors
    ///
    /// If one cannot be read.
    pub(super) fn read(&self) -> Result<Vec<Fill>> {
        let fills = self.0.iter().map(|table| {
            let used = (table.count)(&table.fd);
            Ok(Fill {
                name: table.name,
                used: used.with_context(|| format!("cannot read {}", table.map))?,
                room: table.room,
            })
        });
        fills.collect()
    }
}

fn count<K: Pod + Default, V: Pod + Default>(map: &OwnedFd) -> io::Result<u32> {
    let mut used = 0;
    entries(map, |_: K, _: V| used += 1)?;
    Ok(used)
}
