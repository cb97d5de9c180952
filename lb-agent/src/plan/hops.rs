//! Next hops: which neighbour has which index, and what the kernel's array shall hold.
//!
//! Backends and flows name a next hop by its index, so a neighbour keeps the index that it once got. One
//! that is gone leaves an entry without an interface behind: whoever names it asks the kernel. Its index is
//! given away only when nothing names it any more: [`NextHops::idle`].

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use lb_common::NextHop;

/// A MAC address.
pub type Mac = [u8; 6];

/// A neighbour on a link: what an index stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Neighbour {
    /// The interface.
    pub ifindex: u32,
    /// Its address there.
    pub addr: IpAddr,
}

/// An interface that XDP sends by, while it is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its own MAC address.
    pub mac: Mac,
    /// The longest packet, IP header included, bytes.
    pub mtu: u32,
}

/// A route that takes shorter packets than its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteMtu {
    /// The route's interface.
    pub ifindex: u32,
    /// Its router, or without one the hosts that it leads to.
    pub neighbours: IpNet,
    /// The longest packet, bytes.
    pub mtu: u32,
}

/// One write into the kernel's maps of next hops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HopOp {
    /// Writes a neighbour's index.
    Name {
        /// Who.
        neighbour: Neighbour,
        /// Index into the array.
        index: u16,
    },
    /// Writes an entry of the array.
    Put {
        /// Index into the array.
        index: u16,
        /// Its new value.
        value: NextHop,
    },
    /// Removes a neighbour's index.
    Forget(Neighbour),
}

/// The next hops of this node, and what the kernel's maps hold of them.
#[derive(Clone, Debug)]
pub struct NextHops {
    entries: BTreeMap<u16, Entry>,
    indices: BTreeMap<Neighbour, u16>,
    free: BTreeSet<u16>,
    /// Neighbours that got no index.
    left_out: BTreeMap<Neighbour, Mac>,
    /// Interfaces that XDP sends by; `None` while one is not usable.
    ports: BTreeMap<u32, Option<Port>>,
    route_mtus: Vec<RouteMtu>,
    /// What the array holds; nothing is said of entries that are all zeros.
    held: BTreeMap<u16, NextHop>,
    /// Entries that may differ from what the maps hold.
    dirty: BTreeSet<u16>,
    /// Names in the map that cannot be honoured.
    strays: BTreeSet<Neighbour>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    neighbour: Neighbour,
    mac: Option<Mac>,
    /// Whether the map of names has it.
    named: bool,
}

// === impl NextHops ===

impl NextHops {
    /// None known, for an array of this length; index 0 is never used. `ports` are the interfaces that XDP
    /// sends by.
    pub fn new(len: u16, ports: impl IntoIterator<Item = u32>) -> Self {
        Self {
            entries: BTreeMap::new(),
            indices: BTreeMap::new(),
            free: (1..len).collect(),
            left_out: BTreeMap::new(),
            ports: ports.into_iter().map(|index| (index, None)).collect(),
            route_mtus: Vec::new(),
            held: BTreeMap::new(),
            dirty: BTreeSet::new(),
            strays: BTreeSet::new(),
        }
    }

    /// Takes note of what the maps hold: of an agent that ran before, whose indices are kept, or at any
    /// later time.
    pub fn adopt(&mut self, names: &BTreeMap<Neighbour, u32>, held: BTreeMap<u16, NextHop>) {
        for (index, entry) in &mut self.entries {
            entry.named = names.get(&entry.neighbour) == Some(&u32::from(*index));
        }
        self.strays.clear();
        for (neighbour, index) in names {
            if self.indices.contains_key(neighbour) {
                continue;
            }
            match u16::try_from(*index) {
                Ok(index) if self.free.remove(&index) => self.enter(*neighbour, index, true),
                _ => {
                    self.strays.insert(*neighbour);
                }
            }
        }
        self.held = held;
        self.held.retain(|_, value| *value != NextHop::default());
        self.dirty = self
            .entries
            .keys()
            .chain(self.held.keys())
            .copied()
            .collect();
    }

    /// XDP sends by these interfaces now, which are usable once [`NextHops::set_links`] says what they are.
    pub fn set_ports(&mut self, ports: impl IntoIterator<Item = u32>) {
        self.ports = ports.into_iter().map(|index| (index, None)).collect();
        self.dirty.extend(self.entries.keys());
    }

    /// What the interfaces and routes say now. Interfaces that XDP does not send by are ignored.
    pub fn set_links(&mut self, links: &BTreeMap<u32, Port>, route_mtus: Vec<RouteMtu>) {
        for (index, port) in &mut self.ports {
            *port = links.get(index).copied();
        }
        self.route_mtus = route_mtus;
        self.dirty.extend(self.entries.keys());
    }

    /// What one interface is now; `None`: not usable.
    pub fn set_port(&mut self, ifindex: u32, port: Option<Port>) {
        let Some(known) = self.ports.get_mut(&ifindex) else {
            return;
        };
        *known = port;
        let entries = self.entries.iter();
        let on_it = entries.filter(|(_, entry)| entry.neighbour.ifindex == ifindex);
        self.dirty.extend(on_it.map(|(index, _)| index));
    }

    /// What is known of a neighbour now; `None`: nothing.
    pub fn set_neighbour(&mut self, neighbour: Neighbour, mac: Option<Mac>) {
        if !self.is_unicast_on_a_port(&neighbour) {
            return;
        }
        let index = match mac {
            Some(_) => self.place(neighbour),
            None => self.indices.get(&neighbour).copied(),
        };
        match (index.and_then(|index| self.entries.get_mut(&index)), mac) {
            (Some(entry), mac) => {
                entry.mac = mac;
                self.dirty.extend(index);
            }
            (None, Some(mac)) => {
                self.left_out.insert(neighbour, mac);
            }
            (None, None) => {
                self.left_out.remove(&neighbour);
            }
        }
    }

