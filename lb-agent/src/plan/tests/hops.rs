//! Indices stay with their neighbours, and a change of one neighbour is one write.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::NextHop;

use crate::plan::{HopOp, Neighbour, NextHops, Port, RouteMtu};

const ETH0: u32 = 2;
const ELSEWHERE: u32 = 9;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const PORT: Port = Port {
    mac: [2, 0, 0, 0, 0, 0xff],
    mtu: 1500,
};

fn at(addr: &str) -> Neighbour {
    Neighbour {
        ifindex: ETH0,
        addr: addr.parse().unwrap(),
    }
}

/// An array of this length, with `eth0` up.
fn hops(len: u16) -> NextHops {
    let mut hops = NextHops::new(len, [ETH0]);
    hops.set_port(ETH0, Some(PORT));
    hops
}

/// The maps of names and next hops.
#[derive(Clone, Debug, Default, PartialEq)]
struct Maps {
    names: BTreeMap<Neighbour, u32>,
    array: BTreeMap<u16, NextHop>,
}

impl Maps {
    /// Does everything that is to be done; gives the number of writes.
    fn follow(&mut self, hops: &mut NextHops) -> usize {
        let ops = hops.ops();
        for op in &ops {
            match *op {
                HopOp::Name { neighbour, index } => {
                    self.names.insert(neighbour, index.into());
                }
                HopOp::Put { index, value } => {
                    self.array.insert(index, value);
                }
                HopOp::Forget(neighbour) => {
                    self.names.remove(&neighbour);
                }
            }
            hops.done(op);
        }
        assert_eq!(hops.ops(), [], "all is done");
        ops.len()
    }

    fn of(&self, neighbour: Neighbour) -> NextHop {
        self.array[&u16::try_from(self.names[&neighbour]).unwrap()]
    }
}

fn bytes(halves: [u16; 3]) -> Vec<u8> {
    halves.iter().flat_map(|half| half.to_ne_bytes()).collect()
}

#[test]
fn a_neighbour_is_published_with_the_addresses_and_mtu_of_its_link() {
    let (mut hops, mut maps) = (hops(10), Maps::default());
    hops.set_neighbour(at("10.0.0.1"), Some(MAC));
    assert_eq!(maps.follow(&mut hops), 2);
    let hop = maps.of(at("10.0.0.1"));
    assert_eq!(
        (bytes(hop.to), bytes(hop.from)),
        (MAC.to_vec(), PORT.mac.to_vec())
    );
    assert_eq!((hop.ifindex, hop.mtu), (ETH0, 1500));
    assert_eq!(hops.index(at("10.0.0.1")), 1);
}

#[test]
fn a_new_mac_address_is_one_write_and_the_same_one_none() {
    let (mut hops, mut maps) = (hops(10), Maps::default());
    hops.set_neighbour(at("10.0.0.1"), Some(MAC));
    maps.follow(&mut hops);
    hops.set_neighbour(at("10.0.0.1"), Some(MAC));
    assert_eq!(maps.follow(&mut hops), 0);
    hops.set_neighbour(at("10.0.0.1"), Some(OTHER_MAC));
    assert_eq!(maps.follow(&mut hops), 1);
    assert_eq!(bytes(maps.of(at("10.0.0.1")).to), OTHER_MAC);
}

#[test]
fn a_neighbour_that_is_gone_keeps_its_index_and_the_kernel_is_asked() {
    let (mut hops, mut maps) = (hops(10), Maps::default());
    hops.set_neighbour(at("10.0.0.1"), Some(MAC));
    maps.follow(&mut hops);
    hops.set_neighbour(at("10.0.0.1"), None);
    hops.set_neighbour(at("10.0.0.2"), Some(MAC));
    assert_eq!(maps.follow(&mut hops), 3);
    assert_eq!(maps.of(at("10.0.0.1")), NextHop::default());
    hops.set_neighbour(at("10.0.0.1"), Some(OTHER_MAC));
    assert_eq!(maps.follow(&mut hops), 1);
    assert_eq!(hops.index(at("10.0.0.1")), 1);
}

