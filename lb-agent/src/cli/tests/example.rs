//! A report with one of everything.

use super::*;

/// One of everything.
pub(super) fn example() -> StatusReport {
    let backend = |addr: &str, weight, state, why: Option<&str>| BackendReport {
        since: Some(Timestamp(1_000_000)),
        addr: addr.parse().unwrap(),
        weight,
        state,
        why: why.map(str::to_owned),
        provider: "marathon:marathon".into(),
        app: "/dcos-101/app2".into(),
        task: "dcos-101_app2.1".into(),
        instance: None,
        host: None,
        called: None,
        traffic: Traffic::default(),
        declared: Default::default(),
        health: Default::default(),
    };
    let mut app2 = ServiceReport {
        name: Some("dcos-101app2.marathon".into()),
        addrs: vec![
            "11.68.84.23".parse().unwrap(),
            "fd01:c::68c7:ae1c:a5d:109c".parse().unwrap(),
        ],
        port: Port::new(10000).unwrap(),
        protocol: Protocol::Tcp,
        algorithm: "maglev".into(),
        mode: "auto".into(),
        external: vec![10000, 10001],
        called: None,
        address_not_agreed: false,
        stopped: false,
        check: Some("http GET /healthz".to_owned()),
        fail_open: false,
        backends: vec![
            backend("10.0.1.5:28543", 1, BackendState::Active, None),
            backend(
                "10.0.3.9:11017",
                0,
                BackendState::Draining,
                Some("TASK_KILLING"),
            ),
            backend("[fd01:b::2]:8080", 1, BackendState::Down, Some("no answer")),
        ],
        traffic: ServiceTraffic::default(),
        id: 0,
        limits: Default::default(),
        probe: None,
        stands_at: Vec::new(),
    };
    app2.traffic = ServiceTraffic {
        flows_active: 12,
        flows_new: 3_400,
        flows_refused: 5,
        flows_denied: 1,
        flows_limited: 1,
        flows_lost: 1,
        packets_in: Some(61_000),
        packets_out: None,
        bytes_in: Some(4_100_000),
        bytes_out: None,
        handshakes: vec![100, 3_000, 300],
        ..ServiceTraffic::default()
    };
    app2.backends[0].traffic = Traffic {
        flows_active: 12,
        flows_new: 3_000,
        flows_closed: 2_988,
        packets_in: Some(60_000),
        packets_out: Some(90_000),
        bytes_in: Some(4_000_000),
        bytes_out: Some(5_000_000_000),
        outcomes: Outcomes {
            client_resets: 1,
            backend_resets: Some(2),
            refused: Some(1),
            failed: 3,
            syn_retransmits: 4,
            retransmits: 6,
            handshakes: Some(3_000),
            handshake_ns: Some(300_000_000),
            ..Outcomes::default()
        },
        ..Traffic::default()
    };
    app2.backends[1].traffic = Traffic {
        flows_new: 400,
        packets_in: Some(1_000),
        bytes_in: Some(900),
        ..Traffic::default()
    };
    let ip_vip = ServiceReport {
        name: None,
        addrs: vec!["10.1.2.3".parse().unwrap()],
        port: Port::new(5000).unwrap(),
        protocol: Protocol::Udp,
        algorithm: "maglev".into(),
        mode: "auto".into(),
        external: Vec::new(),
        called: None,
        address_not_agreed: true,
        stopped: false,
        check: None,
        fail_open: true,
        backends: vec![],
        traffic: ServiceTraffic::default(),
        id: 0,
        limits: Default::default(),
        probe: None,
        stands_at: Vec::new(),
    };
    let marathon = ProviderReport {
        id: "marathon:marathon".into(),
        last_sync: Some(Timestamp(9_997_000)),
        last_sync_age_ms: Some(3000),
        last_error: None,
        pools: 2,
        problems: vec![ProblemReport {
            subject: "/bad".into(),
            reason: "VIP_0: port 70000 is above 65535".into(),
        }],
    };
    let file = ProviderReport {
        id: "file:/etc/lb-agent/services.yaml".into(),
        last_error: Some(ErrorReport {
            at: Timestamp(9_875_000),
            reason: "No such file or directory".into(),
        }),
        ..ProviderReport::default()
    };
    StatusReport {
        agent: AgentReport {
            version: "0.1.0".into(),
            pid: 4711,
            node: "node-1".into(),
            started: Timestamp(1_000_000),
            now: Timestamp(10_000_000),
        },
        services: vec![app2, ip_vip].into(),
        providers: vec![marathon, file],
        operator: orders::example(),
        datapath: DatapathReport {
            interfaces: vec![InterfaceReport {
                name: "eth0".into(),
                index: 2,
                attached: vec!["xdp native".into(), "tcx egress".into()],
            }],
            cgroup: Some("/sys/fs/cgroup".into()),
            pin_dir: Some("/sys/fs/bpf/lb-agent/v1".into()),
            maps: vec![
                MapReport {
                    name: "services, IPv4".into(),
                    used: 8_192,
                    capacity: 16_384,
                },
                MapReport {
                    name: "backends".into(),
                    used: 3,
                    capacity: 65_536,
                },
            ],
            drops: vec![
                DropReport {
                    reason: "no_backend".into(),
                    packets: 12,
                },
                DropReport {
                    reason: "malformed".into(),
                    packets: 0,
                },
            ],
            snat_tries: vec![900, 90, 0, 1],
        },
        dns: Some(DnsReport {
            listen: vec![
                "127.0.0.1:53".parse().unwrap(),
                "169.254.53.53:53".parse().unwrap(),
            ],
            upstreams: vec!["10.0.0.2:53".parse().unwrap()],
            names: 1,
        }),
        warnings: vec!["/a/b and /ab share the name ab.marathon".into()],
        addresses_pending: 0,
    }
}
