//! Keeps the kernel's next hops current: neighbours and interfaces by their own news, in milliseconds and
//! without a plan; routes with the rest of the topology.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::{Context as _, Result};
use tracing::{debug, info, warn};

use super::Control;
use crate::{
    datapath::Datapath,
    net::{Link, Netlink, News, Station, Topology},
    plan::{HopOp, Mac, Neighbour, NextHops, Planner, Reach},
};

/// The node's next hops.
pub(super) struct Hops {
    table: NextHops,
    /// As in the kernel: flows that found their next hop in an earlier one ask anew.
    epoch: u16,
    /// Who gets the frames for backends.
    named: BTreeSet<Neighbour>,
    /// The routers of the node: who gets the frames for distant clients.
    routers: BTreeSet<Neighbour>,
    /// Neighbours that the kernel has yet to be asked for.
    unknown: Vec<Neighbour>,
}

// === impl Hops ===

impl Hops {
    /// Takes over the indices of an agent that ran before, which left the kernel in this route epoch. `ports` are the interfaces that XDP sends by.
    ///
    /// What happened in between is not known, so every flow looks for its client's next hop once more.
    pub(super) fn adopt(datapath: &mut Datapath, epoch: u16, ports: &[u32]) -> Result<Self> {
        let maps = datapath.hops();
        let mut table = NextHops::new(maps.capacity(), ports.iter().copied());
        let held = maps.read()?;
        table.adopt(&held.names, held.array);
        Ok(Self {
            table,
            epoch: epoch.wrapping_add(1),
            named: BTreeSet::new(),
            routers: BTreeSet::new(),
            unknown: Vec::new(),
        })
    }

    /// For the node's settings.
    pub(super) fn epoch(&self) -> u16 {
        self.epoch
    }

    /// XDP sends by these interfaces now.
    pub(super) fn set_ports(&mut self, ports: &[u32], topology: &Topology) {
        self.table.set_ports(ports.iter().copied());
        self.follow(topology);
    }

    /// What the interfaces and routes are now.
    pub(super) fn follow(&mut self, topology: &Topology) {
        self.table
            .set_links(&topology.ports(), topology.route_mtus());
        self.routers = topology.routers();
    }

    /// All that the kernel knows of neighbours now. Gives those that it should make sure of.
    pub(super) fn know(&mut self, neighbours: &BTreeMap<Neighbour, Station>) -> Vec<Neighbour> {
        let known: BTreeMap<Neighbour, Mac> = neighbours
            .iter()
            .filter_map(|(neighbour, station)| Some((*neighbour, station.mac?)))
            .collect();
        self.table.set_neighbours(&known);
        let stale = neighbours.iter().filter(|(_, station)| station.stale);
        let stale = stale.map(|(neighbour, _)| *neighbour);
        stale.filter(|neighbour| self.is_kept(neighbour)).collect()
    }

