//! What is printed of single flows.

use super::*;
use crate::look::*;

fn command(args: &[&str]) -> Command {
    parse(args).unwrap().command.unwrap()
}

fn flow(client: &str, vip: &str, backend: Option<&str>) -> FlowReport {
    FlowReport {
        protocol: Protocol::Tcp,
        client: client.parse().unwrap(),
        vip: vip.parse().unwrap(),
        name: Some("dcos-101app2.marathon".into()),
        backend: backend.map(|at| at.parse().unwrap()),
        how: Way::Nat,
        state: FlowState::Established,
        idle_s: 3,
        age_s: 40,
    }
}

/// One of every kind.
fn flows() -> FlowsReport {
    let (v4, v6) = ("11.68.84.23:10000", "[fd01:c::68c7:ae1c:a5d:109c]:10000");
    let of = |client, vip, backend, how, state, idle_s| FlowReport {
        how,
        state,
        idle_s,
        ..flow(client, vip, backend)
    };
    let (near, far) = (Some("10.0.1.5:28543"), Some("10.0.3.9:11017"));
    FlowsReport {
        flows: vec![
            of(
                "192.0.2.7:40000",
                v4,
                far,
                Way::Nat,
                FlowState::Established,
                3,
            ),
            of(
                "192.0.2.7:40001",
                v4,
                near,
                Way::Host,
                FlowState::HalfOpen,
                0,
            ),
            of(
                "192.0.2.8:40000",
                v4,
                near,
                Way::Link,
                FlowState::Closing,
                61,
            ),
            of(
                "[2001:db8::7]:40000",
                v6,
                None,
                Way::DsrL2,
                FlowState::Reset,
                9,
            ),
            FlowReport {
                protocol: Protocol::Udp,
                name: None,
                ..of(
                    "192.0.2.9:53000",
                    "10.1.2.3:5000",
                    far,
                    Way::DsrIpip,
                    FlowState::OneWay,
                    45,
                )
            },
            of(
                "192.0.2.9:53001",
                v4,
                far,
                Way::DsrGeneve,
                FlowState::Established,
                1,
            ),
        ],
        more: 48_211,
    }
}

#[test]
fn flows_prints_a_line_each_and_how_many_more_there_are() {
    let dir = TempDir::new().unwrap();
    let agent = answer_once(&dir, ok(&flows()));
    let asked = command(&[
        "flows",
        "--vip",
        "11.68.84.23",
        "--client",
        "[2001:db8::7]:40000",
        "--backend",
        "10.0.1.5:28543",
        "--service",
        "dcos-101app2.marathon:10000",
        "--limit",
        "5",
    ]);
    let (text, outcome) = execute_in(&dir, asked, no_purge);
    outcome.unwrap();
    assert_eq!(text, include_str!("../golden/flows.txt"));
    assert_eq!(
        agent.join().unwrap(),
        "GET /v1/flows?vip=11.68.84.23&client=%5B2001%3Adb8%3A%3A7%5D%3A40000&\
         backend=10.0.1.5%3A28543&service=dcos-101app2.marathon%3A10000&limit=5 HTTP/1.0"
    );
}

#[test]
fn flows_as_json_can_be_read_back() {
    let dir = TempDir::new().unwrap();
    let agent = answer_once(&dir, ok(&flows()));
    let (text, outcome) = execute_in(&dir, command(&["flows", "--json"]), no_purge);
    outcome.unwrap();
    assert_eq!(serde_json::from_str::<FlowsReport>(&text).unwrap(), flows());
    assert_eq!(agent.join().unwrap(), "GET /v1/flows?limit=1000 HTTP/1.0");
}

#[test]
fn where_nothing_matches_a_word_says_so() {
    let dir = TempDir::new().unwrap();
    answer_once(&dir, ok(&FlowsReport::default()));
    let (text, outcome) = execute_in(&dir, command(&["flows"]), no_purge);
    outcome.unwrap();
    assert_eq!(text, "no flow matches\n");
}

#[test]
fn a_filter_that_makes_no_sense_is_a_mistake_before_anybody_is_asked() {
    assert_eq!(
        mistake(&["flows", "--vip", "11.0.0"]),
        "invalid value '11.0.0' for '--vip <ADDR[:PORT]>': neither an address nor ADDRESS:PORT; an IPv6 address \
         with a port is [ADDRESS]:PORT; see lb-agent --help"
    );
    assert_eq!(
        mistake(&["flows", "--limit", "0"]),
        "invalid value '0' for '--limit <N>': not a number from 1 to 100000; see lb-agent --help"
    );
    assert_eq!(
        mistake(&["flows", "--cleint", "10.0.0.1"]),
        "unknown flag --cleint; did you mean --client?"
    );
}

#[test]
fn without_an_agent_flows_end_with_code_3() {
    let dir = TempDir::new().unwrap();
    let error = execute_in(&dir, command(&["flows"]), no_purge)
        .1
        .unwrap_err();
    assert_eq!(error.code(), EXIT_NOT_RUNNING);
}

