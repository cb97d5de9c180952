//! The kernel side: load, attach, pin, apply a plan, read counters. The only room with aya, bpf system
//! calls and `unsafe`.
#![allow(unsafe_code)]

mod arrays;
mod clsact;
mod explain;
mod fills;
mod filter;
pub mod flows;
mod hops;
mod kernel;
mod layout;
mod links;
mod lists;
mod live;
mod loads;
mod object;
mod peers;
mod percpu;
mod purge;
mod rtnl;
mod sockets;
mod stats;
mod suspects;
mod sys;
#[cfg(test)]
mod tests;
mod trace;
#[cfg(feature = "trace")]
mod words;

use std::{
    collections::BTreeSet,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{HashMap, MapData, MapError, xdp::DevMapHash},
};
use lb_common::Reason;

pub use explain::Explainer;
pub use filter::NodePort;
use flows::FlowTables;
pub use hops::{HeldHops, HopMaps};
use kernel::{Maps, take};
pub(crate) use layout::SENDERS;
pub use layout::Sizes;
use links::Links;
pub use links::{Interface, TcMode, XdpMode};
use object::Globals;
pub use object::{join_stages, load_program, object_bytes};
pub use purge::purge;
pub use sockets::{Orphan, Sockets};
pub use stats::{BackendCounts, Counted, ServiceCounts, Stats};
pub use suspects::{Suspects, reason as suspect_reason};
pub use trace::Tracer;

use crate::plan::{Kernel, Limits};

/// Where and how the programs run.
#[derive(Clone, Debug)]
pub struct DatapathConfig {
    /// A folder in a bpffs.
    pub pin_dir: PathBuf,
    /// The cgroup whose processes are served on the socket path, opened.
    pub cgroup: PathBuf,
    /// Interfaces that clients' packets come in by.
    pub interfaces: Vec<Interface>,
    /// How XDP is attached.
    pub xdp_mode: XdpMode,
    /// How the tc programs are attached: what [`crate::preflight::machine`] says.
    pub tc_mode: TcMode,
    /// XDP only redirects, and does not transmit: one of the interfaces is a veth, which does not deliver that to an end
    /// without XDP, or the mode is generic, where it redirects nowhere.
    pub tx_by_redirect: bool,
    /// New flows a second that each CPU may open on the packet path; 0: no limit.
    pub new_flows: u32,
    /// How much the maps hold.
    pub sizes: Sizes,
}

/// The programs and maps of this node.
///
/// Dropping it changes nothing in the kernel: maps and links are pinned, filters stay.
pub struct Datapath {
    config: DatapathConfig,
    globals: Globals,
    object: Ebpf,
    links: Links,
    maps: Maps,
    hops: HopMaps,
    ports: DevMapHash<MapData>,
    /// Interfaces with XDP, whose packets the tc twin sees after it.
    by_xdp: HashMap<MapData, u32, u32>,
}

/// Counters by reason, summed over the CPUs.
pub type Counters = Vec<(Reason, u64)>;

// === impl DatapathConfig ===

impl DatapathConfig {
    fn indices(&self) -> Vec<u32> {
        self.interfaces.iter().map(|iface| iface.index).collect()
    }

    /// Interfaces whose packets XDP sees.
    fn seen(&self) -> Vec<u32> {
        match self.xdp_mode {
            XdpMode::Native | XdpMode::Generic => self.indices(),
            XdpMode::Off => Vec::new(),
        }
    }

    /// Interfaces that XDP sends by.
    fn ports(&self) -> Vec<u32> {
        match self.xdp_mode {
            XdpMode::Native => self.indices(),
            XdpMode::Generic | XdpMode::Off => Vec::new(),
        }
    }
}

// === impl Datapath ===

