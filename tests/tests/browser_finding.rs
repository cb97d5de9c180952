//! How one finds something on the stats page: by search, filters and order, with a mouse and without.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use lb_tests::{
    browser::{Browser, Window},
    stage::{Stage, connect},
};
use serde_json::{Value, json};

const PAGE: &str = "http://127.0.0.1:9090/haproxy?stats";
/// Services in the order of their names, and each with backends of its own.
const FIRST: &str = "10.99.0.1_80";
const SECOND: &str = "10.99.0.2_80";
const SHOP: &str = "shop-web.file_8080";
const SERVICES: &str = "services:
- address: 10.99.0.1
  port: 80
  backends: [{address: '10.77.0.11:80', name: task-1}, {address: '10.77.0.12:80', name: task-2}]
- address: 10.99.0.2
  port: 80
  backends: [{address: '10.77.0.13:80', name: lonely}]
- name: shop-web
  port: 8080
  backends: [{address: '10.77.0.11:81', name: shop-1}, {address: '10.77.0.12:81', name: shop-2}]
";

/// The names of all services that are shown, from above.
const SHOWN: &str =
    "JSON.stringify([...document.querySelectorAll('section.px h2')].map(one => one.textContent))";

fn open(stage: &Stage) -> Browser {
    let mut browser = Browser::start(&stage.node);
    browser.window(Window::WIDE);
    browser.open(PAGE);
    browser.wait("document.querySelector('#dot').dataset.is === 'live'");
    shows(&mut browser, &[FIRST, SECOND, SHOP]);
    browser
}

/// Waits until these services are shown and no others, in this order.
fn shows(browser: &mut Browser, names: &[&str]) {
    browser.wait(&format!("{SHOWN} === JSON.stringify({})", json!(names)));
}

