//! A rig that another test had is as good as a new one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::thread;

use lb_common::{SLOTS_LARGE, SLOTS_MEDIUM, SLOTS_SMALL, addr_flag, backend_kind};
use lb_tests::packet::*;

/// Constants, and a map of programs: nothing that a test can do changes them.
fn is_fixed(map: &str) -> bool {
    map.starts_with(".rodata") || map == "LB_STAGES"
}

/// Changes every map, so that one that is not put back is noticed.
fn use_up(rig: Rig) -> Rig {
    let way = Way::V4_TCP;
    let mut rig = rig.with_service(way, backend_kind::HOST);
    let net = Net::new();
    rig.port(net.first);
    for slots in [SLOTS_SMALL, SLOTS_MEDIUM, SLOTS_LARGE] {
        rig.table(SERVICE, &repeated(&[1], slots));
    }
    rig.slot(way.vip(1).ip(), addr_flag::TRACED);
    rig.trace(100, 1, 0);
    rig.run(Hook::Xdp, &way.opening(way.client(1), way.vip(1)));
    rig.scribble();
    rig
}

#[test]
fn every_map_of_a_rig_is_as_it_was_loaded_when_another_test_gets_it() {
    // A guard that no other test has: the rig does not go elsewhere meanwhile.
    let taken = || Rig::guarded(1_001);
    let rig = taken();
    let (id, loaded) = (rig.id(), rig.contents());

    let rig = use_up(rig);
    let used = rig.contents();
    let changed = used.unlike(&loaded);
    let mut forgotten = loaded.maps();
    forgotten.retain(|map| !is_fixed(map) && !changed.contains(map));
    assert!(forgotten.is_empty(), "this test leaves {forgotten:?}");
    drop(rig);

    let again = taken();
    assert_eq!(again.id(), id, "the same programs");
    let left = again.contents();
    let left = left.unlike(&loaded);
    assert!(left.is_empty(), "not put back: {left:?}");
}

#[test]
fn a_rig_of_a_test_that_failed_goes_to_no_other() {
    let taken = || Rig::guarded(1_002);
    let rig = taken();
    let id = rig.id();
    let test = thread::spawn(move || {
        let _rig = rig;
        panic!("as a test that fails");
    });
    assert!(test.join().is_err());
    assert_ne!(taken().id(), id);
}

#[test]
fn a_rig_that_was_attached_goes_to_no_other() {
    let taken = || Rig::guarded(1_003);
    let mut rig = taken();
    let id = rig.id();
    let net = Net::new();
    drop(rig.attach_xdp(net.first));
    drop(rig);
    assert_ne!(taken().id(), id);
}

#[test]
fn two_rigs_at_a_time_are_two() {
    let taken = || Rig::guarded(1_004);
    let (one, other) = (taken(), taken());
    assert_ne!(one.id(), other.id());
}
