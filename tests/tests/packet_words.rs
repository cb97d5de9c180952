//! What the programs say in words, as they are with the feature `trace`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use lb_common::backend_kind;
use lb_tests::{each_way, packet::*};

each_way!(
    a_new_flow_is_said_once,
    a_refused_packet_is_said_with_its_reason
);

fn a_new_flow_is_said_once(way: Way) {
    let mut rig = Rig::talking().with_service(way, backend_kind::HOST);
    rig.run(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    let said = rig.said();
    assert!(
        matches!(&said[..], [one] if one.contains("a new flow goes to")),
        "{said:?}"
    );
    rig.run(Hook::Xdp, &way.later(way.client(1), way.vip(1)));
    let said = rig.said();
    assert!(said.is_empty(), "{said:?}");
}

fn a_refused_packet_is_said_with_its_reason(way: Way) {
    let mut rig = Rig::talking().with_service(way, backend_kind::HOST);
    let mut nowhere = way.vip(1);
    nowhere.set_port(9999);
    rig.run(Hook::Ingress, &way.opening(way.client(1), nowhere));
    let said = rig.said();
    assert!(
        matches!(&said[..], [one] if one.contains("no_service")),
        "{said:?}"
    );
}

#[test]
fn every_program_is_accepted() {
    Rig::talking_with_every_program();
}
