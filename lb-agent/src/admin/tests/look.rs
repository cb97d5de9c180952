//! Questions about single flows.

use std::net::Ipv4Addr;

use lb_common::{Addr4, Address as _, Be16, TraceEvent, trace_flag};
use tokio::sync::mpsc;

use super::*;
use crate::look::{
    Explanation, Filter, FlowReport, FlowState, FlowsReport, Question, Seen, ServiceView, Told,
    TraceReport, TraceWish, Way, Whose, pcapng,
};

/// Tables with two flows, of which as many are shown as match.
pub(crate) struct Flows;

impl Look for Flows {
    fn flows(&self, filter: &Filter, limit: usize) -> anyhow::Result<FlowsReport> {
        let mut flows: Vec<_> = ["11.0.0.1:80", "11.0.0.2:80"]
            .map(|vip| FlowReport {
                protocol: Protocol::Tcp,
                client: "192.0.2.7:40000".parse().unwrap(),
                vip: vip.parse().unwrap(),
                name: None,
                backend: Some("10.0.0.1:8080".parse().unwrap()),
                how: Way::Nat,
                state: FlowState::Established,
                idle_s: 3,
                age_s: 40,
            })
            .into_iter()
            .filter(|flow| filter.matches(flow))
            .collect();
        let more = flows.len().saturating_sub(limit) as u64;
        flows.truncate(limit);
        Ok(FlowsReport { flows, more })
    }

    fn explain(&self, question: &Question) -> anyhow::Result<Explanation> {
        let mut told = Explanation::of(question, Whose::Vip);
        told.service = Some(ServiceView::default());
        anyhow::ensure!(question.vip.port() != 99, "the kernel refused it");
        Ok(told)
    }

    /// One packet with ten bytes that came and went, if it matches, and the end.
    fn trace(&self, wish: TraceWish) -> anyhow::Result<mpsc::Receiver<Told>> {
        anyhow::ensure!(wish.sample != 99, "too many");
        let (to, from) = mpsc::channel(8);
        let seen = Seen {
            event: TraceEvent {
                src: Addr4::from(Ipv4Addr::new(192, 0, 2, 7)).widen(),
                dst: Addr4::from(Ipv4Addr::new(11, 0, 0, 2)).widen(),
                new_dst: Addr4::from(Ipv4Addr::new(10, 0, 0, 1)).widen(),
                sport: Be16::new(40_000),
                dport: Be16::new(80),
                new_dport: Be16::new(8080),
                len: 60,
                flags: trace_flag::FLOW,
                family: 4,
                proto: 6,
                kind: 2,
                ..TraceEvent::default()
            },
            time_ns: 1_700_000_000_000_000_000,
            bytes: vec![7; wish.snap.min(10) as usize],
        };
        to.try_send(Told::Beat).unwrap();
        if seen.is_for(&wish.filter) {
            to.try_send(Told::Seen(Box::new(seen))).unwrap();
        }
        to.try_send(Told::Lost(3)).unwrap();
        Ok(from)
    }
}

#[test]
fn flows_are_asked_for_by_address_and_by_name_and_carry_their_vips_name() {
    let agent = Agent::start();
    let app = service(Some("app.marathon"), "11.0.0.2", 80, &["10.0.0.1:8080"]);
    agent.report.store(Arc::new(StatusReport {
        services: vec![app].into(),
        ..StatusReport::default()
    }));
    let shown = |query: &str| {
        let answer = agent.get(&format!("/v1/flows{query}"));
        assert_eq!(answer.status(), "200", "{}", answer.body);
        let found: FlowsReport = serde_json::from_str(&answer.body).unwrap();
        let flow = |flow: &FlowReport| {
            let name = flow.name.as_deref().unwrap_or("-");
            format!("{} {name}", flow.vip)
        };
        let lines: Vec<_> = found.flows.iter().map(flow).collect();
        (lines, found.more)
    };
    let (one, two) = ("11.0.0.1:80 -", "11.0.0.2:80 app.marathon");
    assert_eq!(shown(""), (vec![one.into(), two.into()], 0));
    assert_eq!(shown("?limit=1"), (vec![one.into()], 1));
    assert_eq!(shown("?vip=11.0.0.1:80"), (vec![one.into()], 0));
    for name in [
        "app.marathon",
        "app.marathon:80",
        "App.Marathon.l4lb.thisdcos.directory.",
    ] {
        assert_eq!(shown(&format!("?service={name}")), (vec![two.into()], 0));
    }
    assert_eq!(shown("?vip=11.0.0.1&service=app.marathon"), (vec![], 0));
    agent.stop();
}

