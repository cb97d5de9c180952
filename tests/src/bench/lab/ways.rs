//! The ways from the client to the server, and the hosts that they lead through.
//!
//! ```text
//!  client 10.78.0.100 --+-- switch --+-- server 10.78.0.10, ports 8001-8016
//!   (agent: cgroup only)|            |
//!                       |            +-- agent  10.78.0.1  XDP NAT       10.90.0.1:9000
//!                       |            +-- dsr    10.78.0.5  DSR by L2     10.95.0.1:8001-8016, also on the server
//!                       |            +-- nft    10.78.0.2  DNAT + masq.  10.92.0.1:9000
//!                       |            +-- proxy  10.78.0.3  HAProxy, TCP  10.93.0.1:9000
//!                       |            +-- router 10.78.0.4  nothing       10.94.0.1, which is the server
//! ```
//!
//! The nodes are alike but for what balances on them. One node with all of it would make nftables and
//! HAProxy pay for an XDP program that is not theirs (a veth with XDP copies every packet). Under direct server return
//! nothing translates a port, so each port of the server is a service of its own there.

use std::{fs, net::IpAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{Effort, Load, Offloads, agents};
use crate::{
    bench::load::{READY, client::Outcome},
    lab::{
        Host, HostSpec, Lab, Place, Process, UPLINK,
        cgroup::Cgroup,
        exec::{fed_tool, ip_batch},
        programs::program,
        wait_until,
    },
};

/// A way.
///
/// To add one: its name, its node's name, where the client connects to, and in `proof` what shows that it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the server itself.
    Direct,
    /// By the agent's cgroup hooks, on the client's own host.
    Socket,
    /// By way of a node whose agent does full NAT in XDP.
    Xdp,
    /// By way of a node whose agent sends each packet on to the server, which answers the client itself.
    Dsr,
    /// By way of a node with an nftables rule for DNAT and one for masquerading.
    Nftables,
    /// By way of a node with HAProxy in TCP mode.
    Haproxy,
    /// By way of a node that only forwards, there and back: what the hop costs without any balancing.
    Routed,
}

/// All hosts and what runs on them. Fields end in this order.
#[derive(Debug)]
pub struct Site {
    /// The agents, HAProxy, the server.
    processes: Vec<Process>,
    /// The child of the client's cgroup that its agent serves; the direct way stays outside.
    served: Cgroup,
    pub(super) client: Host,
    pub(super) xdp: Host,
    pub(super) dsr: Host,
    pub(super) nft: Host,
    pub(super) proxy: Host,
    pub(super) router: Host,
    server: Host,
    lab: Lab,
}

const CLIENT: &str = "10.78.0.100";
const SERVER: &str = "10.78.0.10";
const XDP: &str = "10.78.0.1";
const NFT: &str = "10.78.0.2";
const PROXY: &str = "10.78.0.3";
const ROUTER: &str = "10.78.0.4";
const DSR: &str = "10.78.0.5";

/// The service's address on each way.
const SOCKET_VIP: &str = "10.91.0.1";
const XDP_VIP: &str = "10.90.0.1";
const NFT_VIP: &str = "10.92.0.1";
const PROXY_VIP: &str = "10.93.0.1";
/// On the server, too.
const DSR_VIP: &str = "10.95.0.1";
/// The server's own second address.
const ROUTED: &str = "10.94.0.1";
const VIP_PORT: u16 = 9000;

/// Backends: several, so that full NAT has enough source ports for all that was closed a moment ago.
const FIRST_PORT: u16 = 8001;
const PORTS: u16 = 16;

/// Source ports of full NAT, and those that are left to the hosts themselves.
const SNAT_PORTS: &str = "20001-65535";
const LOCAL_PORTS: &str = "1024 20000";

pub(super) const UP_WITHIN: Duration = Duration::from_secs(20);

// === impl Way ===

impl Way {
    /// Every way, in the order of a round; direct and the socket path are neighbours.
    pub const ALL: [Self; 7] = [
        Self::Direct,
        Self::Socket,
        Self::Xdp,
        Self::Dsr,
        Self::Nftables,
        Self::Haproxy,
        Self::Routed,
    ];