    /// All neighbours that are known now; of others nothing is.
    pub fn set_neighbours(&mut self, known: &BTreeMap<Neighbour, Mac>) {
        self.left_out.clear();
        for (index, entry) in &mut self.entries {
            if !known.contains_key(&entry.neighbour) && entry.mac.take().is_some() {
                self.dirty.insert(*index);
            }
        }
        for (neighbour, mac) in known {
            self.set_neighbour(*neighbour, Some(*mac));
        }
    }

    /// The index of the neighbour by which a backend is reached, whether anything is known of it yet or
    /// not; 0 where XDP does not send by its interface or all indices are in use.
    pub fn index(&mut self, neighbour: Neighbour) -> u16 {
        if !self.is_unicast_on_a_port(&neighbour) {
            return 0;
        }
        let index = self.place(neighbour).unwrap_or(0);
        if index != 0 {
            self.dirty.insert(index);
        }
        index
    }

    /// Whether the neighbour's address on the link is known.
    pub fn is_known(&self, neighbour: &Neighbour) -> bool {
        let entry = self
            .indices
            .get(neighbour)
            .and_then(|i| self.entries.get(i));
        entry.is_some_and(|entry| entry.mac.is_some()) || self.left_out.contains_key(neighbour)
    }

    /// What is to be written, names before the entries that they name.
    pub fn ops(&mut self) -> Vec<HopOp> {
        let mut ops: Vec<HopOp> = self.strays.iter().copied().map(HopOp::Forget).collect();
        for index in std::mem::take(&mut self.dirty) {
            let before = ops.len();
            let entry = self.entries.get(&index);
            if let Some(Entry {
                neighbour,
                named: false,
                ..
            }) = entry
            {
                ops.push(HopOp::Name {
                    neighbour: *neighbour,
                    index,
                });
            }
            let value = entry.map(|entry| self.value(entry)).unwrap_or_default();
            if self.held.get(&index).copied().unwrap_or_default() != value {
                ops.push(HopOp::Put { index, value });
            }
            if ops.len() > before {
                self.dirty.insert(index);
            }
        }
        ops
    }

    /// Takes note of a write that was done. One that failed is among the next [`NextHops::ops`] again.
    pub fn done(&mut self, op: &HopOp) {
        match op {
            HopOp::Name { index, .. } => {
                if let Some(entry) = self.entries.get_mut(index) {
                    entry.named = true;
                }
            }
            HopOp::Put { index, value } if *value == NextHop::default() => {
                self.held.remove(index);
            }
            HopOp::Put { index, value } => {
                self.held.insert(*index, *value);
            }
            HopOp::Forget(neighbour) => {
                self.strays.remove(neighbour);
            }
        }
    }

    /// Whether a neighbour that is there has no index.
    pub fn is_full(&self) -> bool {
        self.free.is_empty() && !self.left_out.is_empty()
    }

    /// Neighbours that are gone and that none of the indices `in_use` by backends stands for. Flows may
    /// still name them: before [`NextHops::free`] their names must go and the route epoch must have grown,
    /// with a grace period after each.
    pub fn idle(&self, in_use: &BTreeSet<u16>) -> Vec<Neighbour> {
        let idle = self.entries.iter().filter(|(index, entry)| {
            entry.mac.is_none() && !in_use.contains(index) && !self.held.contains_key(index)
        });
        idle.map(|(_, entry)| entry.neighbour).collect()
    }

    /// Gives the indices of these neighbours to those that have none.
    pub fn free(&mut self, neighbours: &[Neighbour]) {
        for neighbour in neighbours {
            if let Some(index) = self.indices.remove(neighbour) {
                self.entries.remove(&index);
                self.free.insert(index);
            }
        }
        for (neighbour, mac) in std::mem::take(&mut self.left_out) {
            self.set_neighbour(neighbour, Some(mac));
        }
    }

    fn is_unicast_on_a_port(&self, neighbour: &Neighbour) -> bool {
        let Neighbour { ifindex, addr } = neighbour;
        self.ports.contains_key(ifindex) && !addr.is_multicast() && !addr.is_unspecified()
    }

    /// The neighbour's index, a new one if need be.
    fn place(&mut self, neighbour: Neighbour) -> Option<u16> {
        if let Some(index) = self.indices.get(&neighbour) {
            return Some(*index);
        }
        let index = self.free.pop_first()?;
        self.enter(neighbour, index, false);
        Some(index)
    }

    fn enter(&mut self, neighbour: Neighbour, index: u16, named: bool) {
        self.indices.insert(neighbour, index);
        let entry = Entry {
            neighbour,
            mac: None,
            named,
        };
        self.entries.insert(index, entry);
    }

    /// What the array shall hold.
    fn value(&self, entry: &Entry) -> NextHop {
        let Neighbour { ifindex, addr } = entry.neighbour;
        let (Some(to), Some(Some(port))) = (entry.mac, self.ports.get(&ifindex)) else {
            return NextHop::default();
        };
        let routes = self.route_mtus.iter();
        let on_the_way =
            routes.filter(|route| route.ifindex == ifindex && route.neighbours.contains(&addr));
        NextHop {
            to: halves(to),
            from: halves(port.mac),
            ifindex,
            mtu: on_the_way.map(|route| route.mtu).fold(port.mtu, u32::min),
        }
    }
}

/// As it stands in memory.
fn halves([a, b, c, d, e, f]: Mac) -> [u16; 3] {
    [[a, b], [c, d], [e, f]].map(u16::from_ne_bytes)
}
