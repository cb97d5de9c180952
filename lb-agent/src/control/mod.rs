//! The control loop: takes what providers say, and brings kernel, routes, DNS and report in line with it.

mod beside;
mod changes;
mod claims;
mod collector;
mod counted;
mod ending;
mod external;
mod held;
mod hops;
mod ifaces;
mod judges;
mod leaving;
mod look;
mod made;
mod modes;
mod names;
mod operator;
mod orchestrators;
mod orphans;
mod owners;
mod providers;
mod purge;
mod release;
mod report;
mod resets;
mod signals;
mod slow;
mod standing;
mod start;
mod suspects;
mod trace;
mod wanted;
mod web;

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::sync::{Notify, mpsc, oneshot};
use tracing::{debug, error, info, warn};

pub use purge::purge;
pub use start::run;

use crate::{
    admin::{
        Alive,
        orders::{Act, Obeyed, Ordered},
        report::{MapReport, ServiceReport, StatusReport},
        stats::Events,
    },
    catalog::{Catalog, Desired, Policy},
    datapath::{Datapath, Interface, flows::Census},
    dns,
    net::{Change, NeighbourWatch, Netlink, Routes, Topology, Watch},
    plan::{self, Endpoint, Planner},
    provider::{Asked, Update},
    vip::{Allocator, LeaseFile},
};
use claims::Agreement;
use external::Holders;
use hops::Hops;
use judges::Judges;
use leaving::Leaving;
use orchestrators::Foreign;
use owners::Owners;
use report::Fixed;
use resets::Reset;
use wanted::{Node, hold, link_indices, wanted};

/// Updates that may wait for the control loop.
const UPDATES: usize = 64;
/// How long further updates are awaited once one is there, so that a burst costs one plan.
const SETTLE: Duration = Duration::from_millis(5);

/// A comparison with the kernel is followed by so many times its own duration without one, so that a node with many
/// services is not busy with what nobody changed.
const SELDOM: u32 = 250;

/// Who ordered, and what became of it.
type Answer = (oneshot::Sender<Obeyed>, Obeyed);

/// What other tasks read.
#[derive(Clone)]
struct Published {
    dns: Arc<ArcSwap<dns::Table>>,
    dns_allow: Arc<ArcSwap<Vec<IpNet>>>,
    /// Written by DNS: who is asked for other names at present.
    dns_upstreams: Arc<ArcSwap<Vec<SocketAddr>>>,
    status: Arc<ArcSwap<StatusReport>>,
    /// Written by the collector.
    census: Arc<ArcSwap<Census>>,
    /// Between this loop and the collector.
    leaving: Arc<Leaving>,
    /// Backends that the programs saw not to answer.
    suspects: suspects::Known,
    /// What changed of late.
    events: Events,
    /// This loop's sign of life.
    alive: Arc<Alive>,
}

/// Everything the loop owns. It is the only writer of the kernel's maps, the routes and the leases.
struct Control {
    catalog: Catalog,
    allocator: Allocator,
    /// With the other nodes, about addresses.
    agreement: Agreement,
    lease_file: LeaseFile,
    policy: Policy,
    /// Addresses that no IP VIP may be, besides the node's own.
    foreign: Foreign,
    /// Clients that get DNS answers; `None`: the connected prefixes.
    dns_allow: Option<Vec<IpNet>>,
    /// Kept on `lo` for DNS.
    link_address: Option<Ipv4Addr>,
    pools: Vec<IpNet>,
    zones: dns::Zones,
    node: Node,
    topology: Topology,
    datapath: Datapath,
    hops: Hops,
    /// The interfaces that XDP sends by.
    ports: Vec<u32>,
    netlink: Netlink,
    routes: Routes,
    planner: Planner,
    desired: Desired,
    owners: Owners,
    holders: Holders,
    judges: Judges,
    /// Services of an earlier life that no provider has spoken of yet.
    adopted: BTreeSet<Endpoint>,
    failures: Vec<String>,
    /// What is said of `desired`.
    services: Arc<Vec<ServiceReport>>,
    /// Told when the maps have changed.
    changed: Arc<Notify>,
    /// Told whose flows are to be reset.
    resets: mpsc::Sender<Reset>,
    /// How full the kernel's tables are, as of the last plan.
    fill: Vec<MapReport>,
    resync: Duration,
    /// Nothing changed that is known of: what is not as wanted was not left so.
    comparing: bool,
    /// To compare everything out of turn.
    asked: Asked,
    fixed: Fixed,
    published: Published,
}

