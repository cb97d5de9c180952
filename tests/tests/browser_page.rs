//! The stats page in Debian's chromium: it lives, it obeys, it can be read by everybody, and it is quick.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{env, fmt::Write as _, fs};

use lb_tests::{
    admin,
    browser::{Browser, Window},
    lab::wait_until,
    stage::{PATIENCE, Stage, connect},
};
use rustix::process::Signal;
use serde_json::Value;

const LISTEN: &str = "127.0.0.1:9090";
const PAGE: &str = "http://127.0.0.1:9090/haproxy?stats";
const VIP: &str = "10.99.0.1:80";
const USERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/users");
/// ann:secret, as in that file.
const LOGIN: &str = "Basic YW5uOnNlY3JldA==";
const MARKUP: &str = "<img src=x onerror=alert(1)>";
/// ms until something is to be seen, with a thousand services.
const FIRST_PAINT: f64 = 1_000.0;
/// ms of the main thread for one update, with a thousand services of which every one changed.
const UPDATE: f64 = 100.0;

fn services() -> String {
    let backend =
        |number: u8, name: &str| format!("{{address: '10.77.0.1{number}:80', name: {name:?}}}");
    format!(
        "services:\n\
         - {{address: 10.99.0.1, port: 80, backends: [{}, {}]}}\n\
         - {{address: 10.99.0.2, port: 80, backends: [{}]}}\n\
         - {{name: shop-web, port: 8080, backends: [{}, {}, {}]}}\n",
        backend(1, "task-1"),
        backend(2, "task-2"),
        backend(3, MARKUP),
        backend(1, "shop-1"),
        backend(2, "shop-2"),
        backend(3, "shop-3"),
    )
}

fn up(services: &str) -> Stage {
    up_with(services, &[])
}

fn up_with(services: &str, flags: &[&str]) -> Stage {
    let own = ["--admin-listen", LISTEN, "--admin-users-file", USERS];
    Stage::up(services, &[&own, flags].concat())
}

fn open(stage: &Stage, window: Window) -> Browser {
    let mut browser = Browser::start(&stage.node);
    browser.window(window);
    browser.open(PAGE);
    browser.wait("document.querySelector('#dot').dataset.is === 'live'");
    browser.wait("document.querySelectorAll('section.px tr.be').length === 3");
    browser
}

