//! A running agent answers on every page as its OpenAPI document describes it.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use lb_tests::{
    admin::{SERVERS, expect_status, finish, json},
    described::Description,
    lab::wait_until,
    stage::{PATIENCE, Stage, connect},
};
use serde_json::Value;

/// `ann:secret` may see flows, and give orders.
const USERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/users");
const PUBLISHED: &str = include_str!("../../docs/openapi.json");

const SHOP: &str = "- {name: /shop, port: 8080, check: tcp interval=200ms, \
                    backends: [{address: '10.77.0.13:80', name: task-1}]}";
const WEB: &str = "- {address: 10.99.0.1, port: 80, deny: [10.66.0.0/16], max-flows: 100, \
                   backends: ['10.77.0.11:80', '10.77.0.12:80']}";
const GONE: &str = "- {name: /gone, port: 81, backends: ['10.77.0.13:81']}";

fn services(lines: &[&str]) -> String {
    format!("services:\n{}\n", lines.join("\n"))
}

/// What is asked for: parts of the path, and a query.
fn target(path: &str) -> String {
    let query = match path {
        "/v1/resolve" => "?name=shop.file",
        "/v1/explain" => "?client=10.77.0.100:40000&vip=10.99.0.1:80",
        "/v1/history" => "?service=10.99.0.1_80&backend=10.77.0.11:80",
        "/v1/release" => "?name=gone.file",
        "/v1/drain" | "/v1/maintenance" => "?backend=10.77.0.12:80&deadline=60",
        "/v1/ready" | "/v1/reset" => "?backend=10.77.0.12:80",
        "/v1/weight" => "?backend=10.77.0.12:80&weight=3",
        "/v1/health" => "?backend=10.77.0.12:80&state=stopping",
        _ => "",
    };
    let path = path.replace("{name}", "page.css");
    format!("{}{query}", path.replace("{registry}", "l4lb"))
}

/// The body of an answer, and its code and media type; of one that never ends, what comes in so many seconds.
fn answer(stage: &Stage, method: &str, target: &str, seconds: &str) -> (String, String) {
    let url = format!("http://127.0.0.1:9090{target}");
    let method = method.to_uppercase();
    let told = "\n%{http_code} %{content_type}";
    let who = [
        "curl",
        "-sS",
        "-g",
        "-u",
        "ann:secret",
        "--max-time",
        seconds,
    ];
    let argv = [&who[..], &["-X", &method, "-w", told, &url]].concat();
    let done = finish(stage, &argv);
    let (body, told) = done.stdout.rsplit_once('\n').expect("what is told");
    (body.to_owned(), told.to_owned())
}

#[test]
fn every_answer_of_a_running_agent_is_as_described() {
    let stage = Stage::up(
        &services(&[WEB, SHOP, GONE]),
        &["--admin-users-file", USERS],
    );
    for server in SERVERS {
        expect_status(&stage, server, "UP");
    }
    let (_held, _) = connect(&stage.clients[0], "10.99.0.1:80").expect("a connection");
    let names = |status: &Value| -> Vec<String> {
        let services = status["services"].as_array();
        let names = services.into_iter().flatten().map(|one| &one["name"]);
        names
            .filter_map(|name| Some(name.as_str()?.to_owned()))
            .collect()
    };
    stage.write(&services(&[WEB, SHOP]), |status| {
        names(status) == ["shop.file"]
    });
    let document = json(&stage, "/v1/openapi.json");
    let published: Value = serde_json::from_str(PUBLISHED).expect("JSON");
    assert!(
        document == published,
        "it gives out another one than docs/openapi.json"
    );
    // Of that, too, something is to be told.
    assert_eq!(
        answer(&stage, "POST", &target("/v1/weight"), "10").1,
        "200 application/json"
    );
    let described = Description::new(document);
    let mut endless = Vec::new();
    for (path, method) in described.operations() {
        let (media, schema) = described.answer(path, method);
        if ["/v1/trace", "/v1/capture"].contains(&path) {
            endless.push(path);
            continue;
        }
        let target = target(path);
        let (body, told) = answer(&stage, method, &target, "10");
        let expected = format!("200 {}", media.trim_end_matches('*'));
        assert!(told.starts_with(&expected), "{target}: {told} {body:.400}");
        if media == "application/json" {
            let value: Value = serde_json::from_str(&body).expect(path);
            let faults = described.faults(schema, &value);
            assert!(faults.is_empty(), "{target}: {faults:#?}");
        }
    }
    assert_eq!(endless, ["/v1/capture", "/v1/trace"]);
}

#[test]
fn what_is_told_of_packets_is_as_described() {
    let stage = Stage::up(&services(&[WEB]), &["--admin-users-file", USERS]);
    let described = Description::new(json(&stage, "/v1/openapi.json"));
    let (media, schema) = described.answer("/v1/trace", "get");
    let url = "http://127.0.0.1:9090/v1/trace?vip=10.99.0.1";
    let argv = ["curl", "-sS", "-N", "-i", "-u", "ann:secret", url];
    let trace = stage.node.start("trace", &argv).expect("started");
    let objects = || -> Vec<Value> {
        let text = trace.stdout();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines().filter(|line| line.starts_with('{'));
        lines
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    };
    let begun = || trace.stdout().contains(media);
    wait_until("it has begun", PATIENCE, begun).expect("it has");
    wait_until("packets are told of", PATIENCE, || {
        connect(&stage.clients[0], "10.99.0.1:80").expect("a connection");
        objects().len() > 10
    })
    .expect("they are");
    for object in objects() {
        let faults = described.faults(schema, &object);
        assert!(faults.is_empty(), "{faults:#?}");
    }
    let (_, told) = answer(&stage, "GET", "/v1/capture?vip=10.99.0.1", "2");
    let (media, _) = described.answer("/v1/capture", "get");
    assert!(told.starts_with(&format!("200 {media}")), "{told}");
}