    /// How it is called in a case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Socket => "socket path",
            Self::Xdp => "XDP NAT",
            Self::Dsr => "DSR by L2",
            Self::Nftables => "nftables NAT",
            Self::Haproxy => "HAProxy TCP",
            Self::Routed => "forwarding alone",
        }
    }

    /// What the client is given.
    fn to(self) -> String {
        let server = |addr: &str| format!("{addr}:{FIRST_PORT}-{}", FIRST_PORT + PORTS - 1);
        let vip = match self {
            Self::Direct => return server(SERVER),
            Self::Routed => return server(ROUTED),
            Self::Dsr => return server(DSR_VIP),
            Self::Socket => SOCKET_VIP,
            Self::Xdp => XDP_VIP,
            Self::Nftables => NFT_VIP,
            Self::Haproxy => PROXY_VIP,
        };
        format!("{vip}:{VIP_PORT}")
    }

    /// As whom the server must see the client.
    pub(super) fn seen_as(self) -> Result<IpAddr> {
        Ok(match self {
            Self::Direct | Self::Socket | Self::Dsr | Self::Routed => CLIENT,
            Self::Xdp => XDP,
            Self::Nftables => NFT,
            Self::Haproxy => PROXY,
        }
        .parse()?)
    }
}

// === impl Site ===

impl Site {
    /// Makes the hosts, starts everything, and proves every way.
    ///
    /// # Errors
    ///
    /// What is missing on this machine, what did not come up, or which way is not what it claims.
    pub fn up() -> Result<Self> {
        let haproxy = haproxy()?;
        let lab = Lab::new()?;
        let node = |name: &str, address: &str| node(&lab, name, address);
        let (xdp, dsr) = (node("agent", XDP)?, node("dsr", DSR)?);
        let (nft, proxy) = (node("nft", NFT)?, node("proxy", PROXY)?);
        let router = node("router", ROUTER)?;
        let server = lab.host(&HostSpec::new("server").address(&format!("{SERVER}/24")))?;
        let client = HostSpec::new("client")
            .address(&format!("{CLIENT}/24"))
            .route(&format!("{XDP_VIP} via {XDP}"))
            .route(&format!("{DSR_VIP} via {DSR}"))
            .route(&format!("{NFT_VIP} via {NFT}"))
            .route(&format!("{PROXY_VIP} via {PROXY}"))
            .route(&format!("{ROUTED} via {ROUTER}"));
        let client = lab.host(&client)?;
        let mut site = Self {
            processes: Vec::new(),
            served: Cgroup::create(client.cgroup().path().join("served"))?,
            client,
            xdp,
            dsr,
            nft,
            proxy,
            router,
            server,
            lab,
        };
        for host in site.hosts() {
            host.netns()
                .sysctl(&[("net/ipv4/ip_local_port_range", LOCAL_PORTS)])?;
        }
        site.set(Offloads::Off)?;
        site.start_server()?;
        site.start_agents()?;
        site.start_nftables()?;
        site.start_haproxy(&haproxy)?;
        for way in Way::ALL {
            site.prove(way)
                .with_context(|| format!("the way {:?} is not what it claims", way.name()))?;
        }
        Ok(site)
    }

    fn hosts(&self) -> [&Host; 7] {
        [
            &self.client,
            &self.xdp,
            &self.dsr,
            &self.nft,
            &self.proxy,
            &self.router,
            &self.server,
        ]
    }

    /// Sets the offloads of all devices and says what they are.
    ///
    /// # Errors
    ///
    /// A device cannot, or differs from the others.
    pub fn set(&self, offloads: Offloads) -> Result<String> {
        let mut said: Option<String> = None;
        for host in self.hosts() {
            let now = offloads.set(self.lab.switch().name(), host)?;
            let same = said.get_or_insert_with(|| now.clone());
            ensure!(*same == now, "{}: {now}, others: {same}", host.name());
        }
        said.context("no host")
    }

