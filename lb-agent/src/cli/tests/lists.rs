//! `services` and `backends`, `completions` and `man`.

use std::sync::Arc;

use clap::CommandFactory as _;

use super::*;

/// What a command line prints about the example.
fn printed(args: &[&str]) -> Result<String, CliError> {
    printed_of(&example(), args)
}

fn printed_of(report: &StatusReport, args: &[&str]) -> Result<String, CliError> {
    let dir = TempDir::new().unwrap();
    answer_once(&dir, ok(report));
    let command = parse(args).unwrap().command.unwrap();
    let (text, outcome) = execute_in(&dir, command, no_purge);
    outcome.map(|()| text)
}

#[test]
fn services_are_one_line_each() {
    let text = printed(&["services"]).unwrap();
    assert_eq!(text, include_str!("../golden/services.txt"));
    let one = printed(&["services", "dcos-101app2.marathon:10000"]).unwrap();
    assert_eq!(one.lines().count(), 2, "{one}");
    let json = printed(&["services", "10.1.2.3", "--json"]).unwrap();
    let services: Vec<ServiceReport> = serde_json::from_str(&json).unwrap();
    assert_eq!(services, example().services[1..]);
}

#[test]
fn backends_are_one_line_each_with_the_reason_for_their_state() {
    let text = printed(&["backends"]).unwrap();
    assert_eq!(text, include_str!("../golden/backends.txt"));
    let json = printed(&["backends", "11.68.84.23:10000/tcp", "--json"]).unwrap();
    let backends: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    assert_eq!(backends.len(), 3);
    for (shown, of) in backends.iter().zip(&example().services[0].backends) {
        assert_eq!(shown["service"], "dcos-101app2.marathon:10000/tcp");
        let backend: BackendReport = serde_json::from_value(shown.clone()).unwrap();
        assert_eq!(backend, *of);
    }
}

#[test]
fn what_could_not_be_counted_is_no_0() {
    let mut report = example();
    let service = &mut Arc::make_mut(&mut report.services)[0];
    service.traffic.unread = true;
    service.backends[0].traffic.unread = true;
    for (command, counted) in [("services", "3400"), ("backends", "3000")] {
        assert!(printed(&[command]).unwrap().contains(counted), "{command}");
        let text = printed_of(&report, &[command]).unwrap();
        let line = text.lines().nth(1).unwrap();
        assert!(line.contains(" ? ") && !line.contains(counted), "{text}");
    }
}

#[test]
fn a_service_that_is_not_there_is_a_failure_that_scripts_see() {
    for command in ["services", "backends"] {
        let error = printed(&[command, "app9\u{1b}[2J"]).unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), error.code()),
            (
                "there is no service app9\\u{1b}[2J; `lb-agent services` lists all",
                EXIT_FAILED
            )
        );
    }
}

#[cfg(feature = "tui")]
#[test]
fn top_needs_no_terminal_to_print_the_busiest_first() {
    use serde_json::{Value, json};
    let traffic = json!({"flows_active": 3, "bytes_in": 2_048, "bytes_out": null});
    let backend = |addr: &str, rate: u64| {
        json!({
            "addr": addr, "status": "UP", "why": null, "weight": 1, "share": 0.5, "rate": rate,
            "connect_us": 1_500, "failed": 0, "traffic": traffic,
        })
    };
    let service = json!({
        "pxname": "web_80", "name": "web", "addrs": ["11.0.0.1"], "port": 80, "protocol": "tcp", "status": "UP",
        "weight": 2, "rate": 9, "connect_us": null, "failed": 0, "traffic": traffic,
        "backends": [backend("10.0.0.1:80", 1), backend("10.0.0.2:80", 8)],
    });
    let stats = json!({"agent": {"version": "1", "node": "n1"}, "services": [service]});
    let dir = TempDir::new().unwrap();
    let agent = answer_once(&dir, ok(&stats));
    let command = parse(&["top", "--json"]).unwrap().command.unwrap();
    let (text, outcome) = execute_in(&dir, command, no_purge);
    outcome.unwrap();
    assert_eq!(agent.join().unwrap(), "GET /v1/stats HTTP/1.0");
    let lines: Vec<Value> = serde_json::from_str(&text).unwrap();
    let busiest = json!({
        "service": "web_80", "backend": "10.0.0.2:80", "status": "UP", "why": "", "weight": 1, "rate": 8, "flows": 3,
        "bytes_in": 2_048, "bytes_out": null, "errors": 0, "connect_us": 1_500,
    });
    assert_eq!(lines[0], busiest);
    assert_eq!(lines[1]["backend"], "10.0.0.1:80");
    assert_eq!(lines.len(), 2);
}

#[test]
fn completions_know_every_command_and_flag() {
    for shell in ["bash", "zsh", "fish"] {
        let dir = TempDir::new().unwrap();
        let command = parse(&["completions", shell]).unwrap().command.unwrap();
        let script = execute_in(&dir, command, no_purge).0;
        for command in Cli::command().get_subcommands() {
            assert!(script.contains(command.get_name()), "{shell}: {command}");
        }
        let flag = if shell == "fish" { "iface" } else { "--iface" };
        assert!(script.contains(flag), "{shell}");
    }
    assert_eq!(
        mistake(&["completions", "ksh"]),
        "<SHELL>: ksh is none of bash, elvish, fish, powershell, zsh"
    );
}

#[test]
fn every_command_has_a_manual_page() {
    let dir = TempDir::new().unwrap();
    let page = execute_in(&dir, parse(&["man"]).unwrap().command.unwrap(), no_purge).0;
    assert!(page.contains(".TH lb-agent 1") && page.contains("Exit codes"));
    assert!(text::EXAMPLES.ends_with(text::EXIT_CODES));
    let pages = dir.path().join("share/man1");
    let at = pages.to_str().unwrap();
    let command = parse(&["man", "--dir", at]).unwrap().command.unwrap();
    execute_in(&dir, command, no_purge).1.unwrap();
    assert_eq!(
        std::fs::read_to_string(pages.join("lb-agent.1")).unwrap(),
        page
    );
    for command in Cli::command().get_subcommands() {
        let page = pages.join(format!("lb-agent-{}.1", command.get_name()));
        let text = std::fs::read_to_string(&page).unwrap();
        assert!(
            text.contains("SYNOPSIS") && text.contains("Exit codes"),
            "{text}"
        );
    }
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let command = parse(&["man", "--dir", file.to_str().unwrap()]).unwrap();
    let error = execute_in(&dir, command.command.unwrap(), no_purge)
        .1
        .unwrap_err();
    assert!(error.to_string().starts_with("cannot write "), "{error}");
}