/// A client without a flow, at a service of which one backend is full.
fn explained() -> Explanation {
    let question = Question {
        protocol: Protocol::Tcp,
        client: "192.0.2.7:40000".parse().unwrap(),
        vip: "11.68.84.23:10000".parse().unwrap(),
        local: false,
    };
    let (near, far) = ("10.0.1.5:28543", "10.0.3.9:11017");
    let candidate = |at: &str, slots, flows, max_flows| Candidate {
        backend: at.parse().unwrap(),
        state: "active".into(),
        slots,
        flows,
        max_flows,
    };
    Explanation {
        service: Some(ServiceView {
            name: Some("dcos-101app2.marathon".into()),
            id: 3,
            algorithm: "maglev".into(),
            mode: "nat".into(),
            slots: 1021,
            affinity_s: 60,
            flows: 12,
            max_flows: 500,
            fail_open: false,
        }),
        source: Some(SourceView {
            allowed: true,
            why: "the service is open to the outside".into(),
        }),
        choice: Some(Choice {
            backend: far.parse().unwrap(),
            how: Some(Way::Nat),
            why: "the hash of the client's address and of both ports".into(),
            certain: true,
            slot: Some(700),
            passed_over: vec![Passed {
                backend: Some(near.parse().unwrap()),
                slot: 17,
                why: "has all 10 flows that it may have".into(),
            }],
        }),
        backends: vec![candidate(near, 511, 10, 10), candidate(far, 510, 2, 0)],
        ..Explanation::of(&question, Whose::Vip)
    }
}

fn printed(told: &Explanation) -> String {
    let dir = TempDir::new().unwrap();
    answer_once(&dir, ok(told));
    let asked = command(&["explain", "192.0.2.7:40000", "11.68.84.23:10000"]);
    let (text, outcome) = execute_in(&dir, asked, no_purge);
    outcome.unwrap();
    text
}

#[test]
fn explain_says_step_by_step_how_a_new_flow_comes_to_its_backend() {
    assert_eq!(printed(&explained()), include_str!("../golden/explain.txt"));
    let dir = TempDir::new().unwrap();
    let agent = answer_once(&dir, ok(&explained()));
    let asked = command(&[
        "explain",
        "192.0.2.7:1",
        "11.0.0.1:53",
        "--udp",
        "--local",
        "--json",
    ]);
    let (text, outcome) = execute_in(&dir, asked, no_purge);
    outcome.unwrap();
    assert_eq!(
        serde_json::from_str::<Explanation>(&text).unwrap(),
        explained()
    );
    assert_eq!(
        agent.join().unwrap(),
        "GET /v1/explain?client=192.0.2.7%3A1&vip=11.0.0.1%3A53&protocol=udp&local=true HTTP/1.0"
    );
}

#[test]
fn explain_ends_with_what_becomes_of_the_flow() {
    let outcome = |told: &Explanation| {
        let text = printed(told);
        let last = text.lines().last().unwrap();
        last.strip_prefix("outcome  ").unwrap().to_owned()
    };
    let new = explained();
    let of_chance = Explanation {
        choice: new.choice.clone().map(|choice| Choice {
            certain: false,
            slot: None,
            how: None,
            why: "a slot drawn at random".into(),
            ..choice
        }),
        ..new.clone()
    };
    assert_eq!(
        outcome(&of_chance),
        "perhaps 10.0.3.9:11017: a slot drawn at random"
    );
    let known = Explanation {
        flow: Some(flow(
            "192.0.2.7:40000",
            "11.68.84.23:10000",
            Some("10.0.1.5:28543"),
        )),
        choice: None,
        ..new.clone()
    };
    assert_eq!(outcome(&known), "goes on to 10.0.1.5:28543");
    let refused = Explanation {
        choice: None,
        refused: Some(Refusal {
            reason: "service_full".into(),
            then: "refused: the client is told at once".into(),
        }),
        ..new.clone()
    };
    assert_eq!(
        outcome(&refused),
        "refused: the client is told at once (service_full)"
    );
    let foreign = Explanation {
        service: None,
        choice: None,
        backends: vec![],
        address: Whose::Foreign,
        ..new
    };
    assert_eq!(outcome(&foreign), "left to the network stack, untouched");
}

#[test]
fn explain_wants_two_places() {
    assert_eq!(
        mistake(&["explain", "192.0.2.7", "11.0.0.1:80"]),
        "invalid value '192.0.2.7' for '<CLIENT:PORT>': not ADDRESS:PORT, which for IPv6 is [ADDRESS]:PORT; see \
         lb-agent --help"
    );
    assert!(mistake(&["explain"]).contains("missing"));
}

#[test]
fn text_from_outside_cannot_command_the_terminal() {
    let mut report = StatusReport::default();
    report
        .warnings
        .push("\u{1b}[2Jgone\nFAKE LINE \u{202e}".to_owned());
    let text = render::status(&report);
    assert!(
        text.contains("\\u{1b}[2Jgone\\u{a}FAKE LINE \\u{202e}"),
        "{text}"
    );
}
