//! Every setting of the agent, once: its name, default and help.
//!
//! A setting `some-name` is the flag `--some-name`, the key `some-name` of the config file and the
//! environment variable `LB_AGENT_SOME_NAME`; all three, `--help` and the README's table come from here.

mod admin;
mod docker;
mod ecs;
mod etcd;
mod health;
mod marathon;

pub(crate) use self::{admin::*, docker::*, ecs::*, etcd::*, health::*, marathon::*};

/// One setting.
#[derive(Debug)]
pub(crate) struct Key {
    /// In lower case with dashes.
    pub(crate) name: &'static str,
    /// What stands for its value in `--help`.
    pub(crate) value: &'static str,
    /// May be given several times, or once with commas.
    pub(crate) many: bool,
    /// Its values hold commas and blanks: of the environment, each is a line.
    pub(crate) lines: bool,
    /// The flag alone says `yes`.
    pub(crate) switch: bool,
    /// Accepted after a subcommand too.
    pub(crate) global: bool,
    /// May stand in the config file.
    pub(crate) in_file: bool,
    /// The heading it stands under in `--help`.
    pub(crate) group: &'static str,
    /// What holds when nobody sets it.
    pub(crate) default: Preset,
    /// One or two sentences for a newcomer.
    pub(crate) help: &'static str,
}

