//! Many services: as a plan wants them, and as a services file lists them.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use lb_agent::{
    catalog::Weight,
    plan::{BackendState, Endpoint, Reach, Wanted, WantedBackend, WantedService},
};

use super::BACKENDS;

const TCP: u8 = 6;

/// Ports of every service and backend.
const VIP_PORT: u16 = 80;
const BACKEND_PORT: u16 = 8080;

/// The VIPs' prefix; a service's number is added.
const VIPS: u32 = 0x0A80_0001;

/// Where backends are; no two services share one.
const BACKENDS_FROM: u32 = 0x0A10_0001;

/// The prefix of [`VIPS`], for the agent.
pub(super) const VIP_PREFIX: &str = "10.128.0.0/16";

/// A service's key.
pub(super) fn key(service: usize) -> Endpoint {
    Endpoint {
        addr: vip(service).into(),
        port: VIP_PORT,
        proto: TCP,
    }
}

/// Where a service's backend listens.
pub(super) fn backend_addr(service: usize, backend: usize) -> SocketAddr {
    let number = (service * BACKENDS + backend) as u32;
    (Ipv4Addr::from(BACKENDS_FROM + number), BACKEND_PORT).into()
}

fn vip(service: usize) -> Ipv4Addr {
    Ipv4Addr::from(VIPS + service as u32)
}

/// All of them, up and of weight 1.
pub(super) fn wanted(services: usize) -> Wanted {
    let mut wanted = Wanted::default();
    for service in 0..services {
        let key = key(service);
        let backends = (0..BACKENDS).map(|backend| WantedBackend {
            addr: backend_addr(service, backend),
            weight: Weight::ONE,
            max_flows: 0,
            tier: 0,
            state: BackendState::Up,
            reach: Reach::Net {
                ifindex: 1,
                next_hop: 0,
            },
            peer: lb_common::Peer::default(),
        });
        let value = WantedService {
            fail_open: true,
            backends: backends.collect(),
            ..WantedService::default()
        };
        wanted.vips.insert(key.addr);
        wanted.services.insert(key, Arc::new(value));
    }
    wanted
}

/// Changes one service's backends.
pub(super) fn change(
    wanted: &mut Wanted,
    service: usize,
    act: impl FnOnce(&mut Vec<WantedBackend>),
) -> Result<()> {
    let service = wanted
        .services
        .get_mut(&key(service))
        .context("no such service")?;
    act(&mut Arc::make_mut(service).backends);
    Ok(())
}

/// A file that lists them; one backend is of weight 0, one is left out.
pub(super) fn file(
    services: usize,
    drained: Option<(usize, usize)>,
    removed: Option<(usize, usize)>,
) -> String {
    let mut text = "services:\n".to_owned();
    for service in 0..services {
        let _ = write!(
            text,
            "  - address: {}\n    port: {VIP_PORT}\n    backends:\n",
            vip(service)
        );
        for backend in 0..BACKENDS {
            let at = backend_addr(service, backend);
            let _ = match Some((service, backend)) {
                this if this == removed => Ok(()),
                this if this == drained => {
                    writeln!(text, "      - {{address: \"{at}\", weight: 0}}")
                }
                _ => writeln!(text, "      - \"{at}\""),
            };
        }
    }
    text
}