impl Control {
    /// Serves until `updates` ends. The kernel's state is left as it is then: traffic goes on.
    async fn serve(mut self, mut updates: mpsc::Receiver<Update>) -> Result<()> {
        let mut watch = Watch::open()?;
        let mut neighbours = NeighbourWatch::open(self.ports.iter().copied())?;
        // What happened since the start was read.
        self.look_around(false).await;
        self.look_at_neighbours().await;
        let mut resync = tokio::time::interval(self.resync);
        resync.reset();
        let mut compare_at = Instant::now();
        loop {
            self.published.alive.turn();
            neighbours.follow(self.ports.iter().copied());
            let mut answer = None;
            tokio::select! {
                update = updates.recv() => {
                    let Some(update) = update else { return Ok(()) };
                    let mut changed = self.learn(update);
                    tokio::time::sleep(SETTLE).await;
                    while let Ok(update) = updates.try_recv() {
                        changed |= self.learn(update);
                    }
                    if changed || !self.failures.is_empty() {
                        self.reconcile().await;
                    }
                }
                () = self.agreement.changed() => {
                    self.agreement.take(&mut self.allocator);
                    self.reconcile().await;
                }
                change = watch.changed() => {
                    self.forget_routes();
                    self.look_around(change == Change::Anything).await;
                }
                news = neighbours.news() => {
                    self.hear(news).await;
                    continue;
                }
                order = self.judges.news(&self.desired) => answer = self.heed(order).await,
                () = self.asked.asked() => {
                    info!("asked to read and compare everything");
                    self.compare().await;
                }
                () = self.published.leaving.answered() => self.reconcile().await,
                _ = resync.tick() => {
                    let began = Instant::now();
                    if began >= compare_at {
                        self.compare().await;
                        compare_at = Instant::now() + began.elapsed() * SELDOM;
                    }
                }
            }
            self.publish_report();
            // Whoever asks for the status when the order is answered sees it done.
            if let Some((answer, obeyed)) = answer {
                // Who ordered may have gone meanwhile.
                let _ = answer.send(obeyed);
            }
        }
    }

    /// Nothing that is known of the kernel is taken for granted.
    async fn compare(&mut self) {
        self.planner.distrust();
        self.check_hops().await;
        self.comparing = true;
        self.look_around(true).await;
        self.comparing = false;
    }

    /// Takes a provider's word; true if something may have to be done.
    fn learn(&mut self, update: Update) -> bool {
        let provider = update.provider.clone();
        match &update.outcome {
            Ok(snapshot) => debug!(%provider, pools = snapshot.pools.len(), "snapshot"),
            // The provider's log says it once, `status` for as long as it lasts.
            Err(reason) => debug!(%provider, "{reason}; the last good state stays"),
        }
        // The first snapshot ends the time in which nothing of the provider is taken away.
        let first = self.desired.waiting.contains(&provider) && update.outcome.is_ok();
        self.catalog.apply(update) || first
    }

    /// Addresses, routes or interfaces may have changed; with `all` nothing is taken for granted.
    async fn look_around(&mut self, all: bool) {
        if let Some(addr) = self.link_address
            && let Err(error) = self.netlink.ensure_address(addr).await
        {
            warn!("{error:#}; containers cannot ask this node's DNS");
        }
        match self.netlink.topology().await {
            Ok(topology) if topology == self.topology && !all => return,
            Ok(topology) => {
                // The tick that would have told may have been lost.
                if all && topology != self.topology {
                    self.forget_routes();
                }
                self.hops.follow(&topology);
                self.topology = topology;
            }
            Err(error) => {
                warn!("cannot read addresses and routes: {error:#}; the last known ones stay")
            }
        }
        self.reconcile().await;
    }