/// What holds for a setting that nobody set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preset {
    /// Nothing.
    Unset,
    /// This text, read exactly as if it had been given.
    Text(&'static str),
    /// Something that only the running system knows, in words.
    Words(&'static str),
}

const fn one(
    group: &'static str,
    name: &'static str,
    value: &'static str,
    help: &'static str,
) -> Key {
    Key {
        name,
        value,
        many: false,
        lines: false,
        switch: false,
        global: false,
        in_file: true,
        group,
        default: Preset::Unset,
        help,
    }
}

const fn many(
    group: &'static str,
    name: &'static str,
    value: &'static str,
    help: &'static str,
) -> Key {
    Key {
        many: true,
        ..one(group, name, value, help)
    }
}

const fn switch(group: &'static str, name: &'static str, help: &'static str) -> Key {
    Key {
        switch: true,
        ..one(group, name, "YES/NO", help)
    }
    .preset("no")
}

impl Key {
    const fn preset(self, text: &'static str) -> Self {
        Self {
            default: Preset::Text(text),
            ..self
        }
    }

    const fn words(self, words: &'static str) -> Self {
        Self {
            default: Preset::Words(words),
            ..self
        }
    }

    const fn global(self) -> Self {
        Self {
            global: true,
            ..self
        }
    }

    const fn not_in_file(self) -> Self {
        Self {
            in_file: false,
            ..self
        }
    }

    /// The environment variable: `LB_AGENT_DNS_LISTEN` for `dns-listen`.
    pub(crate) fn env(&self) -> String {
        format!(
            "{ENV_PREFIX}{}",
            self.name.to_ascii_uppercase().replace('-', "_")
        )
    }
}

/// What the environment variables of the agent begin with.
pub(crate) const ENV_PREFIX: &str = "LB_AGENT_";
/// What a switch says.
pub(crate) const YES: &str = "yes";
/// Read when it exists and `--config` names no other.
pub(crate) const DEFAULT_CONFIG: &str = "/etc/lb-agent/config.toml";
/// Read when it exists, or when there is no other source of services.
pub(crate) const DEFAULT_SERVICES: &str = "/etc/lb-agent/services.yaml";

const INTERFACES: &str = "Interfaces";
const SERVICES_: &str = "Services";
const DNS: &str = "DNS";
const ADDRESSES: &str = "Addresses";
const SAFETY: &str = "Safety";
const ADMIN: &str = "Statistics";
const PATHS: &str = "Paths";
const TUNING: &str = "Tuning";
const LOGGING: &str = "Logging";

pub(crate) const IFACE: Key = many(
    INTERFACES,
    "iface",
    "NAME",
    "Network interface on which clients from outside reach this node, such as eth0; also a bridge or tap with virtual \
     machines behind it. Without any, only processes and containers of this node are served",
);
pub(crate) const XDP_MODE: Key = one(
    INTERFACES,
    "xdp-mode",
    "MODE",
    "How to attach to the interfaces: `native` (in the driver, fastest), `generic` (works with every driver, slower) or \
     `off` (tc programs only)",
)
.preset("native");

pub(crate) const SERVICES: Key = one(
    SERVICES_,
    "services",
    "PATH",
    "YAML file that lists services by hand, or a directory of such files that end in .yaml; watched, changes take effect at \
     once. Works alone or beside Marathon and Docker",
)
.words("/etc/lb-agent/services.yaml, if it exists or nothing else is given");

pub(crate) const GROUP: Key = many(
    SERVICES_,
    "group",
    "NAME",
    "Groups that this agent is in: it serves what a label `lb.group` of Docker, ECS or Marathon, or the key `group` of a \
     services file, gives to one of them, and all that says nothing of groups; `*` for every group",
);
pub(crate) const ZONE: Key = one(
    SERVICES_,
    "zone",
    "NAME",
    "Zone that this node is in: backends of the same zone are used while one of them takes new connections, else all",
);

pub(crate) const PEERS: Key = many(
    SERVICES_,
    "peers",
    "ADDR",
    "Addresses of the other nodes that run lb-agent, each that with which it sends by --iface; `etcd` stands for all nodes \
     that say so, too, and share its --etcd. Packets from them for backends of this node are taken; UDP port 6081 between \
     nodes must be closed to all others",
);
pub(crate) const DSR: Key = switch(
    SERVICES_,
    "dsr",
    "Let backends on peers answer clients directly (mode `auto` sends to them by Geneve instead of by full NAT). The \
     fabric must let the nodes send with the VIPs as source, and packets between nodes may be 80 bytes longer",
);

pub(crate) const DNS_LISTEN: Key = many(
    DNS,
    "dns-listen",
    "ADDR:PORT",
    "Where to answer DNS queries, over UDP and TCP; `none` turns DNS off. Name each address: 0.0.0.0 and [::] are refused",
)
.preset("127.0.0.1:53,[::1]:53");
pub(crate) const DNS_LINK_ADDRESS: Key = one(
    DNS,
    "dns-link-address",
    "ADDR",
    "Address put on the loopback interface for containers, which cannot reach the node's 127.0.0.1; DNS answers there on \
     port 53. `none` for none",
)
.preset("169.254.53.53");
pub(crate) const DNS_UPSTREAM: Key = many(
    DNS,
    "dns-upstream",
    "ADDR[:PORT]",
    "Resolver that names outside the VIP zone are forwarded to, in this order",
)
.words("the name servers of /etc/resolv.conf");
pub(crate) const DNS_ALLOW: Key = many(
    DNS,
    "dns-allow",
    "CIDR",
    "Clients that get an answer; all others are refused. `none` leaves only loopback",
)
.words("loopback and the prefixes of this node's interfaces");
pub(crate) const DNS_DOMAIN: Key = many(
    DNS,
    "dns-domain",
    "DOMAIN",
    "Domain in which the names that services ask for (VIRTUAL_HOST, lb.vip, HAPROXY_n_VHOST), and those of load balancers \
     of ECS, are answered with their VIPs; its other names are forwarded",
);
pub(crate) const DNS_CLUSTER_KEY: Key = one(
    DNS,
    "dns-cluster-key",
    "KEY",
    "The DC/OS cluster's public key in zbase32; turns on the alias zone l4lb.KEY.dcos.directory",
);

pub(crate) const VIP_POOL_V4: Key = one(
    ADDRESSES,
    "vip-pool-v4",
    "MIN-MAX",
    "IPv4 addresses to give to names. Must be the same on every node; another MAX moves every new address",
)
.preset("11.0.0.0-11.255.255.255");
pub(crate) const VIP_POOL_V6: Key = one(
    ADDRESSES,
    "vip-pool-v6",
    "MIN-MAX",
    "IPv6 addresses to give to names. Must be the same on every node",
)
.preset("fd01:c::-fd01:c::ffff:ffff:ffff:ffff");
pub(crate) const SNAT_PORTS: Key = one(
    ADDRESSES,
    "snat-ports",
    "MIN-MAX",
    "Source ports for traffic carried on to a host without an agent; must lie outside net.ipv4.ip_local_port_range",
)
.preset("61001-65535");

pub(crate) const IP_VIPS: Key = many(
    SAFETY,
    "ip-vips",
    "CIDR",
    "Where labels may claim a literal address as VIP. Without it every such label is refused, since it could take over \
     anybody's traffic",
);
pub(crate) const NODE_PORTS: Key = one(
    SAFETY,
    "node-ports",
    "MIN-MAX",
    "Ports on this node's own addresses that labels may claim",
)
.preset("10000-20000");
pub(crate) const OUTSIDE_ALLOW: Key = many(
    SAFETY,
    "outside-allow",
    "CIDR",
    "Clients beyond this node that may use VIPs. `none` keeps VIPs to this node",
)
.words("the prefixes of this node's interfaces");
pub(crate) const NAME_POLICY: Key = one(
    SAFETY,
    "name-policy",
    "POLICY",
    "Who may use which VIP name: `any` app any name; `app-path` only names that begin with the app's own path; `owner` a \
     name belongs to the first app that used it",
)
.preset("any");

pub(crate) const CONFIG: Key = one(
    PATHS,
    "config",
    "FILE",
    "TOML file with any of these settings; flags win over it",
)
.words("/etc/lb-agent/config.toml, if it exists")
.global()
.not_in_file();
pub(crate) const RUN_DIR: Key = one(
    PATHS,
    "run-dir",
    "DIR",
    "Where the running agent keeps admin.sock and its lock; `status` and `resolve` look there",
)
.preset("/run/lb-agent")
.global();
pub(crate) const STATE_DIR: Key = one(
    PATHS,
    "state-dir",
    "DIR",
    "Where the addresses given to names outlive a restart",
)
.preset("/var/lib/lb-agent")
.global();
pub(crate) const PIN_DIR: Key = one(
    PATHS,
    "pin-dir",
    "DIR",
    "Where the kernel programs and tables are pinned, so that traffic flows on without the agent; must be on a bpf file \
     system",
)
.preset("/sys/fs/bpf/lb-agent")
.global();
pub(crate) const CGROUP: Key = one(
    PATHS,
    "cgroup",
    "DIR",
    "The cgroup v2 directory whose processes are served; narrow it to serve only a part of the node",
)
.words("the root of the cgroup v2 tree")
.global();

pub(crate) const FLOWS: Key = one(
    TUNING,
    "flows",
    "N",
    "TCP flows remembered; more cost memory and, when used, speed",
)
.preset("1048576");
pub(crate) const HALF_OPEN_FLOWS: Key = one(
    TUNING,
    "half-open-flows",
    "N",
    "TCP connections remembered between the client's first packet and its second; a flood of SYNs fills no more than this",
)
.preset("131072");
pub(crate) const NEW_FLOWS: Key = one(
    TUNING,
    "new-flows",
    "N",
    "New connections and UDP flows a second that each CPU opens for clients from outside; more are dropped, so that a \
     flood does not starve those that are served, or sent on without a flow under direct server return by hash; 0 for no \
     limit",
)
.preset("100000");
pub(crate) const UDP_FLOWS: Key =
    one(TUNING, "udp-flows", "N", "UDP flows remembered").preset("262144");
pub(crate) const MAX_BACKENDS: Key = one(
    TUNING,
    "max-backends",
    "N",
    "Backends that the kernel tables have room for",
)
.preset("65536");
pub(crate) const MAX_SERVICES: Key = one(
    TUNING,
    "max-services",
    "N",
    "Services (address, port and protocol) that the kernel tables have room for",
)
.preset("16384");
pub(crate) const RESYNC: Key = one(
    TUNING,
    "resync",
    "SECONDS",
    "How often everything is read and compared again, even if nothing seems to have changed; all of Marathon every other \
     time, and the kernel more rarely where that would take more than a 250th of the time",
)
.preset("30");

pub(crate) const LOG: Key = one(
    LOGGING,
    "log",
    "FILTER",
    "What to log: error, warn, info, debug or trace, also by module, such as info,lb_agent::dns=debug",
)
.preset("info");
pub(crate) const LOG_FORMAT: Key = one(
    LOGGING,
    "log-format",
    "FORMAT",
    "`text` for people, `json` for machines, `journald` for its fields, `auto` the journal under systemd, text on a \
     terminal, else json",
)
.preset("auto");

pub(crate) const SYSLOG: Key = one(
    LOGGING,
    "syslog",
    "ADDR[:PORT]",
    "Syslog server that is told over UDP of backends that go down, come up or drain, in HAProxy's words",
);

/// All settings, in the order of `--help`.
pub(crate) const KEYS: &[&Key] = &[
    &IFACE,
    &XDP_MODE,
    &MARATHON,
    &MARATHON_MORE,
    &MARATHON_FRAMEWORK,
    &MARATHON_USER,
    &MARATHON_PASSWORD_FILE,
    &MARATHON_TOKEN_FILE,
    &MARATHON_CREDENTIALS_FILE,
    &MARATHON_CA_FILE,
    &MARATHON_STREAM_TIMEOUT,
    &MARATHON_GROUP,
    &MARATHON_STRICT_MODE,
    &MARATHON_SKIP,
    &DOCKER,
    &DOCKER_FRAMEWORK,
    &DOCKER_EXPOSE,
    &DOCKER_SERVICES,
    &DOCKER_NETWORKS,
    &DOCKER_CA_FILE,
    &DOCKER_CERT_FILE,
    &DOCKER_KEY_FILE,
    &DOCKER_POLL,
    &DOCKER_OVERLAY_REACHABLE,
    &DOCKER_DRAIN,
    &DOCKER_COMPAT,
    &ETCD,
    &ETCD_PREFIX,
    &ETCD_USER,
    &ETCD_PASSWORD_FILE,
    &ETCD_CA_FILE,
    &ETCD_CERT_FILE,
    &ETCD_KEY_FILE,
    &ECS,
    &ECS_REGION,
    &ECS_ENDPOINT,
    &ECS_POLL,
    &ECS_EVENTS,
    &ECS_HOSTS,
    &SERVICES,
    &GROUP,
    &ZONE,
    &PEERS,
    &DSR,
    &DNS_LISTEN,
    &DNS_LINK_ADDRESS,
    &DNS_UPSTREAM,
    &DNS_ALLOW,
    &DNS_DOMAIN,
    &DNS_CLUSTER_KEY,
    &VIP_POOL_V4,
    &VIP_POOL_V6,
    &SNAT_PORTS,
    &IP_VIPS,
    &NODE_PORTS,
    &OUTSIDE_ALLOW,
    &NAME_POLICY,
    &ADMIN_LISTEN,
    &ADMIN_TOKEN_FILE,
    &ADMIN_USERS_FILE,
    &ADMIN_READ_AUTH,
    &ADMIN_HEALTH_PATH,
    &ADMIN_HOSTS,
    &ADMIN_TLS_CERT,
    &ADMIN_TLS_KEY,
    &STATS_SOCKET,
    &CONFIG,
    &RUN_DIR,
    &STATE_DIR,
    &PIN_DIR,
    &CGROUP,
    &FLOWS,
    &HALF_OPEN_FLOWS,
    &UDP_FLOWS,
    &NEW_FLOWS,
    &MAX_BACKENDS,
    &MAX_SERVICES,
    &CHECKS,
    &RESYNC,
    &LOG,
    &LOG_FORMAT,
    &SYSLOG,
];

/// The setting of that name.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().copied().find(|key| key.name == name)
}
