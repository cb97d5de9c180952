//! Resets the flows that a backend has in a service when the operator says so, beside the control loop: a walk through
//! the flow tables takes its time.

use std::collections::BTreeSet;

use anyhow::Result;
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};
use tracing::{error, info};

use super::{Answer, Control, operator::Member, orphans::end_all, wanted::endpoint};
use crate::{
    admin::orders::{Obeyed, Order},
    catalog::Desired,
    datapath::{
        Sockets,
        flows::{FlowTables, Pair},
    },
    plan::{Endpoint, KernelState},
};

/// Whose flows are reset, and who waits for it.
pub(super) type Reset = (BTreeSet<Pair>, oneshot::Sender<Obeyed>);

/// Where flows and sockets are known.
pub(super) struct Places {
    pub(super) tables: FlowTables,
    pub(super) sockets: Sockets,
}

impl Control {
    /// Has flows reset. Whoever does that answers; what is given is to be answered at once.
    pub(super) fn reset(
        &mut self,
        order: &Order,
        answer: oneshot::Sender<Obeyed>,
    ) -> Option<Answer> {
        let asked = self
            .judges
            .to_reset(order, &self.desired)
            .and_then(|members| {
                let have = self.planner.state(self.datapath.kernel());
                let have = have.map_err(|error| format!("{error:#}"))?;
                Ok(pairs(&members, &self.desired, have))
            });
        let pairs = match asked {
            Ok(pairs) => pairs,
            Err(why) => return Some((answer, Err(why))),
        };
        match self.resets.try_send((pairs, answer)) {
            Ok(()) => None,
            Err(TrySendError::Full((_, answer))) => {
                let why = "too many resets are under way; try again when they are done";
                Some((answer, Err(why.to_owned())))
            }
            Err(TrySendError::Closed((_, answer))) => {
                let why = "flows are not reset any more: the log says why";
                Some((answer, Err(why.to_owned())))
            }
        }
    }
}

/// The kernel's ids for backends of services, and for the services at ports of the node that are the same.
pub(super) fn pairs(
    members: &BTreeSet<Member>,
    desired: &Desired,
    have: &KernelState,
) -> BTreeSet<Pair> {
    let of = |(key, addr): &Member| {
        let same = desired.external.iter().filter(|(_, of)| *of == key);
        let at = same.map(|(at, _)| endpoint(at)).chain([endpoint(key)]);
        let services: Vec<u32> = at
            .filter_map(|at| Some(have.services.get(&at)?.id))
            .collect();
        let backend = Endpoint::new(*addr, key.protocol.number());
        let ids = have.backends.iter();
        let ids = ids.filter(move |(_, value)| Endpoint::of(value) == Some(backend));
        ids.flat_map(move |(id, _)| {
            services.clone().into_iter().map(|service| Pair {
                service,
                backend: *id,
            })
        })
        .collect::<Vec<_>>()
    };
    members.iter().flat_map(of).collect()
}

/// Serves until the control loop is gone.
pub(super) async fn run(places: Places, mut resets: mpsc::Receiver<Reset>) {
    let mut places = places;
    while let Some((pairs, answer)) = resets.recv().await {
        let done = tokio::task::spawn_blocking(move || {
            let done = places.reset(&pairs);
            (places, done)
        });
        let done = match done.await {
            Ok((kept, done)) => {
                places = kept;
                done
            }
            Err(panicked) => {
                error!("flows are not reset any more: {panicked}");
                return;
            }
        };
        // Who ordered may have gone meanwhile.
        let _ = answer.send(match done {
            Ok(lines) => {
                info!(lines = lines.join("; "), "flows reset");
                Ok(lines)
            }
            Err(error) => {
                error!("cannot reset flows: {error:#}");
                Err(format!("not everything was reset: {error:#}"))
            }
        });
    }
}

// === impl Places ===

impl Places {
    /// What was done, in lines; of flows and sockets each as many as possible.
    fn reset(&mut self, pairs: &BTreeSet<Pair>) -> Result<Vec<String>> {
        let flows = self.tables.reset(pairs);
        let sockets = self.sockets.of(pairs);
        let ended = sockets.and_then(|sockets| end_all(&mut self.sockets, &sockets));
        Ok(vec![
            format!("flows of clients, reset at their next packet: {}", flows?),
            format!("sockets of this node's processes, reset: {}", ended?),
        ])
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::{catalog::ServiceKey, plan::Op};

    #[test]
    fn only_the_backend_in_this_service_is_meant_and_at_ports_of_the_node_too() {
        let mut have = KernelState::default();
        for (at, id) in [
            ("11.0.0.1:80", 1),
            ("11.0.0.2:80", 2),
            ("192.0.2.1:30080", 3),
        ] {
            let key = Endpoint::new(at.parse().unwrap(), 6);
            let value = lb_common::Service {
                id,
                ..Default::default()
            };
            have.record(Op::PutService { key, value });
        }
        for (id, at) in [(7, "10.0.0.1:80"), (8, "10.0.0.2:80")] {
            let at: SocketAddr = at.parse().unwrap();
            let value = lb_common::Backend {
                addr: Endpoint::wide(at.ip()),
                port: lb_common::Be16::new(at.port()),
                proto: 6,
                family: 4,
                state: lb_common::backend_state::DRAINING,
                ..Default::default()
            };
            have.backends.insert(id, value);
        }
        let key = ServiceKey::tcp("11.0.0.1:80");
        let mut desired = Desired::default();
        desired
            .external
            .insert(ServiceKey::tcp("192.0.2.1:30080"), key);
        let first = (key, "10.0.0.1:80".parse().unwrap());
        let of = |members: &[Member]| {
            let members = members.iter().copied().collect();
            let pairs = pairs(&members, &desired, &have).into_iter();
            let pairs = pairs.map(|pair| (pair.service, pair.backend));
            pairs.collect::<Vec<_>>()
        };
        assert_eq!(of(&[first]), [(1, 7), (3, 7)]);
        let gone = (key, "10.0.0.9:80".parse().unwrap());
        assert_eq!(of(&[gone]), []);
    }
}