    /// Brings everything in line. What fails is said in the log and the report and tried again at the
    /// next change or resync.
    async fn reconcile(&mut self) {
        let (mut failures, began) = (Vec::new(), Instant::now());
        if let Some(peers) = self.agreement.peers() {
            self.node.peers = peers;
        }
        let before = std::mem::take(&mut self.desired);
        self.policy.forbidden = &self.foreign.addresses() | &self.topology.own_addresses();
        let resolvers = self.published.dns_upstreams.load();
        let resolvers = resolvers.iter().map(SocketAddr::ip);
        self.policy.forbidden.extend(resolvers);
        self.policy.forbidden.extend(&self.node.peers);
        let mut desired = self.catalog.resolve(&self.policy, &mut self.allocator);
        self.judges.place_servers(&mut desired);
        failures.extend(self.agreement.trouble());
        modes::refuse_impossible(&mut desired, &self.topology, &self.node);
        let held = self.held(&desired);
        self.grant_ports(&held, &before, &mut desired);
        self.keep_names(&held, &mut desired);
        for notice in desired.new_problems(&before) {
            warn!("{notice}");
            self.published.events.push(changes::problem(notice));
        }
        changes::tell(&before, &desired, &self.adopted, &self.published.events);
        self.forget_adopted(&held, &desired);
        // Before anybody can resolve a name, its address is on disk.
        if self.allocator.unsaved()
            && let Err(error) = self.lease_file.save(&mut self.allocator)
        {
            failures.push(format!("leases are not saved: {error}"));
        }
        // Only what outlives the agent is told to others.
        self.agreement.claim(&desired.names, &self.allocator);
        if let Err(error) = self.judges.turn_over(&desired) {
            failures.push(format!("{error:#}"));
        }
        self.owners.note(&desired, &held);
        if let Err(error) = self.owners.save() {
            failures.push(format!("{error:#}"));
        }
        if let Err(error) = self.holders.save() {
            failures.push(format!("{error:#}"));
        }
        self.published.alive.work.services.note(began.elapsed());
        if let Err(error) = self.program(&desired, &held, &mut failures).await {
            failures.push(format!("{error:#}"));
        }
        for failure in failures
            .iter()
            .filter(|failure| !self.failures.contains(failure))
        {
            error!("{failure}");
        }
        self.failures = failures;
        self.published.dns_allow.store(Arc::new(self.dns_clients()));
        self.report_services(&desired);
        self.desired = desired;
    }

    /// Some backend went up or down, or the operator said something of it: nothing else is looked at, unless others
    /// are there then. What is to be answered when the report is out.
    async fn heed(&mut self, order: Option<Ordered>) -> Option<Answer> {
        let order = match order {
            Some((order, answer)) if order.act == Act::Reset => {
                return self.reset(&order, answer);
            }
            Some((order, answer)) if order.act.is_about_who_is_there() => {
                let forbidden = modes::forbids(&order, &self.desired, &self.topology, &self.node);
                let obeyed = match forbidden {
                    Some(why) => Err(why),
                    None => self.judges.obey(&order, &self.desired),
                };
                if obeyed.is_ok() {
                    self.reconcile().await;
                }
                return Some((answer, obeyed));
            }
            Some((order, answer)) if order.act == Act::Release => {
                let name = order.which.service.unwrap_or_default();
                return self.release(&name, answer).await;
            }
            order => order,
        };
        let desired = std::mem::take(&mut self.desired);
        let answer = order.map(|(order, answer)| (answer, self.judges.obey(&order, &desired)));
        let held = self.held(&desired);
        let mut failures = Vec::new();
        if let Err(error) = self.program(&desired, &held, &mut failures).await {
            failures.push(format!("{error:#}"));
        }
        for failure in failures {
            if !self.failures.contains(&failure) {
                error!("{failure}");
                self.failures.push(failure);
            }
        }
        self.report_services(&desired);
        self.desired = desired;
        answer
    }

    /// Says what now is: to whoever asks for the status, and to DNS.
    fn report_services(&mut self, desired: &Desired) {
        let zone = self.node.zone.as_deref();
        let (voices, since) = self.judges.voices_and_since();
        self.services = Arc::new(report::services(desired, zone, &voices, since));
        let instances = names::instances(&self.services);
        let table =
            dns::Table::new(&self.zones, &desired.names, instances).with_aliases(&desired.aliases);
        self.published.dns.store(Arc::new(table));
    }

