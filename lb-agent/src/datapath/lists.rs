//! The services' lists of sources, both families in one.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::Result;
use aya::{
    Ebpf,
    maps::{LpmTrie, MapData, lpm_trie::Key},
};
use ipnet::IpNet;
use lb_common::{Addr4, Addr6, SOURCE_BITS, SourceKey};

use super::kernel::take;
use crate::plan::Listed;

/// The maps of both families.
pub(super) struct Lists {
    v4: LpmTrie<MapData, SourceKey<Addr4>, u32>,
    v6: LpmTrie<MapData, SourceKey<Addr6>, u32>,
}

// === impl Lists ===

impl Lists {
    pub(super) fn take(object: &mut Ebpf) -> Result<Self> {
        Ok(Self {
            v4: take(object, "LB_LISTS4")?,
            v6: take(object, "LB_LISTS6")?,
        })
    }

    pub(super) fn read(&self) -> Result<BTreeMap<Listed, u32>> {
        let mut found = BTreeMap::new();
        for entry in self.v4.iter() {
            let (key, rule) = entry?;
            // A copy: the key is packed.
            let SourceKey { service, addr } = key.data();
            found.insert(
                listed(service, IpAddr::V4(addr.into()), key.prefix_len())?,
                rule,
            );
        }
        for entry in self.v6.iter() {
            let (key, rule) = entry?;
            let SourceKey { service, addr } = key.data();
            found.insert(
                listed(service, IpAddr::V6(addr.into()), key.prefix_len())?,
                rule,
            );
        }
        Ok(found)
    }

    pub(super) fn put(&mut self, listed: &Listed, rule: u32) -> Result<()> {
        match listed.net {
            IpNet::V4(net) => self
                .v4
                .insert(&key(listed, net.network().into()), rule, 0)?,
            IpNet::V6(net) => self
                .v6
                .insert(&key(listed, net.network().into()), rule, 0)?,
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, listed: &Listed) -> Result<()> {
        match listed.net {
            IpNet::V4(net) => self.v4.remove(&key(listed, net.network().into()))?,
            IpNet::V6(net) => self.v6.remove(&key(listed, net.network().into()))?,
        }
        Ok(())
    }
}

fn key<A>(listed: &Listed, addr: A) -> Key<SourceKey<A>>
where
    SourceKey<A>: aya::Pod,
{
    let service = listed.service;
    let bits = SOURCE_BITS + u32::from(listed.net.prefix_len());
    Key::new(bits, SourceKey { service, addr })
}

fn listed(service: u32, addr: IpAddr, bits: u32) -> Result<Listed> {
    let bits = u8::try_from(bits.saturating_sub(SOURCE_BITS))?;
    let net = IpNet::new(addr, bits)?;
    Ok(Listed { service, net })
}