impl Datapath {
    /// Loads the programs and takes over the maps of an agent that ran before. Nothing is attached yet:
    /// [`Datapath::attach`] does that once the maps hold the first plan.
    ///
    /// # Errors
    ///
    /// If the pin folder cannot be made, a pinned map does not fit, or the kernel refuses something.
    pub fn load(config: DatapathConfig) -> Result<Self> {
        let globals = Globals {
            tx_by_redirect: config.tx_by_redirect,
            new_flows: config.new_flows,
            netns: sys::netns_cookie().context("cannot read the network namespace's cookie")?,
        };
        let mut object = object::load(&config.pin_dir, &config.sizes, globals)?;
        #[cfg(feature = "trace")]
        words::forward(&mut object)?;
        Ok(Self {
            maps: Maps::take(&mut object, &config.sizes)?,
            hops: HopMaps::take(&mut object)?,
            ports: take(&mut object, "LB_PORTS")?,
            by_xdp: take(&mut object, "LB_BY_XDP")?,
            links: Links::new(&config.pin_dir, config.tc_mode),
            object,
            globals,
            config,
        })
    }

    /// Attaches every program, or puts it on the link of an agent that ran before.
    ///
    /// # Errors
    ///
    /// If one cannot be attached; the message names hook, place and remedy. Nothing that this call attached
    /// stays then.
    pub fn attach(&mut self) -> Result<()> {
        let attached = self.attach_all();
        if attached.is_err() {
            self.links.undo();
        }
        attached
    }

    /// The interfaces that the programs are at.
    pub fn interfaces(&self) -> &[Interface] {
        &self.config.interfaces
    }

    /// Those of them that XDP sends by.
    pub fn ports(&self) -> Vec<u32> {
        self.config.ports()
    }

    /// Attaches to these interfaces, and to no others.
    ///
    /// # Errors
    ///
    /// If one cannot be attached; some may be then, and the call can be repeated.
    pub fn set_interfaces(&mut self, interfaces: Vec<Interface>) -> Result<()> {
        let before = std::mem::replace(&mut self.config.interfaces, interfaces);
        let attached = self.attach_all();
        if attached.is_err() {
            self.config.interfaces = before;
        }
        attached
    }

    fn attach_all(&mut self) -> Result<()> {
        let Self {
            config,
            object,
            links,
            ports,
            by_xdp,
            ..
        } = self;
        let netns = open(Path::new("/proc/thread-self/ns/net"))?;
        links.namespace(object, netns.as_fd())?;
        links.keep_interfaces(&config.indices())?;
        let (seen, sent_to) = (config.seen(), config.ports());
        // Whatever an agent before was told. The kernel may be as quick with an interface that goes.
        for index in others(by_xdp.keys(), &seen).context("cannot read where XDP is")? {
            let _ = by_xdp.remove(&index);
        }
        for index in others(ports.keys(), &sent_to).context("cannot read where XDP sends to")? {
            let _ = ports.remove(index);
        }
        for iface in &config.interfaces {
            links.interface(object, iface, config.xdp_mode)?;
            if seen.contains(&iface.index) {
                by_xdp
                    .insert(iface.index, iface.index, 0)
                    .with_context(|| format!("cannot note that XDP is at {}", iface.name))?;
            }
            if sent_to.contains(&iface.index) {
                ports
                    .insert(iface.index, iface.index, None, 0)
                    .with_context(|| format!("cannot let XDP redirect to {}", iface.name))?;
            }
        }
        let cgroup = open(&config.cgroup)?;
        links.cgroup(object, cgroup.as_fd())
    }

    /// Attaches to the interfaces behind which backends of this node live, and to no others.
    ///
    /// # Errors
    ///
    /// If one cannot be attached; the others are.
    pub fn set_link_interfaces(&mut self, interfaces: &[Interface]) -> Result<()> {
        let mut failed = None;
        for iface in interfaces {
            if let Err(error) = self.links.link_interface(&mut self.object, iface) {
                failed.get_or_insert(error);
            }
        }
        let keep: Vec<u32> = interfaces.iter().map(|iface| iface.index).collect();
        self.links.keep_link_interfaces(&keep)?;
        failed.map_or(Ok(()), Err)
    }

