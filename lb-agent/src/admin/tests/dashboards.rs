//! The dashboard and the alert rules under `docs/` name only metrics and labels that there are.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use crate::admin::{
    report::{
        BackendState, DnsReport, DropReport, MapReport, ProbeReport, ProviderReport, Timestamp,
    },
    stats::{
        Sample,
        metrics::{Pieces, Scope},
        tests::{backend, sample, service},
    },
};

const GRAFANA: &str = include_str!("../../../../docs/grafana.json");
const ALERTS: &str = include_str!("../../../../docs/alerts.yaml");
/// Words of Prometheus' language and labels that Prometheus itself sets.
const ITS_OWN: [&str; 3] = ["up", "job", "instance"];

#[derive(Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    name: String,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    alert: String,
    expr: String,
    #[serde(default)]
    r#for: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

/// One that has something of everything.
fn full() -> Sample {
    let mut checked = backend("10.0.0.1:80", BackendState::Active, None);
    checked.health.probe = Some(ProbeReport {
        code: Some(200),
        ..ProbeReport::default()
    });
    let mut web = service(Some("web"), 1, vec![checked]);
    web.traffic.bytes_out = Some(1);
    web.traffic.packets_in = Some(1);
    let mut sample = sample(vec![web]);
    let report = &mut sample.report;
    report.dns = Some(DnsReport::default());
    report.providers.push(ProviderReport {
        id: "file:a".into(),
        last_sync: Some(Timestamp(1)),
        last_sync_age_ms: Some(1),
        ..ProviderReport::default()
    });
    report.datapath.maps.push(MapReport {
        name: "flows".into(),
        used: 1,
        capacity: 2,
    });
    report.datapath.snat_tries = vec![0; 17];
    report.datapath.drops.push(DropReport {
        reason: "malformed".into(),
        packets: 1,
    });
    sample
}

/// Every metric with its labels.
fn known() -> BTreeMap<String, BTreeSet<String>> {
    let (sample, mut text) = (full(), String::new());
    let mut pieces = Pieces::new(Scope::ALL);
    while pieces.next(&sample, &mut text) {}
    let mut known = BTreeMap::<_, BTreeSet<_>>::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_once(['{', ' ']).unwrap();
        let labels = known.entry(name.to_owned()).or_default();
        for part in rest.split("=\"").take(rest.matches("=\"").count()) {
            labels.insert(part.rsplit(['{', ',', '"']).next().unwrap().to_owned());
        }
    }
    known
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Checks the metrics of an expression and the labels that they are asked for by.
fn check(expr: &str, known: &BTreeMap<String, BTreeSet<String>>, place: &str) -> usize {
    let mut count = 0;
    let words = expr.split(|c| !is_word(c)).filter(|word| !word.is_empty());
    for word in words.filter(|word| word.starts_with("haproxy_") || word.starts_with("lb_agent_")) {
        let labels = known.get(word);
        let labels = labels.unwrap_or_else(|| panic!("{place}: there is no metric {word}"));
        count += 1;
        let from = expr.find(word).unwrap() + word.len();
        let Some(asked) = expr[from..].strip_prefix('{') else {
            continue;
        };
        let asked = asked.split('}').next().unwrap();
        for pair in asked.split(',') {
            let label = pair.split(['=', '!', '~']).next().unwrap().trim();
            let is_known = labels.contains(label) || ITS_OWN.contains(&label);
            assert!(
                is_known,
                "{place}: {word} has no label {label}, but {labels:?}"
            );
        }
    }
    count
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let known = known();
    let board: Value = serde_json::from_str(GRAFANA).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let mut asked = 0;
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().unwrap();
        assert!(
            !panel["description"].as_str().unwrap().is_empty(),
            "{title}"
        );
        for target in panel["targets"].as_array().unwrap() {
            let expr = target["expr"].as_str().unwrap();
            let found = check(expr, &known, title);
            assert!(found > 0, "{title}: {expr}");
            asked += found;
        }
    }
    assert!(asked >= 20, "{asked}");
    for variable in board["templating"]["list"].as_array().unwrap() {
        if let Some(query) = variable["definition"].as_str() {
            assert_eq!(check(query, &known, "a variable"), 1);
        }
    }
    let ids: BTreeSet<_> = panels
        .iter()
        .map(|panel| panel["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids.len(), panels.len(), "ids are unique");
}

#[test]
fn alerts_ask_for_what_there_is_and_say_what_to_do() {
    let known = known();
    let rules: Rules = serde_saphyr::from_str(ALERTS).unwrap();
    let mut names = BTreeSet::new();
    for group in &rules.groups {
        assert!(group.name.starts_with("lb-agent"));
        for rule in &group.rules {
            let name = rule.alert.as_str();
            assert!(names.insert(name), "{name} is there twice");
            let found = check(&rule.expr, &known, name);
            assert!(found > 0 || rule.expr.starts_with("up{"), "{name}");
            let severity = rule.labels["severity"].as_str();
            assert!(
                ["critical", "warning", "info"].contains(&severity),
                "{name}"
            );
            for text in ["summary", "description"] {
                assert!(!rule.annotations[text].is_empty(), "{name}");
            }
            let waits = rule.r#for.as_deref();
            assert!(waits.is_none_or(|time| time.ends_with('m')), "{name}");
        }
    }
    assert!(names.len() >= 10, "{names:?}");
}

#[test]
fn what_is_not_there_is_found() {
    let known = known();
    let fails = |expr: &'static str| {
        let known = known.clone();
        std::panic::catch_unwind(move || check(expr, &known, "here")).is_err()
    };
    assert!(fails("rate(haproxy_frontend_nothing[5m])"));
    assert!(fails("haproxy_frontend_status{nothing=\"x\"}"));
    assert!(!fails("haproxy_frontend_status{state=\"UP\",job=\"x\"}"));
}