#[test]
fn a_backends_neighbour_has_an_index_before_it_is_known() {
    let (mut hops, mut maps) = (hops(10), Maps::default());
    assert_eq!(hops.index(at("fe80::1")), 1);
    assert_eq!(maps.follow(&mut hops), 1, "its name alone");
    assert!(!hops.is_known(&at("fe80::1")));
    hops.set_neighbour(at("fe80::1"), Some(MAC));
    assert_eq!(maps.follow(&mut hops), 1);
    assert_eq!(maps.of(at("fe80::1")).ifindex, ETH0);
}

#[test]
fn an_interface_that_xdp_does_not_send_by_has_no_next_hops() {
    let mut hops = hops(10);
    let elsewhere = Neighbour {
        ifindex: ELSEWHERE,
        ..at("10.0.0.1")
    };
    assert_eq!(hops.index(elsewhere), 0);
    hops.set_neighbour(elsewhere, Some(MAC));
    for group in ["ff02::1", "224.0.0.22"] {
        hops.set_neighbour(at(group), Some(MAC));
    }
    assert_eq!(hops.ops(), []);
}

#[test]
fn an_interface_that_goes_down_takes_its_next_hops_along() {
    let (mut hops, mut maps) = (hops(10), Maps::default());
    hops.set_neighbour(at("10.0.0.1"), Some(MAC));
    maps.follow(&mut hops);
    hops.set_port(ETH0, None);
    assert_eq!(maps.follow(&mut hops), 1);
    assert_eq!(maps.of(at("10.0.0.1")), NextHop::default());
    let port = Port { mtu: 9000, ..PORT };
    hops.set_links(&BTreeMap::from([(ETH0, port)]), Vec::new());
    maps.follow(&mut hops);
    assert_eq!(maps.of(at("10.0.0.1")).mtu, 9000);
}

#[test]
fn a_route_that_takes_only_short_packets_limits_its_router_alone() {
    let (mut hops, mut maps) = (hops(10), Maps::default());
    let narrow = RouteMtu {
        ifindex: ETH0,
        neighbours: "10.0.0.1/32".parse().unwrap(),
        mtu: 1400,
    };
    hops.set_links(&BTreeMap::from([(ETH0, PORT)]), vec![narrow]);
    for addr in ["10.0.0.1", "10.0.0.2"] {
        hops.set_neighbour(at(addr), Some(MAC));
    }
    maps.follow(&mut hops);
    assert_eq!(
        (maps.of(at("10.0.0.1")).mtu, maps.of(at("10.0.0.2")).mtu),
        (1400, 1500)
    );
}

#[test]
fn what_a_dump_does_not_name_is_gone() {
    let (mut hops, mut maps) = (hops(10), Maps::default());
    for addr in ["10.0.0.1", "10.0.0.2"] {
        hops.set_neighbour(at(addr), Some(MAC));
    }
    maps.follow(&mut hops);
    hops.set_neighbours(&BTreeMap::from([(at("10.0.0.2"), MAC)]));
    assert_eq!(maps.follow(&mut hops), 1);
    assert_eq!(maps.of(at("10.0.0.1")), NextHop::default());
}

#[test]
fn a_second_life_keeps_every_index_and_writes_nothing() {
    let (mut before, mut maps) = (hops(10), Maps::default());
    let known: BTreeMap<_, _> = ["10.0.0.3", "10.0.0.1", "fd00::1"]
        .map(|addr| (at(addr), MAC))
        .into();
    for neighbour in [at("10.0.0.3"), at("10.0.0.1"), at("fd00::1")] {
        before.set_neighbour(neighbour, Some(MAC));
    }
    maps.follow(&mut before);
    let mut after = hops(10);
    after.adopt(&maps.names, maps.array.clone());
    after.set_neighbours(&known);
    assert_eq!(after.ops(), []);
    assert_eq!(after.index(at("10.0.0.3")), before.index(at("10.0.0.3")));
}

