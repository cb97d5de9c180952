//! What the agent says about itself, from what the rooms hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    admin::report::{
        AgentReport, BackendReport, BackendState, DatapathReport, DeclaredReport, DnsReport,
        ErrorReport, HealthReport, InterfaceReport, LimitsReport, MapReport, ProblemReport,
        ProviderReport, ServiceReport, ServiceTraffic, StatusReport, Traffic,
    },
    catalog::{Catalog, CatalogBackend, Desired, Notice, NoticeKind, Port, Protocol},
    datapath::{SENDERS, flows::Census},
    plan::{self, Endpoint, Limits, Wanted},
    vip::VipName,
};

use super::{
    standing::{Since, Standing, Voices},
    wanted::{endpoint, tier},
};

/// What stays the same while the agent runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Fixed {
    pub(super) agent: AgentReport,
    pub(super) interfaces: Vec<InterfaceReport>,
    pub(super) datapath: DatapathReport,
    pub(super) dns: Option<DnsReport>,
    pub(super) warnings: Vec<String>,
}

/// The report of this moment. `failures`: what could not be written to the kernel or the routes.
pub(super) fn report(
    fixed: &Fixed,
    catalog: &Catalog,
    desired: &Desired,
    services: &Arc<Vec<ServiceReport>>,
    failures: &[String],
) -> StatusReport {
    let warnings = desired
        .problems
        .iter()
        .filter(|notice| notice.kind != NoticeKind::LeftOut)
        .map(ToString::to_string);
    StatusReport {
        agent: fixed.agent.clone(),
        services: Arc::clone(services),
        providers: providers(catalog, desired),
        operator: Vec::new(),
        datapath: DatapathReport {
            interfaces: fixed.interfaces.clone(),
            ..fixed.datapath.clone()
        },
        dns: fixed.dns.clone().map(|dns| DnsReport {
            names: desired.names.len(),
            ..dns
        }),
        warnings: fixed
            .warnings
            .iter()
            .cloned()
            .chain(failures.iter().cloned())
            .chain(warnings)
            .collect(),
        addresses_pending: 0,
    }
}

/// How full the flow tables are.
pub(super) fn flow_tables(census: &Census) -> impl Iterator<Item = MapReport> {
    census.tables.iter().map(|fill| MapReport {
        name: fill.name.to_owned(),
        used: fill.used.into(),
        capacity: fill.room.into(),
    })
}

/// How full the tables are that plans fill.
pub(super) fn fill(want: &Wanted, limits: &Limits) -> Vec<MapReport> {
    let backends: BTreeSet<_> = want
        .services
        .iter()
        .flat_map(|(key, service)| {
            let backends = service.backends.iter();
            backends.map(|backend| (backend.addr, key.proto))
        })
        .collect();
    let addresses: BTreeSet<_> = want.vips.union(&want.node_addresses).collect();
    let both = |name: &str, [v4, v6]: [usize; 2], capacity: usize| {
        [("IPv4", v4), ("IPv6", v6)].map(|(family, used)| MapReport {
            name: format!("{name}, {family}"),
            used: used as u64,
            capacity: capacity as u64,
        })
    };
    let families = |addrs: &mut dyn Iterator<Item = (IpAddr, usize)>| {
        let mut counts = [0; 2];
        for (addr, count) in addrs {
            counts[usize::from(addr.is_ipv6())] += count;
        }
        counts
    };
    let each = |addr: IpAddr| (addr, 1);
    let services = families(&mut want.services.keys().map(|key| each(key.addr)));
    let listed = want.services.iter();
    let listed = families(&mut listed.map(|(key, service)| (key.addr, service.lists.len())));
    let sources = families(&mut want.sources.iter().map(|net| each(net.addr())));
    let addresses = families(&mut addresses.into_iter().map(|addr| each(*addr)));
    let peers = families(&mut want.peers.iter().map(|addr| each(*addr)));
    let mut maps = both("services", services, limits.services).to_vec();
    maps.push(MapReport {
        name: "backends".to_owned(),
        used: backends.len() as u64,
        capacity: u64::from(limits.backends),
    });
    maps.extend(both("addresses", addresses, limits.addresses));
    maps.extend(both("allowed sources", sources, limits.sources));
    maps.extend(both("prefixes in lists of services", listed, limits.listed));
    maps.extend(both("peers", peers, SENDERS as usize));
    maps
}

