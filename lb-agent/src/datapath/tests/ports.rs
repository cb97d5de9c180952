//! The ports of the node's own addresses that are looked at.

use std::net::IpAddr;

use aya::maps::{Array, Map};
use lb_common::{Service, addr_flag, headers::TCP, port_flag};

use super::*;
use crate::plan::{Endpoint, KernelState};

const PORT: u16 = 10_000;

impl Node {
    /// What the programs are told of the port.
    fn port_flags(&self) -> u8 {
        let map = MapData::from_pin(self.pins.join("v1/LB_NODE_PORTS")).unwrap();
        let ports = Array::<_, [u8; layout::NODE_PORTS]>::try_from(Map::Array(map)).unwrap();
        ports.get(&0, 0).unwrap()[usize::from(PORT)]
    }
}

#[test]
fn a_port_without_a_service_is_looked_at_until_it_is_released_by_the_next_agent_too() {
    let node = Node::new("ports");
    let load = || node.load(&[], TcMode::Tcx, XdpMode::Off);
    let mut datapath = load();
    assert_eq!(datapath.standing_ports(), BTreeSet::new());
    assert_eq!(node.port_flags(), 0);
    let own = IpAddr::from([10, 0, 0, 1]);
    let at = Endpoint {
        addr: own,
        port: PORT,
        proto: TCP,
    };
    let mut state = KernelState::default();
    state.addresses.insert(own, addr_flag::NODE);
    state.services.insert(at, Service::default());
    datapath.kernel().finish(&state).unwrap();
    state.services.clear();
    datapath.kernel().finish(&state).unwrap();
    let stands = BTreeSet::from([(PORT, TCP)]);
    assert_eq!(datapath.standing_ports(), stands);
    assert_eq!(node.port_flags(), port_flag::TCP);
    drop(datapath);

    let mut next = load();
    assert_eq!(next.standing_ports(), stands);
    next.kernel().finish(&state).unwrap();
    assert_eq!(node.port_flags(), port_flag::TCP);
    next.release_ports(&stands).unwrap();
    assert_eq!(next.standing_ports(), BTreeSet::new());
    assert_eq!(node.port_flags(), 0);
}
