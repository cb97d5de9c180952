//! Metrics that HAProxy has no name for.

use std::collections::BTreeSet;

use super::{
    Scope,
    write::{
        Kind::{self, Counter, Gauge, Histogram},
        Writer,
    },
};
use crate::admin::{
    report::BackendState,
    stats::{fields::Front, sample::Sample},
};

/// A metric of every service.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: Kind,
    pub(super) write: fn(Front<'_>, &mut Writer<'_>),
}

/// The first bucket ends here, ns; each next one at twice as much.
const FIRST_BUCKET: u64 = 1 << 16;

/// Of every service.
pub(super) const SERVICE: &[Family] = &[
    Family {
        name: "lb_agent_service_refused_total",
        help: "First packets and calls that opened no flow, by cause",
        kind: Counter,
        write: refused,
    },
    Family {
        name: "lb_agent_service_fail_open",
        help: "1 while all backends are down and get new flows all the same",
        kind: Gauge,
        write: |front, out| {
            let labels = [("proxy", &*front.proxy.name)];
            out.sample(
                "lb_agent_service_fail_open",
                &labels,
                front.service.fail_open.into(),
            );
        },
    },
    Family {
        name: "lb_agent_service_packets_in_total",
        help: "Packets from clients; missing once a local UDP socket spoke to it",
        kind: Counter,
        write: |front, out| {
            let labels = [("proxy", &*front.proxy.name)];
            if let Some(packets) = front.service.traffic.packets_in {
                out.sample("lb_agent_service_packets_in_total", &labels, packets);
            }
        },
    },
    Family {
        name: "lb_agent_service_packets_out_total",
        help: "Packets to clients; missing where they bypass the node, and as those from them",
        kind: Counter,
        write: |front, out| {
            let labels = [("proxy", &*front.proxy.name)];
            if let Some(packets) = front.service.traffic.packets_out {
                out.sample("lb_agent_service_packets_out_total", &labels, packets);
            }
        },
    },
    Family {
        name: "lb_agent_service_handshake_seconds",
        help: "Time from SYN to SYN-ACK; there is no sum",
        kind: Histogram,
        write: handshakes,
    },
];

fn refused(front: Front<'_>, out: &mut Writer<'_>) {
    let traffic = &front.service.traffic;
    for (cause, number) in [
        ("no_backend", traffic.flows_unserved()),
        ("not_allowed", traffic.flows_denied),
        ("limit", traffic.flows_limited),
        ("full", traffic.flows_lost),
    ] {
        let labels = [("proxy", &*front.proxy.name), ("cause", cause)];
        out.sample("lb_agent_service_refused_total", &labels, number);
    }
}

fn handshakes(front: Front<'_>, out: &mut Writer<'_>) {
    let buckets = &front.service.traffic.handshakes;
    let Some((_, finite)) = buckets.split_last() else {
        return;
    };
    let proxy = ("proxy", &*front.proxy.name);
    let name = "lb_agent_service_handshake_seconds_bucket";
    let mut sum = 0;
    for (bucket, count) in finite.iter().enumerate() {
        sum += count;
        // Below 2^31 ns: a double holds it exactly.
        let end = (FIRST_BUCKET << bucket) as f64 / 1e9;
        out.sample(name, &[proxy, ("le", &end.to_string())], sum);
    }
    let all = buckets.iter().sum();
    out.sample(name, &[proxy, ("le", "+Inf")], all);
    out.sample("lb_agent_service_handshake_seconds_count", &[proxy], all);
}

/// Of the agent.
pub(super) fn process(sample: &Sample, scope: Scope, out: &mut Writer<'_>) {
    let report = &sample.report;
    let name = "lb_agent_build_info";
    out.family(name, Gauge, "The agent's version and its node");
    let labels = [
        ("version", &*report.agent.version),
        ("node", &*report.agent.node),
    ];
    out.sample(name, &labels, 1);
    let name = "lb_agent_start_time_seconds";
    out.family(name, Gauge, "When the agent started, since 1970");
    out.thousandths(name, &[], report.agent.started.0);
    let name = "lb_agent_sample_seconds";
    out.family(name, Gauge, "How long it took to read the counters");
    let micros = u64::try_from(sample.cost.as_micros()).unwrap_or(u64::MAX);
    out.millionths(name, &[], micros);
    let name = "lb_agent_sample_timestamp_seconds";
    out.family(name, Gauge, "When the counters were last read, since 1970");
    out.thousandths(name, &[], sample.at.0);
    let name = "lb_agent_metrics_without_servers";
    out.family(
        name,
        Gauge,
        "1 if haproxy_server_* is left out; scope=server asks for it",
    );
    out.sample(name, &[], (!scope.server).into());
    for (name, help, number) in [
        ("lb_agent_services", "Services", report.services.len()),
        (
            "lb_agent_warnings",
            "Things that an operator should look at, as `status` lists them",
            report.warnings.len(),
        ),
        (
            "lb_agent_operator_words",
            "Orders of the operator that hold",
            report.operator.len(),
        ),
        (
            "lb_agent_addresses_not_agreed",
            "Names whose address may be another one on another node",
            not_agreed(sample),
        ),
        (
            "lb_agent_addresses_pending",
            "Addresses that names wait for until all nodes agree on them in etcd",
            report.addresses_pending,
        ),
    ] {
        out.family(name, Gauge, help);
        out.sample(name, &[], number as u64);
    }
    backends(sample, out);
    let name = "lb_agent_drops_total";
    out.family(
        name,
        Counter,
        "Packets and calls that went no further, by reason",
    );
    for drop in &report.datapath.drops {
        out.sample(name, &[("reason", &drop.reason)], drop.packets);
    }
    let name = "lb_agent_map_entries";
    out.family(name, Gauge, "Entries of a kernel table");
    for map in &report.datapath.maps {
        out.sample(name, &[("map", &map.name)], map.used);
    }
    let name = "lb_agent_map_capacity";
    out.family(name, Gauge, "Entries that a kernel table has room for");
    for map in &report.datapath.maps {
        out.sample(name, &[("map", &map.name)], map.capacity);
    }
    snat_tries(&report.datapath.snat_tries, out);
    providers(sample, out);
    if let Some(dns) = &report.dns {
        let name = "lb_agent_dns_names";
        out.family(name, Gauge, "Names that DNS answers for");
        out.sample(name, &[], dns.names as u64);
    }
}

