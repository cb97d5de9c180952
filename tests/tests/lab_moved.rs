//! The VIP of a running service is added to, renamed and moved: what is under way goes on.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
};

use lb_tests::stage::{Stage, connect};
use serde_json::Value;

const POOL: [&str; 2] = ["--vip-pool-v4", "10.99.1.1-10.99.255.254"];

/// A file in which the same servers are behind each of these VIPs.
fn file(vips: &[(&str, u16)]) -> String {
    let one = |(name, port): &(&str, u16)| {
        format!(
            "- {{name: {name}, port: {port}, backends: ['10.77.0.11:80', '10.77.0.12:80', '10.77.0.13:80']}}\n"
        )
    };
    let all: String = vips.iter().map(one).collect();
    format!("services:\n{all}")
}

/// `10.99.7.7:80`, if `status` has the VIP.
fn vip(status: &Value, name: &str, port: u16) -> Option<String> {
    let mut services = status["services"].as_array()?.iter();
    let full = format!("{name}.file");
    let found = services.find(|one| one["name"] == full && one["port"] == port)?;
    Some(format!("{}:{port}", found["addrs"][0].as_str()?))
}

/// Whether what is sent comes back.
fn echoes(mut stream: &TcpStream) -> bool {
    let sent = stream.write_all(b"x");
    sent.and_then(|()| stream.read_exact(&mut [0])).is_ok()
}

#[test]
fn a_vip_is_added_renamed_and_moved_and_its_connections_go_on() {
    let steps: [&[(&str, u16)]; 4] = [
        &[("web", 80)],
        &[("web", 80), ("www", 80)],
        &[("www", 80)],
        &[("www", 81)],
    ];
    let stage = Stage::up(&file(steps[0]), &POOL);
    let client = &stage.clients[0];
    let pid = stage.status()["agent"]["pid"].clone();
    let (mut under_way, mut before) = (Vec::new(), Vec::<(&str, u16)>::new());
    for step in steps {
        let old: Vec<String> = before
            .iter()
            .filter(|one| !step.contains(one))
            .filter_map(|(name, port)| vip(&stage.status(), name, *port))
            .collect();
        stage.write(&file(step), |status| {
            let has = |one: &(&str, u16)| vip(status, one.0, one.1).is_some();
            let mut left = before.iter().filter(|one| has(one));
            step.iter().all(has) && left.all(|one| step.contains(one))
        });
        for (name, port) in step {
            let vip = vip(&stage.status(), name, *port).expect("a VIP");
            for _ in 0..6 {
                let (stream, _) = connect(client, &vip).expect("a new connection");
                under_way.push((step, stream));
            }
        }
        for gone in old {
            let why = connect(client, &gone).expect_err("nobody is there");
            assert_eq!(why.kind(), ErrorKind::ConnectionRefused, "{gone}");
        }
        for (since, stream) in &under_way {
            assert!(echoes(stream), "one since {since:?}, now {step:?}");
        }
        before = step.to_vec();
    }
    assert_eq!(stage.status()["agent"]["pid"], pid, "without a restart");
}
