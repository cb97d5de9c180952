//! Backends as they are declared: which can be one, where they are, and which of several is meant.

use std::net::{IpAddr, SocketAddr};

use super::CatalogBackend;
use crate::provider::{Backend, Pool, VipHost};

/// Where a pool's backends and their hosts are, as far as that is known by address. That a backend of an IP VIP is the
/// VIP itself is the backend's fault.
pub(super) fn hosts(pool: &Pool) -> impl Iterator<Item = IpAddr> {
    let vip = match pool.host {
        VipHost::Addr(addr) => Some(addr.to_canonical()),
        VipHost::Named { .. } => None,
    };
    let of = |backend: &Backend| {
        let host = backend.host.as_ref().and_then(|host| host.parse().ok());
        host.into_iter().chain([backend.addr.ip()])
    };
    let all = pool.backends.iter().flat_map(of);
    all.map(|addr: IpAddr| addr.to_canonical())
        .filter(move |addr| Some(*addr) != vip)
}

/// Why a backend cannot be one, wherever it is declared.
pub(super) fn unusable(backend: &Backend) -> Option<&'static str> {
    unfit(canonical_addr(backend))
}

/// Why nothing that is there can be a backend; `at` is canonical.
pub(crate) fn unfit(at: SocketAddr) -> Option<&'static str> {
    match at.ip() {
        _ if at.port() == 0 => Some("it has port 0"),
        ip if ip.is_unspecified() => Some("its address is unspecified"),
        ip if ip.is_multicast() => Some("its address is a multicast group"),
        _ => None,
    }
}

/// An IPv4 address written as `::ffff:a.b.c.d` is an IPv4 backend.
pub(super) fn canonical_addr(backend: &Backend) -> SocketAddr {
    SocketAddr::new(backend.addr.ip().to_canonical(), backend.addr.port())
}

/// Ascending, each address once with its highest weight.
pub(super) fn merge_backends(backends: &mut Vec<CatalogBackend>) {
    backends.sort_by(|a, b| {
        let identity = |x: &CatalogBackend| {
            let provider = x.provider.clone();
            (provider, x.app.clone(), x.task.clone(), x.draining)
        };
        (a.addr.cmp(&b.addr))
            .then(b.weight.cmp(&a.weight))
            .then_with(|| identity(a).cmp(&identity(b)))
    });
    backends.dedup_by_key(|backend| backend.addr);
}