/// Both families of a name are one entry; those that have lost all their backends are there, too.
pub(super) fn services(
    desired: &Desired,
    zone: Option<&str>,
    voices: &Voices<'_>,
    since: &mut Since,
) -> Vec<ServiceReport> {
    let mut merged =
        BTreeMap::<(Option<VipName>, Option<IpAddr>, Port, Protocol), ServiceReport>::new();
    let mut external = BTreeMap::<_, BTreeSet<Endpoint>>::new();
    for (at, of) in &desired.external {
        external.entry(*of).or_default().insert(endpoint(at));
    }
    for (key, service) in desired.declared() {
        let front = voices.front(key, service);
        let literal = service.name.is_none().then_some(key.addr);
        let entry = merged
            .entry((service.name.clone(), literal, key.port, key.protocol))
            .or_insert_with(|| ServiceReport {
                name: service.name.as_ref().map(ToString::to_string),
                addrs: Vec::new(),
                port: key.port,
                protocol: key.protocol,
                algorithm: service.properties.balance.to_string(),
                mode: service.properties.mode.to_string(),
                external: Vec::new(),
                called: service.properties.called.clone(),
                address_not_agreed: service
                    .name
                    .as_ref()
                    .is_some_and(|name| desired.contested.contains(name)),
                fail_open: false,
                stopped: front.stopped,
                check: service.properties.check.as_ref().map(ToString::to_string),
                backends: Vec::new(),
                traffic: ServiceTraffic::default(),
                id: 0,
                limits: LimitsReport {
                    flows: front.limit.unwrap_or(service.properties.max_flows),
                    rate: service.properties.rate,
                    source_rate: service.properties.source_rate,
                },
                probe: service.properties.check.clone(),
                stands_at: Vec::new(),
            });
        entry.addrs.push(key.addr);
        entry.stands_at.push(endpoint(key));
        for at in external.get(key).into_iter().flatten() {
            entry.stands_at.push(*at);
            entry.external.push(at.port);
        }
        entry.external.sort_unstable();
        entry.external.dedup();
        let standings = service.backends.iter().map(|backend| {
            let standing = voices.standing(key, service, backend);
            (backend, tier(backend, zone), standing)
        });
        let standings: Vec<_> = standings.collect();
        let taking = standings.iter().filter(|(_, _, one)| one.takes_flows());
        let used = taking.map(|(_, tier, _)| *tier).min();
        let is_down =
            |(_, _, standing): &(_, _, Standing)| standing.state == plan::BackendState::Down;
        entry.fail_open |= !front.stopped
            && !service.properties.fail_closed
            && used.is_none()
            && standings.iter().any(is_down);
        for (backend, tier, standing) in standings {
            let stands_by = used.is_some_and(|used| used < tier);
            let mut report = backend_report(backend, standing, stands_by);
            since.note(key, service, &mut report);
            entry.backends.push(report);
        }
    }
    since.turn_over();
    merged.into_values().collect()
}

/// `stands_by`: others are to be used before it, and one of them takes flows.
fn backend_report(backend: &CatalogBackend, standing: Standing, stands_by: bool) -> BackendReport {
    let Standing {
        weight,
        share: _,
        starting,
        limit,
        forced,
        unchecked,
        check_port,
        gone: _,
        state: _,
        shown,
        why,
    } = standing;
    let (state, why) = match shown {
        BackendState::Active if stands_by => {
            let zone = || backend.zone.as_deref().unwrap_or("none");
            let why = match backend.backup {
                true => "backup".to_owned(),
                false => format!("zone {}", zone()),
            };
            (BackendState::Standby, Some(why))
        }
        shown => (shown, why.as_deref().map(str::to_owned)),
    };
    BackendReport {
        addr: backend.addr,
        weight: weight.get(),
        state,
        why,
        since: None,
        provider: Arc::from(&backend.provider),
        app: Arc::clone(&backend.app),
        task: Arc::clone(&backend.task),
        instance: backend.instance.clone(),
        host: backend.host.clone(),
        called: backend.called.clone(),
        traffic: Traffic::default(),
        declared: DeclaredReport {
            weight: backend.weight.get(),
            backup: backend.backup,
            max_flows: limit,
            healthy: backend.healthy,
        },
        health: HealthReport {
            starting,
            forced,
            unchecked,
            check_port: check_port.map(Port::get),
            ..HealthReport::default()
        },
    }
}

fn providers(catalog: &Catalog, desired: &Desired) -> Vec<ProviderReport> {
    catalog
        .readings()
        .map(|(id, reading)| ProviderReport {
            id: id.to_string(),
            last_sync: reading.last_success.map(Into::into),
            last_sync_age_ms: None,
            last_error: reading.failing().map(|failure| ErrorReport {
                at: failure.at.into(),
                reason: failure.reason.clone(),
            }),
            pools: reading
                .snapshot
                .as_ref()
                .map_or(0, |snapshot| snapshot.pools.len()),
            problems: desired
                .problems
                .iter()
                .filter(|notice| notice.provider == *id)
                .map(problem)
                .collect(),
        })
        .collect()
}

