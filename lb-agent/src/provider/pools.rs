//! Collects backends into pools, whatever order an orchestrator tells them in.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::catalog::{Port, Properties, Protocol};

use super::{Backend, Pool, VipHost};

/// What tells one declaration of a VIP from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PoolKey {
    /// Who declares it.
    pub app: Arc<str>,
    /// The VIP as declared.
    pub host: VipHost,
    /// The VIP's port.
    pub port: Port,
    /// The VIP's protocol.
    pub protocol: Protocol,
}

/// Pools under construction; sorted, so that equal states give equal snapshots.
#[derive(Clone, Debug, Default)]
pub struct Pools(BTreeMap<PoolKey, Collected>);

/// A pool under construction.
#[derive(Clone, Debug, Default)]
struct Collected {
    properties: Option<Arc<Properties>>,
    backends: BTreeMap<SocketAddr, Backend>,
}

// === impl PoolKey ===

impl From<&Pool> for PoolKey {
    fn from(pool: &Pool) -> Self {
        let Pool {
            host,
            port,
            protocol,
            app,
            properties: _,
            backends: _,
        } = pool;
        Self {
            app: Arc::clone(app),
            host: host.clone(),
            port: *port,
            protocol: *protocol,
        }
    }
}

// === impl Pools ===

impl Pools {
    /// Makes the pool exist, with no backend yet.
    pub fn declare(&mut self, key: PoolKey) {
        self.0.entry(key).or_default();
    }

    /// Gives the pool its properties; `false` if it has others already, which stay.
    pub fn shape(&mut self, key: &PoolKey, properties: &Arc<Properties>) -> bool {
        let pool = self.0.entry(key.clone()).or_default();
        pool.properties
            .get_or_insert_with(|| Arc::clone(properties))
            == properties
    }

    /// What the pool was given.
    pub fn properties(&self, key: &PoolKey) -> Option<&Arc<Properties>> {
        self.0.get(key)?.properties.as_ref()
    }

    /// Adds a backend. Of two with the same address the one with the higher weight stays; an IP VIP
    /// takes only backends of its own family, and `false` says that this one is not.
    pub fn add(&mut self, key: PoolKey, backend: Backend) -> bool {
        let fits = match key.host {
            VipHost::Named { .. } => true,
            VipHost::Addr(IpAddr::V4(_)) => backend.addr.is_ipv4(),
            VipHost::Addr(IpAddr::V6(_)) => backend.addr.is_ipv6(),
        };
        let pool = &mut self.0.entry(key).or_default().backends;
        if fits
            && pool
                .get(&backend.addr)
                .is_none_or(|there| there.weight < backend.weight)
        {
            pool.insert(backend.addr, backend);
        }
        fits
    }

    /// Adds all of another's pools to these.
    pub fn extend(&mut self, other: Self) {
        for (key, pool) in other.0 {
            self.declare(key.clone());
            if let Some(properties) = &pool.properties {
                self.shape(&key, properties);
            }
            for backend in pool.backends.into_values() {
                self.add(key.clone(), backend);
            }
        }
    }

    /// The pools, sorted by app, VIP, port and protocol; backends sorted by address.
    pub fn into_vec(self) -> Vec<Pool> {
        let pool = |(key, collected): (PoolKey, Collected)| {
            let PoolKey {
                app,
                host,
                port,
                protocol,
            } = key;
            Pool {
                host,
                port,
                protocol,
                app,
                properties: collected.properties,
                backends: collected.backends.into_values().collect(),
            }
        };
        self.0.into_iter().map(pool).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Weight;

    fn key(host: VipHost) -> PoolKey {
        let port = Port::new(80).unwrap();
        PoolKey {
            app: "/a".into(),
            host,
            port,
            protocol: Protocol::Tcp,
        }
    }

    fn backend(addr: &str, weight: Weight, task: &str) -> Backend {
        Backend {
            addr: addr.parse().unwrap(),
            weight,
            max_flows: 0,
            backup: false,
            zone: None,
            task: task.into(),
            instance: None,
            host: None,
            healthy: false,
            draining: None,
        }
    }

    #[test]
    fn of_two_backends_with_one_address_the_heavier_stays() {
        let name = VipHost::Named {
            name: "/a".into(),
            framework: "f".into(),
        };
        let mut pools = Pools::default();
        for (weight, task) in [
            (Weight::DRAIN, "1"),
            (Weight::ONE, "2"),
            (Weight::DRAIN, "3"),
        ] {
            assert!(pools.add(key(name.clone()), backend("10.0.0.1:1", weight, task)));
        }
        let pools = pools.into_vec();
        assert_eq!(pools[0].backends, [backend("10.0.0.1:1", Weight::ONE, "2")]);
    }

    #[test]
    fn an_ip_vip_takes_only_its_own_family() {
        let mut pools = Pools::default();
        let vip = key(VipHost::Addr("fd01:c::1".parse().unwrap()));
        assert!(!pools.add(vip.clone(), backend("10.0.0.1:1", Weight::ONE, "4")));
        assert!(pools.add(vip, backend("[fd01::1]:1", Weight::ONE, "6")));
        assert_eq!(pools.into_vec()[0].backends.len(), 1);
    }
}
