//! What is printed of single packets, and written of them.

use super::*;
use crate::look::*;

fn command(args: &[&str]) -> Command {
    parse(args).unwrap().command.unwrap()
}

fn traced(flow: Option<Age>) -> TraceReport {
    TraceReport {
        time_ns: 1_700_000_000_123_456_789,
        hook: Place::Xdp,
        interface: Some("eth0".into()),
        protocol: "tcp".into(),
        from: Some("192.0.2.7:40000".parse().unwrap()),
        to: "11.68.84.23:10000".parse().unwrap(),
        detail: "S".into(),
        fragment: false,
        bytes: 74,
        flow,
        client: Some("192.0.2.7:40000".parse().unwrap()),
        vip: "11.68.84.23:10000".parse().unwrap(),
        name: Some("dcos-101app2.marathon".into()),
        backend: flow.map(|_| "10.0.3.9:11017".parse().unwrap()),
        task: flow.map(|_| "app2.4b1c".into()),
        how: flow.map(|_| Way::Nat),
        then: Outcome::Sent,
        reasons: Vec::new(),
    }
}

#[test]
fn a_traced_packet_is_one_line() {
    assert_eq!(
        render::traced(&traced(Some(Age::New))),
        "22:13:20.123456 xdp eth0 tcp 192.0.2.7:40000 > 11.68.84.23:10000 [S] 74 bytes: \
         dcos-101app2.marathon new flow, backend 10.0.3.9:11017 (app2.4b1c) by nat, sent\n"
    );
    let refused = TraceReport {
        then: Outcome::Refused,
        reasons: vec!["no_backend".into(), "backend_full".into()],
        ..traced(None)
    };
    let line = render::traced(&refused);
    let end = ": dcos-101app2.marathon refused (no_backend, backend_full)\n";
    assert!(line.ends_with(end), "{line}");
    let call = TraceReport {
        hook: Place::Connect,
        interface: None,
        from: None,
        detail: String::new(),
        bytes: 0,
        then: Outcome::Passed,
        ..traced(Some(Age::New))
    };
    let line = render::traced(&call);
    let middle = " connect tcp a process > 11.68.84.23:10000: dcos-101app2.marathon backend ";
    assert!(line.contains(middle), "{line}");
}

#[test]
fn a_traced_packet_keeps_to_its_line_whatever_its_names_are() {
    let nasty = TraceReport {
        name: Some("a\nb\u{1b}[31m".into()),
        task: Some("c\rd".into()),
        ..traced(Some(Age::Known))
    };
    let line = render::traced(&nasty);
    assert_eq!(line.lines().count(), 1, "{line:?}");
    assert!(!line.contains(['\u{1b}', '\r']), "{line:?}");
}

#[test]
fn traces_and_captures_are_asked_for_by_flags() {
    let Command::Trace { which, json } = command(&[
        "trace",
        "--vip",
        "app.marathon:80",
        "--client",
        "192.0.2.0/24",
        "--reason",
        "no_service",
        "--sample",
        "10",
        "--count",
        "3",
        "--for",
        "5",
    ]) else {
        panic!("another command")
    };
    assert!(!json);
    assert_eq!((which.count, which.seconds), (Some(3), Some(5)));
    let pairs = which.query();
    let query: Vec<_> = pairs.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let wanted = [
        "vip=app.marathon:80",
        "client=192.0.2.0/24",
        "reason=no_service",
        "sample=10",
    ];
    assert_eq!(query, wanted);
    let Command::Capture(args) = command(&["capture", "-w", "-", "--snap", "96"]) else {
        panic!("another command")
    };
    assert_eq!(args.query(), [("snap", "96".to_owned())]);
    for wrong in [
        &["capture", "--snap", "2048"],
        &["trace", "--count", "0"],
        &["trace", "--sample", "0"],
        &["trace", "--for", "-1"],
    ] {
        assert!(parse(wrong).is_err(), "{wrong:?}");
    }
}

/// An answer of lines: one that only says that it goes on, two packets, and what was lost.
fn lines() -> String {
    let line = |flow| serde_json::to_string(&traced(flow)).unwrap();
    let (one, two) = (line(Some(Age::New)), line(None));
    format!("HTTP/1.0 200 OK\r\n\r\n\n{one}\n{{\"lost\":3}}\n{two}\n")
}

fn trace(flags: &[&str]) -> Command {
    command(&[&["trace"], flags].concat())
}

#[test]
fn a_trace_ends_after_as_many_as_were_asked_for() {
    let dir = TempDir::new().unwrap();
    answer_once(&dir, lines());
    let (text, outcome) = execute_in(&dir, trace(&["--count", "1"]), no_purge);
    outcome.unwrap();
    assert_eq!(text, render::traced(&traced(Some(Age::New))));
}

#[test]
fn json_of_a_trace_is_handed_on_line_by_line() {
    let dir = TempDir::new().unwrap();
    answer_once(&dir, lines());
    let flags = ["--json", "--count", "2"];
    let (text, outcome) = execute_in(&dir, trace(&flags), no_purge);
    outcome.unwrap();
    assert!(lines().ends_with(&text), "{text}");
    assert_eq!(text.lines().count(), 3);
}

#[test]
fn a_trace_that_the_agent_ends_is_a_failure() {
    let dir = TempDir::new().unwrap();
    answer_once(&dir, lines());
    let (text, outcome) = execute_in(&dir, trace(&[]), no_purge);
    assert_eq!(text.lines().count(), 2, "{text}");
    let error = outcome.unwrap_err().to_string();
    assert!(error.ends_with("did not answer: it has ended"), "{error}");
}

#[test]
fn a_refused_trace_says_why() {
    let dir = TempDir::new().unwrap();
    let answer =
        "HTTP/1.0 400 Bad Request\r\n\r\nvip: there is no a; `lb-agent status` lists all\n";
    answer_once(&dir, answer.to_owned());
    let error = execute_in(&dir, trace(&["--vip", "a"]), no_purge).1;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("400 vip: there is no a;"), "{error}");
}

#[test]
fn without_an_agent_nothing_is_traced_or_captured() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    let file = file.to_str().unwrap();
    for command in [trace(&[]), command(&["capture", "-w", file])] {
        let error = execute_in(&dir, command, no_purge).1.unwrap_err();
        assert_eq!(error.code(), EXIT_NOT_RUNNING, "{error}");
    }
    assert!(!dir.path().join("file").exists(), "nothing was written");
}

#[test]
fn a_capture_is_written_to_its_file_up_to_the_last_packet_asked_for() {
    let dir = TempDir::new().unwrap();
    let mut pcap = pcapng::Pcapng::new(64);
    let packet = pcapng::Captured {
        time_ns: 1,
        bytes: &[b'x'; 20],
        len: 20,
        direction: pcapng::Direction::Inbound,
        comment: "as it came",
    };
    let two = [pcap.header(), pcap.packet("eth0", &packet)].concat();
    let three = [two.clone(), pcap.packet("eth0", &packet)].concat();
    answer_once(
        &dir,
        [b"HTTP/1.0 200 OK\r\n\r\n", three.as_slice()].concat(),
    );
    let file = dir.path().join("file");
    let args = ["capture", "--count", "1", "-w", file.to_str().unwrap()];
    execute_in(&dir, command(&args), no_purge).1.unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), two);
}
