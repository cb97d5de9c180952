//! The page as it leaves the agent: complete, and never more than text where tenants write.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::Value;

use super::{Feed, Head, POLICY, Since, asset, assets::assets, page};
use crate::admin::{
    report::{BackendState, ErrorReport, ProblemReport, ProviderReport, ServiceReport, Timestamp},
    stats::{
        Sample,
        tests::{backend, sample, service},
    },
};

const MARKUP: &str = "</th><script>alert('1')</script>\"&";

fn head(orders: bool) -> Head {
    Head {
        version: true,
        orders,
    }
}

fn services(count: u32) -> Vec<ServiceReport> {
    let pool = |n: u32| {
        vec![
            backend(
                &format!("10.0.{}.{}:80", n / 200, n % 200),
                BackendState::Active,
                None,
            ),
            backend(
                "10.9.0.1:80",
                BackendState::Down,
                Some("connection refused"),
            ),
            backend(
                "10.9.0.2:80",
                BackendState::Maintenance,
                Some("by the operator"),
            ),
        ]
    };
    (1..=count)
        .map(|n| service(Some(&format!("web-{n}")), n, pool(n)))
        .collect()
}

fn some() -> Arc<Sample> {
    Arc::new(sample(services(2)))
}

#[test]
fn the_head_holds_the_texts_that_scrapers_look_for() {
    let mut one = sample(services(1));
    one.at = Timestamp(86_400_000 + 2 * 3_600_000 + 3 * 60_000 + 4_000);
    one.report.agent.started = Timestamp(0);
    let one = Arc::new(one);
    let shown = page(&one, head(false), "/haproxy?stats");
    assert!(
        shown.contains("HAProxy version 1.2.3, released "),
        "{shown}"
    );
    for text in [
        "lb-agent on n1",
        "pid = 42, ",
        "uptime = 1d 2h03m04s",
        "current conns = ",
        "idle = 100 %",
    ] {
        assert!(shown.contains(text), "{text}");
    }
    let hidden = Head {
        version: false,
        orders: false,
    };
    let hidden = page(&one, hidden, "/haproxy?stats");
    assert!(!hidden.contains("HAProxy version"));
    assert!(hidden.contains("uptime = 1d 2h03m04s"));
}

#[test]
fn every_service_has_a_table_in_the_columns_of_haproxy() {
    let shown = page(&some(), head(false), "/haproxy?stats");
    assert_eq!(shown.matches("<table").count(), 2);
    for group in [
        "Queue",
        "Session rate",
        "Sessions",
        "Bytes",
        "Denied",
        "Errors",
        "Warnings",
        "Server",
    ] {
        assert_eq!(
            shown.matches(&format!(">{group}</th>")).count(),
            2,
            "{group}"
        );
    }
    for row in ["Frontend", "10_9_0_1_80", "Backend"] {
        assert_eq!(
            shown.matches(&format!("scope=\"row\">{row}</th>")).count(),
            2,
            "{row}"
        );
    }
    assert!(shown.contains(" DOWN</td>") && shown.contains(" MAINT</td>"));
    assert!(
        shown.contains("<td>3/4</td>"),
        "weights in force and declared"
    );
    assert!(
        !shown.contains("<form method=\"post\""),
        "nobody may give orders here"
    );
    for form in ["csv", "json"] {
        assert!(shown.contains(&format!("href=\"/haproxy?stats;{form}\"")));
    }
    assert!(!shown.contains("{{"));
}

#[test]
fn options_hide_servers_and_services() {
    let shown = |target: &str| page(&some(), head(false), target);
    assert!(!shown("/haproxy?stats;up").contains("10_9_0_1_80"));
    assert!(shown("/haproxy?stats;up").contains("10_9_0_2_80"));
    assert!(!shown("/haproxy?stats;no-maint").contains("10_9_0_2_80"));
    assert_eq!(
        shown("/haproxy?stats;scope=web-2")
            .matches("<table")
            .count(),
        1
    );
    assert!(shown("/haproxy?stats;scope=nothing").contains("No service matches."));
}

#[test]
fn where_orders_are_taken_each_table_is_a_form() {
    let shown = page(&some(), head(true), "/haproxy?stats;up");
    assert_eq!(
        shown
            .matches("<form method=\"post\" action=\"/haproxy?stats;up\">")
            .count(),
        2
    );
    assert!(shown.contains("<input type=\"hidden\" name=\"b\" value=\"#2\">"));
    assert!(shown.contains("<input type=\"checkbox\" name=\"s\" value=\"10_9_0_2_80\">"));
    assert!(shown.contains("<option value=\"drain\">"));
    let done = page(&some(), head(true), "/haproxy?stats;st=DONE");
    assert!(done.contains("The order was carried out."));
    assert!(
        !done.contains("st=DONE"),
        "links and forms do not repeat it"
    );
}

