//! Puts what the kernel counted into a report, when somebody asks for it.

use std::sync::Arc;

use lb_common::ServiceStats;

use crate::{
    admin::report::{
        Connections, DropReport, Outcomes, ProbeReport, ServiceReport, ServiceTraffic,
        StatusReport, Traffic,
    },
    catalog::{Check, Port},
    datapath::{BackendCounts, Counted, ServiceCounts},
    health::{Fate, Latest, Latests, Outcome},
    plan::Endpoint,
};

/// Fills in every number of `report` that `counted` holds.
pub(super) fn fill(report: &mut StatusReport, counted: &Counted) {
    report.datapath.drops = counted
        .reasons
        .iter()
        .filter(|(_, packets)| *packets > 0)
        .map(|(reason, packets)| DropReport {
            reason: reason.as_str().to_owned(),
            packets: *packets,
        })
        .collect();
    for service in Arc::make_mut(&mut report.services) {
        fill_service(service, counted);
    }
}

/// Fills in what the latest checks came to.
pub(super) fn fill_checks(report: &mut StatusReport, checks: &Latests) {
    if report
        .services
        .iter()
        .all(|service| service.probe.is_none())
    {
        return;
    }
    for service in Arc::make_mut(&mut report.services) {
        let Some(check) = &service.probe else {
            continue;
        };
        for backend in &mut service.backends {
            let port = backend.health.check_port.and_then(Port::new);
            let check = check.asked_at(port);
            // Another service may go on asking the same.
            let latest = checks.of(backend.addr, &check);
            let latest = latest.filter(|_| !backend.health.unchecked);
            backend.health.probe = latest.and_then(|latest| probe_report(latest, &check));
        }
    }
}

/// `None`: it was not asked.
fn probe_report(latest: Latest, check: &Check) -> Option<ProbeReport> {
    let result = match latest.asked.fate {
        Fate::NotAsked => return None,
        Fate::Connected => "L4OK",
        Fate::Refused => "L4CON",
        Fate::Silent => "L4TOUT",
        Fate::Answered => "L7OK",
        Fate::WrongStatus => "L7STS",
        Fate::Garbled => "L7RSP",
        Fate::Unanswered => "L7TOUT",
    };
    Some(ProbeReport {
        at: latest.at.into(),
        result: result.to_owned(),
        code: latest.asked.status,
        took_ms: u64::try_from(latest.took.as_millis()).unwrap_or(u64::MAX),
        why: match latest.asked.outcome {
            Outcome::Failed(why) => Some(why.to_string()),
            Outcome::Passed | Outcome::NotAsked(_) => None,
        },
        failed: latest.failed,
        against: latest.against,
        rise: check.rise,
        fall: check.fall,
        up: latest.up,
    })
}

fn fill_service(service: &mut ServiceReport, counted: &Counted) {
    let stands_at = service.stands_at.iter();
    let places: Vec<_> = stands_at
        .filter_map(|at| counted.services.get(at))
        .collect();
    let ids = places.iter().map(|place| place.id);
    service.id = ids.min().unwrap_or(0);
    let mut all_answers = true;
    for backend in &mut service.backends {
        let endpoint = Endpoint::new(backend.addr, service.protocol.number());
        if let Some(counts) = counted.backends.get(&endpoint) {
            let mut modes = places.iter().map(|place| place.mode);
            let answers = !modes.any(|mode| counts.answers_directly(mode));
            all_answers &= answers;
            backend.traffic = backend_traffic(counts, answers);
            if let Some(why) = counts.suspect {
                let why = format!("suspect: {why}; new connections go elsewhere");
                backend.why.get_or_insert(why);
            }
        }
    }
    service.traffic = service_traffic(&places, all_answers);
}

