//! Flags, environment and config file, read into one checked struct.
//!
//! A flag wins over its environment variable, that over the config file, that over the default. Whatever is
//! wrong is one [`ConfigError`], before anything on the system is touched.

mod check;
mod error;
mod file;
mod flags;
mod keys;
mod parse;
mod sources;
mod types;

#[cfg(test)]
mod tests;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;

pub(crate) use self::parse::cidr;
pub use self::{
    error::ConfigError,
    flags::Flags,
    types::{
        AddrRange, AdminHttp, Dns, Docker, Ecs, Etcd, Ipv4Range, Ipv6Range, Log, LogFormat,
        Marathon, MarathonAuth, NamePolicy, Paths, PortRange, Sizes, XdpMode,
    },
};
use crate::admin::haproxy::Place;

use self::{
    parse::{absolute, choice, number},
    sources::{Sources, Surroundings},
};

/// The port of DNS, RFC 1035 section 4.2.
const DNS_PORT: u16 = 53;

/// Everything that an operator can decide, checked as far as it can be without the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Interfaces on which clients from outside arrive, each once; may be empty.
    pub interfaces: Vec<String>,
    /// How to attach to them.
    pub xdp_mode: XdpMode,
    /// The Marathon to read, if any.
    pub marathon: Option<Marathon>,
    /// Further ones.
    pub more_marathons: Vec<Marathon>,
    /// The Docker Engine to read, if any.
    pub docker: Option<Docker>,
    /// The etcd to share a catalog in, if any.
    pub etcd: Option<Etcd>,
    /// The ECS clusters to read, if any.
    pub ecs: Option<Ecs>,
    /// The services file or directory, if any; one that nobody asked for may not exist (yet).
    pub services: Option<PathBuf>,
    /// The groups that this agent is in, for services that name some.
    pub groups: Vec<String>,
    /// The zone that this node is in, if it is said.
    pub zone: Option<String>,
    /// Other nodes with an agent, by their addresses.
    pub peers: Vec<std::net::IpAddr>,
    /// Whether others are known by their entries in etcd, where this one enters itself.
    pub peers_in_etcd: bool,
    /// Whether backends on peers answer clients directly where a service does not say otherwise.
    pub dsr: bool,
    /// The DNS service; `None`: turned off.
    pub dns: Option<Dns>,
    /// IPv4 addresses for names.
    pub vip_pool_v4: Ipv4Range,
    /// IPv6 addresses for names.
    pub vip_pool_v6: Ipv6Range,
    /// Source ports for full NAT on the node's own address.
    pub snat_ports: PortRange,
    /// Where IP VIPs may lie; empty: nowhere.
    pub ip_vips: Vec<IpNet>,
    /// Ports that labels may claim on the node's own addresses.
    pub node_ports: PortRange,
    /// Clients from outside; `None`: the prefixes of this node's interfaces. Empty: nobody.
    pub outside_allow: Option<Vec<IpNet>>,
    /// Who may use which name.
    pub name_policy: NamePolicy,
    /// The pages over TCP; `None`: turned off.
    pub admin: Option<AdminHttp>,
    /// The socket that speaks HAProxy's language; `None`: turned off.
    pub stats_socket: Option<Place>,
    /// The agent's own places.
    pub paths: Paths,
    /// Sizes of the kernel tables.
    pub sizes: Sizes,
    /// New flows a second that each CPU opens for clients from outside; 0: no limit.
    pub new_flows: u32,
    /// Health checks that are under way at a time; 0: there are none.
    pub checks: u32,
    /// Time between two full comparisons with orchestrators and kernel.
    pub resync: Duration,
    /// Logging.
    pub log: Log,
    /// The syslog server that is told of backends, if any.
    pub syslog: Option<SocketAddr>,
    /// Sentences for the log: odd, but no reason to stop.
    pub warnings: Vec<String>,
}

impl Config {
    /// Every Marathon to read.
    pub fn marathons(&self) -> impl Iterator<Item = &Marathon> {
        self.marathon.iter().chain(&self.more_marathons)
    }