#[test]
fn a_question_about_flows_that_makes_no_sense_is_refused_in_one_sentence() {
    let agent = Agent::start();
    for (query, reason) in [
        ("vip=11.0.0", "vip: neither an address nor ADDRESS:PORT"),
        ("client=x:1", "client: neither an address"),
        ("backend=", "backend: neither an address"),
        (
            "service=app",
            "service: there is no app; `lb-agent status` lists all",
        ),
        ("service=app:x", "service: x is no port"),
        ("limit=0", "limit: not a number from 1 to 100000"),
        ("limit=100001", "limit: not a number from 1 to 100000"),
    ] {
        let answer = agent.get(&format!("/v1/flows?{query}"));
        assert_eq!(answer.status(), "400", "{query}");
        assert!(answer.body.starts_with(reason), "{query}: {}", answer.body);
        assert_eq!(answer.body.lines().count(), 1, "{query}");
    }
    agent.stop();
}

#[test]
fn an_explanation_is_of_the_flow_asked_about_and_names_its_service() {
    let agent = Agent::start();
    let app = service(Some("app.marathon"), "11.0.0.2", 80, &["10.0.0.1:8080"]);
    agent.report.store(Arc::new(StatusReport {
        services: vec![app].into(),
        ..StatusReport::default()
    }));
    let target = "/v1/explain?client=192.0.2.7:40000&vip=11.0.0.2:80&local=true";
    let told: Explanation = serde_json::from_str(&agent.get(target).body).unwrap();
    assert_eq!(told.vip.to_string(), "11.0.0.2:80");
    assert_eq!(told.client.to_string(), "192.0.2.7:40000");
    assert!(told.local);
    assert_eq!(told.service.unwrap().name.as_deref(), Some("app.marathon"));
    for (query, status, reason) in [
        (
            "client=192.0.2.7&vip=11.0.0.2:80",
            "400",
            "client: not ADDRESS:PORT",
        ),
        (
            "client=192.0.2.7:1&vip=[fd00::1]:80",
            "400",
            "client and VIP must both be",
        ),
        (
            "client=192.0.2.7:1&vip=11.0.0.2:80&protocol=icmp",
            "400",
            "protocol: neither tcp nor udp",
        ),
        (
            "client=192.0.2.7:1&vip=11.0.0.2:99",
            "500",
            "the kernel refused it",
        ),
    ] {
        let answer = agent.get(&format!("/v1/explain?{query}"));
        assert_eq!(answer.status(), status, "{query}");
        assert!(answer.body.starts_with(reason), "{query}: {}", answer.body);
    }
    agent.stop();
}

#[test]
fn packets_are_told_of_line_by_line_with_names_until_nothing_more_comes() {
    let agent = Agent::start();
    let app = service(Some("app.marathon"), "11.0.0.2", 80, &["10.0.0.1:8080"]);
    agent.report.store(Arc::new(StatusReport {
        services: vec![app].into(),
        ..StatusReport::default()
    }));
    for query in [
        "",
        "?vip=app.marathon",
        "?vip=11.0.0.2:80",
        "?client=192.0.2.0/24",
        "?client=192.0.2.7",
    ] {
        let answer = agent.get(&format!("/v1/trace{query}"));
        assert_eq!(answer.status(), "200", "{query} {}", answer.body);
        let lines: Vec<_> = answer.body.lines().collect();
        assert_eq!((lines.len(), lines[0]), (3, ""), "{query} {lines:?}");
        let report: TraceReport = serde_json::from_str(lines[1]).unwrap();
        assert_eq!(report.name.as_deref(), Some("app.marathon"));
        assert_eq!(report.backend.unwrap().to_string(), "10.0.0.1:8080");
        assert_eq!(lines[2], r#"{"lost":3}"#);
    }
    let other = agent.get("/v1/trace?vip=11.0.0.3");
    assert_eq!(other.body.lines().count(), 2, "{}", other.body);
}

#[test]
fn a_wrong_question_about_packets_is_refused_with_what_is_wrong() {
    let agent = Agent::start();
    let refused = |query: &str, status: &str, reason: &str| {
        let answer = agent.get(&format!("/v1/trace?{query}"));
        assert_eq!(answer.status(), status, "{query}");
        assert!(answer.body.starts_with(reason), "{query} {}", answer.body);
    };
    refused("vip=none.marathon", "400", "vip: there is no none.marathon");
    refused("client=there", "400", "client: neither an address");
    refused(
        "reason=bad_luck",
        "400",
        "reason: there is no bad_luck; there are malformed,",
    );
    refused("sample=0", "400", "sample: not a number");
    refused("snap=5000", "400", "snap: not a number from 1 to 2047");
    refused("sample=99", "503", "too many");
}

#[test]
fn captured_packets_are_a_file() {
    let agent = Agent::start();
    let body = agent.get_bytes("/v1/capture?snap=9");
    assert_eq!(body[..4], 0x0a0d_0d0a_u32.to_ne_bytes());
    assert_eq!(pcapng::packets(&body, 9), (1, body.len()));
}