#[test]
fn a_long_list_comes_in_parts() {
    let many = Arc::new(sample(services(65)));
    let shown = |target: &str| page(&many, head(false), target);
    let first = shown("/");
    assert_eq!(first.matches("<table").count(), 30);
    assert!(first.contains("href=\"/haproxy?stats;page=1\"") && !first.contains("Services before"));
    let last = shown("/haproxy?stats;page=99");
    assert_eq!(last.matches("<table").count(), 5);
    assert!(last.contains("href=\"/haproxy?stats;page=1\"") && !last.contains("More services"));
}

#[test]
fn whatever_tenants_write_is_text() {
    let mut odd = backend("10.0.0.1:80", BackendState::Draining, Some(MARKUP));
    odd.app = MARKUP.into();
    odd.task = MARKUP.into();
    let mut of = service(Some(MARKUP), 1, vec![odd]);
    of.check = Some(MARKUP.into());
    let mut one = sample(vec![of]);
    one.report.agent.node = MARKUP.into();
    one.proxies[0].name = MARKUP.into();
    one.proxies[0].servers[0].name = MARKUP.into();
    let one = Arc::new(one);
    for target in [
        "/haproxy?stats",
        "/haproxy?stats;scope=%3Cscript%3E;st=%3Cscript%3E",
        "/?scope=\"><script>",
    ] {
        let shown = page(&one, head(true), target);
        assert_eq!(
            shown.matches("<script").count(),
            1,
            "only the page's own: {target}"
        );
        assert!(!shown.contains(MARKUP), "{target}");
    }
    let shown = page(&one, head(true), "/haproxy?stats");
    assert!(
        shown.contains("&lt;/th&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&quot;&amp;")
    );
    assert!(
        shown.contains("{{") == MARKUP.contains("{{"),
        "no mark is left"
    );
    // As JSON it is data; the script never parses markup.
    let told = Feed::default()
        .answer(&one, head(true), Since::default())
        .unwrap();
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["services"][0]["px"], MARKUP);
}

#[test]
fn marks_of_the_template_in_names_are_text_too() {
    let mut one = sample(services(1));
    one.report.agent.node = "{{services}}".into();
    let shown = page(&Arc::new(one), head(false), "/haproxy?stats");
    assert!(shown.contains("<title>{{services}}: "));
    assert_eq!(shown.matches("<table").count(), 1);
}

fn ask(feed: &Feed, sample: &Arc<Sample>, since: u64) -> Value {
    let since: Since = serde_json::from_value(serde_json::json!({"since": since})).unwrap();
    let told = feed.answer(sample, head(true), since).unwrap();
    serde_json::from_str(&told).unwrap()
}

fn ids(told: &Value) -> BTreeSet<u64> {
    let services = told["services"].as_array().unwrap().iter();
    services
        .map(|service| service["id"].as_u64().unwrap())
        .collect()
}

#[test]
fn the_feed_tells_only_what_changed() {
    let feed = Feed::default();
    let first = some();
    let told = ask(&feed, &first, 0);
    assert_eq!(ids(&told), [1, 2].into());
    assert_eq!(told["order"], serde_json::json!([1, 2]));
    assert_eq!(told["admin"], true);
    let cols = told["cols"].as_array().unwrap();
    let row = told["services"][0]["S"][0].as_array().unwrap();
    assert_eq!(row.len(), cols.len());
    let place = |name: &str| cols.iter().position(|one| one == name).unwrap();
    let servers = told["services"][0]["S"].as_array().unwrap();
    let status: BTreeSet<_> = servers
        .iter()
        .map(|row| row[place("status")].as_str().unwrap())
        .collect();
    assert_eq!(status, ["DOWN", "MAINT", "UP"].into());
    let front = &told["services"][0]["F"];
    let refused = ["dreq", "dcon", "eint"].map(|name| front[place(name)].as_u64());
    assert_eq!(refused, [Some(1), Some(2), Some(3)]);
    assert_eq!(front[place("ereq")], 9);
    assert!(servers.iter().all(|row| row[place("wredis")] == 6));
    let seq = told["seq"].as_u64().unwrap();
    // The same sample: nothing.
    let again = ask(&feed, &first, seq);
    assert!(ids(&again).is_empty() && again["order"].is_null());
    assert_eq!(again["seq"], seq);
    // One changes, one goes; no whole second passes, which would count as downtime of those that are down.
    let mut report = services(2);
    report[1].fail_open = true;
    let mut second = sample(report.clone());
    second.at = Timestamp(first.at.0 + 1);
    let told = ask(&feed, &Arc::new(second), seq);
    assert_eq!(ids(&told), [2].into());
    assert!(told["order"].is_null());
    let seq = told["seq"].as_u64().unwrap();
    report.remove(0);
    let mut third = sample(report);
    third.at = Timestamp(first.at.0 + 2);
    let third = Arc::new(third);
    let told = ask(&feed, &third, seq);
    assert!(ids(&told).is_empty());
    assert_eq!(told["order"], serde_json::json!([2]));
    // Who comes late, or from another agent, gets everything.
    assert_eq!(ids(&ask(&feed, &third, 0)), [2].into());
    assert_eq!(ids(&ask(&feed, &third, u64::MAX)), [2].into());
}