    /// Reads and checks everything: flags, then environment, then config file, then defaults.
    ///
    /// # Errors
    /// The first setting that cannot be used, or a contradiction between two.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        Self::load_in(flags, &Surroundings::of_process())
    }

    fn load_in(flags: &Flags, around: &Surroundings) -> Result<Self, ConfigError> {
        let sources = Sources::read(flags, around)?;
        let marathon = check::marathon(&sources)?;
        let more_marathons = check::more_marathons(&sources, marathon.as_ref())?;
        let mut warnings: Vec<String> = around
            .unknown_variables()
            .into_iter()
            .map(|name| {
                format!(
                    "the environment variable {name} is no setting of lb-agent and has no effect"
                )
            })
            .collect();
        let docker = check::docker(&sources, &mut warnings)?;
        let etcd = check::etcd(&sources)?;
        let peers = sources.many(&keys::PEERS, parse::peer)?;
        let ecs = check::ecs(&sources)?;
        let marathons = marathon.is_some() || !more_marathons.is_empty();
        let other = marathons || docker.is_some() || etcd.is_some() || ecs.is_some();
        let services = check::services(&sources, around, other, &mut warnings)?;
        let config = Self {
            interfaces: sources.many(&keys::IFACE, parse::interface)?,
            xdp_mode: sources.preset(
                &keys::XDP_MODE,
                choice(&[
                    ("native", XdpMode::Native),
                    ("generic", XdpMode::Generic),
                    ("off", XdpMode::Off),
                ]),
            )?,
            marathon,
            more_marathons,
            docker,
            etcd,
            ecs,
            services,
            groups: sources.many(&keys::GROUP, parse::word)?,
            zone: sources.one(&keys::ZONE, parse::word)?,
            peers_in_etcd: peers.contains(&None),
            peers: peers.into_iter().flatten().collect(),
            dsr: sources.preset(&keys::DSR, choice(&[(keys::YES, true), ("no", false)]))?,
            dns: check::dns(&sources)?,
            vip_pool_v4: sources.preset(&keys::VIP_POOL_V4, parse::pool_v4)?,
            vip_pool_v6: sources.preset(&keys::VIP_POOL_V6, parse::pool_v6)?,
            snat_ports: sources.preset(&keys::SNAT_PORTS, parse::ports)?,
            ip_vips: sources
                .many_or_none(&keys::IP_VIPS, cidr)?
                .unwrap_or_default(),
            node_ports: sources.preset(&keys::NODE_PORTS, parse::ports)?,
            outside_allow: sources.many_or_none(&keys::OUTSIDE_ALLOW, cidr)?,
            name_policy: sources.preset(
                &keys::NAME_POLICY,
                choice(&[
                    ("any", NamePolicy::Any),
                    ("app-path", NamePolicy::AppPath),
                    ("owner", NamePolicy::Owner),
                ]),
            )?,
            admin: check::admin(&sources)?,
            stats_socket: sources
                .one(&keys::STATS_SOCKET, parse::stats_socket)?
                .unwrap_or_else(|| Some(Place::default())),
            paths: Paths::read(&sources)?,
            sizes: Sizes {
                flows: sources.preset(&keys::FLOWS, number(check::ENTRIES))?,
                half_open_flows: sources.preset(&keys::HALF_OPEN_FLOWS, number(check::ENTRIES))?,
                udp_flows: sources.preset(&keys::UDP_FLOWS, number(check::ENTRIES))?,
                backends: sources.preset(&keys::MAX_BACKENDS, number(check::ENTRIES))?,
                services: sources.preset(&keys::MAX_SERVICES, number(check::ENTRIES))?,
            },
            checks: sources.preset(&keys::CHECKS, number(0..=512))?,
            new_flows: sources.preset(&keys::NEW_FLOWS, number(0..=u32::MAX))?,
            resync: Duration::from_secs(
                sources
                    .preset(&keys::RESYNC, number(check::RESYNC_SECONDS))?
                    .into(),
            ),
            log: Log {
                format: sources.preset(
                    &keys::LOG_FORMAT,
                    choice(&[
                        ("auto", LogFormat::Auto),
                        ("text", LogFormat::Text),
                        ("json", LogFormat::Json),
                        ("journald", LogFormat::Journald),
                    ]),
                )?,
                filter: sources.preset(&keys::LOG, parse::log_filter)?,
            },
            syslog: sources.one(&keys::SYSLOG, parse::syslog)?,
            warnings,
        };
        check::ranges(&config, &sources)?;
        check::peers(&config, &sources)?;
        Ok(config)
    }
}

impl Paths {
    /// Reads only the agent's places, for the subcommands: they work even if some other setting is wrong.
    ///
    /// # Errors
    /// A config file that cannot be read as a whole, or a path that cannot be used.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        Self::load_in(flags, &Surroundings::of_process())
    }

    fn load_in(flags: &Flags, around: &Surroundings) -> Result<Self, ConfigError> {
        Self::read(&Sources::read(flags, around)?)
    }

    fn read(sources: &Sources<'_>) -> Result<Self, ConfigError> {
        Ok(Self {
            pin_dir: sources.preset(&keys::PIN_DIR, absolute)?,
            state_dir: sources.preset(&keys::STATE_DIR, absolute)?,
            run_dir: sources.preset(&keys::RUN_DIR, parse::run_dir)?,
            cgroup: sources.one(&keys::CGROUP, absolute)?,
        })
    }
}