    /// The flow tables, for a walk by another task.
    ///
    /// # Errors
    ///
    /// If a pinned map cannot be opened.
    pub fn flow_tables(&self) -> Result<FlowTables> {
        FlowTables::open(&self.config.pin_dir, &self.config.sizes)
    }

    /// What the programs count, for whoever asks.
    ///
    /// # Errors
    ///
    /// If a pinned map cannot be opened.
    pub fn stats(&self) -> Result<Stats> {
        Stats::open(
            &self.config.pin_dir,
            &self.config.sizes,
            Arc::clone(&self.maps.in_use),
        )
    }

    /// What is remembered of local sockets.
    ///
    /// # Errors
    ///
    /// If a pinned map cannot be opened.
    pub fn sockets(&self) -> Result<Sockets> {
        Sockets::open(&self.config.pin_dir, &self.config.sizes)
    }

    /// What the programs saw of backends that do not answer.
    ///
    /// # Errors
    ///
    /// If a pinned map cannot be opened.
    pub fn suspects(&self) -> Result<Suspects> {
        Suspects::open(&self.config.pin_dir, &self.config.sizes)
    }

    /// What tells which backend a flow would get.
    pub fn explainer(&self) -> Explainer {
        Explainer {
            pin_dir: self.config.pin_dir.clone(),
            sizes: self.config.sizes,
            globals: self.globals,
        }
    }

    /// What hears the programs tell of packets. There is one.
    ///
    /// # Errors
    ///
    /// If it was taken before.
    pub fn tracer(&mut self) -> Result<Tracer> {
        Tracer::take(&mut self.object, Arc::clone(&self.maps.filter))
    }

    /// The maps, for a plan.
    pub fn kernel(&mut self) -> &mut dyn Kernel {
        &mut self.maps
    }

    /// The ports of the node's own addresses whose packets are looked at, since a service stands there or did.
    pub fn standing_ports(&self) -> BTreeSet<NodePort> {
        let filter = self.maps.filter.lock();
        filter.unwrap_or_else(PoisonError::into_inner).standing()
    }

    /// Leaves packets for these ports, at which no service stands any more, to the stack.
    ///
    /// # Errors
    ///
    /// If that cannot be written.
    pub fn release_ports(&mut self, ports: &BTreeSet<NodePort>) -> Result<()> {
        let filter = self.maps.filter.lock();
        filter
            .unwrap_or_else(PoisonError::into_inner)
            .release(ports)
    }

    /// The maps of next hops.
    pub fn hops(&mut self) -> &mut HopMaps {
        &mut self.hops
    }

    /// Makes flows find their clients' next hops anew. A plan that wants this epoch as well may write it again.
    ///
    /// # Errors
    ///
    /// If the node's settings cannot be read or written.
    pub fn set_route_epoch(&mut self, epoch: u16) -> Result<()> {
        self.maps.set_route_epoch(epoch)
    }

    /// How much the maps hold, for a plan.
    pub fn limits(&self) -> Limits {
        let Sizes {
            backends,
            services,
            addresses,
            ..
        } = self.config.sizes;
        Limits {
            services: services as usize,
            backends,
            tables: [services as usize * 2; 3],
            addresses: addresses as usize,
            sources: layout::SOURCES as usize,
            listed: layout::LISTED as usize,
            locals: layout::LOCALS as usize,
        }
    }
}

/// Those of a map's keys that are none of these.
fn others(
    keys: impl Iterator<Item = Result<u32, MapError>>,
    these: &[u32],
) -> Result<Vec<u32>, MapError> {
    keys.filter(|key| !matches!(key, Ok(index) if these.contains(index)))
        .collect()
}

fn open(path: &Path) -> Result<OwnedFd> {
    std::fs::File::open(path)
        .map(OwnedFd::from)
        .with_context(|| format!("cannot open {}", path.display()))
}