fn quiet(browser: &mut Browser) {
    let complaints = browser.complaints();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

/// The row of a server: of the service that stands at `vip`.
fn row(name: &str, px: &str) -> String {
    format!(
        "[...document.querySelectorAll('section.px')].find(one => one.querySelector('h2')?.textContent === '{px}')?\
         .querySelector('tr[data-sv=\"{name}\"]')"
    )
}

fn status_of(name: &str, px: &str) -> String {
    format!("{}?.querySelector('.pill').textContent", row(name, px))
}

const FIRST: &str = "10_77_0_11_80";
const PX: &str = "10.99.0.1_80";

#[test]
fn what_changes_is_shown_without_a_reload() {
    let stage = up(&services());
    let mut browser = open(&stage, Window::WIDE);
    browser.eval("window.stays = true");
    let status = status_of(FIRST, PX);
    browser.wait(&format!("{status} === 'UP'"));
    let done = stage.run(&["drain", "10.77.0.11:80"]);
    assert_eq!(done.status.code(), Some(0), "{}", done.stderr);
    browser.wait(&format!("{status} === 'DRAIN'"));
    for _ in 0..30 {
        connect(&stage.clients[0], VIP).expect("a connection");
    }
    // Sessions, Total of the Frontend: the tenth column behind the name.
    let total = format!("{}.cells[10].textContent", row("FRONTEND", PX));
    browser.wait(&format!("{total} === '30'"));
    let now = services().replace("10.99.0.2", "10.99.0.3");
    stage.write(&now, |status| status.to_string().contains("10.99.0.3"));
    browser.wait("document.body.textContent.includes('10.99.0.3_80')");
    browser.wait("!document.body.textContent.includes('10.99.0.2_80')");
    assert_eq!(
        browser.eval("window.stays"),
        Value::Bool(true),
        "it was not loaded again"
    );
    quiet(&mut browser);
}

#[test]
fn a_backends_charts_begin_before_its_page_was_opened() {
    let stage = up(&services());
    let mut browser = open(&stage, Window::WIDE);
    let history = format!("/v1/history?service={PX}&backend={FIRST}");
    let rates = || -> Vec<u64> {
        let told = admin::json(&stage, &history);
        let points = told["points"].as_array().into_iter().flatten();
        points.filter_map(|point| point["rate"].as_u64()).collect()
    };
    let noted = wait_until("flows are noted", PATIENCE, || {
        connect(&stage.clients[0], VIP).expect("a connection");
        rates().iter().any(|rate| *rate > 0)
    });
    noted.expect("it is kept");
    let over = wait_until("they are over", PATIENCE, || rates().last() == Some(&0));
    over.expect("nobody comes");
    browser.click(&format!("section.px tr[data-sv='{FIRST}'] th a"));
    browser.wait(
        "/highest [1-9]/.test(document.querySelector('.leaf .k-rate p:last-child')?.textContent)",
    );
    quiet(&mut browser);
}

fn states(stage: &Stage) -> Vec<String> {
    let status = stage.status();
    let services = status["services"].as_array().into_iter().flatten();
    let backends =
        services.flat_map(|service| service["backends"].as_array().into_iter().flatten());
    let state =
        |backend: &Value| format!("{} {}", backend["addr"], backend["state"]).replace('"', "");
    backends.map(state).collect()
}

#[test]
fn a_click_drains_one_backend_of_one_service_and_another_brings_it_back() {
    let stage = up(&services());
    let mut browser = open(&stage, Window::WIDE);
    browser.log_in(LOGIN);
    let button = format!("section.px tr[data-sv='{FIRST}'] .act-cell button");
    browser.wait(&format!(
        "{}.querySelector('button').textContent === 'Drain'",
        row(FIRST, PX)
    ));
    browser.click(&button);
    browser.wait(&format!("{} === 'DRAIN'", status_of(FIRST, PX)));
    browser.wait("document.querySelector('#banner').textContent.includes('drained')");
    let drained = states(&stage)
        .iter()
        .filter(|one| one.ends_with("draining"))
        .count();
    assert_eq!(drained, 1, "{:?}", states(&stage));
    browser.click(&button);
    browser.wait(&format!("{} === 'UP'", status_of(FIRST, PX)));
    // Two at once, by their boxes.
    for name in [FIRST, "10_77_0_12_80"] {
        browser.click(&format!("section.px tr[data-sv='{name}'] input"));
    }
    browser.wait("document.querySelector('#chosen strong').textContent === '2 servers chosen'");
    browser.click("#chosen button:nth-of-type(2)");
    browser.wait(&format!("{} === 'MAINT'", status_of("10_77_0_12_80", PX)));
    let out = states(&stage)
        .iter()
        .filter(|one| one.ends_with("maintenance"))
        .count();
    assert_eq!(out, 2, "{:?}", states(&stage));
    // A weight, on the backend's page.
    browser.click(&format!("section.px tr[data-sv='{FIRST}'] th a"));
    browser.wait("document.querySelector('.leaf h2')?.textContent === '10_77_0_11_80'");
    browser.wait("document.querySelector('.leaf .why').textContent.includes('by the operator')");
    browser.click(".leaf [data-act=ready]");
    browser.wait("document.querySelector('.leaf .title .pill').textContent === 'UP'");
    browser.eval("document.querySelector('#weight').value = 7");
    browser.click(".leaf form button");
    browser.wait("document.querySelector('#banner').textContent.includes('weighed')");
    let status = stage.status();
    let weight = &status["services"][0]["backends"][0]["weight"];
    assert_eq!(weight, 7, "{status}");
    // What was done is told.
    browser.wait("document.querySelectorAll('.leaf table.plain tbody tr').length > 0");
    quiet(&mut browser);
}

#[test]
fn who_has_not_logged_in_is_told_so_and_changes_nothing() {
    let stage = up(&services());
    let mut browser = open(&stage, Window::WIDE);
    browser.watch_logins("*/haproxy?stats");
    browser.click(&format!(
        "section.px tr[data-sv='{FIRST}'] .act-cell button"
    ));
    browser.decline_login();
    browser.wait("document.querySelector('#banner').textContent.includes('Log in first')");
    assert!(
        states(&stage).iter().all(|one| one.ends_with("active")),
        "{:?}",
        states(&stage)
    );
}

#[test]
fn markup_in_names_is_text_with_the_script_and_without() {
    let stage = up(&services());
    let mut browser = open(&stage, Window::WIDE);
    let id = "document.querySelector(\"tr[data-sv='10_77_0_13_80'] th a\").getAttribute('href')";
    let href = browser.eval(id);
    browser.eval(&format!("location.hash = {href}"));
    let shown =
        format!("[...document.querySelectorAll('dd')].some(one => one.textContent === '{MARKUP}')");
    browser.wait(&shown);
    let pictures = "document.querySelectorAll('img').length";
    assert_eq!(browser.eval(pictures), 1, "only the mark of the page");
    // What stands in the address becomes a value, nothing else.
    browser.open(&format!(
        "{PAGE};scope=%22%3E{}",
        "%3Cimg%20src=x%20onerror=alert(1)%3E"
    ));
    let value = browser.eval("document.querySelector('#q').value");
    assert_eq!(value, format!("\">{MARKUP}"));
    assert_eq!(browser.eval(pictures), 1);
    quiet(&mut browser);
}

#[test]
fn without_scripts_the_tables_are_there_and_a_form_drains() {
    let stage = up(&services());
    let mut browser = Browser::start(&stage.node);
    browser.window(Window::WIDE);
    browser.call(
        "Emulation.setScriptExecutionDisabled",
        serde_json::json!({"value": true}),
    );
    browser.log_in(LOGIN);
    browser.open(PAGE);
    let text = browser.eval("document.querySelector('#process').textContent");
    let text = text.as_str().expect("text").to_owned();
    for part in [
        "HAProxy version ",
        "pid = ",
        "uptime = 0d 0h0",
        "current conns = ",
        "idle = 100 %",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(
        browser.eval("document.querySelectorAll('table.px-t').length"),
        3
    );
    browser.click("input[name=s]");
    browser.eval("document.querySelector('select[name=action]').value = 'drain'");
    browser.click("section form button");
    browser
        .wait("document.querySelector('.banner.no-script')?.textContent.includes('carried out')");
    let drained = states(&stage)
        .iter()
        .filter(|one| one.ends_with("draining"))
        .count();
    assert_eq!(drained, 1, "{:?}", states(&stage));
    browser.wait("document.body.textContent.includes('DRAIN')");
    quiet(&mut browser);
}

#[test]
fn an_agent_that_is_away_is_seen_and_taken_up_again() {
    let mut stage = up(&services());
    let mut browser = open(&stage, Window::WIDE);
    stage.agent.signal(Signal::KILL).expect("killed");
    wait_until("it is gone", PATIENCE, || stage.agent.has_ended()).expect("it ends");
    browser.wait("document.querySelector('#banner').dataset.is === 'bad'");
    browser.wait("document.querySelector('#dot').dataset.is === 'lost'");
    browser.wait(&format!("{} === 'UP'", status_of(FIRST, PX)));
    stage.revive();
    browser.wait("document.querySelector('#dot').dataset.is === 'live'");
    browser.wait("document.querySelector('#banner').hidden");
}

#[test]
fn the_keyboard_is_enough() {
    let stage = up(&services());
    let mut browser = open(&stage, Window::WIDE);
    browser.press("/");
    browser.type_text("shop");
    browser.wait("document.querySelectorAll('section.px').length === 1");
    browser.wait("document.querySelector('.shown').textContent.startsWith('1 of 3 services')");
    browser.press("Escape");
    browser.press("j");
    browser.wait("document.activeElement.matches('button.fold[aria-expanded=true]')");
    browser.eval("document.activeElement.click()");
    browser.wait("document.activeElement.matches('button.fold[aria-expanded=false]')");
    quiet(&mut browser);
}

/// What axe-core finds, as a sentence each.
fn violations(browser: &mut Browser) -> Vec<String> {
    let axe = env::var("LB_AXE")
        .expect("LB_AXE: `cargo xtask test browser` brings axe-core and says where it is");
    let script = fs::read_to_string(&axe).expect("axe-core");
    browser.eval(&format!("{script};0"));
    let rules =
        "{runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']}";
    let found = browser.eval(&format!(
        "axe.run(document, {rules}).then(({{violations, passes}}) => [passes.length, violations.map(one => \
         `${{one.id}}: ${{one.nodes.map(node => node.html.slice(0, 200)).join(' | ')}}`)])"
    ));
    assert!(
        found[0].as_u64().is_some_and(|passes| passes > 10),
        "it looked: {found}"
    );
    let found = found[1].as_array().cloned().unwrap_or_default();
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn every_page_in_every_dress_can_be_read_by_everybody() {
    let stage = up(&services());
    stage.run(&["drain", "10.77.0.12:80"]);
    stage.run(&["maintenance", "10.77.0.13:80"]);
    for _ in 0..40 {
        connect(&stage.clients[0], VIP).expect("a connection");
    }
    let mut browser = open(&stage, Window::WIDE);
    browser.wait("document.body.textContent.includes('MAINT')");
    let service = browser.eval("document.querySelector('section.px h2 a').getAttribute('href')");
    let backend = browser.eval("document.querySelector('tr.sv th a').getAttribute('href')");
    let pages = [
        ("list", "#/"),
        ("service", service.as_str().expect("text")),
        ("backend", backend.as_str().expect("text")),
        ("events", "#/events"),
    ];
    let windows = [
        ("wide-light", Window::WIDE),
        ("wide-dark", Window::WIDE.dark()),
        ("narrow-light", Window::PHONE),
        ("narrow-dark", Window::PHONE.dark()),
    ];
    for (name, hash) in pages {
        browser.eval(&format!("location.hash = '{hash}'"));
        let there = match name {
            "list" => "section.px table",
            "events" => ".leaf table tbody tr",
            _ => ".leaf .chart",
        };
        browser.wait(&format!("document.querySelector('{there}')"));
        for (dress, window) in windows {
            browser.window(window);
            let found = violations(&mut browser);
            assert!(found.is_empty(), "{name}, {dress}: {found:#?}");
            let wider = browser.eval("document.documentElement.scrollWidth - innerWidth");
            assert_eq!(wider, 0, "{name}, {dress}: it must not scroll sideways");
            browser.picture(&format!("{name}-{dress}"));
        }
        browser.window(Window::WIDE);
    }
    quiet(&mut browser);
}

fn many(weight: u16) -> String {
    let mut file = "services:\n".to_owned();
    for service in 0..1_000 {
        let backends: Vec<_> = (0..10)
            .map(|n| {
                let number = service * 10 + n;
                let addr = format!(
                    "10.{}.{}.{}:8080",
                    100 + number / 62_500,
                    number / 250 % 250,
                    1 + number % 250
                );
                format!("{{address: '{addr}', weight: {weight}}}")
            })
            .collect();
        let port = 1_000 + service;
        // Writing to a string cannot fail.
        let _ = writeln!(
            file,
            "- {{name: app-{service}, port: {port}, backends: [{}]}}",
            backends.join(", ")
        );
    }
    file
}

/// CPU time of the page's main thread since it began, ms.
fn main_thread(browser: &mut Browser) -> f64 {
    let metrics = browser.call("Performance.getMetrics", serde_json::json!({}));
    let metrics = metrics["metrics"].as_array().expect("metrics");
    let one = metrics.iter().find(|one| one["name"] == "TaskDuration");
    let seconds = one.and_then(|one| one["value"].as_f64());
    seconds.expect("TaskDuration") * 1_000.0
}

/// Opens the page; ms until something was to be seen, once all services are.
fn first_paint(browser: &mut Browser) -> f64 {
    browser.open(PAGE);
    browser
        .wait("document.querySelector('.shown')?.textContent.startsWith('1\u{202f}000 services')");
    let paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime";
    browser.eval(paint).as_f64().expect("a time")
}

/// ms of script of each update since the last were forgotten.
fn updates(browser: &mut Browser) -> Vec<f64> {
    let all = "performance.getEntriesByName('lb-update').map(one => one.duration)";
    let all = browser.eval(all);
    let times = all.as_array().expect("times").iter();
    times.filter_map(Value::as_f64).collect()
}

/// Waits for so many updates; ms of the main thread that one took, with all that goes on beside it.
fn cost_of_updates(browser: &mut Browser, number: usize) -> f64 {
    browser.eval("performance.clearMeasures('lb-update')");
    let before = main_thread(browser);
    browser.wait(&format!(
        "performance.getEntriesByName('lb-update').length >= {number}"
    ));
    let spent = main_thread(browser) - before;
    spent / updates(browser).len() as f64
}

#[test]
fn a_thousand_services_are_shown_at_once_and_kept_up_to_date_with_ease() {
    let stage = up_with(
        &many(1),
        &["--max-services", "4096", "--max-backends", "32768"],
    );
    let mut browser = Browser::start(&stage.node);
    browser.window(Window::WIDE);
    browser.call(
        "Performance.enable",
        serde_json::json!({"timeDomain": "threadTicks"}),
    );
    // The least of three: what others do on the machine only ever adds to a time.
    let mut paints: [f64; 3] = std::array::from_fn(|_| first_paint(&mut browser));
    paints.sort_by(f64::total_cmp);
    // Nothing changes: as most of the time.
    let calm = cost_of_updates(&mut browser, 5);
    // Everything changes, and every table is unfolded.
    let before = main_thread(&mut browser);
    browser.click("#unfold");
    cost_of_updates(&mut browser, 2);
    let unfolded = main_thread(&mut browser) - before;
    let mut rounds = [2, 3, 4].map(|weight| {
        browser.eval("performance.clearMeasures('lb-update')");
        let before = main_thread(&mut browser);
        stage.write(&many(weight), |status| {
            let one = &status["services"][999]["backends"][9]["weight"];
            *one == weight
        });
        let all = 10 * weight;
        browser.wait(&format!(
            "document.querySelector('tr.be').textContent.includes('{all}/{all}')"
        ));
        let updates = updates(&mut browser);
        let longest = updates.iter().copied().fold(0.0, f64::max);
        let spent = main_thread(&mut browser) - before;
        (spent / updates.len() as f64, updates.len(), longest)
    });
    rounds.sort_by(|one, other| one.0.total_cmp(&other.0));
    println!(
        "1,000 services of 10: first paint after {paints:.0?} ms; an update where nothing changed took {calm:.1} ms of \
         the main thread, unfolding {unfolded:.0} ms with two updates; while everything changed three times (ms of the \
         main thread an update, updates, the longest script): {rounds:.1?}"
    );
    let spent = rounds[1].0;
    assert!(paints[0] < FIRST_PAINT, "first paint: {paints:?} ms");
    assert!(
        calm < UPDATE,
        "an update where nothing changed: {calm} ms of the main thread"
    );
    assert!(
        spent < UPDATE,
        "an update: {spent} ms of the main thread, the middle of {rounds:?}"
    );
    browser.picture("many-wide-light");
    quiet(&mut browser);
}