/// Names count, however many ports they have.
fn not_agreed(sample: &Sample) -> usize {
    let services = sample.report.services.iter();
    let names = services
        .filter(|service| service.address_not_agreed)
        .filter_map(|service| service.name.as_deref());
    names.collect::<BTreeSet<_>>().len()
}

fn backends(sample: &Sample, out: &mut Writer<'_>) {
    const STATES: [BackendState; 5] = [
        BackendState::Active,
        BackendState::Draining,
        BackendState::Maintenance,
        BackendState::Standby,
        BackendState::Down,
    ];
    let mut counts = [0; STATES.len()];
    for backend in sample
        .report
        .services
        .iter()
        .flat_map(|service| &service.backends)
    {
        if let Some(place) = STATES.iter().position(|state| *state == backend.state) {
            counts[place] += 1;
        }
    }
    let name = "lb_agent_backends";
    out.family(
        name,
        Gauge,
        "Backends by state, once for each service that names them",
    );
    for (state, count) in STATES.iter().zip(counts) {
        out.sample(name, &[("state", &state.to_string())], count);
    }
}

/// Those that found no port have tried as many as those that found one at last.
fn snat_tries(tries: &[u64], out: &mut Writer<'_>) {
    let name = "lb_agent_snat_port_tries";
    out.family(
        name,
        Histogram,
        "Source ports tried for a new flow of full NAT; above the last bound none was free",
    );
    let (mut count, mut sum) = (0, 0);
    for (number, flows) in (1..).zip(tries) {
        count += flows;
        let is_last = number == tries.len() as u64;
        sum += flows * if is_last { number - 1 } else { number };
        let bound = if is_last {
            "+Inf".to_owned()
        } else {
            number.to_string()
        };
        out.sample("lb_agent_snat_port_tries_bucket", &[("le", &bound)], count);
    }
    out.sample("lb_agent_snat_port_tries_sum", &[], sum);
    out.sample("lb_agent_snat_port_tries_count", &[], count);
}

fn providers(sample: &Sample, out: &mut Writer<'_>) {
    let providers = &sample.report.providers;
    let name = "lb_agent_provider_up";
    out.family(name, Gauge, "1 if the last reading of it succeeded");
    for provider in providers {
        let up = provider.last_sync.is_some() && provider.last_error.is_none();
        out.sample(name, &[("provider", &provider.id)], up.into());
    }
    let name = "lb_agent_provider_last_sync_age_seconds";
    out.family(
        name,
        Gauge,
        "Since it was last read well; missing if it never was",
    );
    for provider in providers {
        if let Some(age) = provider.last_sync_age_ms {
            out.thousandths(name, &[("provider", &provider.id)], age);
        }
    }
    let name = "lb_agent_provider_pools";
    out.family(name, Gauge, "VIPs that it declares");
    for provider in providers {
        out.sample(name, &[("provider", &provider.id)], provider.pools as u64);
    }
    let name = "lb_agent_provider_problems";
    out.family(name, Gauge, "Things of it that were left out");
    for provider in providers {
        let problems = provider.problems.len() as u64;
        out.sample(name, &[("provider", &provider.id)], problems);
    }
}

#[cfg(test)]
mod tests {
    use super::super::whole;
    use crate::admin::stats::{
        metrics::Scope,
        tests::{sample, service},
    };

    #[test]
    fn tries_for_source_ports_are_a_histogram() {
        let mut sample = sample(Vec::new());
        sample.report.datapath.snat_tries = vec![900, 90, 9, 1];
        let text = whole(&sample, Scope::ALL);
        for line in [
            "lb_agent_snat_port_tries_bucket{le=\"1\"} 900",
            "lb_agent_snat_port_tries_bucket{le=\"3\"} 999",
            "lb_agent_snat_port_tries_bucket{le=\"+Inf\"} 1000",
            "lb_agent_snat_port_tries_sum 1110",
            "lb_agent_snat_port_tries_count 1000",
        ] {
            assert!(text.lines().any(|said| said == line), "{line}: {text}");
        }
    }

    #[test]
    fn names_without_an_agreed_address_are_counted_once_each() {
        let mut ports = vec![
            service(Some("a.x"), 1, Vec::new()),
            service(Some("a.x"), 2, Vec::new()),
            service(Some("b.x"), 3, Vec::new()),
        ];
        ports[0].address_not_agreed = true;
        ports[1].address_not_agreed = true;
        let mut sample = sample(ports);
        sample.report.addresses_pending = 7;
        let text = whole(&sample, Scope::ALL);
        for line in [
            "lb_agent_addresses_not_agreed 1",
            "lb_agent_addresses_pending 7",
        ] {
            assert!(text.lines().any(|said| said == line), "{line}: {text}");
        }
    }
}
