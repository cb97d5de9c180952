//! Small plans: the same operations as the whole plan's, without a look at what did not change.

use std::sync::Arc;

use proptest::prelude::*;

use super::{
    ROOMY, backend, converge,
    fake::{Fake, Fate},
    in_state, serve, tcp,
};
use crate::plan::{BackendState, Planner, Report, Wanted, WantedBackend, plan, reconcile};

const VIP: &str = "11.0.0.1:80";
const A: &str = "10.0.0.1:8080";
const B: &str = "10.0.0.2:8080";

/// A kernel that carries two services, and the planner that did it.
fn serving() -> (Fake, Wanted, Planner) {
    let (mut kernel, mut want, mut planner) = Default::default();
    serve(&mut want, VIP, &[backend(A, 1), backend(B, 1)]);
    serve(&mut want, "11.0.0.2:80", &[backend(A, 1)]);
    let report = again(&mut kernel, &want, &mut planner);
    assert!(report.whole);
    (kernel, want, planner)
}

/// Reconciles without a failure.
fn again(kernel: &mut Fake, want: &Wanted, planner: &mut Planner) -> Report {
    let report = reconcile(kernel, want, &ROOMY, planner).unwrap();
    assert_eq!(report.failed, []);
    report
}

/// Changes one service, and returns what was done, and whether all was looked at.
fn change(
    (kernel, want, planner): &mut (Fake, Wanted, Planner),
    backends: &[WantedBackend],
) -> (Vec<String>, bool) {
    kernel.log.clear();
    serve(want, VIP, backends);
    let whole = again(kernel, want, planner).whole;
    assert!(plan(&kernel.state, want, &ROOMY).is_empty());
    (kernel.log.clone(), whole)
}

#[test]
fn changes_of_backends_are_planned_without_a_look_at_the_rest() {
    let mut serving = serving();
    let down = in_state(BackendState::Down, B, 1);
    let (log, whole) = change(&mut serving, &[backend(A, 1), down]);
    assert_eq!((log.len(), whole), (1, false), "{log:?}");
    let third = backend("10.0.0.3:8080", 1);
    let (log, whole) = change(&mut serving, &[backend(A, 1), backend(B, 1), third]);
    assert_eq!((log.len(), whole), (3, false), "{log:?}");
    let (log, whole) = change(&mut serving, &[backend(A, 1), third]);
    assert!(log[1].starts_with("free backend 2 "), "{log:?}");
    assert_eq!((log.len(), whole), (2, false));
    let (log, whole) = change(&mut serving, &[backend(A, 1), third]);
    assert_eq!((log.len(), whole), (0, false));
}

#[test]
fn what_a_small_plan_cannot_do_is_left_to_the_whole_one() {
    for backends in [vec![], vec![backend(A, 0), backend(B, 0)]] {
        // No table is left, or one of another size is needed.
        assert!(change(&mut serving(), &backends).1);
    }
    let many: Vec<_> = (1..12)
        .map(|i| backend(&format!("10.0.1.{i}:80"), 1))
        .collect();
    assert!(change(&mut serving(), &many).1);
    let other_family = [backend(A, 1), backend("[fd00::1]:80", 1)];
    assert!(change(&mut serving(), &other_family).1);

    let (mut kernel, mut want, mut planner) = serving();
    serve(&mut want, "11.0.0.3:80", &[backend(A, 1)]);
    assert!(again(&mut kernel, &want, &mut planner).whole);
    want.sources.insert("10.0.0.0/8".parse().unwrap());
    assert!(again(&mut kernel, &want, &mut planner).whole);
    assert!(!again(&mut kernel, &want, &mut planner).whole);
    planner.distrust();
    assert!(again(&mut kernel, &want, &mut planner).whole);
}

#[test]
fn limits_and_tiers_are_small_changes_too() {
    let mut serving = serving();
    let limited = WantedBackend {
        max_flows: 100,
        ..backend(B, 1)
    };
    let (log, whole) = change(&mut serving, &[backend(A, 1), limited]);
    assert_eq!(log, ["put limit 2 flows 100 weight 0"]);
    assert!(!whole);
    let backup = WantedBackend { tier: 2, ..limited };
    let (log, whole) = change(&mut serving, &[backend(A, 1), backup]);
    assert!(log[0].contains("draining"), "{log:?}");
    assert!(log[1].starts_with("put table 1/1021 1:1021 "), "{log:?}");
    assert_eq!((log.len(), whole), (2, false));
    let down = in_state(BackendState::Down, A, 1);
    let (log, whole) = change(&mut serving, &[down, backup]);
    assert!(log[1].starts_with("put table 1/1021 2:1021 "), "{log:?}");
    assert_eq!(
        (log.len(), whole),
        (2, false),
        "the other service still uses it"
    );
    let (log, whole) = change(&mut serving, &[backend(A, 1)]);
    assert_eq!(
        log[log.len() - 1],
        "put limit 2 flows 0 weight 0",
        "{log:?}"
    );
    assert_eq!((log.len(), whole), (3, false));
}

#[test]
fn a_limit_of_a_service_is_one_write_and_another_algorithm_looks_at_all() {
    let (mut kernel, mut want, mut planner) = serving();
    kernel.log.clear();
    let service = want.services.get_mut(&tcp(VIP)).unwrap();
    Arc::make_mut(service).shape.max_flows = 9;
    let report = again(&mut kernel, &want, &mut planner);
    assert_eq!((report.applied, report.whole), (1, false));
    let service = want.services.get_mut(&tcp(VIP)).unwrap();
    Arc::make_mut(service).shape.algorithm = lb_common::algorithm::LEAST_CONN;
    assert!(again(&mut kernel, &want, &mut planner).whole);
    assert_eq!(
        kernel.log,
        [
            "put service 11.0.0.1:80/tcp id 1 slots 1021 max-flows 9",
            "put limit 1 flows 0 weight 1",
            "put limit 2 flows 0 weight 1",
            "put service 11.0.0.1:80/tcp id 1 slots 1021 least-conn max-flows 9",
        ]
    );
}

#[test]
fn after_a_failure_the_maps_are_read_and_compared_again() {
    let (mut kernel, mut want, mut planner) = serving();
    serve(&mut want, VIP, &[backend(A, 1)]);
    kernel.fates = vec![Fate::DoneWithError];
    let report = reconcile(&mut kernel, &want, &ROOMY, &mut planner).unwrap();
    // The swap, and the backend that must not be freed before it.
    assert_eq!((report.failed.len(), report.whole), (2, false));
    assert!(again(&mut kernel, &want, &mut planner).whole);
    assert!(plan(&kernel.state, &want, &ROOMY).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Services stay, their backends do not; backends are shared, and change sides.
    #[test]
    fn a_small_plan_does_what_the_whole_plan_does(
        steps in proptest::collection::vec(
            proptest::collection::vec((0_u8..3, converge::service()), 1..3),
            1..8,
        ),
    ) {
        let (mut remembering, mut forgetful) = (Fake::default(), Fake::default());
        let mut planner = Planner::default();
        let mut want = Wanted::default();
        for vip in 0..3 {
            serve(&mut want, &format!("11.0.0.{vip}:80"), &[backend("10.0.0.1:80", 1)]);
        }
        for step in steps {
            for (vip, service) in step {
                want.services.insert(tcp(&format!("11.0.0.{vip}:80")), Arc::new(service));
            }
            again(&mut remembering, &want, &mut planner);
            again(&mut forgetful, &want, &mut Planner::default());
            prop_assert_eq!(&remembering.log, &forgetful.log);
            prop_assert_eq!(&remembering.state, &forgetful.state);
        }
    }
}
