//! Places that nobody declares any more: they stay for the flows that came by them, and new ones are refused.
//!
//! A name keeps its leased address for good, and with it its flows. An IP VIP, and a port of the node's own addresses,
//! is given back once a walk through the flow tables has found no flow of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use arc_swap::ArcSwap;
use lb_common::addr_flag;
use tokio::sync::Notify;
use tracing::info;

use crate::{
    catalog::{Desired, Policy},
    datapath::{
        NodePort,
        flows::{Census, Places},
    },
    plan::{Endpoint, KernelState, Wanted},
};

/// What the control loop asks the walks through the flow tables: which of these places have flows?
#[derive(Debug, Default)]
pub(super) struct Leaving {
    asked: ArcSwap<Places>,
    answered: Notify,
}

// === impl Leaving ===

impl Leaving {
    /// What a walk that begins now is asked.
    pub(super) fn asked(&self) -> Arc<Places> {
        self.asked.load_full()
    }

    /// A walk is over. The loop hears of it if there is something to give back.
    pub(super) fn answer(&self, census: &Census) {
        if census.with_flows.count() < census.asked.count() {
            self.answered.notify_one();
        }
    }

    /// Waits until some place has no flow left.
    pub(super) async fn answered(&self) {
        self.answered.notified().await;
    }

    /// Of the places that nobody wants, those that stay: until a walk that began after they were asked about found no
    /// flow of them. An answer to another question is none, since there may have been flows in between.
    pub(super) fn staying(&self, mut unwanted: Places, census: &Census) -> Places {
        let asked = self.asked.load();
        if Arc::ptr_eq(&asked, &census.asked) {
            let found = &census.with_flows;
            let stays = |addr: &IpAddr| !asked.vips.contains(addr) || found.vips.contains(addr);
            unwanted.vips.retain(stays);
            let stays = |at: &Endpoint| !asked.at_node.contains(at) || found.at_node.contains(at);
            unwanted.at_node.retain(stays);
        }
        unwanted
    }

    /// To be called when no new flow can come by these places any more; `vips`: all that the maps now hold.
    pub(super) fn ask(&self, staying: Places, vips: &BTreeSet<IpAddr>) {
        let before = self.asked.load();
        if **before == staying {
            return;
        }
        for addr in staying.vips.difference(&before.vips) {
            info!(%addr, "nobody declares this IP VIP any more; its address stays while it has flows");
        }
        for addr in before.vips.difference(vips) {
            info!(%addr, "the address of an IP VIP that nobody declares any more is given back");
        }
        self.asked.store(Arc::new(staying));
    }
}

/// What the maps hold and nobody wants: IP VIPs, and of the node's ports where services stand or stood, `standing`,
/// those without one. An IP VIP that the operator does not allow any more, or that is in use as a backend or its host
/// by now, is given back at once.
pub(super) fn unwanted(
    have: &KernelState,
    standing: &BTreeSet<NodePort>,
    want: &Wanted,
    desired: &Desired,
    policy: &Policy,
) -> Places {
    let vips = have.addresses.iter();
    let vips = vips.filter(|(_, flags)| *flags & addr_flag::VIP != 0);
    let vips = vips
        .map(|(addr, _)| *addr)
        .filter(|addr| !want.vips.contains(addr))
        .filter(|addr| policy.refuse_ip_vip(*addr).is_none() && !is_in_use(desired, *addr))
        .collect();
    let left = by_port(standing, want).into_iter();
    let left = left.filter(|(_, at)| !at.iter().any(|at| want.services.contains_key(at)));
    Places {
        vips,
        at_node: left.flat_map(|(_, at)| at).collect(),
    }
}

/// The node's ports that are given back: no service stands there, and no flow keeps them.
pub(super) fn released(
    standing: &BTreeSet<NodePort>,
    want: &Wanted,
    staying: &Places,
) -> BTreeSet<NodePort> {
    let kept = |at: &Endpoint| want.services.contains_key(at) || staying.at_node.contains(at);
    let ports = by_port(standing, want).into_iter();
    ports
        .filter(|(_, at)| !at.iter().any(kept))
        .map(|(port, _)| port)
        .collect()
}

/// Where each port is: at every address of the node.
fn by_port(ports: &BTreeSet<NodePort>, want: &Wanted) -> BTreeMap<NodePort, Vec<Endpoint>> {
    let at = |(port, proto): NodePort| {
        let addresses = want.node_addresses.iter();
        let at = addresses.map(|addr| Endpoint {
            addr: *addr,
            port,
            proto,
        });
        at.collect()
    };
    ports.iter().map(|port| (*port, at(*port))).collect()
}

