//! The types that a checked configuration is made of.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use reqwest::Url;

use crate::provider::docker::Balancer;

/// How to attach to an interface at ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// XDP in the driver; an interface that cannot is an error that names the remedy.
    Native,
    /// XDP after the kernel has built its packet; only on request.
    Generic,
    /// No XDP: the tc programs do all the work.
    Off,
}

/// Who may use which VIP name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamePolicy {
    /// Any app, any name.
    Any,
    /// Only names that begin with the app's own path.
    AppPath,
    /// The first app that used a name owns it.
    Owner,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// To the journal where standard error leads there, text on a terminal, JSON otherwise.
    Auto,
    /// One line of text for people.
    Text,
    /// One JSON object a line.
    Json,
    /// To the journal, each field as one of its own.
    Journald,
}

/// Ports `min..=max`, both 1-65535, host byte order, `min <= max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The first port of the range.
    pub min: u16,
    /// The last port of the range; it belongs to it.
    pub max: u16,
}

/// Addresses `min..=max` of one family, `min < max`: the modulus of the address hash is their difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddrRange<A> {
    /// The first address.
    pub min: A,
    /// The last address; it belongs to the range.
    pub max: A,
}

/// An IPv4 pool.
pub type Ipv4Range = AddrRange<Ipv4Addr>;
/// An IPv6 pool.
pub type Ipv6Range = AddrRange<Ipv6Addr>;

/// The Marathon cluster to read, if any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marathon {
    /// The masters of one cluster, to be tried in this order; at least one, each http or https, without user or query.
    pub urls: Vec<Url>,
    /// The framework name; `None`: ask Marathon.
    pub framework: Option<String>,
    /// How to log in.
    pub auth: MarathonAuth,
    /// PEM file with the authority to trust instead of the system's; was readable at start.
    pub ca_file: Option<PathBuf>,
    /// How long the event stream may be silent.
    pub stream_timeout: Duration,
    /// Groups whose service ports are served at the node's addresses; `*`: all.
    pub groups: Vec<String>,
    /// Of those, only the service ports that are enabled by a label.
    pub strict_mode: bool,
    /// Apps whose service ports are not served, by id with a leading slash.
    pub skipped: Vec<String>,
}

/// The Docker Engine to read, if any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Docker {
    /// `unix:///PATH` or `tcp://HOST:PORT`.
    pub socket: String,
    /// The name space of its VIPs, in canonical form.
    pub framework: String,
    /// Whether every service that exposes a port gets a VIP.
    pub expose_all: bool,
    /// `service` or `project:service`: they get one without asking.
    pub services: Vec<String>,
    /// Networks that count, in this order; empty: any.
    pub networks: Vec<String>,
    /// PEM file with the authority that the engine's certificate is signed by; `None`: no TLS.
    pub ca_file: Option<PathBuf>,
    /// PEM files with this node's certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Time between two readings of a Swarm's tasks.
    pub poll: Duration,
    /// Whether this node has a route to the Swarm's overlay networks.
    pub overlay_reachable: bool,
    /// How long what is about to end keeps its connections, s; `None`: as long as they last.
    pub drain: Option<u32>,
    /// What was set on the balancer that users come from.
    pub compat: Balancer,
}

/// The etcd to share a catalog in, if any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etcd {
    /// The members of one cluster, to be tried in this order; at least one, each http or https, without user or query.
    pub urls: Vec<Url>,
    /// What our keys begin with; it ends in `/`.
    pub prefix: String,
    /// The user, and a file whose first line is the password.
    pub login: Option<(String, PathBuf)>,
    /// PEM file with the authority to trust instead of the system's; was readable at start.
    pub ca_file: Option<PathBuf>,
    /// PEM files with this node's certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// The ECS clusters to read, if any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ecs {
    /// Names or ARNs, at least one.
    pub clusters: Vec<String>,
    /// `None`: each cluster's own, by its ARN, else what AWS's own tools find.
    pub region: Option<String>,
    /// `http://HOST:PORT`; `None`: Amazon's.
    pub endpoint: Option<Url>,
    /// A queue that tells of changes; `None`: nobody does.
    pub events: Option<Url>,
    /// Time between two readings.
    pub poll: Duration,
    /// Addresses of hosts that are no EC2 instances, by id.
    pub hosts: BTreeMap<String, IpAddr>,
}

