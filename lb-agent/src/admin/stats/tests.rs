//! All forms of one sample: they agree, they hold what HAProxy's readers need, and they are made in time.

mod cleared;
mod exported;

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use super::{
    csv::{self, COUNT, FIELDS, Wish, kind},
    fields::Front,
    json,
    metrics::{self, Scope},
    sampler::Sampler,
    *,
};
use crate::admin::report::{AgentReport, BackendState, ProbeReport, ServiceReport};

mod example;
mod latest;

pub(crate) use example::{backend, sample, service};

/// The rows by proxy and server, each by field.
fn rows(text: &str) -> BTreeMap<(String, String), BTreeMap<&'static str, String>> {
    let mut lines = text.split('\n');
    let head = lines.next().unwrap();
    assert_eq!(head, format!("# {},", FIELDS.join(",")));
    let mut rows = BTreeMap::new();
    let mut lines: Vec<_> = lines.collect();
    assert_eq!(lines.pop(), Some(""), "the last line ends");
    for line in lines {
        let values: Vec<_> = line.split(',').collect();
        assert_eq!(values.len(), COUNT + 1, "{line}");
        assert_eq!(values[COUNT], "", "a comma ends the line");
        let row: BTreeMap<_, _> = FIELDS
            .into_iter()
            .zip(values.iter().map(|v| (*v).to_owned()))
            .collect();
        rows.insert((row["pxname"].clone(), row["svname"].clone()), row);
    }
    rows
}

fn two() -> Sample {
    let mut checked = backend("10.0.0.2:80", BackendState::Active, None);
    checked.health.probe = Some(ProbeReport {
        result: "L7STS".into(),
        code: Some(503),
        took_ms: 3,
        why: Some("it's \"bad\", \n".into()),
        failed: 9,
        against: 1,
        rise: 2,
        fall: 3,
        up: true,
        ..ProbeReport::default()
    });
    let down = backend(
        "10.0.0.3:80",
        BackendState::Down,
        Some("connection refused"),
    );
    let gone = backend("10.0.0.4:80", BackendState::Maintenance, None);
    sample(vec![
        service(Some("b.marathon"), 9, vec![checked, down, gone]),
        service(None, 4, vec![]),
    ])
}

#[test]
fn the_csv_is_what_readers_of_haproxy_expect() {
    let text = csv::whole(&two(), &Wish::default());
    let rows = rows(&text);
    let row = |proxy: &str, server: &str| &rows[&(proxy.to_owned(), server.to_owned())];
    // Proxies by iid, servers between FRONTEND and BACKEND.
    let order: Vec<_> = text
        .lines()
        .skip(1)
        .map(|line| line.split(',').nth(1).unwrap())
        .collect();
    assert_eq!(order[..3], ["FRONTEND", "BACKEND", "FRONTEND"]);
    assert_eq!(order.last(), Some(&"BACKEND"));
    let front = row("b.marathon_80", "FRONTEND");
    for (field, expected) in [
        ("iid", "9"),
        ("sid", "0"),
        ("type", "0"),
        ("status", "OPEN"),
        ("stot", "87"),
        ("rate", "7"),
        ("rate_max", "7"),
        ("dreq", "1"),
        ("ereq", "9"),
        ("dcon", "2"),
        ("eint", "3"),
        ("bin", "1000"),
        ("bout", ""),
        ("mode", "tcp"),
        ("scur", "4"),
        ("conn_tot", "87"),
        ("hrsp_2xx", ""),
    ] {
        assert_eq!(front[field], expected, "{field} of FRONTEND");
    }
    let one = row("b.marathon_80", "10_0_0_2_80");
    for (field, expected) in [
        ("type", "2"),
        ("status", "UP 2/3"),
        ("weight", "3"),
        ("uweight", "4"),
        ("act", "1"),
        ("bck", "0"),
        ("chkfail", "9"),
        ("check_status", "L7STS"),
        ("check_code", "503"),
        ("last_chk", "it s  bad"),
        ("check_health", "3"),
        ("econ", "5"),
        ("eresp", "3"),
        ("srv_abrt", "3"),
        ("cli_abrt", "1"),
        ("wretr", "4"),
        ("wredis", "6"),
        ("ttime", "70"),
        ("ttime_max", "70"),
        ("ctime", "2"),
        ("connect", "30"),
        ("addr", "10.0.0.2:80"),
        ("lastchg", "11"),
        ("bout", "600"),
        ("lastsess", ""),
        ("check_desc", "Layer7 wrong status"),
    ] {
        assert_eq!(one[field], expected, "{field} of a server");
    }
    let back = row("b.marathon_80", "BACKEND");
    for (field, expected) in [
        ("type", "1"),
        ("status", "UP"),
        ("weight", "3"),
        ("uweight", "4"),
        ("act", "1"),
        ("bck", "0"),
        // 3 x 5 of the servers, and 10 - 1 - 2 - 3 that no backend took.
        ("econ", "19"),
        ("wredis", "18"),
        ("ttime", "70"),
        ("algo", "leastconn"),
        ("agg_check_status", "0"),
        ("lastsess", "0"),
    ] {
        assert_eq!(back[field], expected, "{field} of BACKEND");
    }
    let statuses =
        ["10_0_0_3_80", "10_0_0_4_80"].map(|server| &*row("b.marathon_80", server)["status"]);
    assert_eq!(statuses, ["DOWN", "MAINT"]);
    assert_eq!(row("b.marathon_80", "10_0_0_4_80")["downtime"], "11");
    let empty = row("11.0.0.1_80", "BACKEND");
    assert_eq!((&*empty["status"], &*empty["act"]), ("DOWN", "0"));
}