#[test]
fn sources_that_fail_and_warnings_are_told_when_they_change() {
    let mut one = sample(services(1));
    let error = ErrorReport {
        at: Timestamp(9),
        reason: MARKUP.to_owned(),
    };
    one.report.providers.push(ProviderReport {
        id: "file:/a".to_owned(),
        last_sync: Some(Timestamp(5)),
        last_error: Some(error),
        pools: 2,
        problems: vec![ProblemReport::default()],
        ..ProviderReport::default()
    });
    one.report.warnings = (0..150).map(|n| n.to_string()).collect();
    let (feed, one) = (Feed::default(), Arc::new(one));
    let told = ask(&feed, &one, 0);
    let about = &told["about"];
    assert_eq!(
        about["sources"],
        serde_json::json!([{"id": "file:/a", "read": 5, "error": MARKUP, "vips": 2, "left_out": 1}])
    );
    assert_eq!(about["warnings"].as_array().unwrap().len(), 100);
    assert_eq!(about["more"], 50);
    let again = ask(&feed, &one, told["seq"].as_u64().unwrap());
    assert!(again["about"].is_null());
    assert!(
        again["agent"]["age"].as_u64() > Some(60_000),
        "a sample of long ago"
    );
    let plain = page(&one, head(false), "/");
    assert!(plain.contains("file:/a cannot be read: &lt;/th&gt;"));
    assert!(!plain.contains(MARKUP));
}

#[test]
fn the_page_loads_nothing_that_is_not_its_own() {
    let shown = page(&some(), head(true), "/haproxy?stats");
    let mut names = BTreeSet::new();
    let texts = assets()
        .iter()
        .map(|asset| asset.text)
        .chain([shown.as_str()]);
    for text in texts {
        for part in text.split("/assets/").skip(1) {
            names.insert(part.split('"').next().unwrap());
        }
        for part in text.split("from \"./").skip(1) {
            names.insert(part.split('"').next().unwrap());
        }
        let hosts = text.split("://").count() - 1;
        let namespaces = text.matches("http://www.w3.org/2000/svg").count();
        assert_eq!(hosts, namespaces, "no outside host");
        for never in [
            "innerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "<style",
            " style=\"",
            " onclick=\"",
        ] {
            assert!(!text.contains(never), "{never}");
        }
    }
    for name in &names {
        assert!(asset(name).is_some(), "{name} is not there");
    }
    assert_eq!(names.len(), assets().len(), "everything is used: {names:?}");
    assert!(POLICY.starts_with("default-src 'none';") && !POLICY.contains("unsafe"));
}

#[test]
fn every_answer_of_a_large_agent_is_quick_to_make() {
    let many = Arc::new(sample(
        (1..=1_000)
            .map(|n| {
                let pool = (0..10).map(|b| {
                    backend(
                        &format!("10.{}.{}.{b}:80", n / 200, n % 200),
                        BackendState::Active,
                        None,
                    )
                });
                service(Some(&format!("web-{n}")), n, pool.collect())
            })
            .collect(),
    ));
    let feed = Feed::default();
    let begun = std::time::Instant::now();
    let told = feed.answer(&many, head(true), Since::default()).unwrap();
    let shown = page(&many, head(true), "/");
    let took = begun.elapsed();
    println!(
        "1,000 services of 10: {} KiB of JSON and {} KiB of HTML in {took:?}",
        told.len() / 1_024,
        shown.len() / 1_024
    );
    assert!(took < std::time::Duration::from_secs(2), "{took:?}");
}