    /// How each backend of a plan is reached.
    pub(super) fn reach<'a>(
        &'a mut self,
        topology: &'a Topology,
        ifaces: &'a [String],
    ) -> impl FnMut(IpAddr) -> Reach + 'a {
        let before = std::mem::take(&mut self.named);
        let Self {
            table,
            named,
            unknown,
            ..
        } = self;
        move |addr| {
            topology.reach_by(addr, ifaces, |neighbour| {
                let index = table.index(neighbour);
                let new = index != 0 && named.insert(neighbour) && !before.contains(&neighbour);
                if new && !table.is_known(&neighbour) {
                    unknown.push(neighbour);
                }
                index
            })
        }
    }

    /// Writes what differs. What fails is tried again with the next writes.
    pub(super) fn write(&mut self, datapath: &mut Datapath) -> Result<()> {
        let mut outcome = Ok(());
        for op in self.table.ops() {
            match datapath.hops().apply(&op) {
                Ok(()) => {
                    debug!(?op, "next hop");
                    self.table.done(&op);
                }
                Err(error) => outcome = Err(error).with_context(|| format!("next hop: {op:?}")),
            }
        }
        outcome
    }

    /// The way to a client may be another one now.
    fn next_epoch(&mut self, datapath: &mut Datapath) -> Result<()> {
        self.epoch = self.epoch.wrapping_add(1);
        datapath
            .set_route_epoch(self.epoch)
            .context("cannot write the route epoch")
    }

    /// Takes indices back from neighbours that are gone, if others have none.
    fn make_room(&mut self, datapath: &mut Datapath, planner: &mut Planner) -> Result<()> {
        if !self.table.is_full() {
            return Ok(());
        }
        let state = planner.state(datapath.kernel())?;
        let in_use = state.backends.values().map(|backend| backend.next_hop);
        let idle = self.table.idle(&in_use.collect());
        if idle.is_empty() {
            return Ok(());
        }
        // No flow learns these indices any more, then none that learnt one goes by it.
        for neighbour in &idle {
            datapath.hops().apply(&HopOp::Forget(*neighbour))?;
        }
        datapath.hops().grace_period()?;
        self.next_epoch(datapath)?;
        datapath.hops().grace_period()?;
        self.table.free(&idle);
        info!(freed = idle.len(), "indices of next hops given back");
        Ok(())
    }

    /// Whether packets go to this neighbour that the kernel does not see: it must be told to make sure of it.
    fn is_kept(&self, neighbour: &Neighbour) -> bool {
        self.named.contains(neighbour) || self.routers.contains(neighbour)
    }
}

// === impl Control ===

impl Control {
    /// Neighbours or interfaces changed.
    pub(super) async fn hear(&mut self, news: News) {
        let News {
            neighbours,
            links,
            lost,
        } = news;
        if lost {
            self.look_at_neighbours().await;
        }
        for (index, link) in links {
            let port = link.as_ref().and_then(Link::port);
            self.hops.table.set_port(index, port);
        }
        let mut stale = Vec::new();
        for (neighbour, station) in neighbours {
            self.hops.table.set_neighbour(neighbour, station.mac);
            if station.stale && self.hops.is_kept(&neighbour) {
                stale.push(neighbour);
            }
        }
        self.write_hops();
        ask_for(&self.netlink, stale);
    }

    /// Reads all neighbours and writes what differs.
    pub(super) async fn look_at_neighbours(&mut self) {
        match self.netlink.neighbours().await {
            Ok(neighbours) => ask_for(&self.netlink, self.hops.know(&neighbours)),
            Err(error) => warn!("{error:#}; the last known ones stay"),
        }
        self.write_hops();
    }

    /// At a resync: the maps are read anew, and neighbours that backends need are asked for once more.
    pub(super) async fn check_hops(&mut self) {
        match self.datapath.hops().read() {
            Ok(held) => self.hops.table.adopt(&held.names, held.array),
            Err(error) => warn!("{error:#}"),
        }
        self.look_at_neighbours().await;
        if let Err(error) = self.hops.make_room(&mut self.datapath, &mut self.planner) {
            warn!("{error:#}");
        }
        let table = &self.hops.table;
        let unknown = self.hops.named.iter().filter(|hop| !table.is_known(hop));
        ask_for(&self.netlink, unknown.copied().collect());
        self.write_hops();
    }

    /// Routes may lead elsewhere now: flows find their clients' next hops anew.
    pub(super) fn forget_routes(&mut self) {
        if let Err(error) = self.hops.next_epoch(&mut self.datapath) {
            warn!("{error:#}");
        }
    }

    /// Asks the kernel for the neighbours that the last plan named first.
    pub(super) fn ask_for_new_hops(&mut self) {
        ask_for(&self.netlink, std::mem::take(&mut self.hops.unknown));
    }

    fn write_hops(&mut self) {
        if let Err(error) = self.hops.write(&mut self.datapath) {
            warn!("{error:#}");
        }
    }
}

/// In a task of its own: nobody waits for the answers, which come as news.
fn ask_for(netlink: &Netlink, neighbours: Vec<Neighbour>) {
    if neighbours.is_empty() {
        return;
    }
    let netlink = netlink.clone();
    tokio::spawn(async move {
        if let Err(error) = netlink.use_neighbours(neighbours).await {
            debug!("{error:#}");
        }
    });
}