#[test]
fn rows_can_be_chosen() {
    let sample = two();
    let count = |wish: &Wish| csv::whole(&sample, wish).lines().count() - 1;
    let with = |change: fn(&mut Wish)| {
        let mut wish = Wish::default();
        change(&mut wish);
        wish
    };
    assert_eq!(count(&Wish::default()), 7);
    assert_eq!(count(&with(|wish| wish.up = true)), 6);
    assert_eq!(count(&with(|wish| wish.no_maint = true)), 6);
    assert_eq!(count(&with(|wish| wish.scope = "marathon".into())), 5);
    assert_eq!(count(&with(|wish| wish.iid = Some(4))), 2);
    assert_eq!(count(&with(|wish| wish.iid = Some(5))), 0);
    assert_eq!(count(&with(|wish| wish.kinds = kind::SERVER)), 3);
    assert_eq!(
        count(&with(|wish| wish.kinds = kind::FRONTEND | kind::BACKEND)),
        4
    );
    assert_eq!(count(&with(|wish| wish.sid = Some(0))), 4);
}

#[test]
fn the_states_of_backends_are_told_in_haproxys_words() {
    for (state, why, expected) in [
        (BackendState::Active, None, "UP"),
        (BackendState::Standby, Some("backup"), "UP"),
        (BackendState::Down, Some("no answer"), "DOWN"),
        (BackendState::Maintenance, Some("by the operator"), "MAINT"),
        (BackendState::Draining, Some("by the operator"), "DRAIN"),
        (BackendState::Draining, Some("TASK_KILLING"), "DRAIN"),
        (BackendState::Draining, Some("unhealthy"), "DOWN"),
        (BackendState::Draining, Some("no health result yet"), "NOLB"),
        (
            BackendState::Draining,
            Some("weight 0; weight by the operator"),
            "UP",
        ),
        (
            BackendState::Draining,
            Some("maintenance: replaced by a new task of its deployment group"),
            "MAINT",
        ),
    ] {
        assert_eq!(
            status::text(&backend("10.0.0.1:1", state, why)),
            expected,
            "{state} {why:?}"
        );
    }
}

#[test]
fn json_and_metrics_say_the_same_as_the_csv() {
    let sample = two();
    let rows = rows(&csv::whole(&sample, &Wish::default()));
    let mut text = String::new();
    json::head(&sample, &mut text);
    for (place, front) in Front::all(&sample).enumerate() {
        if place > 0 {
            text.push(',');
        }
        json::service(front, &mut text);
    }
    text.push_str(json::TAIL);
    let own: serde_json::Value = serde_json::from_str(&text).unwrap();
    let metrics = metrics::whole(&sample, Scope::ALL);
    let metric = |name: &str| {
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in\n{metrics}"))
            .to_owned()
    };
    for service in own["services"].as_array().unwrap() {
        let name = service["pxname"].as_str().unwrap();
        let row = &rows[&(name.to_owned(), "FRONTEND".to_owned())];
        assert_eq!(service["iid"].to_string(), row["iid"]);
        assert_eq!(service["rate"].to_string(), row["rate"]);
        assert_eq!(service["traffic"]["flows_new"].to_string(), row["stot"]);
        assert_eq!(
            metric(&format!(
                "haproxy_frontend_sessions_total{{proxy=\"{name}\"}}"
            )),
            row["stot"]
        );
        let back = &rows[&(name.to_owned(), "BACKEND".to_owned())];
        assert_eq!(service["failed"].to_string(), back["econ"]);
        assert_eq!(
            metric(&format!(
                "haproxy_backend_connection_errors_total{{proxy=\"{name}\"}}"
            )),
            back["econ"]
        );
        for one in service["backends"].as_array().unwrap() {
            let server = one["svname"].as_str().unwrap();
            let row = &rows[&(name.to_owned(), server.to_owned())];
            assert_eq!(one["sid"].to_string(), row["sid"]);
            assert_eq!(one["status"], *row["status"]);
            assert_eq!(one["failed"].to_string(), row["econ"]);
            let labels = format!("{{proxy=\"{name}\",server=\"{server}\"}}");
            assert_eq!(
                metric(&format!("haproxy_server_bytes_in_total{labels}")),
                row["bin"]
            );
        }
    }
    let state = |word: &str| {
        let labels = format!("{{proxy=\"b.marathon_80\",server=\"10_0_0_3_80\",state=\"{word}\"}}");
        metric(&format!("haproxy_server_status{labels}"))
    };
    assert_eq!(
        (state("DOWN"), state("UP")),
        ("1".to_owned(), "0".to_owned())
    );
    let bucket = "lb_agent_service_handshake_seconds_bucket{proxy=\"b.marathon_80\",le=\"+Inf\"}";
    assert_eq!(metric(bucket), "16");
    // Every sample stands under the head of its family, and each family has one.
    let heads: Vec<_> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .collect();
    let mut names: Vec<_> = heads
        .iter()
        .map(|head| head.split(' ').next().unwrap())
        .collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all);
    let only = metrics::whole(&sample, Scope::read("scope=server&scope=what", &sample));
    assert!(
        only.lines().all(|line| line.contains("haproxy_server_")),
        "{only}"
    );
}