    /// One measurement. The server's word on who the client was is checked every time.
    pub(super) fn measure(&self, way: Way, load: Load, effort: &Effort) -> Result<Outcome> {
        let argv = [
            program("bench-load")?,
            "ask".into(),
            way.to(),
            "--kind".into(),
            format!("{:?}", load.kind()).to_lowercase(),
            "--places".into(),
            load.places().to_string(),
            "--warm-up".into(),
            effort.warm_up.as_millis().to_string(),
            "--measure".into(),
            effort.measure.as_millis().to_string(),
        ];
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        let within = effort.warm_up + effort.measure + Duration::from_secs(10);
        let said = self.ask(way, &argv)?.finish(within)?.ok()?;
        let outcome: Outcome = serde_json::from_str(&said).context("what the load says")?;
        check(way, &outcome)?;
        Ok(outcome)
    }

    /// Starts a program on the client: on the socket path inside of the cgroup that the agent serves, for all
    /// other ways outside.
    fn ask(&self, way: Way, argv: &[&str]) -> Result<Process> {
        if way != Way::Socket {
            return self.client.start("load", argv);
        }
        let logs = self.client.dir().join("served");
        fs::create_dir_all(&logs)?;
        let place = Place {
            netns: &self.client.netns().path(),
            cgroup: self.served.path(),
            binds: &[],
            logs: &logs,
        };
        Process::start("load", argv, &place)
    }

    /// At all its addresses; what is asked by way of the router is answered by way of it.
    fn start_server(&mut self) -> Result<()> {
        ip_batch(
            self.server.netns().name(),
            &format!(
                "addr add {ROUTED}/32 dev lo\n\
                 addr add {DSR_VIP}/32 dev lo\n\
                 route add {CLIENT} via {ROUTER} table 94\n\
                 rule add from {ROUTED} lookup 94\n"
            ),
        )?;
        ip_batch(
            self.router.netns().name(),
            &format!("route add {ROUTED} via {SERVER}\n"),
        )?;
        let at = format!("0.0.0.0:{FIRST_PORT}-{}", FIRST_PORT + PORTS - 1);
        let mut server = self
            .server
            .start("server", &[&program("bench-load")?, "serve", &at])?;
        wait_until("the server listens", UP_WITHIN, || {
            server.stdout().contains(READY) || server.has_ended()
        })?;
        ensure!(!server.has_ended(), "it ended: {}", server.stderr());
        self.processes.push(server);
        Ok(())
    }

    fn start_agents(&mut self) -> Result<()> {
        let all: Vec<String> = (FIRST_PORT..FIRST_PORT + PORTS)
            .map(|port| format!("{SERVER}:{port}"))
            .collect();
        let of_all = |vip: &str| service(vip, VIP_PORT, "nat", &all);
        let of_each: String = (FIRST_PORT..FIRST_PORT + PORTS)
            .zip(&all)
            .map(|(port, backend)| service(DSR_VIP, port, "dsr-l2", &[backend]))
            .collect();
        let served = self.served.path();
        let outside = ["--iface", UPLINK, "--snat-ports", SNAT_PORTS];
        for (host, cgroup, services, flags) in [
            (&self.client, served, of_all(SOCKET_VIP), &outside[..0]),
            (
                &self.xdp,
                self.xdp.cgroup().path(),
                of_all(XDP_VIP),
                &outside,
            ),
            (&self.dsr, self.dsr.cgroup().path(), of_each, &outside),
        ] {
            let agent = agents::start(host, cgroup, &services, &all, flags)?;
            self.processes.push(agent);
        }
        Ok(())
    }

