//! A host: a network namespace with addresses, a resolv.conf and a cgroup.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};

use super::{
    Finished, Netns, Place, Process,
    cgroup::Cgroup,
    exec::{ip_batch, tool_in},
    site::{BRIDGE, Site},
};

/// The interface of every host and container that leads to its network.
pub const UPLINK: &str = "eth0";

/// How long [`Host::run`] waits.
const RUN_WITHIN: Duration = Duration::from_secs(60);

/// What a host is to be.
#[derive(Clone, Debug, Default)]
pub struct HostSpec {
    pub(super) name: String,
    pub(super) addresses: Vec<String>,
    pub(super) routes: Vec<String>,
    pub(super) nameservers: Vec<IpAddr>,
    pub(super) forwards: bool,
    pub(super) tx_checksum: bool,
    pub(super) unfinished_arrivals: bool,
}

/// A host of the lab. Everything in it ends when it is dropped.
#[derive(Debug)]
pub struct Host {
    name: String,
    // In drop order: processes first, then their namespace, and the lab last.
    cgroup: Cgroup,
    netns: Netns,
    dir: PathBuf,
    pins: PathBuf,
    binds: Vec<(PathBuf, PathBuf)>,
    started: AtomicU32,
    site: Arc<Site>,
}

// === impl HostSpec ===

impl HostSpec {
    /// A host without addresses; `name` is at most 15 bytes, as it names the switch's port too.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// Adds an address with prefix length: `10.77.0.1/24`, `fd77::1/64`. It is usable at once (no DAD).
    #[must_use]
    pub fn address(mut self, address: &str) -> Self {
        self.addresses.push(address.to_owned());
        self
    }

    /// Adds a route as `ip route add` takes it: `11.0.0.0/8 via 10.77.0.1`.
    #[must_use]
    pub fn route(mut self, route: &str) -> Self {
        self.routes.push(route.to_owned());
        self
    }

    /// Adds a line to the host's resolv.conf.
    #[must_use]
    pub fn nameserver(mut self, address: IpAddr) -> Self {
        self.nameservers.push(address);
        self
    }

    /// Lets the host forward packets, as a node with containers does.
    #[must_use]
    pub fn forwarding(mut self) -> Self {
        self.forwards = true;
        self
    }

    /// Leaves checksum offload on, as on most NICs, or not, which is the default. What tc sees on the way out
    /// then has an unfinished checksum; the switch finishes it, as a NIC does.
    #[must_use]
    pub fn tx_checksum(mut self, on: bool) -> Self {
        self.tx_checksum = on;
        self
    }

    /// Lets the switch pass on what has an unfinished checksum, as from a virtual machine on the same bridge.
    /// tc can work on that; XDP cannot.
    #[must_use]
    pub fn unfinished_arrivals(mut self, on: bool) -> Self {
        self.unfinished_arrivals = on;
        self
    }
}

// === impl Host ===

impl Host {
    pub(super) fn on_switch(site: Arc<Site>, spec: &HostSpec) -> Result<Self> {
        let cgroup = site.cgroup().join(&spec.name);
        let host = Self::unplugged(site, spec, cgroup)?;
        let switch = host.site.switch().name().to_owned();
        let (port, netns) = (&spec.name, host.netns.name());
        ip_batch(
            &switch,
            &format!(
                "link add name {port} type veth peer name {UPLINK} netns {netns}\n\
                 link set dev {port} master {BRIDGE} up\n"
            ),
        )?;
        offloads(&switch, port, spec.unfinished_arrivals)?;
        host.plug(spec)?;
        Ok(host)
    }

    /// A host that no cable leads to yet. Its cgroup is a child of a node's if it is a container.
    pub(super) fn unplugged(site: Arc<Site>, spec: &HostSpec, cgroup: PathBuf) -> Result<Self> {
        let HostSpec {
            name,
            nameservers,
            forwards,
            ..
        } = spec;
        let dir = site.files().join(name);
        let pins = site.pins().join(name);
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let host = Self {
            cgroup: Cgroup::create(cgroup)?,
            netns: Netns::create(format!("{}-{name}", site.name()))?,
            binds: name_service(&dir, nameservers)?,
            name: name.clone(),
            started: AtomicU32::new(0),
            dir,
            pins,
            site,
        };
        let forward = if *forwards { "1" } else { "0" };
        host.netns.sysctl(&[
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
            ("net/ipv4/ip_forward", forward),
            ("net/ipv6/conf/all/forwarding", forward),
            ("net/ipv6/conf/all/accept_ra", "0"),
            ("net/ipv6/conf/default/accept_ra", "0"),
            ("net/ipv6/conf/all/accept_dad", "0"),
            ("net/ipv6/conf/default/accept_dad", "0"),
        ])?;
        Ok(host)
    }

