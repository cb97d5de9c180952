//! The metrics of DC/OS' layer 4 load balancer, by its names: `GET /v1/metrics/l4lb`, which dcos-net has at port 62080.
//! DC/OS' Telegraf puts `l4lb_` before each.
//!
//! Its IPVS rules are the kernel's tables of services and backends here, its ipsets the filters of destinations and
//! sources, its network namespaces the one that the agent is in.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::write::{
    Kind::{Counter, Gauge, Summary},
    Writer,
};
use crate::admin::{
    report::{BackendReport, BackendState, ServiceReport},
    stats::sample::Sample,
    work::Work,
};

/// How many there are of something.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    backends: usize,
    unreachable_backends: usize,
    unreachable_vips: usize,
    unreachable_nodes: usize,
    local_vips: usize,
    local_backends: usize,
    local_tasks: usize,
}

// === impl Counts ===

impl Counts {
    /// `locals`: addresses of backends that are on this node.
    fn of(services: &[ServiceReport], locals: &BTreeSet<IpAddr>) -> Self {
        let is_local = |backend: &&BackendReport| locals.contains(&backend.addr.ip());
        let is_down = |backend: &BackendReport| backend.state == BackendState::Down;
        let (mut counts, mut tasks) = (Self::default(), BTreeSet::new());
        let mut nodes = BTreeMap::<_, bool>::new();
        for service in services {
            let backends = &service.backends;
            counts.backends += backends.len();
            counts.unreachable_backends += backends.iter().filter(|one| is_down(one)).count();
            if !backends.is_empty() && backends.iter().all(is_down) {
                counts.unreachable_vips += 1;
            }
            for backend in backends {
                let node = backend.host.as_deref();
                let node = node.map_or_else(|| backend.addr.ip().to_string(), str::to_owned);
                *nodes.entry(node).or_insert(true) &= is_down(backend);
            }
            let here = backends.iter().filter(is_local);
            let before = counts.local_backends;
            for backend in here {
                counts.local_backends += 1;
                tasks.insert((&backend.provider, &backend.task));
            }
            counts.local_vips += usize::from(counts.local_backends > before);
        }
        counts.unreachable_nodes = nodes.into_values().filter(|down| *down).count();
        counts.local_tasks = tasks.len();
        counts
    }
}