/// `answers`: what every backend answers comes by here.
fn service_traffic(places: &[&ServiceCounts], answers: bool) -> ServiceTraffic {
    let sum = |of: fn(&ServiceCounts) -> u64| places.iter().map(|place| of(place)).sum::<u64>();
    let seen = sum(|place| place.stats.unseen) == 0;
    let mut traffic = ServiceTraffic {
        packets_in: seen.then(|| sum(|place| place.traffic.packets_to)),
        packets_out: (seen && answers).then(|| sum(|place| place.traffic.packets_from)),
        bytes_in: seen.then(|| sum(|place| place.traffic.bytes_to)),
        bytes_out: (seen && answers).then(|| sum(|place| place.traffic.bytes_from)),
        connections: connections(places, answers),
        ..ServiceTraffic::default()
    };
    for place in places {
        traffic.flows_active += place.active;
        traffic.flows_new += place.stats.flows;
        traffic.flows_refused += place.stats.refused;
        traffic.flows_denied += place.stats.denied;
        traffic.flows_limited += place.stats.limited;
        traffic.flows_lost += place.stats.lost;
        traffic.malformed += place.stats.malformed;
        let handshakes = &place.stats.handshakes;
        traffic.handshakes.resize(handshakes.len(), 0);
        for (sum, more) in traffic.handshakes.iter_mut().zip(handshakes) {
            *sum += more;
        }
    }
    traffic
}

fn connections(places: &[&ServiceCounts], answers: bool) -> Connections {
    let sum = |of: fn(&ServiceStats) -> u64| {
        let counts = places.iter().map(|place| of(&place.stats));
        counts.sum::<u64>()
    };
    let seen = |of| answers.then(|| sum(of));
    Connections {
        closed: sum(|stats| stats.connections.closed),
        outcomes: Outcomes {
            client_resets: sum(|stats| stats.connections.client_resets),
            backend_resets: seen(|stats| stats.connections.backend_resets),
            refused: seen(|stats| stats.connections.refused),
            failed: sum(|stats| stats.failed),
            syn_retransmits: sum(|stats| stats.connections.syn_retransmits),
            retransmits: sum(|stats| stats.retransmits),
            handshakes: seen(|stats| stats.connections.handshakes),
            handshake_ns: seen(|stats| stats.connections.handshake_ns),
            redispatched: sum(|stats| stats.connections.redispatched),
            lived_ms: sum(|stats| stats.connections.lived_ms),
        },
    }
}

