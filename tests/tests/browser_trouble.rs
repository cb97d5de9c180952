//! What the stats page says of services and sources that are not as they should be.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use lb_tests::{
    admin::{self, PROXY, SERVERS, VIP, ask},
    browser::{Browser, Window},
    stage::{Stage, connect},
};
use serde_json::Value;

const PAGE: &str = "http://127.0.0.1:9090/haproxy?stats";
/// With users the page offers orders.
const USERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/users");

fn quiet(browser: &mut Browser) {
    let complaints = browser.complaints();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

/// Whether a service has one backend.
fn has_one(status: &Value) -> bool {
    let mut services = status["services"].as_array().into_iter().flatten();
    services.any(|one| one["backends"].as_array().map(Vec::len) == Some(1))
}

/// Opens the page, which is to show so many services.
fn open(stage: &Stage, services: usize) -> Browser {
    let mut browser = Browser::start(&stage.node);
    browser.window(Window::WIDE);
    browser.open(PAGE);
    browser.wait("document.querySelector('#dot').dataset.is === 'live'");
    browser.wait(&format!(
        "document.querySelectorAll('section.px tr.be').length === {services}"
    ));
    browser
}

#[test]
fn a_backup_that_waits_has_no_share_until_it_is_its_turn() {
    let stage = Stage::up(
        "services:\n- {address: 10.99.0.1, port: 80, backends: ['10.77.0.11:80', \
                    {address: '10.77.0.12:80', backup: true}]}\n",
        &[],
    );
    let mut browser = open(&stage, 1);
    browser.click("section.px h2 a");
    let share = |name: &str, expected: &str| {
        format!(
            "[...document.querySelectorAll('.leaf table.plain tbody tr')]\
             .find(one => one.cells[0].textContent === '{name}')?.cells[2].textContent === '{expected}'"
        )
    };
    browser.wait(&share(SERVERS[0], "100.0 %"));
    browser.wait(&share(SERVERS[1], "0.0 %"));
    let done = stage.run(&["drain", "10.77.0.11:80"]);
    assert_eq!(done.status.code(), Some(0), "{}", done.stderr);
    browser.wait(&share(SERVERS[1], "100.0 %"));
    browser.wait(&share(SERVERS[0], "0.0 %"));
    let done = stage.run(&["ready", "10.77.0.11:80"]);
    assert_eq!(done.status.code(), Some(0), "{}", done.stderr);
    browser.wait(&share(SERVERS[1], "0.0 %"));
    browser.eval(
        "[...document.querySelectorAll('.leaf th a')].find(one => one.textContent === '10_77_0_12_80').click()",
    );
    browser.wait(
        "document.querySelector('.leaf .why')?.textContent.includes('others are used before it')",
    );
    quiet(&mut browser);
}

#[test]
fn a_service_that_the_operator_has_stopped_is_one_in_trouble() {
    let stage = Stage::up(
        "services:\n- {address: 10.99.0.1, port: 80, max-flows: 1, backends: ['10.77.0.11:80']}\n",
        &[],
    );
    let mut browser = open(&stage, 1);
    let pill = "document.querySelector('section.px header .pill')";
    browser.wait(&format!("{pill}.textContent === 'UP 1/1'"));
    let only = "#only-problems";
    browser.click(only);
    browser.wait("document.querySelectorAll('section.px').length === 0");
    // Beyond its limit: refused, which the page sums.
    let (_one, _) = connect(&stage.clients[0], VIP).expect("a connection");
    connect(&stage.clients[0], VIP).expect_err("one too many");
    browser.wait("Number(document.querySelector('.tile.k-refused dd').textContent) > 0");
    assert_eq!(ask(&stage, &format!("disable frontend {PROXY}")), "\n");
    browser.wait(&format!("{pill}?.textContent === 'STOP 1/1'"));
    assert_eq!(browser.eval(&format!("{pill}.dataset.s")), "down");
    browser.click("section.px h2 a");
    browser.wait("document.querySelector('.leaf .title .pill')?.textContent === 'STOP'");
    browser.wait(
        "document.querySelector('.leaf .why').textContent.startsWith('Stopped by the operator')",
    );
    let limited = "[...document.querySelectorAll('.leaf .facts div')]\
                   .find(one => one.firstChild.textContent === 'Beyond a limit').lastChild.textContent";
    browser.wait(&format!("Number({limited}) > 0"));
    assert_eq!(ask(&stage, &format!("enable frontend {PROXY}")), "\n");
    browser.wait("document.querySelector('.leaf .why').hidden");
    quiet(&mut browser);
}

#[test]
fn a_source_that_cannot_be_read_is_said_until_it_can() {
    let stage = Stage::up(&admin::services(""), &[]);
    let mut browser = open(&stage, 1);
    let trouble = "document.querySelector('#trouble')";
    browser.wait(&format!("{trouble}.hidden"));
    stage.write("services: [", |status| {
        !status["providers"][0]["last_error"].is_null()
    });
    browser.wait(&format!(
        "{trouble}.textContent.includes('services.yaml cannot be read: ')"
    ));
    browser.wait(&format!("!{trouble}.hidden"));
    browser.eval("location.hash = '#/events'");
    let state = "document.querySelector('.leaf table.plain tbody .pill')?.textContent";
    browser.wait(&format!("{state} === 'fails'"));
    stage.write(&admin::services(""), |status| {
        status["providers"][0]["last_error"].is_null()
    });
    browser.wait(&format!("{state} === 'read' && {trouble}.hidden"));
    quiet(&mut browser);
}

#[test]
fn the_page_of_a_backend_that_is_gone_says_so_and_keeps_its_own_history() {
    let both = "['10.77.0.11:80', '10.77.0.12:80']";
    let services = |backends: &str| {
        let one = format!("{{address: 10.99.0.1, port: 80, backends: {backends}}}");
        format!("services:\n- {one}\n- {{address: 10.99.0.2, port: 80, backends: {both}}}\n")
    };
    let stage = Stage::up(&services(both), &[]);
    let mut browser = open(&stage, 2);
    let follow = |links: &str, name: &str| {
        format!(
            "[...document.querySelectorAll('{links}')].find(one => one.textContent === '{name}').click()"
        )
    };
    browser.eval(&follow("section.px h2 a", PROXY));
    browser.wait("document.querySelectorAll('.leaf table.plain th a').length === 2");
    browser.eval(&follow(".leaf th a", SERVERS[1]));
    let told =
        "[...document.querySelectorAll('.leaf .plain tbody tr')].map(one => one.textContent)";
    let done = stage.run(&["drain", "10.77.0.12:80", "--service", "10.99.0.1"]);
    assert_eq!(done.status.code(), Some(0), "{}", done.stderr);
    browser.wait(&format!("{told}.some(one => one.includes('draining'))"));
    // The same server behind another service has a history of its own.
    let done = stage.run(&["maint", "10.77.0.12:80", "--service", "10.99.0.2"]);
    assert_eq!(done.status.code(), Some(0), "{}", done.stderr);
    stage.write(&services("['10.77.0.11:80']"), has_one);
    browser.wait("document.querySelector('.leaf .title .pill')?.textContent === 'gone'");
    browser.wait(&format!(
        "{told}.some(one => one.includes('backend removed'))"
    ));
    let lines = browser.eval(told);
    let lines: Vec<_> = lines.as_array().expect("lines").iter().collect();
    let has = |word: &str| {
        let mut texts = lines.iter().filter_map(|line| line.as_str());
        texts.any(|text| text.contains(word))
    };
    assert!(has("draining") && !has("10.99.0.2"), "{lines:?}");
    quiet(&mut browser);
}

#[test]
fn a_chosen_server_that_goes_is_chosen_no_more() {
    let stage = Stage::up(&admin::services(""), &["--admin-users-file", USERS]);
    let mut browser = open(&stage, 1);
    for server in SERVERS {
        browser.click(&format!("section.px tr[data-sv='{server}'] input"));
    }
    let chosen = "document.querySelector('#chosen strong').textContent";
    browser.wait(&format!("{chosen} === '2 servers chosen'"));
    let one = "services:\n- {address: 10.99.0.1, port: 80, backends: ['10.77.0.11:80']}\n";
    stage.write(one, has_one);
    browser.wait(&format!("{chosen} === '1 server chosen'"));
    quiet(&mut browser);
}
