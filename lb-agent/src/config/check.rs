//! Settings that belong together, and what must not stand together.

mod admin;
mod docker;
mod ecs;
mod more;

use std::{net::IpAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use crate::datapath::SENDERS;

pub(super) use self::{admin::admin, docker::docker, ecs::ecs, more::more_marathons};
use super::{
    Config, ConfigError, Dns, Etcd, Marathon, MarathonAuth, keys,
    keys::Key,
    parse,
    sources::{Sources, Surroundings},
};

/// Entries of one kernel table. The largest is what 256 bytes an entry can address in 32 GiB.
pub(super) const ENTRIES: RangeInclusive<u32> = 1..=(1 << 27);
/// Seconds between two full comparisons.
pub(super) const RESYNC_SECONDS: RangeInclusive<u32> = 1..=3600;

/// Seconds of silence on Marathon's event stream. Below the least, a heart-beat that came late would end it.
const STREAM_SECONDS: RangeInclusive<u32> = 30..=600;

/// Everything about the Marathon cluster.
pub(super) fn marathon(sources: &Sources<'_>) -> Result<Option<Marathon>, ConfigError> {
    let urls = sources.many(&keys::MARATHON, parse::marathon_url)?;
    if urls.is_empty() {
        let orphans = [
            &keys::MARATHON_FRAMEWORK,
            &keys::MARATHON_USER,
            &keys::MARATHON_PASSWORD_FILE,
            &keys::MARATHON_TOKEN_FILE,
            &keys::MARATHON_CREDENTIALS_FILE,
            &keys::MARATHON_CA_FILE,
            &keys::MARATHON_STREAM_TIMEOUT,
            &keys::MARATHON_GROUP,
            &keys::MARATHON_STRICT_MODE,
            &keys::MARATHON_SKIP,
        ];
        return match orphans.into_iter().find(|key| is_set(sources, key)) {
            Some(key) => Err(refuse(sources, key, "has no effect without --marathon")),
            None => Ok(None),
        };
    }
    let ca_file = sources.one(&keys::MARATHON_CA_FILE, parse::readable_file)?;
    if ca_file.is_some() && urls.iter().all(|url| url.scheme() == "http") {
        return Err(refuse(
            sources,
            &keys::MARATHON_CA_FILE,
            "has no effect: no --marathon URL begins with https://",
        ));
    }
    let framework = sources.one(&keys::MARATHON_FRAMEWORK, parse::word)?;
    let groups = sources.many(&keys::MARATHON_GROUP, parse::word)?;
    if groups.is_empty()
        && let Some(key) = [&keys::MARATHON_STRICT_MODE, &keys::MARATHON_SKIP]
            .into_iter()
            .find(|key| is_set(sources, key))
    {
        return Err(refuse(
            sources,
            key,
            "has no effect without --marathon-group",
        ));
    }
    let yes_or_no = parse::choice(&[(keys::YES, true), ("no", false)]);
    Ok(Some(Marathon {
        urls,
        framework,
        auth: marathon_auth(sources)?,
        ca_file,
        stream_timeout: Duration::from_secs(
            sources
                .preset(
                    &keys::MARATHON_STREAM_TIMEOUT,
                    parse::number(STREAM_SECONDS),
                )?
                .into(),
        ),
        groups,
        strict_mode: sources.preset(&keys::MARATHON_STRICT_MODE, yes_or_no)?,
        skipped: sources.many(&keys::MARATHON_SKIP, parse::app_id)?,
    }))
}

fn marathon_auth(sources: &Sources<'_>) -> Result<MarathonAuth, ConfigError> {
    let user = sources.one(&keys::MARATHON_USER, parse::word)?;
    let password_file = sources.one(&keys::MARATHON_PASSWORD_FILE, parse::readable_file)?;
    let token_file = sources.one(&keys::MARATHON_TOKEN_FILE, parse::readable_file)?;
    let credentials = &keys::MARATHON_CREDENTIALS_FILE;
    if let Some(credentials_file) = sources.one(credentials, parse::readable_file)? {
        if user.is_some() || password_file.is_some() || token_file.is_some() {
            let reason = "contradicts --marathon-user, --marathon-password-file and --marathon-token-file: log in with one \
                          of them";
            return Err(refuse(sources, credentials, reason));
        }
        return Ok(MarathonAuth::Login { credentials_file });
    }
    match (user, password_file, token_file) {
        (None, None, None) => Ok(MarathonAuth::Open),
        (Some(user), Some(password_file), None) => Ok(MarathonAuth::Basic {
            user,
            password_file,
        }),
        (None, None, Some(token_file)) => Ok(MarathonAuth::Token { token_file }),
        (Some(_), None, None) => Err(refuse(
            sources,
            &keys::MARATHON_USER,
            "needs --marathon-password-file beside it",
        )),
        (None, Some(_), None) => Err(refuse(
            sources,
            &keys::MARATHON_PASSWORD_FILE,
            "needs --marathon-user beside it",
        )),
        (_, _, Some(_)) => Err(refuse(
            sources,
            &keys::MARATHON_TOKEN_FILE,
            "contradicts --marathon-user and --marathon-password-file: log in with one or the other",
        )),
    }
}

/// This node's certificate and its key, both or none.
fn certificate(
    sources: &Sources<'_>,
    certificate: &'static Key,
    key: &'static Key,
) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
    let file = |key| sources.one(key, parse::readable_file);
    let needs = |one: &'static Key, other: &Key| {
        refuse(sources, one, format!("needs --{} beside it", other.name))
    };
    match (file(certificate)?, file(key)?) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (Some(_), None) => Err(needs(certificate, key)),
        (None, Some(_)) => Err(needs(key, certificate)),
    }
}