/// `answers`: what it answers comes by here; else nothing is known of it.
fn backend_traffic(counts: &BackendCounts, answers: bool) -> Traffic {
    let BackendCounts {
        active,
        traffic,
        connections,
        is_elsewhere: _,
        is_at_peer: _,
        suspect: _,
    } = counts;
    let seen = |number| answers.then_some(number);
    let counted = |number| (traffic.unseen == 0).then_some(number);
    Traffic {
        flows_active: *active,
        flows_new: traffic.flows,
        flows_closed: connections.closed,
        packets_in: counted(traffic.packets_to),
        packets_out: counted(traffic.packets_from).and_then(seen),
        bytes_in: counted(traffic.bytes_to),
        bytes_out: counted(traffic.bytes_from).and_then(seen),
        outcomes: Outcomes {
            client_resets: connections.client_resets,
            backend_resets: seen(connections.backend_resets),
            refused: seen(connections.refused),
            failed: traffic.failed,
            syn_retransmits: connections.syn_retransmits,
            retransmits: traffic.retransmits,
            handshakes: seen(connections.handshakes),
            handshake_ns: seen(connections.handshake_ns),
            redispatched: connections.redispatched,
            lived_ms: connections.lived_ms,
        },
        unread: false,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use lb_common::{
        BackendStats, ConnectionStats, Reason, ServiceStats,
        service_mode::{DSR_GENEVE, DSR_IPIP, DSR_L2, NAT},
    };

    use super::*;
    use crate::{
        admin::report::{BackendReport, BackendState},
        catalog::Protocol,
    };

    const ADDR: &str = "10.0.0.1:8080";

    /// Where a backend is.
    #[derive(Clone, Copy, Debug)]
    enum Place {
        Here,
        Elsewhere,
        AtPeer,
    }

    fn report() -> StatusReport {
        let endpoint = |at: &str| Endpoint::new(at.parse().unwrap(), 6);
        let service = ServiceReport {
            name: None,
            addrs: vec!["11.0.0.1".parse().unwrap()],
            port: Port::new(80).unwrap(),
            protocol: Protocol::Tcp,
            algorithm: String::new(),
            mode: String::new(),
            external: vec![10_000],
            called: None,
            address_not_agreed: false,
            stopped: false,
            check: None,
            fail_open: false,
            backends: vec![BackendReport {
                since: None,
                addr: ADDR.parse().unwrap(),
                weight: 1,
                state: BackendState::Active,
                why: None,
                provider: "".into(),
                app: "".into(),
                task: "".into(),
                instance: None,
                host: None,
                called: None,
                traffic: Traffic::default(),
                declared: Default::default(),
                health: Default::default(),
            }],
            traffic: ServiceTraffic::default(),
            id: 0,
            limits: Default::default(),
            probe: None,
            stands_at: vec![endpoint("11.0.0.1:80"), endpoint("192.0.2.1:10000")],
        };
        StatusReport {
            services: Arc::new(vec![service]),
            ..StatusReport::default()
        }
    }

    /// Each number is another one.
    fn outcome(n: u64) -> ConnectionStats {
        ConnectionStats {
            closed: n,
            client_resets: 2 * n,
            backend_resets: 3 * n,
            refused: 4 * n,
            syn_retransmits: 5 * n,
            handshakes: 6 * n,
            handshake_ns: 7 * n,
            redispatched: 8 * n,
            lived_ms: 9 * n,
        }
    }

    /// `modes`: at the VIP, and at the node's port.
    fn counted(modes: [u8; 2], is: Place) -> Counted {
        let place = |n, mode| ServiceCounts {
            id: 7,
            active: n,
            stats: ServiceStats {
                flows: 10 * n,
                refused: 100 * n,
                denied: 40 * n,
                limited: 30 * n,
                lost: 20 * n,
                malformed: 11 * n,
                failed: 12 * n,
                retransmits: 13 * n,
                unseen: 0,
                connections: outcome(n),
                handshakes: [n; 16],
            },
            traffic: lb_common::ServiceTraffic {
                packets_to: n,
                bytes_to: 50 * n,
                packets_from: 2 * n,
                bytes_from: 70 * n,
            },
            mode,
        };
        let backend = BackendCounts {
            active: 3,
            traffic: BackendStats {
                flows: 30,
                packets_to: 400,
                bytes_to: 5_000,
                packets_from: 600,
                bytes_from: 7_000,
                failed: 8,
                retransmits: 9,
                unseen: 0,
            },
            connections: ConnectionStats {
                closed: 27,
                client_resets: 1,
                backend_resets: 2,
                refused: 1,
                syn_retransmits: 4,
                handshakes: 25,
                handshake_ns: 50_000,
                redispatched: 5,
                lived_ms: 6_000,
            },
            is_elsewhere: !matches!(is, Place::Here),
            is_at_peer: matches!(is, Place::AtPeer),
            suspect: None,
        };
        let at = |text: &str| Endpoint::new(text.parse::<SocketAddr>().unwrap(), 6);
        Counted {
            backends: [(at(ADDR), backend)].into(),
            services: [
                (at("11.0.0.1:80"), place(1, modes[0])),
                (at("192.0.2.1:10000"), place(2, modes[1])),
                (at("11.0.0.2:80"), place(4, DSR_L2)),
            ]
            .into(),
            reasons: vec![(Reason::Malformed, 5), (Reason::NoBackend, 0)],
        }
    }

    #[test]
    fn a_service_counts_what_came_to_all_its_places() {
        let mut report = report();
        fill(&mut report, &counted([NAT; 2], Place::Elsewhere));
        assert_eq!(
            report.services[0].traffic,
            ServiceTraffic {
                flows_active: 3,
                flows_new: 30,
                flows_refused: 300,
                flows_denied: 120,
                flows_limited: 90,
                flows_lost: 60,
                packets_in: Some(3),
                packets_out: Some(6),
                bytes_in: Some(150),
                bytes_out: Some(210),
                handshakes: vec![3; 16],
                malformed: 33,
                connections: Connections {
                    closed: 3,
                    outcomes: Outcomes {
                        client_resets: 6,
                        backend_resets: Some(9),
                        refused: Some(12),
                        failed: 36,
                        syn_retransmits: 15,
                        retransmits: 39,
                        handshakes: Some(18),
                        handshake_ns: Some(21),
                        redispatched: 24,
                        lived_ms: 27,
                    },
                },
                unread: false,
            }
        );
        let drops = report.datapath.drops.iter();
        let drops: Vec<_> = drops.map(|drop| (&*drop.reason, drop.packets)).collect();
        assert_eq!(drops, [(Reason::Malformed.as_str(), 5)]);
    }

    #[test]
    fn answers_that_do_not_come_by_are_unknown_not_zero() {
        for (mode, is, come_by) in [
            (NAT, Place::Elsewhere, true),
            (NAT, Place::AtPeer, true),
            (DSR_L2, Place::Here, true),
            (DSR_L2, Place::Elsewhere, false),
            (DSR_IPIP, Place::Elsewhere, false),
            (DSR_IPIP, Place::AtPeer, false),
            // Full NAT where there is no peer: mode `auto` with `--dsr`.
            (DSR_GENEVE, Place::Elsewhere, true),
            (DSR_GENEVE, Place::AtPeer, false),
            (DSR_GENEVE, Place::Here, true),
        ] {
            let mut report = report();
            fill(&mut report, &counted([mode, NAT], is));
            let seen = |number| come_by.then_some(number);
            let case = format!("mode {mode}, {is:?}");
            assert_eq!(report.services[0].traffic.packets_in, Some(3), "{case}");
            let service = &report.services[0].traffic;
            assert_eq!(service.bytes_out, seen(210), "{case}");
            assert_eq!(
                service.connections.outcomes.backend_resets,
                seen(9),
                "{case}"
            );
            assert_eq!(service.connections.outcomes.client_resets, 6, "{case}");
            assert_eq!(
                report.services[0].backends[0].traffic,
                Traffic {
                    flows_active: 3,
                    flows_new: 30,
                    flows_closed: 27,
                    packets_in: Some(400),
                    packets_out: seen(600),
                    bytes_in: Some(5_000),
                    bytes_out: seen(7_000),
                    outcomes: Outcomes {
                        client_resets: 1,
                        backend_resets: seen(2),
                        refused: seen(1),
                        failed: 8,
                        syn_retransmits: 4,
                        retransmits: 9,
                        handshakes: seen(25),
                        handshake_ns: seen(50_000),
                        redispatched: 5,
                        lived_ms: 6_000,
                    },
                    unread: false,
                },
                "{case}"
            );
        }
    }

    #[test]
    fn what_local_udp_sockets_carry_is_unknown_not_zero() {
        let mut report = report();
        let mut counted = counted([NAT; 2], Place::Elsewhere);
        for service in counted.services.values_mut() {
            service.stats.unseen = 1;
        }
        for backend in counted.backends.values_mut() {
            backend.traffic.unseen = 1;
        }
        fill(&mut report, &counted);
        let service = &report.services[0];
        let (whole, one) = (&service.traffic, &service.backends[0].traffic);
        for number in [
            whole.packets_in,
            whole.packets_out,
            whole.bytes_in,
            whole.bytes_out,
            one.packets_in,
            one.packets_out,
            one.bytes_in,
            one.bytes_out,
        ] {
            assert_eq!(number, None);
        }
        assert_eq!((whole.flows_new, one.flows_new), (30, 30));
        assert_eq!(one.outcomes.backend_resets, Some(2));
    }

    #[test]
    fn of_one_service_the_backends_at_peers_alone_are_unknown() {
        const OTHER: &str = "10.0.0.2:8080";
        let mut report = report();
        let services = Arc::make_mut(&mut report.services);
        let backends = &mut services[0].backends;
        backends.push(BackendReport {
            addr: OTHER.parse().unwrap(),
            ..backends[0].clone()
        });
        let mut counted = counted([DSR_GENEVE, NAT], Place::AtPeer);
        let [peer, other] = [ADDR, OTHER].map(|at| Endpoint::new(at.parse().unwrap(), 6));
        let counts = BackendCounts {
            is_at_peer: false,
            ..counted.backends[&peer]
        };
        counted.backends.insert(other, counts);
        fill(&mut report, &counted);
        let backends = &report.services[0].backends;
        let known = backends.iter().map(|backend| backend.traffic.bytes_out);
        assert_eq!(known.collect::<Vec<_>>(), [None, Some(7_000)]);
        assert_eq!(report.services[0].traffic.bytes_out, None);
    }
}