    /// Kernel maps first, then routes: a pool is programmed before its address can be reached.
    async fn program(
        &mut self,
        desired: &Desired,
        held: &BTreeSet<Endpoint>,
        failures: &mut Vec<String>,
    ) -> Result<()> {
        self.follow_interfaces(failures).await;
        let mut reach = self.hops.reach(&self.topology, &self.node.ifaces);
        self.judges.know_drained(self.agreement.drained());
        self.judges.look(desired, &mut reach);
        let alive = Arc::clone(&self.published.alive);
        alive.work.locals.store(Arc::clone(self.judges.locals()));
        let own = self.judges.own_drain(!desired.waiting.is_empty());
        self.agreement.tell_drain(own);
        let voices = self.judges.voices();
        let mut want = wanted(desired, &self.topology, &self.node, &voices, &mut reach);
        if !desired.waiting.is_empty() {
            let have = self.planner.state(self.datapath.kernel())?;
            want = hold(want, have, held, &self.node, &mut reach);
        }
        drop(reach);
        let leaving = Arc::clone(&self.published.leaving);
        let ports = self.datapath.standing_ports();
        let have = self.planner.state(self.datapath.kernel())?;
        let unwanted = leaving::unwanted(have, &ports, &want, desired, &self.policy);
        let staying = leaving.staying(unwanted, &self.published.census.load());
        want.vips.extend(&staying.vips);
        want.node.route_epoch = self.hops.epoch();
        // Before anything is translated.
        self.judges.follow(desired, &want);
        // Before any backend names them.
        if let Err(error) = self.hops.write(&mut self.datapath) {
            failures.push(format!("{error:#}"));
        }
        self.ask_for_new_hops();
        let links: Vec<Interface> = link_indices(&want)
            .into_iter()
            .filter_map(|index| {
                let name = self.topology.links.get(&index)?.name.clone();
                Some(Interface { name, index })
            })
            .collect();
        if let Err(error) = self.datapath.set_link_interfaces(&links) {
            failures.push(format!("{error:#}"));
        }
        let limits = self.datapath.limits();
        self.fill = report::fill(&want, &limits);
        let began = Instant::now();
        let report = plan::reconcile(self.datapath.kernel(), &want, &limits, &mut self.planner)?;
        alive.work.planned(began.elapsed(), &report, self.comparing);
        if report.applied > 0 {
            debug!(operations = report.applied, "kernel maps updated");
            self.changed.notify_one();
        }
        // Those of the services that this plan removed are not among them.
        let released = leaving::released(&ports, &want, &staying);
        if !released.is_empty()
            && let Err(error) = self.datapath.release_ports(&released)
        {
            failures.push(format!("{error:#}"));
        }
        leaving.ask(staying, &want.vips);
        failures.extend(report.problems);
        failures.extend(
            report
                .failed
                .into_iter()
                .map(|(op, error)| format!("{op}: {error}")),
        );
        let began = Instant::now();
        let changes = self.routes.sync(&want.vips, &self.pools).await?;
        alive.work.routed(began.elapsed(), &changes, self.comparing);
        failures.extend(
            changes
                .failed
                .into_iter()
                .map(|(net, error)| format!("route to {net}: {error}")),
        );
        Ok(())
    }

    /// The node itself and who the operator allows, or else its neighbours.
    fn dns_clients(&self) -> Vec<IpNet> {
        let own = self.topology.own_addresses().into_iter().map(IpNet::from);
        let others = match &self.dns_allow {
            Some(prefixes) => prefixes.iter().map(IpNet::trunc).collect(),
            None => self.topology.connected().into_iter().collect::<Vec<_>>(),
        };
        dns::LOOPBACK.into_iter().chain(own).chain(others).collect()
    }

    fn publish_report(&self) {
        let mut report = report::report(
            &self.fixed,
            &self.catalog,
            &self.desired,
            &self.services,
            &self.failures,
        );
        report.operator = self.judges.report();
        report.addresses_pending = self.allocator.pending().len();
        report.datapath.maps.clone_from(&self.fill);
        for iface in &mut report.datapath.interfaces {
            let mut there = self.datapath.interfaces().iter();
            match there.find(|there| there.name == iface.name) {
                Some(there) => iface.index = there.index,
                None => iface.attached.clear(),
            }
        }
        self.published.status.store(Arc::new(report));
    }
}
