//! DNS as the agent runs it: where it listens, whom it asks, and what `resolve` says of a name.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::{Result, bail};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::Published;
use crate::{
    admin::report::{BackendState, Resolution, ServiceReport},
    config::Config,
    dns::{self, DnsConfig, Lookup},
};

/// Where containers ask for names.
pub(super) fn link_address(config: &Config) -> Result<Option<Ipv4Addr>> {
    match config.dns.as_ref().and_then(|dns| dns.link_address) {
        Some(IpAddr::V4(addr)) => Ok(Some(addr)),
        Some(addr) => bail!("--dns-link-address {addr}: only an IPv4 address can be put on lo"),
        None => Ok(None),
    }
}

/// Takes the addresses before anything is attached: a port that another program holds ends the start.
pub(super) fn open_dns(
    config: &Config,
    inherited: dns::Inherited,
) -> Result<Option<(Vec<SocketAddr>, dns::Sockets)>> {
    let Some(settings) = &config.dns else {
        // Says of each inherited socket that nobody answers there.
        dns::Sockets::open(&[], inherited)?;
        return Ok(None);
    };
    let wanted: Vec<SocketAddr> = settings.sockets();
    let listen = if settings.listen_by_default {
        usable(wanted, &inherited)?
    } else {
        wanted
    };
    let sockets = dns::Sockets::open(&listen, inherited)?;
    Ok(Some((listen, sockets)))
}

/// Starts to answer; what is asked upstream is noted in `published`.
pub(super) fn serve_dns(
    config: &Config,
    listen: Vec<SocketAddr>,
    sockets: dns::Sockets,
    published: &Published,
    stop: &CancellationToken,
) {
    let given = config.dns.as_ref().and_then(|dns| dns.upstreams.clone());
    let dns_config = DnsConfig {
        listen,
        upstreams: given.unwrap_or_default(),
        asked: Arc::clone(&published.dns_upstreams),
        allow: Arc::clone(&published.dns_allow),
        ..DnsConfig::default()
    };
    let table = Arc::clone(&published.dns);
    let stop = stop.clone();
    tokio::spawn(async move {
        if let Err(error) = dns::serve(sockets, dns_config, table, stop.cancelled_owned()).await {
            error!("DNS ended: {error:#}");
        }
    });
}

/// Of addresses that nobody asked for, those that this node has (`::1` is missing without IPv6).
fn usable(addresses: Vec<SocketAddr>, inherited: &dns::Inherited) -> Result<Vec<SocketAddr>> {
    let mut failed = None;
    let mut usable = Vec::new();
    for addr in addresses {
        if inherited.has(addr) {
            usable.push(addr);
            continue;
        }
        match dns::Sockets::bind(&[addr]) {
            Ok(_closed_again) => usable.push(addr),
            Err(error) => {
                warn!("{error:#}");
                failed = Some(error);
            }
        }
    }
    match failed {
        Some(error) if usable.is_empty() => Err(error.context(
            "DNS can listen nowhere; --dns-listen names another address, --dns-listen none turns it off",
        )),
        _ => Ok(usable),
    }
}

/// Who is behind each name, for the names below it.
pub(super) fn instances(services: &[ServiceReport]) -> HashMap<Box<str>, Vec<dns::Instance>> {
    let mut all = HashMap::<Box<str>, Vec<dns::Instance>>::new();
    for service in services {
        let Some(name) = &service.name else { continue };
        let of_name = all.entry(name.as_str().into()).or_default();
        of_name.extend(service.backends.iter().map(|backend| dns::Instance {
            addr: backend.addr,
            port: service.port.get(),
            protocol: service.protocol,
            weight: backend.weight,
            ready: backend.state == BackendState::Active && backend.weight > 0,
            label: dns::Instance::label(backend.instance.as_deref(), backend.addr.ip()),
        }));
    }
    all
}

/// What DNS would answer.
pub(super) fn resolution(table: &dns::Table, name: &str) -> Resolution {
    let found = match dns::lookup(table, name) {
        Lookup::Found(found) => found,
        Lookup::Missing(fqdn) => {
            return Resolution {
                name: format!("{fqdn}."),
                code: "NXDOMAIN".to_owned(),
                authoritative: true,
                ttl: dns::NEGATIVE_TTL,
                ..Resolution::default()
            };
        }
        Lookup::Outside => {
            return Resolution {
                name: format!("{}.", name.trim_end_matches('.')),
                ..Resolution::default()
            };
        }
    };
    Resolution {
        name: format!("{}.", found.fqdn),
        code: "NOERROR".to_owned(),
        authoritative: true,
        addrs: found.addrs,
        ttl: dns::TTL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{catalog::NameAddresses, vip::VipName};

    #[test]
    fn resolve_tells_a_missing_name_from_one_that_is_forwarded() {
        let zones = dns::Zones::new(None, &[]).unwrap();
        let addresses = NameAddresses {
            v4: Some([11, 0, 0, 1].into()),
            v6: None,
        };
        let name = VipName::mangle("/app", "marathon").unwrap();
        let table = dns::Table::new(&zones, &[(name, addresses)].into(), HashMap::new());
        let said = |name| {
            let Resolution {
                name,
                code,
                authoritative,
                ttl,
                ..
            } = resolution(&table, name);
            format!("{name} {ttl} {code} {authoritative}")
        };
        assert_eq!(
            said("app.marathon"),
            "app.marathon.l4lb.thisdcos.directory. 5 NOERROR true"
        );
        assert_eq!(
            said("no.marathon"),
            "no.marathon.l4lb.thisdcos.directory. 1 NXDOMAIN true"
        );
        assert_eq!(said("example.com."), "example.com. 0  false");
    }
}
