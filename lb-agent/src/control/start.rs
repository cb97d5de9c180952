//! Start-up: checks, loads, attaches, and starts every task of the agent.

use std::{collections::BTreeSet, fs, net::IpAddr, path::Path, process::ExitCode, sync::Arc};

use anyhow::{Context as _, Result, bail};
use arc_swap::ArcSwap;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    Control, Published, collector,
    made::Made,
    names::{open_dns, resolution, serve_dns},
    report::Fixed,
    wanted::{Node, hold, wanted},
};
use crate::{
    admin::{
        self, AdminSocket, Resolve,
        report::{AgentReport, DatapathReport, InterfaceReport, Timestamp},
    },
    catalog::{Catalog, Desired, Policy},
    config::{self, Config, MarathonAuth},
    datapath::{Datapath, DatapathConfig, Interface, Sizes, TcMode, XdpMode},
    dns,
    net::{LinkKind, Netlink, Routes, local_port_range, reserve_ports},
    plan::Planner,
    preflight,
    provider::{self, ProviderId, Update},
    vip::{AddressPool, Allocator, LeaseFile, Pools},
};

/// Updates that may wait for the control loop.
const UPDATES: usize = 64;
/// Addresses in the destination filter: VIPs of every service, and the node's own.
const NODE_ADDRESSES: u32 = 4_096;
/// Sockets whose peer is remembered.
const SOCKETS: u32 = 1 << 18;

/// Runs the agent until SIGTERM or SIGINT. What it put into the kernel stays and works on.
pub fn run(config: Config) -> ExitCode {
    match start(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(config: Config) -> Result<()> {
    let tc_mode = preflight::machine()?;
    let interfaces = preflight::interfaces(&config.interfaces)?;
    preflight::pin_dir(&config.paths.pin_dir)?;
    if let Some(path) = &config.paths.cgroup {
        preflight::cgroup(path)?;
    }
    let socket = AdminSocket::open(&config.paths.run_dir)?;
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
    let datapath = Datapath::load(DatapathConfig {
        pin_dir: config.paths.pin_dir.clone(),
        cgroup: cgroup.clone(),
        tx_by_redirect: interfaces.iter().any(veth),
        new_flows: config.new_flows,
        interfaces: interfaces.clone(),
        xdp_mode: xdp_mode(config.xdp_mode),
        tc_mode,
        sizes: sizes(&config),
    })?;
    runtime.block_on(serve(Parts {
        config,
        interfaces,
        tc_mode,
        socket,
        cgroup,
        lease_file,
        allocator,
        datapath,
    }))
}

/// What start-up made before the runtime.
struct Parts {
    config: Config,
    interfaces: Vec<Interface>,
    tc_mode: TcMode,
    socket: AdminSocket,
    cgroup: std::path::PathBuf,
    lease_file: LeaseFile,
    allocator: Allocator,
    datapath: Datapath,
}

async fn serve(parts: Parts) -> Result<()> {
    let Parts {
        config,
        interfaces,
        tc_mode,
        socket,
        cgroup,
        lease_file,
        allocator,
        mut datapath,
    } = parts;
    let stop = CancellationToken::new();
    let netlink = Netlink::open()?;
    change_node(&config, &netlink).await?;
    let topology = netlink.topology().await?;
    let node = Node {
        ifaces: config.interfaces.clone(),
        snat_ports: config.snat_ports,
        outside_allow: config.outside_allow.clone(),
    };
    let cluster_key = config
        .dns
        .as_ref()
        .and_then(|dns| dns.cluster_key.as_deref());
    let zones = dns::Zones::new(cluster_key)?;
    let published = Published {
        dns: Arc::new(ArcSwap::from_pointee(dns::Table::new(
            &zones,
            &Default::default(),
        ))),
        dns_allow: Arc::default(),
        dns_upstreams: Arc::default(),
        status: Arc::default(),
        census: Arc::default(),
    };
    let (updates, inbox) = mpsc::channel(UPDATES);
    let providers = start_providers(&config, &updates)?;
    let catalog = Catalog::new(providers);

    let dns = open_dns(&config)?;

    // The maps are brought up to date with this node before any program runs on them.
    {
        let have = datapath.kernel().state()?;
        let want = hold(
            wanted(&Desired::default(), &topology, &node),
            &have,
            &topology,
            &node,
        );
        let limits = datapath.limits();
        crate::plan::reconcile(datapath.kernel(), &want, &limits, &mut Planner::default())?;
    }
    datapath.attach()?;
    info!(
        interfaces = %config.interfaces.join(","), cgroup = %cgroup.display(),
        pins = %config.paths.pin_dir.display(), "attached"
    );

    let dns = dns.map(|(listen, sockets)| serve_dns(&config, listen, sockets, &published, &stop));
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
        dns,
        warnings: config.warnings.clone(),
    };
    start_admin(socket, &published, &stop);
    tokio::spawn(collector::run(
        datapath.flow_tables()?,
        Arc::clone(&published.census),
    ));
    let mut control = Control {
        pools: [allocator.pools().v4, allocator.pools().v6]
            .into_iter()
            .flatten()
            .flat_map(AddressPool::to_cidrs)
            .collect(),
        dns_allow: config.dns.as_ref().and_then(|dns| dns.allow.clone()),
        forbidden: forbidden(&config),
        policy: policy(&config),
        resync: config.resync,
        catalog,
        allocator,
        lease_file,
        zones,
        node,
        topology,
        datapath,
        routes: Routes::new(netlink.clone()),
        netlink,
        planner: Planner::default(),
        desired: Desired::default(),
        failures: Vec::new(),
        fill: Vec::new(),
        fixed,
        published,
    };
    control.reconcile().await;
    control.publish_report();
    // Not under systemd: nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        outcome = control.serve(inbox) => outcome?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!("stopping; traffic goes on in the kernel, `lb-agent purge` ends it");
    drop(updates);
    stop.cancel();
    Ok(())
}

/// What the node itself must be told: the DNS link address, and that nobody else uses the SNAT ports.
async fn change_node(config: &Config, netlink: &Netlink) -> Result<()> {
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
    match config.dns.as_ref().and_then(|dns| dns.link_address) {
        Some(IpAddr::V4(addr)) => {
            netlink
                .ensure_address(addr)
                .await
                .with_context(|| format!("cannot put {addr} on lo"))?;
        }
        Some(addr) => bail!("--dns-link-address {addr}: only an IPv4 address can be put on lo"),
        None => {}
    }
    if made != before {
        made.save(&config.paths.state_dir)?;
    }
    Ok(())
}

fn start_providers(config: &Config, updates: &mpsc::Sender<Update>) -> Result<Vec<ProviderId>> {
    let mut ids = Vec::new();
    if let Some(marathon) = &config.marathon {
        let mut settings = provider::marathon::MarathonConfig::new(marathon.urls.clone());
        settings.framework.clone_from(&marathon.framework);
        settings.ca_file.clone_from(&marathon.ca_file);
        settings.auth = auth(&marathon.auth)?;
        settings.timings.resync = config.resync;
        let name = marathon
            .framework
            .clone()
            .or_else(|| Some(marathon.urls.first()?.to_string()));
        let id = ProviderId::new("marathon", name.unwrap_or_default());
        ids.push(id.clone());
        let (tx, rx) = mpsc::channel(UPDATES);
        tokio::spawn(provider::marathon::run(settings, tx));
        tokio::spawn(forward(id, rx, updates.clone()));
    }
    if let Some(path) = &config.services {
        let id = ProviderId::new("file", path.display());
        ids.push(id.clone());
        let (tx, rx) = mpsc::channel(UPDATES);
        tokio::spawn(provider::file::run(Some(path.clone()), tx));
        tokio::spawn(forward(id, rx, updates.clone()));
    }
    Ok(ids)
}

/// Gives a provider's updates the name under which it is awaited.
async fn forward(id: ProviderId, mut from: mpsc::Receiver<Update>, to: mpsc::Sender<Update>) {
    while let Some(update) = from.recv().await {
        if to
            .send(Update {
                provider: id.clone(),
                ..update
            })
            .await
            .is_err()
        {
            return;
        }
    }
}

fn auth(auth: &MarathonAuth) -> Result<provider::marathon::Auth> {
    Ok(match auth {
        MarathonAuth::Open => provider::marathon::Auth::None,
        MarathonAuth::Basic {
            user,
            password_file,
        } => provider::marathon::Auth::Basic {
            user: user.clone(),
            password: first_line(password_file)?,
        },
        MarathonAuth::Token { token_file } => {
            provider::marathon::Auth::Token(first_line(token_file)?)
        }
    })
}

fn first_line(path: &Path) -> Result<String> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    match text.lines().next().map(str::trim) {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => bail!("the first line of {} is empty", path.display()),
    }
}

