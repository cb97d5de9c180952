//! Counters that an operator had begin anew.

use super::*;

/// The services of [`two`] after so many flows more at each service and each backend.
fn report(more: u64) -> StatusReport {
    let mut report = two().report;
    for service in Arc::make_mut(&mut report.services) {
        service.traffic.flows_new += more;
        service.traffic.connections.outcomes.client_resets += more;
        for backend in &mut service.backends {
            backend.traffic.flows_new += more;
            backend.traffic.bytes_in = backend.traffic.bytes_in.map(|bytes| bytes + 100 * more);
            backend.health.downs += more;
            if let Some(probe) = &mut backend.health.probe {
                probe.failed += more;
            }
        }
    }
    report
}

/// Fields of the line of a server, or of a proxy's end, of `b.marathon_80`.
fn fields<const N: usize>(sample: &Sample, server: &str, names: [&str; N]) -> [String; N] {
    let rows = rows(&csv::whole(sample, &Wish::default()));
    let row = &rows[&("b.marathon_80".to_owned(), server.to_owned())];
    names.map(|name| row[name].clone())
}

#[test]
fn haproxys_forms_begin_at_nothing_and_metrics_go_on() {
    let mut sampler = Sampler::default();
    sampler.take(report(0), true);
    sampler.clear();
    let sample = sampler.take(report(0), false);
    let counters = ["stot", "bin", "cli_abrt", "econ", "eint", "lbtot", "scur"];
    assert_eq!(
        fields(&sample, "BACKEND", counters),
        ["0", "0", "0", "0", "0", "0", "4"],
        "flows that there are stay"
    );
    let sample = sampler.take(report(3), false);
    assert_eq!(
        fields(&sample, "BACKEND", counters),
        ["3", "0", "3", "0", "0", "3", "4"]
    );
    assert_eq!(fields(&sample, "FRONTEND", ["stot", "ereq"]), ["3", "0"]);
    assert_eq!(
        fields(
            &sample,
            "10_0_0_2_80",
            ["stot", "bin", "connect", "chkfail", "chkdown", "bout"]
        ),
        ["3", "300", "0", "3", "3", "0"]
    );
    let metrics = metrics::whole(&sample, Scope::ALL);
    let expected = &report(3).services;
    let service = expected.iter().find(|service| service.id == 9).unwrap();
    for line in [
        format!(
            "haproxy_backend_sessions_total{{proxy=\"b.marathon_80\"}} {}",
            service.traffic.flows_new
        ),
        format!(
            "haproxy_server_check_failures_total{{proxy=\"b.marathon_80\",server=\"10_0_0_2_80\"}} {}",
            9 + 3
        ),
    ] {
        assert!(metrics.lines().any(|one| one == line), "{line}");
    }
}

#[test]
fn maxima_alone_leave_the_counters_as_they_are() {
    let mut sampler = Sampler::default();
    sampler.take(report(0), true);
    let before = fields(&sampler.take(report(0), false), "BACKEND", ["stot", "smax"]);
    let mut few = report(0);
    for service in Arc::make_mut(&mut few.services) {
        service.traffic.flows_active = 1;
    }
    sampler.forget();
    let after = fields(&sampler.take(few, false), "BACKEND", ["stot", "smax"]);
    assert_eq!(before[0], after[0]);
    assert_eq!((&*before[1], &*after[1]), ("4", "1"));
}

#[test]
fn a_backend_that_comes_later_is_shown_whole() {
    let mut sampler = Sampler::default();
    let mut early = report(0);
    for service in Arc::make_mut(&mut early.services) {
        service.backends.truncate(1);
    }
    sampler.take(early.clone(), true);
    sampler.clear();
    sampler.take(early, false);
    let sample = sampler.take(report(0), false);
    assert_eq!(fields(&sample, "10_0_0_2_80", ["stot"]), ["0"]);
    assert_eq!(fields(&sample, "10_0_0_3_80", ["stot"]), ["40"]);
}