/// How to log in to Marathon. The files are read for every request, so that a renewed secret counts at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MarathonAuth {
    /// Not at all.
    Open,
    /// HTTP basic authentication.
    Basic {
        /// The user.
        user: String,
        /// Its first line is the password.
        password_file: PathBuf,
    },
    /// `Authorization: token=...` as DC/OS wants it.
    Token {
        /// Its first line is the token.
        token_file: PathBuf,
    },
    /// The same with a token that DC/OS gives to an account.
    Login {
        /// JSON with the account.
        credentials_file: PathBuf,
    },
}

/// The DNS service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Where to listen, over UDP and TCP, without the link address; no wildcard address.
    pub listen: Vec<SocketAddr>,
    /// Nobody asked for these addresses: one that this node lacks is left out with a warning, not an error.
    pub listen_by_default: bool,
    /// To be put on `lo` and listened on at port 53.
    pub link_address: Option<IpAddr>,
    /// Where other names go, in this order; `None`: the name servers of `/etc/resolv.conf`, never ourselves.
    pub upstreams: Option<Vec<SocketAddr>>,
    /// Who gets an answer; `None`: loopback and the prefixes of this node's interfaces. Empty: loopback only.
    pub allow: Option<Vec<ipnet::IpNet>>,
    /// Domains whose names of VIPs are answered besides, in lower case.
    pub domains: Vec<String>,
    /// `KEY` of the alias zone `l4lb.KEY.dcos.directory`, lower case zbase32.
    pub cluster_key: Option<String>,
}

/// The pages over TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminHttp {
    /// Where they are served; at least one.
    pub listen: Vec<SocketAddr>,
    /// Nobody asked for these addresses: one that cannot be had is left out with a warning, not an error.
    pub by_default: bool,
    /// Its first line is the token.
    pub token_file: Option<PathBuf>,
    /// Lines `user:password`.
    pub users_file: Option<PathBuf>,
    /// Reading needs a secret, too.
    pub closed: bool,
    /// One more path of `/healthz`.
    pub health_path: Option<String>,
    /// Names by which the node is called in requests.
    pub hosts: Vec<String>,
    /// PEM files with the certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// The agent's own places, all absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Where programs and maps are pinned.
    pub pin_dir: PathBuf,
    /// Where leases are kept.
    pub state_dir: PathBuf,
    /// Where the admin socket and the lock are.
    pub run_dir: PathBuf,
    /// The cgroup v2 directory to attach to; `None`: the root of the tree, wherever it is mounted.
    pub cgroup: Option<PathBuf>,
}

/// Sizes of the kernel tables, in entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// TCP flows.
    pub flows: u32,
    /// TCP connections that the client has not yet confirmed.
    pub half_open_flows: u32,
    /// UDP flows.
    pub udp_flows: u32,
    /// Backends, over all services.
    pub backends: u32,
    /// Services: address, port and protocol.
    pub services: u32,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// How lines look.
    pub format: LogFormat,
    /// A filter that [`crate::log::init`] accepts.
    pub filter: String,
}

// === impl PortRange ===

impl PortRange {
    /// Whether the port, host byte order, lies in it.
    pub fn contains(self, port: u16) -> bool {
        (self.min..=self.max).contains(&port)
    }

    /// Whether any port lies in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.min <= other.max && other.min <= self.max
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.min, self.max)
    }
}

// === impl AddrRange ===

impl<A: Ord> AddrRange<A> {
    /// Whether the address lies in it.
    pub fn contains(&self, addr: &A) -> bool {
        (&self.min..=&self.max).contains(&addr)
    }
}

impl<A: fmt::Display> fmt::Display for AddrRange<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.min, self.max)
    }
}

// === impl Dns ===

impl Dns {
    /// Every address to listen on, over UDP and TCP: those asked for, and the link address at port 53.
    pub fn sockets(&self) -> Vec<SocketAddr> {
        let mut all = self.listen.clone();
        if let Some(link) = self
            .link_address
            .map(|addr| SocketAddr::new(addr, super::DNS_PORT))
            && !all.contains(&link)
        {
            all.push(link);
        }
        all
    }
}

// === impl Paths ===

impl Paths {
    /// The admin socket.
    pub fn admin_socket(&self) -> PathBuf {
        self.run_dir.join(crate::admin::SOCKET_NAME)
    }
}
