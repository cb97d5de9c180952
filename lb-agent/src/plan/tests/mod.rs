//! Plans as text, convergence through a kernel that fails, Maglev's properties.

mod converge;
mod delta;
mod fake;
mod full;
mod golden;
mod hops;
mod maglev;
mod peers;
mod shape;
mod shared;

use std::sync::Arc;

use super::{
    BackendState, Endpoint, KernelState, Limits, Plan, Reach, Wanted, WantedBackend, WantedService,
    plan,
};
use crate::catalog::Weight;

const ROOMY: Limits = Limits {
    services: 100,
    backends: 100,
    tables: [100; 3],
    addresses: 100,
    sources: 100,
    listed: 100,
    locals: 100,
};

fn tcp(addr: &str) -> Endpoint {
    Endpoint::new(addr.parse().unwrap(), 6)
}

/// A backend that is up.
fn backend(addr: &str, weight: u16) -> WantedBackend {
    WantedBackend {
        addr: addr.parse().unwrap(),
        weight: Weight::new(weight).unwrap(),
        max_flows: 0,
        tier: 0,
        state: BackendState::Up,
        reach: Reach::Net {
            ifindex: 2,
            next_hop: 0,
        },
        peer: lb_common::Peer::default(),
    }
}

fn in_state(state: BackendState, addr: &str, weight: u16) -> WantedBackend {
    WantedBackend {
        state,
        ..backend(addr, weight)
    }
}

/// A service that fails open; its VIP is wanted too.
fn serve(want: &mut Wanted, vip: &str, backends: &[WantedBackend]) {
    let key = tcp(vip);
    want.vips.insert(key.addr);
    let service = WantedService {
        fail_open: true,
        backends: backends.to_vec(),
        ..WantedService::default()
    };
    want.services.insert(key, Arc::new(service));
}

/// Plans and applies everything.
fn carry_out(have: &mut KernelState, want: &Wanted) -> Plan {
    let plan = plan(have, want, &ROOMY);
    for op in &plan.ops {
        have.record(op.clone());
    }
    plan
}
