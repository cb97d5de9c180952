//! The metrics that dashboards made for HAProxy's own exporter ask for.

use std::collections::BTreeSet;

use super::*;

const FRONTEND: &str = "status current_sessions max_sessions limit_sessions sessions_total connections_total \
    connections_rate_max max_session_rate limit_session_rate bytes_in_total bytes_out_total \
    requests_denied_total denied_connections_total internal_errors_total request_errors_total";

const BACKEND: &str = "status active_servers backup_servers weight uweight current_sessions max_sessions \
    limit_sessions sessions_total max_session_rate loadbalanced_total connection_attempts_total \
    connection_errors_total retry_warnings_total response_errors_total client_aborts_total server_aborts_total \
    bytes_in_total bytes_out_total check_up_down_total check_last_change_seconds downtime_seconds_total \
    last_session_seconds connect_time_average_seconds current_queue max_queue redispatch_warnings_total \
    total_time_average_seconds max_total_time_seconds requests_denied_total internal_errors_total";

const SERVER: &str = "status weight uweight current_sessions max_sessions limit_sessions sessions_total \
    max_session_rate loadbalanced_total connection_attempts_total connection_errors_total retry_warnings_total \
    response_errors_total client_aborts_total server_aborts_total bytes_in_total bytes_out_total \
    check_up_down_total check_last_change_seconds downtime_seconds_total last_session_seconds \
    connect_time_average_seconds current_queue max_queue check_status check_code check_duration_seconds \
    check_failures_total redispatch_warnings_total total_time_average_seconds \
    max_total_time_seconds";

const PROCESS: &str =
    "nbproc uptime_seconds current_connections max_connections connections_total build_info";

/// Names of families.
fn families(text: &str) -> BTreeSet<&str> {
    let heads = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    heads.filter_map(|head| head.split(' ').next()).collect()
}

#[test]
fn every_name_of_haproxys_exporter_that_means_something_here_is_there() {
    let mut sample = two();
    sample
        .report
        .datapath
        .maps
        .push(crate::admin::report::MapReport {
            name: "TCP flows, IPv4".into(),
            used: 1,
            capacity: 2,
        });
    let text = metrics::whole(&sample, Scope::ALL);
    let families = families(&text);
    for (level, names) in [
        ("frontend", FRONTEND),
        ("backend", BACKEND),
        ("server", SERVER),
        ("process", PROCESS),
    ] {
        for name in names.split_whitespace() {
            let name = format!("haproxy_{level}_{name}");
            assert!(families.contains(&*name), "{name}");
        }
    }
}

#[test]
fn a_checks_result_is_a_series_for_each_that_there_is() {
    let unhealthy = backend("10.0.0.9:80", BackendState::Draining, Some("unhealthy"));
    let plain = backend("10.0.0.8:80", BackendState::Active, None);
    let mut well = backend("10.0.0.7:80", BackendState::Active, None);
    well.declared.healthy = true;
    let backends = vec![unhealthy, plain, well];
    let mut services = vec![service(Some("c.marathon"), 5, backends)];
    services.extend(two().report.services.iter().cloned());
    let sample = sample(services);
    let text = metrics::whole(&sample, Scope::ALL);
    let rows = rows(&csv::whole(&sample, &Wish::default()));
    let series = |server: &str| {
        let part = format!("server=\"{server}\",state=\"");
        text.lines()
            .filter_map(|line| line.strip_prefix("haproxy_server_check_status{"))
            .filter_map(|line| Some(line.split_once(&part)?.1.to_owned()))
            .collect::<Vec<_>>()
    };
    let all = super::super::status::CHECK.len();
    for (proxy, server, is) in [
        ("b.marathon_80", "10_0_0_2_80", "L7STS"),
        ("c.marathon_80", "10_0_0_9_80", "PROCERR"),
        ("c.marathon_80", "10_0_0_7_80", "PROCOK"),
    ] {
        let row = &rows[&(proxy.to_owned(), server.to_owned())];
        assert_eq!(row["check_status"], is);
        let series = series(server);
        assert_eq!(series.len(), all, "{series:?}");
        let set: Vec<_> = series.iter().filter(|one| one.ends_with(" 1")).collect();
        assert_eq!(set, [&format!("{is}\"}} 1")]);
    }
    assert_eq!(series("10_0_0_8_80"), [""; 0], "nobody says how it is");
    let queue = "haproxy_server_current_queue{proxy=\"c.marathon_80\",server=\"10_0_0_8_80\"} 0";
    assert!(text.lines().any(|line| line == queue), "{text}");
}
