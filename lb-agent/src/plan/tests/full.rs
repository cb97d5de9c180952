//! Maps that are full: what is left out is named, and what fits later is placed later.

use lb_common::{SLOTS_MEDIUM, SLOTS_SMALL};

use super::{ROOMY, backend, fake::Fake, serve, tcp};
use crate::plan::{Limits, Planner, Report, Wanted, reconcile};

fn settle(kernel: &mut Fake, want: &Wanted, limits: &Limits) -> Report {
    let report = reconcile(kernel, want, limits, &mut Planner::default()).unwrap();
    assert_eq!(report.failed, []);
    report
}

#[test]
fn a_service_without_room_is_named_and_the_others_are_served() {
    let limits = Limits {
        services: 1,
        ..ROOMY
    };
    let mut want = Wanted::default();
    serve(&mut want, "11.0.0.1:80", &[backend("10.0.0.1:80", 1)]);
    serve(&mut want, "11.0.0.2:80", &[backend("10.0.0.2:80", 1)]);
    serve(&mut want, "[fd01:c::1]:80", &[backend("[fd00::1]:80", 1)]);
    let mut kernel = Fake::default();
    let report = settle(&mut kernel, &want, &limits);
    assert_eq!(
        report.problems,
        ["service 11.0.0.2:80/tcp is left out: the map of IPv4 services is full (1)"]
    );
    assert_eq!(kernel.state.services.len(), 2);
    assert_eq!(kernel.state.backends.len(), 2);
}

#[test]
fn room_made_by_a_plan_is_used_at_once() {
    let limits = Limits {
        services: 1,
        backends: 2,
        tables: [1, 0, 0],
        addresses: 1,
        sources: 1,
        listed: 1,
        locals: 1,
    };
    let mut kernel = Fake::default();
    let mut want = Wanted::default();
    serve(&mut want, "11.0.0.1:80", &[backend("10.0.0.1:80", 1)]);
    want.sources.insert("10.0.0.0/8".parse().unwrap());
    settle(&mut kernel, &want, &limits);
    let mut want = Wanted::default();
    serve(&mut want, "11.0.0.2:80", &[backend("10.0.0.2:80", 1)]);
    want.sources.insert("10.0.0.0/16".parse().unwrap());
    let report = settle(&mut kernel, &want, &limits);
    assert_eq!(report.problems, [""; 0]);
    assert_eq!(
        kernel.state.services[&tcp("11.0.0.2:80")].slots,
        SLOTS_SMALL as u32
    );
    assert_eq!(kernel.state.backends[&1].generation, 2);
    assert_eq!(kernel.state.sources, want.sources);
}

#[test]
fn a_backend_without_an_id_is_named_and_its_service_goes_on_with_the_others() {
    let limits = Limits {
        backends: 2,
        ..ROOMY
    };
    let mut want = Wanted::default();
    serve(
        &mut want,
        "11.0.0.1:80",
        &[backend("10.0.0.1:80", 1), backend("10.0.0.2:80", 1)],
    );
    let mut kernel = Fake::default();
    let report = settle(&mut kernel, &want, &limits);
    assert_eq!(
        report.problems,
        ["backend 10.0.0.2:80/tcp is left out: all 1 ids are in use"]
    );
    assert_eq!(
        kernel.state.services[&tcp("11.0.0.1:80")].slots,
        SLOTS_SMALL as u32
    );
}

#[test]
fn a_service_takes_a_smaller_table_when_those_of_its_size_are_gone() {
    let limits = Limits {
        tables: [1, 1, 0],
        ..ROOMY
    };
    let many: Vec<_> = (1..=20)
        .map(|i| backend(&format!("10.0.0.{i}:80"), 1))
        .collect();
    let mut want = Wanted::default();
    for vip in ["11.0.0.1:80", "11.0.0.2:80", "11.0.0.3:80"] {
        serve(&mut want, vip, &many);
    }
    let mut kernel = Fake::default();
    let report = settle(&mut kernel, &want, &limits);
    assert_eq!(
        report.problems,
        [
            "service 11.0.0.2:80/tcp has a table of 1021 slots instead of 16381: the map is full",
            "service 11.0.0.3:80/tcp takes no new flows: all maps of Maglev tables are full",
        ]
    );
    let slots = |vip| kernel.state.services[&tcp(vip)].slots as usize;
    assert_eq!(slots("11.0.0.1:80"), SLOTS_MEDIUM);
    assert_eq!(slots("11.0.0.2:80"), SLOTS_SMALL);
    assert_eq!(slots("11.0.0.3:80"), 0);
}

#[test]
fn addresses_and_sources_without_room_are_named() {
    let limits = Limits {
        addresses: 1,
        sources: 0,
        ..ROOMY
    };
    let mut want = Wanted::default();
    want.vips
        .extend(["11.0.0.1", "11.0.0.2"].map(|a| a.parse::<std::net::IpAddr>().unwrap()));
    want.sources.insert("fd00::/8".parse().unwrap());
    let report = settle(&mut Fake::default(), &want, &limits);
    assert_eq!(
        report.problems,
        [
            "address 11.0.0.2 is left out: the destination filter is full (1)",
            "source fd00::/8 is not permitted: the map of sources is full (0)",
        ]
    );
}

#[test]
fn a_backend_of_the_other_family_is_named_and_left_out() {
    let mut want = Wanted::default();
    serve(
        &mut want,
        "11.0.0.1:80",
        &[backend("[fd00::1]:80", 1), backend("10.0.0.1:80", 1)],
    );
    let mut kernel = Fake::default();
    let report = settle(&mut kernel, &want, &ROOMY);
    assert_eq!(
        report.problems,
        [
            "service 11.0.0.1:80/tcp: backend [fd00::1]:80/tcp is of the other address family; left out"
        ]
    );
    assert_eq!(kernel.state.backends.len(), 1);
}
