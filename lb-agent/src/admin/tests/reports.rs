//! Services and backends for reports.

use crate::{
    admin::report::{BackendReport, BackendState, ServiceReport, ServiceTraffic, Traffic},
    catalog::{Port, Protocol},
};

pub(in crate::admin) fn service(
    name: Option<&str>,
    addr: &str,
    port: u16,
    backends: &[&str],
) -> ServiceReport {
    ServiceReport {
        name: name.map(str::to_owned),
        addrs: vec![addr.parse().unwrap()],
        port: Port::new(port).unwrap(),
        protocol: Protocol::Tcp,
        algorithm: "maglev".into(),
        mode: "auto".into(),
        external: Vec::new(),
        called: None,
        address_not_agreed: false,
        stopped: false,
        check: None,
        fail_open: false,
        backends: backends.iter().copied().map(backend).collect(),
        traffic: ServiceTraffic::default(),
        id: 0,
        limits: Default::default(),
        probe: None,
        stands_at: Vec::new(),
    }
}

pub(super) fn backend(addr: &str) -> BackendReport {
    BackendReport {
        addr: addr.parse().unwrap(),
        weight: 1,
        state: BackendState::Active,
        since: None,
        why: None,
        provider: "marathon:marathon".into(),
        app: "/app".into(),
        task: "app.1".into(),
        instance: None,
        host: None,
        called: None,
        traffic: Traffic::default(),
        declared: Default::default(),
        health: Default::default(),
    }
}