fn start_admin(socket: AdminSocket, published: &Published, stop: &CancellationToken) {
    let table = Arc::clone(&published.dns);
    let resolve: Resolve = Arc::new(move |name| resolution(&table.load(), name));
    let stop = stop.clone();
    let status = Arc::clone(&published.status);
    tokio::spawn(async move {
        let done = async move { stop.cancelled().await };
        if let Err(error) = admin::serve(socket, status, resolve, done).await {
            error!("the admin socket ended: {error}");
        }
    });
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
        forbidden: BTreeSet::new(),
        name_policy: match config.name_policy {
            config::NamePolicy::Any => crate::catalog::NamePolicy::Any,
            config::NamePolicy::AppPath => crate::catalog::NamePolicy::AppPath,
            config::NamePolicy::Owner => crate::catalog::NamePolicy::Owner,
        },
    }
}

/// Resolvers and orchestrators that are known by address.
fn forbidden(config: &Config) -> BTreeSet<IpAddr> {
    let marathon = config.marathon.iter().flat_map(|marathon| &marathon.urls);
    let marathon = marathon.filter_map(|url| url.host_str()?.trim_matches(['[', ']']).parse().ok());
    let dns = config.dns.iter();
    let dns = dns.flat_map(|dns| {
        dns.sockets()
            .into_iter()
            .chain(dns.upstreams.clone().unwrap_or_default())
    });
    marathon.chain(dns.map(|addr| addr.ip())).collect()
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
