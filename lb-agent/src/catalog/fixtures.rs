//! What tests of other modules make services of.

use super::{CatalogBackend, Port, Protocol, ServiceKey, Weight};
use crate::provider::ProviderId;

impl CatalogBackend {
    /// An instance at `addr` that takes new flows, with nothing special about it.
    pub(crate) fn plain(addr: &str) -> Self {
        Self {
            addr: addr.parse().unwrap(),
            weight: Weight::ONE,
            max_flows: 0,
            backup: false,
            zone: None,
            task: "task".into(),
            instance: None,
            host: None,
            called: None,
            app: "app".into(),
            provider: ProviderId::new("test", "a"),
            healthy: false,
            draining: None,
        }
    }
}

impl ServiceKey {
    /// TCP at `vip`, an address with its port.
    pub(crate) fn tcp(vip: &str) -> Self {
        let vip: std::net::SocketAddr = vip.parse().unwrap();
        Self {
            addr: vip.ip(),
            port: Port::new(vip.port()).unwrap(),
            protocol: Protocol::Tcp,
        }
    }
}
