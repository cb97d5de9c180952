//! The benchmarks of packets and live frames, small: every case runs, and does to its packet what it
//! should.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use lb_tests::bench::{
    live, packet,
    report::{Bound, Case, Report},
};

fn bounded(report: &Report) -> Vec<(&str, &Bound)> {
    let with_bound = |case: &'_ Case| case.bound.is_some();
    let cases = report.cases().iter().filter(|case| with_bound(case));
    cases
        .map(|case| (case.case.as_str(), case.bound.as_ref().unwrap()))
        .collect()
}

#[test]
fn every_case_of_the_packet_suite_translates_and_has_a_figure() {
    let mut report = Report::default();
    packet::run(&packet::Scale::SMALL, &mut report).unwrap();
    // Net of a program that does nothing and on a machine that does other things too, a figure of so few runs
    // may be anything; that each case translates, the suite checks itself.
    for case in report.cases() {
        assert!(case.best.is_finite() && case.median.is_finite(), "{case:?}");
    }
    let names: Vec<&str> = bounded(&report).into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        [
            "established TCP v4, NAT to another host",
            "established TCP v6, NAT to another host",
            "established UDP v4, NAT to another host",
            "established TCP v4, DSR by IPIP, sender",
            "established TCP v6, DSR by IPIP, sender",
            "established TCP v4, DSR by Geneve, sender",
            "established TCP v6, DSR by Geneve, sender",
            "established TCP v4, DSR by Geneve, peer",
            "established TCP v6, DSR by Geneve, peer",
            "SYN above the guard for new flows, TCP v4",
            "established TCP v4, NAT, 16 thousand flows",
            "established TCP v4, NAT, 1 million flows",
            "not ours: foreign destination",
            "not ours: the node's own address",
            "floor: two counters per CPU",
            "first packet (SYN), TCP v4, NAT to another host",
            "established TCP v4, beside a flood of SYNs",
        ]
    );
}

#[test]
fn every_frame_of_the_live_suite_arrives_and_ours_are_translated() {
    let mut report = Report::default();
    live::run(&live::Scale::SMALL, &mut report).unwrap();
    for case in report.cases() {
        assert!(case.median > 0.0 && case.best >= case.median, "{case:?}");
    }
    assert_eq!(
        bounded(&report),
        [("NAT, TCP v4, back by XDP_TX", &Bound::AtLeast(0.65))]
    );
}