/// Everything about etcd.
pub(super) fn etcd(sources: &Sources<'_>) -> Result<Option<Etcd>, ConfigError> {
    let urls = sources.many(&keys::ETCD, parse::etcd_url)?;
    if urls.is_empty() {
        let orphans = [
            &keys::ETCD_PREFIX,
            &keys::ETCD_USER,
            &keys::ETCD_PASSWORD_FILE,
            &keys::ETCD_CA_FILE,
            &keys::ETCD_CERT_FILE,
            &keys::ETCD_KEY_FILE,
        ];
        return match orphans.into_iter().find(|key| is_set(sources, key)) {
            Some(key) => Err(refuse(sources, key, "has no effect without --etcd")),
            None => Ok(None),
        };
    }
    let file = |key| sources.one(key, parse::readable_file);
    let user = sources.one(&keys::ETCD_USER, parse::word)?;
    let login = match (user, file(&keys::ETCD_PASSWORD_FILE)?) {
        (None, None) => None,
        (Some(user), Some(password)) => Some((user, password)),
        (Some(_), None) => {
            let reason = "needs --etcd-password-file beside it";
            return Err(refuse(sources, &keys::ETCD_USER, reason));
        }
        (None, Some(_)) => {
            let reason = "needs --etcd-user beside it";
            return Err(refuse(sources, &keys::ETCD_PASSWORD_FILE, reason));
        }
    };
    let certificate = certificate(sources, &keys::ETCD_CERT_FILE, &keys::ETCD_KEY_FILE)?;
    let ca_file = file(&keys::ETCD_CA_FILE)?;
    for (key, given) in [
        (&keys::ETCD_CA_FILE, ca_file.is_some()),
        (&keys::ETCD_CERT_FILE, certificate.is_some()),
    ] {
        if given && urls.iter().all(|url| url.scheme() == "http") {
            let reason = "has no effect: no --etcd URL begins with https://";
            return Err(refuse(sources, key, reason));
        }
    }
    Ok(Some(Etcd {
        urls,
        prefix: sources.preset(&keys::ETCD_PREFIX, parse::etcd_prefix)?,
        login,
        ca_file,
        certificate,
    }))
}

/// The services file asked for, else the usual one if it is there or there is nothing else to read.
pub(super) fn services(
    sources: &Sources<'_>,
    around: &Surroundings,
    has_other: bool,
    warnings: &mut Vec<String>,
) -> Result<Option<PathBuf>, ConfigError> {
    if let Some(path) = sources.one(&keys::SERVICES, parse::readable)? {
        return Ok(Some(path));
    }
    if around.services.exists() {
        return Ok(Some(around.services.clone()));
    }
    if has_other {
        return Ok(None);
    }
    warnings.push(format!(
        "nothing to read services from: none of --marathon, --docker, --ecs, --etcd and --services is given, and {} does not exist yet",
        around.services.display()
    ));
    Ok(Some(around.services.clone()))
}

