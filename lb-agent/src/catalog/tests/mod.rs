//! What becomes of declarations: what they are made of here, and how the tests read the outcome.

mod bounds;
mod kept;
mod merging;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::*;
use crate::{
    provider::{Alias, Backend, Pool, Problem, ProviderId, Snapshot, Update, VipHost},
    vip::{Allocator, Leases, Pools, VipName},
};

fn provider(name: &str) -> ProviderId {
    ProviderId::new("test", name)
}

fn backend(addr: &str) -> Backend {
    Backend {
        addr: addr.parse().expect("a socket address"),
        weight: Weight::ONE,
        max_flows: 0,
        backup: false,
        zone: None,
        task: format!("task at {addr}").into(),
        instance: None,
        host: None,
        healthy: false,
        draining: None,
    }
}

fn drained(addr: &str) -> Backend {
    Backend {
        weight: Weight::DRAIN,
        draining: Some(Drain::unfit("unhealthy")),
        ..backend(addr)
    }
}

/// A TCP pool of `app`; `host` is an IP VIP if it parses as one.
fn pool(app: &str, host: &str, port: u16, backends: &[Backend]) -> Pool {
    Pool {
        host: match host.parse() {
            Ok(addr) => VipHost::Addr(addr),
            Err(_) => VipHost::Named {
                name: host.into(),
                framework: "marathon".into(),
            },
        },
        port: Port::new(port).expect("a port"),
        protocol: Protocol::Tcp,
        app: app.into(),
        properties: None,
        backends: backends.to_vec(),
    }
}

/// One with this limit.
fn shaped(pool: Pool, rate: u32) -> Pool {
    let properties = Properties {
        rate,
        ..Properties::default()
    };
    Pool {
        properties: Some(properties.into()),
        ..pool
    }
}

fn read(name: &str, pools: &[Pool]) -> Update {
    Update {
        provider: provider(name),
        at: SystemTime::UNIX_EPOCH,
        outcome: Ok(Arc::new(Snapshot {
            pools: pools.to_vec(),
            ..Snapshot::default()
        })),
    }
}

fn failed(name: &str, at: u64) -> Update {
    Update {
        provider: provider(name),
        at: SystemTime::UNIX_EPOCH + Duration::from_secs(at),
        outcome: Err("connection refused".to_owned()),
    }
}

fn catalog(updates: impl IntoIterator<Item = Update>) -> Catalog {
    let mut catalog = Catalog::default();
    for update in updates {
        catalog.apply(update);
    }
    catalog
}

fn allocator() -> Allocator {
    Allocator::new(Pools::default(), Leases::default())
}

fn resolve(pools: &[Pool]) -> Desired {
    catalog([read("a", pools)]).resolve(&Policy::default(), &mut allocator())
}

fn ip_vips(ranges: &[&str]) -> Policy {
    let ranges = ranges.iter().map(|r| r.parse().expect("a prefix"));
    Policy {
        ip_vips: ranges.collect(),
        ..Policy::default()
    }
}

/// `11.0.0.1:80/tcp -> 10.0.0.1:80 10.0.0.2:80=0`, a line for each service.
fn lines(desired: &Desired) -> Vec<String> {
    let line = |(key, service): (&ServiceKey, &Service)| {
        let mut line = format!("{key} ->");
        for backend in &service.backends {
            line += &format!(" {}", backend.addr);
            if backend.weight != Weight::ONE {
                line += &format!("={}", backend.weight);
            }
        }
        line
    };
    desired.services.iter().map(line).collect()
}

fn name(canonical: &str) -> VipName {
    VipName::from_canonical(canonical).expect("a canonical name")
}

fn problems(desired: &Desired, kind: NoticeKind) -> Vec<String> {
    let of_kind = desired.problems.iter().filter(|n| n.kind == kind);
    of_kind.map(ToString::to_string).collect()
}