#[test]
fn what_an_earlier_life_left_and_nobody_stands_for_is_cleared() {
    let left = NextHop {
        ifindex: ELSEWHERE,
        ..NextHop::default()
    };
    let elsewhere = Neighbour {
        ifindex: ELSEWHERE,
        ..at("10.0.0.1")
    };
    let mut maps = Maps {
        names: BTreeMap::from([(elsewhere, 4), (at("10.0.0.1"), 700), (at("10.0.0.2"), 4)]),
        array: BTreeMap::from([(4, left), (5, left)]),
    };
    let mut hops = hops(10);
    hops.adopt(&maps.names, maps.array.clone());
    maps.follow(&mut hops);
    assert_eq!(maps.array[&4], NextHop::default());
    assert_eq!(maps.array[&5], NextHop::default());
    assert_eq!(maps.names.len(), 1, "{:?}", maps.names);
}

#[test]
fn a_full_array_leaves_the_rest_out_until_idle_indices_are_freed() {
    let (mut hops, mut maps) = (hops(4), Maps::default());
    for n in 1..=5 {
        hops.set_neighbour(at(&format!("10.0.0.{n}")), Some(MAC));
    }
    maps.follow(&mut hops);
    assert_eq!(maps.names.len(), 3);
    assert_eq!(hops.index(at("10.0.0.4")), 0);
    assert!(hops.is_full());
    assert_eq!(hops.idle(&BTreeSet::new()), []);
    hops.set_neighbour(at("10.0.0.1"), None);
    hops.set_neighbour(at("10.0.0.2"), None);
    maps.follow(&mut hops);
    let idle = hops.idle(&BTreeSet::from([1]));
    assert_eq!(idle, [at("10.0.0.2")], "a backend names index 1");
    maps.names.remove(&idle[0]);
    hops.free(&idle);
    maps.follow(&mut hops);
    assert_eq!(maps.names[&at("10.0.0.4")], 2);
    assert!(!maps.names.contains_key(&at("10.0.0.5")));
    assert_eq!(maps.of(at("10.0.0.4")).ifindex, ETH0);
}

#[test]
fn a_write_that_failed_is_tried_again() {
    let mut hops = hops(10);
    hops.set_neighbour(at("10.0.0.1"), Some(MAC));
    let first = hops.ops();
    assert_eq!(hops.ops(), first);
    hops.done(&first[0]);
    assert_eq!(hops.ops(), first[1..]);
}

#[test]
fn a_map_that_somebody_else_changed_is_put_right() {
    let (mut hops, mut maps) = (hops(10), Maps::default());
    hops.set_neighbour(at("10.0.0.1"), Some(MAC));
    maps.follow(&mut hops);
    let right = maps.clone();
    hops.adopt(&BTreeMap::new(), BTreeMap::new());
    assert_eq!(maps.follow(&mut hops), 2);
    assert_eq!(maps, right);
}

#[test]
fn an_interface_that_comes_back_under_another_index_has_next_hops_of_its_own() {
    let (mut hops, mut maps) = (hops(8), Maps::default());
    hops.set_neighbour(at("10.0.0.1"), Some(MAC));
    let before = hops.index(at("10.0.0.1"));
    maps.follow(&mut hops);
    assert_eq!(maps.array[&before].ifindex, ETH0);

    hops.set_ports([ELSEWHERE]);
    hops.set_links(&BTreeMap::from([(ELSEWHERE, PORT)]), Vec::new());
    maps.follow(&mut hops);
    assert_eq!(maps.array[&before], NextHop::default());
    assert_eq!(hops.index(at("10.0.0.2")), 0, "nothing is sent there");
    let back = Neighbour {
        ifindex: ELSEWHERE,
        ..at("10.0.0.1")
    };
    hops.set_neighbour(back, Some(MAC));
    let index = hops.index(back);
    maps.follow(&mut hops);
    assert_eq!(maps.array[&index].ifindex, ELSEWHERE);
}