fn problem(notice: &Notice) -> ProblemReport {
    ProblemReport {
        subject: notice.subject.to_string(),
        reason: notice.reason.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Weight;
    use crate::plan::{Endpoint, WantedBackend, WantedService};

    #[test]
    fn who_stands_by_is_shown_with_the_reason() {
        let backend = |addr: &str, weight, backup, zone: Option<&str>| CatalogBackend {
            weight,
            backup,
            zone: zone.map(Into::into),
            ..CatalogBackend::plain(addr)
        };
        let mut service = crate::catalog::Service {
            name: None,
            properties: Default::default(),
            backends: vec![
                backend("10.0.0.1:80", Weight::ONE, false, Some("a")),
                backend("10.0.0.2:80", Weight::ONE, false, None),
                backend("10.0.0.3:80", Weight::ONE, true, Some("a")),
            ],
        };
        let shown = |service: &crate::catalog::Service, zone| {
            let key = crate::catalog::ServiceKey::tcp("11.0.0.1:80");
            let desired = Desired {
                services: [(key, service.clone())].into(),
                ..Desired::default()
            };
            let shown = services(&desired, zone, &Voices::default(), &mut Since::default());
            let backends = &shown[0].backends;
            let shown = backends.iter();
            let shown = shown.map(|b| format!("{} {}", b.state, b.why.as_deref().unwrap_or("-")));
            shown.collect::<Vec<_>>()
        };
        let near = ["active -", "standby zone none", "standby backup"];
        assert_eq!(shown(&service, Some("a")), near);
        let anywhere = ["active -", "active -", "standby backup"];
        assert_eq!(shown(&service, None), anywhere);
        service.backends[0].weight = Weight::DRAIN;
        let second = ["draining -", "active -", "standby backup"];
        assert_eq!(shown(&service, Some("a")), second);
        service.backends[1].weight = Weight::DRAIN;
        let last = ["draining -", "draining -", "active -"];
        assert_eq!(shown(&service, Some("a")), last);
    }

    #[test]
    fn a_service_without_backends_is_shown() {
        let empty = crate::catalog::Service {
            name: VipName::from_canonical("web.marathon"),
            properties: Default::default(),
            backends: Vec::new(),
        };
        let keys = ["11.0.0.1:80", "[fd01:c::1]:80"].map(crate::catalog::ServiceKey::tcp);
        let desired = Desired {
            empty: keys.map(|key| (key, empty.clone())).into(),
            ..Desired::default()
        };
        let shown = services(&desired, None, &Voices::default(), &mut Since::default());
        assert_eq!(shown.len(), 1);
        assert_eq!(shown[0].name.as_deref(), Some("web.marathon"));
        assert_eq!(shown[0].addrs, keys.map(|key| key.addr));
        assert!(shown[0].backends.is_empty() && !shown[0].fail_open);
    }

    #[test]
    fn a_backend_of_two_services_fills_one_place_and_an_address_of_two_kinds_too() {
        let addr = |text: &str| text.parse::<IpAddr>().unwrap();
        let backend = |addr: &str| WantedBackend {
            addr: addr.parse().unwrap(),
            weight: Weight::MAX,
            max_flows: 0,
            tier: 0,
            state: crate::plan::BackendState::Up,
            reach: crate::plan::Reach::Host,
            peer: lb_common::Peer::default(),
        };
        let service = |vip: &str, addr: &str| {
            let key = Endpoint {
                addr: vip.parse().unwrap(),
                port: 80,
                proto: 6,
            };
            let lists = match key.addr.is_ipv6() {
                true => ["fd00::/8", "fe00::/8"].as_slice(),
                false => &[],
            };
            let lists = lists.iter().map(|net| (net.parse().unwrap(), 1));
            let service = WantedService {
                backends: vec![backend(addr)],
                lists: Arc::new(lists.collect()),
                ..WantedService::default()
            };
            (key, service.into())
        };
        let want = Wanted {
            services: [
                service("11.0.0.1", "10.0.0.1:80"),
                service("11.0.0.2", "10.0.0.1:80"),
                service("fd01:c::1", "[fd00::1]:80"),
            ]
            .into(),
            vips: ["11.0.0.1", "fd01:c::1"].map(addr).into(),
            node_addresses: ["11.0.0.1", "10.0.0.9"].map(addr).into(),
            sources: ["10.0.0.0/8".parse().unwrap()].into(),
            peers: ["fd00::9"].map(addr).into(),
            ..Wanted::default()
        };
        let limits = Limits {
            services: 100,
            backends: 1_000,
            tables: [200; 3],
            addresses: 10,
            sources: 11,
            listed: 12,
            locals: 10,
        };
        let fill: Vec<_> = fill(&want, &limits)
            .into_iter()
            .map(|map| format!("{} {}/{}", map.name, map.used, map.capacity))
            .collect();
        assert_eq!(
            fill,
            [
                "services, IPv4 2/100",
                "services, IPv6 1/100",
                "backends 2/1000",
                "addresses, IPv4 2/10",
                "addresses, IPv6 1/10",
                "allowed sources, IPv4 1/11",
                "allowed sources, IPv6 0/11",
                "prefixes in lists of services, IPv4 0/12",
                "prefixes in lists of services, IPv6 2/12",
                "peers, IPv4 0/1024",
                "peers, IPv6 1/1024",
            ]
        );
    }
}
