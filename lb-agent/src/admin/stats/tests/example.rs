//! A sample whose numbers are all different.

use std::sync::Arc;

use crate::{
    admin::{
        report::{
            AgentReport, BackendReport, BackendState, Connections, DeclaredReport, Outcomes,
            ServiceReport, ServiceTraffic, StatusReport, Timestamp, Traffic,
        },
        stats::{sample::Sample, sampler::Sampler},
    },
    catalog::{Port, Protocol},
};

pub(crate) fn backend(addr: &str, state: BackendState, why: Option<&str>) -> BackendReport {
    BackendReport {
        addr: addr.parse().unwrap(),
        weight: 3,
        state,
        why: why.map(str::to_owned),
        since: Some(Timestamp(1_000)),
        provider: "file:/etc/a".into(),
        app: "<b>&\"".into(),
        task: "t".into(),
        instance: None,
        host: None,
        called: None,
        traffic: Traffic {
            flows_active: 2,
            flows_new: 40,
            bytes_in: Some(500),
            bytes_out: Some(600),
            outcomes: Outcomes {
                client_resets: 1,
                backend_resets: Some(5),
                refused: Some(2),
                failed: 3,
                syn_retransmits: 4,
                handshakes: Some(30),
                handshake_ns: Some(60_000_000),
                redispatched: 6,
                lived_ms: 700,
                ..Outcomes::default()
            },
            flows_closed: 10,
            ..Traffic::default()
        },
        declared: DeclaredReport {
            weight: 4,
            ..Default::default()
        },
        health: Default::default(),
    }
}

/// As if nobody shared these backends.
fn connections(backends: &[BackendReport]) -> Connections {
    let mut all = Connections {
        closed: 0,
        outcomes: Outcomes {
            backend_resets: Some(0),
            refused: Some(0),
            handshakes: Some(0),
            handshake_ns: Some(0),
            ..Outcomes::default()
        },
    };
    let add = |sum: &mut Option<u64>, one: Option<u64>| *sum = sum.zip(one).map(|(a, b)| a + b);
    for backend in backends {
        let Outcomes {
            client_resets,
            backend_resets,
            refused,
            failed,
            syn_retransmits,
            retransmits,
            handshakes,
            handshake_ns,
            redispatched,
            lived_ms,
        } = backend.traffic.outcomes;
        let sum = &mut all.outcomes;
        sum.client_resets += client_resets;
        sum.failed += failed;
        sum.syn_retransmits += syn_retransmits;
        sum.retransmits += retransmits;
        sum.redispatched += redispatched;
        sum.lived_ms += lived_ms;
        add(&mut sum.backend_resets, backend_resets);
        add(&mut sum.refused, refused);
        add(&mut sum.handshakes, handshakes);
        add(&mut sum.handshake_ns, handshake_ns);
        all.closed += backend.traffic.flows_closed;
    }
    all
}

pub(crate) fn service(name: Option<&str>, id: u32, backends: Vec<BackendReport>) -> ServiceReport {
    let connections = connections(&backends);
    ServiceReport {
        name: name.map(str::to_owned),
        addrs: vec!["11.0.0.1".parse().unwrap()],
        port: Port::new(80).unwrap(),
        protocol: Protocol::Tcp,
        algorithm: "least-conn".into(),
        mode: "auto".into(),
        external: Vec::new(),
        called: None,
        address_not_agreed: false,
        stopped: false,
        check: None,
        fail_open: false,
        backends,
        traffic: ServiceTraffic {
            flows_active: 4,
            flows_new: 80,
            flows_refused: 10,
            flows_denied: 1,
            flows_limited: 2,
            flows_lost: 3,
            bytes_in: Some(1_000),
            bytes_out: None,
            handshakes: vec![1; 16],
            malformed: 9,
            connections,
            ..ServiceTraffic::default()
        },
        id,
        limits: Default::default(),
        stands_at: Vec::new(),
        probe: None,
    }
}

pub(crate) fn sample(services: Vec<ServiceReport>) -> Sample {
    let mut report = StatusReport {
        agent: AgentReport {
            version: "1.2.3".into(),
            pid: 42,
            node: "n1".into(),
            now: Timestamp(11_000),
            ..AgentReport::default()
        },
        services: Arc::new(services),
        ..StatusReport::default()
    };
    let mut sampler = Sampler::default();
    sampler.take(report.clone(), true);
    for service in Arc::make_mut(&mut report.services) {
        service.traffic.flows_new += 7;
    }
    report.agent.now = Timestamp(12_000);
    sampler.take(report, true)
}
