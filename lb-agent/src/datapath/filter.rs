//! What the programs ask first of every packet: the coarse destination filter and the ports of the node's
//! own addresses. Both follow from the exact filter, the services and the node's settings.
//!
//! A port at which no service stands any more goes on being looked at until it is released: flows came by it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Array, MapData},
};
use lb_common::{
    Addr4, Addr6, FILTER_SLOTS, NodeConfig, Service, addr_flag, filter_slot, geneve,
    headers::{TCP, UDP},
    port_flag,
};

use super::{kernel::take, layout::NODE_PORTS};
use crate::plan::{Endpoint, KernelState};

type Bytes<const N: usize> = Array<MapData, [u8; N]>;

/// A port of the node's own addresses, host byte order, and an IP protocol number.
pub type NodePort = (u16, u8);

/// How the two protocols are marked.
const MARKS: [(u8, u8); 2] = [(TCP, port_flag::TCP), (UDP, port_flag::UDP)];

/// The maps, and what was last written into them.
pub(super) struct Filter {
    v4: Bytes<FILTER_SLOTS>,
    v6: Bytes<FILTER_SLOTS>,
    ports: Bytes<NODE_PORTS>,
    /// Where services stand, and stood in this life or an earlier one.
    standing: BTreeSet<NodePort>,
    written: Option<Contents>,
    traced: bool,
}

/// What the maps shall hold, a byte for each slot or port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Contents {
    v4: Vec<u8>,
    v6: Vec<u8>,
    ports: Vec<u8>,
}

// === impl Filter ===

impl Filter {
    pub(super) fn take(object: &mut Ebpf) -> Result<Self> {
        let ports: Bytes<NODE_PORTS> = take(object, "LB_NODE_PORTS")?;
        let held = ports
            .get(&0, 0)
            .context("cannot read which ports of the node are services'")?;
        Ok(Self {
            v4: take(object, "LB_FILTER4")?,
            v6: take(object, "LB_FILTER6")?,
            ports,
            standing: marked(&held),
            written: None,
            traced: false,
        })
    }

    /// The ports that are looked at for services' sake.
    pub(super) fn standing(&self) -> BTreeSet<NodePort> {
        self.standing.clone()
    }

    /// Leaves packets for these ports, at which no service stands, to the stack.
    pub(super) fn release(&mut self, ports: &BTreeSet<NodePort>) -> Result<()> {
        self.standing.retain(|port| !ports.contains(port));
        match self.written.take() {
            Some(mut contents) => {
                for (port, proto) in ports {
                    if let Some(flags) = contents.ports.get_mut(usize::from(*port)) {
                        *flags &= !mark(*proto);
                    }
                }
                self.write(contents)
            }
            // The next plan writes it.
            None => Ok(()),
        }
    }

    /// Brings the maps up to date with what the other maps hold.
    pub(super) fn follow(&mut self, state: &KernelState) -> Result<()> {
        let mut want = Contents::of(&state.addresses, &state.services, &state.node);
        self.standing.extend(marked(&want.ports));
        for (port, proto) in &self.standing {
            if let Some(flags) = want.ports.get_mut(usize::from(*port)) {
                *flags |= mark(*proto);
            }
        }
        if !state.peers.is_empty()
            && let Some(port) = want.ports.get_mut(usize::from(geneve::PORT))
        {
            *port |= port_flag::PEERS;
        }
        if self.written.as_ref() == Some(&want) {
            return Ok(());
        }
        self.write(want)
    }

    /// Keeps packets for the addresses in the filter off the shortcut, or lets them take it again.
    pub(super) fn set_traced(&mut self, traced: bool) -> Result<()> {
        self.traced = traced;
        match self.written.take() {
            Some(contents) => self.write(contents),
            // The next plan writes it.
            None => Ok(()),
        }
    }

    fn write(&mut self, want: Contents) -> Result<()> {
        self.written = None;
        if self.traced {
            put(&mut self.v4, &traced(&want.v4))?;
            put(&mut self.v6, &traced(&want.v6))?;
        } else {
            put(&mut self.v4, &want.v4)?;
            put(&mut self.v6, &want.v6)?;
        }
        put(&mut self.ports, &want.ports)?;
        self.written = Some(want);
        Ok(())
    }
}

/// The ports that are looked at for services' sake.
fn marked(ports: &[u8]) -> BTreeSet<NodePort> {
    let mut found = BTreeSet::new();
    for (port, flags) in (0..=u16::MAX).zip(ports) {
        for (proto, mark) in MARKS {
            if flags & mark != 0 {
                found.insert((port, proto));
            }
        }
    }
    found
}

fn mark(proto: u8) -> u8 {
    let found = MARKS.iter().find(|(known, _)| *known == proto);
    found.map_or(0, |(_, mark)| *mark)
}

/// Every slot that holds an address, marked.
fn traced(slots: &[u8]) -> Vec<u8> {
    let marked = |flags: &u8| match flags {
        0 => 0,
        flags => flags | addr_flag::TRACED as u8,
    };
    slots.iter().map(marked).collect()
}

