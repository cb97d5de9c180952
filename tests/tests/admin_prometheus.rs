//! What Prometheus' own tool says of the rules and the dashboard in `docs`, and of what a running agent tells.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{env, fs};

use lb_tests::{
    admin::{PROXY, SERVERS, VIP, page, stage},
    lab::{exec::fed_tool, wait_until},
    stage::{PATIENCE, connect},
};
use serde_json::{Value, json};

const DASHBOARD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/grafana.json");
const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/alerts.yaml");
/// On which series each of them fires.
const TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/alerts.yaml");

fn read(path: &str) -> String {
    fs::read_to_string(path).expect(path)
}

/// Runs the tool, which must have nothing to say against `input`.
fn promtool(words: &[&str], input: &str) {
    let tool = env::var("LB_PROMTOOL")
        .expect("LB_PROMTOOL: `cargo xtask test admin` brings promtool and says where it is");
    let said = fed_tool(&[&[tool.as_str()], words].concat(), input);
    println!("$ promtool {}\n{}", words.join(" "), said.expect("well"));
}

#[test]
fn prometheus_takes_the_rules_and_each_fires_on_what_it_is_for() {
    promtool(&["check", "rules", "--lint=all", "--lint-fatal", RULES], "");
    promtool(&["test", "rules", TESTS], "");
    let (rules, tests) = (read(RULES), read(TESTS));
    let names: Vec<_> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let fires = format!("{{labels: '{{alertname=\"{name}\"}}', value:");
        assert!(tests.contains(&fires), "nothing says when {name} fires");
    }
}

#[test]
fn prometheus_understands_all_that_the_dashboard_asks() {
    let board: Value = serde_json::from_str(&read(DASHBOARD)).expect("JSON");
    let panels = board["panels"].as_array().expect("panels").iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let rules: Vec<_> = targets
        .enumerate()
        .map(|(number, target)| {
            let expr = target["expr"].as_str().expect("an expression");
            // Grafana puts a time there; what else it puts in stands in quotes.
            let expr = expr.replace("$__rate_interval", "5m");
            json!({"record": format!("dashboard:{number}"), "expr": expr})
        })
        .collect();
    assert!(rules.len() > 20, "{rules:?}");
    let rules = json!({"groups": [{"name": "dashboard", "rules": rules}]});
    let words = ["check", "rules", "--lint-fatal", "/dev/stdin"];
    promtool(&words, &rules.to_string());
}

#[test]
fn prometheus_finds_nothing_odd_in_what_an_agent_tells() {
    let stage = stage("check: tcp interval=200ms,");
    connect(&stage.clients[0], VIP).expect("a connection");
    // Of the agent, of a service, and of a backend.
    let first = SERVERS[0];
    let samples = [
        "lb_agent_map_entries{map=".to_owned(),
        format!("lb_agent_service_handshake_seconds_count{{proxy=\"{PROXY}\"}} 1\n"),
        format!("haproxy_backend_sessions_total{{proxy=\"{PROXY}\"}} 1\n"),
        format!(
            "haproxy_server_check_status{{proxy=\"{PROXY}\",server=\"{first}\",state=\"L4OK\"}} 1\n"
        ),
    ];
    let mut text = String::new();
    let told = wait_until("all is told", PATIENCE, || {
        text = page(&stage, "/metrics");
        samples.iter().all(|sample| text.contains(sample))
    });
    told.unwrap_or_else(|why| panic!("{why}: {text}"));
    promtool(&["check", "metrics"], &text);
    // DC/OS' names.
    promtool(&["check", "metrics"], &page(&stage, "/v1/metrics/l4lb"));
}