    fn start_nftables(&self) -> Result<()> {
        let backends: Vec<String> = (0..PORTS)
            .map(|i| format!("{i} : {}", FIRST_PORT + i))
            .collect();
        let rules = format!(
            "table ip bench {{\n\
               chain prerouting {{\n\
                 type nat hook prerouting priority dstnat;\n\
                 ip daddr {NFT_VIP} tcp dport {VIP_PORT} counter \
                   dnat to {SERVER} : numgen inc mod {PORTS} map {{ {} }}\n\
               }}\n\
               chain postrouting {{\n\
                 type nat hook postrouting priority srcnat;\n\
                 ip daddr {SERVER} masquerade\n\
               }}\n\
             }}\n",
            backends.join(", ")
        );
        let net = format!("--net={}", self.nft.netns().path().display());
        fed_tool(&["nsenter", &net, "nft", "-f", "-"], &rules).map(drop)
    }

    fn start_haproxy(&mut self, program: &str) -> Result<()> {
        let config = self.proxy.dir().join("haproxy.cfg");
        fs::write(&config, self.haproxy_config())?;
        let net = self.proxy.netns().name();
        ip_batch(net, &format!("addr add {PROXY_VIP}/32 dev lo\n"))?;
        let argv = [program, "-db", "-f", &config.display().to_string()];
        let mut haproxy = self.proxy.start("haproxy", &argv)?;
        let socket = self.haproxy_socket();
        wait_until("HAProxy is up", UP_WITHIN, || {
            socket.exists() || haproxy.has_ended()
        })?;
        ensure!(!haproxy.has_ended(), "it ended: {}", haproxy.stderr());
        self.processes.push(haproxy);
        Ok(())
    }

    /// Where HAProxy answers about itself.
    pub(super) fn haproxy_socket(&self) -> PathBuf {
        self.proxy.dir().join("haproxy.sock")
    }

    /// As many threads as CPUs, bytes spliced in the kernel, no checks and no logs: nothing that costs.
    fn haproxy_config(&self) -> String {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let servers: String = (0..PORTS)
            .map(|i| format!("  server s{i} {SERVER}:{}\n", FIRST_PORT + i))
            .collect();
        format!(
            "global\n  nbthread {threads}\n  maxconn 4096\n  stats socket {} level admin\n\
             defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
             \x20 option splice-auto\n\
             listen bench\n  bind {PROXY_VIP}:{VIP_PORT}\n  balance static-rr\n{servers}",
            self.haproxy_socket().display()
        )
    }
}

/// A node that forwards, and sends no redirects: all its packets leave by the interface they come in by.
fn node(lab: &Lab, name: &str, address: &str) -> Result<Host> {
    let spec = HostSpec::new(name)
        .address(&format!("{address}/24"))
        .forwarding();
    let host = lab.host(&spec)?;
    host.netns().sysctl(&[
        ("net/ipv4/conf/all/send_redirects", "0"),
        ("net/ipv4/conf/eth0/send_redirects", "0"),
    ])?;
    Ok(host)
}

/// A service of the file.
fn service(vip: &str, port: u16, mode: &str, backends: &[impl AsRef<str>]) -> String {
    let backends: Vec<&str> = backends.iter().map(AsRef::as_ref).collect();
    let backends = backends.join("\", \"");
    format!("  - {{address: {vip}, port: {port}, mode: {mode}, backends: [\"{backends}\"]}}\n")
}

/// The program, where Debian puts it.
fn haproxy() -> Result<String> {
    [
        "/usr/sbin/haproxy",
        "/usr/local/sbin/haproxy",
        "/usr/bin/haproxy",
    ]
    .into_iter()
    .find(|path| PathBuf::from(path).is_file())
    .map(str::to_owned)
    .context("`haproxy` is not installed; remedy: `cargo xtask setup --bench`")
}

/// Whether everything arrived by this way.
fn check(way: Way, outcome: &Outcome) -> Result<()> {
    let wanted = way.seen_as()?;
    ensure!(
        outcome.seen_as.keys().all(|seen| *seen == wanted) && !outcome.seen_as.is_empty(),
        "the server saw the client as {:?}, not as {wanted}",
        outcome.seen_as
    );
    let most = outcome.connections / 1000;
    ensure!(
        outcome.failures <= most,
        "{} connections failed, {} did not; the first: {:?}",
        outcome.failures,
        outcome.connections,
        outcome.failure
    );
    Ok(())
}