fn quiet(browser: &mut Browser) {
    let complaints = browser.complaints();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn a_search_looks_through_names_addresses_and_tasks() {
    let stage = Stage::up(SERVICES, &[]);
    let mut browser = open(&stage);
    browser.click("#q");
    for (text, found) in [
        ("shop", &[SHOP][..]),
        ("TASK-2", &[FIRST]),
        ("10.77.0.13", &[SECOND]),
        ("10.99 task", &[FIRST]),
        ("8080", &[SHOP]),
        ("tcp", &[FIRST, SECOND, SHOP]),
        ("nobody has this", &[]),
    ] {
        browser.eval("document.querySelector('#q').select()");
        browser.type_text(text);
        shows(&mut browser, found);
        let none = found.is_empty();
        browser.wait(&format!(
            "document.querySelector('.none').hidden === {}",
            !none
        ));
        let said = format!("{} of 3 services", found.len());
        let said = if found.len() == 3 {
            "3 services"
        } else {
            &said
        };
        browser.wait(&format!(
            "document.querySelector('.shown').textContent.startsWith('{said}')"
        ));
    }
    browser.eval("document.querySelector('#q').select()");
    browser.press("Backspace");
    shows(&mut browser, &[FIRST, SECOND, SHOP]);
    quiet(&mut browser);
}

#[test]
fn buttons_leave_out_what_is_down_out_or_well() {
    let stage = Stage::up(SERVICES, &[]);
    let mut browser = open(&stage);
    // It was the only one of its service, which is down without it.
    let done = stage.run(&["maintenance", "10.77.0.13:80"]);
    assert_eq!(done.status.code(), Some(0), "{}", done.stderr);
    let pill = "document.querySelector(\"tr[data-sv='10_77_0_13_80'] .pill\")";
    browser.wait(&format!("{pill}.textContent === 'MAINT'"));
    for (button, left) in [
        ("#only-problems", &[SECOND][..]),
        ("#hide-down", &[FIRST, SHOP]),
        ("#hide-maint", &[FIRST, SHOP]),
    ] {
        let pressed = format!("document.querySelector('{button}').getAttribute('aria-pressed')");
        browser.click(button);
        shows(&mut browser, left);
        assert_eq!(browser.eval(&pressed), "true", "{button}");
        // The focus is on it: the same by key.
        browser.press("Enter");
        shows(&mut browser, &[FIRST, SECOND, SHOP]);
        assert_eq!(browser.eval(&pressed), "false", "{button}");
        browser.press(" ");
        shows(&mut browser, left);
        browser.click(button);
        shows(&mut browser, &[FIRST, SECOND, SHOP]);
    }
    quiet(&mut browser);
}

#[test]
fn the_busiest_come_first_where_that_is_asked_for() {
    let stage = Stage::up(SERVICES, &[]);
    let mut browser = open(&stage);
    let _open = [(); 3].map(|()| connect(&stage.clients[0], "10.99.0.2:80").expect("a connection"));
    let mini = "[...document.querySelectorAll('section.px')]\
                .find(one => one.querySelector('h2').textContent === '10.99.0.2_80')\
                .querySelector('.mini.k-flows b').textContent";
    browser.wait(&format!("{mini} === '3'"));
    let sort = "document.querySelector('#sort')";
    browser.eval(&format!("{sort}.focus()"));
    // By name, by trouble, by rate, by flows.
    (0..3).for_each(|_| browser.press("ArrowDown"));
    browser.wait(&format!("{sort}.value === 'flows'"));
    shows(&mut browser, &[SECOND, FIRST, SHOP]);
    (0..3).for_each(|_| browser.press("ArrowUp"));
    shows(&mut browser, &[FIRST, SECOND, SHOP]);
    quiet(&mut browser);
}

/// What has the focus, by its id or its text; the reader sees that it has.
fn focused(browser: &mut Browser) -> String {
    let told = browser.eval(
        "(() => { const node = document.activeElement; \
         return [node.id || node.getAttribute('aria-label') || node.textContent, getComputedStyle(node).outlineStyle]; \
         })()",
    );
    let [name, outline] = [0, 1].map(|part| told[part].as_str().expect("text").to_owned());
    assert_ne!(outline, "none", "{name}");
    name
}

#[test]
fn tab_goes_from_the_search_to_a_server_and_enter_opens_what_it_stands_on() {
    let stage = Stage::up(SERVICES, &[]);
    let mut browser = open(&stage);
    browser.press("/");
    browser.wait("document.activeElement.id === 'q'");
    let fold = format!("Hide the servers of {FIRST}");
    for expected in [
        "only-problems",
        "hide-down",
        "hide-maint",
        "sort",
        "unfold",
        "fold",
        "columns",
        "CSV",
        "JSON",
        &fold,
        FIRST,
    ] {
        browser.press("Tab");
        assert_eq!(focused(&mut browser), expected);
    }
    let back = |browser: &mut Browser| {
        browser.wait("document.activeElement.id === 'main'");
        browser.press("Escape");
        shows(browser, &[FIRST, SECOND, SHOP]);
    };
    browser.press("Enter");
    browser.wait(&format!(
        "document.querySelector('.leaf h2')?.textContent === '{FIRST}'"
    ));
    back(&mut browser);
    // From the service on to its first server.
    browser.press("j");
    browser.wait(&format!(
        "document.activeElement.getAttribute('aria-label') === '{fold}'"
    ));
    let server = browser.eval("document.querySelector('section.px tr.sv th a').textContent");
    let server = server.as_str().expect("a name");
    for expected in [FIRST, server] {
        browser.press("Tab");
        assert_eq!(focused(&mut browser), expected);
    }
    browser.press("Enter");
    browser.wait(&format!(
        "document.querySelector('.leaf h2')?.textContent === '{server}'"
    ));
    back(&mut browser);
    browser.press("j");
    browser.press("Enter");
    let folded = "document.activeElement.matches('button.fold[aria-expanded=false]')";
    browser.wait(folded);
    assert_eq!(
        browser.eval("document.querySelectorAll('section.px table').length"),
        Value::from(2)
    );
    quiet(&mut browser);
}
