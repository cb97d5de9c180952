//! The benchmarks of lab and control plane, for a moment: each way carries what it claims to carry, each change
//! arrives, and figures come out.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use lb_tests::bench::{
    control,
    lab::{self, Offloads, Site, Way},
    report::Report,
};

/// Cases of one setting: eight figures of each way, and eight comparisons.
const LAB_CASES: usize = 8 * Way::ALL.len() + 8;

#[test]
fn each_way_is_the_one_it_claims_to_be_with_and_without_offloads() {
    // Each way is proved once when the site comes up.
    let site = Site::up().expect("a site where each way is proved");
    let settings = site.set(Offloads::Segments).expect("offloads");
    assert!(
        settings.contains("gso on") && settings.contains("tx off"),
        "{settings}"
    );
    for way in Way::ALL {
        site.prove(way)
            .unwrap_or_else(|error| panic!("{}: {error:#}", way.name()));
    }
}

#[test]
fn the_lab_benchmark_gives_every_figure_and_bound() {
    let mut report = Report::default();
    lab::run(&mut report, &lab::Effort::SMOKE).expect("figures");
    let cases = report.cases();
    // One more: what else the machine did.
    assert_eq!(cases.len(), 2 * LAB_CASES + 1);
    for case in cases {
        assert!(case.median.is_finite(), "{}", case.case);
        assert!(
            case.ratio
                .as_ref()
                .is_none_or(|ratio| ratio.value.is_finite()),
            "{}",
            case.case
        );
    }
    // Bounds are held in the setting without offloads only.
    assert_eq!(cases.iter().filter(|case| case.bound.is_some()).count(), 6);
}

#[test]
fn the_control_benchmark_sees_every_change_arrive() {
    let mut report = Report::default();
    control::run(&mut report, &control::Effort::SMOKE).expect("figures");
    for case in report.cases() {
        assert!(
            case.median.is_finite() && case.median >= 0.0,
            "{}",
            case.case
        );
    }
    assert_eq!(report.cases().len(), 8 + 5 + (3 * 2 + 2 * 2) + 4);
}