/// Whether a backend or its host has the address.
fn is_in_use(desired: &Desired, addr: IpAddr) -> bool {
    let mut backends = desired.services.values().flat_map(|one| &one.backends);
    backends.any(|backend| {
        let host = backend.host.as_ref().and_then(|host| host.parse().ok());
        backend.addr.ip() == addr || host == Some(addr)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        catalog::{CatalogBackend, Service, ServiceKey},
        plan::WantedService,
    };

    const TCP: u8 = 6;

    fn addrs(texts: &[&str]) -> BTreeSet<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn vips(texts: &[&str]) -> Places {
        Places {
            vips: addrs(texts),
            ..Places::default()
        }
    }

    fn at(text: &str) -> Endpoint {
        Endpoint::new(text.parse().unwrap(), TCP)
    }

    #[test]
    fn an_ip_vip_that_nobody_wants_stays_unless_it_is_forbidden_or_in_use() {
        let mut have = KernelState::default();
        for vip in addrs(&[
            "10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4", "11.0.0.1", "10.1.0.5",
        ]) {
            have.addresses.insert(vip, addr_flag::VIP);
        }
        let own = "10.1.0.9".parse().unwrap();
        have.addresses.insert(own, addr_flag::NODE);
        let want = Wanted {
            vips: addrs(&["10.1.0.1"]),
            ..Wanted::default()
        };
        let policy = Policy {
            ip_vips: vec!["10.1.0.0/16".parse().unwrap()],
            forbidden: addrs(&["10.1.0.2"]),
            ..Policy::default()
        };
        let on = CatalogBackend {
            host: Some("10.1.0.4".into()),
            ..CatalogBackend::plain("10.1.0.3:80")
        };
        let service = Service {
            name: None,
            properties: Arc::default(),
            backends: vec![on],
        };
        let desired = Desired {
            services: [(ServiceKey::tcp("10.1.0.1:80"), service)].into(),
            ..Desired::default()
        };
        let found = unwanted(&have, &BTreeSet::new(), &want, &desired, &policy);
        assert_eq!(found, vips(&["10.1.0.5"]));
    }

    #[test]
    fn a_port_of_the_node_is_given_back_when_no_service_and_no_flow_is_there() {
        let (nothing, desired, policy) = (
            KernelState::default(),
            Desired::default(),
            Policy::default(),
        );
        let mut want = Wanted {
            node_addresses: addrs(&["10.0.0.1", "fd00::1"]),
            ..Wanted::default()
        };
        want.services
            .insert(at("10.0.0.1:10000"), Arc::new(WantedService::default()));
        let standing = BTreeSet::from([(10_000, TCP), (10_001, TCP), (10_002, TCP)]);
        let left = unwanted(&nothing, &standing, &want, &desired, &policy);
        let expected = [
            "10.0.0.1:10001",
            "10.0.0.1:10002",
            "[fd00::1]:10001",
            "[fd00::1]:10002",
        ];
        assert_eq!(left.at_node, expected.map(at).into());
        let staying = Places {
            at_node: [at("[fd00::1]:10001")].into(),
            ..Places::default()
        };
        let given = released(&standing, &want, &staying);
        assert_eq!(given, [(10_002, TCP)].into());
    }

    #[test]
    fn a_place_stays_until_a_walk_that_was_asked_about_it_finds_no_flow() {
        let leaving = Leaving::default();
        let gone = || Places {
            at_node: [at("10.0.0.1:10000"), at("10.0.0.1:10001")].into(),
            ..vips(&["10.1.0.1", "10.1.0.2"])
        };
        let ask = |places: Places| {
            let held = places.vips.clone();
            leaving.ask(places, &held);
        };
        let walk = |with_flows: Places| Census {
            asked: leaving.asked(),
            with_flows,
            ..Census::default()
        };
        let before = walk(Places::default());
        assert_eq!(leaving.staying(gone(), &Census::default()), gone());
        assert_eq!(leaving.staying(gone(), &before), gone(), "nobody asked");
        ask(gone());
        assert_eq!(leaving.staying(gone(), &before), gone(), "asked too late");
        let second = || Places {
            at_node: [at("10.0.0.1:10001")].into(),
            ..vips(&["10.1.0.2"])
        };
        let after = walk(second());
        assert_eq!(leaving.staying(gone(), &after), second());
        ask(second());
        let none = walk(Places::default());
        assert_eq!(leaving.staying(second(), &none), Places::default());

        // The first is declared again, and leaves again: what was found before does not count.
        ask(gone());
        assert_eq!(leaving.staying(gone(), &after), gone());
    }

    #[tokio::test]
    async fn the_loop_hears_of_an_answer_that_gives_something_back() {
        use futures_util::FutureExt as _;

        let leaving = Leaving::default();
        leaving.ask(vips(&["10.1.0.1"]), &addrs(&["10.1.0.1"]));
        let walk = |with_flows: Places| Census {
            asked: leaving.asked(),
            with_flows,
            ..Census::default()
        };
        leaving.answer(&walk(vips(&["10.1.0.1"])));
        assert!(leaving.answered().now_or_never().is_none());
        leaving.answer(&walk(Places::default()));
        assert!(leaving.answered().now_or_never().is_some());
    }
}