/// Slots that stay as they are keep their value while the new ones are copied over them.
fn put<const N: usize>(map: &mut Bytes<N>, bytes: &[u8]) -> Result<()> {
    let bytes: Box<[u8; N]> = Box::<[u8]>::from(bytes)
        .try_into()
        .map_err(|wrong: Box<[u8]>| anyhow::anyhow!("{} bytes, not {N}", wrong.len()))?;
    map.set(0, *bytes, 0)
        .context("cannot write the destination filter")
}

// === impl Contents ===

impl Contents {
    fn of(
        addresses: &BTreeMap<IpAddr, u32>,
        services: &BTreeMap<Endpoint, Service>,
        node: &NodeConfig,
    ) -> Self {
        let mut contents = Self {
            v4: vec![0; FILTER_SLOTS],
            v6: vec![0; FILTER_SLOTS],
            ports: vec![0; NODE_PORTS],
        };
        for (addr, flags) in addresses {
            let (slots, slot) = match *addr {
                IpAddr::V4(addr) => (&mut contents.v4, filter_slot(&Addr4::from(addr))),
                IpAddr::V6(addr) => (&mut contents.v6, filter_slot(&Addr6::from(addr))),
            };
            if let Some(slot) = slots.get_mut(usize::from(slot)) {
                *slot |= *flags as u8;
            }
            if flags & addr_flag::NODE != 0 {
                contents.claim(services, *addr);
            }
        }
        let first = usize::from(node.snat_port_min);
        let snat = contents.ports.iter_mut().skip(first);
        for port in snat.take(usize::from(node.snat_ports)) {
            *port |= port_flag::SNAT;
        }
        contents
    }

    /// The ports of this address at which services stand.
    fn claim(&mut self, services: &BTreeMap<Endpoint, Service>, addr: IpAddr) {
        let end = |port, proto| Endpoint { addr, port, proto };
        for (at, _) in services.range(end(0, 0)..=end(u16::MAX, u8::MAX)) {
            if let Some(port) = self.ports.get_mut(usize::from(at.port)) {
                *port |= mark(at.proto);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_in_its_slot_and_a_removed_one_is_not() {
        let vip: IpAddr = "11.1.2.3".parse().unwrap();
        let vip6: IpAddr = "fd01:c::1".parse().unwrap();
        let addresses = BTreeMap::from([(vip, addr_flag::VIP), (vip6, addr_flag::VIP)]);
        let nothing = BTreeMap::new();
        let contents = Contents::of(&addresses, &nothing, &NodeConfig::default());
        let slot = usize::from(filter_slot(&Addr4::from(std::net::Ipv4Addr::new(
            11, 1, 2, 3,
        ))));
        assert_eq!(u32::from(contents.v4[slot]), addr_flag::VIP);
        assert_eq!(contents.v4.iter().filter(|flags| **flags != 0).count(), 1);
        assert_eq!(contents.v6.iter().filter(|flags| **flags != 0).count(), 1);
        let none = Contents::of(&BTreeMap::new(), &nothing, &NodeConfig::default());
        assert!(none.v4.iter().chain(&none.v6).all(|flags| *flags == 0));
    }

    #[test]
    fn only_slots_with_an_address_are_traced() {
        let (vip, node) = (addr_flag::VIP as u8, addr_flag::NODE as u8);
        let mark = addr_flag::TRACED as u8;
        assert_eq!(traced(&[0, vip, node]), [0, vip | mark, node | mark]);
    }

    #[test]
    fn the_ports_of_full_nat_are_ours_and_their_neighbours_are_not() {
        let node = NodeConfig {
            snat_port_min: 61_000,
            snat_ports: 4_000,
            ..NodeConfig::default()
        };
        let ports = Contents::of(&BTreeMap::new(), &BTreeMap::new(), &node).ports;
        assert_eq!((ports[60_999], ports[65_000]), (0, 0));
        assert_eq!(
            (ports[61_000], ports[64_999]),
            (port_flag::SNAT, port_flag::SNAT)
        );
    }

    #[test]
    fn a_port_of_the_node_is_ours_where_a_service_stands_and_by_its_protocol() {
        let (node, vip): (IpAddr, IpAddr) =
            ("10.0.0.1".parse().unwrap(), "11.0.0.1".parse().unwrap());
        let addresses = BTreeMap::from([(node, addr_flag::NODE), (vip, addr_flag::VIP)]);
        let at = |addr, port, proto| (Endpoint { addr, port, proto }, Service::default());
        let services = BTreeMap::from([
            at(node, 10_000, TCP),
            at(node, 10_000, UDP),
            at(node, 10_001, UDP),
            at(node, 65_535, TCP),
            at(vip, 80, TCP),
            at("10.0.0.2".parse().unwrap(), 22, TCP),
        ]);
        let ports = Contents::of(&addresses, &services, &NodeConfig::default()).ports;
        let claimed = ports.iter().enumerate().filter(|(_, flags)| **flags != 0);
        let claimed: Vec<_> = claimed.map(|(port, flags)| (port, *flags)).collect();
        let both = port_flag::TCP | port_flag::UDP;
        assert_eq!(
            claimed,
            [
                (10_000, both),
                (10_001, port_flag::UDP),
                (65_535, port_flag::TCP)
            ]
        );
        let expected = [(10_000, TCP), (10_000, UDP), (10_001, UDP), (65_535, TCP)];
        assert_eq!(marked(&ports), expected.into());
    }
}
