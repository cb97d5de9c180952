//! Start-up: checks, loads, attaches, and starts every task of the agent.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use arc_swap::ArcSwap;
use tokio::{runtime::Runtime, sync::mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    Control, Published, UPDATES,
    beside::{self, Beside},
    claims::Agreement,
    external::Holders,
    hops::Hops,
    judges::Judges,
    look::{Counters, Looker, start_admin},
    made::Made,
    names::{link_address, open_dns, serve_dns},
    orchestrators::Foreign,
    owners::Owners,
    providers::start_providers,
    report::Fixed,
    signals::Signals,
    standing::Voices,
    wanted::{Node, hold, wanted},
    web::Web,
};
use crate::{
    admin::{
        AdminSocket, Alive,
        report::{AgentReport, DatapathReport, DnsReport, InterfaceReport, Timestamp},
    },
    catalog::{Catalog, Desired, Policy},
    config::{self, Config},
    datapath::{Datapath, DatapathConfig, Interface, Sizes, TcMode, XdpMode},
    dns,
    net::{LinkKind, Netlink, Routes, Topology, local_port_range, reserve_ports},
    plan::{self, Planner},
    preflight,
    provider::Update,
    vip::{AddressPool, Allocator, LeaseFile, Pools},
};

/// Addresses in the destination filter: VIPs of every service, and the node's own.
const NODE_ADDRESSES: u32 = 4_096;
/// Sockets whose peer is remembered.
const SOCKETS: u32 = 1 << 18;