#[test]
fn haproxys_json_has_a_list_for_every_row() {
    let sample = two();
    let mut text = String::new();
    for front in Front::all(&sample) {
        json::haproxy(front, &Wish::default(), &mut text);
    }
    let text = format!("[{}]", text.trim_end_matches(','));
    let lists: serde_json::Value = serde_json::from_str(&text).unwrap();
    let lists = lists.as_array().unwrap();
    assert_eq!(lists.len(), 7);
    assert_eq!(
        lists[0][0]["field"],
        serde_json::json!({"pos": 0, "name": "pxname"})
    );
    assert_eq!(lists[0][0]["value"]["value"], "11.0.0.1_80");
}

#[test]
fn ids_stay_while_a_service_is_there() {
    let mut sampler = Sampler::default();
    let report = |services: Vec<ServiceReport>| StatusReport {
        services: Arc::new(services),
        ..StatusReport::default()
    };
    let ids = |sample: &Sample| {
        let proxies = sample.proxies.iter();
        proxies
            .map(|proxy| (proxy.iid, proxy.name.to_string()))
            .collect::<Vec<_>>()
    };
    // Not yet in the kernel's maps.
    let first = sampler.take(report(vec![service(Some("a.x"), 0, vec![])]), true);
    let own = ids(&first)[0].0;
    let both = report(vec![
        service(Some("a.x"), 3, vec![]),
        service(Some("b.x"), 4, vec![]),
    ]);
    let second = sampler.take(both, true);
    assert_eq!(
        ids(&second),
        [(4, "b.x_80".to_owned()), (own, "a.x_80".to_owned())]
    );
    sampler.take(report(vec![]), true);
    let third = sampler.take(report(vec![service(Some("a.x"), 3, vec![])]), true);
    assert_eq!(ids(&third), [(3, "a.x_80".to_owned())]);
}

#[test]
fn a_pool_that_is_down_counts_its_time() {
    let mut sampler = Sampler::default();
    let mut take = |state, at| {
        let backends = vec![backend("10.0.0.1:80", state, None)];
        let report = StatusReport {
            agent: AgentReport {
                now: Timestamp(at),
                ..AgentReport::default()
            },
            services: Arc::new(vec![service(None, 1, backends)]),
            ..StatusReport::default()
        };
        let sample = sampler.take(report, true);
        let front = Front::of(&sample, &sample.proxies[0]);
        (
            front.pool_status(),
            sample.proxies[0].pool.downs,
            front.downtime(),
            front.last_change(),
        )
    };
    assert_eq!(take(BackendState::Active, 0), ("UP", 0, 0, 0));
    assert_eq!(take(BackendState::Down, 10_000), ("DOWN", 1, 0, 0));
    assert_eq!(take(BackendState::Draining, 14_000), ("DOWN", 1, 4, 4));
    assert_eq!(take(BackendState::Standby, 20_000), ("UP", 1, 10, 0));
    assert_eq!(take(BackendState::Active, 25_000), ("UP", 1, 10, 5));
}

/// 5,000 services of 20 backends: prints what each form costs. In a release build each is far below 250 ms.
#[test]
fn a_hundred_thousand_backends_are_told_in_time() {
    let services: Vec<_> = (0..5_000_u32)
        .map(|n| {
            let [_, a, b, c] = n.to_be_bytes();
            let backends = (1..=20).map(|d| {
                let addr = format!("10.{b}.{c}.{d}:80");
                backend(&addr, BackendState::Active, None)
            });
            let mut service = service(
                Some(&format!("app{a}-{n}.marathon")),
                n + 1,
                backends.collect(),
            );
            service.addrs = vec![[11, 0, b, c].into()];
            service
        })
        .collect();
    let sample = sample(services);
    let timed = |what: &str, make: &dyn Fn() -> usize| {
        let start = Instant::now();
        let bytes = make();
        let took = start.elapsed();
        eprintln!("{what}: {bytes} bytes in {took:?}");
        took
    };
    let csv = timed("csv", &|| csv::whole(&sample, &Wish::default()).len());
    let all = timed("metrics", &|| metrics::whole(&sample, Scope::ALL).len());
    let proxies = timed("metrics without servers", &|| {
        metrics::whole(&sample, Scope::read("", &sample)).len()
    });
    assert!(!Scope::read("", &sample).server && Scope::read("", &two()).server);
    // Builds of tests are not optimised as a release is: this is about mistakes of another order.
    let limit = std::time::Duration::from_secs(15);
    assert!(csv < limit && all < limit && proxies < limit);
}