    /// Sets the uplink up once its cable is there.
    pub(super) fn plug(&self, spec: &HostSpec) -> Result<()> {
        offloads(self.netns.name(), UPLINK, spec.tx_checksum)?;
        let mut commands = format!("link set dev {UPLINK} up\n");
        for address in &spec.addresses {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            commands += &format!("addr add {address} dev {UPLINK}{nodad}\n");
        }
        for route in &spec.routes {
            commands += &format!("route add {route}\n");
        }
        ip_batch(self.netns.name(), &commands)
    }

    /// As in its [`HostSpec`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its network.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its cgroup; those of its containers are below.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// A directory of its own, for state and logs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path on bpffs of its own, not made yet; removed with the lab.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    pub(super) fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// Starts a program in the host: its network, its cgroup, its resolv.conf. `name` names the output
    /// files in [`Host::dir`]; a number is added.
    ///
    /// # Errors
    ///
    /// The program cannot be run.
    pub fn start(&self, name: &str, argv: &[&str]) -> Result<Process> {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let place = Place {
            netns: &self.netns.path(),
            cgroup: self.cgroup.path(),
            binds: &self.binds,
            logs: &self.dir,
        };
        Process::start(&format!("{name}-{number}"), argv, &place)
            .with_context(|| format!("on {}", self.name))
    }

    /// Runs a program in the host until it ends, for at most a minute.
    ///
    /// # Errors
    ///
    /// It cannot be run, or it does not end. Its exit code is the caller's business: [`Finished::ok`].
    pub fn run(&self, argv: &[&str]) -> Result<Finished> {
        let name = argv
            .first()
            .and_then(|program| program.rsplit('/').next())
            .unwrap_or("run");
        self.start(name, argv)?.finish(RUN_WITHIN)
    }

    /// Ends it as a loss of power does: everything that runs on it is killed, and nobody reaches it any more.
    ///
    /// # Errors
    ///
    /// A process outlives that, or the cable cannot be pulled.
    pub fn lose(&self) -> Result<()> {
        self.cgroup.kill()?;
        self.cut_off()
    }

    /// Pulls its cable: nobody reaches it, and no connection ends.
    ///
    /// # Errors
    ///
    /// The cable cannot be pulled.
    pub fn cut_off(&self) -> Result<()> {
        self.set_uplink("down")
    }

    /// Puts the cable back that was pulled.
    ///
    /// # Errors
    ///
    /// It cannot be put back.
    pub fn reconnect(&self) -> Result<()> {
        self.set_uplink("up")
    }

    fn set_uplink(&self, state: &str) -> Result<()> {
        let set = format!("link set dev {UPLINK} {state}\n");
        ip_batch(self.netns.name(), &set)
    }

    /// Runs `act` on a fresh thread inside the host's network, but outside of its cgroup.
    ///
    /// # Errors
    ///
    /// The namespace cannot be entered. A panic of `act` is passed on.
    pub fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Result<T> {
        self.netns.enter(act)
    }
}

/// XDP on one end of a veth needs NAPI on the other for what it sends back, which GRO switches on. GRO leaves
/// joined packets with unfinished checksums, so what sends them on to XDP must finish them: `tx off`.
pub(super) fn offloads(netns: &str, device: &str, tx_checksum: bool) -> Result<()> {
    let tx = if tx_checksum { "on" } else { "off" };
    tool_in(netns, &["ethtool", "-K", device, "gro", "on", "tx", tx])
        .map(drop)
        .with_context(|| format!("cannot set the offloads of {device}"))
}

/// Name service by `resolv.conf` alone: what else the machine has (resolved, sssd) lives outside the lab.
fn name_service(dir: &Path, nameservers: &[IpAddr]) -> Result<Vec<(PathBuf, PathBuf)>> {
    let resolv: String = nameservers
        .iter()
        .map(|at| format!("nameserver {at}\n"))
        .collect();
    let files = [
        ("resolv.conf", resolv + "options timeout:1 attempts:3\n"),
        ("nsswitch.conf", "hosts: files dns\n".to_owned()),
    ];
    let mut binds = Vec::new();
    for (name, text) in files {
        let file = dir.join(name);
        fs::write(&file, text)?;
        // Only what exists can be covered; without nsswitch.conf glibc asks DNS anyway.
        let at = Path::new("/etc").join(name);
        if at.exists() {
            binds.push((file, at));
        }
    }
    Ok(binds)
}