/// Runs the agent until SIGTERM or SIGINT; `inherited` are the sockets that systemd passed. What it put into the
/// kernel stays and works on.
pub fn run(config: Config, inherited: dns::Inherited) -> ExitCode {
    let outcome = match start(config, inherited) {
        Ok((runtime, ready)) => runtime.block_on(ready.serve()),
        Err(error) => {
            // For whoever started it, whatever the log is made for. With standard error closed there is nobody.
            let _ = writeln!(io::stderr(), "lb-agent: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Everything up to the moment from which the agent serves.
fn start(config: Config, inherited: dns::Inherited) -> Result<(Runtime, Ready)> {
    let tc_mode = preflight::machine()?;
    let interfaces = preflight::interfaces(&config.interfaces)?;
    preflight::pin_dir(&config.paths.pin_dir)?;
    if let Some(path) = &config.paths.cgroup {
        preflight::cgroup(path)?;
    }
    let socket = AdminSocket::open(&config.paths.run_dir)?;
    let web = Web::open(&config)?;
    let cgroup = match &config.paths.cgroup {
        Some(path) => path.clone(),
        None => preflight::cgroup_root(&config.paths.run_dir)?,
    };
    let lease_file = LeaseFile::in_dir(&config.paths.state_dir);
    let allocator = Allocator::new(pools(&config)?, lease_file.load()?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let topology = runtime.block_on(async { Netlink::open()?.topology().await })?;
    let veth = |iface: &Interface| {
        topology
            .links
            .get(&iface.index)
            .is_some_and(|link| link.kind == LinkKind::Pair)
    };
    let pin_dir = config.paths.pin_dir.clone();
    let datapath_config = DatapathConfig {
        pin_dir: pin_dir.clone(),
        cgroup: cgroup.clone(),
        tx_by_redirect: config.xdp_mode == config::XdpMode::Generic || interfaces.iter().any(veth),
        new_flows: config.new_flows,
        interfaces: interfaces.clone(),
        xdp_mode: xdp_mode(config.xdp_mode),
        tc_mode,
        sizes: sizes(&config),
    };
    let ready = Datapath::load(datapath_config).and_then(|datapath| {
        runtime.block_on(set_up(Parts {
            config,
            inherited,
            interfaces,
            tc_mode,
            socket,
            web,
            cgroup,
            lease_file,
            allocator,
            datapath,
        }))
    });
    match ready {
        Ok(ready) => Ok((runtime, ready)),
        Err(error) if pin_dir.exists() => bail!(
            "{error:#} (kernel maps stay pinned in {}; `lb-agent purge` removes them)",
            pin_dir.display()
        ),
        Err(error) => Err(error),
    }
}

/// What start-up made before the runtime.
struct Parts {
    config: Config,
    inherited: dns::Inherited,
    interfaces: Vec<Interface>,
    tc_mode: TcMode,
    socket: AdminSocket,
    web: Web,
    cgroup: std::path::PathBuf,
    lease_file: LeaseFile,
    allocator: Allocator,
    datapath: Datapath,
}

/// An agent that is up, and what ends with it.
struct Ready {
    control: Control,
    inbox: mpsc::Receiver<Update>,
    /// Kept so that the inbox does not end where there is no provider.
    updates: mpsc::Sender<Update>,
    stop: CancellationToken,
    signals: Signals,
}

async fn set_up(parts: Parts) -> Result<Ready> {
    let Parts {
        config,
        inherited,
        interfaces,
        tc_mode,
        socket,
        web,
        cgroup,
        lease_file,
        mut allocator,
        mut datapath,
    } = parts;
    let stop = CancellationToken::new();
    let netlink = Netlink::open()?;
    let link_address = link_address(&config)?;
    change_node(&config, link_address, &netlink).await?;
    let topology = netlink.topology().await?;
    let mut node = Node {
        ifaces: config.interfaces.clone(),
        snat_ports: config.snat_ports,
        node_ports: config.node_ports,
        outside_allow: config.outside_allow.clone(),
        zone: config.zone.clone(),
        peers: config.peers.iter().copied().collect(),
        dsr: config.dsr,
    };
    let zones = match &config.dns {
        Some(dns) => dns::Zones::new(dns.cluster_key.as_deref(), &dns.domains)?,
        None => dns::Zones::new(None, &[])?,
    };
    let zones = match &config.docker {
        Some(docker) => zones.with_space(&docker.framework),
        None => zones,
    };
    let published = Published {
        dns: Arc::new(ArcSwap::from_pointee(dns::Table::new(
            &zones,
            &Default::default(),
            Default::default(),
        ))),
        dns_allow: Arc::default(),
        dns_upstreams: Arc::default(),
        status: Arc::default(),
        census: Arc::default(),
        leaving: Arc::default(),
        suspects: Arc::default(),
        events: Default::default(),
        alive: Arc::new(Alive::new(config.resync)),
    };
    let (updates, inbox) = mpsc::channel(UPDATES);
    let (again, reached) = (&published.alive.again, reached_at(&config, &topology));
    let (providers, claims) = start_providers(&config, reached, &updates, again)?;
    let catalog = Catalog::new(providers);
    let named = config.peers_in_etcd.then(|| node.peers.clone());
    let mut agreement = Agreement::new(claims).with_peers(named);
    agreement.begin(&mut allocator).await;

    let dns = open_dns(&config, inherited)?;

    let ports = datapath.ports();
    let mut planner = Planner::default();
    let have = planner.state(datapath.kernel())?.clone();
    node.peers = agreement.peers_at_start(node.peers, &have.peers);
    let mut hops = Hops::adopt(&mut datapath, have.node.route_epoch, &ports)?;
    hops.follow(&topology);
    hops.know(&netlink.neighbours().await?);

    // The maps are brought up to date with this node before any program runs on them.
    let adopted: BTreeSet<_> = have.services.keys().copied().collect();
    let owners = Owners::load(&config.paths.state_dir, &have);
    let holders = Holders::load(&config.paths.state_dir);
    let mut reach = hops.reach(&topology, &node.ifaces);
    let (nothing, voices) = (Desired::default(), Voices::default());
    let nothing_yet = wanted(&nothing, &topology, &node, &voices, &mut reach);
    let mut want = hold(nothing_yet, &have, &adopted, &node, reach);
    want.node.route_epoch = hops.epoch();
    hops.write(&mut datapath)?;
    let limits = datapath.limits();
    plan::reconcile(datapath.kernel(), &want, &limits, &mut planner)?;
    if !adopted.is_empty() {
        info!(
            "adopted {} services of an agent that ran before",
            adopted.len()
        );
    }
    datapath.attach()?;
    // Not before: a start that fails says why and nothing else.
    for warning in &config.warnings {
        warn!("{warning}");
    }
    if !ports.is_empty() {
        preflight::warn_of_slow_replies(&topology, &config.interfaces);
    }
    info!(
        interfaces = %config.interfaces.join(","), cgroup = %cgroup.display(),
        pins = %config.paths.pin_dir.display(), "attached"
    );

    let (mut judges, orders) = Judges::start(&config, &have, &stop)?;
    judges.since.events = published.events.clone();
    let fixed = Fixed {
        agent: AgentReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            node: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            started: Timestamp::now(),
            now: Timestamp::default(),
        },
        interfaces: interfaces
            .iter()
            .map(|iface| interface_report(iface, config.xdp_mode, tc_mode))
            .collect(),
        datapath: DatapathReport {
            cgroup: Some(cgroup),
            pin_dir: Some(config.paths.pin_dir.clone()),
            ..DatapathReport::default()
        },
        dns: dns.as_ref().map(|(listen, _)| DnsReport {
            listen: listen.clone(),
            ..DnsReport::default()
        }),
        warnings: config.warnings.clone(),
    };
    let looker = Looker::new(
        datapath.flow_tables()?,
        datapath.explainer(),
        datapath.tracer()?,
    );
    let counters = Counters {
        stats: datapath.stats()?,
        checks: judges.latests(),
    };
    start_admin(socket, web, &published, counters, looker, orders, &stop)?;
    let signals = Signals::catch(again.clone())?;
    let Beside { changed, resets } =
        beside::start(&datapath, &published, judges.latests(), config.snat_ports)?;
    let mut control = Control {
        resets,
        pools: [allocator.pools().v4, allocator.pools().v6]
            .into_iter()
            .flatten()
            .flat_map(AddressPool::to_cidrs)
            .collect(),
        dns_allow: config.dns.as_ref().and_then(|dns| dns.allow.clone()),
        link_address,
        foreign: Foreign::start(&config).await,
        policy: policy(&config),
        resync: config.resync,
        asked: again.listen(),
        catalog,
        allocator,
        agreement,
        lease_file,
        zones,
        node,
        topology,
        datapath,
        hops,
        ports,
        routes: Routes::new(netlink.clone()),
        netlink,
        planner,
        desired: Desired::default(),
        owners,
        holders,
        judges,
        adopted,
        failures: Vec::new(),
        services: Arc::default(),
        changed,
        fill: Vec::new(),
        comparing: false,
        fixed,
        published,
    };
    control.reconcile().await;
    control.publish_report();
    // Only now does DNS know names and clients: queries may be waiting in sockets that outlived the last agent.
    if let Some((listen, sockets)) = dns {
        serve_dns(&config, listen, sockets, &control.published, &stop);
    }
    Ok(Ready {
        control,
        inbox,
        updates,
        stop,
        signals,
    })
}

// === impl Ready ===

impl Ready {
    async fn serve(self) -> Result<()> {
        let Self {
            control,
            inbox,
            updates,
            stop,
            signals,
        } = self;
        // Not under systemd: nobody to tell.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        tokio::select! {
            outcome = control.serve(inbox) => outcome?,
            () = signals.stop() => {}
        }
        info!("stopping; traffic goes on in the kernel, `lb-agent purge` ends it");
        drop(updates);
        stop.cancel();
        Ok(())
    }
}

/// What the node itself must be told: the DNS link address, and that nobody else is given the SNAT ports, or ports of
/// services.
async fn change_node(
    config: &Config,
    link_address: Option<Ipv4Addr>,
    netlink: &Netlink,
) -> Result<()> {
    let mut made = Made::load(&config.paths.state_dir)?;
    let before = made.clone();
    let (low, high) = local_port_range().context("cannot read ip_local_port_range")?;
    let snat = config.snat_ports;
    if (snat.min..=snat.max).contains(&low) || (low..=high).contains(&snat.min) {
        warn!(
            "--snat-ports {snat} lies within ip_local_port_range {low}-{high}; the ports are reserved"
        );
    }
    if let Some(previous) =
        reserve_ports(snat.min, snat.max).context("cannot reserve the SNAT ports")?
    {
        made.reserved_ports_before.get_or_insert(previous);
    }
    let node = config.node_ports;
    if (node.min..=node.max).contains(&low) || (low..=high).contains(&node.min) {
        // The answers to a socket with such a port would be taken for packets to a service.
        warn!(
            "--node-ports {node} lies within ip_local_port_range {low}-{high}; the ports are reserved"
        );
        if let Some(previous) =
            reserve_ports(node.min, node.max).context("cannot reserve the node's ports")?
        {
            made.reserved_ports_before.get_or_insert(previous);
        }
    }
    if let Some(addr) = link_address {
        netlink.ensure_address(addr).await?;
    }
    if made != before {
        made.save(&config.paths.state_dir)?;
    }
    Ok(())
}

fn interface_report(iface: &Interface, mode: config::XdpMode, tc: TcMode) -> InterfaceReport {
    let xdp = match mode {
        config::XdpMode::Native => Some("xdp native"),
        config::XdpMode::Generic => Some("xdp generic"),
        config::XdpMode::Off => None,
    };
    let tc = match tc {
        TcMode::Tcx => ["tcx ingress", "tcx egress"],
        TcMode::Clsact => ["clsact ingress", "clsact egress"],
    };
    InterfaceReport {
        name: iface.name.clone(),
        index: iface.index,
        attached: xdp.into_iter().chain(tc).map(str::to_owned).collect(),
    }
}

fn pools(config: &Config) -> Result<Pools> {
    let (v4, v6) = (&config.vip_pool_v4, &config.vip_pool_v6);
    Ok(Pools {
        v4: Some(AddressPool::new(IpAddr::V4(v4.min), IpAddr::V4(v4.max))?),
        v6: Some(AddressPool::new(IpAddr::V6(v6.min), IpAddr::V6(v6.max))?),
    })
}

fn policy(config: &Config) -> Policy {
    Policy {
        ip_vips: config.ip_vips.clone(),
        groups: config
            .groups
            .iter()
            .map(|group| group.as_str().into())
            .collect(),
        forbidden: BTreeSet::new(),
        name_policy: match config.name_policy {
            config::NamePolicy::Any => crate::catalog::NamePolicy::Any,
            config::NamePolicy::AppPath => crate::catalog::NamePolicy::AppPath,
            config::NamePolicy::Owner => crate::catalog::NamePolicy::Owner,
        },
    }
}

/// Where what runs in the node's own network is reached: at the addresses with which the node itself sends by the first
/// interface that has any.
fn reached_at(config: &Config, topology: &Topology) -> Vec<IpAddr> {
    let mut addresses = config.interfaces.iter().map(|iface| {
        let (v4, v6) = topology.snat(iface);
        let both = v4.map(IpAddr::from).into_iter().chain(v6.map(IpAddr::from));
        both.collect::<Vec<_>>()
    });
    addresses
        .find(|found| !found.is_empty())
        .unwrap_or_default()
}

fn xdp_mode(mode: config::XdpMode) -> XdpMode {
    match mode {
        config::XdpMode::Native => XdpMode::Native,
        config::XdpMode::Generic => XdpMode::Generic,
        config::XdpMode::Off => XdpMode::Off,
    }
}

fn sizes(config: &Config) -> Sizes {
    let sizes = &config.sizes;
    Sizes {
        tcp_flows: sizes.flows,
        half_open_flows: sizes.half_open_flows,
        udp_flows: sizes.udp_flows,
        backends: sizes.backends,
        services: sizes.services,
        addresses: sizes.services.saturating_add(NODE_ADDRESSES),
        sockets: SOCKETS,
    }
}
