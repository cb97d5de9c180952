use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};
use serde_json::json;

use super::{
    model::{Action, Sort, Stats, Target, Top},
    view::{self, bytes, time},
};

fn backend(addr: &str, status: &str, rate: u64, flows: u64, failed: u64) -> serde_json::Value {
    json!({
        "sid": 1, "svname": "x", "addr": addr, "status": status, "why": null, "weight": 1,
        "share": if status == "UP" { 0.5 } else { 0.0 },
        "rate": rate, "connect_us": 1_500, "failed": failed,
        "traffic": {"flows_active": flows, "bytes_in": 2_048, "bytes_out": null},
    })
}

fn stats(backends: serde_json::Value) -> Stats {
    let service = json!({
        "iid": 7, "pxname": "web_80", "name": "web", "addrs": ["11.0.0.1"], "port": 80, "protocol": "tcp", "status": "UP",
        "weight": 3, "rate": 60, "connect_us": null, "failed": 4,
        "traffic": {"flows_active": 30, "bytes_in": 1, "bytes_out": 2}, "backends": backends,
    });
    let agent = json!({"version": "0.1.0", "node": "n1", "pid": 1});
    let all = json!({"agent": agent, "rate": 60, "flows_active": 30, "services": [service]});
    serde_json::from_value(all).unwrap()
}

fn three() -> Stats {
    stats(json!([
        backend("10.0.0.1:80", "UP", 10, 20, 0),
        backend("10.0.0.2:80", "UP", 50, 5, 0),
        backend("10.0.0.3:80", "DOWN", 0, 5, 4),
    ]))
}

fn shown(top: &mut Top) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(120, 8)).unwrap();
    terminal.draw(|frame| view::draw(frame, top)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| {
        (0..120)
            .map(|x| buffer[(x, y)].symbol())
            .collect::<String>()
    };
    (0..8).map(|y| line(y).trim_end().to_owned()).collect()
}

fn press(top: &mut Top, code: KeyCode) -> Option<Action> {
    top.press(KeyEvent::new(code, KeyModifiers::NONE))
}

fn type_text(top: &mut Top, text: &str) -> Option<Action> {
    let mut last = None;
    for c in text.chars() {
        last = press(top, KeyCode::Char(c));
    }
    last
}

fn order(top: &mut Top) -> Vec<String> {
    let lines = shown(top);
    let addr = |line: &String| line.split_whitespace().nth(1).map(str::to_owned);
    lines[3..]
        .iter()
        .filter(|line| line.starts_with("web_80"))
        .filter_map(addr)
        .collect()
}

#[test]
fn the_busiest_comes_first_and_keys_change_what_that_means() {
    let mut top = Top::new(Sort::Rate);
    top.take(three());
    let lines = shown(&mut top);
    assert_eq!(
        lines[0],
        "lb-agent 0.1.0 on n1: 1 services, 2 of 3 backends up, 30 flows, 60 new a second"
    );
    assert!(lines[2].starts_with("SERVICE"), "{lines:?}");
    assert!(
        lines[3].contains("1.5ms") && lines[3].contains("2.0K"),
        "{lines:?}"
    );
    assert_eq!(
        order(&mut top),
        ["10.0.0.2:80", "10.0.0.1:80", "10.0.0.3:80"]
    );
    type_text(&mut top, "f");
    assert_eq!(
        order(&mut top),
        ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]
    );
    type_text(&mut top, "e");
    assert_eq!(order(&mut top)[0], "10.0.0.3:80");
    press(&mut top, KeyCode::Tab);
    assert!(shown(&mut top)[3].contains("2 of 3 take flows"));
}

#[test]
fn who_waits_takes_no_flows() {
    let mut waits = backend("10.0.0.2:80", "UP", 0, 0, 0);
    waits["share"] = json!(0.0);
    let mut top = Top::new(Sort::Rate);
    top.take(stats(json!([backend("10.0.0.1:80", "UP", 1, 1, 0), waits])));
    press(&mut top, KeyCode::Tab);
    assert!(shown(&mut top)[3].contains("1 of 2 take flows"));
}

#[test]
fn a_backend_is_drained_only_after_a_yes() {
    let mut top = Top::new(Sort::Rate);
    top.take(three());
    press(&mut top, KeyCode::Down);
    assert_eq!(type_text(&mut top, "d"), None);
    assert_eq!(shown(&mut top)[7], "Drain 10.0.0.1:80 of web:80/tcp? y/n");
    assert_eq!(type_text(&mut top, "n"), None);
    type_text(&mut top, "d");
    let target = Target {
        service: "web:80/tcp".to_owned(),
        backend: "10.0.0.1:80".parse().unwrap(),
    };
    let action = type_text(&mut top, "y").unwrap();
    assert_eq!(action, Action::Drain(target));
    let (page, query) = action.order().unwrap();
    assert_eq!(page, "/v1/drain");
    assert_eq!(
        query,
        [
            ("backend", "10.0.0.1:80".into()),
            ("service", "web:80/tcp".into())
        ]
    );
    press(&mut top, KeyCode::Tab);
    type_text(&mut top, "d");
    assert!(shown(&mut top)[7].starts_with("Choose a backend"));
}

#[test]
fn the_chosen_backend_stays_chosen_when_numbers_move_it() {
    let mut top = Top::new(Sort::Rate);
    top.take(three());
    press(&mut top, KeyCode::Down);
    top.take(stats(json!([
        backend("10.0.0.3:80", "UP", 90, 0, 0),
        backend("10.0.0.2:80", "UP", 50, 5, 0),
        backend("10.0.0.1:80", "UP", 10, 20, 0),
    ])));
    assert_eq!(top.chosen(), Some(2));
    type_text(&mut top, "a");
    assert_eq!(
        shown(&mut top)[7],
        "Bring back 10.0.0.1:80 of web:80/tcp? y/n"
    );
}

#[test]
fn a_search_leaves_what_matches_and_escape_ends_it() {
    let mut top = Top::new(Sort::Rate);
    top.take(three());
    type_text(&mut top, "/DOWN");
    assert_eq!(order(&mut top), ["10.0.0.3:80"]);
    type_text(&mut top, "q");
    assert!(
        order(&mut top).is_empty(),
        "a letter of the search ends nothing"
    );
    assert_eq!(press(&mut top, KeyCode::Esc), None);
    assert_eq!(order(&mut top).len(), 3);
    assert_eq!(type_text(&mut top, "q"), Some(Action::Leave));
}

#[test]
fn an_empty_list_and_odd_names_are_no_trouble() {
    let mut top = Top::new(Sort::Name);
    assert_eq!(press(&mut top, KeyCode::Down), None);
    type_text(&mut top, "d");
    shown(&mut top);
    let mut odd = three();
    odd.services[0].pxname = "\u{1b}[31mred\u{7}".to_owned();
    top.take(odd);
    let lines = shown(&mut top).concat();
    assert!(
        !lines.contains('\u{1b}') && !lines.contains('\u{7}'),
        "{lines:?}"
    );
}

#[test]
fn numbers_stay_short() {
    for (count, expected) in [
        (0, "0"),
        (1_023, "1023"),
        (1_536, "1.5K"),
        (u64::MAX, "16.0E"),
    ] {
        assert_eq!(bytes(count), expected);
    }
    for (us, expected) in [(400, "0.4ms"), (25_000, "25ms"), (12_000_000, "12s")] {
        assert_eq!(time(us), expected);
    }
}
