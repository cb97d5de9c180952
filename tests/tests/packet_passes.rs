//! Packets that are none of ours.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use lb_common::backend_kind;
use lb_tests::{each_way, packet::*};

each_way! {
    fn a_packet_for_another_address_passes_untouched(way) {
        let t = std::time::Instant::now();
        let mut rig = Rig::new();
        eprintln!("load {:?}", t.elapsed());
        rig.backend(1, backend(way, way.backend(1), backend_kind::HOST));
        rig.service(way, way.vip(1), 1, 0, &repeated(&[1], 1021));
        let frame = way.opening(way.client(1), way.stranger());
        rig.expect_untouched(Hook::Xdp, &frame);
        rig.expect_untouched(Hook::Ingress, &frame);
        assert_eq!(rig.counters(), []);
    }
}