/// Everything about DNS.
pub(super) fn dns(sources: &Sources<'_>) -> Result<Option<Dns>, ConfigError> {
    let Some(listen) = sources
        .many_or_none(&keys::DNS_LISTEN, parse::listen)?
        .filter(|listen| !listen.is_empty())
    else {
        // What a weaker layer says about DNS is overridden; what the same layer says contradicts.
        let off = sources.get(&keys::DNS_LISTEN).place.strength();
        let others = [
            &keys::DNS_LINK_ADDRESS,
            &keys::DNS_UPSTREAM,
            &keys::DNS_ALLOW,
            &keys::DNS_DOMAIN,
            &keys::DNS_CLUSTER_KEY,
        ];
        return match others
            .into_iter()
            .find(|key| sources.get(key).place.strength() >= off)
        {
            Some(key) => Err(refuse(
                sources,
                key,
                "has no effect: --dns-listen none turns DNS off",
            )),
            None => Ok(None),
        };
    };
    let dns = Dns {
        listen,
        listen_by_default: !is_set(sources, &keys::DNS_LISTEN),
        link_address: sources.preset(&keys::DNS_LINK_ADDRESS, parse::link_address)?,
        upstreams: Some(sources.many(&keys::DNS_UPSTREAM, parse::upstream)?)
            .filter(|all| !all.is_empty()),
        allow: sources.many_or_none(&keys::DNS_ALLOW, parse::cidr)?,
        domains: sources.many(&keys::DNS_DOMAIN, parse::domain)?,
        cluster_key: sources.one(&keys::DNS_CLUSTER_KEY, parse::zbase32)?,
    };
    let own = dns.sockets();
    if let Some(looped) = dns
        .upstreams
        .iter()
        .flatten()
        .find(|upstream| own.contains(upstream))
    {
        let reason =
            format!("{looped} is where lb-agent itself listens: it would ask itself for ever");
        return Err(refuse(sources, &keys::DNS_UPSTREAM, reason));
    }
    Ok(Some(dns))
}

/// What one range must not share with another.
pub(super) fn ranges(config: &Config, sources: &Sources<'_>) -> Result<(), ConfigError> {
    let (snat, node) = (config.snat_ports, config.node_ports);
    if snat.overlaps(node) {
        let key = stronger(sources, &keys::SNAT_PORTS, &keys::NODE_PORTS);
        let reason = format!("the ranges --snat-ports {snat} and --node-ports {node} share ports");
        return Err(refuse(sources, key, reason));
    }
    let Some(dns) = &config.dns else {
        return Ok(());
    };
    for addr in dns
        .sockets()
        .into_iter()
        .chain(dns.upstreams.iter().flatten().copied())
    {
        let (key, pool) = match addr.ip() {
            IpAddr::V4(v4) if config.vip_pool_v4.contains(&v4) => {
                (&keys::VIP_POOL_V4, config.vip_pool_v4.to_string())
            }
            IpAddr::V6(v6) if config.vip_pool_v6.contains(&v6) => {
                (&keys::VIP_POOL_V6, config.vip_pool_v6.to_string())
            }
            _ => continue,
        };
        return Err(refuse(
            sources,
            key,
            format!("{pool} holds {}, which is used for DNS", addr.ip()),
        ));
    }
    Ok(())
}

/// Who needs peers, and what peers need.
pub(super) fn peers(config: &Config, sources: &Sources<'_>) -> Result<(), ConfigError> {
    if config.peers_in_etcd && config.etcd.is_none() {
        return Err(refuse(
            sources,
            &keys::PEERS,
            "`etcd` needs --etcd beside it",
        ));
    }
    if config.peers.is_empty() && !config.peers_in_etcd {
        return if config.dsr {
            Err(refuse(sources, &keys::DSR, "needs --peers beside it"))
        } else {
            Ok(())
        };
    }
    let port = lb_common::geneve::PORT;
    for (key, range) in [
        (&keys::SNAT_PORTS, config.snat_ports),
        (&keys::NODE_PORTS, config.node_ports),
    ] {
        if range.contains(port) {
            let reason = format!("{range} holds port {port}, by which peers send");
            return Err(refuse(sources, key, reason));
        }
    }
    let max = SENDERS as usize;
    for wide in [false, true] {
        let count = config
            .peers
            .iter()
            .filter(|addr| addr.is_ipv6() == wide)
            .count();
        if count > max {
            let reason = format!("{count} addresses of one family; {max} is the most");
            return Err(refuse(sources, &keys::PEERS, reason));
        }
    }
    Ok(())
}

fn is_set(sources: &Sources<'_>, key: &'static Key) -> bool {
    !sources.get(key).place.is_default()
}

fn refuse(sources: &Sources<'_>, key: &'static Key, reason: impl Into<String>) -> ConfigError {
    ConfigError::new(sources.get(key).place, reason)
}

/// Of two settings that collide, the one that somebody set.
fn stronger(sources: &Sources<'_>, one: &'static Key, other: &'static Key) -> &'static Key {
    if sources.get(other).place.strength() > sources.get(one).place.strength() {
        other
    } else {
        one
    }
}