/// The whole page.
pub(crate) fn page(sample: &Sample, work: &Work) -> String {
    let services = &sample.report.services;
    let counts = Counts::of(services, &work.locals.load());
    let mut text = String::new();
    let mut out = Writer::new(&mut text);
    for (name, help, number) in [
        ("vips", "VIPs", services.len()),
        ("backends", "Backends over all VIPs", counts.backends),
        (
            "unreachable_backends",
            "Backends that are down",
            counts.unreachable_backends,
        ),
        (
            "unreachable_vips",
            "VIPs with backends, all of which are down",
            counts.unreachable_vips,
        ),
        (
            "unreachable_nodes",
            "Hosts of backends, all of which are down",
            counts.unreachable_nodes,
        ),
        ("netns", "Network namespaces that are programmed", 1),
        (
            "local_vips",
            "VIPs with a backend on this node",
            counts.local_vips,
        ),
        (
            "local_backends",
            "Backends on this node, over all VIPs",
            counts.local_backends,
        ),
        (
            "local_tasks",
            "Tasks behind these backends",
            counts.local_tasks,
        ),
        (
            "local_running_tasks",
            "The same: a task is a backend from its start to its end",
            counts.local_tasks,
        ),
    ] {
        out.family(name, Gauge, help);
        out.sample(name, &[], number as u64);
    }
    for (name, help, step) in [
        (
            "reconciled_routes_total",
            "Routes that were not as the agent left them, and are again",
            &work.routes,
        ),
        (
            "reconciled_ipvs_rules_total",
            "The same of the kernel's tables of services and backends",
            &work.tables,
        ),
        (
            "reconciled_ipset_entries_total",
            "The same of the kernel's filters",
            &work.filters,
        ),
    ] {
        out.family(name, Counter, help);
        out.sample(name, &[], step.done().mended);
    }
    for (name, help, step) in [
        (
            "vips_duration_seconds",
            "Working out services from what orchestrators say",
            &work.services,
        ),
        (
            "ipvs_duration_seconds",
            "Bringing the kernel's tables in line",
            &work.tables,
        ),
        (
            "routes_duration_seconds",
            "Bringing routes in line",
            &work.routes,
        ),
        (
            "ipset_duration_seconds",
            "Bringing the kernel's filters in line",
            &work.filters,
        ),
    ] {
        let done = step.done();
        let micros = u64::try_from(done.took.as_micros()).unwrap_or(u64::MAX);
        out.family(name, Summary, help);
        out.millionths(&format!("{name}_sum"), &[], micros);
        out.sample(&format!("{name}_count"), &[], done.times);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        admin::stats::tests::{backend, sample, service},
        plan::Report,
    };

    /// Every name that dcos-net has for it, and its type.
    const NAMES: [(&str, &str); 17] = [
        ("vips", "gauge"),
        ("backends", "gauge"),
        ("unreachable_backends", "gauge"),
        ("unreachable_vips", "gauge"),
        ("unreachable_nodes", "gauge"),
        ("netns", "gauge"),
        ("local_vips", "gauge"),
        ("local_backends", "gauge"),
        ("local_tasks", "gauge"),
        ("local_running_tasks", "gauge"),
        ("reconciled_routes_total", "counter"),
        ("reconciled_ipvs_rules_total", "counter"),
        ("reconciled_ipset_entries_total", "counter"),
        ("vips_duration_seconds", "summary"),
        ("ipvs_duration_seconds", "summary"),
        ("routes_duration_seconds", "summary"),
        ("ipset_duration_seconds", "summary"),
    ];

    fn example() -> Sample {
        let mut second = backend("10.0.0.1:81", BackendState::Down, None);
        second.task = "u".into();
        sample(vec![
            service(
                Some("a.marathon"),
                1,
                vec![
                    backend("10.0.0.1:80", BackendState::Active, None),
                    backend("10.0.0.2:80", BackendState::Down, None),
                ],
            ),
            service(Some("b.marathon"), 2, vec![second]),
            service(Some("c.marathon"), 3, vec![]),
        ])
    }

    #[test]
    fn every_name_of_dcos_is_there_with_its_type() {
        let text = page(&example(), &Work::default());
        let types: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
            .collect();
        assert_eq!(types, NAMES);
        for (name, kind) in NAMES {
            let parts: &[&str] = if kind == "summary" {
                &["_sum", "_count"]
            } else {
                &[""]
            };
            for part in parts {
                let begin = format!("{name}{part} ");
                let found = text.lines().filter(|line| line.starts_with(&begin)).count();
                assert_eq!(found, 1, "{begin}");
            }
        }
    }

    #[test]
    fn its_numbers_are_those_of_services_and_of_the_loop() {
        let work = Work::default();
        let locals = BTreeSet::from(["10.0.0.1".parse().unwrap()]);
        work.locals.store(Arc::new(locals));
        work.routes.note(Duration::from_millis(1_500));
        work.routes.note(Duration::from_millis(250));
        let changed = |applied, filters| Report {
            applied,
            filters,
            filtering: Duration::from_millis(1),
            ..Report::default()
        };
        let took = Duration::from_millis(3);
        work.planned(took, &changed(4, 1), true);
        work.planned(took, &changed(40, 10), false);
        let text = page(&example(), &work);
        for expected in [
            "vips 3",
            "backends 3",
            "unreachable_backends 2",
            "unreachable_vips 1",
            // 10.0.0.1 has one that is up.
            "unreachable_nodes 1",
            "netns 1",
            "local_vips 2",
            "local_backends 2",
            "local_tasks 2",
            "local_running_tasks 2",
            "reconciled_routes_total 0",
            "reconciled_ipvs_rules_total 3",
            "reconciled_ipset_entries_total 1",
            "ipvs_duration_seconds_sum 0.004",
            "ipset_duration_seconds_sum 0.002",
            "routes_duration_seconds_sum 1.75",
            "routes_duration_seconds_count 2",
            "vips_duration_seconds_count 0",
        ] {
            assert!(
                text.lines().any(|line| line == expected),
                "{expected}: {text}"
            );
        }
    }
}
