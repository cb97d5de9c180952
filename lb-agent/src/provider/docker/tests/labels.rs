//! Each of our labels does what its row in the documentation says.

use std::collections::BTreeSet;

use super::{super::labels::NAMES, *};
use crate::catalog::Properties;

const DOCUMENTATION: &str = include_str!("../../../../../docs/docker.md");

#[test]
fn the_documentation_has_every_label_and_no_other() {
    let chapter = DOCUMENTATION.split("\n## Labels\n").nth(1);
    let chapter = chapter.and_then(|rest| rest.split("\n## ").next());
    let rows = chapter.expect("a chapter").lines();
    let first = rows.filter_map(|row| row.strip_prefix("| ")?.split('|').next());
    let words = first.flat_map(|cell| cell.split('`'));
    let documented: BTreeSet<&str> = words.filter(|word| word.starts_with("lb.")).collect();
    assert_eq!(documented, NAMES.into());
}

/// The first pool of a container with these labels besides `lb.vip`, if there is one; nothing may be told.
fn pool(labels: &[(&str, &str)]) -> Option<Pool> {
    let vip = [("lb.vip", "web:80")];
    let all = snapshot([container("web-1", "172.17.0.2", &[&vip, labels].concat())]);
    assert_eq!(reasons(&all), [""; 0], "{labels:?}");
    all.pools.into_iter().next()
}

fn of(pool: &Pool) -> Properties {
    pool.properties.as_deref().cloned().unwrap_or_default()
}

/// What a label with a value makes of something that is otherwise without it.
type Row = (
    &'static str,
    &'static str,
    fn(&Pool) -> String,
    &'static str,
    &'static str,
);

/// Those that change a pool; the others are `lb.vip`, `lb.address`, `lb.service` and `lb.enable`.
#[rustfmt::skip]
const ROWS: [Row; 20] = [
    ("lb.port", "81", |pool| pool.backends[0].addr.to_string(), "172.17.0.2:80", "172.17.0.2:81"),
    ("lb.mode", "dsr-l2", |pool| format!("{:?}", of(pool).mode), "Auto", "DsrL2"),
    ("lb.balance", "round-robin", |pool| format!("{:?}", of(pool).balance), "Maglev", "RoundRobin"),
    ("lb.affinity", "90", |pool| of(pool).affinity.to_string(), "0", "90"),
    ("lb.weight", "7", |pool| pool.backends[0].weight.to_string(), "1", "7"),
    ("lb.backup", "true", |pool| pool.backends[0].backup.to_string(), "false", "true"),
    ("lb.zone", "east", |pool| format!("{:?}", pool.backends[0].zone), "None", r#"Some("east")"#),
    ("lb.maxflows", "5", |pool| of(pool).max_flows.to_string(), "0", "5"),
    ("lb.maxflows-backend", "6", |pool| pool.backends[0].max_flows.to_string(), "0", "6"),
    ("lb.rate", "8", |pool| of(pool).rate.to_string(), "0", "8"),
    ("lb.source-rate", "9", |pool| of(pool).source_rate.to_string(), "0", "9"),
    ("lb.idle", "10m", idle, "7440 60 300", "600 600 600"),
    ("lb.allow", "10.0.0.0/8", |pool| format!("{:?}", of(pool).sources), "{}", "{10.0.0.0/8: Allow}"),
    ("lb.deny", "10.1.0.0/16", |pool| format!("{:?}", of(pool).sources), "{}", "{10.1.0.0/16: Deny}"),
    ("lb.denied", "refuse", |pool| of(pool).refuses.to_string(), "false", "true"),
    ("lb.check", "http:/up interval=3s fall=4 port=81", check, "none", "http GET /up at port 81 3s 4"),
    ("lb.fail-open", "no", |pool| of(pool).fail_closed.to_string(), "false", "true"),
    ("lb.slow-start", "30s", |pool| of(pool).slow_start.to_string(), "0", "30"),
    ("lb.drain", "2m", |pool| format!("{:?}", of(pool).drain), "None", "Some(120)"),
    ("lb.group", "edge, dmz", |pool| format!("{:?}", of(pool).groups), "{}", r#"{"dmz", "edge"}"#),
];

fn idle(pool: &Pool) -> String {
    let idle = of(pool).idle;
    format!("{} {} {}", idle.tcp, idle.udp, idle.udp_two_way)
}

fn check(pool: &Pool) -> String {
    let check = of(pool).check;
    check.map_or("none".to_owned(), |check| {
        format!("{check} {:?} {}", check.interval, check.fall)
    })
}

#[test]
fn each_label_changes_what_it_is_for() {
    let plain = pool(&[]).expect("a pool");
    for (label, value, read, without, with) in ROWS {
        assert_eq!(read(&plain), without, "without {label}");
        let labelled = pool(&[(label, value)]).expect("a pool");
        assert_eq!(read(&labelled), with, "{label}={value}");
    }
    let rows = ROWS.map(|(label, ..)| label);
    let others = ["lb.vip", "lb.address", "lb.service", "lb.enable"];
    let all: BTreeSet<&str> = rows.into_iter().chain(others).collect();
    assert_eq!(all, NAMES.into(), "one that has no row");
}

#[test]
fn labels_say_whether_and_under_which_names_a_container_is_served() {
    let served = |labels: &[(&str, &str)]| {
        let all = snapshot([container("web-1", "172.17.0.2", labels)]);
        assert_eq!(reasons(&all), [""; 0], "{labels:?}");
        lines(&all).join(", ")
    };
    let vip = ("lb.vip", "www:8080=80");
    let own = "web:8080/tcp 172.17.0.2:80 x1";
    assert_eq!(served(&[]), "");
    assert_eq!(
        served(&[vip]),
        format!("{own}, www:8080/tcp 172.17.0.2:80 x1")
    );
    assert_eq!(served(&[vip, ("lb.enable", "false")]), "");
    assert_eq!(
        served(&[vip, ("lb.service", "shop")]),
        "shop:8080/tcp 172.17.0.2:80 x1, www:8080/tcp 172.17.0.2:80 x1"
    );
    assert_eq!(
        served(&[vip, ("lb.address", "10.9.9.9")]),
        format!("{own}, 10.9.9.9:8080/tcp 172.17.0.2:80 x1")
    );
    let at_node = pool(&[("lb.address", "node")]).expect("a pool");
    let external = of(&at_node).external.into_iter().map(|port| port.get());
    assert_eq!(external.collect::<Vec<_>>(), [80]);
    assert_eq!(of(&pool(&[]).expect("a pool")).external, BTreeSet::new());
}
